//! The defects that other clients fixed or still have, as far as they can concern an engine, one test each.
//!
//! `defect_NN` are races and bugs that were fixed in other clients, `visible_NN` those that their code shows; the numbers
//! are those of the project's list.

use super::*;
use crate::{EndpointType, Mode, OptIn, OptInReply, OptInVerdict, Refusals};

const YES: OptInReply<'_> = OptInReply::Accepted;
const NO: OptInReply<'_> = OptInReply::Refused("ERR unknown subcommand");

fn moves_of(script: &Script) -> usize {
    script.moves().len()
}

#[test]
fn defect_01_a_result_that_beats_its_bookkeeping_wedges_nothing() {
    let mut script = Script::open(1);
    // Answers to questions that were not asked yet, or are not asked any more.
    script.failed(0, 1, MoveError::Unreachable);
    script.hear(0, &at(1, OLD), moving(1, 15, Some(NEW)));
    script.failed(0, 1, MoveError::Unreachable);
    script.until(500);
    assert_eq!(moves_of(&script), 1);
    script.switched(501, 1, moved(2, NEW));
    script.failed(502, 1, MoveError::Unreachable);
    script.failed(502, 2, MoveError::Unreachable);
    script.until(1_000);
    assert_eq!(moves_of(&script), 1);
    // The successor moves like any other connection.
    script.hear(1_000, &moved(2, NEW), moving(2, 15, Some(OLD)));
    script.until(1_600);
    assert_eq!(script.moved_to().last(), Some(&(2, OLD.into())));
}

#[test]
fn defect_04_an_acceptance_promotes_nobody_else() {
    let mut refusals = Refusals::default();
    let now = origin();
    assert_eq!(refusals.judge(now, Mode::Auto, &ep("a:1"), Protocol::Resp3, YES), OptInVerdict::Accepted);
    assert_eq!(refusals.judge(now, Mode::Auto, &ep("b:1"), Protocol::Resp3, NO), OptInVerdict::Quiet);
}

#[test]
fn defect_05_a_refusal_concerns_one_server_and_leaves_standing_connections_alone() {
    let mut refusals = Refusals::default();
    let now = origin();
    refusals.judge(now, Mode::Auto, &ep("a:1"), Protocol::Resp3, YES);
    refusals.judge(now, Mode::Auto, &ep("b:1"), Protocol::Resp3, NO);
    assert_eq!(refusals.decide(now, Mode::Auto, &ep("a:1")), OptIn::Ask);
    assert_eq!(refusals.decide(now, Mode::Auto, &ep("b:1")), OptIn::Skip);
}

#[test]
fn defect_06_an_acceptance_over_resp2_is_none() {
    let mut refusals = Refusals::default();
    let verdict = refusals.judge(origin(), Mode::Auto, &ep("a:1"), Protocol::Resp2, YES);
    assert_eq!(verdict, OptInVerdict::Quiet);
}

#[test]
fn defect_09_a_worker_is_freed_once() {
    let mut script = Script::with(Config::new(), Sizes { workers: 2, queue: 50 });
    for conn in 1..=10 {
        script.input(0, Input::Opened { origin: at(conn, OLD) });
    }
    script.hear(0, &at(1, OLD), moving(1, 15, Some(NEW)));
    script.until(500);
    assert_eq!(moves_of(&script), 2);
    // One connection ends in every way at once: one worker is free, not four.
    script.failed(510, 1, MoveError::Closed);
    script.failed(510, 1, MoveError::Closed);
    script.closed(510, 1);
    script.closed(510, 1);
    assert_eq!(moves_of(&script), 3);
    script.switched(520, 2, moved(102, NEW));
    script.switched(520, 2, moved(102, NEW));
    script.closed(520, 2);
    assert_eq!(moves_of(&script), 4);
}

#[test]
fn defect_14_the_endpoint_type_is_decided_without_a_lookup() {
    let peer = Some(ip("10.1.2.3"));
    assert_eq!(EndpointType::Auto.resolve("never.resolves.invalid", peer, false), EndpointType::InternalIp);
    // Not even looked at when it is given.
    assert_eq!(EndpointType::ExternalIp.resolve("", None, true), EndpointType::ExternalIp);
}

