//! One shard of the hub: its sessions, and which of them hear which channel.
//!
//! A plain struct: it pushes frames into sinks and decides who hears what. It keeps the promise that a
//! subscriber of a channel with history sees every offset once and in order, or is told to come again.
//!
//! A subscription of a channel with history is *joining* first: publications are held while the session reads
//! the history, and those that the history did not have follow when it is activated. One of a channel without
//! history joins too where the session reads who is there, so that it hears of everybody who comes after that.

mod away;

use self::away::Away;
use crate::publication::{Channel, Epoch, Publication};
use crate::wire::Protocol;
use crate::ws::deflate::Agreed;
use bytes::Bytes;
use slab::Slab;
use std::collections::HashMap;
use std::sync::Arc;

/// Publications held for one joining subscription; beyond it the client is told to come again.
const MAX_HELD: usize = 1_024;
/// The offset of a subscription that takes whatever comes next.
const ADRIFT: u64 = u64::MAX;

/// Where the shard puts frames for one session.
pub(crate) trait Sink {
    /// The protocol that the session speaks.
    fn protocol(&self) -> Protocol;
    /// How publications may go out compressed, if at all.
    fn deflate(&self) -> Option<Agreed> {
        None
    }
    /// Queues a frame; a session that cannot take it closes itself.
    fn push(&self, frame: Bytes);
    /// Gives a frame straight to the socket, unless others wait before it.
    fn write_now(&self, frame: &Bytes);
    /// Tells the session that it no longer hears `channel`. Comes before the frame that tells the client.
    fn unsubscribed(&self, channel: &Channel, serial: u32);
    /// Ends the session: publications may be missing, and its protocol cannot say so.
    fn end_at_gap(&self);
    /// Whether the client has this id.
    fn is_client(&self, client: &str) -> bool;
    /// Marks the sink as written to; true when it was not marked before.
    fn mark(&self) -> bool;
    /// The place of the session in its shard.
    fn slot(&self) -> usize;
    fn set_slot(&self, slot: usize);
}

/// Why a subscription ended by the server's will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Continuity cannot be shown: the client subscribes again and learns what is missing.
    Insufficient,
    /// The server API asked for it: the client stays unsubscribed.
    ByServer,
}

/// One shard.
#[derive(Debug)]
pub(crate) struct Shard<S> {
    sessions: Slab<Session<S>>,
    channels: Slab<ChannelState<S>>,
    by_name: HashMap<Channel, usize>,
    away: Away<S>,
}

#[derive(Debug)]
struct Session<S> {
    sink: Arc<S>,
    subscriptions: Vec<Place>,
}

/// Where a subscription stands: the channel's index, and its index in that channel's list.
#[derive(Clone, Copy, Debug)]
struct Place {
    channel: usize,
    index: usize,
}

#[derive(Debug)]
struct ChannelState<S> {
    name: Channel,
    epoch: Option<Epoch>,
    subscribers: Vec<Subscriber<S>>,
}

/// One subscription.
///
/// ```text
/// joining (held: Some) --activate--> live (held: None) --gap, new epoch, server--> ended
/// ended at a gap of a channel without history --> away, until its client subscribes again
/// ```
#[derive(Debug)]
struct Subscriber<S> {
    sink: Arc<S>,
    /// The session's own number for the subscription.
    serial: u32,
    /// The highest offset given to the session.
    offset: u64,
    held: Option<Vec<Arc<Publication>>>,
    /// Whether there was a gap while it was joining.
    missed: bool,
    /// Whether the server ended it while it was joining: its client is told when it stands.
    expelled: bool,
}

impl<S> Default for Shard<S> {
    fn default() -> Self {
        Self { sessions: Slab::new(), channels: Slab::new(), by_name: HashMap::new(), away: Away::default() }
    }
}

impl<S: Sink> Shard<S> {
    /// Takes a session in.
    pub(crate) fn attach(&mut self, sink: Arc<S>) {
        let entry = self.sessions.vacant_entry();
        sink.set_slot(entry.key());
        entry.insert(Session { sink, subscriptions: Vec::new() });
    }

    /// Lets a session go, with all its subscriptions.
    pub(crate) fn detach(&mut self, sink: &Arc<S>) {
        if !self.knows(sink) {
            return;
        }
        self.away.give_up(None, |other| std::ptr::eq(other, Arc::as_ptr(sink)));
        let session = self.sessions.remove(sink.slot());
        // Two subscriptions of one session are never in one channel, so none of these places moves another.
        for place in session.subscriptions {
            self.drop_subscriber(place);
        }
    }

