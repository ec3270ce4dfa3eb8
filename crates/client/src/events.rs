//! What happens to the connections, as a typed stream and as `tracing` events with the target `evenkeel::events`.
//!
//! | event | text of the `tracing` event | fields |
//! |---|---|---|
//! | [`Event::Connected`] | `Redis connected` | `endpoint`, `again` |
//! | [`Event::Reconnecting`] | `Redis reconnecting` | `endpoint`, `attempt`, `delay_ms` |
//! | [`Event::FailoverCompleted`] | `Redis failover completed` | `from`, `to`, `took_ms` |
//! | [`Event::SlotMoved`] | `Redis cluster slot moved` | `first`, `last`, `from`, `to` |
//! | [`Event::OutOfStep`] | `Redis replies out of step` (level warn) | `endpoint`, `cause` |
//! | [`Event::HandedOff`] | `Redis connections handed off` | `from`, `to`, `took_ms` |

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};

use evenkeel_protocol::Endpoint;
use futures_core::Stream;
use parking_lot::Mutex;

use crate::mailbox::{Mailbox, Taken};

/// Events that wait for a listener before the oldest are dropped: a resharding of a whole cluster, range by range.
const BACKLOG: usize = 4096;

/// Something that happened to the connections.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection stands: the first to its endpoint, or after a loss.
    Connected {
        /// With whom.
        endpoint: Endpoint,
        /// True after a loss.
        again: bool,
    },
    /// A primary was replaced, and the first command can run on the new one.
    FailoverCompleted {
        /// The old primary, where it is known.
        from: Option<Endpoint>,
        /// The new primary.
        to: Endpoint,
        /// From the first sign of the failover on.
        took: Duration,
    },
    /// Announced maintenance moved the connections of an endpoint before it happened.
    HandedOff {
        /// The old address.
        from: Endpoint,
        /// The new address.
        to: Endpoint,
        /// From the announcement to the first attempt: clients spread over a little time.
        waited: Duration,
        /// From the announcement on.
        took: Duration,
        /// Connections that were moved.
        moved: u32,
        /// Connections that were left to the server's close and to ordinary reconnection.
        abandoned: u32,
    },
    /// The listener was too slow, and so many events were dropped here.
    Lagged {
        /// How many.
        missed: u64,
    },
    /// A connection was closed because its replies did not fit its commands: the peer, or a proxy before it, breaks the
    /// protocol.
    ///
    /// What was in flight is told as unknown. Where the sentry found it ([`Disorder::Sentry`]), replies that were handed
    /// out since its last proof may have been others' too: nobody can tell.
    OutOfStep {
        /// With whom.
        endpoint: Endpoint,
        /// What showed it.
        cause: Disorder,
    },
    /// A connection was lost and is dialled again.
    Reconnecting {
        /// With whom.
        endpoint: Endpoint,
        /// The number of the dial, from 1.
        attempt: u32,
        /// The wait before it.
        delay: Duration,
    },
    /// A range of slots has a new owner; once for each range, failovers included.
    SlotMoved {
        /// The first slot.
        first: u16,
        /// The last slot, included.
        last: u16,
        /// The old owner, where it is known.
        from: Option<Endpoint>,
        /// The new owner.
        to: Endpoint,
    },
}

/// What shows that replies and commands of a connection do not fit.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disorder {
    /// Bytes that are no reply, or one over a limit.
    NotResp,
    /// The sentry got another answer than its own.
    Sentry,
    /// A reply that nobody asked for.
    Unasked,
}

impl Disorder {
    const fn name(self) -> &'static str {
        match self {
            Self::NotResp => "no reply of Redis",
            Self::Sentry => "another answer than the sentry's",
            Self::Unasked => "a reply that nobody asked for",
        }
    }
}

impl Event {
    fn trace(&self) {
        const NONE: &str = "unknown";
        let shown = |endpoint: &Option<Endpoint>| {
            endpoint.as_ref().map_or_else(|| NONE.to_owned(), ToString::to_string)
        };
        let millis = |time: &Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        match self {
            Self::Connected { endpoint, again } => {
                tracing::info!(target: "evenkeel::events", %endpoint, again, "Redis connected");
            }
            Self::FailoverCompleted { from, to, took } => {
                let (from, took_ms) = (shown(from), millis(took));
                tracing::info!(target: "evenkeel::events", from, %to, took_ms, "Redis failover completed");
            }
            Self::HandedOff { from, to, took, .. } => {
                let took_ms = millis(took);
                tracing::info!(target: "evenkeel::events", %from, %to, took_ms, "Redis connections handed off");
            }
            Self::OutOfStep { endpoint, cause } => {
                let cause = cause.name();
                tracing::warn!(target: "evenkeel::events", %endpoint, cause, "Redis replies out of step");
            }
            // It tells one listener about itself.
            Self::Lagged { .. } => {}
            Self::Reconnecting { endpoint, attempt, delay } => {
                let delay_ms = millis(delay);
                tracing::info!(target: "evenkeel::events", %endpoint, attempt, delay_ms, "Redis reconnecting");
            }
            Self::SlotMoved { first, last, from, to } => {
                let from = shown(from);
                tracing::info!(target: "evenkeel::events", first, last, from, %to, "Redis cluster slot moved");
            }
        }
    }
}

/// Tells every listener, and never waits for one.
#[derive(Debug, Default)]
pub(crate) struct Events {
    listeners: Mutex<Vec<Weak<Mailbox<Event>>>>,
}

impl Events {
    pub(crate) fn listen(&self) -> EventStream {
        let mailbox = Arc::new(Mailbox::new(BACKLOG, BACKLOG));
        let mut listeners = self.listeners.lock();
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(Arc::downgrade(&mailbox));
        EventStream { mailbox }
    }

