//! Scripts in virtual time: three shards, primaries 7001 to 7003 with replicas 7011 to 7013, answers after one millisecond.

use std::collections::BTreeMap;

use super::*;
use crate::{
    error::ResolveError,
    machine::action::ViewCommand,
    read::{NodeView, ShardView},
};

fn at(port: u16) -> Endpoint {
    Endpoint::new("h", port)
}

#[expect(clippy::disallowed_methods, reason = "origin of virtual time")]
fn origin() -> Instant {
    Instant::now()
}

fn slot(number: u16) -> Slot {
    Slot::new(number).unwrap()
}

/// What a shard is: primary, replica, slots; and whether the primary is called failed.
#[derive(Clone)]
struct Shard {
    primary: u16,
    replica: u16,
    slots: Vec<(u16, u16)>,
    failed: bool,
}

/// What a node does when it is asked.
#[derive(Clone, Debug, Default, PartialEq)]
enum Node {
    #[default]
    Answers,
    Refuses,
    Fails(AskFailure),
    /// No answer until the deadline of 500 ms.
    Stopped,
}

struct Scene {
    resolver: ClusterResolver,
    origin: Instant,
    now: u64,
    shards: Vec<Shard>,
    epoch: u64,
    /// Views of single nodes that differ from the common one.
    views: BTreeMap<u16, ClusterView>,
    nodes: BTreeMap<u16, Node>,
    primaries: Vec<u16>,
    late: Vec<(u64, Input)>,
    log: Vec<String>,
    views_asked: Vec<(u64, u16, ViewCommand)>,
    roles_asked: Vec<(u64, u16)>,
    topology: Arc<Topology>,
}

impl Scene {
    fn new() -> Self {
        let mut scene = Self::unresolved();
        scene.run_to(1000);
        assert!(scene.topology.is_complete());
        scene.log.clear();
        scene.views_asked.clear();
        scene
    }

    fn unresolved() -> Self {
        let origin = origin();
        let shard = |n: u16, first, last| Shard {
            primary: 7000 + n,
            replica: 7010 + n,
            slots: vec![(first, last)],
            failed: false,
        };
        Self {
            resolver: ClusterResolver::new(ClusterConfig::new([7001, 7002, 7003].map(at)), 7, origin),
            origin,
            now: 0,
            shards: vec![shard(1, 0, 4999), shard(2, 5000, 9999), shard(3, 10000, 16383)],
            epoch: 6,
            views: BTreeMap::new(),
            nodes: BTreeMap::new(),
            primaries: vec![7001, 7002, 7003],
            late: Vec::new(),
            log: Vec::new(),
            views_asked: Vec::new(),
            roles_asked: Vec::new(),
            topology: Arc::default(),
        }
    }

    fn view(&self) -> ClusterView {
        let node = |port: u16, role, health| NodeView {
            id: format!("n{port}"),
            endpoint: Some(at(port)),
            role,
            health,
            offset: None,
            zone: None,
        };
        let shards = self.shards.iter().map(|shard| ShardView {
            slots: shard.slots.iter().map(|(first, last)| *first..=*last).collect(),
            nodes: vec![
                node(
                    shard.primary,
                    Role::Primary,
                    if shard.failed { Health::Failed } else { Health::Online },
                ),
                node(shard.replica, Role::Replica, Health::Online),
            ],
        });
        ClusterView { shards: shards.collect(), epoch: Some(self.epoch) }
    }

    fn instant(&self) -> Instant {
        self.origin + Duration::from_millis(self.now)
    }

    fn tell(&mut self, input: Input) {
        self.resolver.handle_input(self.instant(), input);
        self.drain();
    }

    fn moved(&mut self, number: u16, target: u16) {
        self.tell(Input::Moved { slot: slot(number), target: at(target) });
    }