    /// Subscribes a session, which joins: publications are held until [`Self::activate`] or [`Self::open`].
    pub(crate) fn subscribe(&mut self, sink: &Arc<S>, channel: &Channel, serial: u32) {
        if !self.knows(sink) || self.place(sink, channel).is_some() {
            return;
        }
        let index = if let Some(index) = self.by_name.get(channel) {
            *index
        } else {
            let state = ChannelState { name: channel.clone(), epoch: None, subscribers: Vec::new() };
            let index = self.channels.insert(state);
            self.by_name.insert(channel.clone(), index);
            index
        };
        let Some(state) = self.channels.get_mut(index) else { return };
        let held = Some(self.away.take(sink, channel));
        state.subscribers.push(Subscriber {
            sink: sink.clone(),
            serial,
            offset: ADRIFT,
            held,
            missed: false,
            expelled: false,
        });
        let place = Place { channel: index, index: state.subscribers.len() - 1 };
        if let Some(session) = self.sessions.get_mut(sink.slot()) {
            session.subscriptions.push(place);
        }
    }

    /// Makes a joining subscription live after `offset` of `epoch`, with what was held since.
    pub(crate) fn activate(
        &mut self,
        sink: &Arc<S>,
        channel: &Channel,
        epoch: &Epoch,
        offset: u64,
        dirty: &mut Vec<Arc<S>>,
    ) {
        let Some(place) = self.place(sink, channel) else { return };
        if self
            .channels
            .get(place.channel)
            .and_then(|state| state.epoch.as_ref())
            .is_some_and(|known| known != epoch)
        {
            // The session read the history after everyone else: its epoch is the newer one.
            self.end_live(place.channel, dirty);
        }
        let Some(place) = self.place(sink, channel) else { return };
        let Some(state) = self.channels.get_mut(place.channel) else { return };
        state.epoch = Some(epoch.clone());
        let Some(subscriber) = state.subscribers.get_mut(place.index) else { return };
        subscriber.offset = offset;
        let held = subscriber.held.take().unwrap_or_default();
        if subscriber.expelled {
            self.end(place, Ended::ByServer, dirty);
            return;
        }
        let whole = held.len() < MAX_HELD;
        let fits = whole
            && held
                .iter()
                .all(|publication| subscriber.offer(epoch, publication, false, dirty) != Offered::Gap);
        if !fits {
            self.end(place, Ended::Insufficient, dirty);
        }
    }

    /// Makes a subscription of a channel without history live: a joining one with what was held since, another
    /// from now on.
    pub(crate) fn open(&mut self, sink: &Arc<S>, channel: &Channel, serial: u32, dirty: &mut Vec<Arc<S>>) {
        if self.place(sink, channel).is_none() {
            self.subscribe(sink, channel, serial);
        }
        let Some(place) = self.place(sink, channel) else { return };
        let Some(state) = self.channels.get_mut(place.channel) else { return };
        let Some(subscriber) = state.subscribers.get_mut(place.index) else { return };
        let Some(held) = subscriber.held.take() else { return };
        if subscriber.expelled {
            self.end(place, Ended::ByServer, dirty);
            return;
        }
        if subscriber.missed || held.len() >= MAX_HELD {
            self.end(place, Ended::Insufficient, dirty);
            return;
        }
        for publication in &held {
            subscriber.give(publication, false, dirty);
        }
    }

    /// Ends a subscription because its session asked for it.
    pub(crate) fn unsubscribe(&mut self, sink: &Arc<S>, channel: &Channel) {
        self.away.give_up(Some(channel), |other| std::ptr::eq(other, Arc::as_ptr(sink)));
        let Some(place) = self.place(sink, channel) else { return };
        self.forget(sink, place);
        self.drop_subscriber(place);
    }

    /// Ends the subscriptions of a channel that `chosen` picks, by the server's will, and tells the clients; joining ones as
    /// soon as they stand.
    pub(crate) fn expel(&mut self, channel: &Channel, chosen: impl Fn(&S) -> bool, dirty: &mut Vec<Arc<S>>) {
        self.away.give_up(Some(channel), &chosen);
        if let Some(channel) = self.by_name.get(channel).copied() {
            if let Some(state) = self.channels.get_mut(channel) {
                for subscriber in state.subscribers.iter_mut().filter(|one| one.held.is_some()) {
                    subscriber.expelled |= chosen(&subscriber.sink);
                }
            }
            self.end_where(channel, Ended::ByServer, chosen, dirty);
        }
    }

