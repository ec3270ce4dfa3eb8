//! Scripts in virtual time: three sentinels (26001 to 26003), data nodes by their ports, answers without delay.

mod leaders;

use std::collections::BTreeMap;

use super::*;
use crate::{
    error::AskFailure,
    machine::input::{Complaint, SentinelAnswer},
    read::{PrimaryView, ReplicaView, RoleView},
    redirect_policy::RedirectPolicy,
    snapshot::Role,
};

const S1: u16 = 26001;
const S2: u16 = 26002;
const S3: u16 = 26003;
const A: u16 = 6001;
const B: u16 = 6002;
const C: u16 = 6003;

fn at(port: u16) -> Endpoint {
    Endpoint::new("h", port)
}

#[expect(clippy::disallowed_methods, reason = "origin of virtual time")]
fn origin() -> Instant {
    Instant::now()
}

/// What a node does when it is asked for its role.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Is {
    Primary,
    ReplicaOf(u16),
    Refusing,
    Resetting,
    /// Stopped: no answer until the deadline of 500 ms.
    Stopped,
}

struct Scene {
    resolver: SentinelResolver,
    origin: Instant,
    now: u64,
    nodes: BTreeMap<u16, Is>,
    /// What each sentinel answers: primary and epoch. One that is not here refuses connections.
    says: BTreeMap<u16, (u16, u64)>,
    /// The primary hands over by itself.
    hands_over: bool,
    /// Whom each sentinel says that it is replacing.
    replaces: BTreeMap<u16, u16>,
    late: Vec<(u64, Input)>,
    log: Vec<String>,
    roles_asked: Vec<(u64, u16)>,
    sentinels_asked: usize,
    topology: Arc<Topology>,
}

impl Scene {
    /// A is the primary in epoch 1, B and C are replicas; all sentinels agree and their event links stand.
    fn new() -> Self {
        let mut scene = Self::unresolved();
        scene.says = [(S1, (A, 1)), (S2, (A, 1)), (S3, (A, 1))].into();
        scene.run_to(0);
        for sentinel in [S1, S2, S3] {
            scene.tell(Input::EventLinkUp { sentinel: at(sentinel) });
        }
        scene.run_to(100);
        assert_eq!(scene.took()[0], "0 primary 6001 epoch 1");
        scene.log.clear();
        scene.roles_asked.clear();
        scene.sentinels_asked = 0;
        scene
    }

    fn unresolved() -> Self {
        let origin = origin();
        let seeds = [S1, S2, S3].map(at);
        let resolver = SentinelResolver::new(SentinelConfig::new("m", seeds), 7, origin);
        Self {
            resolver,
            origin,
            now: 0,
            nodes: [(A, Is::Primary), (B, Is::ReplicaOf(A)), (C, Is::ReplicaOf(A))].into(),
            says: BTreeMap::new(),
            hands_over: false,
            replaces: BTreeMap::new(),
            late: Vec::new(),
            log: Vec::new(),
            roles_asked: Vec::new(),
            sentinels_asked: 0,
            topology: Arc::default(),
        }
    }

    fn instant(&self) -> Instant {
        self.origin + Duration::from_millis(self.now)
    }

    fn tell(&mut self, input: Input) {
        self.resolver.handle_input(self.instant(), input);
        self.drain();
    }

    fn event(&mut self, sentinel: u16, channel: &'static str, payload: &'static str) {
        self.tell(Input::SentinelEvent {
            sentinel: at(sentinel),
            channel: channel.into(),
            payload: payload.into(),
        });
    }

    fn drain(&mut self) {
        while let Some(action) = self.resolver.poll_action() {
            if let Some(answer) = self.perform(action) {
                self.resolver.handle_input(self.instant(), answer);
            }
        }
    }

    fn perform(&mut self, action: Action) -> Option<Input> {
        match action {
            Action::AskRole { endpoint } => {
                self.roles_asked.push((self.now, endpoint.port()));
                return self.role(endpoint);
            }
            Action::AskSentinel { sentinel, question } => {
                self.sentinels_asked += 1;
                return Some(self.answer(&sentinel, question));
            }
            Action::HoldWrites { until } => {
                let until = until.map(|until| until.duration_since(self.origin).as_millis());
                self.note(until.map_or_else(|| "hold".to_owned(), |until| format!("hold until {until}")));
            }
            Action::Release { primary } => self.note(format!("release {}", primary.port())),
            Action::PrimaryChanged { to, epoch, .. } => {
                self.note(format!("primary {} epoch {epoch}", to.port()));
            }
            Action::Publish(topology) => self.topology = topology,
            Action::Report(report) => self.note(format!("{report:?}")),
            Action::Unresolved(error) => self.note(format!("unresolved: {error}")),
            Action::WatchSentinel { sentinel } => self.note(format!("watch {}", sentinel.port())),
            Action::UnwatchSentinel { sentinel } => self.note(format!("unwatch {}", sentinel.port())),
            Action::AskKind { endpoint } => self.note(format!("kind? {}", endpoint.port())),
            Action::AskView { .. } => panic!("not asked by this resolver"),
        }
        None
    }

