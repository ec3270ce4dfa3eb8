//! One session's connection: the socket, its outbox, and what others have to tell its task.
//!
//! Shards write to the socket themselves as long as it takes what they give; the session's task only waits for
//! a socket that was full. So a publication wakes no task of a session that keeps up.

use super::socket::Socket;
use crate::hub::shard::Sink;
use crate::hub::{Order, Who};
use crate::metrics::Metrics;
use crate::outbox::{Bounds, Outbox, Pushed, Written};
use crate::publication::Channel;
use crate::wire::{Farewell, Protocol, raw};
use crate::ws;
use crate::ws::close::CloseCode;
use crate::ws::deflate::Agreed;
use bytes::Bytes;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

/// Orders of the server API that wait for one session.
const MAX_ORDERS: usize = 1_024;

/// One session's connection.
pub(crate) struct Conn {
    socket: Socket,
    state: Mutex<State>,
    /// Wakes the session's task.
    task: AtomicWaker,
    slot: AtomicUsize,
    /// In the list of sinks to flush.
    marked: AtomicBool,
    /// A heartbeat was sent and nothing has come since.
    unanswered: AtomicBool,
    /// Something was written since the last look.
    progress: AtomicBool,
    protocol: Protocol,
    /// How publications may go out compressed, if at all.
    deflate: Option<Agreed>,
    bounds: Bounds,
    identity: OnceLock<Box<Identity>>,
    /// When the client's permission ends, in seconds since 1970; 0 for never.
    expires: AtomicU64,
    /// When the session wants to see to what ends, in seconds since 1970; 0 for never.
    due: AtomicU64,
    metrics: Arc<Metrics>,
}

/// Who a client is.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) client: Box<str>,
    pub(crate) user: Box<str>,
}

#[derive(Default)]
struct State {
    outbox: Outbox,
    notices: Vec<(Channel, u32)>,
    orders: Vec<Order>,
    failed: bool,
}

/// Why a session's task woke.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Wake {
    /// The last frame is queued; what is left is to say goodbye.
    Closing,
    /// The connection is gone.
    Gone,
    /// The server ended these subscriptions.
    Notices(Vec<(Channel, u32)>),
    /// The server API wants this of the session.
    Orders(Vec<Order>),
    Readable,
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn").field("protocol", &self.protocol).finish_non_exhaustive()
    }
}

