//! A primary, two replicas and three sentinels; the client writes all the time.

mod failover;
mod trouble;

use std::time::{Duration, Instant};

use evenkeel_protocol::{Endpoint, Machine};
use evenkeel_topology::{
    Action, AskFailure, Complaint, Input, SentinelAnswer, SentinelConfig, SentinelQuestion, SentinelResolver,
    Topology, read,
};

use crate::{Agenda, Random, origin, schedules};

const MS: u64 = 1000;
const SECOND: u64 = 1000 * MS;
/// Trouble is made until here; then everything is repaired.
const TROUBLE: u64 = 25 * SECOND;
const END: u64 = TROUBLE + 15 * SECOND;
const DEADLINE: u64 = SECOND;
const NODES: usize = 3;

/// What may go wrong in a schedule.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Trouble {
    /// Deaths, restarts, failovers; every event link stands. No acknowledged write may be lost.
    Clean,
    /// Also partitions, stopped servers, dead sentinels, cut event links, replicas promoted by hand.
    Rough,
    /// Also announcements that come twice, late and in another order.
    Unruly,
}

#[derive(Clone, Debug)]
enum Event {
    /// A question reaches its server, sent at this time.
    Arrive(Action, u64),
    Deliver(Input),
    /// A message of a sentinel over this incarnation of its event link.
    Message {
        sentinel: usize,
        link: u64,
        channel: &'static str,
        payload: String,
    },
    LinkUp {
        sentinel: usize,
        link: u64,
    },
    LinkDead {
        sentinel: usize,
        link: u64,
    },
    Write,
    Watchdog,
    Fault,
    Heal,
    Step(Failover, Step),
    Restart(usize),
    Reconnect(usize),
    Demote {
        node: usize,
        to: usize,
    },
    Rogue {
        node: usize,
        on: bool,
    },
}

#[derive(Clone, Debug)]
struct Failover {
    leader: usize,
    epoch: u64,
    old: usize,
    chosen: Option<usize>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Crash,
    Planned,
    /// The old primary stops, lets its heir catch up, and becomes its replica at the same moment.
    HandsOver,
    /// Of another leader that saw the same, in the next epoch.
    Rival,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Select,
    /// The old primary is told to hand over.
    Stop,
    /// It goes on as before: its heir did not catch up.
    Resume,
    Promote,
    Notice,
    Tell(usize),
    End,
    GiveUp,
}

#[derive(Clone, Debug)]
struct Node {
    up: bool,
    stopped: bool,
    /// Acknowledges no write until it has handed over.
    paused: bool,
    /// Cut off from the client.
    cut: bool,
    says_primary: bool,
    of: usize,
    rogue: bool,
    promoted_at: u64,
}

#[derive(Clone, Debug)]
struct Sentinel {
    up: bool,
    cut: bool,
    primary: usize,
    epoch: u64,
    current_epoch: u64,
    /// Odd while the link stands.
    link: u64,
    last_delivery: u64,
}

struct World {
    rng: Random,
    trouble: Trouble,
    agenda: Agenda<Event>,
    now: u64,
    origin: Instant,
    resolver: SentinelResolver,
    nodes: Vec<Node>,
    sentinels: Vec<Sentinel>,
    /// The node that the sentinels' newest failover promoted.
    truth: usize,
    truth_epoch: u64,
    /// Who leads a failover, and how.
    failover: Option<(usize, Kind)>,
    /// Who leads another one at the same time.
    rival: Option<usize>,
    odown: bool,
    down_since: Option<u64>,
    last_failover: u64,
    followed: Option<usize>,
    topology: std::sync::Arc<Topology>,
    held_since: Option<u64>,
    sound_since: u64,
    lost: u64,
    acknowledged: u64,
    failovers: u64,
    roles_asked: u64,
    sentinels_asked: u64,
    shown: bool,
}

fn data(node: usize) -> Endpoint {
    Endpoint::new("10.0.0.1", 6000 + node as u16)
}

fn guard(sentinel: usize) -> Endpoint {
    Endpoint::new("10.0.0.2", 26000 + sentinel as u16)
}

fn index(endpoint: &Endpoint) -> usize {
    usize::from(endpoint.port() % 1000)
}