    fn role(&mut self, endpoint: Endpoint) -> Option<Input> {
        let failure = match self.nodes.get(&endpoint.port()).copied().unwrap_or(Is::Refusing) {
            Is::Primary => {
                let role = RoleView::Primary { offset: 0, replicas: Vec::new() };
                return Some(Input::RoleAnswered { endpoint, role });
            }
            Is::ReplicaOf(primary) => {
                let role = RoleView::Replica { primary: Some(at(primary)), connected: true, offset: 0 };
                return Some(Input::RoleAnswered { endpoint, role });
            }
            Is::Refusing => AskFailure::Refused,
            Is::Resetting => AskFailure::Reset,
            Is::Stopped => {
                let input = Input::RoleFailed { endpoint, failure: AskFailure::TimedOut };
                self.late.push((self.now + 500, input));
                return None;
            }
        };
        Some(Input::RoleFailed { endpoint, failure })
    }

    fn answer(&self, sentinel: &Endpoint, question: SentinelQuestion) -> Input {
        let Some((primary, epoch)) = self.says.get(&sentinel.port()).copied() else {
            return Input::SentinelFailed {
                sentinel: sentinel.clone(),
                question,
                failure: AskFailure::Refused,
            };
        };
        let answer = match question {
            SentinelQuestion::Primary => SentinelAnswer::Primary {
                endpoint: at(primary),
                view: PrimaryView {
                    config_epoch: epoch,
                    is_down: false,
                    is_failing_over: true,
                    is_handing_over: self.hands_over,
                    replaces: self.replaces.get(&sentinel.port()).copied().map(at),
                    failover_timeout: None,
                },
            },
            SentinelQuestion::Members => SentinelAnswer::Members {
                id: Some(format!("id-{}", sentinel.port())),
                replicas: self
                    .nodes
                    .keys()
                    .filter(|node| **node != primary)
                    .map(|node| replica(*node))
                    .collect(),
                sentinels: Vec::new(),
            },
        };
        Input::SentinelAnswered { sentinel: sentinel.clone(), answer }
    }

    fn run_to(&mut self, until: u64) {
        self.drain();
        loop {
            let timer = self.resolver.poll_timeout().map(|due| due.saturating_duration_since(self.origin));
            // A timer between two milliseconds is due at the second.
            let timer = timer.map(|due| u64::try_from(due.as_micros().div_ceil(1000)).unwrap());
            let late = self.late.iter().map(|(due, _)| *due).min();
            let Some(next) = timer.into_iter().chain(late).min().filter(|next| *next <= until) else { break };
            self.now = self.now.max(next);
            let (due, late) =
                std::mem::take(&mut self.late).into_iter().partition(|(due, _)| *due <= self.now);
            self.late = late;
            for (_, input) in Vec::from_iter::<Vec<_>>(due) {
                self.resolver.handle_input(self.instant(), input);
            }
            self.resolver.handle_timeout(self.instant());
            self.drain();
        }
        self.now = until;
    }

    fn note(&mut self, text: impl std::fmt::Display) {
        let line = format!("{} {text}", self.now);
        self.log.push(line);
    }

    fn took(&mut self) -> Vec<String> {
        let is_link = |line: &str| line.contains("watch") || line.contains("EventLink");
        std::mem::take(&mut self.log).into_iter().filter(|line| !is_link(line)).collect()
    }

    fn try_failover(&mut self, leader: u16, epoch: &'static str) {
        self.event(leader, "+new-epoch", epoch);
        self.event(leader, "+try-failover", "master m h 6001");
    }

    fn select_b(&mut self, leader: u16) {
        self.event(leader, "+selected-slave", "slave h:6002 h 6002 @ m h 6001");
    }
}

fn replica(port: u16) -> ReplicaView {
    ReplicaView { endpoint: at(port), is_down: false, is_linked: true, offset: Some(1), is_announced: true }
}

