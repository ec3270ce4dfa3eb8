//! MOVING, drains and topology handoffs.

use super::*;

#[test]
fn one_announcement_moves_every_connection_of_the_endpoint_within_the_jitter() {
    let mut script = Script::open(3);
    assert!(matches!(script.hear(0, &at(2, OLD), moving(1, 15, Some(NEW))), Outcome::HandoffStarted(_)));
    script.until(500);
    // One goes ahead, and all others at once when it has arrived, after one jitter.
    let first = script.moves()[0].0;
    assert_eq!(script.moves()[0], (first, 1, NEW.into()));
    let mut script = Script::open(3);
    script.hear(0, &at(2, OLD), moving(1, 15, Some(NEW)));
    script.until(first + 1);
    assert_eq!(script.moved_to(), [(1, NEW.into())]);
    script.switched(first + 2, 1, moved(9, NEW));
    assert_eq!(script.moves()[1..], [(first + 2, 2, NEW.into()), (first + 2, 3, NEW.into())]);
}

#[test]
fn a_dead_target_is_met_by_one_connection_and_not_by_all() {
    let mut script = Script::open(8);
    script.hear(0, &at(2, OLD), moving(1, 3, Some(NEW)));
    let mut answered = 0;
    while script.now < 2_000 {
        script.until(script.now + 1);
        let to_target: Vec<_> = script.moves().iter().filter(|(.., to)| to == NEW).cloned().collect();
        if to_target.len() > answered {
            answered = to_target.len();
            script.failed(script.now, to_target[answered - 1].1, MoveError::Unreachable);
        }
    }
    assert!(answered <= 4, "{:?}", script.moves());
    // All go by the name when it is likely to be right, one ahead of the others.
    script.until(2_351);
    let by_name = script.moves().iter().filter(|(.., to)| to == NAME).count();
    assert_eq!(by_name, 8, "{:?}", script.moves());
}

#[test]
fn a_target_that_does_not_answer_holds_the_others_up_for_a_moment_only() {
    let mut script = Script::open(3);
    script.hear(0, &at(2, OLD), moving(1, 15, Some(NEW)));
    while script.moves().is_empty() {
        script.until(script.now + 1);
    }
    let first = script.now;
    script.until(first + 98);
    assert_eq!(script.moves().len(), 1);
    script.until(first + 101);
    assert_eq!(script.moves().len(), 3);
}

#[test]
fn the_jitter_is_a_fraction_of_the_grace() {
    for (grace, most) in [(1, 50), (3, 150), (10, 500), (600, 500)] {
        let mut script = Script::open(1);
        script.hear(0, &at(1, OLD), moving(1, grace, Some(NEW)));
        script.until(grace * 1_000);
        assert!(script.moves()[0].0 <= most, "grace {grace} s: {:?}", script.moves());
    }
}

#[test]
fn dials_go_to_the_target_until_the_window_ends_and_then_by_the_name_again() {
    let mut script = Script::open(1);
    script.hear(0, &at(1, OLD), moving(1, 15, Some(NEW)));
    assert_eq!(script.redirects(), [(Some(OLD.parse().unwrap()), ep(NEW))]);
    script.until(14_999);
    assert_eq!(script.redirects().len(), 1);
    script.until(15_000);
    assert_eq!(script.redirects(), []);
}

#[test]
fn other_proxies_behind_the_name_stay_where_they_are() {
    let mut script = Script::open(1);
    script.input(0, Input::Opened { origin: at(2, "10.0.0.9:6379") });
    script.input(
        0,
        Input::Opened { origin: Origin::new(ConnId(3), ep("other:6379"), Some(OLD.parse().unwrap())) },
    );
    script.hear(0, &at(1, OLD), moving(1, 15, Some(NEW)));
    script.until(20_000);
    assert_eq!(script.moved_to()[0], (1, NEW.into()));
    assert!(script.moves().iter().all(|(_, conn, _)| *conn == 1), "{:?}", script.moves());
}

#[test]
fn a_dial_under_way_is_looked_at_again_when_it_arrives() {
    let mut script = Script::open(1);
    script.hear(0, &at(1, OLD), moving(1, 15, Some(NEW)));
    script.until(600);
    script.switched(610, 1, moved(10, NEW));
    script.input(700, Input::Opened { origin: at(2, OLD) });
    script.input(700, Input::Opened { origin: moved(3, NEW) });
    script.until(800);
    assert_eq!(script.moved_to(), [(1, NEW.into()), (2, NEW.into())]);
}

