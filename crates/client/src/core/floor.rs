//! `FloorKey`: the name of a floor under timeouts, which tells the maintenance behind it, so that errors can say it too.

use evenkeel_hitless::Family;
use evenkeel_pool::Lane;

const KINDS: [Family; 5] =
    [Family::Failover, Family::Handoff, Family::Migration, Family::Moving, Family::Slots];

/// A key that no two floors of a client share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FloorKey(pub(crate) u64);

impl FloorKey {
    /// The `number`th floor, put there by this kind of maintenance.
    pub(crate) fn new(number: u64, family: Family) -> Self {
        let kind = KINDS.iter().position(|known| *known == family).unwrap_or(KINDS.len());
        let kinds = KINDS.len() as u64 + 1;
        Self(number * kinds + kind as u64)
    }

    fn family(self) -> Option<Family> {
        let kinds = KINDS.len() as u64 + 1;
        KINDS.get((self.0 % kinds) as usize).copied()
    }
}

/// The maintenance that is announced on a lane now, the latest word of it.
pub(crate) fn maintenance(lane: &Lane) -> Option<Family> {
    FloorKey(lane.relaxed_by()?).family()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_tells_its_maintenance_and_no_two_are_the_same() {
        let mut seen = std::collections::BTreeSet::new();
        for number in 1..=9 {
            for family in KINDS {
                let key = FloorKey::new(number, family);
                assert_eq!(key.family(), Some(family));
                assert!(seen.insert(key.0));
            }
        }
    }
}