fn lines<const N: usize>(lines: [&str; N]) -> Vec<String> {
    lines.map(str::to_owned).to_vec()
}

#[test]
fn the_first_primary_that_says_so_is_published_with_its_replicas() {
    let scene = Scene::new();
    assert_eq!(scene.topology.primary_of(None), Some(&at(A)));
    let replicas: Vec<_> = scene.topology.replicas_of(None).map(|node| node.endpoint.port()).collect();
    assert_eq!(replicas, [B, C]);
    assert!(scene.topology.sees_every_failover());
    assert_eq!(scene.resolver.phase(), "calm");
}

#[test]
fn a_planned_failover_holds_writes_until_the_selected_replica_says_primary() {
    let mut scene = Scene::new();
    scene.try_failover(S1, "2");
    scene.run_to(180);
    scene.select_b(S1);
    scene.run_to(252);
    // The old primary goes on saying that it is one, as it does for 11 s.
    scene.nodes.insert(B, Is::Primary);
    scene.run_to(300);
    assert_eq!(
        scene.took(),
        lines([
            "100 hold until 3100",
            "100 FailoverStarted { sentinel: h:26001 }",
            // An election may take its time.
            "180 hold until 3180",
            "255 primary 6002 epoch 2",
            "255 release 6002",
        ])
    );
    assert_eq!(scene.topology.primary_of(None), Some(&at(B)));
    assert_eq!(scene.resolver.phase(), "calm");
    // Late and old words change nothing.
    scene.event(S2, "+switch-master", "m h 6001 h 6002");
    scene.event(S1, "+failover-end", "master m h 6001");
    scene.run_to(2000);
    assert_eq!(scene.took(), lines([]));
    assert_eq!(scene.resolver.primary(), Some(&at(B)));
}

#[test]
fn role_is_polled_in_steps_of_5_ms_for_2_s_and_then_of_50() {
    let mut scene = Scene::new();
    scene.try_failover(S1, "2");
    scene.run_to(4100);
    let asked = |from: u64, to: u64| {
        scene.roles_asked.iter().filter(|(at, node)| (from..to).contains(at) && *node == B).count()
    };
    assert_eq!(asked(100, 2100), 400);
    assert_eq!(asked(2150, 3150), 20);
}

#[test]
fn a_primary_that_hands_over_is_written_to_until_it_is_told_to() {
    let mut scene = Scene::new();
    scene.hands_over = true;
    scene.run_to(1000);
    scene.try_failover(S1, "2");
    scene.run_to(1010);
    // Until the leader had answered how it goes about it.
    let told = scene.took();
    assert_eq!((told[0].as_str(), told[2].as_str()), ("1000 hold until 4000", "1000 release 6001"));
    assert!(!scene.resolver.is_holding());
    scene.select_b(S1);
    scene.run_to(1050);
    assert!(!scene.resolver.is_holding());
    // A little before it is told to stop, which is 52 ms after the choice at the soonest.
    scene.run_to(1060);
    assert!(scene.resolver.is_holding());
    scene.event(S1, "+failover-state-wait-promotion", "slave h:6002 h 6002 @ m h 6001");
    scene.nodes.insert(B, Is::Primary);
    scene.run_to(1100);
    assert_eq!(scene.resolver.primary(), Some(&at(B)));
    assert!(!scene.resolver.is_holding());
    // The sentinel sees it in office, and resets its clients once more.
    scene.event(S1, "+promoted-slave", "slave h:6002 h 6002 @ m h 6001");
    scene.run_to(1105);
    assert!(scene.resolver.is_holding());
    scene.run_to(1125);
    assert!(!scene.resolver.is_holding());
}

#[test]
fn a_tick_that_is_early_stops_the_writes_at_once() {
    let mut scene = Scene::new();
    scene.hands_over = true;
    scene.run_to(1000);
    scene.try_failover(S1, "2");
    scene.select_b(S1);
    scene.run_to(1010);
    scene.event(S1, "+failover-state-wait-promotion", "slave h:6002 h 6002 @ m h 6001");
    assert!(scene.resolver.is_holding());
}

