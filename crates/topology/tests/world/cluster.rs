//! Three shards with a replica each; the client sends commands for random slots all the time.
//!
//! Slots are moved in sixteen blocks. Each node knows its own version of the cluster, and news travels by gossip.

use std::{sync::Arc, time::Duration, time::Instant};

use evenkeel_protocol::{Endpoint, Frame, Machine, Slot};
use evenkeel_topology::{
    Action, AskFailure, ClusterConfig, ClusterResolver, Complaint, Input, Topology, read,
};

use crate::{Agenda, Random, origin, schedules};

const MS: u64 = 1000;
const SECOND: u64 = 1000 * MS;
/// Trouble is made until here; then everything is repaired.
const TROUBLE: u64 = 20 * SECOND;
const END: u64 = TROUBLE + 12 * SECOND;
const DEADLINE: u64 = SECOND;
const SHARDS: usize = 3;
const NODES: usize = 2 * SHARDS;
const BLOCKS: usize = 16;
const BLOCK: u16 = 1024;
/// A promoted replica that is reachable is found within this: the poll's step of 40 ms and the way there and back.
const FOUND: u64 = 45 * MS;
/// A replica that has just started counts its primary's silence itself before it stands for election: no real one wins sooner.
const NODE_TIMEOUT: u64 = SECOND;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Trouble {
    /// Deaths, restarts, failovers by command, moves of slots.
    Clean,
    /// Also partitions of the client and of the cluster, and stopped nodes.
    Rough,
}

/// The cluster as somebody knows it.
#[derive(Clone, Debug)]
struct Knowledge {
    version: u64,
    epoch: u64,
    owners: [usize; BLOCKS],
    /// Whom a node follows; `None` for primaries.
    follows: [Option<usize>; NODES],
    failed: [bool; NODES],
}

impl Knowledge {
    fn is_down(&self) -> bool {
        self.owners.iter().any(|owner| self.failed[*owner])
    }
}

#[derive(Clone, Debug)]
struct Node {
    up: bool,
    /// When it started.
    up_since: u64,
    stopped: bool,
    /// Cut off from the client.
    cut: bool,
    /// Cut off from its cluster: no news reach it.
    isolated: bool,
    knows: Knowledge,
}

#[derive(Clone, Debug)]
enum Event {
    Arrive(Action, u64),
    Deliver(Input),
    Learn { node: usize, news: Knowledge },
    Command,
    Fault,
    Heal,
    Fail { node: usize, life: u64 },
    Promote { node: usize, old: usize },
    Demote { node: usize, to: usize },
    Restart(usize),
    Reconnect(usize),
    Check { node: usize, version: u64 },
}

struct World {
    rng: Random,
    trouble: Trouble,
    agenda: Agenda<Event>,
    now: u64,
    origin: Instant,
    resolver: ClusterResolver,
    nodes: Vec<Node>,
    truth: Knowledge,
    lives: [u64; NODES],
    topology: Arc<Topology>,
    changes: u64,
    views_asked: Vec<u64>,
    roles_asked: u64,
    done: u64,
    shown: bool,
}

fn at(node: usize) -> Endpoint {
    Endpoint::new("10.0.0.1", 7000 + node as u16)
}

fn index(endpoint: &Endpoint) -> usize {
    usize::from(endpoint.port() - 7000)
}

impl World {
    fn new(seed: u64, trouble: Trouble) -> Self {
        let mut truth = Knowledge {
            version: 1,
            epoch: 6,
            owners: [0; BLOCKS],
            follows: [None; NODES],
            failed: [false; NODES],
        };
        for (block, owner) in truth.owners.iter_mut().enumerate() {
            *owner = block * SHARDS / BLOCKS;
        }
        for replica in SHARDS..NODES {
            truth.follows[replica] = Some(replica - SHARDS);
        }
        let node =
            Node { up: true, up_since: 0, stopped: false, cut: false, isolated: false, knows: truth.clone() };
        let origin = origin();
        let config = ClusterConfig::new((0..NODES).map(at)).refresh_interval(Duration::from_secs(10));
        let mut world = Self {
            rng: Random::new(seed),
            trouble,
            agenda: Agenda::default(),
            now: 0,
            origin,
            resolver: ClusterResolver::new(config, seed, origin),
            nodes: vec![node; NODES],
            truth,
            lives: [0; NODES],
            topology: Arc::default(),
            changes: 0,
            views_asked: Vec::new(),
            roles_asked: 0,
            done: 0,
            shown: std::env::var_os("EVENKEEL_WORLD_SEED").is_some(),
        };
        world.agenda.add(200 * MS, Event::Command);
        world.agenda.add(SECOND, Event::Fault);
        world.agenda.add(TROUBLE, Event::Heal);
        world
    }

    fn instant(&self) -> Instant {
        self.origin + Duration::from_micros(self.now)
    }

