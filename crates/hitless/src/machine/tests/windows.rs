//! Windows of relaxed timeouts and slot changes.

use super::*;

fn endpoint() -> Scope {
    Scope::Endpoint(ep(NAME))
}

#[test]
fn a_window_opens_with_the_start_and_closes_with_its_end() {
    for (start, end) in [
        (migrating(1, &["1"]), migrated(2, &["1"])),
        (failing_over(1, &["1"]), failed_over(2, &["1"])),
        (migrating(1, &[]), migrated(2, &[])),
    ] {
        let mut script = Script::open(1);
        assert_eq!(script.hear(1_000, &at(1, OLD), start), Outcome::Relaxed);
        assert_eq!(script.hear(5_000, &at(1, OLD), end), Outcome::Restored);
        assert_eq!(script.relaxed(), [(1_000, "relax", endpoint()), (5_000, "restore", endpoint())]);
    }
}

#[test]
fn each_window_has_its_cap() {
    for (start, cap) in [
        (migrating(1, &["1"]), 602_000),
        (failing_over(1, &["1"]), 62_000),
        (smigrating(1, "1-5"), 30_000),
        (moving(1, 15, Some(NEW)), 17_000),
    ] {
        let mut script = Script::new();
        script.hear(0, &at(1, OLD), start);
        script.until(700_000);
        assert_eq!(script.relaxed(), [(0, "relax", endpoint()), (cap, "restore", endpoint())]);
    }
}

#[test]
fn an_end_of_one_family_leaves_the_others_open() {
    let mut script = Script::open(1);
    script.hear(0, &at(1, OLD), failing_over(1, &["1"]));
    script.hear(0, &at(1, OLD), migrating(2, &["1"]));
    script.hear(0, &at(1, OLD), moving(3, 5, Some(NEW)));
    assert_eq!(script.hear(2_000, &at(1, OLD), migrated(4, &["1"])), Outcome::Restored);
    assert_eq!(script.hear(2_000, &at(1, OLD), failed_over(5, &["1"])), Outcome::Restored);
    script.until(6_999);
    assert!(script.relaxed().iter().all(|(_, what, _)| *what == "relax"));
    script.until(7_000);
    assert_eq!(script.relaxed().last(), Some(&(7_000, "restore", endpoint())));
}

#[test]
fn a_start_that_comes_after_its_own_end_opens_nothing() {
    let mut script = Script::open(2);
    script.until(5_000);
    assert_eq!(script.hear(5_000, &at(1, OLD), migrated(42, &["1"])), Outcome::Unmatched);
    assert_eq!(script.hear(5_001, &at(2, OLD), migrating(41, &["1"])), Outcome::Stale);
    assert_eq!(script.relaxed(), []);
}

#[test]
fn slots_close_in_parts() {
    let mut script = Script::open(1);
    script.hear(0, &at(1, OLD), smigrating(16, "0-100"));
    assert_eq!(script.hear(10, &at(1, OLD), smigrated(17, NEW, "0-50")), Outcome::SlotsMoved);
    assert_eq!(script.relaxed().len(), 1);
    script.hear(20, &at(1, OLD), smigrated(18, NEW, "51-100"));
    assert_eq!(script.relaxed().last(), Some(&(20, "restore", endpoint())));
}

#[test]
fn slot_moves_are_applied_at_once_and_verified_once() {
    let mut script = Script::new();
    for node in 0..10u64 {
        let origin = Origin::new(ConnId(node), ep(&format!("node{node}:7000")), None);
        let outcome = script.hear(node, &origin, smigrated(17, NEW, "5-9"));
        assert_eq!(outcome == Outcome::SlotsMoved, node == 0);
    }
    script.hear(20, &at(99, OLD), smigrated(18, NEW, "10"));
    script.until(60_000);
    assert_eq!(script.count(|action| matches!(action, Action::MoveSlots { .. })), 2);
    assert_eq!(script.count(|action| matches!(action, Action::VerifyTopology)), 1);
}

#[test]
fn disabled_means_deaf() {
    let mut script = Script::with(Config::new().mode(crate::Mode::Disabled), Sizes { workers: 1, queue: 2 });
    script.input(0, Input::Opened { origin: at(1, OLD) });
    assert_eq!(script.hear(0, &at(1, OLD), moving(1, 5, Some(NEW))), Outcome::Disabled);
    script.until(60_000);
    assert_eq!((script.moves(), script.relaxed()), (vec![], vec![]));
}

#[test]
fn an_end_that_names_nothing_closes_the_oldest_window() {
    let mut script = Script::open(1);
    for seq in 1..=3 {
        script.hear(0, &at(1, OLD), migrating(seq, &[]));
    }
    for seq in 4..=6 {
        assert_eq!(script.hear(seq, &at(1, OLD), migrated(seq, &[])), Outcome::Restored);
        // The same end on another connection closes no second one.
        assert_eq!(script.hear(seq, &at(2, OLD), migrated(seq, &[])), Outcome::Repeated);
        assert_eq!(script.relaxed().len(), if seq == 6 { 2 } else { 1 });
    }
}

#[test]
fn looks_at_the_topology_keep_their_distance() {
    let mut script = Script::open(1);
    for seq in 0..100 {
        script.hear(seq * 50, &at(1, OLD), smigrated(seq, NEW, &seq.to_string()));
    }
    script.until(10_000);
    let looks: Vec<u64> = script
        .log
        .iter()
        .filter(|(_, action)| matches!(action, Action::VerifyTopology))
        .map(|(ms, _)| *ms)
        .collect();
    assert!(looks.windows(2).all(|pair| pair[1] - pair[0] >= 1_000), "{looks:?}");
    assert!((4..=6).contains(&looks.len()), "{looks:?}");
}
