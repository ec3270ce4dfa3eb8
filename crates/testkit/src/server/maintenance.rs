//! What a hosted Redis announces about its own maintenance: who opted in, what is told, and what late joiners hear.

use std::time::Duration;

use evenkeel_protocol::{Endpoint, Notice};
use tokio::time::Instant;

use super::{
    config::Config,
    conn::ConnKey,
    engine::Engine,
    out::{Out, Proto},
};

/// What becomes of `CLIENT MAINT_NOTIFICATIONS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MaintenanceSupport {
    /// Refused: known, but switched off on this server.
    Disabled,
    /// Accepted; what is announced arrives.
    #[default]
    Enabled,
    /// Accepted, and then nothing ever arrives.
    Silent,
    /// Refused as an unknown subcommand, as servers do that never heard of it.
    Unknown,
}

/// The form in which a connection wants to be told where to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndpointType {
    /// A public name.
    ExternalFqdn,
    /// A public IP address.
    ExternalIp,
    /// A private name.
    InternalFqdn,
    /// A private IP address.
    InternalIp,
    /// No address: the client asks its configured name again.
    None,
}

impl EndpointType {
    pub(super) fn read(word: &[u8]) -> Option<Self> {
        Some(match word.to_ascii_lowercase().as_slice() {
            b"external-fqdn" => Self::ExternalFqdn,
            b"external-ip" => Self::ExternalIp,
            b"internal-fqdn" => Self::InternalFqdn,
            b"internal-ip" => Self::InternalIp,
            b"none" => Self::None,
            _ => return None,
        })
    }
}

/// Which connections are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Audience {
    /// Those of one address, by its index.
    Address(usize),
    /// All.
    All,
    /// One, by the id that CLIENT ID gives.
    Connection(u64),
}

/// What an announcement reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Announced {
    /// Its sequence id.
    pub seq: u64,
    /// Connections that were told: of those meant, the ones that opted in and speak RESP3.
    pub connections: usize,
}

/// Where a MOVING sends its readers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MoveTarget {
    /// To an address of this server, named in the form that each connection asked for.
    Address(usize),
    /// To this endpoint, except those who asked for no address.
    Endpoint(Endpoint),
    /// Nowhere: the endpoint is null for everybody.
    Null,
}

/// A MOVING whose grace has not ended.
#[derive(Clone, Debug)]
pub(super) struct ActiveMove {
    pub(super) seq: u64,
    pub(super) until: Instant,
    pub(super) target: MoveTarget,
}

#[derive(Debug)]
pub(super) struct Maintenance {
    pub(super) support: MaintenanceSupport,
    retain: bool,
    next_seq: u64,
    retained: Option<(u64, Notice)>,
}

impl Maintenance {
    pub(super) fn new(config: &Config) -> Self {
        Self { support: config.support, retain: config.retain, next_seq: config.first_seq, retained: None }
    }

    fn take_seq(&mut self, wanted: Option<u64>) -> u64 {
        let seq = wanted.unwrap_or(self.next_seq);
        self.next_seq = self.next_seq.max(seq.saturating_add(1));
        seq
    }
}

impl Engine {
    fn audience(&self, audience: Audience) -> Vec<ConnKey> {
        self.conns
            .iter()
            .filter(|(_, conn)| match audience {
                Audience::Address(index) => conn.address == index,
                Audience::All => true,
                Audience::Connection(id) => conn.id == id,
            })
            .map(|(key, _)| key)
            .collect()
    }

    fn listeners(&self, audience: Audience) -> Vec<ConnKey> {
        let mut keys = self.audience(audience);
        keys.retain(|&key| {
            self.conns.get(key).is_some_and(|conn| conn.maintenance.is_some() && conn.proto() == Proto::Resp3)
        });
        keys
    }

    /// Tells everybody meant. A MOVING stays in force for late joiners until its grace ends.
    pub(super) fn announce(&mut self, notice: &Notice, audience: Audience) -> Announced {
        let seq = self.maintenance.take_seq(notice.seq());
        if let Notice::Moving { grace, target, .. } = notice {
            let target = target.clone().map_or(MoveTarget::Null, MoveTarget::Endpoint);
            let grace = grace.unwrap_or_default();
            let active = ActiveMove { seq, until: self.now + grace, target };
            return self.announce_move(&active, grace, audience);
        }
        if matches!(notice, Notice::Migrated { .. } | Notice::FailedOver { .. }) && self.maintenance.retain {
            self.maintenance.retained = Some((seq, notice.clone()));
        }
        let listeners = self.listeners(audience);
        for &key in &listeners {
            self.send(key, |out| write_notice(out, notice, seq));
        }
        Announced { seq, connections: listeners.len() }
    }

    /// Announces that an address moves to `target`; the id is drawn here.
    pub(super) fn begin_move(
        &mut self,
        from: usize,
        grace: Duration,
        told: Duration,
        target: MoveTarget,
    ) -> Announced {
        let seq = self.maintenance.take_seq(None);
        let active = ActiveMove { seq, until: self.now + grace, target };
        self.announce_move(&active, told, Audience::Address(from))
    }

    /// Tells of a move once more, under the same id.
    pub(super) fn repeat_move(&mut self, from: usize, seq: u64, told: Duration) {
        let active = self
            .addresses
            .get(from)
            .and_then(|address| address.moves.iter().find(|active| active.seq == seq))
            .cloned();
        if let Some(active) = active {
            for key in self.listeners(Audience::Address(from)) {
                self.tell_move(key, &active, told);
            }
        }
    }

