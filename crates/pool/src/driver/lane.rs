//! `Lane`: a multiplexed connection that outlives its sockets, shared by all callers of an endpoint.
//!
//! Callers append under one short lock; one task per lane writes, reads, dials and moves. A lane may change the server
//! beneath it (a handoff, a failover) while callers keep their places.

mod call;
mod task;

use std::{
    fmt,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwapOption;
use evenkeel_protocol::{Command, Endpoint, Limits, Reply};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

pub use call::LaneCall;

use super::{
    clock,
    dial::{ConnInfo, DialConfig, DialError},
    spawn,
};
use crate::{
    machine::{Backoff, MoveRequest, OutOfStep, Report, Seed, SentryConfig},
    queue::{Outcome, Queue, QueueLimits},
};

/// Names a lane among all that a client has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId(pub u64);

/// Hears what happens on a lane. Called on the lane's task: implementations return at once and never block.
pub trait LaneObserver: Send + Sync {
    /// The lane's state changed.
    fn report(&self, lane: LaneId, report: Report) {
        let _: (_, _) = (lane, report);
    }

    /// A dial failed; the lane tries again by itself.
    fn dial_failed(&self, lane: LaneId, error: &DialError) {
        let _: (_, _) = (lane, error);
    }

    /// A push arrived; `during_handshake` when it came before the connection was ready.
    fn push(&self, lane: LaneId, info: &Arc<ConnInfo>, push: Reply, during_handshake: bool) {
        let _: (_, _, _, _) = (lane, info, push, during_handshake);
    }

    /// A connection carries the lane's commands from now on; `instead_of` the one that is left, when that still lives.
    fn opened(&self, lane: LaneId, info: &Arc<ConnInfo>, instead_of: Option<&Arc<ConnInfo>>) {
        let _: (_, _, _) = (lane, info, instead_of);
    }

    /// A socket was closed; `by_peer` when the server did it.
    fn closed(&self, lane: LaneId, info: &Arc<ConnInfo>, by_peer: bool) {
        let _: (_, _, _) = (lane, info, by_peer);
    }

    /// A connection is closed because its replies fit its commands no more. What was in flight is told as unknown.
    fn out_of_step(&self, lane: LaneId, info: &Arc<ConnInfo>, cause: OutOfStep) {
        let _: (_, _, _) = (lane, info, cause);
    }
}

/// Hears nothing.
#[derive(Clone, Copy, Debug)]
pub struct Deaf;

impl LaneObserver for Deaf {}

/// How a lane works. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LaneConfig {
    pub(crate) dial: DialConfig,
    pub(crate) backoff: Backoff,
    pub(crate) budget: usize,
    pub(crate) suspect_after: Duration,
    pub(crate) reconnect: bool,
    pub(crate) seed: u64,
    pub(crate) limits: Limits,
    pub(crate) sentry: SentryConfig,
    pub(crate) address: Option<IpAddr>,
    pub(crate) keep_refused: bool,
}

impl Default for LaneConfig {
    fn default() -> Self {
        Self {
            dial: DialConfig::default(),
            backoff: Backoff::default(),
            budget: 16 << 20,
            suspect_after: Duration::from_secs(1),
            reconnect: true,
            seed: 0,
            limits: Limits::default(),
            sentry: SentryConfig::default(),
            address: None,
            keep_refused: false,
        }
    }
}

impl LaneConfig {
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

    /// Bytes queued plus in flight, at most; beyond them callers wait. Default: 16 MiB. One command always fits.
    #[must_use]
    pub fn budget(mut self, bytes: usize) -> Self {
        self.budget = bytes;
        self
    }

    /// A peer that owes replies and sends nothing for so long is suspect. Default: 1 s.
    #[must_use]
    pub fn suspect_after(mut self, after: Duration) -> Self {
        self.suspect_after = after;
        self
    }

    /// Whether a command that the server refuses because it is no primary, or not ready (`READONLY`, `REDIRECT`, `LOADING`,
    /// `MASTERDOWN`, `NOREPLICAS`), keeps its place: later ones of its slot wait until its caller sends it again
    /// ([`LaneCall::again`]) or drops it, for as long as its deadline lasts. Default: no.
    #[must_use]
    pub fn keep_refused(mut self, keep: bool) -> Self {
        self.keep_refused = keep;
        self
    }

