//! Handoffs by the configured name: what DNS says, and when it leads back.

use super::*;
use crate::HandoffCause;

#[test]
fn without_an_address_the_name_is_asked_and_its_new_address_taken() {
    let mut script = Script::open(2);
    script.hear(0, &at(1, OLD), moving(1, 15, None));
    let asked = |script: &Script| script.count(|action| matches!(action, Action::AskDns { .. }));
    assert_eq!(asked(&script), 1);
    let answer = |to: &[&str]| Input::DnsAnswer {
        name: "cache.test".into(),
        addresses: to.iter().map(|&text| ip(text)).collect(),
    };
    script.input(10, answer(&["10.0.0.1"]));
    script.until(1_100);
    assert_eq!(asked(&script), 2);
    script.input(1_110, answer(&[]));
    script.until(2_150);
    script.input(2_150, answer(&["10.0.0.1", "10.0.0.2"]));
    let to = format!("{NAME} at 10.0.0.2");
    assert_eq!(script.moves(), [(2_150, 1, to.clone()), (2_150, 2, to)]);
    // Nobody needs the name any more.
    script.switched(2_160, 1, at(11, NEW));
    script.switched(2_160, 2, at(12, NEW));
    let before = asked(&script);
    script.until(20_000);
    assert!(asked(&script) <= before + 1);
    assert_eq!(script.moves().len(), 2);
}

#[test]
fn without_an_address_and_without_news_from_dns_it_goes_by_the_name_at_half_the_grace() {
    let mut script = Script::open(1);
    script.hear(0, &at(1, OLD), moving(1, 3, None));
    script.until(3_000);
    let moves = script.moves();
    assert_eq!(moves.len(), 1);
    assert!((1_350..=1_500).contains(&moves[0].0), "{moves:?}");
    assert_eq!((moves[0].1, moves[0].2.as_str()), (1, NAME));
}

#[test]
fn a_name_that_leads_back_is_met_by_one_connection_and_not_by_all() {
    let mut script = Script::open(8);
    script.hear(0, &at(2, OLD), moving(1, 3, None));
    while script.moves().is_empty() {
        script.until(script.now + 1);
    }
    let first = script.now;
    // The retiring server says while the connection is being made that it is still itself.
    script.hear_as(first + 2, &at(20, OLD), true, moving(1, 2, None));
    script.switched(first + 3, 1, at(20, OLD));
    script.until(2_849);
    assert_eq!(script.moved_to(), [(1, NAME.into())]);
    // One that comes later does not try again either.
    script.input(2_849, Input::Opened { origin: at(21, OLD) });
    script.hear(2_849, &at(21, OLD), moving(1, 1, None));
    script.until(2_850);
    let quietly: Vec<_> = script.moves()[1..].iter().map(|(_, conn, to)| (*conn, to.clone())).collect();
    assert_eq!(quietly, [2, 3, 4, 5, 6, 7, 8, 20, 21].map(|conn| (conn, format!("{NAME} quietly"))));
}

#[test]
fn a_name_that_leads_elsewhere_is_followed_by_all_once_the_first_has_listened() {
    let mut script = Script::open(3);
    script.hear(0, &at(2, OLD), moving(1, 3, None));
    while script.moves().is_empty() {
        script.until(script.now + 1);
    }
    let first = script.now;
    script.switched(first + 2, 1, at(20, NEW));
    script.until(first + 21);
    assert_eq!(script.moves().len(), 1);
    script.until(first + 22);
    assert_eq!(script.moved_to(), [(1, NAME.into()), (2, NAME.into()), (3, NAME.into())]);
}

#[test]
fn a_word_right_behind_the_handshake_holds_the_others_back_too() {
    let mut script = Script::open(3);
    script.hear(0, &at(2, OLD), moving(1, 3, None));
    while script.moves().is_empty() {
        script.until(script.now + 1);
    }
    let first = script.now;
    script.switched(first + 2, 1, at(20, OLD));
    script.hear(first + 7, &at(20, OLD), moving(1, 2, None));
    script.until(2_849);
    assert_eq!(script.moves().len(), 1);
}

#[test]
fn a_name_that_does_not_answer_holds_the_others_up_for_a_moment_only() {
    let mut script = Script::open(3);
    script.hear(0, &at(1, OLD), moving(1, 3, None));
    while script.moves().is_empty() {
        script.until(script.now + 1);
    }
    let first = script.now;
    script.until(first + 99);
    assert_eq!(script.moves().len(), 1);
    script.until(first + 100);
    assert_eq!(script.moves().len(), 3);
}