#[test]
fn a_connection_told_in_its_handshake_moves_when_it_is_ready() {
    let mut script = Script::new();
    // Another proxy address behind the same name, so that only the server's own word concerns it.
    let late = at(5, "10.0.0.7:6379");
    script.input(0, Input::Opened { origin: at(1, OLD) });
    script.hear(0, &at(1, OLD), moving(1, 15, Some(NEW)));
    assert!(matches!(script.hear_as(1_000, &late, true, moving(1, 14, Some(NEW))), Outcome::Joined(_)));
    script.until(1_100);
    assert_eq!(script.moves().len(), 1);
    script.input(1_200, Input::Opened { origin: late });
    assert_eq!(script.moves().last(), Some(&(1_200, 5, NEW.into())));
}

#[test]
fn retries_come_soon_and_inside_the_grace() {
    let mut script = Script::open(1);
    script.hear(0, &at(1, OLD), moving(1, 15, Some(NEW)));
    script.until(500);
    let first = script.moves()[0].0;
    for wait in [0, 70, 140] {
        script.failed(script.now + wait, 1, MoveError::NotReady);
    }
    script.until(1_500);
    script.switched(1_500, 1, moved(2, NEW));
    assert_eq!(script.moved_to(), [(1, NEW.into()), (1, NEW.into()), (1, NEW.into()), (1, NEW.into())]);
    assert!(script.moves()[3].0 - first < 1_000, "{:?}", script.moves());
    assert_eq!(
        script.events(|event| matches!(event, Event::HandoffFinished { moved: 1, abandoned: 0, .. })),
        1
    );
}

#[test]
fn a_dead_target_ends_in_the_configured_name() {
    let mut script = Script::open(1);
    script.hear(0, &at(1, OLD), moving(1, 3, Some(NEW)));
    while script.now < 3_000 {
        script.until(script.now + 1);
        if script.moves().len()
            > script.engine.metrics().failures.get(&MoveError::Unreachable).copied().unwrap_or(0) as usize
        {
            if script.moves().last().unwrap().2 == NAME {
                break;
            }
            script.failed(script.now, 1, MoveError::Unreachable);
        }
    }
    assert_eq!(
        script.moved_to(),
        [(1, NEW.into()), (1, NEW.into()), (1, NEW.into()), (1, NEW.into()), (1, NAME.into())]
    );
    assert_eq!(script.now, 2_250);
    // Nobody is sent to the dead target any more.
    assert_eq!(script.redirects(), []);
    script.switched(2_260, 1, at(2, "10.0.0.3:6379"));
    script.until(30_000);
    assert_eq!(script.engine.metrics().abandoned, 0);
}

#[test]
fn a_target_that_refuses_our_password_is_not_tried_again() {
    let mut script = Script::open(2);
    script.hear(0, &at(1, OLD), moving(1, 10, Some(NEW)));
    script.until(500);
    script.failed(500, 1, MoveError::Auth);
    script.failed(500, 2, MoveError::Auth);
    script.until(7_499);
    assert_eq!(script.moves().len(), 2);
    script.until(7_601);
    assert_eq!(script.moved_to()[2..], [(1, NAME.into()), (2, NAME.into())]);
}

#[test]
fn a_full_target_gets_fewer_at_a_time_and_then_one_out_one_in() {
    let mut script = Script::open(8);
    script.hear(0, &at(1, OLD), moving(1, 10, Some(NEW)));
    script.until(500);
    assert_eq!(script.moves().len(), 8);
    let mut answered = 0;
    while script.now < 9_400 {
        let last = script.moves();
        for (_, conn, to) in last.iter().skip(answered) {
            if to.contains("in place") {
                script.switched(script.now, *conn, moved(100 + conn, NEW));
            } else {
                script.failed(script.now, *conn, MoveError::Full);
            }
        }
        answered = last.len();
        script.until(script.now + 10);
    }
    let in_place: Vec<_> = script.moves().into_iter().filter(|(.., to)| to.contains("in place")).collect();
    assert_eq!(in_place.len(), 8, "{:?}", script.moves());
    assert!(in_place.iter().all(|(ms, ..)| *ms >= 7_500), "{in_place:?}");
    assert_eq!(script.engine.metrics().moved, 8);
    assert_eq!(script.engine.metrics().breaker_opened, 0);
}