    /// Whether a lost connection is dialled again. Default: yes; a lease's is not.
    #[must_use]
    pub fn reconnect(mut self, reconnect: bool) -> Self {
        self.reconnect = reconnect;
        self
    }

    /// Connects to this address of its endpoint rather than to what a lookup says. Default: what a lookup says.
    #[must_use]
    pub fn address(mut self, address: Option<IpAddr>) -> Self {
        self.address = address;
        self
    }

    /// Where jitter starts. Default: 0; drivers draw one for each lane.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// When its connections prove that replies are in step. Default: never.
    ///
    /// A lease never does: between its `MULTI` and `EXEC`, or while it monitors, a `PING` would have another answer.
    #[must_use]
    pub fn sentry(mut self, sentry: SentryConfig) -> Self {
        self.sentry = sentry;
        self
    }

    /// What replies may ask of memory.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self.dial = self.dial.limits(limits);
        self
    }
}

/// Orders to a lane's task.
#[derive(Debug)]
pub(crate) enum Order {
    Move(MoveRequest),
    /// Finish what is owed until then, and end.
    Close(Instant),
}

/// Orders that may wait; more than a handful at once means that the task is gone.
const ORDERS: usize = 64;

/// What handles and the task share.
pub(crate) struct Shared {
    pub(crate) id: LaneId,
    pub(crate) queue: Mutex<Queue>,
    pub(crate) info: ArcSwapOption<ConnInfo>,
    pub(crate) last_error: ArcSwapOption<DialError>,
    pub(crate) ready: watch::Sender<Readiness>,
    /// Floors under timeouts, by who set them.
    pub(crate) relaxed: Mutex<Vec<(u64, Duration)>>,
    pub(crate) suspect: AtomicBool,
    pub(crate) mute: AtomicBool,
    pin: Mutex<Pin>,
}

/// Whether a caller has state on the connection that no other connection has.
#[derive(Debug, Default)]
struct Pin {
    pinned: bool,
    /// A successor waits for the state to go.
    parked: bool,
    /// State that was wanted while nothing but the task's turn was missing to a switch: it begins on the successor. A
    /// caller that watches again and again would never let the connection go otherwise.
    wanted: bool,
}

/// Whether a lane has a connection.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It has ended for good.
    Closed,
    /// It is connecting.
    Connecting,
    /// It is connecting, and the last dial has failed.
    Failing,
    /// It has one.
    Ready,
}

impl Shared {
    /// The highest floor in force.
    pub(crate) fn floor(&self) -> Option<Duration> {
        self.relaxed.lock().iter().map(|(_, floor)| *floor).max()
    }

    /// Set before the command that makes the state is appended and looked at under the queue's lock, so that the command
    /// and a switch agree on their order.
    pub(crate) fn is_pinned(&self) -> bool {
        self.pin.lock().pinned
    }

    /// A successor has arrived; gives whether it has to wait for the state to go.
    pub(crate) fn park(&self) -> bool {
        let mut pin = self.pin.lock();
        pin.parked = pin.pinned;
        pin.parked
    }

    /// The successor waits no longer: it is in use, or has gone.
    pub(crate) fn unparked(&self) {
        let mut pin = self.pin.lock();
        pin.parked = false;
        pin.pinned |= std::mem::take(&mut pin.wanted);
    }

