//! What the engine counts; plain numbers, to be exported under the names that other clients use.

use std::{collections::BTreeMap, time::Duration};

use crate::{Event, Family, MoveError};

/// Upper bounds of the histogram's buckets in milliseconds; one more takes the rest.
const BOUNDS_MS: [u64; 14] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000];

/// A histogram of durations with fixed buckets from 1 ms to 30 s.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    counts: [u64; BOUNDS_MS.len() + 1],
    sum: Duration,
    max: Duration,
}

impl Durations {
    pub(crate) fn record(&mut self, took: Duration) {
        let bucket = BOUNDS_MS.partition_point(|bound| Duration::from_millis(*bound) < took);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum = self.sum.saturating_add(took);
        self.max = self.max.max(took);
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum.
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        self.max
    }

    /// Each bucket's inclusive upper bound (`None` for the rest) and how many fell into it.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> + '_ {
        let bounds = BOUNDS_MS.iter().map(|ms| Some(Duration::from_millis(*ms))).chain([None]);
        bounds.zip(self.counts.iter().copied())
    }
}

/// Everything that one engine has counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Announcements by name, repeats included.
    pub notifications: BTreeMap<&'static str, u64>,
    /// Pushes that could not be read.
    pub malformed: u64,
    /// Windows and tails open now, by the name of what opened them.
    pub relaxed_now: BTreeMap<&'static str, u64>,
    /// Windows and tails opened so far, by the same name.
    pub relaxed_total: BTreeMap<&'static str, u64>,
    /// Windows that their cap ended, because no end was announced.
    pub windows_expired: u64,
    /// Handoffs started.
    pub handoffs: u64,
    /// Attempts to move a connection.
    pub attempts: u64,
    /// Connections moved.
    pub moved: u64,
    /// Connections left to ordinary reconnection.
    pub abandoned: u64,
    /// Failed attempts by cause.
    pub failures: BTreeMap<MoveError, u64>,
    /// From the announcement to the switch, per connection.
    pub durations: Durations,
    /// Connections that wait for their handoff now.
    pub queue_depth: u64,
    /// Connections that found the queue full.
    pub queue_full: u64,
    /// Attempts that were not answered by their deadline.
    pub deadline_misses: u64,
    /// Connections that were lost while they were being moved.
    pub closed_before_move: u64,
    /// Times that a breaker opened.
    pub breaker_opened: u64,
}

impl Metrics {
    pub(crate) fn count(&mut self, event: &Event) {
        match event {
            Event::BreakerOpened { .. } => self.breaker_opened += 1,
            Event::ConnAbandoned { .. } => self.abandoned += 1,
            Event::ConnMoved { .. } => self.moved += 1,
            Event::HandoffStarted { .. } => self.handoffs += 1,
            Event::Malformed { .. } => self.malformed += 1,
            Event::MoveFailed { cause, .. } => *self.failures.entry(*cause).or_default() += 1,
            Event::Noticed { name, .. } => *self.notifications.entry(name).or_default() += 1,
            Event::QueueFull { left_out, .. } => self.queue_full += u64::from(*left_out),
            Event::WindowClosed { expired, .. } => self.windows_expired += u64::from(*expired),
            Event::BreakerClosed { .. } | Event::HandoffFinished { .. } | Event::WindowOpened { .. } => {}
        }
    }

    pub(crate) fn relaxed(&mut self, family: Family) {
        *self.relaxed_total.entry(family.word()).or_default() += 1;
        *self.relaxed_now.entry(family.word()).or_default() += 1;
    }

    pub(crate) fn unrelaxed(&mut self, family: Family) {
        let open = self.relaxed_now.entry(family.word()).or_default();
        *open = open.saturating_sub(1);
    }

    /// Every number as an exporter wants it: OpenTelemetry names, as other clients use them where they have one.
    pub fn samples(&self) -> Vec<Sample> {
        let mut samples = Vec::new();
        let mut add = |name, kind, attribute: Option<(&'static str, &'static str)>, value| {
            samples.push(Sample { name, kind, attribute, value });
        };
        let notification = |word| Some(("redis.client.connection.notification", word));
        for (name, count) in &self.notifications {
            add("redis.client.maintenance.notifications", SampleKind::Counter, notification(*name), *count);
        }
        for (name, open) in &self.relaxed_now {
            add("redis.client.connection.relaxed_timeout", SampleKind::UpDown, notification(*name), *open);
        }
        for (cause, count) in &self.failures {
            let attribute = Some(("error.type", cause.word()));
            add("redis.client.connection.handoff.failures", SampleKind::Counter, attribute, *count);
        }
        for (name, kind, value) in [
            ("redis.client.connection.handoff", SampleKind::Counter, self.moved),
            ("redis.client.connection.handoff.abandoned", SampleKind::Counter, self.abandoned),
            ("redis.client.connection.handoff.deadline_misses", SampleKind::Counter, self.deadline_misses),
            ("redis.client.connection.handoff.queue_depth", SampleKind::UpDown, self.queue_depth),
            ("redis.client.connection.handoff.queue_full", SampleKind::Counter, self.queue_full),
            ("redis.client.maintenance.malformed", SampleKind::Counter, self.malformed),
            ("redis.client.maintenance.windows_expired", SampleKind::Counter, self.windows_expired),
        ] {
            add(name, kind, None, value);
        }
        samples
    }

    /// The name under which [`durations`](Self::durations) is exported, in seconds.
    pub const DURATION_NAME: &'static str = "redis.client.connection.handoff.duration";
}

/// One number for an exporter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The metric's name.
    pub name: &'static str,
    /// How it moves.
    pub kind: SampleKind,
    /// One attribute, as key and value.
    pub attribute: Option<(&'static str, &'static str)>,
    /// The number.
    pub value: u64,
}

/// How a number moves.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SampleKind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    UpDown,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_fall_into_their_buckets() {
        let mut durations = Durations::default();
        for ms in [0, 1, 2, 3, 150, 40_000] {
            durations.record(Duration::from_millis(ms));
        }
        let filled: Vec<_> = durations.buckets().filter(|(_, count)| *count > 0).collect();
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(filled, [(ms(1), 2), (ms(2), 1), (ms(5), 1), (ms(200), 1), (None, 1)]);
        assert_eq!(durations.count(), 6);
        assert_eq!(durations.max(), Duration::from_secs(40));
    }
}