#[test]
fn defect_15_a_failure_is_charged_to_its_own_endpoint() {
    let mut script = Script::open(1);
    let other = Origin::new(ConnId(9), ep("other.test:6379"), Some("10.0.1.1:6379".parse().unwrap()));
    script.input(0, Input::Opened { origin: other.clone() });
    script.hear(0, &at(1, OLD), moving(1, 15, Some(NEW)));
    script.hear(0, &other, moving(1, 15, Some("10.0.1.2:6379")));
    script.until(800);
    script.failed(800, 9, MoveError::Auth);
    script.switched(801, 1, moved(2, NEW));
    assert_eq!(script.redirects(), [(Some(OLD.parse().unwrap()), ep(NEW))]);
    assert_eq!(script.engine.handoffs_in_progress(), 1);
}

#[test]
fn defect_16_waiting_costs_one_timer_however_often_it_is_announced() {
    let mut script = Script::open(1);
    script.hear(0, &at(1, OLD), moving(1, 15, None));
    let once = script.engine.footprint();
    for _ in 0..1_000 {
        script.hear(0, &at(1, OLD), moving(1, 15, None));
    }
    assert_eq!(script.engine.footprint(), once);
    script.until(15_000);
    assert_eq!(moves_of(&script), 1);
}

#[test]
fn defect_17_the_configured_name_is_never_forgotten() {
    let mut script = Script::open(1);
    script.hear(0, &at(1, OLD), moving(1, 2, Some(NEW)));
    script.until(300);
    script.switched(300, 1, moved(2, NEW));
    script.until(30_000);
    // Long after, an announcement without an address leads back to the name, not to the last target.
    script.hear(30_000, &moved(2, NEW), moving(2, 2, None));
    script.until(31_000);
    assert_eq!(script.moved_to().last(), Some(&(2, NAME.into())));
}

#[test]
fn defect_20_what_concerns_a_closed_connection_does_no_harm() {
    let mut script = Script::open(1);
    script.closed(0, 1);
    script.hear(0, &at(1, OLD), moving(1, 2, Some(NEW)));
    script.switched(10, 1, moved(2, NEW));
    script.closed(10, 1);
    script.until(60_000);
    assert_eq!(moves_of(&script), 0);
    assert!(script.engine.metrics().relaxed_now.values().all(|open| *open == 0));
}

#[test]
fn defect_22_slots_move_before_anything_is_asked() {
    let mut script = Script::open(1);
    script.hear(0, &at(1, OLD), smigrated(17, NEW, "1"));
    assert_eq!(script.count(|action| matches!(action, Action::MoveSlots { .. })), 1);
    assert_eq!(script.count(|action| matches!(action, Action::VerifyTopology)), 0);
}

#[test]
fn defect_23_a_connection_without_an_address_is_moved_too() {
    let socket = Origin::new(ConnId(1), ep("unix:/run/redis.sock"), None);
    let mut script = Script::new();
    script.input(0, Input::Opened { origin: socket.clone() });
    script.hear(0, &socket, moving(1, 2, None));
    script.until(2_000);
    assert_eq!(script.moved_to(), [(1, "unix:/run/redis.sock".into())]);
    assert_eq!(script.count(|action| matches!(action, Action::AskDns { .. })), 0);
}

#[test]
fn defect_24_nothing_stays_relaxed_or_redirected_when_everything_goes_wrong() {
    let mut script = Script::open(3);
    script.hear(0, &at(1, OLD), migrating(1, &["1"]));
    script.hear(0, &at(1, OLD), failing_over(2, &["1"]));
    script.hear(0, &at(1, OLD), smigrating(3, "1"));
    script.hear(0, &at(1, OLD), moving(4, 15, Some(NEW)));
    script.until(100);
    // Nobody answers anything, and nothing is heard again.
    script.until(1_000_000);
    assert_eq!(script.redirects(), []);
    assert_eq!(script.relaxed().last().map(|(_, what, _)| *what), Some("restore"));
    assert_eq!(script.engine.handoffs_in_progress(), 0);
    assert_eq!(script.engine.poll_timeout(), None);
}

