//! Randomness that a seed decides: SplitMix64, enough to spread clients over time and nodes.

use std::time::Duration;

use crate::plan::mix;

/// A sequence of numbers that its seed decides.
#[derive(Clone, Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`; 0 when `bound` is 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        // The modulo favours small numbers by less than bound / 2^64.
        mix(self.0).checked_rem(bound).unwrap_or(0)
    }

    /// A duration from half of `around` to `around`.
    pub(crate) fn at_most(&mut self, around: Duration) -> Duration {
        let micros = u64::try_from(around.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(micros - self.below(micros / 2 + 1))
    }
}