    pub(crate) fn wake_io(&self) {
        let waker = self.queue.lock().take_io();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A handle on a lane. Cheap to clone; the lane ends when the last handle goes.
#[derive(Clone)]
pub struct Lane {
    shared: Arc<Shared>,
    handle: Arc<Handle>,
}

/// Ends the task with the last clone.
struct Handle {
    shared: Arc<Shared>,
    orders: mpsc::Sender<Order>,
    home: Endpoint,
}

impl Shared {
    /// Ends the lane: what is not written is given back as not executed, what is in flight as unknown.
    fn retire(&self) {
        let mut wakers = Vec::new();
        self.queue.lock().close(&mut wakers);
        for waker in wakers {
            waker.wake();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.retire();
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane")
            .field("id", &self.shared.id)
            .field("endpoint", &self.endpoint())
            .field("readiness", &self.readiness())
            .finish_non_exhaustive()
    }
}

impl Lane {
    /// Starts a lane to `endpoint`, which dials at once, on the current tokio runtime.
    pub fn start(
        id: LaneId,
        endpoint: Endpoint,
        mut config: LaneConfig,
        observer: Arc<dyn LaneObserver>,
    ) -> Self {
        let home = config.dial.home.get_or_insert_with(|| endpoint.clone()).clone();
        let (orders, orders_rx) = mpsc::channel(ORDERS);
        let mut queue = Queue::new(QueueLimits { bytes: config.budget });
        if config.keep_refused {
            queue.keep_refused();
        }
        let shared = Arc::new(Shared {
            id,
            queue: Mutex::new(queue),
            info: ArcSwapOption::empty(),
            last_error: ArcSwapOption::empty(),
            ready: watch::Sender::new(Readiness::Connecting),
            relaxed: Mutex::new(Vec::new()),
            suspect: AtomicBool::new(false),
            mute: AtomicBool::new(false),
            pin: Mutex::new(Pin::default()),
        });
        let seed = Seed::new(config.seed ^ id.0.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let task = task::LaneTask::new(Arc::clone(&shared), endpoint, config, observer, orders_rx, seed);
        // The task ends with the last handle: dropping a `Handle` closes the queue, which wakes it.
        drop(spawn(task));
        let handle = Arc::new(Handle { shared: Arc::clone(&shared), orders, home });
        Self { shared, handle }
    }

    /// Its name.
    pub fn id(&self) -> LaneId {
        self.shared.id
    }

    /// Where its connection leads; without one, where it was started for.
    pub fn endpoint(&self) -> Endpoint {
        self.shared
            .info
            .load()
            .as_ref()
            .map_or_else(|| self.handle.home.clone(), |info| info.endpoint.clone())
    }

    /// The endpoint that it was started for; a lease's is that of its pool.
    pub fn home(&self) -> Endpoint {
        self.handle.home.clone()
    }

    /// What is known of its connection; `None` without one.
    pub fn info(&self) -> Option<Arc<ConnInfo>> {
        self.shared.info.load_full()
    }

    /// Why the last dial failed; `None` once one has succeeded.
    pub fn last_error(&self) -> Option<Arc<DialError>> {
        self.shared.last_error.load_full()
    }

    /// Whether it has a connection.
    pub fn readiness(&self) -> Readiness {
        *self.shared.ready.borrow()
    }

    /// The peer owes replies and has been silent for longer than it should.
    pub fn is_suspect(&self) -> bool {
        self.shared.suspect.load(Ordering::Relaxed)
    }

    /// Whether the peer is suspect and does not answer a new connection either: what it owes will not come.
    pub fn is_mute(&self) -> bool {
        self.shared.mute.load(Ordering::Relaxed)
    }

    /// Bytes queued plus in flight.
    pub fn bytes(&self) -> usize {
        self.shared.queue.lock().bytes()
    }

    /// Commands queued or in flight.
    pub fn in_flight(&self) -> usize {
        self.shared.queue.lock().in_order()
    }

    /// A place where a reply to a command of this slot is owed, or an error waits for its caller to take it; `None` when
    /// there is none.
    ///
    /// The place is a hint to begin the next look with, which makes many looks as cheap as one. Begin with 0.
    pub fn owed_at(&self, slot: u16, hint: usize) -> Option<usize> {
        self.shared.queue.lock().owed_at(slot, hint)
    }

    /// The slots of which [`owed_at`](Self::owed_at) finds something, in order; units of several slots apart.
    pub fn owed_slots(&self) -> Vec<u16> {
        let mut slots: Vec<u16> = self.shared.queue.lock().owed_slots().collect();
        slots.sort_unstable();
        slots.dedup();
        slots
    }

    /// Waits until it has a connection; gives false when it has ended instead.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn ready(&self) -> bool {
        let mut ready = self.shared.ready.subscribe();
        let end = ready.wait_for(|state| matches!(state, Readiness::Ready | Readiness::Closed)).await;
        end.is_ok_and(|state| *state == Readiness::Ready)
    }

    /// Waits for the end of the first attempt to connect; gives what came of it.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn first_attempt(&self) -> Readiness {
        let mut ready = self.shared.ready.subscribe();
        let end = ready.wait_for(|state| *state != Readiness::Connecting).await;
        end.map_or(Readiness::Closed, |state| *state)
    }

    /// Sends a command; its place in the order is taken at the first poll.
    ///
    /// `timeout` covers queueing, writing and waiting for the reply, to some 100 ms.
    pub fn call(&self, timeout: Duration) -> LaneCall {
        LaneCall::new(self.clone(), timeout)
    }

    /// As [`call`](Self::call), as a future of its own.
    ///
    /// # Cancel safety
    /// Dropping the future lets the reply go to nobody; no other caller is disturbed.
    pub async fn request(&self, command: &Command, timeout: Duration) -> Outcome {
        let mut call = LaneCall::new(self, timeout);
        std::future::poll_fn(|cx| call.poll(command, cx)).await
    }

    /// Sends commands that stay together on the wire, and waits for all their replies.
    ///
    /// # Cancel safety
    /// As [`request`](Self::request).
    pub async fn request_unit(&self, unit: &[Command], timeout: Duration) -> Outcome {
        let mut call = LaneCall::new(self, timeout);
        std::future::poll_fn(|cx| call.poll_unit(unit, cx)).await
    }

    fn order(&self, order: Order) -> bool {
        let sent = self.handle.orders.try_send(order).is_ok();
        if sent {
            self.shared.wake_io();
        }
        sent
    }

    /// Moves to another server: dials beside, switches, lets the old connection answer what it owes.
    ///
    /// The result comes as a [`Report`]. False when the lane's task is gone.
    pub fn move_to(&self, request: MoveRequest) -> bool {
        self.order(Order::Move(request))
    }

    /// Puts a floor under timeouts, named by `key`; the highest floor counts.
    pub fn relax(&self, key: u64, floor: Duration) {
        let mut relaxed = self.shared.relaxed.lock();
        relaxed.retain(|(known, _)| *known != key);
        relaxed.push((key, floor));
    }

    /// The highest floor under timeouts in force, if any.
    pub fn floor(&self) -> Option<Duration> {
        self.shared.floor()
    }

    /// The keys of the floors in force, the latest first.
    pub fn relaxed_by(&self) -> Vec<u64> {
        self.shared.relaxed.lock().iter().rev().map(|(key, _)| *key).collect()
    }

    /// Takes the floor away again.
    pub fn restore(&self, key: u64) {
        self.shared.relaxed.lock().retain(|(known, _)| *known != key);
    }

    /// Says whether a caller has state on the connection that no other connection has (`WATCH`, `MULTI`): while it has,
    /// the lane stays on that connection, and ends with it. Where a successor waited for state that has gone, new state
    /// begins on the successor.
    pub fn pin(&self, pinned: bool) {
        let wake = {
            let mut pin = self.shared.pin.lock();
            let switches_first = pinned && pin.parked && !pin.pinned;
            pin.wanted = switches_first;
            let before = pin.pinned;
            pin.pinned = pinned && !switches_first;
            switches_first || before && !pinned
        };
        if wake {
            self.shared.wake_io();
        }
    }

    /// Holds writes back, and reads behind held writes of the same slot.
    pub fn hold(&self) {
        self.shared.queue.lock().hold();
    }

    /// Whether writes are held back.
    pub fn is_holding(&self) -> bool {
        self.shared.queue.lock().is_holding()
    }

    /// Lets held writes go, in order.
    pub fn release(&self) {
        let waker = self.shared.queue.lock().release();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Ends at once, whoever still holds a handle: what is not written is given back as not executed, so that it can go
    /// elsewhere, and what is in flight is unknown.
    pub fn retire(&self) {
        self.shared.retire();
    }

    /// Finishes what is owed and ends; what is owed after `deadline` is given up as unknown.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the closing.
    pub async fn close(&self, deadline: Duration) {
        let mut ready = self.shared.ready.subscribe();
        if self.order(Order::Close(clock::now() + deadline)) {
            let closed = ready.wait_for(|state| *state == Readiness::Closed);
            // The task keeps the deadline; a little more is for the case that the runtime stands still.
            let _late = tokio::time::timeout(deadline + Duration::from_secs(1), closed).await;
        }
    }
}

#[cfg(test)]
mod tests;
