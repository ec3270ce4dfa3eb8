//! Leases: connections that one caller has to itself, for commands that block and for state that is the connection's own.
//!
//! A fair line of waiters, no round trip at checkout: the background reader of each connection knows whether it is alive.
//! What comes back in the middle of a reply, or with state of its caller's, is closed and never handed out again.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use evenkeel_protocol::{Command, Endpoint};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    clock,
    dial::DialError,
    lane::{Lane, LaneConfig, LaneId, LaneObserver, Readiness},
};
use crate::{machine::Seed, queue::Outcome};

/// Which idle connection is lent next.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reuse {
    /// The one that has been idle longest: all stay in use.
    Fifo,
    /// The one that was given back last: those beyond need grow old and are closed.
    #[default]
    Lifo,
}

/// How leases are kept. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LeaseConfig {
    max: usize,
    min_idle: usize,
    reuse: Reuse,
    acquire_timeout: Duration,
    idle_timeout: Duration,
    max_lifetime: Option<Duration>,
}

impl Default for LeaseConfig {
    fn default() -> Self {
        Self {
            max: 16,
            min_idle: 0,
            reuse: Reuse::Lifo,
            acquire_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(60),
            max_lifetime: None,
        }
    }
}

impl LeaseConfig {
    /// Leases at once, idle ones included, at most. Default: 16.
    #[must_use]
    pub fn max(mut self, max: usize) -> Self {
        self.max = max.max(1);
        self
    }

    /// Idle connections that stay although nobody has wanted them for the idle timeout. Default: 0.
    #[must_use]
    pub fn min_idle(mut self, min: usize) -> Self {
        self.min_idle = min;
        self
    }

    /// Which idle connection is lent next. Default: the one that was given back last.
    #[must_use]
    pub fn reuse(mut self, reuse: Reuse) -> Self {
        self.reuse = reuse;
        self
    }

    /// How long a caller waits for a lease, dialling included. Default: 5 s.
    #[must_use]
    pub fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.acquire_timeout = timeout;
        self
    }

    /// A connection that nobody has wanted for so long is closed. Default: 60 s.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// A connection as old as this is not handed out again; each ends up to a tenth earlier, so that those made at once do
    /// not end at once. Default: none is too old.
    #[must_use]
    pub fn max_lifetime(mut self, lifetime: Option<Duration>) -> Self {
        self.max_lifetime = lifetime;
        self
    }
}

/// Why there is no lease.
#[non_exhaustive]
#[derive(Clone, Debug, thiserror::Error)]
pub enum AcquireError {
    /// The pool is closed.
    #[error("the pool is closed")]
    Closed,
    /// A new connection could not be made.
    #[error("no connection for the lease")]
    Dial(#[source] Arc<DialError>),
    /// None was given back in time; the numbers tell why.
    #[error(
        "no lease of {endpoint} within {waited:?}: size {size}, idle {idle}, in use {in_use}, waiters {waiters}, oldest lease {oldest:?}"
    )]
    TimedOut {
        /// Where.
        endpoint: Endpoint,
        /// How long the caller waited.
        waited: Duration,
        /// Connections, idle and in use.
        size: usize,
        /// Connections that nobody uses.
        idle: usize,
        /// Connections in use.
        in_use: usize,
        /// Callers in the line.
        waiters: usize,
        /// How long the oldest lease has been out.
        oldest: Duration,
    },
}

struct Idle {
    lane: Lane,
    born: Instant,
    since: Instant,
}

struct Inner {
    endpoint: ArcSwap<Endpoint>,
    lane_config: LaneConfig,
    config: LeaseConfig,
    observer: Arc<dyn LaneObserver>,
    /// Fair: first come, first served.
    permits: Arc<Semaphore>,
    idle: Mutex<VecDeque<Idle>>,
    /// Leases that are out, by number, with when they went.
    out: Mutex<BTreeMap<u64, (Instant, Lane)>>,
    waiters: AtomicUsize,
    next: AtomicU64,
    /// Counts changes of place and of login: what was lent before one is not kept.
    places: AtomicU64,
}

/// Leases of one endpoint. Cheap to clone.
#[derive(Clone)]
pub struct LeasePool {
    inner: Arc<Inner>,
}

impl fmt::Debug for LeasePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeasePool")
            .field("endpoint", &**self.inner.endpoint.load())
            .field("idle", &self.idle())
            .field("in_use", &self.in_use())
            .finish_non_exhaustive()
    }
}

/// Leases have numbers of their own, far from those of lanes.
const FIRST_LEASE: u64 = 1 << 32;

