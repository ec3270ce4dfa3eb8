//! Publications on their way to Redis: a bounded queue for each lane of channels, in order.
//!
//! A lane sends what waits for one channel as one call and waits for its end before the next, so a publication
//! never overtakes another one of its channel, whatever fails in between.

use crate::error::BrokerError;
use crate::namespace::ChannelOptions;
use crate::publication::Channel;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{Notify, oneshot};

use super::Published;

/// Publications that one call carries at most.
const MAX_BATCH: usize = 64;
/// Bytes after which a batch takes no more.
const MAX_BATCH_BYTES: usize = 256 * 1024;

/// A publication that waits.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) channel: Channel,
    pub(super) options: Arc<ChannelOptions>,
    pub(super) data: Bytes,
    pub(super) nonce: u64,
    pub(super) answer: oneshot::Sender<Result<Published, BrokerError>>,
}

/// What waits in all lanes, and how much may.
#[derive(Debug)]
pub(super) struct Budget {
    items: AtomicUsize,
    bytes: AtomicUsize,
    max_items: usize,
    max_bytes: usize,
}

impl Budget {
    pub(super) fn new(max_items: usize, max_bytes: usize) -> Self {
        Self { items: AtomicUsize::new(0), bytes: AtomicUsize::new(0), max_items, max_bytes }
    }

    pub(super) fn waiting(&self) -> usize {
        self.items.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> Result<(), BrokerError> {
        let items = self.items.fetch_add(1, Ordering::Relaxed) + 1;
        let total = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if items > self.max_items || total > self.max_bytes {
            self.give_back(bytes);
            return Err(BrokerError::Full);
        }
        Ok(())
    }

    fn give_back(&self, bytes: usize) {
        self.items.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// One lane's queue.
#[derive(Debug, Default)]
pub(super) struct Lane {
    waiting: Mutex<VecDeque<Item>>,
    filled: Notify,
}

impl Lane {
    /// Queues a publication behind those of its channel.
    pub(super) fn push(&self, item: Item, budget: &Budget) -> Result<(), BrokerError> {
        budget.take(item.data.len())?;
        self.waiting.lock().push_back(item);
        self.filled.notify_one();
        Ok(())
    }

    /// Waits for publications and takes those of one channel, in their order.
    ///
    /// Only one task takes from a lane.
    pub(super) async fn take(&self) -> Vec<Item> {
        loop {
            let batch = take_batch(&mut self.waiting.lock());
            if !batch.is_empty() {
                return batch;
            }
            self.filled.notified().await;
        }
    }

    /// Gives back the room of a batch that is done.
    pub(super) fn done(batch: &[Item], budget: &Budget) {
        for item in batch {
            budget.give_back(item.data.len());
        }
    }
}

fn take_batch(waiting: &mut VecDeque<Item>) -> Vec<Item> {
    let Some(first) = waiting.pop_front() else { return Vec::new() };
    let mut bytes = first.data.len();
    let mut batch = vec![first];
    let mut at = 0;
    // Looking further would make a long queue of many channels quadratic.
    while at < waiting.len().min(MAX_BATCH) && batch.len() < MAX_BATCH && bytes < MAX_BATCH_BYTES {
        let same = match (waiting.get(at), batch.first()) {
            (Some(item), Some(first)) => item.channel == first.channel,
            _ => false,
        };
        if !same {
            at += 1;
            continue;
        }
        if let Some(item) = waiting.remove(at) {
            bytes += item.data.len();
            batch.push(item);
        }
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::{Budget, Item, Lane, MAX_BATCH, take_batch};
    use crate::error::BrokerError;
    use crate::namespace::ChannelOptions;
    use bytes::Bytes;
    use std::collections::VecDeque;
    use std::sync::Arc;
    use tokio::sync::oneshot;

    fn item(channel: &str, nonce: u64) -> Item {
        let (answer, _) = oneshot::channel();
        let options = Arc::new(ChannelOptions::default());
        Item { channel: channel.into(), options, data: Bytes::from_static(b"12345"), nonce, answer }
    }

    #[test]
    fn a_batch_has_one_channel_and_keeps_its_order() {
        let mut waiting: VecDeque<_> = [("a", 1), ("b", 2), ("a", 3), ("b", 4), ("a", 5)]
            .map(|(channel, nonce)| item(channel, nonce))
            .into();
        let nonces = |batch: Vec<Item>| batch.iter().map(|item| item.nonce).collect::<Vec<_>>();
        assert_eq!(nonces(take_batch(&mut waiting)), [1, 3, 5]);
        assert_eq!(nonces(take_batch(&mut waiting)), [2, 4]);
        assert!(take_batch(&mut waiting).is_empty());
        let mut many: VecDeque<_> = (0..200).map(|nonce| item("a", nonce)).collect();
        assert_eq!(take_batch(&mut many).len(), MAX_BATCH);
    }

    #[test]
    fn the_budget_holds_and_is_given_back() {
        let budget = Budget::new(2, 12);
        let lane = Lane::default();
        assert_eq!(lane.push(item("a", 1), &budget), Ok(()));
        assert_eq!(lane.push(item("a", 2), &budget), Ok(()));
        assert_eq!(lane.push(item("a", 3), &budget), Err(BrokerError::Full));
        assert_eq!(budget.waiting(), 2);
        let batch = take_batch(&mut lane.waiting.lock());
        Lane::done(&batch, &budget);
        assert_eq!(budget.waiting(), 0);
        let narrow = Budget::new(100, 4);
        assert_eq!(lane.push(item("a", 4), &narrow), Err(BrokerError::Full));
        assert_eq!(narrow.waiting(), 0);
    }
}