    /// Ends every live subscription of a channel: publications may have been missed.
    pub(crate) fn gap(&mut self, channel: &Channel, dirty: &mut Vec<Arc<S>>) {
        self.away.gap(channel);
        if let Some(channel) = self.by_name.get(channel).copied() {
            if let Some(state) = self.channels.get_mut(channel) {
                for subscriber in state.subscribers.iter_mut().filter(|one| one.held.is_some()) {
                    subscriber.missed = true;
                }
            }
            self.end_live(channel, dirty);
        }
    }

    /// Gives a publication to every subscriber; returns how many took it.
    ///
    /// With `alone` nothing else is to be delivered in the same wave, and sockets are written to at once; else
    /// what a wave brings a session goes out together when the sinks in `dirty` are flushed.
    pub(crate) fn publish(
        &mut self,
        publication: &Arc<Publication>,
        alone: bool,
        dirty: &mut Vec<Arc<S>>,
    ) -> usize {
        if publication.position().is_none() {
            self.away.hold(publication);
        }
        let Some(channel) = self.by_name.get(publication.channel()).copied() else { return 0 };
        let Some(state) = self.channels.get_mut(channel) else { return 0 };
        let Some(position) = publication.position() else {
            for subscriber in &mut state.subscribers {
                match &mut subscriber.held {
                    Some(held) if held.len() < MAX_HELD => held.push(publication.clone()),
                    Some(_) => {}
                    None => subscriber.give(publication, alone, dirty),
                }
            }
            return state.subscribers.len();
        };
        if state.epoch.as_ref().is_some_and(|epoch| *epoch != position.epoch) {
            // Either the epoch is new or the publication is old; who comes again learns which.
            self.end_live(channel, dirty);
        }
        let Some(state) = self.channels.get_mut(channel) else { return 0 };
        if state.epoch.is_none() {
            state.epoch = Some(position.epoch.clone());
        }
        let mut gaps = Vec::new();
        let mut taken = 0;
        for (index, subscriber) in state.subscribers.iter_mut().enumerate() {
            if let Some(held) = &mut subscriber.held {
                if held.len() < MAX_HELD {
                    held.push(publication.clone());
                }
                continue;
            }
            match subscriber.offer(&position.epoch, publication, alone, dirty) {
                Offered::Gap => gaps.push(index),
                Offered::Old => {}
                Offered::Taken => taken += 1,
            }
        }
        // From the back, as each removal moves the last one.
        for index in gaps.into_iter().rev() {
            let stays = self.end(Place { channel, index }, Ended::Insufficient, dirty);
            let subscriber = self
                .channels
                .get_mut(channel)
                .and_then(|state| state.subscribers.get_mut(index))
                .filter(|_| stays);
            if let Some(subscriber) = subscriber {
                subscriber.offer(&position.epoch, publication, false, dirty);
                taken += 1;
            }
        }
        taken
    }

    /// Ends every live subscription of a channel whose epoch is not `epoch`.
    pub(crate) fn new_epoch(&mut self, channel: &Channel, epoch: &Epoch, dirty: &mut Vec<Arc<S>>) {
        let Some(index) = self.by_name.get(channel).copied() else { return };
        let known = self.channels.get(index).and_then(|state| state.epoch.clone());
        if known.is_some_and(|known| known != *epoch) {
            self.end_live(index, dirty);
        }
    }

    /// A second has passed.
    pub(crate) fn tick(&mut self) {
        self.away.tick();
    }

    /// Visits the sessions whose slot is `phase` in a cycle of `cycle`.
    pub(crate) fn visit(&self, phase: usize, cycle: usize, mut visit: impl FnMut(&Arc<S>)) {
        let mut slot = phase;
        let end = self.sessions.capacity();
        while slot < end {
            if let Some(session) = self.sessions.get(slot) {
                visit(&session.sink);
            }
            slot += cycle.max(1);
        }
    }

    /// Sessions attached.
    pub(crate) fn sessions(&self) -> usize {
        self.sessions.len()
    }

    fn knows(&self, sink: &Arc<S>) -> bool {
        self.sessions.get(sink.slot()).is_some_and(|session| Arc::ptr_eq(&session.sink, sink))
    }

    fn place(&self, sink: &Arc<S>, channel: &Channel) -> Option<Place> {
        let index = *self.by_name.get(channel)?;
        let session = self.sessions.get(sink.slot())?;
        if !Arc::ptr_eq(&session.sink, sink) {
            return None;
        }
        session.subscriptions.iter().copied().find(|place| place.channel == index)
    }

    fn forget(&mut self, sink: &Arc<S>, place: Place) {
        if let Some(session) = self.sessions.get_mut(sink.slot()) {
            session.subscriptions.retain(|other| other.channel != place.channel);
        }
    }