#[test]
fn no_more_dials_at_once_than_workers_and_no_more_waiting_than_the_queue() {
    let mut script = Script::with(Config::new(), Sizes { workers: 2, queue: 5 });
    for conn in 1..=10 {
        script.input(0, Input::Opened { origin: at(conn, OLD) });
    }
    script.hear(0, &at(10, OLD), moving(1, 15, Some(NEW)));
    script.until(500);
    // The connection that was told is never the one left out.
    assert_eq!(script.moved_to(), [(1, NEW.into()), (2, NEW.into())]);
    assert_eq!(script.engine.metrics().queue_full, 3);
    assert_eq!(script.engine.metrics().queue_depth, 5);
    for conn in [1, 2, 3, 4, 5, 6] {
        script.switched(600, conn, moved(100 + conn, NEW));
    }
    assert_eq!(script.moved_to().last(), Some(&(10, NEW.into())));
}

#[test]
fn the_end_is_told_once_however_many_join_late() {
    let mut script = Script::open(2);
    script.hear(0, &at(1, OLD), moving(1, 15, Some(NEW)));
    script.until(700);
    script.switched(700, 1, moved(11, NEW));
    script.switched(700, 2, moved(12, NEW));
    let ends = |script: &Script| script.events(|event| matches!(event, Event::HandoffFinished { .. }));
    assert_eq!(ends(&script), 1);
    // Leases that were being dialled when the server spoke.
    for conn in [3, 4] {
        script.input(800 + conn, Input::Opened { origin: at(conn, OLD) });
        script.switched(850 + conn, conn, moved(20 + conn, NEW));
    }
    script.until(60_000);
    assert_eq!(ends(&script), 1);
    assert_eq!(script.events(|event| matches!(event, Event::ConnMoved { .. })), 4);
}

#[test]
fn the_grace_runs_from_when_the_announcement_came() {
    let mut script = Script::open(1);
    script.until(1_040);
    // A slow hook held it for 40 ms.
    let (origin, received_at) = (at(1, OLD), Some(script.instant(1_000)));
    let notice = moving(1, 1, None);
    script.input(1_040, Input::Notice { origin, during_handshake: false, received_at, notice });
    let closes = script.log.iter().find_map(|(_, action)| match action {
        Action::Report(Event::HandoffStarted { closes_at, .. }) => Some(*closes_at),
        _ => None,
    });
    assert_eq!(closes, Some(script.instant(2_000)));
}

#[test]
fn told_again_after_the_move_it_falls_silent_just_before_the_close() {
    let mut script = Script::open(1);
    script.hear(0, &at(1, OLD), moving(1, 3, None));
    script.until(1_500);
    // The name still leads to the retiring server, which says so while the new connection is being made.
    script.hear_as(1_501, &at(2, OLD), true, moving(1, 2, None));
    script.switched(1_502, 1, at(2, OLD));
    script.closed(1_503, 1);
    script.until(2_849);
    assert_eq!(script.moves().len(), 1);
    // Told when it is too late for guesses, so that what is blocked there can be ended before the silence.
    script.until(2_850);
    assert_eq!(script.moves().last(), Some(&(2_850, 2, format!("{NAME} quietly"))));
    let Some(Action::Move(last)) =
        script.log.iter().rev().map(|(_, action)| action).find(|action| matches!(action, Action::Move(_)))
    else {
        panic!()
    };
    assert_eq!(
        last.style,
        MoveStyle::Quiet { hush_at: script.instant(2_990), dial_at: script.instant(3_010) }
    );
    script.switched(3_002, 2, at(3, NEW));
    script.until(30_000);
    assert_eq!(script.moves().len(), 2);
    assert_eq!(script.engine.metrics().abandoned, 0);
}

#[test]
fn an_attempt_that_nobody_answers_is_given_up_before_the_close() {
    let mut script = Script::open(1);
    script.hear(0, &at(1, OLD), moving(1, 3, Some(NEW)));
    script.until(2_989);
    assert_eq!(script.engine.handoffs_in_progress(), 1);
    script.until(2_990);
    assert_eq!(script.engine.handoffs_in_progress(), 0);
    assert_eq!(script.engine.metrics().deadline_misses, 1);
    // A success that comes too late is taken all the same.
    script.switched(2_995, 1, moved(2, NEW));
    assert_eq!(script.engine.metrics().moved, 1);
}