#[test]
fn defect_29_idle_connections_are_relaxed_and_moved_at_once() {
    let mut script = Script::open(20);
    script.until(100_000);
    script.hear(100_000, &at(20, OLD), moving(1, 2, Some(NEW)));
    assert_eq!(script.relaxed(), [(100_000, "relax", Scope::Endpoint(ep(NAME)))]);
    for conn in 1..=20 {
        script.until(100_110);
        script.switched(100_110, conn, moved(100 + conn, NEW));
    }
    assert_eq!(script.engine.metrics().moved, 20);
}

#[test]
fn defect_30_a_relaxation_is_a_floor_and_a_further_one_never_lowers_it() {
    let mut script =
        Script::with(Config::new().relaxed_timeout(Duration::from_secs(7)), Sizes { workers: 1, queue: 2 });
    script.hear(0, &at(1, OLD), migrating(1, &["1"]));
    script.hear(0, &at(1, OLD), failing_over(2, &["1"]));
    script.hear(0, &at(1, OLD), moving(3, 2, Some(NEW)));
    script.hear(0, &at(1, OLD), failed_over(4, &["1"]));
    let floors: Vec<_> = script
        .log
        .iter()
        .filter_map(|(_, action)| match action {
            Action::Relax { floor, .. } => Some(*floor),
            _ => None,
        })
        .collect();
    assert!(floors.iter().all(|floor| *floor == Duration::from_secs(7)), "{floors:?}");
}

#[test]
fn defect_31_connections_that_are_still_to_be_made_are_relaxed() {
    let mut script = Script::open(1);
    script.hear(0, &at(1, OLD), failing_over(1, &["1"]));
    // The scope is the endpoint, so a handshake in the window is covered without a further word.
    assert_eq!(script.relaxed(), [(0, "relax", Scope::Endpoint(ep(NAME)))]);
    script.input(10, Input::Opened { origin: at(2, OLD) });
    assert_eq!(script.relaxed().len(), 1);
}

#[test]
fn defect_32_a_second_move_leaves_the_first_ones_redirect_and_window_in_force() {
    let (other, other_new) = ("10.0.0.8:6379", "10.0.0.9:6379");
    let mut script = Script::open(1);
    script.input(0, Input::Opened { origin: at(2, other) });
    script.hear(0, &at(1, OLD), moving(1, 10, Some(NEW)));
    script.hear(2_000, &at(2, other), moving(2, 2, Some(other_new)));
    assert_eq!(
        script.redirects(),
        [(Some(OLD.parse().unwrap()), ep(NEW)), (Some(other.parse().unwrap()), ep(other_new))]
    );
    script.until(5_000);
    assert_eq!(script.redirects(), [(Some(OLD.parse().unwrap()), ep(NEW))]);
    script.until(11_999);
    assert_eq!(script.relaxed(), [(0, "relax", Scope::Endpoint(ep(NAME)))]);
    script.until(12_000);
    assert_eq!(script.relaxed().len(), 2);
}

#[test]
fn defect_33_a_repeat_changes_nothing_at_all() {
    let mut script = Script::open(2);
    script.hear(0, &at(1, OLD), moving(1, 10, Some(NEW)));
    script.hear(0, &at(1, OLD), migrating(2, &["1"]));
    script.until(600);
    script.switched(600, 1, moved(11, NEW));
    script.switched(600, 2, moved(12, NEW));
    let done = script.log.len();
    for ms in [700, 5_000, 9_000] {
        assert_eq!(script.hear(ms, &moved(11, NEW), moving(1, 10, Some(NEW))), Outcome::Repeated);
        assert_eq!(script.hear(ms, &moved(11, NEW), migrating(2, &["1"])), Outcome::Repeated);
    }
    let acted = script.log[done..].iter().filter(|(_, action)| !matches!(action, Action::Report(_))).count();
    assert_eq!(acted, 0, "{:?}", &script.log[done..]);
    // The window ends when it would have ended.
    script.until(12_000);
    assert_eq!(script.redirects(), []);
}

