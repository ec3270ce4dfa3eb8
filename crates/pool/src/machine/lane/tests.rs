//! Scripts for the lane machine, in virtual time.

use super::*;

fn origin() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "origin of virtual time")]
    Instant::now()
}

fn a() -> Endpoint {
    Endpoint::new("a", 1)
}

fn b() -> Endpoint {
    Endpoint::new("b", 1)
}

struct Script {
    machine: LaneMachine,
    origin: Instant,
}

impl Script {
    fn new() -> Self {
        let mut script =
            Self { machine: LaneMachine::new(a(), Backoff::default(), Seed::new(1)), origin: origin() };
        assert_eq!(script.actions(), ["dial 0 a:1"]);
        script
    }

    fn at(&self, ms: u64) -> Instant {
        self.origin + Duration::from_millis(ms)
    }

    fn input(&mut self, ms: u64, input: Input) -> Vec<String> {
        self.machine.handle_input(self.at(ms), input);
        self.actions()
    }

    fn timeout(&mut self, ms: u64) -> Vec<String> {
        self.machine.handle_timeout(self.at(ms));
        self.actions()
    }

    fn next(&self) -> Option<u128> {
        self.machine.poll_timeout().map(|at| at.duration_since(self.origin).as_millis())
    }

    fn ready(&mut self) {
        assert_eq!(self.input(0, Input::Dialed(DialId(0))), ["adopt 0", "connected again=false a:1"]);
    }

    fn request(&self, id: u64, not_before: u64, deadline: u64) -> MoveRequest {
        let mut request = MoveRequest::new(MoveId(id), b(), self.at(0), self.at(deadline));
        request.not_before = self.at(not_before);
        request
    }

    fn actions(&mut self) -> Vec<String> {
        let mut list = Vec::new();
        while let Some(action) = self.machine.poll_action() {
            list.push(match action {
                Action::Dial { dial, endpoint, .. } => format!("dial {} {endpoint}", dial.0),
                Action::Discard(dial) => format!("discard {}", dial.0),
                Action::Adopt { dial, .. } => format!("adopt {}", dial.0),
                Action::Condemn => "condemn".into(),
                Action::Hush => "hush".into(),
                Action::Leave => "leave".into(),
                Action::Resume => "resume".into(),
                Action::Report(Report::Connected { again, endpoint }) => {
                    format!("connected again={again} {endpoint}")
                }
                Action::Report(Report::Reconnecting { attempt, .. }) => format!("reconnecting {attempt}"),
                Action::Report(Report::Moved(id)) => format!("moved {}", id.0),
                Action::Report(Report::MoveFailed(id)) => format!("move failed {}", id.0),
                Action::Report(Report::Suspect(endpoint)) => format!("suspect {endpoint}"),
                Action::Report(Report::Mute(endpoint)) => format!("mute {endpoint}"),
            });
        }
        list
    }
}

#[test]
fn a_lost_connection_is_dialled_at_once_and_then_with_growing_delays() {
    let mut script = Script::new();
    script.ready();
    assert_eq!(script.input(10, Input::Lost), ["reconnecting 0", "dial 1 a:1"]);
    assert_eq!(script.input(11, Input::DialFailed { dial: DialId(1), refused: true }), ["reconnecting 1"]);
    let next = script.next().unwrap();
    assert!((36..=86).contains(&next), "{next}");
    assert!(script.timeout(30).is_empty());
    assert_eq!(script.timeout(90), ["dial 2 a:1"]);
    assert_eq!(script.input(95, Input::Dialed(DialId(2))), ["adopt 2", "connected again=true a:1"]);
}

#[test]
fn a_move_makes_before_it_breaks() {
    let mut script = Script::new();
    script.ready();
    let request = script.request(7, 100, 3000);
    assert!(script.input(0, Input::Move(request)).is_empty());
    assert_eq!(script.next(), Some(100));
    assert_eq!(script.timeout(100), ["dial 1 b:1"]);
    assert_eq!(script.input(110, Input::Dialed(DialId(1))), ["adopt 1", "moved 7"]);
    // Until the grace ends dials go to the target, afterwards to the lane's own endpoint.
    assert_eq!(script.input(200, Input::Lost), ["reconnecting 0", "dial 2 b:1"]);
    assert_eq!(script.input(205, Input::Dialed(DialId(2))), ["adopt 2", "connected again=true b:1"]);
    assert_eq!(script.input(5000, Input::Lost), ["reconnecting 0", "dial 3 a:1"]);
}

