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

/// The maintenance that is announced on a lane now, the latest word of it. That a connection has moved a while ago says
/// less than what is announced for it.
pub(crate) fn maintenance(lane: &Lane) -> Option<Family> {
    latest(&lane.relaxed_by())
}

/// Of these keys, the latest first.
fn latest(keys: &[u64]) -> Option<Family> {
    let families = || keys.iter().filter_map(|key| FloorKey(*key).family());
    families().find(|family| *family != Family::Handoff).or_else(|| families().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_announced_says_more_than_that_it_has_moved() {
        let key = |number, family| FloorKey::new(number, family).0;
        let (moved, moving) = (key(3, Family::Handoff), key(2, Family::Moving));
        assert_eq!(latest(&[moved, moving, key(1, Family::Failover)]), Some(Family::Moving));
        assert_eq!(latest(&[moved]), Some(Family::Handoff));
        assert_eq!(latest(&[]), None);
    }

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