    fn drain(&mut self) {
        while let Some(action) = self.resolver.poll_action() {
            let line = match action {
                Action::AskRole { endpoint } => {
                    self.roles_asked.push((self.now, endpoint.port()));
                    let answer = self.role(&endpoint);
                    self.answer_later(&endpoint, answer);
                    continue;
                }
                Action::AskView { endpoint, by } => {
                    self.views_asked.push((self.now, endpoint.port(), by));
                    let view = self.views.get(&endpoint.port()).cloned().unwrap_or_else(|| self.view());
                    let answer = match self.failure(&endpoint) {
                        None => Input::ViewAnswered { endpoint: endpoint.clone(), view },
                        Some(failure) => Input::ViewFailed { endpoint: endpoint.clone(), failure },
                    };
                    self.answer_later(&endpoint, answer);
                    continue;
                }
                Action::Publish(topology) => {
                    assert!(topology.generation() > self.topology.generation());
                    self.topology = topology;
                    continue;
                }
                Action::PrimaryChanged { from, to, .. } => {
                    format!("primary {} to {}", from.map_or(0, |from| from.port()), to.port())
                }
                Action::Unresolved(error) => format!("unresolved: {error}"),
                other => format!("{other:?}"),
            };
            self.log.push(format!("{} {line}", self.now));
        }
    }

    fn failure(&self, endpoint: &Endpoint) -> Option<AskFailure> {
        match self.nodes.get(&endpoint.port()).cloned().unwrap_or_default() {
            Node::Answers => None,
            Node::Refuses => Some(AskFailure::Refused),
            Node::Fails(failure) => Some(failure),
            Node::Stopped => Some(AskFailure::TimedOut),
        }
    }

    fn role(&self, endpoint: &Endpoint) -> Input {
        let endpoint = endpoint.clone();
        if let Some(failure) = self.failure(&endpoint) {
            return Input::RoleFailed { endpoint, failure };
        }
        let role = if self.primaries.contains(&endpoint.port()) {
            RoleView::Primary { offset: 0, replicas: Vec::new() }
        } else {
            RoleView::Replica { primary: None, connected: true, offset: 0 }
        };
        Input::RoleAnswered { endpoint, role }
    }

    fn answer_later(&mut self, endpoint: &Endpoint, answer: Input) {
        let is_stopped = self.nodes.get(&endpoint.port()) == Some(&Node::Stopped);
        self.late.push((self.now + if is_stopped { 500 } else { 1 }, answer));
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
                self.tell(input);
            }
            self.resolver.handle_timeout(self.instant());
            self.drain();
        }
        self.now = until;
    }

    fn owner(&self, number: u16) -> u16 {
        self.topology.primary_of(Some(slot(number))).unwrap().port()
    }

    fn took(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }

    /// The primary 7001 dies; its replica will have taken over at `promoted`.
    fn kill_7001(&mut self) {
        self.nodes.insert(7001, Node::Refuses);
        self.tell(Input::ConnectionLost { endpoint: at(7001) });
    }

    fn promote_7011(&mut self) {
        self.primaries = vec![7011, 7002, 7003];
        self.epoch = 7;
        self.shards[0] = Shard { primary: 7011, replica: 7001, slots: vec![(0, 4999)], failed: false };
    }
}

#[test]
fn the_first_map_comes_from_whichever_seed_answers() {
    let mut scene = Scene::unresolved();
    scene.nodes = [(7001, Node::Refuses), (7002, Node::Stopped)].into();
    scene.run_to(0);
    assert_eq!(scene.views_asked.len(), 3);
    scene.run_to(1);
    assert!(scene.topology.is_complete());
    assert_eq!((scene.owner(0), scene.owner(5000), scene.owner(16383)), (7001, 7002, 7003));
    let replicas: Vec<_> =
        scene.topology.replicas_of(Some(slot(0))).map(|node| node.endpoint.port()).collect();
    assert_eq!(replicas, [7011]);
    assert_eq!(scene.topology.epoch(), 6);
}