impl LeasePool {
    /// Leases of `endpoint`; none is dialled before somebody asks.
    pub fn new(
        endpoint: Endpoint,
        lane_config: LaneConfig,
        config: LeaseConfig,
        observer: Arc<dyn LaneObserver>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                endpoint: ArcSwap::from_pointee(endpoint),
                lane_config: lane_config.reconnect(false),
                permits: Arc::new(Semaphore::new(config.max)),
                config,
                observer,
                idle: Mutex::new(VecDeque::new()),
                out: Mutex::new(BTreeMap::new()),
                waiters: AtomicUsize::new(0),
                next: AtomicU64::new(FIRST_LEASE),
                places: AtomicU64::new(0),
            }),
        }
    }

    /// New leases are dialled there from now on, and idle ones of another place are closed.
    pub fn retarget(&self, endpoint: &Endpoint) {
        let before = self.inner.endpoint.swap(Arc::new(endpoint.clone()));
        if *before != *endpoint {
            let gone = {
                let mut idle = self.inner.idle.lock();
                self.inner.places.fetch_add(1, Ordering::Relaxed);
                std::mem::take(&mut *idle)
            };
            drop(gone);
        }
    }

    /// New leases are dialled there from now on; idle ones are left to be moved or to be used where they are.
    pub fn redirect(&self, endpoint: &Endpoint) {
        self.inner.endpoint.store(Arc::new(endpoint.clone()));
    }

    /// Every connection that is open is used to its end and not lent again: new ones log in anew.
    pub fn renew(&self) {
        self.inner.places.fetch_add(1, Ordering::Relaxed);
        let gone = std::mem::take(&mut *self.inner.idle.lock());
        drop(gone);
    }

    /// Connections that nobody uses.
    pub fn idle(&self) -> usize {
        self.inner.idle.lock().len()
    }

    /// Connections in use.
    pub fn in_use(&self) -> usize {
        self.inner.out.lock().len()
    }

    /// Every connection, in use or idle.
    pub fn lanes(&self) -> Vec<Lane> {
        let mut lanes: Vec<Lane> = self.inner.out.lock().values().map(|(_, lane)| lane.clone()).collect();
        lanes.extend(self.inner.idle.lock().iter().map(|idle| idle.lane.clone()));
        lanes
    }

    /// Closes the idle connection with this number, if it is idle; gives whether it was.
    pub fn discard_idle(&self, id: LaneId) -> bool {
        let found = {
            let mut idle = self.inner.idle.lock();
            let index = idle.iter().position(|entry| entry.lane.id() == id);
            index.and_then(|index| idle.remove(index))
        };
        found.is_some()
    }

    /// Takes a connection: an idle one that is alive, the last given back first, or a new one.
    ///
    /// # Errors
    /// No connection in time, with the numbers that tell why, or a failed dial.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the line; nothing is lost.
    pub async fn acquire(&self) -> Result<Lease, AcquireError> {
        self.acquire_within(self.inner.config.acquire_timeout).await
    }

    /// As [`acquire`](Self::acquire), with a time of the caller's.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    ///
    /// # Cancel safety
    /// As [`acquire`](Self::acquire).
    pub async fn acquire_within(&self, timeout: Duration) -> Result<Lease, AcquireError> {
        match tokio::time::timeout(timeout, self.take()).await {
            Ok(result) => result,
            Err(_elapsed) => Err(self.timed_out(timeout)),
        }
    }

    fn timed_out(&self, waited: Duration) -> AcquireError {
        let (idle, now) = (self.idle(), clock::now());
        let out = self.inner.out.lock();
        let oldest =
            out.values().map(|(since, _)| now.saturating_duration_since(*since)).max().unwrap_or_default();
        AcquireError::TimedOut {
            endpoint: (**self.inner.endpoint.load()).clone(),
            waited,
            size: out.len() + idle,
            idle,
            in_use: out.len(),
            waiters: self.inner.waiters.load(Ordering::Relaxed),
            oldest,
        }
    }

    async fn take(&self) -> Result<Lease, AcquireError> {
        let permit = {
            let _waiting = Waiting::new(&self.inner.waiters);
            Arc::clone(&self.inner.permits).acquire_owned().await.map_err(|_closed| AcquireError::Closed)?
        };
        // Before the dial: a change of place while it is under way makes it one of the old place.
        let place = self.inner.places.load(Ordering::Relaxed);
        if let Some((lane, born)) = self.pop_idle() {
            return Ok(self.lend(lane, born, place, permit));
        }
        let endpoint = (**self.inner.endpoint.load()).clone();
        let id = LaneId(self.inner.next.fetch_add(1, Ordering::Relaxed));
        let lane =
            Lane::start(id, endpoint, self.inner.lane_config.clone(), Arc::clone(&self.inner.observer));
        if lane.ready().await {
            return Ok(self.lend(lane, clock::now(), place, permit));
        }
        Err(lane.last_error().map_or(AcquireError::Closed, AcquireError::Dial))
    }

    fn pop_idle(&self) -> Option<(Lane, Instant)> {
        let now = clock::now();
        loop {
            let entry = {
                let mut idle = self.inner.idle.lock();
                match self.inner.config.reuse {
                    Reuse::Fifo => idle.pop_front(),
                    Reuse::Lifo => idle.pop_back(),
                }
            }?;
            let stale = now.saturating_duration_since(entry.since) > self.inner.config.idle_timeout;
            if entry.lane.readiness() == Readiness::Ready && !self.inner.is_old(&entry, now) && !stale {
                return Some((entry.lane, entry.born));
            }
        }
    }

    fn lend(&self, lane: Lane, born: Instant, place: u64, permit: OwnedSemaphorePermit) -> Lease {
        let number = self.inner.next.fetch_add(1, Ordering::Relaxed);
        self.inner.out.lock().insert(number, (clock::now(), lane.clone()));
        Lease { lane, born, number, place, dirty: false, inner: Arc::clone(&self.inner), _permit: permit }
    }

    /// Closes what is idle, lets nobody in, and closes what is in use when it comes back.
    pub fn close(&self) {
        self.inner.permits.close();
        let gone = std::mem::take(&mut *self.inner.idle.lock());
        drop(gone);
    }

    /// Closes connections that are dead, too old, or idle for too long beyond those that stay; to be called now and then.
    pub fn reap(&self) {
        let now = clock::now();
        let config = &self.inner.config;
        let mut idle = self.inner.idle.lock();
        let mut gone = Vec::new();
        let mut index = 0;
        while let Some(entry) = idle.get(index) {
            let unwanted = idle.len() > config.min_idle
                && now.saturating_duration_since(entry.since) > config.idle_timeout;
            let dead = entry.lane.readiness() != Readiness::Ready || self.inner.is_old(entry, now);
            if unwanted || dead {
                gone.extend(idle.remove(index));
            } else {
                index += 1;
            }
        }
        drop(idle);
        drop(gone);
    }
}