impl Conn {
    /// Makes one for a protocol, with or without compression.
    pub(crate) fn new(
        socket: Socket,
        (protocol, deflate): (Protocol, Option<Agreed>),
        bounds: Bounds,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            socket,
            state: Mutex::default(),
            task: AtomicWaker::new(),
            slot: AtomicUsize::new(usize::MAX),
            marked: AtomicBool::new(false),
            unanswered: AtomicBool::new(false),
            progress: AtomicBool::new(false),
            protocol,
            deflate,
            bounds,
            identity: OnceLock::new(),
            expires: AtomicU64::new(0),
            due: AtomicU64::new(0),
            metrics,
        }
    }

    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Ends the session. With `drop_queued` the last frame goes out before anything that still waits.
    pub(crate) fn say_farewell(&self, why: Farewell, drop_queued: bool) {
        self.end(Some(self.protocol.farewell(why)), drop_queued);
    }

    /// Ends a WebSocket with a close code.
    pub(crate) fn close(&self, code: CloseCode) {
        self.end(Some(ws::encode::close(Some(code))), false);
    }

    /// Ends the session with a last frame, or with none.
    pub(crate) fn end(&self, last: Option<Bytes>, drop_queued: bool) {
        self.state.lock().outbox.close(last, drop_queued);
        self.task.wake();
    }

    /// Writes what is queued, as far as the socket takes it.
    pub(crate) fn flush(&self) {
        self.marked.store(false, Ordering::Release);
        let mut state = self.state.lock();
        if state.failed || state.outbox.is_empty() {
            return;
        }
        let mut wrote = false;
        let written = state.outbox.write(|slices| {
            let result = self.socket.try_write_vectored(slices);
            wrote |= result.is_ok();
            result
        });
        if wrote {
            self.progress.store(true, Ordering::Relaxed);
        }
        let wake = match written {
            Written::Blocked => true,
            Written::Drained => state.outbox.is_closing() || !self.socket.is_flushed(),
            Written::Failed => {
                state.failed = true;
                true
            }
        };
        drop(state);
        if wake {
            self.task.wake();
        }
    }

    /// Waits for something to do; writes in passing when the socket takes more.
    pub(crate) fn poll_wake(&self, cx: &mut Context<'_>) -> Poll<Wake> {
        self.task.register(cx.waker());
        {
            let mut state = self.state.lock();
            if state.failed {
                return Poll::Ready(Wake::Gone);
            }
            if state.outbox.is_closing() {
                return Poll::Ready(Wake::Closing);
            }
            if !state.notices.is_empty() {
                return Poll::Ready(Wake::Notices(std::mem::take(&mut state.notices)));
            }
            if !state.orders.is_empty() {
                return Poll::Ready(Wake::Orders(std::mem::take(&mut state.orders)));
            }
        }
        if self.poll_drained(cx) == Poll::Ready(false) {
            return Poll::Ready(Wake::Gone);
        }
        match self.socket.poll_read_ready(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) => Poll::Ready(Wake::Readable),
            Poll::Ready(Err(_gone)) => Poll::Ready(Wake::Gone),
        }
    }

    /// Writes until nothing waits: true then, false when the connection is gone.
    pub(crate) fn poll_drained(&self, cx: &mut Context<'_>) -> Poll<bool> {
        loop {
            {
                let state = self.state.lock();
                if state.failed {
                    return Poll::Ready(false);
                }
                if state.outbox.is_empty() {
                    drop(state);
                    return self.socket.poll_flush(cx).map(|flushed| flushed.is_ok());
                }
                if !state.outbox.is_blocked() && !state.outbox.is_closing() {
                    // Whoever queued it flushes it.
                    return Poll::Pending;
                }
            }
            match self.socket.poll_write_ready(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => self.flush(),
                Poll::Ready(Err(_gone)) => return Poll::Ready(false),
            }
        }
    }

    /// The subscriptions that the server ended since the last look.
    pub(crate) fn notices(&self) -> Vec<(Channel, u32)> {
        std::mem::take(&mut self.state.lock().notices)
    }

    /// Gives the session an order of the server API. One that takes none is given no more than so many.
    pub(crate) fn order(&self, order: &Order) {
        let mut state = self.state.lock();
        if state.orders.len() < MAX_ORDERS {
            state.orders.push(order.clone());
        }
        drop(state);
        self.task.wake();
    }

    /// Who the client is, once it has said so.
    pub(crate) fn is(&self, who: &Who) -> bool {
        let Some(identity) = self.identity.get() else { return false };
        match who {
            Who::Client(client) => identity.client == *client,
            Who::User(user) => identity.user == *user,
        }
    }

    /// The client's id, once it has connected.
    pub(crate) fn client(&self) -> Option<&str> {
        self.identity.get().map(|identity| &*identity.client)
    }

    pub(crate) fn identify(&self, identity: Identity) {
        // A session connects once.
        drop(self.identity.set(Box::new(identity)));
    }

    /// Something came from the client.
    pub(crate) fn heard(&self) {
        self.unanswered.store(false, Ordering::Relaxed);
    }

    /// Sends a heartbeat. While older frames wait their progress stands for the client's life, and a client that
    /// took nothing since the last heartbeat is closed.
    pub(crate) fn ping(&self) {
        let progress = self.progress.swap(false, Ordering::Relaxed);
        if !self.state.lock().outbox.is_empty() {
            if !progress {
                self.say_farewell(Farewell::Slow, true);
            }
            return;
        }
        self.unanswered.store(self.protocol.wants_pong(), Ordering::Relaxed);
        self.push(self.protocol.ping());
        self.flush();
    }

    pub(crate) fn set_expires(&self, at: u64) {
        self.expires.store(at, Ordering::Relaxed);
    }

    pub(crate) fn set_due(&self, at: u64) {
        self.due.store(at, Ordering::Relaxed);
    }

    /// Has a session see to what has ended by `now`.
    pub(crate) fn check_due(&self, now: u64) {
        let due = self.due.load(Ordering::Relaxed);
        if due != 0 && due <= now {
            self.order(&Order::Renew);
        }
    }

    /// Closes a session whose token ended before `since`.
    pub(crate) fn check_expiry(&self, since: u64) {
        let expires = self.expires.load(Ordering::Relaxed);
        if expires != 0 && expires < since {
            self.say_farewell(Farewell::Expired, false);
            self.flush();
        }
    }

    /// Closes a session whose heartbeat was not answered.
    pub(crate) fn check_pong(&self) {
        if self.unanswered.load(Ordering::Relaxed) {
            Metrics::count(&self.metrics.closed_no_pong);
            self.say_farewell(Farewell::NoPong, true);
            self.flush();
        }
    }
}

impl Sink for Conn {
    fn protocol(&self) -> Protocol {
        self.protocol
    }

    fn deflate(&self) -> Option<Agreed> {
        self.deflate
    }

    fn push(&self, frame: Bytes) {
        let pushed = self.state.lock().outbox.push(frame, self.bounds);
        if pushed == Pushed::Overflow {
            Metrics::count(&self.metrics.closed_slow);
            self.say_farewell(Farewell::Slow, true);
        }
    }

    fn write_now(&self, frame: &Bytes) {
        let mut state = self.state.lock();
        let (pushed, written) =
            state.outbox.write_now(frame, self.bounds, |bytes| self.socket.try_write(bytes));
        if (pushed, written) == (Pushed::Queued, Written::Drained) {
            drop(state);
            // Read before it is written, as the line is shared with the session's task.
            if !self.progress.load(Ordering::Relaxed) {
                self.progress.store(true, Ordering::Relaxed);
            }
            if !self.socket.is_flushed() {
                self.task.wake();
            }
            return;
        }
        state.failed |= written == Written::Failed;
        drop(state);
        if pushed == Pushed::Overflow {
            Metrics::count(&self.metrics.closed_slow);
            self.say_farewell(Farewell::Slow, true);
        }
        self.task.wake();
    }

    fn unsubscribed(&self, channel: &Channel, serial: u32) {
        self.state.lock().notices.push((channel.clone(), serial));
        self.task.wake();
    }

    fn end_at_gap(&self) {
        self.close(raw::GAP);
    }

    fn is_client(&self, client: &str) -> bool {
        self.identity.get().is_some_and(|identity| *identity.client == *client)
    }

    fn mark(&self) -> bool {
        !self.marked.swap(true, Ordering::AcqRel)
    }

    fn slot(&self) -> usize {
        self.slot.load(Ordering::Relaxed)
    }

    fn set_slot(&self, slot: usize) {
        self.slot.store(slot, Ordering::Relaxed);
    }
}