#[test]
fn a_drain_makes_every_connection_anew_through_the_name() {
    let mut script = Script::open(2);
    let deadline = script.instant(10_000);
    script.input(0, Input::Drain { endpoint: ep(NAME), deadline });
    script.input(1, Input::Drain { endpoint: ep(NAME), deadline });
    script.input(
        5,
        Input::DnsAnswer { name: "cache.test".into(), addresses: vec![ip("10.0.0.1"), ip("10.0.0.3")] },
    );
    assert_eq!(script.moved_to(), [(1, format!("{NAME} at 10.0.0.3")), (2, format!("{NAME} at 10.0.0.3"))]);
    assert_eq!(
        script.events(|event| matches!(event, Event::HandoffStarted { cause: HandoffCause::Drain, .. })),
        1
    );
}

#[test]
fn a_drain_of_one_address_goes_by_it_again_at_once() {
    let mut script = Script::new();
    let literal = Origin::new(ConnId(1), ep(OLD), Some(OLD.parse().unwrap()));
    script.input(0, Input::Opened { origin: literal });
    let deadline = script.instant(10_000);
    script.input(0, Input::Drain { endpoint: ep(OLD), deadline });
    assert_eq!(script.moves(), [(0, 1, OLD.into())]);
    script.switched(5, 1, Origin::new(ConnId(2), ep(OLD), Some(OLD.parse().unwrap())));
    script.until(60_000);
    assert_eq!(script.moves().len(), 1);
}

#[test]
fn an_address_that_leaves_dns_after_migrated_is_left() {
    let mut script = Script::open(1);
    script.input(0, Input::Opened { origin: at(2, "10.0.0.9:6379") });
    script.hear(5_000, &at(1, OLD), migrating(1, &["1"]));
    script.hear(10_000, &at(1, OLD), migrated(2, &["1"]));
    let answer = |to: &[&str]| Input::DnsAnswer {
        name: "cache.test".into(),
        addresses: to.iter().map(|&text| ip(text)).collect(),
    };
    script.input(10_010, answer(&["10.0.0.1", "10.0.0.9"]));
    // One answer may be a part only; a failed question says nothing.
    script.input(12_010, answer(&["10.0.0.9"]));
    script.input(14_010, answer(&[]));
    assert_eq!(script.moves(), []);
    script.input(16_010, answer(&["10.0.0.9"]));
    script.input(16_100, answer(&["10.0.0.9"]));
    script.until(17_000);
    assert_eq!(script.moved_to(), [(1, format!("{NAME} at 10.0.0.9"))]);
}

#[test]
fn an_address_that_was_tried_in_vain_is_no_news_and_another_one_is() {
    let mut script = Script::open(1);
    script.hear(0, &at(1, OLD), moving(1, 15, None));
    let answer = |to: &str| Input::DnsAnswer { name: "cache.test".into(), addresses: vec![ip(to)] };
    script.input(1_000, answer("10.0.0.2"));
    for ms in (1_100..6_000).step_by(100) {
        script.failed(ms, 1, MoveError::Unreachable);
        script.input(ms, answer("10.0.0.2"));
    }
    assert_eq!(script.moves().len(), 4, "{:?}", script.moves());
    script.input(6_000, answer("10.0.0.3"));
    assert_eq!(script.moves().last(), Some(&(6_000, 1, format!("{NAME} at 10.0.0.3"))));
}

#[test]
fn one_that_the_name_leads_back_to_speaks_for_those_beside_it() {
    let mut script = Script::open(1);
    script.hear(0, &at(1, OLD), moving(1, 10, None));
    script.until(5_000);
    script.switched(5_010, 1, at(11, NEW));
    script.closed(5_020, 1);
    let moved = |script: &Script| script.moved_to().into_iter().map(|(conn, _)| conn).collect::<Vec<_>>();
    assert_eq!(moved(&script), [1]);
    // The name wavers. Whoever is made through it this late is believed to be right, until one of them is told.
    script.input(7_000, Input::Opened { origin: at(20, OLD) });
    script.until(7_010);
    assert_eq!(moved(&script), [1]);
    script.hear_as(7_010, &at(21, OLD), true, moving(1, 3, None));
    script.input(7_015, Input::Opened { origin: at(21, OLD) });
    script.input(7_020, Input::Opened { origin: at(22, OLD) });
    script.input(7_025, Input::Opened { origin: at(23, NEW) });
    script.until(10_000);
    let mut moved = moved(&script);
    moved.sort_unstable();
    moved.dedup();
    assert_eq!(moved, [1, 20, 21, 22]);
}
