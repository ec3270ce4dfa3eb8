//! What each scenario must come to.

use super::figures::Figures;

/// The longest wait of a slot in milliseconds where the way out is known beforehand.
const GAP: f64 = 20.0;
/// The same under full load, beyond one dial and the slowest reply of the same run without a handoff.
const FULL_GAP: f64 = 5.0;
/// From the end of the jitter to the last connection of the pool.
const POOL_MOVED: f64 = 200.0;
/// p99.9 of commands that overlap a handoff, against the same run without.
const P999: f64 = 2.0;
/// Memory during a handoff, against before.
const MEMORY: f64 = 2.0;

/// The marks that a run missed, in words.
pub(crate) fn missed(scenario: &str, pool: bool, figures: &Figures) -> Vec<String> {
    let mut missed = Vec::new();
    let place = if pool { "pool" } else { "lane" };
    let mut mark = |what: &str, most: f64| {
        let found = figures.get(what);
        if found > most {
            missed.push(format!("{scenario} on {place}: {what} is {found:.2}, at most {most:.2}"));
        }
    };
    for never in
        ["failed", "vanished", "doubled", "out_of_order", "duplicated", "items_lost", "items_doubled"]
    {
        mark(never, 0.0);
    }
    // Where the name is right only after the close there is no time at which both subscriptions could stand.
    let cut = scenario != "b-late";
    if cut {
        mark("lost", 0.0);
        mark("gaps", 0.0);
    }
    let (handoffs, connections) = (figures.get("handoffs"), figures.get("connections"));
    // One more dial for each blocked command: it is ended by another connection of the old address.
    let each_once = handoffs * (connections + 2.0);
    match scenario {
        "a" | "b" | "g" => {
            mark("longest_gap_ms", GAP);
            mark("closed_by_server", 0.0);
        }
        "b-late" => {
            mark("longest_gap_ms", GAP);
            // Each connection twice, and so the helper that ends blocked commands.
            mark("connects", 2.0 * handoffs * (connections + 1.0));
        }
        "d" => mark("connects", if pool { each_once } else { each_once.min(9.0) }),
        "e-dup" => {
            mark("longest_gap_ms", GAP);
            mark("engine_handoffs", handoffs);
            mark("connects", each_once);
        }
        "e-bad" => {
            mark("connects", 0.0);
            mark("engine_handoffs", 0.0);
        }
        "f" => mark("closed_by_server", 0.0),
        "full" => {
            mark("longest_gap_ms", FULL_GAP + figures.get("dial_ms") + figures.get("longest_outside_ms"));
            mark("closed_by_server", 0.0);
        }
        _ => {}
    }
    if matches!(scenario, "a" | "b" | "e-dup" | "g" | "full") {
        mark("p999_ratio", P999);
    }
    if pool && matches!(scenario, "a" | "e-dup" | "f" | "g" | "full") {
        mark("pool_moved_ms", POOL_MOVED);
    }
    mark("peak_rss_ratio", MEMORY);
    let lossy = !cut && figures.get("lost") > 0.0 && figures.get("gaps") == 0.0;
    if lossy {
        missed.push(format!("{scenario} on {place}: messages were lost and nobody was told"));
    }
    missed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(changes: &str) -> Figures {
        let good = "handoffs=2 commands=9 failed=0 doubled=0 out_of_order=0 published=9 lost=0 duplicated=0 \
                    p999_ratio=1 longest_gap_ms=3 longest_outside_ms=2 dial_ms=1 pool_moved_ms=30 peak_rss_ratio=1.1 connections=3 \
                    connects=8 engine_handoffs=2";
        Figures::read(&format!("{good} {changes}")).unwrap()
    }

    #[test]
    fn a_good_run_misses_nothing() {
        for scenario in ["a", "b", "b-late", "c", "d", "e-dup", "f", "g", "full"] {
            assert_eq!(missed(scenario, false, &figures("")), Vec::<String>::new(), "{scenario}");
        }
    }

    #[test]
    fn what_is_missed_is_named() {
        let check = |scenario, pool, changes, expected: &str| {
            let missed = missed(scenario, pool, &figures(changes));
            assert!(missed.iter().any(|mark| mark.contains(expected)), "{scenario}: {missed:?}");
        };
        check("a", false, "failed=1", "failed is 1.00");
        check("a", false, "longest_gap_ms=21", "longest_gap_ms");
        check("full", false, "longest_gap_ms=8.5", "at most 8.00");
        check("a", true, "pool_moved_ms=201", "pool_moved_ms");
        check("f", false, "closed_by_server=1", "closed_by_server");
        check("d", false, "connects=10", "connects");
        check("e-bad", false, "connects=1", "connects");
        check("e-dup", false, "engine_handoffs=3", "engine_handoffs");
        check("b-late", false, "lost=1", "nobody was told");
        check("b-late", false, "connects=17", "at most 16.00");
        check("b", false, "lost=1", "lost");
        check("c", false, "peak_rss_ratio=2.1", "peak_rss_ratio");
    }
}
