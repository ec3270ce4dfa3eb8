//! `FixedResolver`: one configured server. It says what the server is, and follows Valkey's `REDIRECT` when it is told one.
//!
//! A server that does not answer is no reason to hold anything: there is no other. Its role is asked so that a person can be
//! told why writes fail, not to decide where they go.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use evenkeel_protocol::{Endpoint, Machine};

use super::{
    action::{Action, Report},
    input::{Complaint, Input},
    jitter::Jitter,
};
use crate::{
    error::{AskFailure, Found, ResolveError},
    read::RoleView,
    redirect_policy::RedirectPolicy,
    snapshot::{Draft, Health, Mode, Node, Role, Topology},
};

/// Waits between questions to a server that does not answer.
const RETRY: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// Least time between two questions that refusals cause.
const LEAST: Duration = Duration::from_millis(100);

/// How to use a single server.
#[derive(Clone, Debug)]
pub struct FixedConfig {
    endpoint: Endpoint,
    policy: RedirectPolicy,
    poll_interval: Duration,
    asks_at_once: bool,
}

impl FixedConfig {
    /// The server at `endpoint`.
    pub fn new(endpoint: Endpoint) -> Self {
        let poll_interval = Duration::from_secs(30);
        Self { endpoint, policy: RedirectPolicy::any(), poll_interval, asks_at_once: true }
    }

    /// Which addresses a `REDIRECT` may name. Default: any.
    #[must_use]
    pub fn redirect_policy(mut self, policy: RedirectPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Whether the server is asked for its kind and role at once. Default: yes.
    ///
    /// A handshake tells both: who reads it there, and reports a replica as one that refuses writes, saves the questions.
    #[must_use]
    pub fn ask_at_once(mut self, asks: bool) -> Self {
        self.asks_at_once = asks;
        self
    }

    /// How often the server is asked for its role while nothing happens. Default: 30 s.
    #[must_use]
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }
}

/// Watches one server. See the [module](self) for what it does not do.
#[derive(Debug)]
pub struct FixedResolver {
    config: FixedConfig,
    rng: Jitter,
    actions: VecDeque<Action>,
    /// Where commands go: the configured server, or the one to which it redirected us.
    current: Endpoint,
    /// Asked because of a `REDIRECT`; it becomes the current one when it says primary.
    target: Option<Endpoint>,
    is_asked: bool,
    is_target_asked: bool,
    failures: u32,
    next_ask: Instant,
    last_ask: Option<Instant>,
    is_replica: bool,
    published: Arc<Topology>,
}

impl FixedResolver {
    /// A resolver that begins at `now`; `seed` decides its jitter.
    ///
    /// The server is published at once, before it has answered anything: there is no other choice.
    pub fn new(config: FixedConfig, seed: u64, now: Instant) -> Self {
        let mut resolver = Self {
            rng: Jitter::new(seed),
            actions: VecDeque::new(),
            current: config.endpoint.clone(),
            target: None,
            is_asked: false,
            is_target_asked: false,
            failures: 0,
            next_ask: now,
            last_ask: None,
            is_replica: false,
            published: Arc::default(),
            config,
        };
        resolver.publish(Health::Unknown);
        let (to, endpoint) = (resolver.current.clone(), resolver.current.clone());
        resolver.actions.push_back(Action::PrimaryChanged { from: None, to, epoch: 0, from_is_down: false });
        if resolver.config.asks_at_once {
            resolver.actions.push_back(Action::AskKind { endpoint });
            resolver.ask(now);
        } else {
            resolver.next_ask = now + resolver.config.poll_interval;
        }
        resolver
    }

    fn publish(&mut self, health: Health) {
        let mut draft = Draft::new(Mode::Single);
        // A replica is published in the primary's place: it is where commands go, and its refusals are its own.
        let role = if self.is_replica { Role::Replica } else { Role::Primary };
        let node = draft.node(Node { health, ..Node::new(self.current.clone(), role) });
        draft.shard(Some(node), []);
        let next = draft.build(self.published.generation() + 1);
        if !next.says_the_same_as(&self.published) {
            self.published = Arc::new(next);
            self.actions.push_back(Action::Publish(Arc::clone(&self.published)));
        }
    }

    fn ask(&mut self, now: Instant) {
        self.next_ask = now + self.config.poll_interval;
        if !std::mem::replace(&mut self.is_asked, true) {
            self.last_ask = Some(now);
            self.actions.push_back(Action::AskRole { endpoint: self.current.clone() });
        }
    }

    fn ask_soon(&mut self, now: Instant) {
        let soonest = self.last_ask.map_or(now, |last| (last + LEAST).max(now));
        self.next_ask = self.next_ask.min(soonest);
        if self.next_ask <= now {
            self.ask(now);
        }
    }

    fn go_to(&mut self, to: Endpoint, health: Health) {
        let from = std::mem::replace(&mut self.current, to.clone());
        self.is_asked = false;
        self.is_replica = false;
        self.publish(health);
        let from = Some(from);
        self.actions.push_back(Action::PrimaryChanged { from, to, epoch: 0, from_is_down: false });
    }