impl Inner {
    fn is_old(&self, entry: &Idle, now: Instant) -> bool {
        let Some(max) = self.config.max_lifetime else { return false };
        // The same for one connection at each look, and another for the next.
        let earlier = max.mul_f64(0.1 * Seed::new(entry.lane.id().0).fraction());
        now.saturating_duration_since(entry.born) > max.saturating_sub(earlier)
    }
}

/// Counts a caller in the line, also when it goes away.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection of one caller's own. It goes back when dropped, if nothing is owed and no state of the caller's is on it.
pub struct Lease {
    lane: Lane,
    born: Instant,
    number: u64,
    place: u64,
    dirty: bool,
    inner: Arc<Inner>,
    _permit: OwnedSemaphorePermit,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("lane", &self.lane).field("dirty", &self.dirty).finish_non_exhaustive()
    }
}

impl Lease {
    /// The connection.
    pub fn lane(&self) -> &Lane {
        &self.lane
    }

    /// Says that the caller has left state on the connection (WATCH, MULTI, SELECT, ...): it is closed afterwards.
    pub fn mark_dirty(&mut self) {
        self.dirty = true;
    }

    /// Sends a command and waits for its outcome.
    ///
    /// # Cancel safety
    /// Dropping the future leaves a reply owed: the connection is closed with the lease, and a command that blocks ends
    /// on the server.
    pub async fn request(&self, command: &Command, timeout: Duration) -> Outcome {
        self.lane.request(command, timeout).await
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.inner.out.lock().remove(&self.number);
        let clean = !self.dirty && self.lane.in_flight() == 0 && self.lane.readiness() == Readiness::Ready;
        if !clean {
            return;
        }
        let entry = Idle { lane: self.lane.clone(), born: self.born, since: clock::now() };
        let mut idle = self.inner.idle.lock();
        // Asked under the lock: whoever closes or moves the pool empties the line behind us.
        let at_home = self.place == self.inner.places.load(Ordering::Relaxed);
        if at_home && !self.inner.permits.is_closed() {
            idle.push_back(entry);
        }
    }
}

#[cfg(test)]
mod tests;
