//! `SentinelResolver`: finds the primary by its sentinels and follows it through failovers, quicker than they announce it.
//!
//! What it believes: a node is the primary when it says so itself (`ROLE`) **and** a sentinel made it one, either by selecting
//! it in a failover (`+selected-slave`) or by naming it in its answers; the newer epoch wins. The one exception needs no
//! sentinel: a primary that has become a replica of another node hands its role to that one (`FAILOVER`).
//!
//! What it knows nothing of: connections, commands, clocks. Times are milliseconds of `servers.md`'s kind: a promoted replica
//! takes writes about 0.9 s before the sentinels say so, which is why `ROLE` is polled from the first sign on.

mod answers;
mod attempt;
mod config;
mod decide;
mod events;
mod group;
mod nodes;
mod publish;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use evenkeel_protocol::{Endpoint, Machine};

pub use self::config::SentinelConfig;
use self::{
    attempt::Attempts,
    group::{Link, Sentinels},
    nodes::{Current, DataNodes, Heard},
};
use super::{
    action::{Action, Report, SentinelQuestion},
    input::Input,
    jitter::Jitter,
    zones::Zones,
};
use crate::snapshot::Topology;

/// Steps of the `ROLE` poll while a promotion is imminent, and for how long: it comes 0.1 s after the selection and 0.4 s after
/// `+odown`, so 2 s cover a slow election.
const FAST_STEP: Duration = Duration::from_millis(5);
const FAST_FOR: Duration = Duration::from_secs(2);
/// Steps while a failover drags on.
const PATIENT_STEP: Duration = Duration::from_millis(50);
/// Steps while only our own connection died; jittered, because all clients of a dead primary do the same.
const ALONE_STEP: Duration = Duration::from_millis(100);
/// The pause before a primary that refuses again is proven again, which doubles up to [`ALONE_STEP`]: it may have called itself
/// a primary in the very moment in which it stepped down.
const REFUSED_STEP: Duration = Duration::from_millis(10);
/// A primary that has refused nothing for so long is taken at its word again.
const REFUSED_FOR: Duration = Duration::from_secs(1);
/// Steps in which all sentinels are asked while in doubt and not all of them are heard.
const SENTINEL_STEP: Duration = Duration::from_millis(250);
/// Steps in which they are asked in turn while all of them are heard: events tell everything sooner, and a crowd of clients
/// should not ask for what it was told.
const HEARD_STEP: Duration = Duration::from_secs(1);
/// The longest that writes wait for an announced failover while the old primary is still in order.
const HOLD_LIMIT: Duration = Duration::from_secs(3);
/// A sentinel tells a primary to hand over at its first tick after it chose the heir, and ticks 10 to 19 times a second: 52 ms
/// later at the soonest. What the primary has not answered by then it never will.
const HAND_OVER_LEAD: Duration = Duration::from_millis(45);
/// A sentinel that sees an heir in office resets the heir's clients once more, within milliseconds of saying so.
const RESET_WAIT: Duration = Duration::from_millis(20);
/// How long differing first answers are collected.
const SETTLE: Duration = Duration::from_millis(100);
/// A majority of sentinels with an older configuration is believed only after the newer primary was lost for so long.
const PATIENCE: Duration = HOLD_LIMIT;
/// How long `+odown` keeps the poll up when neither a failover nor `-odown` follows.
const ODOWN_LIMIT: Duration = Duration::from_secs(30);
/// Soon after a change the lists of replicas and sentinels are read again.
const AFTER_CHANGE: Duration = Duration::from_secs(1);
/// Waits between rounds that found nothing: when no sentinel answers, and when some do (an election may be going on).
const ROUND_WAIT: Duration = Duration::from_millis(100);
const ROUND_WAIT_MAX: Duration = Duration::from_secs(2);
const ROUND_WAIT_MAX_ANSWERED: Duration = Duration::from_millis(500);
/// A leader names the old primary until its failover has ended, about 6 s after the promotion: no news before this.
const STALE_AFTER: Duration = Duration::from_secs(15);
/// Remembered addresses that were refused, so that each is reported once.
const MAX_DENIED: usize = 64;

/// What the resolver is about.
///
/// ```text
///              a primary is proven
///   Searching ────────────────────▶ Calm ◀─────────────┐
///                                    │ lost, refused,   │ proven, and no
///                                    │ announced        │ failover under way
///                                    ▼                  │
///                                 Doubting ─────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Calm,
    Doubting,
    Searching,
}