#[test]
fn moved_changes_the_map_at_once_and_asks_once_for_many() {
    let mut scene = Scene::new();
    scene.shards[0].slots = vec![(500, 4999)];
    scene.shards[1].slots = vec![(0, 499), (5000, 9999)];
    for number in 0..20 {
        scene.moved(number, 7002);
        assert_eq!(scene.owner(number), 7002);
        assert_eq!(scene.owner(number + 1), 7001);
    }
    scene.run_to(1100);
    // The rest was learned from one view.
    assert_eq!(scene.owner(499), 7002);
    assert_eq!(scene.views_asked.len(), 1);
    assert_eq!(scene.took(), [""; 0]);
}

#[test]
fn a_long_reshard_slows_the_refreshes_down() {
    let mut scene = Scene::new();
    for number in 0..1000 {
        scene.shards[0].slots = vec![(number + 1, 4999)];
        scene.shards[1].slots = vec![(0, number), (5000, 9999)];
        scene.moved(number, 7002);
        scene.run_to(1000 + u64::from(number + 1) * 10);
    }
    scene.run_to(15_000);
    assert_eq!((scene.owner(999), scene.owner(1000)), (7002, 7001));
    assert!(scene.views_asked.len() <= 14, "{}", scene.views_asked.len());
}

#[test]
fn a_promoted_replica_is_found_within_40_ms() {
    let mut scene = Scene::new();
    scene.kill_7001();
    scene.run_to(3000);
    assert_eq!(scene.took(), [""; 0]);
    scene.promote_7011();
    scene.views = [7002, 7003, 7012, 7013].map(|port| (port, ClusterView::default())).into();
    scene.run_to(3042);
    let told = scene.took();
    assert!(told.iter().any(|line| line.ends_with("primary 7001 to 7011")), "{told:?}");
    assert_eq!((scene.owner(0), scene.owner(4999), scene.owner(5000)), (7011, 7011, 7002));
    scene.run_to(10_000);
    // Once when it was lost, once of the promoted one.
    assert!(scene.views_asked.len() <= 3, "{:?}", scene.views_asked);
    let polls = scene.roles_asked.iter().filter(|(_, port)| *port == 7011).count();
    assert!((50..=102).contains(&polls), "{polls}");
    assert!(scene.roles_asked.iter().all(|(at, _)| *at < 3042));
}

#[test]
fn a_node_that_died_as_a_primary_is_not_believed_until_it_has_heard_of_its_successor() {
    let mut scene = Scene::new();
    let stale = scene.view();
    scene.kill_7001();
    scene.run_to(1100);
    scene.promote_7011();
    scene.run_to(5000);
    assert_eq!(scene.owner(0), 7011);
    // The successor dies too, and the first one comes back with what it knew when it died.
    scene.nodes.insert(7011, Node::Refuses);
    scene.tell(Input::ConnectionLost { endpoint: at(7011) });
    scene.shards[0].failed = true;
    scene.run_to(6000);
    scene.nodes.remove(&7001);
    scene.primaries = vec![7001, 7002, 7003];
    scene.views.insert(7001, ClusterView { epoch: Some(6), ..stale });
    scene.took();
    scene.views_asked.clear();
    scene.run_to(6600);
    let told = scene.took();
    assert!(told.iter().any(|line| line.contains("StaleView")), "{told:?}");
    assert!(!told.iter().any(|line| line.contains("primary 7011 to 7001")), "{told:?}");
    assert_eq!(scene.owner(0), 7011);
    let to_it = scene.views_asked.iter().filter(|(_, port, _)| *port == 7001).count();
    assert!((1..=3).contains(&to_it), "{:?}", scene.views_asked);
    // It hears of its successor, and is promoted for it after that.
    scene.primaries = vec![7002, 7003];
    scene.views.clear();
    scene.run_to(7600);
    scene.primaries = vec![7001, 7002, 7003];
    scene.epoch = 8;
    scene.views = [7002, 7003, 7012, 7013].map(|port| (port, ClusterView::default())).into();
    scene.shards[0] = Shard { primary: 7001, replica: 7011, slots: vec![(0, 4999)], failed: false };
    scene.run_to(7642);
    assert_eq!(scene.owner(0), 7001);
}

