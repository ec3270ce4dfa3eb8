//! Moving slots from one primary to another while clients go on, one slot after the other.
//!
//! The steps are those of the cluster specification: the target imports, the source migrates, the keys go
//! over in batches, then target, source and the other primaries learn the new owner, in this order: a
//! target that dies before it knows would leave the slot to nobody.

use std::net::SocketAddr;
use std::ops::RangeInclusive;

use super::cluster::Cluster;
use super::error::LaunchError;
use super::wire::{Control, Reply};

/// Keys moved at once: a few milliseconds of the source's time.
const BATCH: &str = "100";
/// Milliseconds in which a batch must be over.
const MIGRATE_TIMEOUT: &str = "5000";

impl Cluster {
    /// Moves slots with their keys from one primary to another.
    ///
    /// Clients see ASK for keys that have gone ahead, TRYAGAIN for several keys of which some have, and MOVED afterwards.
    ///
    /// # Errors
    ///
    /// [`LaunchError::Refused`] when `from` does not serve one of the slots; the slots before it have moved.
    ///
    /// # Cancel safety
    ///
    /// A cancelled call may leave one slot half moved; calling it again for the slots that are left finishes the move.
    pub async fn reshard(
        &self,
        slots: RangeInclusive<u16>,
        from: SocketAddr,
        to: SocketAddr,
    ) -> Result<(), LaunchError> {
        let mut source = self.nodes.control(from).await?;
        let mut target = self.nodes.control(to).await?;
        let source_id = id(&mut source, from).await?;
        let target_id = id(&mut target, to).await?;
        let mut others = Vec::new();
        for node in self.view(to).await? {
            // One without slots may be a replica already of which the news has not come this far.
            let is_other = node.addr != from && node.addr != to;
            if is_other && node.is_primary() && !node.slots.is_empty() {
                others.push(self.nodes.control(node.addr).await?);
            }
        }
        for slot in slots {
            let slot = slot.to_string();
            target.command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source_id]).await?;
            source.command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target_id]).await?;
            self.move_keys(&mut source, &slot, to).await?;
            for control in [&mut target, &mut source].into_iter().chain(&mut others) {
                control.command(&["CLUSTER", "SETSLOT", &slot, "NODE", &target_id]).await?;
            }
        }
        Ok(())
    }

    async fn move_keys(&self, source: &mut Control, slot: &str, to: SocketAddr) -> Result<(), LaunchError> {
        let (ip, port) = (to.ip().to_string(), to.port().to_string());
        loop {
            let keys = source.command(&["CLUSTER", "GETKEYSINSLOT", slot, BATCH]).await?;
            if keys.items().is_empty() {
                return Ok(());
            }
            let mut migrate: Vec<&[u8]> =
                vec![b"MIGRATE", ip.as_bytes(), port.as_bytes(), b"", b"0", MIGRATE_TIMEOUT.as_bytes()];
            if let Some(password) = &self.password {
                migrate.extend([b"AUTH".as_slice(), password.as_bytes()]);
            }
            migrate.push(b"KEYS");
            migrate.extend(keys.items().iter().filter_map(|key| match key {
                Reply::Bulk(key) => Some(key.as_slice()),
                _ => None,
            }));
            // NOKEY is fine: the keys expired or were deleted meanwhile.
            source.command_bytes(&migrate).await?;
        }
    }
}

async fn id(control: &mut Control, addr: SocketAddr) -> Result<String, LaunchError> {
    let id = control.command(&["CLUSTER", "MYID"]).await?;
    id.text().map(str::to_owned).ok_or(LaunchError::Protocol { addr })
}