#[test]
fn a_topology_handoff_goes_at_once_and_only_to_its_target() {
    let mut script = Script::new();
    script.input(0, Input::Opened { origin: Origin::new(ConnId(1), ep(OLD), Some(OLD.parse().unwrap())) });
    let deadline = script.instant(3_000);
    for _ in 0..3 {
        script.input(0, Input::TopologyHandoff { from: ep(OLD), to: ep(NEW), deadline });
    }
    assert_eq!(script.moves(), [(0, 1, NEW.into())]);
    for _ in 0..4 {
        script.failed(script.now + 1, 1, MoveError::Unreachable);
        script.until(script.now + 600);
    }
    script.until(10_000);
    assert!(script.moves().iter().all(|(.., to)| to.starts_with(NEW)), "{:?}", script.moves());
}

#[test]
fn shutdown_leaves_nothing_open() {
    let mut script = Script::open(2);
    script.hear(0, &at(1, OLD), migrating(9, &[]));
    script.hear(0, &at(1, OLD), moving(10, 15, Some(NEW)));
    script.until(500);
    script.switched(500, 1, moved(3, NEW));
    script.input(600, Input::Shutdown);
    assert_eq!(script.engine.poll_timeout(), None);
    assert_eq!(script.engine.handoffs_in_progress(), 0);
    assert_eq!(script.redirects(), []);
    let relaxed = script.relaxed();
    assert_eq!(
        relaxed
            .iter()
            .filter(|(_, what, _)| *what == "relax")
            .map(|(.., scope)| scope)
            .collect::<std::collections::BTreeSet<_>>(),
        relaxed.iter().filter(|(_, what, _)| *what == "restore").map(|(.., scope)| scope).collect(),
    );
    assert!(script.engine.metrics().relaxed_now.values().all(|open| *open == 0));
    // Deaf from here on.
    script.input(700, Input::Opened { origin: at(9, OLD) });
    assert_eq!(script.engine.poll_timeout(), None);
}

#[test]
fn a_probe_whose_connection_is_lost_does_not_keep_the_breaker_waiting() {
    let config = Config::new().circuit_breaker_failure_threshold(1).circuit_breaker_max_requests(1);
    let mut script = Script::with(config, Sizes { workers: 8, queue: 85 });
    script.input(0, Input::Opened { origin: at(1, OLD) });
    script.input(0, Input::Opened { origin: at(2, OLD) });
    script.hear(0, &at(1, OLD), moving(1, 1, Some(NEW)));
    script.until(100);
    script.failed(100, 1, MoveError::Unreachable);
    script.failed(100, 2, MoveError::Unreachable);
    script.until(100_000);
    script.failed(100_000, 1, MoveError::Unreachable);
    script.failed(100_000, 2, MoveError::Unreachable);
    let before = script.moves().len();
    // Half-open: one probe goes, the other connection waits for its result, which never comes.
    script.hear(100_000, &at(1, OLD), moving(2, 10, Some(NEW)));
    script.until(101_000);
    assert_eq!(script.moved_to()[before..], [(1, NEW.into())]);
    script.closed(101_000, 1);
    assert_eq!(script.moved_to()[before + 1..], [(2, NEW.into())]);
}

#[test]
fn a_target_that_retires_itself_is_replaced_by_its_own_target() {
    const LAST: &str = "10.0.0.3:6379";
    let mut script = Script::open(1);
    script.input(0, Input::Opened { origin: moved(7, NEW) });
    script.hear(0, &at(1, OLD), moving(1, 15, Some(NEW)));
    script.hear(0, &moved(7, NEW), moving(2, 15, Some(LAST)));
    script.until(600);
    assert!(script.moved_to().iter().all(|(_, to)| to == LAST), "{:?}", script.moves());
    assert_eq!(script.moved_to().len(), 2, "{:?}", script.moves());
}

#[test]
fn a_server_that_is_a_target_again_does_not_retire_any_more() {
    let mut script = Script::open(1);
    script.hear(0, &at(1, OLD), moving(1, 15, Some(NEW)));
    script.until(600);
    script.switched(601, 1, moved(2, NEW));
    script.hear(1_000, &moved(2, NEW), moving(2, 15, Some(OLD)));
    script.until(1_600);
    script.switched(1_601, 2, moved(3, OLD));
    let before = script.moves().len();
    script.input(1_700, Input::Opened { origin: at(4, OLD) });
    script.until(14_000);
    assert_eq!(script.moves().len(), before, "{:?}", script.moves());
}