/// The first word of any other node tells the epoch, and only the next one what happened in it.
#[test]
fn a_node_that_has_heard_of_the_epoch_and_not_of_its_successor_is_not_believed() {
    // The successor's promotion is known by a map of its epoch, or by its own word only.
    for is_mapped in [true, false] {
        let mut scene = Scene::new();
        let stale = scene.view();
        let epoch = scene.epoch;
        scene.kill_7001();
        scene.run_to(1100);
        scene.promote_7011();
        let promoted = scene.epoch;
        assert!(promoted > epoch);
        if !is_mapped {
            scene.views = [7002, 7003, 7011, 7012, 7013].map(|port| (port, ClusterView::default())).into();
        }
        scene.run_to(1300);
        assert_eq!(scene.owner(0), 7011);
        scene.nodes.insert(7011, Node::Refuses);
        scene.nodes.remove(&7001);
        scene.shards[0].failed = true;
        scene.primaries = vec![7001, 7002, 7003];
        scene.views.insert(7001, ClusterView { epoch: Some(promoted), ..stale });
        scene.tell(Input::ConnectionLost { endpoint: at(7011) });
        scene.took();
        scene.run_to(2600);
        let told = scene.took();
        assert!(told.iter().any(|line| line.contains("StaleView")), "{is_mapped}: {told:?}");
        assert_eq!(scene.owner(0), 7011, "{is_mapped}: {told:?}");
    }
}

#[test]
fn a_node_that_died_as_a_primary_and_was_promoted_unseen_is_believed_by_its_own_view() {
    let mut scene = Scene::new();
    scene.kill_7001();
    scene.run_to(1100);
    scene.promote_7011();
    scene.run_to(5000);
    scene.nodes.insert(7011, Node::Refuses);
    scene.nodes.remove(&7001);
    scene.tell(Input::ConnectionLost { endpoint: at(7011) });
    scene.primaries = vec![7001, 7002, 7003];
    scene.epoch = 8;
    scene.views = [7002, 7003, 7012, 7013].map(|port| (port, ClusterView::default())).into();
    scene.shards[0] = Shard { primary: 7001, replica: 7011, slots: vec![(0, 4999)], failed: false };
    scene.run_to(5044);
    assert_eq!(scene.owner(0), 7001);
}

#[test]
fn clusterdown_quickens_the_poll_and_asks_for_few_maps() {
    let mut scene = Scene::new();
    scene.kill_7001();
    scene.shards[0].failed = true;
    for ms in 1000..3000 {
        for _ in 0..10 {
            scene.tell(Input::Refused { endpoint: at(7002), complaint: Complaint::ClusterDown });
        }
        scene.run_to(ms);
    }
    assert!(scene.views_asked.len() <= 7, "{}", scene.views_asked.len());
    let polls = scene.roles_asked.iter().filter(|(_, port)| *port == 7011).count();
    assert!((190..=210).contains(&polls), "{polls}");
    scene.run_to(4000);
    scene.promote_7011();
    scene.run_to(4042);
    assert_eq!(scene.owner(0), 7011);
}

#[test]
fn a_view_that_calls_a_primary_failed_is_reason_enough_to_ask_its_replica() {
    let mut scene = Scene::new();
    scene.shards[0].failed = true;
    scene.moved(0, 7001);
    scene.run_to(1200);
    assert!(scene.roles_asked.iter().any(|(_, port)| *port == 7011));
    scene.promote_7011();
    scene.run_to(1250);
    assert_eq!(scene.owner(0), 7011);
}