#[test]
fn defect_34_a_lower_or_equal_id_is_a_new_event_once_the_old_one_is_over() {
    let mut script = Script::open(1);
    script.hear(0, &at(1, OLD), moving(9, 2, Some(NEW)));
    script.until(200);
    script.switched(200, 1, moved(2, NEW));
    // Lower, while the higher one is still known.
    assert!(matches!(
        script.hear(2_500, &moved(2, NEW), moving(3, 2, Some(OLD))),
        Outcome::HandoffStarted(_)
    ));
    script.until(2_700);
    script.switched(2_700, 2, moved(3, OLD));
    // The first identity once more, after its end.
    assert!(matches!(
        script.hear(5_000, &moved(3, OLD), moving(9, 2, Some(NEW))),
        Outcome::HandoffStarted(_)
    ));
    script.until(5_200);
    assert_eq!(script.moved_to(), [(1, NEW.into()), (2, OLD.into()), (3, NEW.into())]);
}

#[test]
fn defect_35_an_announcement_on_the_connection_that_is_being_moved_starts_nothing_again() {
    let mut script = Script::open(1);
    script.hear(0, &at(1, OLD), moving(1, 15, Some(NEW)));
    script.until(500);
    for ms in 500..600 {
        assert_eq!(script.hear(ms, &at(1, OLD), moving(1, 15, Some(NEW))), Outcome::Repeated);
    }
    assert_eq!(moves_of(&script), 1);
}

#[test]
fn defect_36_an_end_is_no_repeat_of_its_start_and_closes_only_what_it_covers() {
    let mut script = Script::open(1);
    script.hear(0, &at(1, OLD), smigrating(16, "1-10"));
    script.hear(0, &at(1, OLD), smigrating(17, "100-110"));
    // The same id as a start, and the same slots.
    assert_eq!(script.hear(10, &at(1, OLD), smigrated(17, NEW, "1-10")), Outcome::SlotsMoved);
    assert_eq!(script.relaxed().len(), 1);
    assert_eq!(script.hear(20, &at(1, OLD), smigrated(18, NEW, "100-110")), Outcome::SlotsMoved);
    assert_eq!(script.relaxed().last(), Some(&(20, "restore", Scope::Endpoint(ep(NAME)))));
}

#[test]
fn defect_37_one_announcement_moves_a_connection_once_however_often_it_is_told() {
    let mut script = Script::open(1);
    script.hear(0, &at(1, OLD), moving(1, 15, Some(NEW)));
    script.until(500);
    script.switched(500, 1, moved(2, NEW));
    for n in 0..12 {
        script.hear_as(600 + n * 1_000, &moved(2, NEW), n == 0, moving(1, 15 - n, Some(NEW)));
    }
    script.until(60_000);
    assert_eq!(moves_of(&script), 1);
    // And at most twice where nobody could say where to go.
    let mut script = Script::open(1);
    script.hear(0, &at(1, OLD), moving(1, 15, None));
    let mut conn = 1;
    for ms in (100..20_000).step_by(100) {
        script.hear(ms, &at(conn, OLD), moving(1, 1, None));
        let under_way = moves_of(&script) as u64 == conn;
        let quiet = script.moves().last().is_some_and(|(.., to)| to.ends_with("quietly"));
        // A quiet one is dialled at the close.
        if under_way && (!quiet || ms >= 15_000) {
            script.switched(ms, conn, at(conn + 1, OLD));
            conn += 1;
        }
    }
    assert_eq!(moves_of(&script), 2);
}

#[test]
fn defect_38_a_name_that_still_leads_to_the_old_server_is_not_taken_for_the_new_one() {
    let mut script = Script::open(1);
    script.hear(0, &at(1, OLD), moving(1, 15, None));
    for second in 0..7 {
        let answer = Input::DnsAnswer { name: "cache.test".into(), addresses: vec![ip("10.0.0.1")] };
        script.input(second * 1_000, answer);
    }
    assert_eq!(moves_of(&script), 0);
    let answer = Input::DnsAnswer { name: "cache.test".into(), addresses: vec![ip("10.0.0.2")] };
    script.input(7_000, answer);
    assert_eq!(script.moves(), [(7_000, 1, format!("{NAME} at 10.0.0.2"))]);
}

#[test]
fn defect_39_ten_slot_changes_ask_for_one_look_at_the_topology() {
    let mut script = Script::open(1);
    for seq in 0..10 {
        script.hear(seq, &at(1, OLD), smigrated(seq, NEW, &seq.to_string()));
    }
    script.until(500);
    assert_eq!(script.count(|action| matches!(action, Action::VerifyTopology)), 1);
    assert_eq!(script.count(|action| matches!(action, Action::MoveSlots { .. })), 10);
}

