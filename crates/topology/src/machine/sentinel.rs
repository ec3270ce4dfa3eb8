//! `SentinelResolver`: finds the primary by its sentinels and follows it through failovers, quicker than they announce it.
//!
//! What it believes: a node is the primary when it says so itself (`ROLE`) **and** a sentinel made it one, either by selecting
//! it in a failover (`+selected-slave`) or by naming it in its answers; the newer epoch wins. The one exception needs no
//! sentinel: a primary that has become a replica of another node hands its role to that one (`FAILOVER`).
//!
//! What it knows nothing of: connections, commands, clocks. Times are milliseconds of `servers.md`'s kind: a promoted replica
//! takes writes about 0.9 s before the sentinels say so, which is why `ROLE` is polled from the first sign on.

mod attempt;
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

use self::{
    attempt::Attempts,
    group::{Link, Sentinels},
    nodes::{Current, DataNodes, Heard, Said},
};
use super::{
    action::{Action, Report, SentinelQuestion},
    input::{Complaint, Input, SentinelAnswer},
    jitter::Jitter,
    zones::Zones,
};
use crate::{error::AskFailure, redirect_policy::RedirectPolicy, snapshot::Topology};

/// Steps of the `ROLE` poll while a promotion is imminent, and for how long: it comes 0.1 s after the selection and 0.4 s after
/// `+odown`, so 2 s cover a slow election.
const FAST_STEP: Duration = Duration::from_millis(5);
const FAST_FOR: Duration = Duration::from_secs(2);
/// Steps while a failover drags on.
const PATIENT_STEP: Duration = Duration::from_millis(50);
/// Steps while only our own connection died; jittered, because all clients of a dead primary do the same.
const ALONE_STEP: Duration = Duration::from_millis(100);
/// Steps in which sentinels are asked while in doubt: their answers change once in a failover, and events tell it sooner.
const SENTINEL_STEP: Duration = Duration::from_millis(250);
/// The longest that writes wait for an announced failover while the old primary is still in order.
const HOLD_LIMIT: Duration = Duration::from_secs(3);
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

/// How to find a primary by its sentinels.
#[derive(Clone, Debug)]
pub struct SentinelConfig {
    name: String,
    seeds: Vec<Endpoint>,
    policy: RedirectPolicy,
    poll_interval: Duration,
    learn_zones: bool,
}

impl SentinelConfig {
    /// The primary known as `name` to the sentinels at `seeds`.
    pub fn new(name: impl Into<String>, seeds: impl IntoIterator<Item = Endpoint>) -> Self {
        Self {
            name: name.into(),
            seeds: seeds.into_iter().collect(),
            policy: RedirectPolicy::any(),
            poll_interval: Duration::from_secs(10),
            learn_zones: false,
        }
    }

