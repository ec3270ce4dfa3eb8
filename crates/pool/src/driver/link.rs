//! `Link`: the one connection to a node that carries subscriptions, and outlives its sockets.
//!
//! It knows which names are wanted and makes it so, again on each new connection. A [`move`](Link::move_to) dials beside
//! and takes over only when everything stands there; where one server orders both connections no message is lost or
//! doubled on the way. Who consumes the messages it does not know: that is the [`LinkObserver`]'s.

mod quick;
mod socket;
mod task;

use std::{
    collections::BTreeMap,
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    sync::Arc,
    task::Waker,
    time::Duration,
};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use evenkeel_protocol::{Endpoint, Limits, Push, Reply, ServerError};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::{
    dial::{ConnInfo, DialConfig, DialError},
    lane::Readiness,
    spawn,
};
use crate::machine::{Backoff, ChannelKind, EndCause, GapInfo, LinkSettings, MoveRequest, Report, Seed};

/// Names a link among all that a client has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// Hears what happens on a link, in order. Called on the link's task: implementations return at once and never block.
pub trait LinkObserver: Send + Sync {
    /// A message came: `Push::Message` or `Push::PatternMessage`. One of a subscription that has just ended may still come.
    fn message(&self, link: LinkId, message: Push);

    /// A subscription stands; told again after each reconnection, and to whoever subscribes again.
    fn confirmed(&self, link: LinkId, kind: ChannelKind, channel: Bytes) {
        let _: (_, _, _) = (link, kind, channel);
    }

    /// A subscription has ended, and is not wanted any more.
    fn ended(&self, link: LinkId, kind: ChannelKind, channel: Bytes, cause: EndCause) {
        let _: (_, _, _, _) = (link, kind, channel, cause);
    }

    /// The server refused to subscribe these; they are not wanted any more.
    ///
    /// `NOPERM` is a matter of rights; `MOVED` says where a shard channel lives.
    fn refused(&self, link: LinkId, kind: ChannelKind, channels: Vec<Bytes>, error: ServerError) {
        let _: (_, _, _, _) = (link, kind, channels, error);
    }

    /// Messages may be missing. After a reconnection it is told when everything that was wanted stands again.
    fn gap(&self, link: LinkId, gap: GapInfo) {
        let _: (_, _) = (link, gap);
    }

    /// A push arrived that is no pub/sub message; `during_handshake` when it came before the connection was ready.
    fn push(&self, link: LinkId, info: &Arc<ConnInfo>, push: Reply, during_handshake: bool) {
        let _: (_, _, _, _) = (link, info, push, during_handshake);
    }

    /// The link's state changed.
    fn report(&self, link: LinkId, report: Report) {
        let _: (_, _) = (link, report);
    }

    /// A dial failed; the link tries again by itself.
    fn dial_failed(&self, link: LinkId, error: &DialError) {
        let _: (_, _) = (link, error);
    }

    /// A connection carries the subscriptions from now on; `instead_of` the one that it takes over from, if any.
    fn opened(&self, link: LinkId, info: &Arc<ConnInfo>, instead_of: Option<&Arc<ConnInfo>>) {
        let _: (_, _, _) = (link, info, instead_of);
    }

    /// A connection that carried subscriptions was closed; `by_peer` when the server did it.
    fn closed(&self, link: LinkId, info: &Arc<ConnInfo>, by_peer: bool) {
        let _: (_, _, _) = (link, info, by_peer);
    }
}

/// How a link works. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct LinkConfig {
    dial: DialConfig,
    backoff: Backoff,
    settings: LinkSettings,
    seed: u64,
    limits: Limits,
}

impl LinkConfig {
    /// The configured endpoint that the link belongs to. Default: where it is started for.
    #[must_use]
    pub fn home(mut self, home: Endpoint) -> Self {
        self.dial.home = Some(home);
        self
    }

    /// How connections are made.
    #[must_use]
    pub fn dial(mut self, dial: DialConfig) -> Self {
        self.dial = dial;
        self
    }

    /// Delays between attempts. Default: 50 ms, 100 ms, 150 ms ... 2 s.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// The front of the channels that markers of moves are published on; `None` makes no exact cut.
    /// Default: `__evenkeel:cut:`.
    #[must_use]
    pub fn cut_channel(mut self, front: Option<&str>) -> Self {
        self.settings = self.settings.cut_channel(front);
        self
    }