    fn announce_move(&mut self, active: &ActiveMove, told: Duration, audience: Audience) -> Announced {
        let now = self.now;
        for (index, address) in self.addresses.iter_mut().enumerate() {
            let meant = match audience {
                Audience::Address(meant) => meant == index,
                Audience::All => true,
                Audience::Connection(_) => false,
            };
            address.moves.retain(|old| old.until > now && old.seq != active.seq);
            if meant {
                address.moves.push(active.clone());
            }
        }
        let listeners = self.listeners(audience);
        for &key in &listeners {
            self.tell_move(key, active, told);
        }
        Announced { seq: active.seq, connections: listeners.len() }
    }

    fn tell_move(&mut self, key: ConnKey, active: &ActiveMove, told: Duration) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        let Some(wanted) = conn.maintenance else { return };
        conn.announced = true;
        let target = match (&active.target, wanted) {
            (MoveTarget::Null, _) | (_, EndpointType::None) => None,
            (MoveTarget::Endpoint(endpoint), _) => Some(endpoint.to_string()),
            (MoveTarget::Address(index), wanted) => self.address_text(*index, wanted),
        };
        let seq = active.seq;
        self.send(key, |out| {
            out.push(4);
            out.bulk(b"MOVING");
            number(out, seq);
            // A fraction of a second is still time: 0 would read as "over".
            number(out, told.as_secs() + u64::from(told.subsec_nanos() > 0));
            out.bulk_or_null(target.as_ref().map(String::as_bytes));
        });
    }

    /// An address in the form that a connection asked for.
    fn address_text(&self, index: usize, wanted: EndpointType) -> Option<String> {
        let address = self.addresses.get(index)?;
        let named = matches!(wanted, EndpointType::ExternalFqdn | EndpointType::InternalFqdn);
        Some(match &address.hostname {
            Some(name) if named => Endpoint::new(name, address.socket.port()).to_string(),
            _ => address.socket.to_string(),
        })
    }

    /// Opts a connection in, and tells it what it has missed.
    pub(super) fn opt_in(&mut self, key: ConnKey, wanted: EndpointType) {
        let silent = self.maintenance.support == MaintenanceSupport::Silent;
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.maintenance = (!silent).then_some(wanted);
        let resp3 = conn.proto() == Proto::Resp3;
        let address = conn.address;
        if silent || !resp3 {
            return;
        }
        if let Some((seq, notice)) = self.maintenance.retained.clone() {
            self.send(key, |out| write_notice(out, &notice, seq));
        }
        let now = self.now;
        let moves: Vec<ActiveMove> = self
            .addresses
            .get(address)
            .map(|address| address.moves.iter().filter(|active| active.until > now).cloned().collect())
            .unwrap_or_default();
        for active in moves {
            // Whole seconds that are left: less than those who were there from the start were told.
            let left = Duration::from_secs(active.until.saturating_duration_since(now).as_secs());
            self.tell_move(key, &active, left);
        }
    }

    /// Writes raw bytes to connections, whatever they are; gives the number of connections.
    pub(super) fn send_raw(&mut self, bytes: &[u8], audience: Audience) -> usize {
        let keys = self.audience(audience);
        for &key in &keys {
            self.send(key, |out| out.buf.extend_from_slice(bytes));
        }
        keys.len()
    }

    /// Ends connections; answers not yet written are lost. Gives their number.
    pub(super) fn close_all(&mut self, audience: Audience) -> usize {
        let keys = self.audience(audience);
        for &key in &keys {
            self.close(key, super::conn::Closing::Now);
        }
        keys.len()
    }
}

fn number(out: &mut Out, value: u64) {
    out.integer(i64::try_from(value).unwrap_or(i64::MAX));
}

fn strings(out: &mut Out, list: &[String]) {
    out.array(list.len());
    for text in list {
        out.bulk(text.as_bytes());
    }
}

/// Every announcement but MOVING, which depends on its reader.
fn write_notice(out: &mut Out, notice: &Notice, seq: u64) {
    let head = |out: &mut Out, length| {
        out.push(length);
        out.bulk(notice.name().as_bytes());
        number(out, seq);
    };
    match notice {
        Notice::Migrating { within, shards, .. } | Notice::FailingOver { within, shards, .. } => {
            head(out, 4);
            number(out, within.unwrap_or_default().as_secs());
            strings(out, shards);
        }
        Notice::Migrated { shards, .. } | Notice::FailedOver { shards, .. } => {
            head(out, 3);
            strings(out, shards);
        }
        Notice::SlotsMigrating { slots, .. } => {
            head(out, 3);
            out.bulk(slots.to_string().as_bytes());
        }
        Notice::SlotsMigrated { moves, .. } => {
            head(out, 3);
            out.array(moves.len());
            for moved in moves {
                out.array(3);
                out.bulk(moved.source.as_ref().map_or(String::new(), ToString::to_string).as_bytes());
                out.bulk(moved.target.to_string().as_bytes());
                out.bulk(moved.slots.to_string().as_bytes());
            }
        }
        // MOVING is written elsewhere; a kind that this crate does not know yet is told as its bare name.
        _ => head(out, 2),
    }
}
