//! Which channels have subscribers in this process, and so are wanted from the broker.
//!
//! A channel stays wanted for a while after its last subscriber has left, so that a page reload or a storm of
//! reconnects costs the broker nothing.

use crate::publication::Channel;
use std::collections::{HashMap, VecDeque};

/// Counts subscribers of each channel.
#[derive(Debug, Default)]
pub(crate) struct Interest {
    counts: HashMap<Channel, Count>,
    /// Channels without subscribers, in the order in which they lost the last one.
    left: VecDeque<(u64, Channel)>,
}

#[derive(Debug)]
struct Count {
    subscribers: usize,
    /// The tick at which the last subscriber left; tells stale entries of `left` from the true one.
    left_at: u64,
}

impl Interest {
    /// Adds a subscriber; true when the channel must now be wanted from the broker.
    pub(crate) fn acquire(&mut self, channel: &Channel) -> bool {
        if let Some(count) = self.counts.get_mut(channel) {
            count.subscribers += 1;
            return false;
        }
        self.counts.insert(channel.clone(), Count { subscribers: 1, left_at: 0 });
        true
    }

    /// Takes a subscriber away.
    pub(crate) fn release(&mut self, channel: &Channel, tick: u64) {
        let Some(count) = self.counts.get_mut(channel) else { return };
        count.subscribers = count.subscribers.saturating_sub(1);
        if count.subscribers == 0 {
            count.left_at = tick;
            self.left.push_back((tick, channel.clone()));
        }
    }

    /// The next channel that had no subscriber since before `until`; it is no longer wanted.
    pub(crate) fn pop_left(&mut self, until: u64) -> Option<Channel> {
        while let Some((tick, _)) = self.left.front() {
            if *tick >= until {
                return None;
            }
            let (tick, channel) = self.left.pop_front()?;
            let gone = self
                .counts
                .get(&channel)
                .is_some_and(|count| count.subscribers == 0 && count.left_at == tick);
            if gone {
                self.counts.remove(&channel);
                return Some(channel);
            }
        }
        None
    }

    /// Channels with at least one subscriber, by name, with their counts.
    pub(crate) fn channels(&self) -> Vec<(Channel, usize)> {
        let mut all: Vec<_> = self
            .counts
            .iter()
            .filter(|(_, count)| count.subscribers > 0)
            .map(|(channel, count)| (channel.clone(), count.subscribers))
            .collect();
        all.sort();
        all
    }

    /// Channels that are wanted from the broker.
    pub(crate) fn wanted(&self) -> usize {
        self.counts.len()
    }
}

#[cfg(test)]
mod tests {
    use super::Interest;
    use crate::publication::Channel;

    #[test]
    fn the_first_wants_and_the_last_lingers() {
        let news = Channel::from("news");
        let mut interest = Interest::default();
        assert!(interest.acquire(&news));
        assert!(!interest.acquire(&news));
        interest.release(&news, 1);
        assert_eq!(interest.pop_left(100), None);
        interest.release(&news, 2);
        assert_eq!(interest.pop_left(2), None);
        assert!(!interest.acquire(&news), "still wanted");
        assert_eq!(interest.pop_left(100), None, "a subscriber came back");
        interest.release(&news, 101);
        assert_eq!(interest.pop_left(102), Some(news.clone()));
        assert_eq!(interest.wanted(), 0);
        assert!(interest.acquire(&news), "wanted anew");
    }
}
