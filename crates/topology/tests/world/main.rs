//! Simulated worlds in virtual time: seeded schedules of deaths, partitions, failovers and unruly announcements.
//!
//! `EVENKEEL_WORLD_SCHEDULES` sets how many schedules each world runs (default 2 000), `EVENKEEL_WORLD_SEED` runs a single one.
//! A failure prints the seed.

#![expect(
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "worlds report by panicking, and show what happens when a single schedule is run"
)]

mod cluster;
mod sentinel;

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

/// A sequence of numbers that its seed decides (SplitMix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let value = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    pub(crate) fn range(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from)
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.range(0, from.len() as u64) as usize])
    }
}

/// What is to happen, in order of time (microseconds) and, within it, of arrival.
pub(crate) struct Agenda<E> {
    events: BTreeMap<(u64, u64), E>,
    count: u64,
}

impl<E> Default for Agenda<E> {
    fn default() -> Self {
        Self { events: BTreeMap::new(), count: 0 }
    }
}

impl<E> Agenda<E> {
    pub(crate) fn add(&mut self, at: u64, event: E) {
        self.events.insert((at, self.count), event);
        self.count += 1;
    }

    pub(crate) fn next_at(&self) -> Option<u64> {
        self.events.keys().next().map(|(at, _)| *at)
    }

    pub(crate) fn pop(&mut self) -> Option<E> {
        self.events.pop_first().map(|(_, event)| event)
    }
}

#[expect(clippy::disallowed_methods, reason = "origin of virtual time")]
pub(crate) fn origin() -> Instant {
    Instant::now()
}

/// Runs the schedules; a panic in one is repeated with its seed.
pub(crate) fn schedules(world: &str, run: impl Fn(u64)) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    if let Some(seed) = number("EVENKEEL_WORLD_SEED") {
        return run(seed);
    }
    for seed in 0..number("EVENKEEL_WORLD_SCHEDULES").unwrap_or(2_000) {
        let result = catch_unwind(AssertUnwindSafe(|| run(seed)));
        assert!(result.is_ok(), "the {world} world failed; repeat it with EVENKEEL_WORLD_SEED={seed}");
    }
}