#[test]
fn defect_41_zero_is_an_id_like_any_other() {
    let mut script = Script::open(1);
    assert!(matches!(script.hear(0, &at(1, OLD), moving(0, 15, Some(NEW))), Outcome::HandoffStarted(_)));
    assert_eq!(script.hear(0, &at(1, OLD), moving(0, 15, Some(NEW))), Outcome::Repeated);
    assert_eq!(script.hear(0, &at(1, OLD), migrating(0, &["1"])), Outcome::Relaxed);
    assert_eq!(script.hear(0, &at(1, OLD), migrating(0, &["1"])), Outcome::Repeated);
}

#[test]
fn defect_42_failed_dials_ask_for_a_look_at_the_topology_but_not_each_of_them() {
    let mut script = Script::new();
    for ms in 0..100 {
        script.input(ms, Input::DialFailed { endpoint: ep("gone:1") });
    }
    script.until(10_000);
    let looks = script.count(|action| matches!(action, Action::VerifyTopology));
    assert!((1..=2).contains(&looks), "{looks}");
    // Two failures and a success are nothing.
    let mut script = Script::new();
    for round in 0..10 {
        script.input(round * 10, Input::DialFailed { endpoint: ep(NAME) });
        script.input(round * 10 + 1, Input::DialFailed { endpoint: ep(NAME) });
        script.input(round * 10 + 2, Input::Opened { origin: at(round, OLD) });
    }
    script.until(10_000);
    assert_eq!(script.count(|action| matches!(action, Action::VerifyTopology)), 0);
}

#[test]
fn visible_01_a_breaker_that_opened_lets_real_calls_through_again() {
    let config = Config::new().max_handoff_retries(10);
    let mut script = Script::with(config, Sizes { workers: 8, queue: 85 });
    script.input(0, Input::Opened { origin: at(1, OLD) });
    script.hear(0, &at(1, OLD), moving(1, 15, Some(NEW)));
    let mut answered = 0;
    while script.now < 11_000 {
        script.until(script.now + 10);
        if moves_of(&script) > answered {
            answered = moves_of(&script);
            script.failed(script.now, 1, MoveError::Unreachable);
        }
    }
    assert_eq!((moves_of(&script), script.engine.metrics().breaker_opened), (5, 1));
    // Open: the next announcement of that target goes by the name.
    script.until(30_000);
    script.hear(30_000, &at(1, OLD), moving(2, 2, Some(NEW)));
    script.until(40_000);
    assert!(script.moved_to()[5..].iter().all(|(_, to)| to.starts_with(NAME)), "{:?}", script.moves());
    script.failed(40_000, 1, MoveError::Unreachable);
    // Its time is over: a real call goes there, and works.
    script.hear(80_000, &at(1, OLD), moving(3, 2, Some(NEW)));
    script.until(80_200);
    assert_eq!(script.moved_to().last(), Some(&(1, NEW.into())));
    script.switched(80_200, 1, moved(2, NEW));
    assert_eq!(script.engine.metrics().moved, 1);
}

#[test]
fn visible_02_nothing_is_in_progress_after_a_success() {
    let mut script = Script::open(1);
    script.hear(0, &at(1, OLD), moving(1, 2, Some(NEW)));
    assert_eq!(script.engine.handoffs_in_progress(), 1);
    script.until(200);
    script.switched(200, 1, moved(2, NEW));
    assert_eq!(script.engine.handoffs_in_progress(), 0);
}

#[test]
fn visible_05_the_end_of_one_window_leaves_an_overlapping_one_open() {
    let mut script = Script::open(1);
    script.hear(0, &at(1, OLD), migrating(1, &["1"]));
    script.hear(0, &at(1, OLD), migrating(2, &["2"]));
    assert_eq!(script.hear(10, &at(1, OLD), migrated(3, &["1"])), Outcome::Restored);
    assert_eq!(script.relaxed().len(), 1);
    // An end that is older than the window is not its end, even of the same shard.
    script.hear(20, &at(1, OLD), migrating(9, &["1"]));
    assert_eq!(script.hear(30, &at(1, OLD), migrated(4, &["2"])), Outcome::Restored);
    script.hear(40, &at(1, OLD), migrated(8, &["1"]));
    assert_eq!(script.relaxed().len(), 1);
    assert_eq!(script.hear(50, &at(1, OLD), migrated(10, &["1"])), Outcome::Restored);
    assert_eq!(script.relaxed().len(), 2);
}