/// Collecting first answers that differ.
///
/// ```text
///   Open ──answers differ──▶ Until ──time is over──▶ Over
///    ▲                          │ adopted              │
///    └──────────────────────────┴──────────────────────┘ round closed
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Settle {
    Open,
    Over,
    Until(Instant),
}

/// Writes wait.
#[derive(Clone, Copy, Debug)]
struct Hold {
    /// `None`: until a primary is proven.
    until: Option<Instant>,
}

/// Finds and follows a primary under Sentinel. See the [module](self) for what it believes.
#[derive(Debug)]
pub struct SentinelResolver {
    config: SentinelConfig,
    rng: Jitter,
    actions: VecDeque<Action>,
    phase: Phase,
    sentinels: Sentinels,
    nodes: DataNodes,
    current: Option<Current>,
    attempts: Attempts,
    hold: Option<Hold>,
    /// The primary took over from one that handed over by itself; this sentinel is to reset its clients yet.
    resets: Option<Endpoint>,
    /// `+odown` stands: since when, and by whose word.
    odown: Option<(Instant, Endpoint)>,
    fast_until: Option<Instant>,
    /// The next `ROLE` poll while in doubt.
    next_step: Instant,
    last_doubt: Option<Instant>,
    /// Doubts in a row because the primary refused.
    refusals: u32,
    /// Rounds of questions to the sentinels in this doubt.
    doubt_rounds: usize,
    /// What the failover left to be read is read soon, and only that.
    is_settling: bool,
    /// The next question to the sentinels, in every phase.
    next_ask: Instant,
    settle: Settle,
    /// Rounds in a row that found nothing; a round is open while answers are awaited.
    rounds: u32,
    is_round_open: bool,
    denied: VecDeque<Endpoint>,
    zones: Zones,
    published: Arc<Topology>,
}

impl SentinelResolver {
    /// A resolver that begins at `now`; `seed` decides its jitter.
    pub fn new(config: SentinelConfig, seed: u64, now: Instant) -> Self {
        let mut resolver = Self {
            rng: Jitter::new(seed),
            actions: VecDeque::new(),
            phase: Phase::Searching,
            sentinels: Sentinels::default(),
            nodes: DataNodes::default(),
            current: None,
            attempts: Attempts::default(),
            hold: None,
            resets: None,
            odown: None,
            fast_until: None,
            next_step: now,
            last_doubt: None,
            refusals: 0,
            doubt_rounds: 0,
            is_settling: false,
            next_ask: now,
            settle: Settle::Open,
            rounds: 0,
            is_round_open: false,
            denied: VecDeque::new(),
            zones: Zones::new(config.learn_zones),
            published: Arc::default(),
            config,
        };
        for seed in resolver.config.seeds.clone() {
            if resolver.sentinels.add(&seed, None, true) {
                resolver.actions.push_back(Action::WatchSentinel { sentinel: seed });
            }
        }
        resolver.open_round(now);
        resolver
    }

    /// True while writes wait.
    pub fn is_holding(&self) -> bool {
        self.hold.is_some()
    }

    /// The primary that writes go to, once one was proven.
    pub fn primary(&self) -> Option<&Endpoint> {
        self.current.as_ref().map(|current| &current.endpoint)
    }

    fn is_current(&self, endpoint: &Endpoint) -> bool {
        self.primary() == Some(endpoint)
    }

    fn epoch(&self) -> u64 {
        self.current.as_ref().map_or(0, |current| current.epoch)
    }

    fn ask_role(&mut self, endpoint: &Endpoint) {
        if self.nodes.find(endpoint).is_some_and(nodes::DataNode::ask) {
            self.actions.push_back(Action::AskRole { endpoint: endpoint.clone() });
        }
    }

    fn ask_sentinel(&mut self, sentinel: &Endpoint, question: SentinelQuestion) {
        if self.sentinels.find(sentinel).is_some_and(|s| s.ask(question)) {
            self.actions.push_back(Action::AskSentinel { sentinel: sentinel.clone(), question });
        }
    }

    fn ask_all_sentinels(&mut self) {
        for sentinel in self.sentinels.endpoints() {
            self.ask_sentinel(&sentinel, SentinelQuestion::Primary);
        }
    }

    fn report(&mut self, report: Report) {
        self.actions.push_back(Action::Report(report));
    }

    /// Makes the node known, if its address may be dialled.
    fn learn_node(&mut self, endpoint: &Endpoint) -> bool {
        self.is_allowed(endpoint) && self.nodes.ensure(endpoint).is_some()
    }

