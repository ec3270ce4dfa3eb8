//! `PubSub`: the registry behind one short lock, between subscribers and the machinery.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use evenkeel_protocol::{Push, ServerError};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    Family,
    registry::{Changes, Name, Registry, SubscriberId},
    subscriber::Subscriber,
};

/// Where subscribers and the subscription links meet.
///
/// The machinery's loop: wait for [`changed`](Self::changed), take [`take_changes`](Self::take_changes) and send them;
/// hand every message, confirmation and end to [`push`](Self::push), and say [`gap`](Self::gap) where messages may be
/// missing although the subscriptions stand.
pub(crate) struct PubSub {
    max_bytes: usize,
    max_messages: usize,
    next_id: AtomicU64,
    changed: Notify,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    registry: Registry<Arc<Subscriber>>,
    subscribers: BTreeMap<SubscriberId, Arc<Subscriber>>,
    closed: bool,
}

impl PubSub {
    pub(crate) fn new(max_bytes: usize, max_messages: usize) -> Self {
        Self {
            max_bytes,
            max_messages,
            next_id: AtomicU64::new(1),
            changed: Notify::new(),
            state: Mutex::default(),
        }
    }

    pub(super) fn open(&self) -> (SubscriberId, Arc<Subscriber>) {
        let id = SubscriberId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let subscriber = Subscriber::new(self.max_bytes, self.max_messages);
        let mut state = self.state.lock();
        if state.closed {
            subscriber.close();
        } else {
            state.subscribers.insert(id, Arc::clone(&subscriber));
        }
        (id, subscriber)
    }

    pub(super) fn join(&self, id: SubscriberId, subscriber: &Arc<Subscriber>, names: &[Name]) {
        let mut state = self.state.lock();
        for name in names {
            // Before, for it may be confirmed at once.
            subscriber.expect();
            if !state.registry.join(id, name.clone(), subscriber) {
                subscriber.unexpect();
            }
        }
        self.notify(&state);
    }

    pub(super) fn leave(&self, id: SubscriberId, names: impl IntoIterator<Item = Name>) {
        let mut state = self.state.lock();
        for name in names {
            state.registry.leave(id, name);
        }
        self.notify(&state);
    }

    pub(super) fn close_one(&self, id: SubscriberId, names: impl IntoIterator<Item = Name>) {
        self.leave(id, names);
        let gone = self.state.lock().subscribers.remove(&id);
        drop(gone);
    }

    fn notify(&self, state: &State) {
        if state.registry.has_changes() {
            self.changed.notify_one();
        }
    }
}

/// The side of the machinery.
impl PubSub {
    /// Waits until there are changes to send. One waiter at a time.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub(crate) async fn changed(&self) {
        loop {
            if self.state.lock().registry.has_changes() {
                return;
            }
            self.changed.notified().await;
        }
    }

    /// What must be said to the server since the last time, unsubscriptions first.
    pub(crate) fn take_changes(&self) -> Changes {
        self.state.lock().registry.take_changes()
    }

    /// Everything that somebody wants.
    pub(crate) fn wanted(&self) -> Vec<Name> {
        self.state.lock().registry.wanted()
    }

    /// Hands in what the server said; true when it was about subscriptions.
    pub(crate) fn push(&self, push: &Push) -> bool {
        let mut state = self.state.lock();
        let ours = state.registry.push(push);
        self.notify(&state);
        ours
    }

    /// Another link took over these subscriptions without an exact cut.
    pub(crate) fn gap(&self, may_repeat: bool, on_link: impl Fn(Family, &Bytes) -> bool) {
        self.state.lock().registry.gap(may_repeat, on_link);
    }

    /// A subscription is carried to another link from here on.
    pub(crate) fn moved(&self, family: Family, name: &Bytes) {
        self.state.lock().registry.moved(family, name);
    }

    /// Whether anybody wants a subscription.
    pub(crate) fn is_wanted(&self, family: Family, name: &Bytes) -> bool {
        self.state.lock().registry.is_wanted(family, name)
    }

    /// The server refused a subscription.
    pub(crate) fn refused(&self, family: Family, name: &Bytes, error: &ServerError) {
        self.state.lock().registry.refused(family, name, error);
    }

    /// Ends every subscription behind what it still holds.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.registry = Registry::default();
        for subscriber in std::mem::take(&mut state.subscribers).into_values() {
            subscriber.close();
        }
    }
}

impl fmt::Debug for PubSub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("PubSub")
            .field("subscribers", &state.subscribers.len())
            .field("wanted", &state.registry.wanted().len())
            .finish_non_exhaustive()
    }
}
