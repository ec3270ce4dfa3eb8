//! `SlotMap`: which shard owns each of the 16 384 slots, flat; it knows no addresses.

use std::{fmt, ops::RangeInclusive, sync::Arc};

use evenkeel_protocol::Slot;

/// No shard owns the slot.
const NOBODY: u16 = u16::MAX;

/// Slot to number of a shard, one `u16` each. Clones share their memory until one of them changes.
#[derive(Clone, PartialEq, Eq)]
pub struct SlotMap(Arc<[u16]>);

impl Default for SlotMap {
    /// A map in which nobody owns anything.
    fn default() -> Self {
        Self(vec![NOBODY; usize::from(Slot::COUNT)].into())
    }
}

impl SlotMap {
    /// The shard that owns `slot`.
    pub fn shard(&self, slot: Slot) -> Option<u16> {
        self.0.get(usize::from(slot.number())).copied().filter(|&shard| shard != NOBODY)
    }

    /// Gives `slots` to `shard`, or to nobody.
    pub fn assign(&mut self, slots: RangeInclusive<u16>, shard: Option<u16>) {
        let last = (*slots.end()).min(Slot::COUNT - 1);
        let Some(span) = Arc::make_mut(&mut self.0).get_mut(usize::from(*slots.start())..=usize::from(last))
        else {
            return;
        };
        span.fill(shard.unwrap_or(NOBODY));
    }

    /// How many slots have an owner.
    pub fn owned(&self) -> usize {
        self.0.iter().filter(|&&shard| shard != NOBODY).count()
    }

    /// The runs of slots of one owner, in order; slots without owner are left out.
    pub fn ranges(&self) -> Vec<(RangeInclusive<u16>, u16)> {
        runs(0..=Slot::COUNT - 1, |slot| self.shard(slot))
    }
}

impl fmt::Debug for SlotMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.ranges()).finish()
    }
}

/// The runs of neighbouring slots within `slots` for which `value` is the same and something, in order.
pub(crate) fn runs<T: PartialEq>(
    slots: RangeInclusive<u16>,
    mut value: impl FnMut(Slot) -> Option<T>,
) -> Vec<(RangeInclusive<u16>, T)> {
    let mut found: Vec<(RangeInclusive<u16>, T)> = Vec::new();
    for slot in slots.filter_map(Slot::new) {
        let Some(value) = value(slot) else { continue };
        match found.last_mut() {
            Some((range, same)) if *same == value && *range.end() + 1 == slot.number() => {
                *range = *range.start()..=slot.number();
            }
            _ => found.push((slot.number()..=slot.number(), value)),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_come_back_as_they_were_assigned() {
        let mut map = SlotMap::default();
        assert_eq!((map.owned(), map.ranges()), (0, vec![]));
        map.assign(0..=99, Some(0));
        map.assign(200..=u16::MAX, Some(1));
        let before = map.clone();
        map.assign(50..=50, Some(1));
        map.assign(20000..=20001, Some(3));
        assert_eq!(map.ranges(), [(0..=49, 0), (50..=50, 1), (51..=99, 0), (200..=16383, 1)]);
        assert_eq!(before.ranges(), [(0..=99, 0), (200..=16383, 1)]);
        assert_eq!(map.owned(), 100 + 16184);
        assert_eq!(map.shard(Slot::new(150).unwrap()), None);
    }
}