impl World {
    fn new(seed: u64, trouble: Trouble) -> Self {
        let origin = origin();
        let config = SentinelConfig::new("m", (0..3).map(guard));
        let node = Node {
            up: true,
            stopped: false,
            paused: false,
            cut: false,
            says_primary: false,
            of: 0,
            rogue: false,
            promoted_at: 0,
        };
        let mut nodes = vec![node; NODES];
        nodes[0].says_primary = true;
        let sentinel = Sentinel {
            up: true,
            cut: false,
            primary: 0,
            epoch: 0,
            current_epoch: 0,
            link: 0,
            last_delivery: 0,
        };
        let mut world = Self {
            rng: Random::new(seed),
            trouble,
            agenda: Agenda::default(),
            now: 0,
            origin,
            resolver: SentinelResolver::new(config, seed, origin),
            nodes,
            sentinels: vec![sentinel; 3],
            truth: 0,
            truth_epoch: 0,
            failover: None,
            rival: None,
            odown: false,
            down_since: None,
            last_failover: 0,
            followed: None,
            topology: std::sync::Arc::default(),
            held_since: None,
            sound_since: 0,
            lost: 0,
            acknowledged: 0,
            failovers: 0,
            roles_asked: 0,
            sentinels_asked: 0,
            shown: std::env::var_os("EVENKEEL_WORLD_SEED").is_some(),
        };
        world.agenda.add(500 * MS, Event::Write);
        world.agenda.add(100 * MS, Event::Watchdog);
        world.agenda.add(2 * SECOND, Event::Fault);
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
                let next = self.resolver.poll_timeout().unwrap();
                assert!(next > self.instant(), "a timer that is over stays armed");
            } else {
                self.now = event;
                let event = self.agenda.pop().unwrap();
                self.happen(event);
                self.drain();
            }
            self.check_hold();
        }
        assert_eq!(self.followed, Some(self.truth), "the switch was lost");
        assert_eq!(self.held_since, None, "the hold has no end");
        assert_eq!(self.resolver.phase(), "calm");
        assert!(self.topology.sees_every_failover());
        assert_eq!(self.topology.replicas_of(None).count(), NODES - 1);
        if self.trouble == Trouble::Clean {
            assert_eq!(self.lost, 0, "acknowledged writes were lost");
        }
        // Fast polls of 2 s for each sign of a failover, patient ones for the rest of the time.
        let most = 3 * (400 * 3 * (self.failovers + 1) + 20 * (END / SECOND));
        assert!(
            self.roles_asked <= most,
            "ROLE asked {} times, {} failovers",
            self.roles_asked,
            self.failovers
        );
        let most = 3 * (4 * (END / SECOND) + 12 * (self.failovers + 1)) + 200;
        assert!(self.sentinels_asked <= most, "sentinels asked {} times", self.sentinels_asked);
        assert!(self.acknowledged > 0);
    }

    /// When nothing has been wrong for long enough, nothing may be held.
    fn check_hold(&self) {
        if let Some(since) = self.held_since {
            let sound_for = self.now.saturating_sub(self.sound_since.max(since));
            assert!(sound_for < 8 * SECOND, "held for {sound_for} microseconds without a reason");
        }
    }

    fn drain(&mut self) {
        while let Some(action) = self.resolver.poll_action() {
            if !matches!(action, Action::AskRole { .. } | Action::AskSentinel { .. } | Action::Publish(_)) {
                self.show(&action);
            }
            match action {
                Action::AskRole { .. } | Action::AskSentinel { .. } => {
                    let is_role = matches!(action, Action::AskRole { .. });
                    *(if is_role { &mut self.roles_asked } else { &mut self.sentinels_asked }) += 1;
                    let sent = self.now;
                    self.after(50, 2 * MS, Event::Arrive(action, sent));
                }
                Action::WatchSentinel { sentinel } => self.watch(index(&sentinel)),
                Action::UnwatchSentinel { .. } => panic!("no sentinel is known twice"),
                Action::HoldWrites { .. } => {
                    self.held_since.get_or_insert(self.now);
                }
                Action::Release { primary } => {
                    assert!(self.held_since.take().is_some(), "released without a hold");
                    assert_eq!(Some(index(&primary)), self.followed);
                }
                Action::Publish(topology) => {
                    assert!(topology.generation() > self.topology.generation());
                    self.topology = topology;
                }
                Action::PrimaryChanged { from, to, .. } => {
                    assert_eq!(
                        from.as_ref().map(index),
                        self.followed,
                        "two primaries were followed at once"
                    );
                    assert_eq!(self.topology.primary_of(None), Some(&to), "published too late");
                    let node = index(&to);
                    assert!(!self.nodes[node].rogue, "followed a replica that nobody made primary");
                    self.followed = Some(node);
                }
                Action::Report(_) | Action::Unresolved(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Shows what happens when a single schedule is run.
    fn show(&self, what: impl std::fmt::Debug) {
        if self.shown {
            println!("{:>10} {what:?}", self.now);
        }
    }

    fn tell(&mut self, input: Input) {
        let is_answer = matches!(
            input,
            Input::RoleAnswered { .. } | Input::RoleFailed { .. } | Input::SentinelAnswered { .. }
        );
        if !is_answer {
            self.show(&input);
        }
        self.resolver.handle_input(self.instant(), input);
    }

    // The network.

    fn watch(&mut self, sentinel: usize) {
        let state = &mut self.sentinels[sentinel];
        assert!(state.link.is_multiple_of(2), "watched twice");
        let link = state.link;
        if state.up && !state.cut {
            self.after(MS, 5 * MS, Event::LinkUp { sentinel, link: link + 1 });
        } else {
            self.after(MS, SECOND, Event::Deliver(Input::EventLinkDown { sentinel: guard(sentinel) }));
        }
    }

    fn cut_link(&mut self, sentinel: usize, notice: u64) {
        let state = &mut self.sentinels[sentinel];
        if !state.link.is_multiple_of(2) {
            let link = state.link;
            self.agenda.add(self.now + notice, Event::LinkDead { sentinel, link });
        }
    }

    fn publish(&mut self, sentinel: usize, channel: &'static str, payload: String) {
        let state = &self.sentinels[sentinel];
        if !state.up || state.cut || state.link.is_multiple_of(2) {
            return;
        }
        let link = state.link;
        let message = Event::Message { sentinel, link, channel, payload };
        let mut at = self.now + self.rng.range(100, 20 * MS);
        if self.trouble == Trouble::Unruly && self.rng.chance(10) {
            at += self.rng.range(0, 2 * SECOND);
        } else {
            at = at.max(self.sentinels[sentinel].last_delivery + 1);
            self.sentinels[sentinel].last_delivery = at;
        }
        if self.trouble == Trouble::Unruly && self.rng.chance(10) {
            let again = at + self.rng.range(0, 3 * SECOND);
            self.agenda.add(again, message.clone());
        }
        self.agenda.add(at, message);
    }

    fn arrive(&mut self, action: Action, sent: u64) {
        let answer = match action {
            Action::AskRole { endpoint } => {
                let node = self.nodes[index(&endpoint)].clone();
                let failed = |failure| Input::RoleFailed { endpoint: endpoint.clone(), failure };
                if node.stopped || node.cut {
                    self.agenda.add(sent + DEADLINE, Event::Deliver(failed(AskFailure::TimedOut)));
                    return;
                }
                let just_promoted = node.says_primary && self.now - node.promoted_at < MS;
                if !node.up {
                    failed(AskFailure::Refused)
                } else if just_promoted && self.rng.chance(50) {
                    failed(AskFailure::Reset)
                } else if node.says_primary {
                    let role = read_role(None);
                    Input::RoleAnswered { endpoint, role }
                } else {
                    let role = read_role(Some(node.of));
                    Input::RoleAnswered { endpoint, role }
                }
            }
            Action::AskSentinel { sentinel, question } => {
                let state = self.sentinels[index(&sentinel)].clone();
                let failed =
                    |failure| Input::SentinelFailed { sentinel: sentinel.clone(), question, failure };
                if state.cut {
                    self.agenda.add(sent + DEADLINE, Event::Deliver(failed(AskFailure::TimedOut)));
                    return;
                }
                if state.up {
                    let answer = self.answer(index(&sentinel), &state, question);
                    Input::SentinelAnswered { sentinel, answer }
                } else {
                    failed(AskFailure::Refused)
                }
            }
            other => panic!("{other:?}"),
        };
        self.after(50, 2 * MS, Event::Deliver(answer));
    }

    fn answer(&self, sentinel: usize, state: &Sentinel, question: SentinelQuestion) -> SentinelAnswer {
        // Through the readers, from the wire, as a real answer comes.
        if question == SentinelQuestion::Primary {
            let rival = self.rival.map(|rival| (rival, Kind::Rival));
            let led = self.failover.into_iter().chain(rival).find(|(leader, _)| *leader == sentinel);
            let flags = match (led, self.odown) {
                (Some((_, Kind::HandsOver)), _) => "master,failover_in_progress,coordinated_failover",
                (Some(_), _) => "master,o_down,failover_in_progress",
                (None, true) => "master,s_down,o_down",
                (None, false) => "master",
            };
            let (at, epoch) = (data(state.primary), state.epoch.to_string());
            let port = at.port().to_string();
            let fields = [("ip", at.host()), ("port", &port), ("config-epoch", &epoch), ("flags", flags)];
            let view = frame(&pairs(&fields));
            let view = read::sentinel_primary(&view).unwrap().unwrap();
            return SentinelAnswer::Primary { endpoint: data(state.primary), view };
        }
        let replicas = (0..NODES).filter(|node| *node != state.primary).map(|node| {
            let flags = if self.nodes[node].up { "slave" } else { "slave,s_down" };
            let (endpoint, port) = (data(node), data(node).port().to_string());
            pairs(&[("ip", endpoint.host()), ("port", &port), ("flags", flags)])
        });
        let wire = format!("*{}\r\n{}", NODES - 1, replicas.collect::<Vec<_>>().concat());
        SentinelAnswer::Members {
            id: Some(format!("id{sentinel}")),
            replicas: read::sentinel_replicas(&frame(&wire)).unwrap(),
            sentinels: Vec::new(),
        }
    }

    // The deployment.

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrive(action, sent) => self.arrive(action, sent),
            Event::Deliver(input) => self.tell(input),
            Event::Message { sentinel, link, channel, payload } => {
                if self.sentinels[sentinel].link == link {
                    self.tell(Input::SentinelEvent {
                        sentinel: guard(sentinel),
                        channel: channel.into(),
                        payload: payload.into(),
                    });
                }
            }
            Event::LinkUp { sentinel, link } => {
                let state = &mut self.sentinels[sentinel];
                if state.up && !state.cut {
                    state.link = link;
                    self.tell(Input::EventLinkUp { sentinel: guard(sentinel) });
                } else {
                    self.tell(Input::EventLinkDown { sentinel: guard(sentinel) });
                }
            }
            Event::LinkDead { sentinel, link } => {
                if self.sentinels[sentinel].link == link {
                    self.sentinels[sentinel].link += 1;
                    self.tell(Input::EventLinkDown { sentinel: guard(sentinel) });
                }
            }
            Event::Write => {
                self.write();
                self.agenda.add(self.now + 20 * MS, Event::Write);
            }
            Event::Watchdog => {
                self.watchdog();
                self.agenda.add(self.now + 100 * MS, Event::Watchdog);
            }
            Event::Fault => {
                if self.now < TROUBLE {
                    self.fault();
                    self.after(200 * MS, 5 * SECOND, Event::Fault);
                }
            }
            Event::Heal => self.heal(),
            Event::Step(failover, step) => self.step(failover, step),
            Event::Restart(node) => {
                self.show(format!("restart {node}"));
                self.nodes[node].up = true;
                self.nodes[node].paused = false;
            }
            Event::Reconnect(node) => {
                self.nodes[node].cut = false;
                self.nodes[node].stopped = false;
            }
            Event::Demote { node, to } => {
                if node != self.truth && self.nodes[node].up {
                    self.nodes[node].says_primary = false;
                    self.nodes[node].of = to;
                }
            }
            Event::Rogue { node, on } => {
                let is_quiet = self.failover.is_none() && self.rival.is_none();
                if on && node != self.truth && is_quiet && !self.nodes[node].says_primary {
                    self.nodes[node].rogue = true;
                    self.nodes[node].says_primary = true;
                    self.after(100 * MS, 3 * SECOND, Event::Rogue { node, on: false });
                } else if !on && self.nodes[node].rogue {
                    self.nodes[node].rogue = false;
                    self.nodes[node].says_primary = node == self.truth;
                }
            }
        }
    }

    fn write(&mut self) {
        let (Some(followed), None) = (self.followed, self.held_since) else { return };
        let node = self.nodes[followed].clone();
        let endpoint = data(followed);
        if node.cut || node.stopped || (node.up && node.paused) {
            return;
        }
        if !node.up {
            return self.tell(Input::ConnectionLost { endpoint });
        }
        if !node.says_primary {
            return self.tell(Input::Refused { endpoint, complaint: Complaint::ReadOnly });
        }
        self.acknowledged += 1;
        if followed != self.truth {
            self.lost += 1;
            self.show("an acknowledged write is lost");
        }
    }
}

fn read_role(of: Option<usize>) -> read::RoleView {
    let wire = match of {
        None => "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n".to_owned(),
        Some(of) => {
            let at = data(of);
            format!("*5\r\n$5\r\nslave\r\n$8\r\n{}\r\n:{}\r\n$9\r\nconnected\r\n:1\r\n", at.host(), at.port())
        }
    };
    read::role(&frame(&wire)).unwrap()
}

fn frame(wire: &str) -> evenkeel_protocol::Frame {
    evenkeel_protocol::Reply::new(wire.to_owned().into()).frame().unwrap()
}

fn pairs(fields: &[(&str, &str)]) -> String {
    let strings = fields.iter().flat_map(|(key, value)| [*key, *value]);
    let body: Vec<String> = strings.map(|text| format!("${}\r\n{text}\r\n", text.len())).collect();
    format!("*{}\r\n{}", fields.len() * 2, body.concat())
}

fn world(trouble: Trouble) {
    schedules(&format!("{trouble:?} sentinel"), |seed| World::new(seed, trouble).run());
}

#[test]
fn no_acknowledged_write_is_lost_while_every_event_is_seen() {
    world(Trouble::Clean);
}

#[test]
fn partitions_and_deaths_end_on_the_right_primary() {
    world(Trouble::Rough);
}

#[test]
fn announcements_repeated_delayed_and_reordered_end_on_the_right_primary() {
    world(Trouble::Unruly);
}
