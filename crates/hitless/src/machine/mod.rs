//! `HandoffEngine`: all announcements, windows and handoffs of one client, as one machine.
//!
//! It knows names, addresses and connection ids; it knows neither sockets nor pools nor topologies, and it reads no
//! clock. `notices` takes what servers say, `starts` begins handoffs, `moves` carries them through.

pub(crate) mod breaker;
mod handoff;
mod jitter;
mod moves;
mod names;
mod notices;
mod redirects;
mod relax;
mod sequence;
mod slot_set;
mod slots;
mod starts;
mod windows;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use evenkeel_protocol::{Endpoint, Machine};

use self::{
    breaker::Breakers,
    handoff::Handoff,
    names::Names,
    redirects::{Redirect, RedirectKey},
    relax::Ledger,
    sequence::Seen,
    slots::SlotLog,
    windows::Windows,
};
use crate::{Action, ConnId, Event, HandoffId, Input, Metrics, Origin, Scope, Settings, Sizes};

/// Failed ordinary dials of one endpoint in a row that ask for a look at the topology.
const DIAL_FAILURES: u8 = 3;
/// The least time between two looks at the topology for failed dials.
const VERIFY_PAUSE: Duration = Duration::from_secs(1);
/// Spreads the looks of a fleet that heard of the same change.
const VERIFY_JITTER: Duration = Duration::from_millis(200);
/// Endpoints whose failed dials are counted.
const MAX_DIAL_COUNTS: usize = 256;

/// A connection as the engine knows it.
#[derive(Debug)]
struct Conn {
    origin: Origin,
    opened_at: Instant,
    /// The handoff that moves it at this moment.
    busy: Option<HandoffId>,
    /// How often it and those before it were made anew, by handoff.
    made: BTreeMap<HandoffId, u8>,
    /// It has a successor and only finishes what it owes.
    draining: bool,
    /// The end of its relaxed time after a move, with the key in the ledger.
    tail: Option<(Instant, u64)>,
}

/// Turns what servers announce into moves of connections, windows of relaxed timeouts and slot changes.
///
/// One engine serves one client. Feed it through [`Machine`]; the same engine runs under the driver, in scripts with
/// virtual time and in simulated worlds.
///
/// ```
/// use evenkeel_hitless::{Action, Config, ConnId, HandoffEngine, Input, Origin, Protocol};
/// use evenkeel_protocol::{Endpoint, Machine, Notice};
/// use std::time::Duration;
/// # #[expect(clippy::disallowed_methods)] let now = std::time::Instant::now();
///
/// let settings = Config::new().build(Protocol::Resp3)?;
/// let sizes = settings.sizes(17, 0);
/// let mut engine = HandoffEngine::new(settings, sizes, 42);
///
/// let peer = Some("10.0.0.1:6379".parse()?);
/// let origin = Origin::new(ConnId(1), Endpoint::new("cache.example.com", 6379), peer);
/// engine.handle_input(now, Input::Opened { origin: origin.clone() });
///
/// let notice = Notice::Moving {
///     seq: Some(1),
///     grace: Some(Duration::from_secs(15)),
///     target: Some(Endpoint::new("10.0.0.2", 6379)),
/// };
/// engine.handle_input(now, Input::Notice { origin, during_handshake: false, received_at: None, notice });
/// let later = now + Duration::from_millis(500); // the jitter is over
/// engine.handle_timeout(later);
///
/// let moved = std::iter::from_fn(|| engine.poll_action())
///     .find_map(|action| if let Action::Move(one) = action { Some(one) } else { None });
/// assert_eq!(moved.map(|one| one.to.endpoint), Some(Endpoint::new("10.0.0.2", 6379)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct HandoffEngine {
    settings: Settings,
    sizes: Sizes,
    seed: u64,
    now: Option<Instant>,
    next_key: u64,
    conns: BTreeMap<ConnId, Conn>,
    handoffs: BTreeMap<HandoffId, Handoff>,
    redirects: BTreeMap<RedirectKey, Redirect>,
    breakers: Breakers,
    dial_failures: BTreeMap<Endpoint, u8>,
    ledger: Ledger,
    names: Names,
    seen: Seen,
    slot_log: SlotLog,
    windows: Windows,
    /// No tail of a connection ends before; it may be that none ends then.
    tails_from: Option<Instant>,
    verify_at: Option<Instant>,
    verified_at: Option<Instant>,
    stopped: bool,
    actions: VecDeque<Action>,
    metrics: Metrics,
}