#[test]
fn a_failover_that_began_while_its_leader_was_not_heard_holds_as_soon_as_it_is() {
    let mut scene = Scene::new();
    scene.tell(Input::EventLinkDown { sentinel: at(S1) });
    // Nobody hears its +try-failover.
    scene.replaces = [(S1, A)].into();
    scene.run_to(500);
    assert!(!scene.resolver.is_holding());
    scene.tell(Input::EventLinkUp { sentinel: at(S1) });
    scene.run_to(510);
    assert!(scene.resolver.is_holding());
    scene.select_b(S1);
    scene.nodes.insert(B, Is::Primary);
    scene.run_to(550);
    assert_eq!(scene.resolver.primary(), Some(&at(B)));
    assert!(!scene.resolver.is_holding());
    // Until its end the leader goes on describing the old primary, and names the new one.
    scene.says.insert(S1, (B, 2));
    scene.tell(Input::EventLinkDown { sentinel: at(S1) });
    scene.tell(Input::EventLinkUp { sentinel: at(S1) });
    scene.run_to(3000);
    assert!(!scene.resolver.is_holding());
}

#[test]
fn a_hold_of_a_failover_without_end_goes_back_after_3_s() {
    let mut scene = Scene::new();
    scene.try_failover(S1, "2");
    scene.run_to(3200);
    assert_eq!(scene.took()[2..], ["3100 hold", "3100 release 6001"]);
    // The poll goes on, and the promotion is seen.
    assert_eq!(scene.resolver.phase(), "doubting");
    scene.select_b(S1);
    scene.nodes.insert(B, Is::Primary);
    scene.run_to(3300);
    assert_eq!(
        scene.took(),
        lines(["3200 hold until 6200", "3205 primary 6002 epoch 2", "3205 release 6002"])
    );
}

#[test]
fn a_failover_that_goes_on_when_the_hold_is_over_holds_again() {
    let mut scene = Scene::new();
    scene.run_to(1000);
    scene.try_failover(S1, "2");
    scene.run_to(25_000);
    assert!(!scene.resolver.is_holding());
    scene.took();
    scene.select_b(S1);
    assert_eq!(scene.took(), lines(["25000 hold until 28000"]));
    scene.nodes.insert(B, Is::Primary);
    scene.run_to(25_100);
    assert_eq!(scene.resolver.primary(), Some(&at(B)));
    assert!(!scene.resolver.is_holding());
}

#[test]
fn an_abort_sends_writes_back_and_another_leaders_abort_does_not() {
    let mut scene = Scene::new();
    scene.try_failover(S1, "2");
    scene.run_to(300);
    scene.event(S2, "-failover-abort-not-elected", "master m h 6001");
    scene.event(S1, "-failover-abort-no-good-slave", "master other h 6001");
    scene.run_to(400);
    assert!(scene.resolver.is_holding());
    scene.event(S1, "-failover-abort-no-good-slave", "master m h 6001");
    scene.run_to(500);
    assert_eq!(scene.took()[2..], ["400 FailoverAborted { sentinel: h:26001 }", "400 release 6001"]);
    assert_eq!(scene.resolver.phase(), "calm");
}

#[test]
fn a_killed_primary_is_held_until_the_selected_replica_says_primary() {
    let mut scene = Scene::new();
    scene.nodes.insert(A, Is::Refusing);
    scene.tell(Input::ConnectionLost { endpoint: at(A) });
    scene.run_to(600);
    assert_eq!(scene.took(), lines(["100 hold"]));
    // Alone, it asks every 50 to 100 ms.
    let polls = scene.roles_asked.iter().filter(|(_, node)| *node == B).count();
    assert!((5..=11).contains(&polls), "{polls}");
    scene.event(S2, "+odown", "master m h 6001 #quorum 2/2");
    scene.try_failover(S1, "2");
    scene.select_b(S1);
    scene.run_to(801);
    // Its clients are reset at the moment of the promotion: asked again at once.
    scene.nodes.insert(B, Is::Resetting);
    scene.run_to(805);
    scene.nodes.insert(B, Is::Primary);
    scene.run_to(900);
    let told = scene.took();
    assert_eq!(told[told.len() - 2..], ["810 primary 6002 epoch 2", "810 release 6002"]);
}

