//! Commands that block, through moves of their connection: ended by `CLIENT UNBLOCK` on the old server and issued again
//! on the new one with the time that is left, so that the server's close never cuts them.
//!
//! The reply that is then read decides: an element was given and is delivered; nil says that nothing was taken.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use evenkeel_pool::{ConnInfo, Lane, LaneId, Outcome};
use evenkeel_protocol::{Command, Endpoint, Kind, Reply};
use parking_lot::Mutex;

use super::{Core, clock};

/// A command that has a moment left waits at least this long: 0 would be for ever.
const LEAST: Duration = Duration::from_millis(1);

/// How long the old server may take to answer those who end waits on it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Helpers have numbers of their own, far from those of lanes and leases.
const FIRST_HELPER: u64 = 1 << 48;

/// Who waits on which connection, and the connections that end waits on servers that retire.
#[derive(Debug, Default)]
pub(crate) struct Blocked {
    waiting: Mutex<BTreeMap<LaneId, Arc<AtomicBool>>>,
    helpers: Mutex<BTreeMap<SocketAddr, Helper>>,
}

#[derive(Debug)]
struct Helper {
    lane: Lane,
    users: usize,
}

/// One command that waits; it is known until this is dropped.
struct Waiting<'a> {
    blocked: &'a Blocked,
    lane: LaneId,
    interrupted: Arc<AtomicBool>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.blocked.waiting.lock().remove(&self.lane);
    }
}

impl Blocked {
    fn enter(&self, lane: LaneId) -> Waiting<'_> {
        let interrupted = Arc::new(AtomicBool::new(false));
        self.waiting.lock().insert(lane, Arc::clone(&interrupted));
        Waiting { blocked: self, lane, interrupted }
    }

    /// Whether a command waits on this lane; from here on its nil may be our doing.
    fn interrupt(&self, lane: LaneId) -> bool {
        match self.waiting.lock().get(&lane) {
            Some(interrupted) => {
                interrupted.store(true, Ordering::Release);
                true
            }
            None => false,
        }
    }

    fn borrow_helper(&self, peer: SocketAddr, start: impl FnOnce(LaneId) -> Lane) -> Lane {
        let mut helpers = self.helpers.lock();
        let id = LaneId(FIRST_HELPER + helpers.len() as u64);
        let helper = helpers.entry(peer).or_insert_with(|| Helper { lane: start(id), users: 0 });
        helper.users += 1;
        helper.lane.clone()
    }

    /// The last user closes the connection.
    fn return_helper(&self, peer: SocketAddr) {
        let mut helpers = self.helpers.lock();
        if let Some(helper) = helpers.get_mut(&peer) {
            helper.users -= 1;
            if helper.users == 0 {
                helpers.remove(&peer);
            }
        }
    }
}

/// Whether a command may be ended and issued again: not one that counts from the moment at which it is issued.
fn is_resumable(command: &Command) -> bool {
    command.with_block_timeout(LEAST).is_some() && !command.args().any(|arg| arg == b"$")
}

/// Sends a command that blocks; `patience` covers its wait and the way there and back.
pub(super) async fn request(core: &Core, lane: &Lane, command: &Command, patience: Duration) -> Outcome {
    let Some(waits) = command.blocks_for().filter(|_| is_resumable(command)) else {
        return lane.request(command, patience).await;
    };
    let began = clock::now();
    let waiting = core.blocked().enter(lane.id());
    let mut again = None;
    loop {
        let spent = clock::now().saturating_duration_since(began);
        let outcome = lane.request(again.as_ref().unwrap_or(command), patience.saturating_sub(spent)).await;
        let nil = matches!(&outcome, Outcome::Reply(reply) if is_nil(reply));
        // Without our doing nil means that the time is over.
        if !nil || !waiting.interrupted.swap(false, Ordering::AcqRel) {
            return outcome;
        }
        let left = match waits {
            None => Duration::ZERO,
            Some(waits) => {
                let left = waits.saturating_sub(clock::now().saturating_duration_since(began));
                if left < LEAST {
                    return outcome;
                }
                left
            }
        };
        again = command.with_block_timeout(left);
    }
}

fn is_nil(reply: &Reply) -> bool {
    reply.kind() == Kind::Null
}

impl Core {
    /// Whether a blocking command waits on this lane.
    pub(super) fn waits_on(&self, lane: LaneId) -> bool {
        self.blocked().waiting.lock().contains_key(&lane)
    }

    /// Ends the wait of the command on this lane, if there is one, on the server that `old` leads to; by a connection of
    /// its own, because every other is about to leave as well.
    pub(super) fn end_wait(self: &Arc<Self>, lane: LaneId, old: &Arc<ConnInfo>) {
        let (Some(id), Some(peer)) = (old.established.server.id, old.peer) else { return };
        if !self.blocked().interrupt(lane) {
            return;
        }
        let (core, old) = (Arc::clone(self), Arc::clone(old));
        super::spawn(async move {
            let helper = core.blocked().borrow_helper(peer, |id| core.helper(id, &old.endpoint, peer));
            // Where it cannot be done, the command stays until the server closes.
            let _ended = unblock(&helper, id, &old).await;
            drop(helper);
            core.blocked().return_helper(peer);
        });
    }

    /// A connection to exactly this address.
    fn helper(&self, id: LaneId, endpoint: &Endpoint, peer: SocketAddr) -> Lane {
        let config = self.setup.lane.clone().reconnect(false).address(Some(peer.ip()));
        let endpoint = Endpoint::new(endpoint.host(), peer.port());
        Lane::start(id, endpoint, config, Arc::new(evenkeel_pool::Deaf))
    }
}

/// Asks the server who has this id, and unblocks it if that is our old connection: another server may have given the
/// same id to somebody else.
async fn unblock(helper: &Lane, id: i64, old: &ConnInfo) -> Option<()> {
    let local = old.local?.to_string();
    let question = Command::new("CLIENT").arg("LIST").arg("ID").arg(id);
    let Outcome::Reply(reply) = helper.request(&question, PATIENCE).await else { return None };
    let text: String = reply.decode().ok()?;
    if !text.split_whitespace().any(|field| field.strip_prefix("addr=") == Some(local.as_str())) {
        return None;
    }
    let order = Command::new("CLIENT").arg("UNBLOCK").arg(id).arg("TIMEOUT");
    match helper.request(&order, PATIENCE).await {
        Outcome::Reply(reply) if reply.error().is_none() => Some(()),
        _ => None,
    }
}