impl HandoffEngine {
    /// An engine with nothing to do yet; `seed` decides every jitter.
    pub fn new(settings: Settings, sizes: Sizes, seed: u64) -> Self {
        let breakers = Breakers::new(settings.breaker());
        Self {
            settings,
            sizes,
            seed,
            now: None,
            next_key: 0,
            conns: BTreeMap::new(),
            handoffs: BTreeMap::new(),
            redirects: BTreeMap::new(),
            breakers,
            dial_failures: BTreeMap::new(),
            ledger: Ledger::default(),
            names: Names::default(),
            seen: Seen::default(),
            slot_log: SlotLog::default(),
            windows: Windows::default(),
            tails_from: None,
            verify_at: None,
            verified_at: None,
            stopped: false,
            actions: VecDeque::new(),
            metrics: Metrics::default(),
        }
    }

    /// What was counted so far, and how many connections wait at this moment.
    pub fn metrics(&self) -> Metrics {
        let waiting = self.handoffs.values().map(|handoff| handoff.waiting() as u64).sum();
        Metrics { queue_depth: waiting, ..self.metrics.clone() }
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Handoffs that still have connections to move.
    pub fn handoffs_in_progress(&self) -> usize {
        self.handoffs.values().filter(|handoff| !handoff.is_settled()).count()
    }

    /// Everything that is remembered, in pieces; bounded whatever servers send.
    pub fn footprint(&self) -> usize {
        self.conns.len()
            + self
                .handoffs
                .values()
                .map(|handoff| 1 + handoff.members.len() + handoff.sites.len())
                .sum::<usize>()
            + self.redirects.len()
            + self.dial_failures.len()
            + self.ledger.len()
            + self.seen.len()
            + self.windows.len()
            + self.actions.len()
    }

    fn key(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key
    }

    fn act(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    fn report(&mut self, event: Event) {
        self.metrics.count(&event);
        self.actions.push_back(Action::Report(event));
    }

    fn opened(&mut self, now: Instant, origin: &Origin) {
        self.dial_failures.remove(&origin.endpoint);
        let site = origin.site();
        let id = origin.conn;
        self.remember(now, origin.clone());
        // A dial that was under way when the server announced its move leads to the retiring server.
        let joined: Option<HandoffId> = self
            .handoffs
            .values()
            .rev()
            .find(|handoff| {
                handoff.plan.endpoint == origin.endpoint
                    && handoff.plan.target.as_ref() != Some(&origin.dialled)
                    && (handoff.told_early.contains(&id)
                        && (now < handoff.at.deadline || handoff.helps_latecomers(now))
                        || (now < handoff.at.deadline
                            && handoff.concerns(&site)
                            // Made anew through the name after half of the grace, it may be right: the server will tell,
                            // this connection or another one there.
                            && (handoff.plan.target.is_some()
                                || now < handoff.at.name_at
                                || handoff.still_there.contains(&site))))
            })
            .map(|handoff| handoff.id);
        if let Some(joined) = joined {
            self.join(now, joined, id, true);
        }
    }

    fn remember(&mut self, now: Instant, origin: Origin) {
        let conn =
            Conn { origin, opened_at: now, busy: None, made: BTreeMap::new(), draining: false, tail: None };
        self.conns.entry(conn.origin.conn).or_insert(conn);
    }

    fn closed(&mut self, now: Instant, id: ConnId) {
        let Some(conn) = self.conns.remove(&id) else { return };
        if let Some(restore) = self.ledger.forget(&Scope::Conn(id)) {
            self.metrics.unrelaxed(crate::Family::Handoff);
            self.act(restore);
        }
        for handoff in self.handoffs.values_mut() {
            handoff.told_early.remove(&id);
            let Some(member) = handoff.members.remove(&id) else { continue };
            if let (handoff::State::Moving { to_target: true, .. }, Some(target)) =
                (member.state, &handoff.plan.target)
            {
                self.breakers.cancel(target);
            }
        }
        if !conn.draining {
            self.metrics.closed_before_move += u64::from(conn.busy.is_some());
        }
        self.pump_all(now);
    }

    fn dial_failed(&mut self, now: Instant, endpoint: Endpoint) {
        if self.dial_failures.len() >= MAX_DIAL_COUNTS && !self.dial_failures.contains_key(&endpoint) {
            self.dial_failures.clear();
        }
        let failures = self.dial_failures.entry(endpoint).or_default();
        *failures = failures.saturating_add(1);
        if *failures >= DIAL_FAILURES {
            *failures = 0;
            self.verify_topology(now);
        }
    }

    /// One look for however many reasons; the pause comes before the jitter, so that reasons merge.
    fn verify_topology(&mut self, now: Instant) {
        if self.verify_at.is_some() {
            return;
        }
        let key = self.key();
        let earliest = self.verified_at.map_or(now, |last| now.max(last + VERIFY_PAUSE));
        self.verify_at = Some(earliest + jitter::uniform(self.seed, key, VERIFY_JITTER));
    }

    fn shutdown(&mut self, now: Instant) {
        self.stopped = true;
        for window in self.windows.close(|_| true) {
            self.close_window(window, false);
        }
        let tails: Vec<_> =
            self.conns.iter().filter(|(_, conn)| conn.tail.is_some()).map(|(id, _)| *id).collect();
        for id in tails {
            self.end_tail(id);
        }
        self.tails_from = None;
        let redirects: Vec<_> = self.redirects.keys().cloned().collect();
        for key in redirects {
            self.end_redirect(&key);
        }
        let handoffs: Vec<_> = self.handoffs.keys().copied().collect();
        for id in handoffs {
            self.abandon(now, id);
        }
        self.names.clear();
        self.verify_at = None;
    }

    fn end_tail(&mut self, id: ConnId) {
        let Some((_, key)) = self.conns.get_mut(&id).and_then(|conn| conn.tail.take()) else { return };
        self.metrics.unrelaxed(crate::Family::Handoff);
        if let Some(action) = self.ledger.release(&Scope::Conn(id), key) {
            self.act(action);
        }
    }

    fn expire_tails(&mut self, now: Instant) {
        let tails = || self.conns.iter().filter_map(|(id, conn)| conn.tail.map(|(until, _)| (until, *id)));
        let over: Vec<_> = tails().filter(|(until, _)| *until <= now).map(|(_, id)| id).collect();
        self.tails_from = tails().map(|(until, _)| until).filter(|until| now < *until).min();
        for id in over {
            self.end_tail(id);
        }
    }

    fn expire(&mut self, now: Instant) {
        for window in self.windows.close(|window| window.until <= now) {
            // The end of a move is known beforehand and announced by nobody.
            let expected = window.family == crate::Family::Moving;
            self.close_window(window, !expected);
        }
        if self.tails_from.is_some_and(|at| at <= now) {
            self.expire_tails(now);
        }
        let redirects: Vec<_> = self
            .redirects
            .iter()
            .filter(|(_, redirect)| redirect.until <= now)
            .map(|(key, _)| key.clone())
            .collect();
        for key in redirects {
            self.end_redirect(&key);
        }
        if self.verify_at.is_some_and(|at| at <= now) {
            self.verify_at = None;
            self.verified_at = Some(now);
            self.act(Action::VerifyTopology);
        }
        self.pump_all(now);
        let over: Vec<_> = self
            .handoffs
            .values()
            .filter(|handoff| handoff.at.forget_at <= now)
            .map(|over| over.id)
            .collect();
        for id in over {
            self.abandon(now, id);
        }
        let handoffs = &self.handoffs;
        let wanted = |name: &str| {
            handoffs.values().any(|handoff| {
                handoff.plan.endpoint.host() == name
                    && handoff.members.values().any(handoff::Member::wants_name)
            })
        };
        for name in self.names.due(now, wanted) {
            self.act(Action::AskDns { name });
        }
    }
}

impl Machine for HandoffEngine {
    type Input = Input;
    type Action = Action;

    fn handle_input(&mut self, now: Instant, input: Input) {
        self.now = Some(now);
        if self.stopped {
            return;
        }
        match input {
            Input::Closed { conn } => self.closed(now, conn),
            Input::DialFailed { endpoint } => self.dial_failed(now, endpoint),
            Input::DnsAnswer { name, addresses } => self.dns_answer(now, &name, &addresses),
            Input::Drain { endpoint, deadline } => self.drain(now, &endpoint, deadline),
            Input::Malformed { origin, error } => {
                self.report(Event::Malformed { conn: origin.conn, name: error.name, what: error.what });
            }
            Input::MoveFailed { conn, cause } => self.move_failed(now, conn, cause),
            Input::Notice { origin, during_handshake, received_at, notice } => {
                let late = received_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
                self.notice(now, &origin, during_handshake, starts::left_after(late, notice));
            }
            Input::Opened { origin } => self.opened(now, &origin),
            Input::Shutdown => self.shutdown(now),
            Input::Switched { conn, successor } => self.switched(now, conn, &successor),
            Input::TopologyHandoff { from, to, deadline } => {
                self.topology_handoff(now, &from, to, deadline);
            }
        }
        if !self.stopped {
            self.expire(now);
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.now = Some(now);
        if !self.stopped {
            self.expire(now);
        }
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let now = self.now?;
        let redirects = self.redirects.values().map(|redirect| redirect.until);
        let handoffs = self.handoffs.values().map(|handoff| handoff.next_timeout(now));
        redirects
            .chain(handoffs)
            .chain(self.tails_from)
            .chain(self.windows.next_timeout())
            .chain(self.names.next_timeout())
            .chain(self.verify_at)
            .min()
    }
}
