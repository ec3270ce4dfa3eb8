//! Random schedules: a small world of servers, a name and a pool around the engine, with its promises checked at each step.
//!
//! `EVENKEEL_SCHEDULES=100000` runs more of them, `EVENKEEL_SEED=7` that one alone.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod promises;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use self::world::World;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

#[test]
fn every_promise_holds_in_every_schedule() {
    let (first, count) = match number("EVENKEEL_SEED") {
        Some(seed) => (seed, 1),
        None => (0, number("EVENKEEL_SCHEDULES").unwrap_or(2_000)),
    };
    let mut total = world::Tally::default();
    for seed in first..first + count {
        match catch_unwind(AssertUnwindSafe(|| World::new(seed).run())) {
            Ok(tally) => total += tally,
            Err(panic) => {
                let said = panic.downcast_ref::<String>().map_or("no words", String::as_str);
                panic!("seed {seed}: {said}\nreplay it with EVENKEEL_SEED={seed}");
            }
        }
    }
    println!("{count} schedules: {total:?}");
    // A world in which nothing happens proves nothing.
    if count >= 1_000 {
        let per = |number: u64, least: u64| assert!(number * 1_000 > least * count, "{total:?}");
        per(total.announcements, 3_000);
        per(total.moved, 2_000);
        per(total.failed_attempts, 500);
        per(total.quiet, 50);
        per(total.in_place, 20);
        per(total.bound, 300);
        for (trouble, times) in total.troubles.by_name() {
            assert!(times * 20 > count, "{trouble}: {times} times in {count} schedules");
        }
    }
}