    fn after(&mut self, from: u64, to: u64, event: Event) {
        let wait = self.rng.range(from, to);
        self.agenda.add(self.now + wait, event);
    }

    /// Shows what happens when a single schedule is run.
    fn show(&self, what: impl std::fmt::Debug) {
        if self.shown {
            println!("{:>10} {what:?}", self.now);
        }
    }

    fn run(&mut self) {
        self.drain();
        while self.now < END {
            let timer = self.resolver.poll_timeout().unwrap();
            let timer = timer.saturating_duration_since(self.origin).as_nanos().div_ceil(1000) as u64;
            let event = self.agenda.next_at().unwrap_or(END);
            if timer <= event {
                self.now = self.now.max(timer);
                self.resolver.handle_timeout(self.instant());
                self.drain();
                assert!(
                    self.resolver.poll_timeout().unwrap() > self.instant(),
                    "a timer that is over stays armed"
                );
            } else {
                self.now = event;
                let event = self.agenda.pop().unwrap();
                self.happen(event);
                self.drain();
            }
        }
        for (block, owner) in self.truth.owners.iter().enumerate() {
            for slot in [0, BLOCK / 2, BLOCK - 1] {
                let slot = Slot::new(block as u16 * BLOCK + slot).unwrap();
                assert_eq!(self.topology.primary_of(Some(slot)), Some(&at(*owner)), "block {block}");
            }
        }
        assert!(self.topology.is_complete());
        assert_eq!(self.topology.nodes().len(), NODES);
        assert!(self.done > 0);
        let most = 12 * self.changes + 3 * END / SECOND;
        assert!(
            self.views_asked.len() as u64 <= most,
            "{} views, {} changes",
            self.views_asked.len(),
            self.changes
        );
        for second in self.views_asked.windows(16) {
            assert!(
                second[15] - second[0] >= SECOND,
                "16 views within {} microseconds",
                second[15] - second[0]
            );
        }
        // A lost shard is polled every 40 ms, and every 10 ms for 2 s.
        let most = SHARDS as u64 * 2 * (50 * END / SECOND + 200 * self.changes);
        assert!(self.roles_asked <= most, "ROLE asked {} times", self.roles_asked);
    }