#[test]
fn a_dead_target_is_tried_again_and_given_up_with_nothing_harmed() {
    let mut script = Script::new();
    script.ready();
    let request = script.request(7, 0, 300);
    assert_eq!(script.input(0, Input::Move(request)), ["dial 1 b:1"]);
    let mut tries = 1;
    let mut dial = 1;
    let end = loop {
        let actions = script.input(1, Input::DialFailed { dial: DialId(dial), refused: true });
        if actions == ["move failed 7"] {
            break tries;
        }
        let next = script.next().unwrap();
        let next = script.timeout(u64::try_from(next).unwrap());
        dial += 1;
        tries += 1;
        assert_eq!(next, [format!("dial {dial} b:1")]);
    };
    assert!(end <= 6, "{end}");
    assert_eq!(script.machine.state(), LaneState::Ready);
}

#[test]
fn a_connection_lost_during_a_move_goes_on_at_the_target_and_falls_back() {
    let mut script = Script::new();
    script.ready();
    let request = script.request(7, 500, 3000);
    script.input(0, Input::Move(request));
    assert_eq!(script.input(100, Input::Lost), ["reconnecting 0", "dial 1 b:1"]);
    assert_eq!(script.input(101, Input::DialFailed { dial: DialId(1), refused: true }), ["dial 2 a:1"]);
    assert_eq!(script.input(102, Input::Dialed(DialId(2))), ["adopt 2", "connected again=true a:1"]);
}

/// A move to where the lane is already: what is behind the name has changed.
fn renewal(script: &Script, overlap: Overlap) -> MoveRequest {
    let mut request = MoveRequest::new(MoveId(7), a(), script.at(0), script.at(2000));
    (request.renew, request.once, request.overlap) = (true, overlap != Overlap::Quiet, overlap);
    request.not_before = script.at(1000);
    request
}

#[test]
fn a_renewal_dials_the_same_name_again() {
    let mut script = Script::new();
    script.ready();
    let mut request = renewal(&script, Overlap::Beside);
    request.not_before = script.at(0);
    assert_eq!(script.input(0, Input::Move(request)), ["dial 1 a:1"]);
    assert_eq!(script.input(1, Input::Dialed(DialId(1))), ["adopt 1", "moved 7"]);
}

#[test]
fn a_move_that_is_tried_once_is_told_at_its_first_failure() {
    let mut script = Script::new();
    script.ready();
    let mut request = script.request(7, 0, 1000);
    request.once = true;
    assert_eq!(script.input(0, Input::Move(request)), ["dial 1 b:1"]);
    assert_eq!(script.input(1, Input::DialFailed { dial: DialId(1), refused: true }), ["move failed 7"]);
    assert_eq!((script.machine.state(), script.next()), (LaneState::Ready, None));
}

#[test]
fn a_quiet_move_dials_when_the_peer_has_closed() {
    let mut script = Script::new();
    script.ready();
    let request = renewal(&script, Overlap::Quiet);
    assert_eq!(script.input(0, Input::Move(request)), ["hush"]);
    assert!(script.input(1, Input::Idle).is_empty());
    assert_eq!(script.input(990, Input::Lost), ["reconnecting 0", "dial 1 a:1"]);
    assert_eq!(
        script.input(991, Input::Dialed(DialId(1))),
        ["adopt 1", "connected again=true a:1", "moved 7"]
    );
}

#[test]
fn a_quiet_move_falls_silent_at_its_time() {
    let mut script = Script::new();
    script.ready();
    let mut request = renewal(&script, Overlap::Quiet);
    request.hush_at = script.at(900);
    assert!(script.input(0, Input::Move(request)).is_empty());
    assert_eq!(script.next(), Some(900));
    assert_eq!(script.timeout(900), ["hush"]);
    assert_eq!(script.timeout(1000), ["dial 1 a:1"]);
}

#[test]
fn a_quiet_move_dials_at_its_time_when_the_peer_has_not_closed() {
    let mut script = Script::new();
    script.ready();
    let request = renewal(&script, Overlap::Quiet);
    script.input(0, Input::Move(request));
    assert_eq!(script.timeout(1000), ["dial 1 a:1"]);
    assert_eq!(script.input(1001, Input::Dialed(DialId(1))), ["adopt 1", "moved 7"]);
}

