//! Numbers that look random and follow from a seed: no machine draws its own.

use std::time::Duration;

/// The next number after `seed` and `salt` (splitmix64).
pub(crate) fn mix(seed: u64, salt: u64) -> u64 {
    let mut z = seed.wrapping_add(salt.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Uniform in `0..most`.
pub(crate) fn uniform(seed: u64, salt: u64, most: Duration) -> Duration {
    let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(mix(seed, salt).checked_rem(nanos).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_over_the_whole_range() {
        let most = Duration::from_millis(500);
        let mut tenths = [0u32; 10];
        for salt in 0..10_000 {
            let drawn = uniform(7, salt, most);
            assert!(drawn < most);
            tenths[(drawn.as_millis() / 50) as usize] += 1;
        }
        assert!(tenths.iter().all(|count| (850..1150).contains(count)), "{tenths:?}");
        assert_eq!(uniform(7, 1, Duration::ZERO), Duration::ZERO);
    }
}