    fn on_redirect(&mut self, target: Endpoint) {
        if target == self.current || self.is_target_asked {
            return;
        }
        if !self.config.policy.allows(&target) && target != self.config.endpoint {
            return self.actions.push_back(Action::Report(Report::AddressDenied { endpoint: target }));
        }
        self.is_target_asked = true;
        self.target = Some(target.clone());
        self.actions.push_back(Action::AskRole { endpoint: target });
    }

    fn on_role(&mut self, endpoint: &Endpoint, role: &RoleView) {
        if self.target.as_ref() == Some(endpoint) {
            self.target = None;
            self.is_target_asked = false;
            if matches!(role, RoleView::Primary { .. }) {
                self.go_to(endpoint.clone(), Health::Online);
            }
            return;
        }
        if *endpoint != self.current {
            return;
        }
        self.is_asked = false;
        self.failures = 0;
        match role {
            RoleView::Primary { .. } => {
                self.is_replica = false;
                self.publish(Health::Online);
            }
            RoleView::Replica { primary, connected, .. } => {
                let is_news = !std::mem::replace(&mut self.is_replica, true);
                self.publish(if *connected { Health::Online } else { Health::Loading });
                if is_news {
                    let (endpoint, primary) = (endpoint.clone(), primary.clone());
                    self.actions.push_back(Action::Report(Report::IsReplica { endpoint, primary }));
                }
            }
            RoleView::Sentinel => self.is_wrong(Found::Sentinel),
        }
    }

    fn on_failed(&mut self, now: Instant, endpoint: &Endpoint, failure: AskFailure) {
        if self.target.as_ref() == Some(endpoint) {
            self.target = None;
            self.is_target_asked = false;
            return;
        }
        if *endpoint != self.current || !std::mem::replace(&mut self.is_asked, false) {
            return;
        }
        if self.current != self.config.endpoint {
            // Where we were sent is gone: the configured server knows better, or is there again itself.
            self.go_to(self.config.endpoint.clone(), Health::Unknown);
            return self.ask(now);
        }
        if failure.is_answer() {
            // The server is there; only its role stays its secret: it forbids the question, or does not know it.
            self.failures = 0;
            return self.publish(Health::Online);
        }
        let wait = RETRY.saturating_mul(1 << self.failures.min(8)).min(RETRY_MAX);
        self.failures += 1;
        self.next_ask = now + self.rng.at_most(wait);
        self.publish(Health::Failed);
        let seeds = vec![(endpoint.clone(), failure)];
        self.actions.push_back(Action::Unresolved(ResolveError::NoneReachable { seeds }));
    }

    fn is_wrong(&mut self, found: Found) {
        let (endpoint, expected) = (self.current.clone(), "a single server");
        self.actions.push_back(Action::Unresolved(ResolveError::WrongKind { endpoint, found, expected }));
    }
}

impl Machine for FixedResolver {
    type Input = Input;
    type Action = Action;

    fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::ConnectionLost { endpoint } if endpoint == self.current => self.ask_soon(now),
            Input::KindAnswered { endpoint, kind: Some(found), .. } if endpoint == self.current => {
                self.is_wrong(found);
            }
            Input::Refused { endpoint, complaint } if endpoint == self.current => match complaint {
                Complaint::Redirect(target) => self.on_redirect(target),
                Complaint::ClusterDown
                | Complaint::Loading
                | Complaint::MasterDown
                | Complaint::ReadOnly
                | Complaint::Unblocked => self.ask_soon(now),
            },
            Input::RoleAnswered { endpoint, role } => self.on_role(&endpoint, &role),
            Input::RoleFailed { endpoint, failure } => self.on_failed(now, &endpoint, failure),
            // About another server, or for the other resolvers.
            _ => {}
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.next_ask <= now {
            self.ask(now);
        }
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        Some(self.next_ask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> Endpoint {
        Endpoint::new("h", port)
    }

    #[expect(clippy::disallowed_methods, reason = "origin of virtual time")]
    fn origin() -> Instant {
        Instant::now()
    }

    fn primary() -> RoleView {
        RoleView::Primary { offset: 0, replicas: Vec::new() }
    }

    /// Runs a script of milliseconds and inputs; gives the actions, snapshots as the port and health they show.
    fn run(script: impl IntoIterator<Item = (u64, Input)>) -> Vec<String> {
        let origin = origin();
        let config = FixedConfig::new(at(1)).redirect_policy(RedirectPolicy::only(["h"]));
        let mut resolver = FixedResolver::new(config, 7, origin);
        let mut told = Vec::new();
        let mut take = |resolver: &mut FixedResolver| {
            while let Some(action) = resolver.poll_action() {
                told.push(match action {
                    Action::AskKind { endpoint } => format!("kind? {}", endpoint.port()),
                    Action::AskRole { endpoint } => format!("role? {}", endpoint.port()),
                    Action::PrimaryChanged { to, .. } => format!("primary {}", to.port()),
                    Action::Publish(topology) => {
                        let node = &topology.nodes()[0];
                        let role = if node.role == Role::Replica { " as replica" } else { "" };
                        format!("{} {:?}{role}", node.endpoint.port(), node.health)
                    }
                    Action::Unresolved(error) => error.to_string(),
                    other => format!("{other:?}"),
                });
            }
        };
        take(&mut resolver);
        for (ms, input) in script {
            let now = origin + Duration::from_millis(ms);
            while resolver.poll_timeout().is_some_and(|due| due < now) {
                let due = resolver.poll_timeout().unwrap();
                resolver.handle_timeout(due);
                take(&mut resolver);
            }
            resolver.handle_input(now, input);
            take(&mut resolver);
        }
        assert_eq!(told[..4], ["1 Unknown", "primary 1", "kind? 1", "role? 1"]);
        told.split_off(4)
    }

    fn answered(port: u16, role: RoleView) -> Input {
        Input::RoleAnswered { endpoint: at(port), role }
    }

    fn refused(port: u16, complaint: Complaint) -> Input {
        Input::Refused { endpoint: at(port), complaint }
    }

    #[test]
    fn a_replica_is_used_and_reported_once() {
        let replica = RoleView::Replica { primary: Some(at(9)), connected: true, offset: 0 };
        let script = [
            (0, answered(1, replica.clone())),
            (500, refused(1, Complaint::ReadOnly)),
            (501, refused(1, Complaint::ReadOnly)),
            (510, answered(1, replica)),
        ];
        assert_eq!(
            run(script),
            ["1 Online as replica", "Report(IsReplica { endpoint: h:1, primary: Some(h:9) })", "role? 1"]
        );
    }

    #[test]
    fn a_redirect_is_followed_when_its_target_says_primary_and_undone_when_it_is_gone() {
        let gone = Input::RoleFailed { endpoint: at(2), failure: AskFailure::Refused };
        let script = [
            (0, answered(1, primary())),
            (1, refused(1, Complaint::Redirect(at(2)))),
            (1, refused(1, Complaint::Redirect(at(2)))),
            (2, answered(2, primary())),
            (1000, Input::ConnectionLost { endpoint: at(2) }),
            (1001, gone),
        ];
        assert_eq!(
            run(script),
            ["1 Online", "role? 2", "2 Online", "primary 2", "role? 2", "1 Unknown", "primary 1", "role? 1"]
        );
    }

    #[test]
    fn a_redirect_out_of_the_policy_is_not_followed() {
        let script = [(1, refused(1, Complaint::Redirect(Endpoint::new("evil", 2))))];
        assert_eq!(run(script), ["Report(AddressDenied { endpoint: evil:2 })"]);
    }

    #[test]
    fn other_kinds_of_servers_are_named() {
        let kind = |found| Input::KindAnswered { endpoint: at(1), kind: found, zone: None };
        let script =
            [(0, kind(None)), (1, kind(Some(Found::ClusterNode))), (2, answered(1, RoleView::Sentinel))];
        assert_eq!(
            run(script),
            [
                "h:1 is a cluster node, expected a single server",
                "h:1 is a sentinel, expected a single server"
            ]
        );
    }

    #[test]
    fn who_knows_what_the_server_is_asks_nothing_until_something_happens() {
        let now = origin();
        let mut resolver = FixedResolver::new(FixedConfig::new(at(1)).ask_at_once(false), 7, now);
        let asked = |resolver: &mut FixedResolver| {
            std::iter::from_fn(|| resolver.poll_action())
                .filter(|action| matches!(action, Action::AskKind { .. } | Action::AskRole { .. }))
                .count()
        };
        assert_eq!(asked(&mut resolver), 0);
        assert_eq!(resolver.poll_timeout(), Some(now + Duration::from_secs(30)));
        resolver.handle_input(now, refused(1, Complaint::ReadOnly));
        assert_eq!(asked(&mut resolver), 1);
    }

    #[test]
    fn a_server_that_does_not_tell_its_role_is_in_order() {
        for answer in ["NOPERM no permissions", "ERR unknown command"] {
            let failure = AskFailure::Server(evenkeel_protocol::ServerError::parse(answer.as_bytes()));
            assert_eq!(run([(0, Input::RoleFailed { endpoint: at(1), failure })]), ["1 Online"]);
        }
    }

    #[test]
    fn a_silent_server_is_asked_again_with_growing_waits() {
        let failed = || Input::RoleFailed { endpoint: at(1), failure: AskFailure::Refused };
        let told = run([(0, failed()), (100, failed()), (300, failed()), (301, answered(1, primary()))]);
        assert_eq!(told[..3], ["1 Failed", "none of 1 seeds answered; h:1: connection refused", "role? 1"]);
        assert_eq!(told.iter().filter(|line| *line == "role? 1").count(), 2);
    }
}