#[test]
fn visible_06_a_lost_end_is_made_up_for() {
    let mut script = Script::open(1);
    script.hear(0, &at(1, OLD), migrating(1, &["1"]));
    script.until(602_000);
    assert_eq!(script.relaxed().last(), Some(&(602_000, "restore", Scope::Endpoint(ep(NAME)))));
    assert_eq!(script.engine.metrics().windows_expired, 1);
}

#[test]
fn visible_07_half_of_a_short_grace_is_not_zero() {
    let mut script = Script::open(1);
    script.hear(0, &at(1, OLD), moving(1, 1, None));
    script.until(1_000);
    let (ms, ..) = script.moves()[0];
    assert!((450..=500).contains(&ms), "{ms}");
}

#[test]
fn visible_09_nothing_grows_with_the_number_of_announcements() {
    let mut script = Script::open(2);
    let mut seq = 0;
    let mut most = 0;
    let mut hear = |script: &mut Script, notice: fn(u64) -> Notice| {
        seq += 1;
        let ms = script.now;
        script.hear(ms, &at(1, OLD), notice(seq));
        script.log.clear();
    };
    for _ in 0..5_000 {
        hear(&mut script, |seq| smigrated(seq, NEW, "1-100"));
        hear(&mut script, |seq| smigrating(seq, "5"));
        hear(&mut script, |seq| migrating(seq, &[&seq.to_string()]));
        hear(&mut script, |seq| moving(seq, 15, Some(&format!("t{seq}:1"))));
        hear(&mut script, |seq| failed_over(seq, &["1"]));
        most = most.max(script.engine.footprint());
    }
    assert!(most < 3_000, "{most}");
}

#[test]
fn visible_11_the_port_of_the_target_counts() {
    let mut script = Script::open(1);
    script.hear(0, &at(1, OLD), moving(1, 2, Some("10.0.0.1:7777")));
    script.until(200);
    assert_eq!(script.moved_to(), [(1, "10.0.0.1:7777".into())]);
    // Same address, other port: another server, which the announcement does not concern.
    script.switched(200, 1, moved(2, "10.0.0.1:7777"));
    script.until(2_000);
    assert_eq!(moves_of(&script), 1);
}

#[test]
fn visible_13_ipv6_targets_are_dialled_as_they_are() {
    let mut script = Script::open(1);
    script.hear(0, &at(1, OLD), moving(1, 2, Some("[2001:db8::2]:6380")));
    script.until(200);
    assert_eq!(script.moved_to(), [(1, "[2001:db8::2]:6380".into())]);
}

#[test]
fn replays_that_a_server_retains_open_no_tail_and_close_no_window() {
    let mut script = Script::open(1);
    // A window is open; a new connection hears of the end before last, and of it again when it is ready.
    script.hear(0, &at(1, OLD), failing_over(41, &["1"]));
    for (during_handshake, ms) in [(true, 100), (false, 110)] {
        let heard = script.hear_as(ms, &at(7, OLD), during_handshake, failed_over(40, &["1"]));
        assert!(matches!(heard, Outcome::Replayed | Outcome::Repeated), "{heard:?}");
    }
    assert_eq!(script.relaxed(), [(0, "relax", Scope::Endpoint(ep(NAME)))]);
    // Without an id it cannot be told from a repeat, so a handshake's word is not enough.
    let unnumbered = Notice::FailedOver { seq: None, shards: shards(&["1"]) };
    assert_eq!(script.hear_as(120, &at(8, OLD), true, unnumbered), Outcome::Replayed);
    assert_eq!(script.relaxed().len(), 1);
    // A retained MIGRATED does not start to watch the name.
    assert_eq!(script.hear_as(130, &at(9, OLD), true, migrated(7, &["1"])), Outcome::Replayed);
    script.until(60_000);
    assert_eq!(script.count(|action| matches!(action, Action::AskDns { .. })), 0);
}