#[test]
fn with_no_time_left_the_name_is_dialled_at_once() {
    let mut script = Script::open(1);
    assert!(matches!(script.hear(0, &at(1, OLD), moving(1, 0, None)), Outcome::HandoffStarted(_)));
    script.until(51);
    assert_eq!(script.moved_to(), [(1, NAME.into())]);
}

#[test]
fn an_address_that_dns_names_again_has_not_vanished() {
    let mut script = Script::open(1);
    script.hear(5_000, &at(1, OLD), migrating(1, &["1"]));
    script.hear(10_000, &at(1, OLD), migrated(2, &["1"]));
    let answer = |to: &str| Input::DnsAnswer { name: "cache.test".into(), addresses: vec![ip(to)] };
    script.input(10_010, answer(OLD.trim_end_matches(":6379")));
    for ms in [12_010, 14_010, 16_010] {
        script.input(ms, answer("10.0.0.9"));
    }
    script.until(16_500);
    assert_eq!(script.moves().len(), 1, "{:?}", script.moves());
    script.switched(16_510, 1, at(2, "10.0.0.9:6379"));
    // It was there for a moment only: the way back is the way out.
    script.hear(17_000, &at(2, "10.0.0.9:6379"), moving(3, 15, None));
    script.input(18_000, answer("10.0.0.1"));
    script.until(18_001);
    let (_, conn, to) = script.moves().last().unwrap().clone();
    assert_eq!((conn, to), (2, format!("{NAME} at 10.0.0.1")));
}

#[test]
fn a_late_joiner_does_not_bring_a_target_back_that_retires_itself() {
    const THIRD: &str = "10.0.0.3:6379";
    let mut script = Script::open(2);
    script.hear(0, &at(1, OLD), moving(4, 15, Some(NEW)));
    script.until(600);
    script.switched(600, 1, moved(11, NEW));
    script.switched(610, 2, moved(12, NEW));
    script.hear(1_000, &moved(11, NEW), moving(6, 1, Some(THIRD)));
    script.until(1_060);
    assert_eq!(script.moved_to().last(), Some(&(11, THIRD.to_owned())), "one goes ahead");
    // Through the name, which still leads to the first one, as its announcement was.
    let told = script.hear_as(1_060, &at(13, OLD), true, moving(4, 14, Some(NEW)));
    assert!(matches!(told, Outcome::Joined(_)), "{told:?}");
    script.input(1_061, Input::Opened { origin: at(13, OLD) });
    script.switched(1_070, 11, moved(21, THIRD));
    script.until(1_800);
    let moves = script.moved_to();
    for conn in [12, 13] {
        assert!(moves.contains(&(conn, THIRD.to_owned())), "{conn}: {moves:?}");
    }
}

#[test]
fn the_turn_of_those_who_leave_first_is_not_slept_through() {
    let mut script = Script::with(Config::new(), Sizes { workers: 1, queue: 10 });
    script.input(0, Input::Opened { origin: at(1, OLD) });
    script.hear(0, &at(1, OLD), moving(1, 1, Some(NEW)));
    script.until(700);
    script.failed(720, 1, MoveError::Full);
    script.until(900);
    assert_eq!(script.moves().last(), Some(&(750, 1, format!("{NEW} in place"))));
}

#[test]
fn an_older_announcement_that_is_heard_late_does_not_end_a_newer_one() {
    let mut script = Script::open(2);
    script.hear(0, &at(1, OLD), moving(5, 5, None));
    // A newcomer at another server of the name hears what that one had announced before: go to the first.
    let elsewhere = at(3, "10.0.0.3:6379");
    script.hear_as(100, &elsewhere, true, moving(4, 10, Some(OLD)));
    script.input(101, Input::Opened { origin: elsewhere });
    script.until(5_000);
    let moved: Vec<u64> = script.moves().into_iter().map(|(_, conn, _)| conn).collect();
    assert!(moved.contains(&1) && moved.contains(&2), "{moved:?}");
}

#[test]
fn whoever_arrives_at_a_server_that_closes_late_leaves_for_its_target() {
    let mut script = Script::open(1);
    script.hear(0, &at(1, OLD), moving(1, 2, Some(NEW)));
    script.until(200);
    script.switched(200, 1, moved(2, NEW));
    // The name leads back to it, and it tells that no time is left.
    script.hear_as(2_200, &at(3, OLD), true, moving(1, 0, Some(NEW)));
    script.input(2_201, Input::Opened { origin: at(3, OLD) });
    script.until(2_310);
    assert_eq!(script.moves().last(), Some(&(2_201, 3, NEW.to_owned())));
}
