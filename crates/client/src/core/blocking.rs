//! Commands that block, through moves of their connection: ended by `CLIENT UNBLOCK` on the old server and issued again
//! on the new one with the time that is left, so that the server's close never cuts them.
//!
//! The reply that is then read decides: an element was given and is delivered; nil says that nothing was taken.
//! A command that would begin to wait on a connection that is about to be left waits here for the next one instead.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use evenkeel_pool::{ConnInfo, Lane, LaneId, Outcome};
use evenkeel_protocol::{Command, Endpoint, Kind, Reply};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Core, clock};

/// A command that has a moment left waits at least this long: 0 would be for ever.
const LEAST: Duration = Duration::from_millis(1);

/// How long the old server may take to answer those who end waits on it.
const PATIENCE: Duration = Duration::from_secs(1);

/// Helpers have numbers of their own, far from those of lanes and leases.
const FIRST_HELPER: u64 = 1 << 48;

/// Between the tries to end a wait that the old server does not know yet: the command may still be on its way there.
const RETRIES: [Duration; 7] = [
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(4),
    Duration::from_millis(8),
    Duration::from_millis(16),
    Duration::from_millis(32),
    Duration::from_millis(64),
];

/// Who waits on which connection, which connections are about to be left, and those that end waits on servers that
/// retire.
#[derive(Debug, Default)]
pub(crate) struct Blocked {
    lanes: Mutex<Lanes>,
    arrived: Notify,
    helpers: Mutex<BTreeMap<SocketAddr, Helper>>,
}

/// Behind one lock, so that of a command that begins to wait and an order to leave one always sees the other.
#[derive(Debug, Default)]
struct Lanes {
    waiting: BTreeMap<LaneId, Arc<AtomicBool>>,
    /// Left before their successor stands; what is not over by then never will be.
    leaving: BTreeMap<LaneId, Instant>,
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
        self.blocked.lanes.lock().waiting.remove(&self.lane);
    }
}

impl Blocked {
    /// Waits while the lane is about to be left, and is known to wait on it from then on; gives whether it had to wait.
    async fn enter(&self, lane: LaneId) -> (Waiting<'_>, bool) {
        let mut held = false;
        loop {
            let arrived = self.arrived.notified();
            let until = {
                let mut lanes = self.lanes.lock();
                match lanes.leaving.get(&lane) {
                    Some(until) if clock::now() < *until => *until,
                    _ => {
                        let interrupted = Arc::new(AtomicBool::new(false));
                        lanes.waiting.insert(lane, Arc::clone(&interrupted));
                        return (Waiting { blocked: self, lane, interrupted }, held);
                    }
                }
            };
            held = true;
            // Late or in time, the lane is looked at again.
            let _late = tokio::time::timeout_at(until.into(), arrived).await;
        }
    }

    /// The lane is left before its successor stands: nothing begins to wait on it. Gives whether something waits there.
    pub(super) fn leave(&self, lane: LaneId, until: Instant) -> bool {
        let (mut lanes, now) = (self.lanes.lock(), clock::now());
        // Those that were closed meanwhile never settle.
        lanes.leaving.retain(|_, until| now < *until);
        lanes.leaving.insert(lane, until);
        lanes.waiting.contains_key(&lane)
    }

    /// The lane has a successor or stays where it is; gives whether it was about to be left.
    pub(super) fn settled(&self, lane: LaneId) -> bool {
        let left = self.lanes.lock().leaving.remove(&lane).is_some();
        if left {
            self.arrived.notify_waiters();
        }
        left
    }