#[test]
fn a_dead_primary_without_slots_is_no_primary() {
    let mut scene = Scene::new();
    scene.kill_7001();
    scene.promote_7011();
    // As real nodes tell it: the dead one keeps its role, in a shard of its own; first nobody calls it failed.
    let dead = Shard { primary: 7001, replica: 7099, slots: Vec::new(), failed: false };
    scene.shards[0].replica = 7012;
    scene.shards.push(dead);
    scene.nodes.insert(7011, Node::Stopped);
    scene.run_to(1200);
    assert_eq!((scene.owner(0), scene.owner(4999)), (7011, 7011));
    let primaries = |scene: &Scene| scene.topology.primaries().map(|n| n.endpoint.port()).collect::<Vec<_>>();
    assert_eq!(primaries(&scene), [7011, 7002, 7003]);
    scene.shards[3].failed = true;
    scene.moved(5000, 7002);
    scene.run_to(40_000);
    assert_eq!(primaries(&scene), [7011, 7002, 7003]);
    // A sound one without slots is one: it may be given some.
    scene.nodes.clear();
    scene.shards[3].failed = false;
    scene.run_to(80_000);
    assert_eq!(primaries(&scene), [7011, 7002, 7003, 7001]);
}

#[test]
fn a_shard_whose_view_has_no_primary_keeps_the_one_that_is_known() {
    let mut scene = Scene::new();
    let mut view = scene.view();
    for node in &mut view.shards[0].nodes {
        node.role = Role::Replica;
    }
    scene.views = [7001, 7002, 7003, 7011, 7012, 7013].map(|port| (port, view.clone())).into();
    scene.moved(5000, 7002);
    scene.run_to(2000);
    assert_eq!((scene.owner(0), scene.owner(4999)), (7001, 7001));
    scene.views.clear();
    scene.promote_7011();
    scene.moved(5000, 7002);
    scene.run_to(4000);
    assert_eq!((scene.owner(0), scene.owner(4999)), (7011, 7011));
}

#[test]
fn slots_of_a_lost_primary_are_found_with_whoever_took_them() {
    let mut scene = Scene::new();
    scene.kill_7001();
    scene.nodes.insert(7011, Node::Refuses);
    scene.run_to(1500);
    scene.shards[0].slots.clear();
    scene.shards[0].failed = true;
    scene.shards[1].slots = vec![(0, 9999)];
    scene.run_to(4000);
    assert_eq!((scene.owner(0), scene.owner(4999)), (7002, 7002));
    // It stays dead: it is asked for no more.
    let (asked, views) = (scene.roles_asked.len(), scene.views_asked.len());
    scene.run_to(20_000);
    assert_eq!((scene.roles_asked.len(), scene.views_asked.len()), (asked, views));
}

#[test]
fn a_lost_primary_whose_slots_nobody_takes_costs_few_maps() {
    let mut scene = Scene::new();
    scene.kill_7001();
    scene.shards[0].failed = true;
    scene.run_to(61_000);
    assert!(scene.views_asked.len() <= 10, "{:?}", scene.views_asked);
}

#[test]
fn only_our_own_connection_was_lost() {
    let mut scene = Scene::new();
    scene.tell(Input::ConnectionLost { endpoint: at(7001) });
    scene.run_to(2000);
    assert_eq!(scene.roles_asked.len(), 2);
    assert_eq!((scene.took().len(), scene.owner(0)), (0, 7001));
}

#[test]
fn views_of_slower_nodes_do_not_undo_a_change() {
    let mut scene = Scene::new();
    let before = scene.view();
    scene.moved(0, 7002);
    // Gossip has reached nobody; then everybody.
    scene.views = [7001, 7002, 7003, 7011, 7012, 7013].map(|port| (port, before.clone())).into();
    scene.run_to(1500);
    assert_eq!((scene.owner(0), scene.owner(1)), (7002, 7001));
    assert!(scene.views_asked.len() >= 2);
    scene.views.clear();
    scene.shards[0].slots = vec![(100, 4999)];
    scene.shards[1].slots = vec![(0, 99), (5000, 9999)];
    scene.run_to(2500);
    assert_eq!((scene.owner(0), scene.owner(99)), (7002, 7002));
}