    fn learn_sentinel(&mut self, endpoint: &Endpoint, id: Option<String>) {
        if self.is_allowed(endpoint) && self.sentinels.add(endpoint, id, false) {
            self.actions.push_back(Action::WatchSentinel { sentinel: endpoint.clone() });
            self.ask_sentinel(endpoint, SentinelQuestion::Primary);
            self.ask_sentinel(endpoint, SentinelQuestion::Members);
        }
    }

    fn is_allowed(&mut self, endpoint: &Endpoint) -> bool {
        if self.config.policy.allows(endpoint) || self.config.seeds.contains(endpoint) {
            return true;
        }
        if !self.denied.contains(endpoint) {
            if self.denied.len() >= MAX_DENIED {
                self.denied.pop_front();
            }
            self.denied.push_back(endpoint.clone());
            self.report(Report::AddressDenied { endpoint: endpoint.clone() });
        }
        false
    }

    fn open_round(&mut self, now: Instant) {
        self.is_round_open = true;
        self.next_ask = now + ROUND_WAIT_MAX;
        for sentinel in self.sentinels.endpoints() {
            self.ask_sentinel(&sentinel, SentinelQuestion::Primary);
            self.ask_sentinel(&sentinel, SentinelQuestion::Members);
        }
        for node in self.nodes.endpoints() {
            self.ask_role(&node);
        }
    }
}

impl Machine for SentinelResolver {
    type Input = Input;
    type Action = Action;

    fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::ConnectionLost { endpoint } if self.is_current(&endpoint) => self.doubt(now),
            Input::ConnectionLost { endpoint } => self.ask_role(&endpoint),
            Input::EventLinkDown { sentinel } => self.on_event_link(now, &sentinel, false),
            Input::EventLinkUp { sentinel } => self.on_event_link(now, &sentinel, true),
            Input::KindAnswered { endpoint, zone, .. } => self.zones.learned(&endpoint, zone),
            Input::KindFailed { endpoint } => self.zones.failed(&endpoint),
            Input::Refused { endpoint, complaint } => self.on_refused(now, &endpoint, &complaint),
            Input::RoleAnswered { endpoint, role } => {
                let heard = self.nodes.find(&endpoint).map_or(Heard::Ignored, |node| node.answered(role));
                if heard != Heard::Ignored && self.zones.ask(&endpoint) {
                    self.actions.push_back(Action::AskKind { endpoint: endpoint.clone() });
                }
                self.on_heard(now, &endpoint, heard);
            }
            Input::RoleFailed { endpoint, failure } => {
                let heard = self.nodes.find(&endpoint).map_or(Heard::Ignored, |node| node.failed(failure));
                self.on_heard(now, &endpoint, heard);
            }
            Input::SentinelAnswered { sentinel, answer } => self.on_sentinel_answer(now, &sentinel, answer),
            Input::SentinelEvent { sentinel, channel, payload } => {
                self.on_event(now, &sentinel, &channel, &payload);
            }
            Input::SentinelFailed { sentinel, question, failure } => {
                self.on_sentinel_failed(&sentinel, question, failure);
            }
            // These belong to the other resolvers.
            Input::Moved { .. }
            | Input::SlotsMoved { .. }
            | Input::ViewAnswered { .. }
            | Input::ViewFailed { .. } => {}
        }
        self.decide(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.attempts.end_overdue(now);
        if let Some(primary) = self.primary().cloned()
            && self.attempts.stop_due(now, &primary)
        {
            self.hold(Some(now + HOLD_LIMIT));
        }
        self.odown.take_if(|(since, _)| now.saturating_duration_since(*since) >= ODOWN_LIMIT);
        self.fast_until.take_if(|until| *until <= now);
        if matches!(self.settle, Settle::Until(until) if until <= now) {
            self.settle = Settle::Over;
        }
        self.end_hold_that_is_over(now);
        self.watch_again(now);
        if self.phase == Phase::Doubting && self.next_step <= now {
            self.step(now);
        }
        if self.next_ask <= now {
            self.ask_in_turn(now);
        }
        self.decide(now);
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let links = self.sentinels.iter().filter_map(|sentinel| match sentinel.link {
            Link::Down { retry_at } => Some(retry_at),
            Link::Connecting | Link::Up => None,
        });
        let step = (self.phase == Phase::Doubting).then_some(self.next_step);
        let hold = self.hold.and_then(|hold| hold.until).into_iter().chain(self.attempts.next_stop());
        let settle = match self.settle {
            Settle::Until(until) => Some(until),
            Settle::Open | Settle::Over => None,
        };
        links.chain(step).chain(hold).chain(settle).chain([self.next_ask]).min()
    }
}
