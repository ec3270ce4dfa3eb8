//! Delays between attempts, jittered so that many clients do not come back in step.

use std::time::Duration;

/// How the delay grows.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Growth {
    /// The first delay doubles: 50 ms, 100 ms, 200 ms ...
    Exponential,
    /// The first delay is added each time: 50 ms, 100 ms, 150 ms ...
    #[default]
    Linear,
}

/// Delays of a series of attempts.
///
/// ```
/// use std::time::Duration;
/// use evenkeel_pool::machine::Backoff;
/// let backoff = Backoff::default();
/// assert_eq!(backoff.nominal(3), Duration::from_millis(150));
/// assert_eq!(backoff.nominal(1000), Duration::from_secs(2));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    growth: Growth,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(50), max: Duration::from_secs(2), growth: Growth::Linear }
    }
}

impl Backoff {
    /// The first delay, and the step of linear growth. Default: 50 ms.
    #[must_use]
    pub fn first(mut self, first: Duration) -> Self {
        self.first = first;
        self
    }

    /// No delay is longer. Default: 2 s.
    #[must_use]
    pub fn max(mut self, max: Duration) -> Self {
        self.max = max;
        self
    }

    /// How delays grow. Default: linear.
    #[must_use]
    pub fn growth(mut self, growth: Growth) -> Self {
        self.growth = growth;
        self
    }

    /// The delay before attempt `attempt` (1 is the first retry), without jitter.
    pub fn nominal(&self, attempt: u32) -> Duration {
        let factor = match self.growth {
            Growth::Linear => attempt.max(1),
            Growth::Exponential => 1u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX),
        };
        self.first.saturating_mul(factor).min(self.max)
    }

    /// The delay with jitter: between half and one and a half times the nominal one.
    pub fn jittered(&self, attempt: u32, seed: &mut Seed) -> Duration {
        self.nominal(attempt).mul_f64(0.5 + seed.fraction()).min(self.max)
    }
}

/// Numbers that look random and are the same for the same seed (SplitMix64): randomness enters machines only so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(u64);

impl Seed {
    /// A series.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The next number in 0..1.
    pub fn fraction(&mut self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "53 bits and their power of two fit a double exactly")]
        let (bits, all) = ((self.draw() >> 11) as f64, (1u64 << 53) as f64);
        bits / all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_cap_and_jitter_stays_around_them() {
        let backoff = Backoff::default();
        let nominal: Vec<u128> = (1..=4).map(|attempt| backoff.nominal(attempt).as_millis()).collect();
        assert_eq!(nominal, [50, 100, 150, 200]);
        let doubling = backoff.growth(Growth::Exponential);
        assert_eq!(doubling.nominal(4).as_millis(), 400);
        assert_eq!(doubling.nominal(70), Duration::from_secs(2));
        let mut seed = Seed::new(7);
        for attempt in 1..100 {
            let delay = backoff.jittered(attempt, &mut seed);
            assert!(delay >= backoff.nominal(attempt) / 2 && delay <= Duration::from_secs(2));
        }
    }

    #[test]
    fn a_thousand_clients_of_a_server_that_restarts_come_back_spread_out() {
        let backoff = Backoff::default();
        for outage in [100, 300, 1000, 5000, 60_000] {
            let outage = Duration::from_millis(outage);
            let mut slots = std::collections::BTreeMap::<u128, usize>::new();
            for client in 0..1000 {
                let mut seed = Seed::new(client);
                let (mut at, mut attempt) = (Duration::ZERO, 0);
                while at < outage {
                    attempt += 1;
                    at += backoff.jittered(attempt, &mut seed);
                }
                *slots.entry(at.as_millis() / 10).or_default() += 1;
            }
            let fullest = slots.values().max().copied().unwrap_or(0);
            assert!(fullest <= 200, "{fullest} of 1000 in one slot of 10 ms after {outage:?}");
        }
    }
}