#[test]
fn a_change_that_no_view_confirms_is_given_up_after_a_second() {
    let mut scene = Scene::new();
    scene.moved(0, 7002);
    scene.run_to(3500);
    assert_eq!(scene.owner(0), 7001);
    assert!(scene.views_asked.len() <= 6, "{}", scene.views_asked.len());
}

#[test]
fn a_view_of_an_older_epoch_is_not_believed() {
    let mut scene = Scene::new();
    let old = scene.view();
    scene.promote_7011();
    scene.views = [7001, 7002, 7003, 7012, 7013].map(|port| (port, old.clone())).into();
    scene.kill_7001();
    scene.run_to(1100);
    assert_eq!(scene.owner(0), 7011);
    // Long after the change, five of six nodes are still cut off from the news.
    scene.run_to(5000);
    scene.moved(5000, 7002);
    scene.run_to(40_000);
    assert_eq!(scene.owner(0), 7011);
    assert!(scene.took().iter().any(|line| line.contains("StaleView")));
    // A cluster that was set up anew is believed when nobody knows the old epoch any more.
    scene.views.clear();
    scene.nodes.clear();
    scene.epoch = 1;
    scene.shards[0] = Shard { primary: 7001, replica: 7011, slots: vec![(0, 4999)], failed: false };
    scene.primaries = vec![7001, 7002, 7003];
    scene.moved(5000, 7002);
    scene.run_to(80_000);
    assert_eq!(scene.owner(0), 7001);
}

#[test]
fn announced_moves_are_applied_whoever_had_the_slots() {
    let mut scene = Scene::new();
    scene.tell(Input::SlotsMoved { moves: vec![(4000, 6000, at(7003)), (1, 1, at(7099))] });
    let owners = [0, 1, 2, 3999, 4000, 6000, 6001].map(|number| scene.owner(number));
    assert_eq!(owners, [7001, 7099, 7001, 7001, 7003, 7003, 7002]);
    assert!(scene.topology.is_complete());
}

#[test]
fn a_stopped_node_does_not_hold_up_the_refresh() {
    let mut scene = Scene::new();
    for port in [7001, 7002, 7003, 7011, 7012] {
        scene.nodes.insert(port, Node::Stopped);
    }
    scene.shards[0].slots = vec![(500, 4999)];
    scene.shards[1].slots = vec![(0, 499), (5000, 9999)];
    scene.moved(0, 7002);
    scene.run_to(1600);
    assert_eq!(scene.owner(499), 7002);
    assert!(scene.views_asked.len() <= 6, "{:?}", scene.views_asked);
}

#[test]
fn old_servers_are_asked_for_slots() {
    let mut scene = Scene::unresolved();
    let unknown = AskFailure::Server(evenkeel_protocol::ServerError::parse(
        b"ERR Unknown subcommand or wrong number of arguments for 'SHARDS'. Try CLUSTER HELP.",
    ));
    for port in [7001, 7002, 7003] {
        scene.nodes.insert(port, Node::Fails(unknown.clone()));
    }
    scene.run_to(0);
    scene.nodes.clear();
    scene.run_to(10);
    assert!(scene.views_asked.iter().any(|(_, _, by)| *by == ViewCommand::Slots));
    assert!(scene.topology.is_complete());
}