    /// Which addresses sentinels may name. Default: any.
    #[must_use]
    pub fn redirect_policy(mut self, policy: RedirectPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Whether data nodes are asked for their availability zone. Default: no.
    ///
    /// For [`ReadPolicy::NearestByZone`](crate::ReadPolicy::NearestByZone); Valkey 8.1 and newer can tell it.
    #[must_use]
    pub fn learn_zones(mut self, learn: bool) -> Self {
        self.learn_zones = learn;
        self
    }

    /// How often sentinels are asked while nothing happens. Default: 10 s.
    ///
    /// Events tell every change at once; this is for what was missed while an event link was down.
    #[must_use]
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }
}

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
    /// `+odown` stands: since when, and by whose word.
    odown: Option<(Instant, Endpoint)>,
    fast_until: Option<Instant>,
    /// The next `ROLE` poll while in doubt.
    next_step: Instant,
    last_doubt: Option<Instant>,
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
            odown: None,
            fast_until: None,
            next_step: now,
            last_doubt: None,
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

    fn on_sentinel_answer(&mut self, now: Instant, sentinel: &Endpoint, answer: SentinelAnswer) {
        let question = match answer {
            SentinelAnswer::Members { .. } => SentinelQuestion::Members,
            SentinelAnswer::Primary { .. } | SentinelAnswer::UnknownName => SentinelQuestion::Primary,
        };
        let Some(known) = self.sentinels.find(sentinel) else { return };
        known.answered(question, None);
        match answer {
            SentinelAnswer::Members { id, replicas, sentinels } => {
                if let Some(id) = id {
                    for sentinel in self.sentinels.identify(sentinel, &id) {
                        self.actions.push_back(Action::UnwatchSentinel { sentinel });
                    }
                }
                for peer in sentinels {
                    self.learn_sentinel(&peer.endpoint, peer.id);
                }
                self.on_replicas(&replicas);
            }
            SentinelAnswer::Primary { endpoint, view } => {
                known.knows_the_name = true;
                known.says = Some((endpoint.clone(), view.config_epoch));
                self.sentinels.sort();
                if !view.is_failing_over {
                    // Its event link may have been cut when it said so.
                    self.attempts.finish(sentinel);
                }
                if !view.is_down && self.is_current(&endpoint) {
                    self.odown.take_if(|(_, by)| by == sentinel);
                }
                self.on_named(now, sentinel, &endpoint, view.config_epoch);
            }
            SentinelAnswer::UnknownName => {
                known.says = None;
                known.knows_the_name = false;
                known.answered(SentinelQuestion::Members, None);
            }
        }
    }

    fn on_replicas(&mut self, replicas: &[crate::read::ReplicaView]) {
        for node in self.nodes.iter_mut() {
            node.is_listed = false;
        }
        for replica in replicas {
            if !self.learn_node(&replica.endpoint) {
                continue;
            }
            if let Some(node) = self.nodes.find(&replica.endpoint) {
                node.is_listed = true;
                node.is_announced = replica.is_announced;
                node.is_down = replica.is_down;
                node.is_linked = replica.is_linked;
                if replica.offset.is_some() {
                    node.offset = replica.offset;
                }
            }
        }
        let (sentinels, attempts, current) = (&self.sentinels, &self.attempts, &self.current);
        self.nodes.retain(|node| {
            node.is_listed
                || current.as_ref().is_some_and(|current| current.endpoint == node.endpoint)
                || attempts.mentions(&node.endpoint)
                || sentinels.naming(&node.endpoint) > 0
        });
    }

    fn on_named(&mut self, now: Instant, sentinel: &Endpoint, endpoint: &Endpoint, epoch: u64) {
        if let Some(current) = self.current.as_mut().filter(|current| current.endpoint == *endpoint) {
            current.epoch = current.epoch.max(epoch);
            if let Some(sentinel) = self.sentinels.find(sentinel) {
                sentinel.told_stale = false;
            }
            return;
        }
        let is_stale = self.current.as_ref().is_some_and(|current| {
            epoch < current.epoch && now.saturating_duration_since(current.since) >= STALE_AFTER
        });
        let is_news = is_stale
            && self.sentinels.find(sentinel).is_some_and(|s| !std::mem::replace(&mut s.told_stale, true));
        if is_news {
            self.report(Report::StaleSentinel { sentinel: sentinel.clone() });
        }
        if self.learn_node(endpoint) {
            self.ask_role(endpoint);
        }
    }

    fn on_heard(&mut self, now: Instant, endpoint: &Endpoint, heard: Heard) {
        match heard {
            Heard::AskAgain => self.ask_role(endpoint),
            Heard::Noted if self.is_current(endpoint) => self.on_current_heard(now),
            Heard::Ignored | Heard::Noted => {}
        }
    }

    fn on_current_heard(&mut self, now: Instant) {
        let Some(current) = &mut self.current else { return };
        let said = self.nodes.said(&current.endpoint).clone();
        if said == Said::Primary {
            current.lost_since = None;
            return;
        }
        current.lost_since.get_or_insert(now);
        self.doubt(now);
        // The doubt forgot what was said before it; this was said within it.
        let Some(endpoint) = self.primary().cloned() else { return };
        if let Some(node) = self.nodes.find(&endpoint) {
            node.said = said.clone();
        }
        match said {
            Said::Replica { of } => {
                self.hold(None);
                if let Some(of) = of.filter(|of| self.learn_node(of)) {
                    self.ask_role(&of);
                }
            }
            Said::Silent(failure) if failure.proves_absence() => self.hold(None),
            // A server that only pauses answers later; nothing is held for it until a failover is announced.
            Said::Silent(_) | Said::Nothing | Said::Primary => {}
        }
    }

    fn on_refused(&mut self, now: Instant, endpoint: &Endpoint, complaint: &Complaint) {
        if !self.is_current(endpoint) {
            return;
        }
        let of = match complaint {
            Complaint::ReadOnly | Complaint::MasterDown => None,
            Complaint::Redirect(target) => Some(target.clone()),
            Complaint::ClusterDown | Complaint::Loading | Complaint::Unblocked => return self.doubt(now),
        };
        let is_known = matches!(self.nodes.said(endpoint), Said::Replica { .. }) && self.hold.is_some();
        if is_known {
            return;
        }
        self.doubt(now);
        self.hold(None);
        if let Some(node) = self.nodes.find(endpoint) {
            node.said = Said::Replica { of: of.clone() };
        }
        if let Some(of) = of.filter(|of| self.learn_node(of)) {
            self.ask_role(&of);
        }
    }

    fn on_event_link(&mut self, now: Instant, sentinel: &Endpoint, is_up: bool) {
        let Some(known) = self.sentinels.find(sentinel) else { return };
        let was_up = known.link == Link::Up;
        if is_up {
            known.link_is_up();
        } else {
            known.link_is_down(now, &mut self.rng);
        }
        if is_up {
            // What it published while nobody listened shows in its answer.
            self.ask_sentinel(sentinel, SentinelQuestion::Primary);
        }
        if was_up != is_up {
            let sentinel = sentinel.clone();
            self.report(if is_up {
                Report::EventLinkUp { sentinel }
            } else {
                Report::EventLinkDown { sentinel }
            });
        }
    }

    fn on_sentinel_failed(&mut self, sentinel: &Endpoint, question: SentinelQuestion, failure: AskFailure) {
        if let Some(known) = self.sentinels.find(sentinel) {
            known.answered(question, Some(failure));
            self.sentinels.sort();
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
        let hold = self.hold.and_then(|hold| hold.until);
        let settle = match self.settle {
            Settle::Until(until) => Some(until),
            Settle::Open | Settle::Over => None,
        };
        links.chain(step).chain(hold).chain(settle).chain([self.next_ask]).min()
    }
}