    /// Takes a subscriber off its channel's list and mends the place of the one that moved.
    fn drop_subscriber(&mut self, place: Place) {
        let Some(state) = self.channels.get_mut(place.channel) else { return };
        if place.index >= state.subscribers.len() {
            return;
        }
        state.subscribers.swap_remove(place.index);
        if let Some(moved) = state.subscribers.get(place.index) {
            let session = self.sessions.get_mut(moved.sink.slot());
            let theirs = session.and_then(|session| {
                session.subscriptions.iter_mut().find(|other| other.channel == place.channel)
            });
            if let Some(theirs) = theirs {
                theirs.index = place.index;
            }
        }
        if state.subscribers.is_empty() {
            let state = self.channels.remove(place.channel);
            self.by_name.remove(&state.name);
        }
    }

    /// Ends a subscription; true when it stays after all, as its protocol only tells of the gap.
    fn end(&mut self, place: Place, why: Ended, dirty: &mut Vec<Arc<S>>) -> bool {
        let Some(state) = self.channels.get_mut(place.channel) else { return false };
        let Some(subscriber) = state.subscribers.get(place.index) else { return false };
        let sink = subscriber.sink.clone();
        let frame = sink.protocol().encode_end(&state.name, why);
        if why == Ended::Insufficient && !sink.protocol().resubscribes() {
            if sink.protocol().ends_at_gap() {
                sink.end_at_gap();
                return false;
            }
            if let Some(frame) = frame {
                give(&sink, frame, dirty);
            }
            if let Some(subscriber) = state.subscribers.get_mut(place.index) {
                subscriber.offset = ADRIFT;
            }
            return true;
        }
        sink.unsubscribed(&state.name, subscriber.serial);
        if let Some(frame) = frame {
            give(&sink, frame, dirty);
        }
        // Where there is history, that tells what came meanwhile.
        if why == Ended::Insufficient && subscriber.offset == ADRIFT {
            self.away.wait(sink.clone(), &state.name);
        }
        self.forget(&sink, place);
        self.drop_subscriber(place);
        false
    }

    /// Ends the live subscriptions of a channel; joining ones go on, as their history is still to be read.
    fn end_live(&mut self, channel: usize, dirty: &mut Vec<Arc<S>>) {
        if let Some(state) = self.channels.get_mut(channel) {
            state.epoch = None;
        }
        self.end_where(channel, Ended::Insufficient, |_| true, dirty);
    }

    fn end_where(
        &mut self,
        channel: usize,
        why: Ended,
        chosen: impl Fn(&S) -> bool,
        dirty: &mut Vec<Arc<S>>,
    ) {
        let mut index = self.channels.get(channel).map_or(0, |state| state.subscribers.len());
        // From the back, as each removal moves the last one.
        while index > 0 {
            index -= 1;
            let ends = self
                .channels
                .get(channel)
                .and_then(|state| state.subscribers.get(index))
                .is_some_and(|subscriber| subscriber.held.is_none() && chosen(&subscriber.sink));
            if ends {
                self.end(Place { channel, index }, why, dirty);
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Offered {
    Gap,
    Old,
    Taken,
}

impl<S: Sink> Subscriber<S> {
    /// Gives a publication with an offset if it is the next one.
    fn offer(
        &mut self,
        epoch: &Epoch,
        publication: &Arc<Publication>,
        alone: bool,
        dirty: &mut Vec<Arc<S>>,
    ) -> Offered {
        let Some(position) = publication.position() else {
            self.give(publication, alone, dirty);
            return Offered::Taken;
        };
        if position.epoch != *epoch {
            return Offered::Gap;
        }
        if self.offset != ADRIFT {
            if position.offset <= self.offset {
                return Offered::Old;
            }
            if position.offset != self.offset + 1 {
                return Offered::Gap;
            }
        }
        self.offset = position.offset;
        self.give(publication, alone, dirty);
        Offered::Taken
    }

    fn give(&self, publication: &Arc<Publication>, alone: bool, dirty: &mut Vec<Arc<S>>) {
        let encoded = publication.encoded(self.sink.protocol());
        let spared = encoded.except.as_deref().is_some_and(|client| self.sink.is_client(client));
        if spared || encoded.frame.is_empty() {
            return;
        }
        let frame = encoded.frame_for(self.sink.deflate());
        if alone {
            self.sink.write_now(frame);
        } else {
            give(&self.sink, frame.clone(), dirty);
        }
    }
}

fn give<S: Sink>(sink: &Arc<S>, frame: Bytes, dirty: &mut Vec<Arc<S>>) {
    sink.push(frame);
    if sink.mark() {
        dirty.push(sink.clone());
    }
}

#[cfg(test)]
mod tests;
