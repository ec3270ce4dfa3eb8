//! `Subscriber`: one subscription's mailbox, and the count of confirmations that it still waits for.

use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
};

use evenkeel_protocol::ServerError;
use parking_lot::Mutex;

use super::{Delivery, registry::Sink};
use crate::mailbox::Mailbox;

#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) mailbox: Mailbox<Delivery>,
    open: Mutex<Open>,
}

/// Subscriptions that were asked for and neither confirmed nor refused.
#[derive(Debug, Default)]
struct Open {
    count: usize,
    refused: Option<ServerError>,
    waker: Option<Waker>,
    closed: bool,
}

/// How the wait for confirmations ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Settled {
    Closed,
    Confirmed,
    Refused(ServerError),
}

impl Subscriber {
    pub(super) fn new(max_bytes: usize, max_messages: usize) -> Arc<Self> {
        Arc::new(Self { mailbox: Mailbox::new(max_bytes, max_messages), open: Mutex::default() })
    }

    /// Counts a subscription that is about to be asked for.
    pub(super) fn expect(&self) {
        self.open.lock().count += 1;
    }

    /// It was not asked for after all.
    pub(super) fn unexpect(&self) {
        self.settle(|open| open.count = open.count.saturating_sub(1));
    }

    /// Ready when every subscription asked for is confirmed, one was refused, or the client closed.
    pub(super) fn poll_settled(&self, cx: &Context<'_>) -> Poll<Settled> {
        let mut open = self.open.lock();
        if let Some(error) = open.refused.take() {
            return Poll::Ready(Settled::Refused(error));
        }
        if open.count == 0 {
            return Poll::Ready(Settled::Confirmed);
        }
        if open.closed {
            return Poll::Ready(Settled::Closed);
        }
        open.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(super) fn close(&self) {
        self.settle(|open| open.closed = true);
        self.mailbox.close();
    }

    fn settle(&self, change: impl FnOnce(&mut Open)) {
        let waker = {
            let mut open = self.open.lock();
            change(&mut open);
            open.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Sink for Arc<Subscriber> {
    fn deliver(&self, delivery: Delivery) {
        match &delivery {
            Delivery::Subscribed { .. } => self.settle(|open| open.count = open.count.saturating_sub(1)),
            Delivery::Refused { error, .. } => {
                let error = error.clone();
                self.settle(|open| {
                    open.count = open.count.saturating_sub(1);
                    open.refused = Some(error);
                });
            }
            _ => {}
        }
        let weight = delivery.weight();
        self.mailbox.put(delivery, weight);
    }
}