    /// How long the exact cut of a move may take. Default: 1 s.
    #[must_use]
    pub fn cut_timeout(mut self, timeout: Duration) -> Self {
        self.settings = self.settings.cut_timeout(timeout);
        self
    }

    /// A PING follows so long a silence. Default: 10 s.
    #[must_use]
    pub fn ping_after(mut self, after: Duration) -> Self {
        self.settings = self.settings.ping_after(after);
        self
    }

    /// A peer that owes an answer and sends nothing for so long is suspect, and probed. Default: 1 s.
    #[must_use]
    pub fn suspect_after(mut self, after: Duration) -> Self {
        self.settings = self.settings.suspect_after(after);
        self
    }

    /// A peer that owes an answer and sends nothing for so long is given up. Default: 10 s.
    #[must_use]
    pub fn answer_timeout(mut self, timeout: Duration) -> Self {
        self.settings = self.settings.answer_timeout(timeout);
        self
    }

    /// What waits for the old connection during a cut, at most. Default: 65 536 messages, 8 MiB.
    #[must_use]
    pub fn hold(mut self, messages: usize, bytes: usize) -> Self {
        self.settings = self.settings.hold(messages, bytes);
        self
    }

    /// Where jitter starts. Default: 0; drivers draw one for each link.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// What pushes and replies may ask of memory.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self.dial = self.dial.limits(limits);
        self
    }
}

/// Orders that may wait; more than a handful at once means that the task is gone.
const ORDERS: usize = 64;

/// What handles leave for the task. Changes merge, so that it holds each name once.
#[derive(Default)]
struct Mailbox {
    /// True for a name that is wanted from now on.
    changes: BTreeMap<(ChannelKind, Bytes), bool>,
    moves: Vec<MoveRequest>,
    /// Floors under timeouts, by who set them.
    relaxed: Vec<(u64, Duration)>,
    relaxed_changed: bool,
    closed: bool,
    waker: Option<Waker>,
}

/// What handles and the task share.
struct Shared {
    id: LinkId,
    mailbox: Mutex<Mailbox>,
    info: ArcSwapOption<ConnInfo>,
    last_error: ArcSwapOption<DialError>,
    ready: watch::Sender<Readiness>,
}

impl Shared {
    /// Leaves something in the mailbox and wakes the task; false when the task has ended.
    fn leave(&self, write: impl FnOnce(&mut Mailbox) -> bool) -> bool {
        let mut mailbox = self.mailbox.lock();
        if mailbox.closed {
            return false;
        }
        let left = write(&mut mailbox);
        let waker = mailbox.waker.take();
        drop(mailbox);
        if let Some(waker) = waker {
            waker.wake();
        }
        left
    }
}

/// A handle on a link. Cheap to clone; the link ends when the last handle goes.
#[derive(Clone)]
pub struct Link {
    handle: Arc<Handle>,
}

/// Ends the task with the last clone.
struct Handle {
    shared: Arc<Shared>,
    home: Endpoint,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.leave(|mailbox| {
            mailbox.closed = true;
            true
        });
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("id", &self.id())
            .field("endpoint", &self.endpoint())
            .field("readiness", &self.readiness())
            .finish_non_exhaustive()
    }
}

