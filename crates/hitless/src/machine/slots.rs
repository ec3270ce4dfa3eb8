//! `SlotLog`: which slot moves were applied, so that an older one that arrives late changes nothing that a newer one did.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use evenkeel_protocol::maintenance::SlotMove;

use super::slot_set::SlotSet;

/// Moves remembered. An older announcement than all of them is left to `MOVED`.
const MAX_LOG: usize = 128;
/// Sequence ids start anew when a database is made anew, so nothing is held against lower ones for longer.
const LOG_TTL: Duration = Duration::from_secs(120);

#[derive(Debug, Default)]
pub(crate) struct SlotLog {
    applied: VecDeque<(Instant, u64, SlotSet)>,
    /// The highest sequence id that had to be forgotten early.
    forgotten: Option<(Instant, u64)>,
}

impl SlotLog {
    /// The part of an announcement that is still news.
    pub(crate) fn apply(&mut self, now: Instant, seq: Option<u64>, moves: &[SlotMove]) -> Vec<SlotMove> {
        while self.applied.front().is_some_and(|(at, ..)| now.saturating_duration_since(*at) >= LOG_TTL) {
            self.applied.pop_front();
        }
        self.forgotten = self.forgotten.filter(|(at, _)| now.saturating_duration_since(*at) < LOG_TTL);
        let Some(seq) = seq else { return moves.to_vec() };
        if self.forgotten.is_some_and(|(_, forgotten)| seq < forgotten) {
            return Vec::new();
        }
        let mut newer = SlotSet::default();
        for (.., slots) in self.applied.iter().filter(|(_, applied, _)| *applied > seq) {
            newer.join(slots);
        }
        let mut all = SlotSet::default();
        let mut news = Vec::new();
        for one in moves {
            let mut slots = SlotSet::of(&one.slots);
            slots.remove(&newer);
            if !slots.is_empty() {
                news.push(SlotMove::new(one.source.clone(), one.target.clone(), slots.ranges()));
                all.join(&slots);
            }
        }
        if self.applied.len() >= MAX_LOG
            && let Some((at, forgotten, _)) = self.applied.pop_front()
        {
            let highest = self.forgotten.map_or(forgotten, |(_, seq)| seq.max(forgotten));
            self.forgotten = Some((at, highest));
        }
        self.applied.push_back((now, seq, all));
        news
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_protocol::{Endpoint, maintenance::SlotRanges};

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "origin of virtual time")]
    fn origin() -> Instant {
        Instant::now()
    }

    fn to(port: u16, slots: &str) -> SlotMove {
        SlotMove::new(None, Endpoint::new("h", port), SlotRanges::parse(slots).unwrap())
    }

    #[test]
    fn an_older_move_never_undoes_a_newer_one() {
        let now = origin();
        let mut log = SlotLog::default();
        assert_eq!(log.apply(now, Some(9), &[to(1, "5-6")]), [to(1, "5-6")]);
        assert_eq!(log.apply(now, Some(7), &[to(2, "0-10")]), [to(2, "0-4,7-10")]);
        assert_eq!(log.apply(now, Some(8), &[to(3, "5")]), []);
        assert_eq!(log.apply(now, Some(10), &[to(3, "5")]), [to(3, "5")]);
        // Long after, a lower id is a new count.
        assert_eq!(log.apply(now + LOG_TTL, Some(1), &[to(4, "5")]), [to(4, "5")]);
    }

    #[test]
    fn what_is_older_than_the_log_is_left_to_redirects() {
        let now = origin();
        let mut log = SlotLog::default();
        for seq in 100..100 + 2 * MAX_LOG as u64 {
            log.apply(now, Some(seq), &[to(1, "1")]);
        }
        assert_eq!(log.applied.len(), MAX_LOG);
        assert_eq!(log.apply(now, Some(50), &[to(2, "9")]), []);
    }
}