#[test]
fn a_crash_asks_the_sentinels_at_most_ten_times() {
    let mut scene = Scene::new();
    scene.nodes.insert(A, Is::Refusing);
    scene.tell(Input::ConnectionLost { endpoint: at(A) });
    scene.run_to(2100);
    scene.event(S2, "+odown", "master m h 6001 #quorum 2/2");
    scene.try_failover(S1, "2");
    scene.run_to(2300);
    scene.select_b(S1);
    scene.nodes.insert(B, Is::Primary);
    scene.run_to(2400);
    assert_eq!(scene.resolver.primary(), Some(&at(B)));
    scene.says = [(S1, (B, 2)), (S2, (B, 2)), (S3, (B, 2))].into();
    scene.run_to(3200);
    scene.event(S1, "+promoted-slave", "slave h:6002 h 6002 @ m h 6001");
    for sentinel in [S2, S3] {
        scene.event(sentinel, "+config-update-from", "sentinel h:5001 h 5001 @ m h 6001");
        scene.event(sentinel, "+switch-master", "m h 6001 h 6002");
    }
    scene.run_to(4200);
    scene.event(S1, "+failover-end", "master m h 6001");
    scene.event(S1, "+switch-master", "m h 6001 h 6002");
    scene.run_to(7000);
    assert_eq!(scene.resolver.phase(), "calm");
    assert!(scene.sentinels_asked <= 10, "{}", scene.sentinels_asked);
}

#[test]
fn a_cut_connection_of_a_sound_primary_holds_nothing() {
    let mut scene = Scene::new();
    scene.tell(Input::ConnectionLost { endpoint: at(A) });
    scene.run_to(1000);
    assert_eq!(scene.took(), lines([]));
    assert_eq!(scene.resolver.phase(), "calm");
    // Neither does a pause: the server answers nothing, and is not gone.
    scene.nodes.insert(A, Is::Stopped);
    scene.tell(Input::ConnectionLost { endpoint: at(A) });
    scene.run_to(3000);
    scene.nodes.insert(A, Is::Primary);
    scene.run_to(5000);
    assert_eq!(scene.took(), lines([]));
    assert_eq!(scene.resolver.phase(), "calm");
}

#[test]
fn losing_the_connection_again_and_again_asks_once_in_100_ms() {
    let mut scene = Scene::new();
    for ms in 100..600 {
        scene.run_to(ms);
        scene.tell(Input::ConnectionLost { endpoint: at(A) });
    }
    let polls = scene.roles_asked.iter().filter(|(_, node)| *node == A).count();
    assert!(polls <= 6, "{polls}");
    assert!(scene.sentinels_asked <= 6 * 3, "{}", scene.sentinels_asked);
}

#[test]
fn readonly_holds_and_follows_the_primary_that_the_old_one_names() {
    let mut scene = Scene::new();
    // `FAILOVER` by hand: no sentinel says anything.
    scene.nodes.insert(A, Is::ReplicaOf(B));
    scene.nodes.insert(B, Is::Primary);
    for _ in 0..100 {
        scene.tell(Input::Refused { endpoint: at(A), complaint: Complaint::ReadOnly });
    }
    scene.run_to(200);
    assert_eq!(scene.took(), lines(["100 hold", "100 primary 6002 epoch 1", "100 release 6002"]));
    // The sentinels name the old one until they have noticed; it says that it is none.
    scene.run_to(15_000);
    assert_eq!(scene.resolver.primary(), Some(&at(B)));
}

#[test]
fn whoever_takes_over_from_a_primary_that_steps_down_is_polled_quickly_and_not_for_ever() {
    let mut scene = Scene::new();
    // It is a replica already, and its heir none yet.
    scene.nodes.insert(A, Is::ReplicaOf(B));
    scene.tell(Input::Refused { endpoint: at(A), complaint: Complaint::ReadOnly });
    scene.run_to(112);
    assert_eq!(scene.took(), lines(["100 hold"]));
    scene.nodes.insert(B, Is::Primary);
    scene.run_to(200);
    assert_eq!(scene.took(), lines(["115 primary 6002 epoch 1", "115 release 6002"]));

    let mut scene = Scene::new();
    scene.nodes.insert(A, Is::ReplicaOf(B));
    scene.tell(Input::Refused { endpoint: at(A), complaint: Complaint::ReadOnly });
    scene.run_to(10_100);
    let polls = scene.roles_asked.iter().filter(|(_, node)| *node == B).count();
    assert!((400..=600).contains(&polls), "{polls}");
}

#[test]
fn readonly_of_a_primary_that_says_primary_is_proven_and_released() {
    let mut scene = Scene::new();
    scene.tell(Input::Refused { endpoint: at(A), complaint: Complaint::ReadOnly });
    scene.run_to(150);
    assert_eq!(scene.took(), lines(["100 hold", "100 release 6001"]));
    // Proofs that follow each other wait ever longer: it may be stepping down, or say both for good.
    for _ in 0..6 {
        scene.tell(Input::Refused { endpoint: at(A), complaint: Complaint::ReadOnly });
        while scene.resolver.is_holding() {
            scene.run_to(scene.now + 1);
        }
    }
    let took = scene.took();
    let released: Vec<&str> = took
        .iter()
        .filter(|line| line.contains("release"))
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(released, ["150", "170", "210", "290", "390", "490"]);
}