#[test]
fn a_quiet_move_that_finds_nobody_uses_the_old_connection_again() {
    let mut script = Script::new();
    script.ready();
    let request = renewal(&script, Overlap::Quiet);
    script.input(0, Input::Move(request));
    assert_eq!(script.timeout(1000), ["dial 1 a:1"]);
    // Soon and again: callers wait.
    assert!(script.input(1000, Input::DialFailed { dial: DialId(1), refused: true }).is_empty());
    assert_eq!(script.next(), Some(1002));
    assert_eq!(script.timeout(1002), ["dial 2 a:1"]);
    assert_eq!(script.timeout(2000), ["discard 2", "resume", "move failed 7"]);
    assert_eq!(script.machine.state(), LaneState::Ready);
}

#[test]
fn a_quiet_move_that_comes_too_late_goes_on_as_the_lanes_own_dial() {
    let mut script = Script::new();
    script.ready();
    script.input(0, Input::Move(renewal(&script, Overlap::Quiet)));
    assert_eq!(script.input(990, Input::Lost), ["reconnecting 0", "dial 1 a:1"]);
    assert_eq!(script.timeout(2000), ["move failed 7"]);
    assert_eq!(script.input(2001, Input::Dialed(DialId(1))), ["adopt 1", "connected again=true a:1"]);
}

#[test]
fn a_move_in_place_lets_the_old_connection_answer_and_leave_first() {
    let mut script = Script::new();
    script.ready();
    let request = renewal(&script, Overlap::InPlace);
    assert_eq!(script.input(0, Input::Move(request)), ["hush"]);
    assert!(script.timeout(1000).is_empty());
    assert_eq!(script.input(1100, Input::Idle), ["leave", "dial 1 a:1"]);
    assert_eq!(
        script.input(1101, Input::Dialed(DialId(1))),
        ["adopt 1", "connected again=true a:1", "moved 7"]
    );
}

#[test]
fn a_move_in_place_that_fails_goes_home() {
    let mut script = Script::new();
    script.ready();
    let mut request = renewal(&script, Overlap::InPlace);
    request.target = b();
    script.input(0, Input::Move(request));
    assert_eq!(script.input(1, Input::Idle), ["leave", "dial 1 b:1"]);
    let failed = Input::DialFailed { dial: DialId(1), refused: false };
    assert_eq!(script.input(2, failed), ["move failed 7", "dial 2 a:1"]);
    assert_eq!(script.input(3, Input::Dialed(DialId(2))), ["adopt 2", "connected again=true a:1"]);
}

#[test]
fn a_move_in_place_that_never_gets_its_turn_changes_nothing() {
    let mut script = Script::new();
    script.ready();
    let request = renewal(&script, Overlap::InPlace);
    script.input(0, Input::Move(request));
    assert_eq!(script.timeout(2000), ["resume", "move failed 7"]);
    assert_eq!(script.machine.state(), LaneState::Ready);
}

#[test]
fn a_dial_that_carries_the_lane_alone_is_replaced_by_a_newer_move() {
    let mut script = Script::new();
    script.ready();
    script.input(0, Input::Move(renewal(&script, Overlap::Quiet)));
    assert_eq!(script.input(1, Input::Lost), ["reconnecting 0", "dial 1 a:1"]);
    let mut newer = script.request(8, 500, 1000);
    newer.renew = true;
    assert_eq!(script.input(2, Input::Move(newer)), ["discard 1", "move failed 7", "dial 2 b:1"]);
    assert_eq!(script.input(3, Input::Dialed(DialId(2))), ["adopt 2", "connected again=true b:1", "moved 8"]);
}

#[test]
fn a_newer_move_replaces_an_older_one_and_being_there_is_enough() {
    let mut script = Script::new();
    script.ready();
    let request = script.request(1, 0, 1000);
    script.input(0, Input::Move(request));
    let mut newer = MoveRequest::new(MoveId(2), Endpoint::new("c", 1), script.at(5), script.at(2000));
    newer.for_good = true;
    assert_eq!(script.input(5, Input::Move(newer.clone())), ["discard 1", "move failed 1", "dial 2 c:1"]);
    assert_eq!(script.input(6, Input::Dialed(DialId(1))), ["discard 1"]);
    assert_eq!(script.input(7, Input::Dialed(DialId(2))), ["adopt 2", "moved 2"]);
    assert_eq!(script.machine.home(), &Endpoint::new("c", 1));
    newer.id = MoveId(3);
    assert_eq!(script.input(8, Input::Move(newer)), ["moved 3"]);
}

