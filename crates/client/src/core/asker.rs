//! `Asker`: the topology's questions, on connections that are made for nothing else.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use evenkeel_pool::{
    Deaf, DialError, Lane, LaneConfig, LaneId, Link, LinkConfig, LinkId, LinkObserver, Outcome, Readiness,
    machine::{Backoff, ChannelKind},
};
use evenkeel_protocol::{Command, Endpoint, Push, Reply};
use evenkeel_topology::{
    AskFailure,
    driver::{Ask, EventSink, NodeRole},
};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::clock;

/// A connection that nobody has asked anything for so long is closed.
const KEEP: Duration = Duration::from_secs(30);

/// A promoted replica resets its clients: the next question follows within milliseconds.
const REDIAL: Duration = Duration::from_millis(5);

/// Events of one sentinel that may wait for the resolver.
const EVENTS: usize = 1024;

struct Asked {
    lane: Lane,
    used: Instant,
}

/// Keeps one connection for each node that is asked.
pub(crate) struct Asker {
    data: LaneConfig,
    sentinel: LaneConfig,
    watch: LinkConfig,
    next: AtomicU64,
    lanes: Mutex<BTreeMap<(NodeRole, Endpoint), Asked>>,
}

impl fmt::Debug for Asker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asker").finish_non_exhaustive()
    }
}

impl Asker {
    pub(crate) fn new(data: LaneConfig, sentinel: LaneConfig, watch: LinkConfig) -> Self {
        let quick = |config: LaneConfig| config.backoff(Backoff::default().first(REDIAL).max(10 * REDIAL));
        Self {
            data: quick(data),
            sentinel: quick(sentinel),
            watch,
            next: AtomicU64::new(1),
            lanes: Mutex::default(),
        }
    }

    fn lane(&self, endpoint: &Endpoint, role: NodeRole) -> Lane {
        let now = clock::now();
        let mut lanes = self.lanes.lock();
        lanes.retain(|_, asked| now.saturating_duration_since(asked.used) < KEEP);
        let asked = lanes.entry((role, endpoint.clone())).or_insert_with(|| {
            let config = if role == NodeRole::Sentinel { &self.sentinel } else { &self.data };
            let id = LaneId(self.next.fetch_add(1, Ordering::Relaxed));
            Asked { lane: Lane::start(id, endpoint.clone(), config.clone(), Arc::new(Deaf)), used: now }
        });
        asked.used = now;
        asked.lane.clone()
    }
}

fn failure(lane: &Lane) -> AskFailure {
    match lane.last_error().as_deref() {
        Some(error) if error.is_refused() => AskFailure::Refused,
        Some(DialError::TimedOut { .. }) => AskFailure::TimedOut,
        Some(DialError::Closed { .. }) | None => AskFailure::Reset,
        Some(_) => AskFailure::Unreachable,
    }
}

/// Asks over this lane.
pub(super) async fn over(
    lane: &Lane,
    commands: &[Command],
    deadline: Duration,
) -> Result<Vec<Reply>, AskFailure> {
    // A node that is down answers at once that it is, and not when it is back.
    if lane.readiness() != Readiness::Ready && lane.first_attempt().await != Readiness::Ready {
        return Err(failure(lane));
    }
    match lane.request_unit(commands, deadline).await {
        Outcome::Reply(reply) => Ok(vec![reply]),
        Outcome::Replies(replies) => Ok(replies),
        Outcome::MayResend => Err(AskFailure::Reset),
        _ => Err(failure(lane)),
    }
}

impl Ask for Asker {
    async fn ask(
        &self,
        endpoint: Endpoint,
        role: NodeRole,
        commands: Vec<Command>,
        deadline: Duration,
    ) -> Result<Vec<Reply>, AskFailure> {
        over(&self.lane(&endpoint, role), &commands, deadline).await
    }

    async fn watch(&self, sentinel: Endpoint, events: EventSink) -> AskFailure {
        let (tx, mut rx) = mpsc::channel(EVENTS);
        let id = LinkId(self.next.fetch_add(1, Ordering::Relaxed));
        let link =
            Link::start(id, sentinel, self.watch.clone(), Arc::new(Watcher { tx: Mutex::new(Some(tx)) }));
        link.subscribe(ChannelKind::Pattern, [Bytes::from_static(b"*")]);
        while let Some(heard) = rx.recv().await {
            match heard {
                Heard::Up => events.up().await,
                Heard::Message(channel, payload) => events.message(channel, payload).await,
                Heard::Ended(failure) => return failure,
            }
        }
        AskFailure::Reset
    }
}

enum Heard {
    Up,
    Message(Bytes, Bytes),
    Ended(AskFailure),
}

/// Hears one sentinel.
struct Watcher {
    /// `None` once something had to be left out: the link ends then, and the resolver is told so.
    tx: Mutex<Option<mpsc::Sender<Heard>>>,
}

impl Watcher {
    fn tell(&self, heard: Heard) {
        let mut tx = self.tx.lock();
        // A link that skipped an event would be worse than none: a failover could pass unseen.
        if tx.as_ref().is_some_and(|open| open.try_send(heard).is_err()) {
            *tx = None;
        }
    }
}

impl LinkObserver for Watcher {
    fn message(&self, _link: LinkId, message: Push) {
        match message {
            Push::PatternMessage { channel, payload, .. } | Push::Message { channel, payload, .. } => {
                self.tell(Heard::Message(channel, payload));
            }
            _ => {}
        }
    }

    fn confirmed(&self, _link: LinkId, _kind: ChannelKind, _channel: Bytes) {
        self.tell(Heard::Up);
    }

    fn closed(&self, _link: LinkId, _info: &Arc<evenkeel_pool::ConnInfo>, _by_peer: bool) {
        self.tell(Heard::Ended(AskFailure::Reset));
    }

    fn dial_failed(&self, _link: LinkId, error: &DialError) {
        self.tell(Heard::Ended(if error.is_refused() {
            AskFailure::Refused
        } else {
            AskFailure::Unreachable
        }));
    }
}