    /// Whether a command waits on this lane; from here on its nil may be our doing.
    fn interrupt(&self, lane: LaneId) -> Option<Arc<AtomicBool>> {
        let interrupted = self.lanes.lock().waiting.get(&lane).cloned()?;
        interrupted.store(true, Ordering::Release);
        Some(interrupted)
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
    let (waiting, mut anew) = core.blocked().enter(lane.id()).await;
    loop {
        let spent = clock::now().saturating_duration_since(began);
        // Held up for all of its time it still asks once.
        let left = waits.map_or(Duration::ZERO, |waits| waits.saturating_sub(spent).max(LEAST));
        let again = if anew { command.with_block_timeout(left) } else { None };
        let outcome = lane.request(again.as_ref().unwrap_or(command), patience.saturating_sub(spent)).await;
        let nil = matches!(&outcome, Outcome::Reply(reply) if is_nil(reply));
        // Without our doing nil means that the time is over.
        if !nil || !waiting.interrupted.swap(false, Ordering::AcqRel) {
            return outcome;
        }
        let spent = clock::now().saturating_duration_since(began);
        if waits.is_some_and(|waits| waits.saturating_sub(spent) < LEAST) {
            return outcome;
        }
        anew = true;
    }
}

fn is_nil(reply: &Reply) -> bool {
    reply.kind() == Kind::Null
}

impl Core {
    /// Ends the wait of the command on this lane, if there is one, on the server that `old` leads to; by a connection of
    /// its own, because every other is about to leave as well.
    pub(super) fn end_wait(self: &Arc<Self>, lane: LaneId, old: &Arc<ConnInfo>) {
        let (Some(id), Some(peer)) = (old.established.server.id, old.peer) else { return };
        let Some(interrupted) = self.blocked().interrupt(lane) else { return };
        let (core, old) = (Arc::clone(self), Arc::clone(old));
        super::spawn(async move {
            let helper = core.blocked().borrow_helper(peer, |id| core.helper(id, &old.endpoint, peer));
            // Where it cannot be done, the command stays until the server closes.
            let _ended = unblock(&helper, id, &old, &interrupted).await;
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
async fn unblock(helper: &Lane, id: i64, old: &ConnInfo, interrupted: &Arc<AtomicBool>) -> Option<()> {
    let local = old.local?.to_string();
    let question = Command::new("CLIENT").arg("LIST").arg("ID").arg(id);
    let Outcome::Reply(reply) = helper.request(&question, PATIENCE).await else { return None };
    let text: String = reply.decode().ok()?;
    if !text.split_whitespace().any(|field| field.strip_prefix("addr=") == Some(local.as_str())) {
        return None;
    }
    let order = Command::new("CLIENT").arg("UNBLOCK").arg(id).arg("TIMEOUT");
    for pause in RETRIES {
        let Outcome::Reply(reply) = helper.request(&order, PATIENCE).await else { return None };
        if reply.error().is_some() {
            return None;
        }
        // 0: nobody waits there. Either the command has been answered, or it will arrive in a moment.
        let goes_on = interrupted.load(Ordering::Acquire) && Arc::strong_count(interrupted) > 1;
        if reply.decode::<i64>().ok() != Some(0) || !goes_on {
            return Some(());
        }
        tokio::time::sleep(pause).await;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANE: LaneId = LaneId(7);
    const SOON: Duration = Duration::from_millis(100);

    #[tokio::test(start_paused = true)]
    async fn a_wait_does_not_begin_where_the_lane_is_about_to_be_left() {
        let blocked = Blocked::default();
        let began = clock::now();
        assert!(!blocked.leave(LANE, began + SOON * 2), "nobody waits there");
        let entering = async {
            let (_waiting, held) = blocked.enter(LANE).await;
            (held, clock::now() - began)
        };
        let settling = async {
            tokio::time::sleep(SOON).await;
            assert!(blocked.settled(LANE));
        };
        let ((held, after), ()) = tokio::join!(entering, settling);
        assert!(held && after == SOON, "{after:?}");
        assert!(!blocked.settled(LANE), "it is told once");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_leaves_is_told_of_the_waits_that_began_before() {
        let blocked = Blocked::default();
        let (waiting, held) = blocked.enter(LANE).await;
        assert!(!held);
        assert!(blocked.leave(LANE, clock::now() + SOON));
        assert!(blocked.interrupt(LANE).is_some() && waiting.interrupted.load(Ordering::Acquire));
        drop(waiting);
        assert!(!blocked.leave(LANE, clock::now() + SOON));
        assert!(blocked.interrupt(LANE).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_held_for_ever_by_a_lane_that_is_never_heard_of_again() {
        let blocked = Blocked::default();
        let began = clock::now();
        blocked.leave(LANE, began + SOON);
        let (_waiting, held) = blocked.enter(LANE).await;
        assert!(held && clock::now() - began == SOON);
        // Nor is it remembered for ever.
        blocked.leave(LaneId(8), clock::now() + SOON);
        assert_eq!(blocked.lanes.lock().leaving.len(), 1);
    }
}