#[test]
fn a_move_told_again_goes_on_with_its_dial() {
    let mut script = Script::new();
    script.ready();
    let request = script.request(1, 0, 1000);
    assert_eq!(script.input(0, Input::Move(request)), ["dial 1 b:1"]);
    for ms in 1..20 {
        let again = script.request(1, 0, 1000 + ms);
        assert_eq!(script.input(ms, Input::Move(again)), <[&str; 0]>::default());
    }
    // Another mover of the same target takes the dial over.
    let other = script.request(2, 0, 2000);
    assert_eq!(script.input(20, Input::Move(other)), ["move failed 1"]);
    assert_eq!(script.input(21, Input::Dialed(DialId(1))), ["adopt 1", "moved 2"]);
}

#[test]
fn a_silent_peer_is_probed_and_condemned_only_when_nobody_listens() {
    let mut script = Script::new();
    script.ready();
    assert_eq!(script.input(1000, Input::Silent), ["suspect a:1", "dial 1 a:1"]);
    assert_eq!(script.timeout(1049), <[&str; 0]>::default());
    assert_eq!(script.timeout(1050), ["mute a:1"]);
    // The server only pauses: its kernel accepts, and the handshake times out.
    assert!(script.input(3000, Input::DialFailed { dial: DialId(1), refused: false }).is_empty());
    assert!(script.input(3099, Input::Silent).is_empty());
    assert_eq!(script.input(3100, Input::Silent), ["dial 2 a:1"]);
    assert_eq!(script.input(3101, Input::DialFailed { dial: DialId(2), refused: true }), ["condemn"]);
    assert_eq!(script.input(3101, Input::Lost), ["reconnecting 0", "dial 3 a:1"]);
}

#[test]
fn a_silent_peer_that_takes_new_connections_is_not_mute() {
    let mut script = Script::new();
    script.ready();
    assert_eq!(script.input(1000, Input::Silent), ["suspect a:1", "dial 1 a:1"]);
    assert_eq!(script.input(1010, Input::Dialed(DialId(1))), ["discard 1"]);
    assert_eq!(script.timeout(1060), <[&str; 0]>::default());
    // Asked again in a while; now it stands still, and then goes on.
    assert!(script.input(1109, Input::Silent).is_empty());
    assert_eq!(script.input(1110, Input::Silent), ["dial 2 a:1"]);
    assert_eq!(script.timeout(1160), ["mute a:1"]);
    assert!(script.machine.is_mute());
    assert_eq!(script.input(1200, Input::Dialed(DialId(2))), ["discard 2"]);
    assert!(!script.machine.is_mute());
    assert!(script.input(1201, Input::Heard).is_empty());
    assert_eq!(script.input(3000, Input::Silent), ["suspect a:1", "dial 3 a:1"]);
    assert_eq!(script.input(3001, Input::Lost), ["discard 3", "reconnecting 0", "dial 4 a:1"]);
    assert_eq!(script.machine.poll_timeout(), None);
}

#[test]
fn a_peer_that_falls_silent_again_while_the_probe_is_under_way_is_suspect_again() {
    let mut script = Script::new();
    script.ready();
    assert_eq!(script.input(1000, Input::Silent), ["suspect a:1", "dial 1 a:1"]);
    assert!(script.input(1010, Input::Heard).is_empty());
    assert_eq!(script.next(), None);
    assert_eq!(script.input(2010, Input::Silent), ["suspect a:1"]);
    assert_eq!(script.timeout(2060), ["mute a:1"]);
}

#[test]
fn a_move_helps_a_lane_that_is_down() {
    let mut script = Script::new();
    assert_eq!(script.input(0, Input::DialFailed { dial: DialId(0), refused: true }), ["reconnecting 1"]);
    let mut request = script.request(9, 0, 1000);
    request.for_good = true;
    assert_eq!(script.input(1, Input::Move(request)), ["dial 1 b:1"]);
    assert_eq!(
        script.input(2, Input::Dialed(DialId(1))),
        ["adopt 1", "connected again=false b:1", "moved 9"]
    );
}

#[test]
fn a_closed_lane_lets_everything_go() {
    let mut script = Script::new();
    assert_eq!(script.input(0, Input::Close), ["discard 0"]);
    assert_eq!(script.input(1, Input::Dialed(DialId(0))), ["discard 0"]);
    assert_eq!(script.next(), None);
}
