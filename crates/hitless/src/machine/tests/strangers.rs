//! Faults as somebody would think of them who does not know the engine.

use super::*;

#[test]
fn two_endpoints_that_move_at_once_do_not_mix() {
    const OTHER: &str = "10.1.0.1:6379";
    const OTHER_NEW: &str = "10.1.0.2:6379";
    let mut script = Script::open(2);
    let other = Origin::new(ConnId(3), ep("other.test:6379"), Some(OTHER.parse().unwrap()));
    script.input(0, Input::Opened { origin: other.clone() });
    // The same id and the same moment: ids are counted by each database for itself.
    let first = script.hear(10, &at(1, OLD), moving(1, 3, Some(NEW)));
    let second = script.hear(10, &other, moving(1, 3, Some(OTHER_NEW)));
    assert!(matches!((first, second), (Outcome::HandoffStarted(a), Outcome::HandoffStarted(b)) if a != b));
    script.until(300);
    let mut moved = script.moved_to();
    moved.sort_unstable();
    assert_eq!(moved, [(1, NEW.into()), (2, NEW.into()), (3, OTHER_NEW.into())]);
    let redirected = script.redirects();
    assert!(redirected.contains(&(Some(OLD.parse().unwrap()), ep(NEW))), "{redirected:?}");
    assert!(redirected.contains(&(Some(OTHER.parse().unwrap()), ep(OTHER_NEW))), "{redirected:?}");
}

#[test]
fn a_target_that_refuses_for_most_of_a_second_costs_no_connection() {
    for grace_s in [2, 3, 15] {
        let mut script = Script::open(3);
        script.hear(0, &at(1, OLD), moving(1, grace_s, Some(NEW)));
        let (mut seen, mut successor) = (0, 10);
        while script.now < grace_s * 1_000 {
            script.until(script.now + 1);
            let begun: Vec<_> = script.moves().split_off(seen);
            seen += begun.len();
            for (ms, conn, to) in begun {
                if to == NEW && ms < 900 {
                    script.failed(script.now, conn, MoveError::Unreachable);
                } else {
                    successor += 1;
                    // The name leads there too by the time it is used.
                    let arrived = if to == NEW { moved(successor, NEW) } else { at(successor, NEW) };
                    script.switched(script.now, conn, arrived);
                }
            }
        }
        script.until(60_000);
        let quietly = script.moves().iter().filter(|(_, _, to)| to.contains("quietly")).count();
        let metrics = script.engine.metrics();
        assert_eq!(
            (successor - 10, quietly, metrics.abandoned),
            (3, 0, 0),
            "{grace_s} s: {:?}",
            script.moves()
        );
    }
}

#[test]
fn a_failover_that_cuts_the_connection_keeps_its_successor_relaxed() {
    let mut script = Script::open(1);
    script.hear(0, &at(1, OLD), failing_over(1, &["1"]));
    script.closed(10, 1);
    script.input(500, Input::Opened { origin: at(2, NEW) });
    assert_eq!(script.relaxed().len(), 1, "it goes on");
    assert_eq!(script.hear(800, &at(2, NEW), failed_over(2, &["1"])), Outcome::Restored);
    let endpoint = Scope::Endpoint(ep(NAME));
    assert_eq!(script.relaxed(), [(0, "relax", endpoint.clone()), (800, "restore", endpoint)]);
}