#[test]
fn what_is_wrong_with_the_seeds_is_said() {
    let error = |text: &[u8]| AskFailure::Server(evenkeel_protocol::ServerError::parse(text));
    for (failure, expected) in [
        (AskFailure::Refused, "none of 3 seeds answered; h:7001: connection refused"),
        (error(b"ERR This instance has cluster support disabled"), "a data node, expected a cluster node"),
    ] {
        let mut scene = Scene::unresolved();
        for port in [7001, 7002, 7003] {
            scene.nodes.insert(port, Node::Fails(failure.clone()));
        }
        scene.run_to(5);
        let told = scene.took();
        assert!(told[0].ends_with(expected), "{told:?}");
        // It goes on asking, with growing waits.
        scene.run_to(10_000);
        assert!((20..=40).contains(&scene.views_asked.len()), "{}", scene.views_asked.len());
        scene.nodes.clear();
        scene.run_to(13_000);
        assert!(scene.topology.is_complete());
    }
    let mut resolver = ClusterResolver::new(ClusterConfig::new([at(26379)]), 7, origin());
    let failure = error(b"ERR unknown command 'CLUSTER'");
    let mut told = None;
    while let Some(action) = resolver.poll_action() {
        match action {
            Action::AskView { endpoint, .. } => {
                resolver.handle_input(origin(), Input::ViewFailed { endpoint, failure: failure.clone() });
            }
            Action::AskKind { endpoint } => {
                resolver.handle_input(
                    origin(),
                    Input::KindAnswered { endpoint, kind: Some(Found::Sentinel), zone: None },
                );
            }
            Action::Unresolved(error) => told = Some(error),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        told,
        Some(ResolveError::WrongKind {
            endpoint: at(26379),
            found: Found::Sentinel,
            expected: "a cluster node"
        })
    );
}

#[test]
fn a_failed_primary_beside_its_successor_is_nobodys_primary() {
    let mut scene = Scene::new();
    let mut view = scene.view();
    view.epoch = Some(9);
    let promoted = NodeView { role: Role::Primary, ..view.shards[0].nodes[1].clone() };
    view.shards[0].nodes[0].health = Health::Failed;
    view.shards[0].nodes[1] = promoted;
    scene.tell(Input::ViewAnswered { endpoint: at(7002), view });
    assert_eq!(scene.owner(0), 7011);
    assert_eq!(scene.topology.node(&at(7001)).unwrap().role, Role::Unknown);
}

#[test]
fn zones_that_the_map_does_not_tell_are_asked_for() {
    let mut scene = Scene::unresolved();
    let config = ClusterConfig::new([at(7001)]).learn_zones(true);
    scene.resolver = ClusterResolver::new(config, 7, scene.origin);
    let mut view = scene.view();
    view.shards[0].nodes[0].zone = Some("a".into());
    scene.views.insert(7001, view);
    scene.run_to(10);
    let asked = scene.took();
    assert_eq!(asked.iter().filter(|line| line.contains("AskKind")).count(), 5, "{asked:?}");
    scene.tell(Input::KindAnswered { endpoint: at(7011), kind: None, zone: Some("b".into()) });
    scene.tell(Input::KindFailed { endpoint: at(7002) });
    let zone = |scene: &Scene, port| scene.topology.node(&at(port)).unwrap().zone.clone();
    assert_eq!(zone(&scene, 7001).as_deref(), Some("a"));
    assert_eq!(zone(&scene, 7011).as_deref(), Some("b"));
    let plan = scene.topology.plan(Some(slot(0)), &crate::ReadPolicy::NearestByZone("b".into()), 0, |_| None);
    assert_eq!(plan.first(), Some(&at(7011)));
    // A later map, which does not tell it either, keeps it.
    scene.moved(0, 7002);
    scene.run_to(2000);
    assert_eq!(zone(&scene, 7011).as_deref(), Some("b"));
}

#[test]
fn addresses_outside_the_policy_stay_out_of_the_map() {
    let mut scene = Scene::unresolved();
    let config = ClusterConfig::new([at(7001)]).redirect_policy(RedirectPolicy::only(["h"]));
    scene.resolver = ClusterResolver::new(config, 7, scene.origin);
    let mut view = scene.view();
    view.shards[1].nodes[0].endpoint = Some(Endpoint::new("evil", 7002));
    scene.views.insert(7001, view);
    scene.run_to(10);
    scene.tell(Input::Moved { slot: slot(0), target: Endpoint::new("evil", 1) });
    scene.tell(Input::SlotsMoved { moves: vec![(0, 5, Endpoint::new("evil", 1))] });
    assert!(scene.topology.nodes().iter().all(|node| node.endpoint.host() == "h"));
    assert_eq!(scene.owner(0), 7001);
    assert_eq!(scene.took().iter().filter(|line| line.contains("AddressDenied")).count(), 2);
}