#[test]
fn a_replica_that_says_primary_by_itself_is_reported_and_not_followed() {
    let mut scene = Scene::new();
    scene.nodes.insert(B, Is::Primary);
    scene.run_to(30_000);
    assert_eq!(scene.took().len(), 1);
    assert_eq!(scene.resolver.primary(), Some(&at(A)));
    assert_eq!(scene.topology.node(&at(B)).unwrap().role, Role::Unknown);
    assert_eq!(
        scene.topology.plan(None, &crate::ReadPolicy::PreferReplica, 0, |_| None).first(),
        Some(&at(C))
    );
}

#[test]
fn two_switches_within_a_second_are_two_switches_and_late_words_are_none() {
    let mut scene = Scene::new();
    scene.nodes.insert(A, Is::Refusing);
    scene.try_failover(S1, "2");
    scene.select_b(S1);
    scene.nodes.insert(B, Is::Primary);
    scene.run_to(1000);
    scene.says = [(S2, (B, 2)), (S3, (B, 2)), (S1, (B, 2))].into();
    scene.event(S2, "+switch-master", "m h 6001 h 6002");
    scene.run_to(2100);
    // B is sound, but S3 takes it for down; both say primary.
    scene.event(S3, "+new-epoch", "3");
    scene.event(S3, "+try-failover", "master m h 6002");
    scene.event(S3, "+selected-slave", "slave h:6003 h 6003 @ m h 6002");
    scene.nodes.insert(C, Is::Primary);
    scene.run_to(2200);
    scene.event(S1, "+new-epoch", "3");
    scene.event(S1, "+switch-master", "m h 6001 h 6002");
    scene.says.insert(S3, (C, 3));
    scene.run_to(2300);
    let told = scene.took();
    let switches: Vec<_> = told.iter().filter(|line| line.contains("primary")).collect();
    assert_eq!(switches, ["105 primary 6002 epoch 2", "2105 primary 6003 epoch 3"]);
    assert_eq!(scene.resolver.primary(), Some(&at(C)));
    assert!(!scene.resolver.is_holding());
}

#[test]
fn nothing_goes_back_to_a_primary_that_the_sentinels_have_replaced() {
    let mut scene = Scene::new();
    scene.nodes.insert(A, Is::Refusing);
    scene.tell(Input::ConnectionLost { endpoint: at(A) });
    scene.try_failover(S1, "2");
    scene.select_b(S1);
    // B was promoted and died before it was seen; A is back and says primary as before.
    scene.nodes.extend([(A, Is::Primary), (B, Is::Refusing)]);
    scene.says = [(S1, (B, 2)), (S2, (B, 2)), (S3, (A, 1))].into();
    scene.event(S2, "+switch-master", "m h 6001 h 6002");
    scene.run_to(20_000);
    assert!(scene.resolver.is_holding());
    scene.nodes.insert(B, Is::Primary);
    scene.run_to(20_200);
    assert_eq!(scene.resolver.primary(), Some(&at(B)));
    assert!(!scene.resolver.is_holding());
}

#[test]
fn without_event_links_the_answers_of_the_sentinels_are_followed() {
    let mut scene = Scene::new();
    for sentinel in [S1, S2, S3] {
        scene.tell(Input::EventLinkDown { sentinel: at(sentinel) });
    }
    assert!(!scene.topology.sees_every_failover());
    scene.nodes.insert(A, Is::Refusing);
    scene.tell(Input::ConnectionLost { endpoint: at(A) });
    scene.nodes.insert(B, Is::Primary);
    scene.run_to(1000);
    // Nobody made B the primary yet, as far as is known.
    assert_eq!(scene.took(), lines(["100 hold", "172 UnexpectedPrimary { endpoint: h:6002 }"]));
    scene.says.insert(S3, (B, 2));
    scene.run_to(1500);
    let told = scene.took();
    assert!(told[0].ends_with("primary 6002 epoch 2") && told[1].ends_with("release 6002"), "{told:?}");
}

