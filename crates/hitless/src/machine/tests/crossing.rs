//! Handoffs that meet: of one endpoint, of servers that retire in turn, of what is moved already.

use super::*;

#[test]
fn a_successor_that_is_told_of_another_move_in_its_handshake_takes_part_in_that_one() {
    let mut script = Script::open(1);
    script.hear(0, &at(1, OLD), moving(1, 3, None));
    script.until(1_500);
    // It lands on a server that is to retire as well, and is told so before it is ready.
    let landed = at(2, "10.0.0.4:6379");
    assert!(matches!(
        script.hear_as(1_510, &landed, true, moving(2, 15, Some(NEW))),
        Outcome::HandoffStarted(_)
    ));
    script.switched(1_511, 1, landed);
    script.until(2_100);
    assert_eq!(script.moved_to(), [(1, NAME.into()), (2, NEW.into())]);
}

#[test]
fn a_topology_handoff_leaves_alone_what_is_there_already() {
    let mut script = Script::new();
    let there = Origin { dialled: ep(NEW), ..Origin::new(ConnId(1), ep(OLD), Some(NEW.parse().unwrap())) };
    script.input(0, Input::Opened { origin: there });
    script.input(0, Input::Opened { origin: Origin::new(ConnId(2), ep(OLD), Some(OLD.parse().unwrap())) });
    let deadline = script.instant(3_000);
    script.input(0, Input::TopologyHandoff { from: ep(OLD), to: ep(NEW), deadline });
    assert_eq!(script.moves(), [(0, 2, NEW.into())]);
}

#[test]
fn two_handoffs_of_one_endpoint_share_its_workers() {
    let mut script = Script::with(Config::new(), Sizes { workers: 2, queue: 50 });
    let other = "10.0.0.8:6379";
    for conn in 1..=3 {
        script.input(0, Input::Opened { origin: at(conn, OLD) });
        script.input(0, Input::Opened { origin: at(10 + conn, other) });
    }
    script.hear(0, &at(1, OLD), moving(1, 5, Some(NEW)));
    script.hear(0, &at(11, other), moving(2, 5, Some("10.0.0.9:6379")));
    script.until(1_000);
    assert_eq!(script.moves().len(), 2);
    for done in 0..6 {
        let (_, conn, to) = script.moves()[done].clone();
        script.switched(1_000 + conn, conn, moved(100 + conn, &to));
        assert_eq!(script.moves().len(), (done + 3).min(6));
    }
}

#[test]
fn dials_that_were_sent_to_a_server_that_retires_in_turn_are_sent_on() {
    let third = "10.0.0.3:6379";
    let mut script = Script::open(1);
    script.hear(0, &at(1, OLD), moving(1, 15, Some(NEW)));
    script.until(1_000);
    script.switched(1_000, 1, moved(2, NEW));
    script.hear(2_000, &moved(2, NEW), moving(2, 5, Some(third)));
    let (old, new) = (Some(OLD.parse().unwrap()), Some(NEW.parse().unwrap()));
    assert_eq!(script.redirects(), [(old, ep(third)), (new, ep(third))]);
    // Without an address the name is all that is left.
    script.until(3_000);
    script.switched(3_000, 2, moved(3, third));
    script.hear(4_000, &moved(3, third), moving(3, 5, None));
    assert_eq!(script.redirects(), []);
}

#[test]
fn two_servers_that_retire_do_not_send_connections_to_each_other() {
    let mut script = Script::open(1);
    script.hear(0, &at(1, OLD), moving(1, 15, Some(NEW)));
    script.until(600);
    script.switched(600, 1, moved(2, NEW));
    // Its target retires in turn, and DNS still knows nothing but the server that it came from.
    script.hear(1_000, &moved(2, NEW), moving(2, 15, None));
    let answer = |to: &[&str]| Input::DnsAnswer {
        name: "cache.test".into(),
        addresses: to.iter().map(|&text| ip(text)).collect(),
    };
    script.input(1_500, answer(&["10.0.0.1"]));
    script.until(2_000);
    assert_eq!(script.moved_to(), [(1, NEW.into())]);
    script.input(2_000, answer(&["10.0.0.1", "10.0.0.3"]));
    assert_eq!(script.moved_to()[1..], [(2, format!("{NAME} at 10.0.0.3"))]);
}

#[test]
fn a_sibling_that_retires_as_well_is_no_better_address() {
    let mut script = Script::open(1);
    let sibling = at(2, "10.0.0.5:6379");
    script.input(0, Input::Opened { origin: sibling.clone() });
    script.hear(0, &at(1, OLD), moving(1, 15, None));
    script.hear(0, &sibling, moving(1, 15, None));
    let answer = |to: &[&str]| Input::DnsAnswer {
        name: "cache.test".into(),
        addresses: to.iter().map(|&text| ip(text)).collect(),
    };
    script.input(1_000, answer(&["10.0.0.1", "10.0.0.5"]));
    assert_eq!(script.moves(), []);
    script.input(2_000, answer(&["10.0.0.1", "10.0.0.5", "10.0.0.6"]));
    let to = format!("{NAME} at 10.0.0.6");
    assert_eq!(script.moved_to(), [(1, to.clone()), (2, to)]);
}

#[test]
fn a_grace_that_one_connection_was_not_told_is_the_one_that_another_was() {
    let mut script = Script::open(2);
    // A late joiner, in its handshake: nothing is left of the second.
    assert!(matches!(
        script.hear_as(0, &at(3, OLD), true, moving(1, 0, Some(NEW))),
        Outcome::HandoffStarted(_)
    ));
    script.hear(1, &at(1, OLD), moving(1, 1, Some(NEW)));
    script.until(52);
    assert_eq!(script.moved_to().len(), 1, "within the jitter of a second, not of fifteen");
    script.switched(53, script.moves()[0].1, moved(9, NEW));
    script.until(1_002);
    // The close is over: what opens now leads to whom the name names.
    script.input(1_100, Input::Opened { origin: at(4, OLD) });
    script.until(1_500);
    assert!(script.moves().iter().all(|(_, conn, _)| *conn != 4), "{:?}", script.moves());
}
