//! Failovers that meet: several leaders, one that changes its mind, and words that are older than they seem.

use super::*;

/// S1 makes B the primary in epoch 2; S2 began a failover of A in epoch 3 and knows nothing of B yet.
fn two_leaders() -> Scene {
    let mut scene = Scene::new();
    scene.try_failover(S1, "2");
    scene.try_failover(S2, "3");
    scene.select_b(S1);
    scene
}

#[test]
fn a_newer_failover_of_a_primary_of_the_past_holds_at_the_new_one() {
    let mut scene = two_leaders();
    scene.nodes.insert(B, Is::Primary);
    scene.run_to(200);
    // Nobody has elected S2: it may never get further.
    assert_eq!(scene.resolver.primary(), Some(&at(B)));
    assert!(!scene.resolver.is_holding());
    scene.event(S2, "+selected-slave", "slave h:6003 h 6003 @ m h 6001");
    assert!(scene.resolver.is_holding());
    scene.run_to(300);
    assert!(scene.resolver.is_holding());
    scene.nodes.insert(C, Is::Primary);
    scene.run_to(310);
    assert_eq!(scene.resolver.primary(), Some(&at(C)));
    assert!(!scene.resolver.is_holding());
}

#[test]
fn a_primary_whose_successor_is_chosen_already_gets_no_writes() {
    let mut scene = two_leaders();
    scene.event(S2, "+selected-slave", "slave h:6003 h 6003 @ m h 6001");
    scene.nodes.insert(B, Is::Primary);
    scene.run_to(200);
    assert_eq!(scene.resolver.primary(), Some(&at(B)));
    assert!(scene.resolver.is_holding());
    scene.nodes.insert(C, Is::Primary);
    scene.run_to(210);
    assert_eq!(scene.resolver.primary(), Some(&at(C)));
    assert!(!scene.resolver.is_holding());
}

#[test]
fn a_leader_that_chooses_the_primary_in_office_or_switches_to_it_holds_nothing_up() {
    let mut scene = two_leaders();
    scene.nodes.insert(B, Is::Primary);
    scene.run_to(200);
    scene.select_b(S2);
    assert!(!scene.resolver.is_holding());

    let mut scene = two_leaders();
    scene.event(S2, "+selected-slave", "slave h:6003 h 6003 @ m h 6001");
    scene.nodes.insert(B, Is::Primary);
    scene.run_to(200);
    assert!(scene.resolver.is_holding());
    // It hears of B before it has promoted anybody.
    scene.event(S2, "+switch-master", "m h 6001 h 6002");
    scene.run_to(210);
    assert!(!scene.resolver.is_holding());
    assert_eq!(scene.resolver.primary(), Some(&at(B)));
}

#[test]
fn what_a_node_said_before_it_was_chosen_is_no_promotion() {
    let mut scene = Scene::new();
    // A primary of the past, which is told its place while the next failover goes on.
    scene.nodes.insert(B, Is::Primary);
    scene.try_failover(S1, "2");
    scene.run_to(150);
    scene.nodes.insert(B, Is::ReplicaOf(A));
    scene.select_b(S1);
    scene.run_to(200);
    assert_eq!(scene.resolver.primary(), Some(&at(A)));
    assert!(scene.resolver.is_holding());
    scene.nodes.insert(B, Is::Primary);
    scene.run_to(210);
    assert_eq!(scene.resolver.primary(), Some(&at(B)));
    assert!(!scene.resolver.is_holding());
}

#[test]
fn a_reset_that_is_waited_for_does_not_end_the_wait_for_another_failover() {
    let mut scene = Scene::new();
    scene.hands_over = true;
    scene.try_failover(S1, "2");
    scene.select_b(S1);
    scene.nodes.insert(B, Is::Primary);
    scene.run_to(200);
    assert_eq!(scene.resolver.primary(), Some(&at(B)));
    scene.hands_over = false;
    scene.event(S2, "+new-epoch", "3");
    scene.event(S2, "+try-failover", "master m h 6002");
    assert!(scene.resolver.is_holding());
    scene.event(S1, "+promoted-slave", "slave h:6002 h 6002 @ m h 6001");
    scene.run_to(2000);
    assert!(scene.resolver.is_holding());
    scene.event(S2, "-failover-abort-not-elected", "master m h 6002");
    scene.run_to(2100);
    assert!(!scene.resolver.is_holding());
}

#[test]
fn a_leader_that_gives_up_handing_over_and_forces_it_holds() {
    let mut scene = Scene::new();
    scene.hands_over = true;
    scene.run_to(1000);
    scene.try_failover(S1, "2");
    scene.run_to(1010);
    assert!(!scene.resolver.is_holding());
    // Its link is cut: neither the end of the first failover nor the beginning of the next is heard.
    scene.tell(Input::EventLinkDown { sentinel: at(S1) });
    scene.hands_over = false;
    scene.replaces = [(S1, A)].into();
    scene.tell(Input::EventLinkUp { sentinel: at(S1) });
    assert!(scene.resolver.is_holding());
    scene.select_b(S1);
    scene.run_to(1100);
    assert!(scene.resolver.is_holding());
    scene.nodes.insert(B, Is::Primary);
    scene.run_to(1110);
    assert_eq!(scene.resolver.primary(), Some(&at(B)));
    assert!(!scene.resolver.is_holding());

    // Heard, it is another failover, and held from its beginning.
    let mut scene = Scene::new();
    scene.hands_over = true;
    scene.run_to(1000);
    scene.try_failover(S1, "2");
    scene.select_b(S1);
    scene.run_to(1010);
    assert!(!scene.resolver.is_holding());
    scene.event(S1, "-failover-abort-master-timeout", "master m h 6001");
    scene.run_to(1200);
    assert!(!scene.resolver.is_holding());
    scene.hands_over = false;
    scene.try_failover(S1, "3");
    scene.run_to(1300);
    assert!(scene.resolver.is_holding());
}