#[test]
fn a_stale_sentinel_is_not_believed_even_while_the_primary_is_lost_for_a_moment() {
    let mut scene = Scene::new();
    scene.says = [(S1, (B, 2)), (S2, (B, 2)), (S3, (A, 1))].into();
    scene.nodes.insert(B, Is::Primary);
    scene.event(S1, "+switch-master", "m h 6001 h 6002");
    scene.run_to(200);
    assert_eq!(scene.resolver.primary(), Some(&at(B)));
    scene.nodes.insert(B, Is::Refusing);
    scene.tell(Input::ConnectionLost { endpoint: at(B) });
    scene.run_to(2000);
    assert_eq!(scene.resolver.primary(), Some(&at(B)));
    assert!(scene.resolver.is_holding());
    scene.nodes.insert(B, Is::Primary);
    scene.run_to(2200);
    assert!(!scene.resolver.is_holding());
    assert_eq!(scene.resolver.primary(), Some(&at(B)));
}

#[test]
fn sentinels_set_up_anew_are_believed_when_the_primary_is_gone_for_good() {
    let mut scene = Scene::new();
    scene.nodes.insert(A, Is::Refusing);
    scene.nodes.insert(B, Is::Primary);
    scene.says = [(S1, (B, 0)), (S2, (B, 0)), (S3, (B, 0))].into();
    scene.tell(Input::ConnectionLost { endpoint: at(A) });
    scene.run_to(2900);
    assert_eq!(scene.resolver.primary(), Some(&at(A)));
    scene.run_to(3300);
    assert_eq!(scene.resolver.primary(), Some(&at(B)));
    assert!(!scene.resolver.is_holding());
}

#[test]
fn a_majority_is_believed_when_the_primary_follows_one_that_is_none() {
    let mut scene = Scene::new();
    scene.nodes = [(A, Is::ReplicaOf(C)), (B, Is::Primary), (C, Is::ReplicaOf(B))].into();
    // In the epoch that is known already.
    scene.says = [(S1, (B, 1)), (S2, (B, 1)), (S3, (A, 1))].into();
    scene.tell(Input::Refused { endpoint: at(A), complaint: Complaint::ReadOnly });
    scene.run_to(2900);
    assert_eq!(scene.resolver.primary(), Some(&at(A)));
    assert!(scene.resolver.is_holding());
    scene.run_to(3300);
    assert_eq!(scene.resolver.primary(), Some(&at(B)));
    assert!(!scene.resolver.is_holding());
}

#[test]
fn differing_first_answers_are_settled_by_the_newer_epoch() {
    let mut scene = Scene::unresolved();
    // Both say primary: an isolated old one and the new one.
    scene.nodes = [(A, Is::Primary), (B, Is::Primary)].into();
    scene.says = [(S1, (A, 1)), (S2, (B, 2))].into();
    scene.run_to(50);
    let told = scene.took();
    // The first answer started work, the newer one corrected it without delay.
    assert_eq!(told.last().unwrap(), "0 primary 6002 epoch 2");

    let mut scene = Scene::unresolved();
    scene.nodes = [(A, Is::Primary), (B, Is::Stopped)].into();
    scene.says = [(S1, (A, 1)), (S2, (B, 2))].into();
    // Both answers are in before any role is.
    let mut asked = Vec::new();
    while let Some(action) = scene.resolver.poll_action() {
        asked.push(action);
    }
    for action in asked {
        if let Some(input) = scene.perform(action) {
            scene.resolver.handle_input(scene.origin, input);
        }
    }
    scene.run_to(99);
    assert_eq!(scene.took(), lines([]));
    scene.run_to(150);
    assert_eq!(scene.took(), lines(["100 primary 6001 epoch 1"]));
}

