//! `SlotSet`: a set of slots as a bitmap, so that whatever list a server sends costs the same.

use std::ops::RangeInclusive;

use evenkeel_protocol::maintenance::SlotRanges;

const WORDS: usize = 16_384 / 64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlotSet(Box<[u64; WORDS]>);

impl Default for SlotSet {
    fn default() -> Self {
        Self(Box::new([0; WORDS]))
    }
}

impl SlotSet {
    pub(crate) fn of(slots: &SlotRanges) -> Self {
        let mut set = Self::default();
        set.add(slots);
        set
    }

    pub(crate) fn add(&mut self, slots: &SlotRanges) {
        for range in slots.ranges() {
            let (first, last) = (usize::from(*range.start()), usize::from(*range.end()));
            for (index, word) in self.0.iter_mut().enumerate().take(last / 64 + 1).skip(first / 64) {
                let from = first.saturating_sub(index * 64);
                let to = (last - index * 64).min(63);
                *word |= (u64::MAX << from) & (u64::MAX >> (63 - to));
            }
        }
    }

    pub(crate) fn join(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0.iter()) {
            *mine |= theirs;
        }
    }

    pub(crate) fn remove(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0.iter()) {
            *mine &= !theirs;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub(crate) fn ranges(&self) -> SlotRanges {
        let mut ranges: Vec<RangeInclusive<u16>> = Vec::new();
        let slots = self.0.iter().zip(0u16..).flat_map(|(word, index)| {
            (0..64u16).filter(move |bit| word >> bit & 1 == 1).map(move |bit| index * 64 + bit)
        });
        for slot in slots {
            match ranges.last_mut() {
                Some(range) if range.end() + 1 == slot => *range = *range.start()..=slot,
                _ => ranges.push(slot..=slot),
            }
        }
        SlotRanges::from_ranges(ranges)
    }

    pub(crate) fn words(&self) -> &[u64] {
        &self.0[..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> SlotSet {
        SlotSet::of(&SlotRanges::parse(text).unwrap())
    }

    #[test]
    fn ranges_in_ranges_out() {
        for (text, expected) in [
            ("0", "0"),
            ("16383", "16383"),
            ("0-16383", "0-16383"),
            ("63,64", "63-64"),
            ("5,1,3-4,4-6", "1,3-6"),
            ("60-130", "60-130"),
            ("127-128,200", "127-128,200"),
        ] {
            assert_eq!(set(text).ranges().to_string(), expected);
        }
    }

    #[test]
    fn slots_are_taken_away() {
        for (from, taken, left) in [
            ("0-10", "3-4", "0-2,5-10"),
            ("0-10", "0-10", ""),
            ("0-10", "11", "0-10"),
            ("0-16383", "16383", "0-16382"),
            ("5,7,9", "7", "5,9"),
            ("0-10,20-30", "5-25", "0-4,26-30"),
        ] {
            let mut slots = set(from);
            slots.remove(&set(taken));
            assert_eq!(slots.ranges().to_string(), left, "{from} without {taken}");
            assert_eq!(slots.is_empty(), left.is_empty());
        }
    }
}