    pub(crate) fn emit(&self, event: &Event) {
        event.trace();
        for listener in self.listeners.lock().iter().filter_map(Weak::upgrade) {
            listener.put(event.clone(), 1);
        }
    }

    /// Ends every stream behind what it still holds.
    pub(crate) fn close(&self) {
        for listener in self.listeners.lock().drain(..).filter_map(|listener| listener.upgrade()) {
            listener.close();
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.close();
    }
}

/// The events of a client from [`Client::events`](crate::Client::events) on.
///
/// A listener that is slower than 4096 events loses the oldest and finds [`Event::Lagged`] in their place.
#[derive(Debug)]
pub struct EventStream {
    mailbox: Arc<Mailbox<Event>>,
}

impl EventStream {
    /// The next event; `None` when the client is closed.
    ///
    /// # Cancel safety
    /// Dropping the future loses no event.
    pub async fn recv(&mut self) -> Option<Event> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    fn poll_recv(&self, cx: &Context<'_>) -> Poll<Option<Event>> {
        Poll::Ready(ready!(self.mailbox.poll_take(cx)).map(|taken| match taken {
            Taken::Item(event) => event,
            Taken::Missed(missed) => Event::Lagged { missed },
        }))
    }
}

impl Stream for EventStream {
    type Item = Event;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.poll_recv(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fmt::Write as _,
        sync::atomic::{AtomicU64, Ordering},
    };

    use futures_util::{FutureExt as _, StreamExt as _};
    use tracing::{
        Metadata, Subscriber,
        field::{Field, Visit},
        span,
    };

    use super::*;

    fn here() -> Endpoint {
        Endpoint::new("127.0.0.1", 6379)
    }

    fn all() -> [Event; 6] {
        let took = Duration::from_millis(12);
        [
            Event::Connected { endpoint: here(), again: true },
            Event::Reconnecting { endpoint: here(), attempt: 2, delay: Duration::from_millis(100) },
            Event::FailoverCompleted { from: None, to: here(), took },
            Event::SlotMoved { first: 1, last: 9, from: Some(here()), to: here() },
            Event::HandedOff { from: here(), to: here(), waited: took, took, moved: 3, abandoned: 0 },
            Event::OutOfStep { endpoint: here(), cause: Disorder::Unasked },
        ]
    }

    #[test]
    fn every_listener_hears_what_happens_from_then_on() {
        let events = Events::default();
        let [connected, reconnecting, ..] = all();
        let mut early = events.listen();
        events.emit(&connected);
        let mut late = events.listen();
        events.emit(&reconnecting);
        drop(events);
        let early: Vec<Event> = early.by_ref().collect::<Vec<_>>().now_or_never().unwrap();
        assert_eq!(early, [connected, reconnecting.clone()]);
        assert_eq!(late.recv().now_or_never(), Some(Some(reconnecting)));
        assert_eq!(late.recv().now_or_never(), Some(None));
    }

    #[test]
    fn a_slow_listener_is_told_how_much_it_missed() {
        let events = Events::default();
        let mut slow = events.listen();
        let [connected, ..] = all();
        for _ in 0..BACKLOG + 3 {
            events.emit(&connected);
        }
        assert_eq!(slow.recv().now_or_never(), Some(Some(Event::Lagged { missed: 3 })));
        assert_eq!(slow.recv().now_or_never(), Some(Some(connected)));
    }

    /// Writes events down as text.
    #[derive(Clone, Default)]
    struct Record(Arc<Mutex<Vec<String>>>, Arc<AtomicU64>);

    struct Line(String);

    impl Visit for Line {
        fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
            write!(self.0, " {field}={value:?}").unwrap();
        }
    }

    impl Subscriber for Record {
        fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _span: &span::Attributes<'_>) -> span::Id {
            span::Id::from_u64(1 + self.1.fetch_add(1, Ordering::Relaxed))
        }

        fn record(&self, _span: &span::Id, _values: &span::Record<'_>) {}

        fn record_follows_from(&self, _span: &span::Id, _follows: &span::Id) {}

        fn event(&self, event: &tracing::Event<'_>) {
            let mut line = Line(format!("{} {}", event.metadata().target(), event.metadata().level()));
            event.record(&mut line);
            self.0.lock().push(line.0);
        }

        fn enter(&self, _span: &span::Id) {}

        fn exit(&self, _span: &span::Id) {}
    }

    #[test]
    fn each_event_is_traced_with_its_exact_text() {
        let record = Record::default();
        tracing::subscriber::with_default(record.clone(), || {
            let events = Events::default();
            let emit_all = || all().iter().for_each(|event| events.emit(event));
            // Another test, which nobody records, may be the first to come by an event, and would have it switched off.
            emit_all();
            tracing::callsite::rebuild_interest_cache();
            record.0.lock().clear();
            emit_all();
        });
        let lines = record.0.lock();
        let expected = [
            "evenkeel::events INFO message=Redis connected endpoint=127.0.0.1:6379 again=true",
            "evenkeel::events INFO message=Redis reconnecting endpoint=127.0.0.1:6379 attempt=2 delay_ms=100",
            "evenkeel::events INFO message=Redis failover completed from=\"unknown\" to=127.0.0.1:6379 took_ms=12",
            "evenkeel::events INFO message=Redis cluster slot moved first=1 last=9 from=\"127.0.0.1:6379\" to=127.0.0.1:6379",
            "evenkeel::events INFO message=Redis connections handed off from=127.0.0.1:6379 to=127.0.0.1:6379 took_ms=12",
            "evenkeel::events WARN message=Redis replies out of step endpoint=127.0.0.1:6379 cause=\"a reply that nobody asked for\"",
        ];
        assert_eq!(*lines, expected);
    }
}
