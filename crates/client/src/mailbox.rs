//! `Mailbox`: a bounded queue for one listener that drops its oldest and says how many; nobody ever waits to put.

use std::{
    collections::VecDeque,
    fmt,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;

/// What a listener finds.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken<T> {
    Item(T),
    /// So many were dropped at this place.
    Missed(u64),
}

/// A bounded queue with one listener and any number of putters.
pub(crate) struct Mailbox<T> {
    max_weight: usize,
    max_items: usize,
    state: Mutex<State<T>>,
}

struct State<T> {
    queue: VecDeque<(T, usize)>,
    weight: usize,
    missed: u64,
    waker: Option<Waker>,
    closed: bool,
}

impl<T> Mailbox<T> {
    /// At most `max_items` of `max_weight` together; a single item may weigh more.
    pub(crate) fn new(max_weight: usize, max_items: usize) -> Self {
        let state = State { queue: VecDeque::new(), weight: 0, missed: 0, waker: None, closed: false };
        Self { max_weight, max_items: max_items.max(1), state: Mutex::new(state) }
    }

    /// Puts an item behind the others; where it does not fit, the oldest make room.
    pub(crate) fn put(&self, item: T, weight: usize) {
        // What is dropped is dropped after the lock.
        let mut dropped = Vec::new();
        let waker = {
            let mut state = self.state.lock();
            if state.closed {
                return;
            }
            while state.queue.len() >= self.max_items || state.weight.saturating_add(weight) > self.max_weight
            {
                let Some((oldest, weight)) = state.queue.pop_front() else { break };
                state.weight = state.weight.saturating_sub(weight);
                state.missed = state.missed.saturating_add(1);
                dropped.push(oldest);
            }
            state.weight = state.weight.saturating_add(weight);
            state.queue.push_back((item, weight));
            state.waker.take()
        };
        drop(dropped);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The next item; `None` behind the last one of a closed mailbox.
    pub(crate) fn poll_take(&self, cx: &Context<'_>) -> Poll<Option<Taken<T>>> {
        let mut state = self.state.lock();
        if let Some(taken) = state.take() {
            return Poll::Ready(Some(taken));
        }
        if state.closed {
            return Poll::Ready(None);
        }
        match &mut state.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            empty => *empty = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// The next item, if there is one by now.
    pub(crate) fn try_take(&self) -> Option<Taken<T>> {
        self.state.lock().take()
    }

    /// Takes no more; what is in it can still be taken.
    pub(crate) fn close(&self) {
        let waker = {
            let mut state = self.state.lock();
            state.closed = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> State<T> {
    fn take(&mut self) -> Option<Taken<T>> {
        // The dropped ones were the oldest, so their number comes before what is left.
        if self.missed > 0 {
            return Some(Taken::Missed(std::mem::take(&mut self.missed)));
        }
        let (item, weight) = self.queue.pop_front()?;
        self.weight = self.weight.saturating_sub(weight);
        Some(Taken::Item(item))
    }
}

impl<T> fmt::Debug for Mailbox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("Mailbox")
            .field("items", &state.queue.len())
            .field("weight", &state.weight)
            .field("missed", &state.missed)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drain<T>(mailbox: &Mailbox<T>) -> Vec<Taken<T>> {
        std::iter::from_fn(|| mailbox.try_take()).collect()
    }

    #[test]
    fn the_oldest_make_room_and_are_counted_where_they_were() {
        let mailbox = Mailbox::new(100, 3);
        for item in 0..5 {
            mailbox.put(item, 1);
        }
        let expected = [Taken::Missed(2), Taken::Item(2), Taken::Item(3), Taken::Item(4)];
        assert_eq!(drain(&mailbox), expected);
        mailbox.put(5, 60);
        mailbox.put(6, 60);
        assert_eq!(drain(&mailbox), [Taken::Missed(1), Taken::Item(6)]);
    }

    #[test]
    fn one_item_may_be_heavier_than_the_cap() {
        let mailbox = Mailbox::new(10, 3);
        mailbox.put("small", 1);
        mailbox.put("huge", 1000);
        assert_eq!(drain(&mailbox), [Taken::Missed(1), Taken::Item("huge")]);
    }

    #[test]
    fn a_closed_mailbox_gives_what_it_has_and_then_ends() {
        let mailbox = Mailbox::new(10, 3);
        let cx = &Context::from_waker(Waker::noop());
        assert_eq!(mailbox.poll_take(cx), Poll::Pending);
        mailbox.put(1, 1);
        mailbox.close();
        mailbox.put(2, 1);
        assert_eq!(mailbox.poll_take(cx), Poll::Ready(Some(Taken::Item(1))));
        assert_eq!(mailbox.poll_take(cx), Poll::Ready(None));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_uncounted_or_out_of_order(
            steps in prop::collection::vec((0u8..3, 1usize..40), 0..200),
            max_weight in 1usize..100,
            max_items in 1usize..20,
        ) {
            let mailbox = Mailbox::new(max_weight, max_items);
            let (mut put, mut expected) = (0u64, 0u64);
            for (step, weight) in steps {
                if step > 0 {
                    mailbox.put(put, weight);
                    put += 1;
                } else {
                    match mailbox.try_take() {
                        Some(Taken::Item(item)) => {
                            prop_assert_eq!(item, expected);
                            expected += 1;
                        }
                        Some(Taken::Missed(missed)) => expected += missed,
                        None => prop_assert_eq!(expected, put),
                    }
                }
                let state = mailbox.state.lock();
                prop_assert!(state.queue.len() <= max_items);
                prop_assert!(state.weight <= max_weight || state.queue.len() == 1);
            }
        }
    }
}