impl Link {
    /// Starts a link to `endpoint`, which dials at once, on the current tokio runtime.
    pub fn start(
        id: LinkId,
        endpoint: Endpoint,
        mut config: LinkConfig,
        observer: Arc<dyn LinkObserver>,
    ) -> Self {
        let home = config.dial.home.get_or_insert_with(|| endpoint.clone()).clone();
        let shared = Arc::new(Shared {
            id,
            mailbox: Mutex::new(Mailbox::default()),
            info: ArcSwapOption::empty(),
            last_error: ArcSwapOption::empty(),
            ready: watch::Sender::new(Readiness::Connecting),
        });
        let jitter = Seed::new(config.seed ^ id.0.wrapping_mul(0x2545_f491_4f6c_dd1d));
        // Names of cut channels must differ between all clients of a server, whatever seeds they are given.
        let nonces = Seed::new(RandomState::new().build_hasher().finish());
        let task = task::LinkTask::new(Arc::clone(&shared), endpoint, config, observer, jitter, nonces);
        // The task ends with the last handle: dropping a `Handle` wakes it.
        drop(spawn(task));
        Self { handle: Arc::new(Handle { shared, home }) }
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    /// Its name.
    pub fn id(&self) -> LinkId {
        self.shared().id
    }

    /// The endpoint that it was started for.
    pub fn home(&self) -> Endpoint {
        self.handle.home.clone()
    }

    /// Where its connection leads; without one, where it was started for.
    pub fn endpoint(&self) -> Endpoint {
        let info = self.shared().info.load();
        info.as_ref().map_or_else(|| self.handle.home.clone(), |info| info.endpoint.clone())
    }

    /// What is known of its connection; `None` without one.
    pub fn info(&self) -> Option<Arc<ConnInfo>> {
        self.shared().info.load_full()
    }

    /// Why the last dial failed; `None` once one has succeeded.
    pub fn last_error(&self) -> Option<Arc<DialError>> {
        self.shared().last_error.load_full()
    }

    /// Whether it has a connection.
    pub fn readiness(&self) -> Readiness {
        *self.shared().ready.borrow()
    }

    /// Waits until it has a connection; gives false when it has ended instead.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn ready(&self) -> bool {
        let mut ready = self.shared().ready.subscribe();
        let end = ready.wait_for(|state| matches!(state, Readiness::Ready | Readiness::Closed)).await;
        end.is_ok_and(|state| *state == Readiness::Ready)
    }

    fn change<N: Into<Bytes>>(
        &self,
        kind: ChannelKind,
        names: impl IntoIterator<Item = N>,
        wanted: bool,
    ) -> bool {
        // Collected first: an iterator of the caller's must not run under the lock.
        let names: Vec<Bytes> = names.into_iter().map(Into::into).collect();
        self.shared().leave(|mailbox| {
            for name in names {
                mailbox.changes.insert((kind, name), wanted);
            }
            true
        })
    }

    /// Wants these, on this connection and all later ones; the observer hears what comes of it.
    ///
    /// Returns at once; false when the link has ended.
    pub fn subscribe<N: Into<Bytes>>(&self, kind: ChannelKind, names: impl IntoIterator<Item = N>) -> bool {
        self.change(kind, names, true)
    }

    /// Does not want these any more; the observer hears when they have ended.
    ///
    /// Returns at once; false when the link has ended. A name that is wanted again before the task has looked never ends.
    pub fn unsubscribe<N: Into<Bytes>>(&self, kind: ChannelKind, names: impl IntoIterator<Item = N>) -> bool {
        self.change(kind, names, false)
    }

    /// Moves to another server: dials beside, subscribes everything there, takes over, closes the old connection.
    ///
    /// With an exact cut nothing is lost or doubled. It is made where one server orders both connections: not for a
    /// move `for_good` (another server is primary), not to a cluster's node, not in RESP2, not where the marker is
    /// refused or late. There the observer hears of a gap that may repeat messages. The result of the move comes as a
    /// [`Report`]. False when the link has ended.
    pub fn move_to(&self, request: MoveRequest) -> bool {
        self.shared().leave(|mailbox| {
            let room = mailbox.moves.len() < ORDERS;
            if room {
                mailbox.moves.push(request);
            }
            room
        })
    }

    /// Puts a floor under timeouts, named by `key`; the highest floor counts, and a silent peer is not suspect.
    pub fn relax(&self, key: u64, floor: Duration) {
        self.shared().leave(|mailbox| {
            mailbox.relaxed.retain(|(known, _)| *known != key);
            mailbox.relaxed.push((key, floor));
            mailbox.relaxed_changed = true;
            true
        });
    }

    /// Takes the floor away again.
    pub fn restore(&self, key: u64) {
        self.shared().leave(|mailbox| {
            mailbox.relaxed.retain(|(known, _)| *known != key);
            mailbox.relaxed_changed = true;
            true
        });
    }

    /// Ends the link: its connections are closed at once. Nothing is owed on a link.
    pub fn close(&self) {
        self.shared().leave(|mailbox| {
            mailbox.closed = true;
            true
        });
    }

    /// Waits until the link has ended, its sockets closed.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn closed(&self) {
        let mut ready = self.shared().ready.subscribe();
        // An error says that the sender has gone, and with it the link.
        let _ended = ready.wait_for(|state| *state == Readiness::Closed).await.is_ok();
    }
}

#[cfg(test)]
mod tests;