#[test]
fn what_is_wrong_with_the_seeds_is_said() {
    let mut scene = Scene::unresolved();
    scene.run_to(0);
    assert_eq!(scene.took(), lines(["0 unresolved: none of 3 seeds answered; h:26001: connection refused"]));
    // It goes on trying and finds the primary when the sentinels are there.
    scene.run_to(5000);
    scene.says = [(S1, (A, 1))].into();
    scene.took();
    scene.run_to(7100);
    assert!(scene.took().iter().any(|line| line.ends_with("primary 6001 epoch 1")));

    let mut scene = Scene::unresolved();
    scene.nodes.insert(A, Is::ReplicaOf(B));
    scene.says = [(S1, (A, 1))].into();
    scene.run_to(0);
    assert_eq!(
        scene.took(),
        lines(["0 unresolved: the sentinels name h:6001 as primary, which says that it is a replica"])
    );

    let no_such_command = evenkeel_protocol::ServerError::parse(b"ERR unknown command 'SENTINEL'");
    for (failure, expected) in [
        (None, "no sentinel that answered knows a primary named `m`; h:26001 answered"),
        (Some(AskFailure::Server(no_such_command)), "h:26001 is a data node, expected a sentinel"),
    ] {
        let mut scene = Scene::unresolved();
        scene.resolver = SentinelResolver::new(SentinelConfig::new("m", [at(S1)]), 7, scene.origin);
        while let Some(action) = scene.resolver.poll_action() {
            match action {
                Action::AskSentinel { sentinel, question } => {
                    let input = match failure.clone() {
                        Some(failure) => Input::SentinelFailed { sentinel, question, failure },
                        None => Input::SentinelAnswered { sentinel, answer: SentinelAnswer::UnknownName },
                    };
                    scene.resolver.handle_input(scene.origin, input);
                }
                other => assert_eq!(scene.perform(other), None),
            }
        }
        assert_eq!(scene.took(), [format!("0 unresolved: {expected}")]);
    }
}

#[test]
fn sentinels_are_learned_once_whatever_their_address() {
    let mut scene = Scene::new();
    scene.event(S1, "+sentinel", "sentinel id-9 h 26009 @ m h 6001");
    scene.run_to(150);
    assert!(scene.log.iter().any(|line| line.contains("watch 26009")));
    scene.log.clear();
    // S2 turns out to be the one that was learned as 26009.
    let answer = SentinelAnswer::Members {
        id: Some("x".into()),
        replicas: vec![replica(B), replica(C)],
        sentinels: vec![crate::read::PeerView { endpoint: at(26010), id: Some("id-26002".into()) }],
    };
    scene.tell(Input::SentinelAnswered { sentinel: at(S1), answer });
    assert!(!scene.log.iter().any(|line| line.contains("26010")), "{:?}", scene.log);
}

#[test]
fn addresses_outside_the_policy_are_never_asked() {
    let mut scene = Scene::unresolved();
    let config = SentinelConfig::new("m", [at(S1)]).redirect_policy(RedirectPolicy::only(["h"]));
    scene.resolver = SentinelResolver::new(config, 7, scene.origin);
    scene.says = [(S1, (A, 1))].into();
    scene.run_to(10);
    scene.took();
    scene.event(S1, "+new-epoch", "2");
    scene.event(S1, "+try-failover", "master m h 6001");
    scene.event(S1, "+selected-slave", "slave x evil 6002 @ m h 6001");
    scene.event(S1, "+sentinel", "sentinel x evil 26002 @ m h 6001");
    scene.run_to(100);
    let told = scene.took();
    let denied = told.iter().filter(|line| line.contains("AddressDenied")).count();
    assert_eq!(denied, 2, "{told:?}");
    assert!(scene.roles_asked.iter().all(|(_, port)| *port != B || scene.nodes.contains_key(port)));
    assert!(scene.topology.nodes().iter().all(|node| node.endpoint.host() == "h"));
}

#[test]
fn zones_are_asked_for_once_when_they_are_wanted() {
    let mut scene = Scene::unresolved();
    let config = SentinelConfig::new("m", [at(S1)]).learn_zones(true);
    scene.resolver = SentinelResolver::new(config, 7, scene.origin);
    scene.says = [(S1, (A, 1))].into();
    scene.run_to(30_000);
    assert_eq!(scene.took().iter().filter(|line| line.contains("kind?")).count(), 3);
    scene.tell(Input::KindAnswered { endpoint: at(C), kind: None, zone: Some("b".into()) });
    let plan = scene.topology.plan(None, &crate::ReadPolicy::NearestByZone("b".into()), 0, |_| None);
    assert_eq!(plan.first(), Some(&at(C)));
}

#[test]
fn replicas_that_are_down_or_hidden_get_no_reads() {
    let mut scene = Scene::new();
    scene.event(S1, "+sdown", "slave h:6002 h 6002 @ m h 6001");
    let first = |scene: &Scene| {
        scene.topology.plan(None, &crate::ReadPolicy::PreferReplica, 0, |_| None).first().map(Endpoint::port)
    };
    assert_eq!(first(&scene), Some(C));
    scene.event(S1, "+sdown", "slave h:6003 h 6003 @ m h 6001");
    assert_eq!(first(&scene), Some(A));
    scene.event(S1, "-sdown", "slave h:6002 h 6002 @ m h 6001");
    assert_eq!(first(&scene), Some(B));
}
