//! Leases: connections that one caller has to itself, for commands that block and for state that is the connection's own.
//!
//! A fair line of waiters, no round trip at checkout: the background reader of each connection knows whether it is alive.
//! What comes back in the middle of a reply, or with state of its caller's, is closed and never handed out again.

use std::{
    collections::VecDeque,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use evenkeel_protocol::{Command, Endpoint};
use parking_lot::Mutex;
use slab::Slab;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    clock,
    dial::DialError,
    lane::{Lane, LaneConfig, LaneId, LaneObserver, Readiness},
};
use crate::{
    machine::{Seed, SentryConfig},
    queue::Outcome,
};

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

/// A connection that is out, and since when.
struct Out {
    lane: Lane,
    since: Instant,
}

/// Every connection, behind one lock: lending and giving back take it once each.
#[derive(Default)]
struct Desk {
    idle: VecDeque<Idle>,
    out: Slab<Out>,
}

struct Inner {
    endpoint: ArcSwap<Endpoint>,
    lane_config: LaneConfig,
    config: LeaseConfig,
    observer: Arc<dyn LaneObserver>,
    /// Fair: first come, first served.
    permits: Arc<Semaphore>,
    desk: Mutex<Desk>,
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
        mut lane_config: LaneConfig,
        config: LeaseConfig,
        observer: Arc<dyn LaneObserver>,
    ) -> Self {
        // Wherever dials are sent meanwhile: what is announced concerns the leases of the configured endpoint.
        lane_config.dial.home = Some(endpoint.clone());
        Self {
            inner: Arc::new(Inner {
                endpoint: ArcSwap::from_pointee(endpoint),
                lane_config: lane_config.reconnect(false).sentry(SentryConfig::default()),
                permits: Arc::new(Semaphore::new(config.max)),
                config,
                observer,
                desk: Mutex::new(Desk::default()),
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
                let mut desk = self.inner.desk.lock();
                self.inner.places.fetch_add(1, Ordering::Relaxed);
                std::mem::take(&mut desk.idle)
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
        let gone = std::mem::take(&mut self.inner.desk.lock().idle);
        drop(gone);
    }

    /// Connections that nobody uses.
    pub fn idle(&self) -> usize {
        self.inner.desk.lock().idle.len()
    }

    /// Connections in use.
    pub fn in_use(&self) -> usize {
        self.inner.desk.lock().out.len()
    }

    /// Every connection, in use or idle.
    pub fn lanes(&self) -> Vec<Lane> {
        let desk = self.inner.desk.lock();
        let out = desk.out.iter().map(|(_, out)| &out.lane);
        out.chain(desk.idle.iter().map(|idle| &idle.lane)).cloned().collect()
    }

    /// The connection with this number, in use or idle.
    pub fn lane(&self, id: LaneId) -> Option<Lane> {
        let desk = self.inner.desk.lock();
        let out = desk.out.iter().map(|(_, out)| &out.lane);
        out.chain(desk.idle.iter().map(|idle| &idle.lane)).find(|lane| lane.id() == id).cloned()
    }

    /// Closes the idle connection with this number, if it is idle; gives whether it was.
    pub fn discard_idle(&self, id: LaneId) -> bool {
        let found = {
            let mut desk = self.inner.desk.lock();
            let index = desk.idle.iter().position(|entry| entry.lane.id() == id);
            index.and_then(|index| desk.idle.remove(index))
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
        // Most find one at once: neither a timer nor a place in the line is made for them.
        if let Some(lease) = self.try_acquire() {
            return Ok(lease);
        }
        match tokio::time::timeout(timeout, self.take()).await {
            Ok(result) => result,
            Err(_elapsed) => Err(self.timed_out(timeout)),
        }
    }

    fn timed_out(&self, waited: Duration) -> AcquireError {
        let now = clock::now();
        let desk = self.inner.desk.lock();
        let (idle, out) = (desk.idle.len(), &desk.out);
        let ages = out.iter().map(|(_, out)| now.saturating_duration_since(out.since));
        let oldest = ages.max().unwrap_or_default();
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

    /// Takes an idle connection that is alive, when there is one and nobody stands in the line; it waits for nothing.
    pub fn try_acquire(&self) -> Option<Lease> {
        // Released permits go to the line first.
        let permit = Arc::clone(&self.inner.permits).try_acquire_owned().ok()?;
        self.lend_idle(self.inner.places.load(Ordering::Relaxed), permit).ok()
    }

    async fn take(&self) -> Result<Lease, AcquireError> {
        let permit = {
            let _waiting = Waiting::new(&self.inner.waiters);
            Arc::clone(&self.inner.permits).acquire_owned().await.map_err(|_closed| AcquireError::Closed)?
        };
        // Before the dial: a change of place while it is under way makes it one of the old place.
        let place = self.inner.places.load(Ordering::Relaxed);
        let permit = match self.lend_idle(place, permit) {
            Ok(lease) => return Ok(lease),
            Err(permit) => permit,
        };
        let endpoint = (**self.inner.endpoint.load()).clone();
        let id = LaneId(self.inner.next.fetch_add(1, Ordering::Relaxed));
        let lane =
            Lane::start(id, endpoint, self.inner.lane_config.clone(), Arc::clone(&self.inner.observer));
        if lane.ready().await {
            let born = clock::now();
            let number = self.inner.desk.lock().out.insert(Out { lane: lane.clone(), since: born });
            return Ok(self.lease(lane, born, number, place, permit));
        }
        Err(lane.last_error().map_or(AcquireError::Closed, AcquireError::Dial))
    }

    /// Lends the next idle connection that is alive; gives the permit back when there is none.
    fn lend_idle(&self, place: u64, permit: OwnedSemaphorePermit) -> Result<Lease, OwnedSemaphorePermit> {
        let now = clock::now();
        loop {
            let mut desk = self.inner.desk.lock();
            let next = match self.inner.config.reuse {
                Reuse::Fifo => desk.idle.pop_front(),
                Reuse::Lifo => desk.idle.pop_back(),
            };
            let Some(entry) = next else { return Err(permit) };
            let stale = now.saturating_duration_since(entry.since) > self.inner.config.idle_timeout;
            if entry.lane.readiness() == Readiness::Ready && !self.inner.is_old(&entry, now) && !stale {
                let lane = entry.lane.clone();
                let number = desk.out.insert(Out { lane: entry.lane, since: now });
                drop(desk);
                return Ok(self.lease(lane, entry.born, number, place, permit));
            }
            // A connection ends with its last handle, which wakes its task: not under the lock.
            drop(desk);
            drop(entry);
        }
    }

    fn lease(
        &self,
        lane: Lane,
        born: Instant,
        number: usize,
        place: u64,
        permit: OwnedSemaphorePermit,
    ) -> Lease {
        Lease {
            lane,
            born,
            number,
            place,
            dirty: AtomicBool::new(false),
            inner: Arc::clone(&self.inner),
            _permit: permit,
        }
    }

    /// Closes what is idle, lets nobody in, and closes what is in use when it comes back.
    pub fn close(&self) {
        self.inner.permits.close();
        let gone = std::mem::take(&mut self.inner.desk.lock().idle);
        drop(gone);
    }

    /// Closes connections that are dead, too old, or idle for too long beyond those that stay; to be called now and then.
    pub fn reap(&self) {
        let now = clock::now();
        let config = &self.inner.config;
        let mut desk = self.inner.desk.lock();
        let idle = &mut desk.idle;
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
        drop(desk);
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
    number: usize,
    place: u64,
    dirty: AtomicBool,
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
    pub fn mark_dirty(&self) {
        self.dirty.store(true, Ordering::Relaxed);
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
        let clean = !self.dirty.load(Ordering::Relaxed)
            && self.lane.in_flight() == 0
            && self.lane.readiness() == Readiness::Ready;
        let since = clock::now();
        let mut desk = self.inner.desk.lock();
        let out = desk.out.try_remove(self.number);
        // Asked under the lock: whoever closes or moves the pool empties the line behind us.
        let at_home = self.place == self.inner.places.load(Ordering::Relaxed);
        if clean && at_home && !self.inner.permits.is_closed() {
            desk.idle.extend(out.map(|out| Idle { lane: out.lane, born: self.born, since }));
        } else {
            drop(desk);
            drop(out);
        }
    }
}

#[cfg(test)]
mod tests;