    fn drain(&mut self) {
        while let Some(action) = self.resolver.poll_action() {
            match &action {
                Action::AskRole { .. } | Action::AskView { .. } => {
                    if matches!(action, Action::AskView { .. }) {
                        self.views_asked.push(self.now);
                    } else {
                        self.roles_asked += 1;
                    }
                    let sent = self.now;
                    self.after(50, 2 * MS, Event::Arrive(action, sent));
                }
                Action::Publish(topology) => {
                    assert!(topology.generation() > self.topology.generation());
                    self.topology = Arc::clone(topology);
                }
                Action::PrimaryChanged { .. } | Action::Report(_) | Action::Unresolved(_) => {
                    self.show(&action);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn tell(&mut self, input: Input) {
        self.resolver.handle_input(self.instant(), input);
    }

    fn arrive(&mut self, action: Action, sent: u64) {
        let (endpoint, is_role) = match action {
            Action::AskRole { endpoint } => (endpoint, true),
            Action::AskView { endpoint, .. } => (endpoint, false),
            other => panic!("{other:?}"),
        };
        let node = self.nodes[index(&endpoint)].clone();
        let failed = |failure| {
            let endpoint = endpoint.clone();
            if is_role {
                Input::RoleFailed { endpoint, failure }
            } else {
                Input::ViewFailed { endpoint, failure }
            }
        };
        if node.cut || node.stopped {
            return self.agenda.add(sent + DEADLINE, Event::Deliver(failed(AskFailure::TimedOut)));
        }
        let answer = if !node.up {
            failed(AskFailure::Refused)
        } else if is_role {
            let wire = match node.knows.follows[index(&endpoint)] {
                None => "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n".to_owned(),
                Some(of) => {
                    let at = at(of);
                    format!(
                        "*5\r\n$5\r\nslave\r\n$8\r\n{}\r\n:{}\r\n$9\r\nconnected\r\n:1\r\n",
                        at.host(),
                        at.port()
                    )
                }
            };
            let frame = evenkeel_protocol::Reply::new(wire.into()).frame().unwrap();
            Input::RoleAnswered { endpoint, role: read::role(&frame).unwrap() }
        } else {
            let mut view = read::cluster_shards(&map(&node.knows), &endpoint, false).unwrap();
            view.epoch = Some(node.knows.epoch);
            Input::ViewAnswered { endpoint, view }
        };
        self.after(50, 2 * MS, Event::Deliver(answer));
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive(action, sent) => self.arrive(action, sent),
            Event::Deliver(input) => self.tell(input),
            Event::Learn { node, news } => {
                let state = &mut self.nodes[node];
                if state.up && !state.isolated && !state.stopped && news.version > state.knows.version {
                    state.knows = news;
                }
            }
            Event::Command => {
                self.command();
                self.after(5 * MS, 15 * MS, Event::Command);
            }
            Event::Fault => {
                if self.now < TROUBLE {
                    self.fault();
                    self.after(200 * MS, 4 * SECOND, Event::Fault);
                }
            }
            Event::Heal => self.heal(),
            Event::Fail { node, life } => self.fail(node, life),
            Event::Promote { node, old } => self.promote(node, old),
            Event::Demote { node, to } => {
                if self.truth.follows[to].is_none() && self.truth.follows[node].is_some() {
                    self.nodes[node].knows = self.truth.clone();
                }
            }
            Event::Restart(node) => self.restart(node),
            Event::Reconnect(node) => self.reconnect(node),
            Event::Check { node, version } => {
                let state = &self.nodes[node];
                if self.truth.version == version && state.up && !state.cut {
                    for block in (0..BLOCKS).filter(|block| self.truth.owners[*block] == node) {
                        let slot = Slot::new(block as u16 * BLOCK).unwrap();
                        assert_eq!(self.topology.primary_of(Some(slot)), Some(&at(node)), "found too late");
                    }
                }
            }
        }
    }

    fn command(&mut self) {
        let number = self.rng.range(0, 16384) as u16;
        let slot = Slot::new(number).unwrap();
        let Some(endpoint) = self.topology.primary_of(Some(slot)).cloned() else { return };
        let node = self.nodes[index(&endpoint)].clone();
        let lost = Input::ConnectionLost { endpoint: endpoint.clone() };
        if node.cut || node.stopped {
            return self.agenda.add(self.now + DEADLINE, Event::Deliver(lost));
        }
        let owner = node.knows.owners[usize::from(number / BLOCK)];
        if !node.up {
            self.tell(lost);
        } else if node.knows.is_down() && owner == index(&endpoint) {
            self.tell(Input::Refused { endpoint, complaint: Complaint::ClusterDown });
        } else if owner != index(&endpoint) {
            self.tell(Input::Moved { slot, target: at(owner) });
        } else {
            self.done += 1;
        }
    }

    // The cluster.

    /// The truth has changed: these know it at once, the others by gossip.
    fn spread(&mut self, at_once: &[usize]) {
        self.truth.version += 1;
        self.changes += 1;
        self.show(&self.truth);
        for node in 0..NODES {
            let news = self.truth.clone();
            if at_once.contains(&node) {
                self.nodes[node].knows = news;
            } else {
                self.after(MS, 100 * MS, Event::Learn { node, news });
            }
        }
    }

    fn kill(&mut self, node: usize) {
        if !self.nodes[node].up {
            return;
        }
        self.show(format!("kill {node}"));
        self.nodes[node].up = false;
        self.lives[node] += 1;
        let life = self.lives[node];
        self.after(1200 * MS, 1900 * MS, Event::Fail { node, life });
        self.after(500 * MS, 6 * SECOND, Event::Restart(node));
    }

    fn fail(&mut self, node: usize, life: u64) {
        let is_gone = !self.nodes[node].up || self.nodes[node].stopped;
        if self.lives[node] != life || !is_gone || self.truth.failed[node] {
            return;
        }
        self.truth.failed[node] = true;
        self.spread(&[]);
        if self.truth.follows[node].is_none() {
            let replicas: Vec<usize> = (0..NODES).filter(|r| self.truth.follows[*r] == Some(node)).collect();
            if let Some(replica) = self.rng.pick(&replicas) {
                self.after(50 * MS, SECOND, Event::Promote { node: replica, old: node });
            }
        }
    }

    fn promote(&mut self, node: usize, old: usize) {
        let state = &self.nodes[node];
        if !state.up || state.stopped || state.isolated || self.truth.follows[node] != Some(old) {
            return;
        }
        // A primary that is back takes its slots again.
        if !self.truth.failed[old] {
            return;
        }
        let soonest = state.up_since + NODE_TIMEOUT;
        if self.now < soonest {
            return self.agenda.add(soonest, Event::Promote { node, old });
        }
        self.take_over(node, old);
        if self.trouble == Trouble::Clean {
            let version = self.truth.version;
            self.agenda.add(self.now + FOUND, Event::Check { node, version });
        }
    }

    fn take_over(&mut self, node: usize, old: usize) {
        self.truth.epoch += 1;
        for owner in self.truth.owners.iter_mut().filter(|owner| **owner == old) {
            *owner = node;
        }
        for follows in self.truth.follows.iter_mut().filter(|follows| **follows == Some(old)) {
            *follows = Some(node);
        }
        self.truth.follows[node] = None;
        self.truth.follows[old] = Some(node);
        self.spread(&[node]);
    }

    fn restart(&mut self, node: usize) {
        if self.nodes[node].up {
            return;
        }
        self.nodes[node].up = true;
        self.nodes[node].up_since = self.now;
        self.lives[node] += 1;
        self.truth.failed[node] = false;
        self.spread(&[]);
    }

    fn reconnect(&mut self, node: usize) {
        let state = &mut self.nodes[node];
        state.cut = false;
        let was_away = state.stopped || state.isolated;
        state.stopped = false;
        state.isolated = false;
        self.lives[node] += 1;
        if was_away {
            self.truth.failed[node] = false;
            self.spread(&[]);
        }
    }

    fn fault(&mut self) {
        let node = self.rng.range(0, NODES as u64) as usize;
        let kinds = if self.trouble == Trouble::Clean { 5 } else { 8 };
        match self.rng.range(0, kinds) {
            0 => self.kill(node),
            1 => {
                let owner = self.truth.owners[self.rng.range(0, BLOCKS as u64) as usize];
                self.kill(owner);
            }
            2 => {
                if let Some(old) = self.truth.follows[node]
                    && self.nodes[node].up
                    && self.nodes[old].up
                    && !self.nodes[node].stopped
                    && !self.nodes[old].stopped
                {
                    self.take_over(node, old);
                    self.after(5 * MS, 50 * MS, Event::Demote { node: old, to: node });
                }
            }
            3 | 4 => {
                let block = self.rng.range(0, BLOCKS as u64) as usize;
                let from = self.truth.owners[block];
                let is_fit = |node: &usize| self.truth.follows[*node].is_none() && self.nodes[*node].up;
                let primaries: Vec<usize> = (0..NODES).filter(is_fit).collect();
                if let Some(to) = self.rng.pick(&primaries)
                    && self.nodes[from].up
                    && to != from
                {
                    self.truth.epoch += 1;
                    self.truth.owners[block] = to;
                    self.spread(&[from, to]);
                }
            }
            5 => {
                self.nodes[node].cut = true;
                self.after(100 * MS, 5 * SECOND, Event::Reconnect(node));
            }
            6 => {
                self.nodes[node].stopped = true;
                self.lives[node] += 1;
                let life = self.lives[node];
                self.after(1200 * MS, 1900 * MS, Event::Fail { node, life });
                self.after(100 * MS, 5 * SECOND, Event::Reconnect(node));
            }
            _ => {
                self.nodes[node].isolated = true;
                self.after(100 * MS, 5 * SECOND, Event::Reconnect(node));
            }
        }
    }

    fn heal(&mut self) {
        for node in 0..NODES {
            self.restart(node);
            self.reconnect(node);
        }
    }
}

/// `CLUSTER SHARDS` as somebody with this knowledge answers it.
fn map(knows: &Knowledge) -> Frame {
    let blob = |text: String| Frame::Blob(text.into());
    let pairs = |list: Vec<(&str, Frame)>| {
        let flat = list.into_iter().flat_map(|(key, value)| [Frame::Blob(key.to_owned().into()), value]);
        Frame::Map(flat.collect::<Vec<_>>().into())
    };
    let mut shards = Vec::new();
    for primary in (0..NODES).filter(|node| knows.follows[*node].is_none()) {
        let blocks = (0..BLOCKS).filter(|block| knows.owners[*block] == primary);
        let bounds = blocks.flat_map(|block| {
            let first = i64::from(block as u16) * i64::from(BLOCK);
            [first, first + i64::from(BLOCK) - 1].map(Frame::Integer)
        });
        let members = (0..NODES).filter(|node| *node == primary || knows.follows[*node] == Some(primary));
        let nodes = members.map(|node| {
            let at = at(node);
            pairs(vec![
                ("id", blob(format!("n{node}"))),
                ("port", Frame::Integer(at.port().into())),
                ("ip", blob(at.host().to_owned())),
                ("endpoint", blob(at.host().to_owned())),
                ("role", blob(if node == primary { "master" } else { "replica" }.to_owned())),
                ("replication-offset", Frame::Integer(1)),
                ("health", blob(if knows.failed[node] { "fail" } else { "online" }.to_owned())),
            ])
        });
        shards.push(pairs(vec![
            ("slots", Frame::Array(bounds.collect::<Vec<_>>().into())),
            ("nodes", Frame::Array(nodes.collect::<Vec<_>>().into())),
        ]));
    }
    Frame::Array(shards.into())
}

#[test]
fn deaths_failovers_and_moves_end_on_the_right_map() {
    schedules("Clean cluster", |seed| World::new(seed, Trouble::Clean).run());
}

#[test]
fn partitions_and_stopped_nodes_end_on_the_right_map() {
    schedules("Rough cluster", |seed| World::new(seed, Trouble::Rough).run());
}
