//! `Queue`: the state behind a lane's lock.

use std::{
    collections::VecDeque,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use evenkeel_protocol::Reply;
use slab::Slab;

use super::{
    batch::{Batch, Sent},
    completion::{Completion, Parts, State},
    order::{Deferred, Order},
    outcome::{Failure, Outcome, is_error},
    unit::{MANY_SLOTS, Unit},
};

/// What a lane may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QueueLimits {
    /// Bytes queued plus in flight.
    pub(crate) bytes: usize,
}

/// A place in a lane's order; given back with [`Queue::poll`] or [`Queue::cancel`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ticket {
    seq: u64,
    index: u32,
}

/// Marks a place in the line for room.
const LINE: u64 = 1 << 63;

impl Ticket {
    /// A place in the line for room.
    pub(crate) fn of_line(place: u64) -> Self {
        Self { seq: LINE | place, index: 0 }
    }

    /// The place in the line for room.
    pub(crate) fn in_line(self) -> u64 {
        self.seq & !LINE
    }

    /// The place in the order; those in the line lie behind all of them.
    pub(crate) fn place(&self) -> u64 {
        self.seq
    }
}

/// What [`Queue::append`] did.
#[derive(Debug)]
pub(crate) enum Append {
    /// The command has its place.
    Queued(Ticket),
    /// No room; the waker is called when it is worth another try with this place in the line.
    Full(u64),
    /// The lane is closed: not executed.
    Closed,
}

/// One command or unit in the order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) index: u32,
    pub(super) seq: u64,
    pub(super) slot: u16,
    pub(super) may_write: bool,
    replies: u32,
}

/// The queue of one lane.
#[derive(Debug)]
pub(crate) struct Queue {
    limits: QueueLimits,
    /// A command that the server refused keeps its place until its caller has decided.
    keeps_refused: bool,
    out: BytesMut,
    shared: Vec<(usize, Bytes)>,
    /// Tokens of what stands in `out`.
    fresh: VecDeque<Sent>,
    /// Length of `out` and `shared` together.
    out_len: u64,
    slots: Slab<Completion>,
    order: Order,
    next_seq: u64,
    bytes: usize,
    closed: bool,
    /// The I/O task, when it sleeps.
    io: Option<Waker>,
    /// Callers that wait for room, first come first.
    line: VecDeque<(u64, Waker)>,
    next_in_line: u64,
    /// Deadlines count from here.
    epoch: Option<Instant>,
    ready: Vec<Deferred>,
}

impl Queue {
    pub(crate) fn new(limits: QueueLimits) -> Self {
        Self {
            limits,
            keeps_refused: false,
            out: BytesMut::new(),
            shared: Vec::new(),
            fresh: VecDeque::new(),
            out_len: 0,
            slots: Slab::new(),
            order: Order::default(),
            next_seq: 0,
            bytes: 0,
            closed: false,
            io: None,
            line: VecDeque::new(),
            next_in_line: 0,
            epoch: None,
            ready: Vec::new(),
        }
    }

    /// From here on what comes later than a refused command waits until its caller sends it again, or does not.
    pub(crate) fn keep_refused(&mut self) {
        self.keeps_refused = true;
    }

    /// A place of this slot whose reply is owed, or whose refusal waits to be taken: what comes later would pass it.
    ///
    /// It is looked for from `hint` on and around, so that asking with what was found last looks at every place once, however
    /// often it is asked while they end.
    pub(crate) fn owed_at(&self, slot: u16, hint: usize) -> Option<usize> {
        let end = self.slots.capacity();
        let is_owed = |place: &Completion| place.is_of(slot) && place.may_be_refused();
        (hint..end).chain(0..hint.min(end)).find(|&index| self.slots.get(index).is_some_and(is_owed))
    }

    /// The slots of which replies are owed.
    pub(crate) fn owed_slots(&self) -> impl Iterator<Item = u16> + '_ {
        let owed = self.slots.iter().map(|(_, place)| place).filter(|place| place.may_be_refused());
        owed.map(|place| place.slot).filter(|slot| *slot < MANY_SLOTS)
    }

    /// Commands that have a place.
    pub(crate) fn in_order(&self) -> usize {
        self.slots.len()
    }

    /// Bytes queued plus in flight.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(crate) fn is_holding(&self) -> bool {
        self.order.is_holding()
    }

    /// Takes a place for a unit of commands and appends it whole. `place` is what an earlier [`Append::Full`] gave.
    ///
    /// The timeout is in milliseconds. Gives the I/O task's waker too, when it sleeps.
    pub(crate) fn append(
        &mut self,
        unit: &Unit<'_>,
        timeout: u32,
        place: Option<u64>,
        waker: Waker,
    ) -> (Append, Option<Waker>) {
        if self.closed {
            return (Append::Closed, None);
        }
        let Unit { commands, len, slot, marks } = *unit;
        let is_next = match (place, self.line.front()) {
            (_, None) => true,
            (Some(place), Some((first, _))) => place == *first,
            (None, Some(_)) => false,
        };
        // One command always fits, however large: the cap bounds what waits, not what exists.
        if !is_next || (self.bytes > 0 && self.bytes + len > self.limits.bytes) {
            return (Append::Full(self.stand_in_line(place, waker)), None);
        }
        let mut wake = None;
        if place.is_some() {
            self.line.pop_front();
            wake = self.line.front().map(|(_, waker)| waker.clone());
        }
        let seq = self.next_seq;
        self.next_seq += 1;
        let replies = commands.len() as u32;
        let parts = (replies > 1)
            .then(|| Box::new(Parts { owed: replies, replies: Vec::with_capacity(commands.len()) }));
        let index = self.slots.insert(Completion {
            seq,
            state: State::Waiting(Some(waker)),
            deadline: 0,
            timeout,
            bytes: u32::try_from(len).unwrap_or(u32::MAX),
            slot,
            marks,
            owed: false,
            parts,
        }) as u32;
        self.bytes += len;
        self.place(Entry { index, seq, slot, may_write: marks.may_write(), replies }, unit);
        if let Some(next) = wake {
            next.wake();
        }
        (Append::Queued(Ticket { seq, index }), self.io.take())
    }

    fn place(&mut self, entry: Entry, unit: &Unit<'_>) {
        if !self.order.is_empty() && self.order.must_wait(entry.slot, entry.may_write) {
            let mut wire = BytesMut::with_capacity(unit.len);
            for command in unit.commands {
                command.encode(&mut wire);
            }
            return self.order.wait(Deferred::new(entry, wire));
        }
        let shared = &mut self.shared;
        for command in unit.commands {
            command.encode_with(&mut self.out, |out, bytes| shared.push((out.len(), bytes)));
        }
        self.push_tokens(entry, unit.len);
    }

    fn push_tokens(&mut self, entry: Entry, len: usize) {
        self.out_len += len as u64;
        for _ in 0..entry.replies {
            self.fresh.push_back(Sent::new(entry.index, entry.seq));
        }
    }

    fn push_wire(&mut self, entry: Entry, wire: &[u8]) {
        self.out.extend_from_slice(wire);
        self.push_tokens(entry, wire.len());
    }

    /// The place that a token names.
    fn place_of(&mut self, sent: Sent) -> Option<&mut Completion> {
        self.slots.get_mut(sent.index as usize).filter(|place| place.seq as u32 == sent.mark)
    }

    #[inline]
    fn slot_mut(&mut self, index: u32, seq: u64) -> Option<&mut Completion> {
        self.slots.get_mut(index as usize).filter(|completion| completion.seq == seq)
    }

    fn stand_in_line(&mut self, place: Option<u64>, waker: Waker) -> u64 {
        if let Some(place) = place
            && let Some((_, known)) = self.line.iter_mut().find(|(number, _)| *number == place)
        {
            *known = waker;
            return place;
        }
        let place = self.next_in_line;
        self.next_in_line += 1;
        self.line.push_back((place, waker));
        place
    }

    /// Leaves the line; gives the waker of whoever is first then.
    pub(crate) fn leave_line(&mut self, place: u64) -> Option<Waker> {
        let was_first = self.line.front().is_some_and(|(first, _)| *first == place);
        self.line.retain(|(number, _)| *number != place);
        if was_first { self.line.front().map(|(_, waker)| waker.clone()) } else { None }
    }

    /// Takes the reply of a command that was answered with anything but an error, which spends the ticket. `None` says nothing:
    /// [`poll`](Self::poll) knows all the rest.
    #[inline]
    pub(crate) fn take_reply(&mut self, ticket: Ticket) -> Option<Reply> {
        let completion = self.slot_mut(ticket.index, ticket.seq)?;
        match &completion.state {
            State::Done(Outcome::Reply(reply)) if completion.bytes == 0 && !is_error(reply) => {}
            _ => return None,
        }
        match self.slots.remove(ticket.index as usize).state {
            State::Done(Outcome::Reply(reply)) => Some(reply),
            _ => None,
        }
    }

    /// Looks at what became of a command; on `Ready` other than [`Outcome::MayResend`] the ticket is spent.
    #[inline]
    pub(crate) fn poll(&mut self, ticket: Ticket, cx: &mut Context<'_>) -> Poll<Outcome> {
        let Some(completion) = self.slot_mut(ticket.index, ticket.seq) else {
            return Poll::Ready(Outcome::Failed(Failure::Closed));
        };
        match &mut completion.state {
            State::Waiting(waker) => {
                if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
                    *waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
            State::Done(Outcome::MayResend) => Poll::Ready(Outcome::MayResend),
            // Bytes still counted mean that the reply is owed (a deadline came first): the place stays for it.
            state @ State::Done(_) if completion.bytes > 0 => {
                match std::mem::replace(state, State::Abandoned) {
                    State::Done(outcome) => Poll::Ready(outcome),
                    State::Waiting(_) | State::Abandoned | State::Refused => {
                        Poll::Ready(Outcome::Failed(Failure::Closed))
                    }
                }
            }
            state @ State::Done(_) => match std::mem::replace(state, State::Refused) {
                State::Done(outcome) => {
                    if !outcome.may_be_refused() {
                        self.slots.remove(ticket.index as usize);
                    }
                    Poll::Ready(outcome)
                }
                State::Waiting(_) | State::Abandoned | State::Refused => {
                    Poll::Ready(Outcome::Failed(Failure::Closed))
                }
            },
            State::Abandoned | State::Refused => Poll::Ready(Outcome::Failed(Failure::Closed)),
        }
    }

    /// The caller is gone. Its place stays until the reply is in; nobody else is disturbed.
    pub(crate) fn cancel(&mut self, ticket: Ticket) -> Option<Waker> {
        let completion = self.slot_mut(ticket.index, ticket.seq)?;
        match completion.state {
            State::Waiting(_) => {
                completion.state = State::Abandoned;
                None
            }
            State::Abandoned => None,
            State::Refused => self.let_go(ticket.index),
            State::Done(Outcome::MayResend) => {
                let (slot, seq) = (completion.slot, completion.seq);
                self.release_slot(ticket.index);
                self.order.forget(slot, seq);
                self.flush(slot);
                self.io.take()
            }
            State::Done(_) => {
                if completion.bytes > 0 {
                    completion.state = State::Abandoned;
                    return None;
                }
                self.let_go(ticket.index)
            }
        }
    }

    /// Appends what may go of one slot.
    fn flush(&mut self, slot: u16) {
        let mut ready = std::mem::take(&mut self.ready);
        self.order.take_ready(slot, &mut ready);
        self.append_deferred(&mut ready);
        self.ready = ready;
    }

    fn append_deferred(&mut self, ready: &mut Vec<Deferred>) {
        for deferred in ready.drain(..) {
            self.push_wire(deferred.entry, &deferred.wire);
        }
    }

    /// Gives the I/O task what is to be written, into an empty batch, and its tokens; false when there is nothing.
    pub(crate) fn take_batch(&mut self, batch: &mut Batch, tokens: &mut VecDeque<Sent>) -> bool {
        if self.fresh.is_empty() {
            return false;
        }
        std::mem::swap(&mut self.out, &mut batch.bytes);
        std::mem::swap(&mut self.shared, &mut batch.shared);
        batch.base = batch.end;
        batch.end += self.out_len;
        self.out_len = 0;
        tokens.append(&mut self.fresh);
        true
    }

    /// Registers the I/O task to be woken; false when there is something to take already.
    pub(crate) fn sleep(&mut self, waker: &Waker) -> bool {
        if !self.fresh.is_empty() {
            return false;
        }
        match &mut self.io {
            Some(known) if known.will_wake(waker) => {}
            io => *io = Some(waker.clone()),
        }
        true
    }

    /// Registers the I/O task even when commands wait: there is no connection to write them to.
    pub(crate) fn sleep_offline(&mut self, waker: &Waker) {
        self.io = Some(waker.clone());
    }

    /// Takes the I/O task's waker, to wake it for something else than bytes.
    pub(crate) fn take_io(&mut self) -> Option<Waker> {
        self.io.take()
    }

    /// Whether a reply is owed or a command is queued, whoever waits for it.
    pub(crate) fn has_owed(&self) -> bool {
        self.bytes > 0
    }

    /// Nothing new is taken; what has a place already is still written and answered.
    pub(crate) fn finish_only(&mut self, wakers: &mut Vec<Waker>) {
        self.closed = true;
        wakers.extend(self.line.drain(..).map(|(_, waker)| waker));
    }

    /// Whether any command has a place, so that deadlines must be looked at.
    pub(crate) fn has_work(&self) -> bool {
        !self.slots.is_empty()
    }

    /// Hands out replies; wakers of callers go to `wakers`, to be called without the lock.
    pub(crate) fn complete(&mut self, replies: impl Iterator<Item = (Sent, Reply)>, wakers: &mut Vec<Waker>) {
        let mut refused = false;
        for (sent, reply) in replies {
            if let Some(slot) = self.answer(sent, reply, &mut refused, wakers) {
                self.order.settle(slot);
                self.flush(slot);
            }
        }
        if refused {
            // What is queued and not yet taken came later.
            self.sort_queued(|_sent| true);
        }
        self.offer_room(wakers);
    }

    /// One reply of a command or unit; gives the slot that a switch had counted it for, if it was the last.
    fn answer(
        &mut self,
        sent: Sent,
        reply: Reply,
        refused: &mut bool,
        wakers: &mut Vec<Waker>,
    ) -> Option<u16> {
        let keeps_refused = self.keeps_refused;
        let place = self.place_of(sent)?;
        let outcome = match &mut place.parts {
            None => Outcome::Reply(reply),
            Some(parts) => {
                parts.owed = parts.owed.saturating_sub(1);
                parts.replies.push(reply);
                if parts.owed > 0 {
                    return None;
                }
                Outcome::Replies(std::mem::take(&mut parts.replies))
            }
        };
        // Known before anything that waits behind it goes on.
        let is_refused = keeps_refused && outcome.is_refused() && matches!(place.state, State::Waiting(_));
        let kept = is_refused.then_some((place.slot, place.seq));
        let settled = std::mem::take(&mut place.owed).then_some(place.slot);
        let bytes = std::mem::take(&mut place.bytes) as usize;
        if place.tell(outcome, wakers) {
            self.slots.remove(sent.index as usize);
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        if let Some((slot, seq)) = kept {
            self.order.expect_resend(slot, seq);
            *refused = true;
        }
        settled
    }

    /// Ends a command that gets no reply.
    fn finish(&mut self, index: u32, seq: u64, failure: Failure, wakers: &mut Vec<Waker>) {
        let Some(place) = self.slot_mut(index, seq) else { return };
        let bytes = std::mem::take(&mut place.bytes) as usize;
        if place.tell(Outcome::Failed(failure), wakers) {
            self.slots.remove(index as usize);
        }
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    fn release_slot(&mut self, index: u32) {
        let completion = self.slots.remove(index as usize);
        self.bytes = self.bytes.saturating_sub(completion.bytes as usize);
    }

    fn offer_room(&self, wakers: &mut Vec<Waker>) {
        if let Some((_, waker)) = self.line.front()
            && self.bytes < self.limits.bytes
        {
            wakers.push(waker.clone());
        }
    }

    /// Tells callers whose deadline is over; with `relaxed`, no deadline is shorter than that.
    ///
    /// Deadlines are coarse: a command is stamped by the first tick that sees it.
    pub(crate) fn expire(&mut self, now: Instant, relaxed: Option<Duration>, wakers: &mut Vec<Waker>) {
        let epoch = *self.epoch.get_or_insert(now);
        let clock = u32::try_from(now.saturating_duration_since(epoch).as_millis()).unwrap_or(u32::MAX);
        let floor = relaxed.map_or(0, |floor| u32::try_from(floor.as_millis()).unwrap_or(u32::MAX));
        let mut expired = Vec::new();
        let decides = !self.order.is_empty();
        let mut undecided = Vec::new();
        for (index, completion) in &mut self.slots {
            let is_given_back = decides && matches!(completion.state, State::Done(_) | State::Refused);
            if !is_given_back && !matches!(completion.state, State::Waiting(_)) {
                continue;
            }
            if completion.deadline == 0 {
                completion.deadline = clock.saturating_add(completion.timeout).max(1);
            }
            // A relaxed timeout is a floor: it lengthens a shorter deadline and never shortens a longer one.
            let extra = floor.saturating_sub(completion.timeout);
            if completion.deadline.saturating_add(extra) <= clock {
                if is_given_back {
                    undecided.push((completion.slot, completion.seq));
                } else {
                    expired.push((index as u32, completion.seq));
                }
            }
        }
        // Nobody waits for a caller that does not look at what it was given back.
        for (slot, seq) in undecided {
            if self.order.expects(slot, seq) {
                self.order.forget(slot, seq);
                self.flush(slot);
            }
        }
        if expired.is_empty() {
            return;
        }
        let is_expired = |seq: u64| expired.iter().any(|(_, known)| *known == seq);
        let mut unsent = Vec::new();
        self.order.remove_where(|entry| {
            let gone = is_expired(entry.seq);
            if gone {
                unsent.push(entry.seq);
            }
            gone
        });
        if expired.iter().any(|(index, seq)| self.fresh.contains(&Sent::new(*index, *seq))) {
            let mut dropped = Vec::new();
            self.sort_queued(|entry| {
                let gone = is_expired(entry.seq);
                if gone {
                    dropped.push(entry.seq);
                }
                !gone
            });
            unsent.append(&mut dropped);
        }
        for (index, seq) in expired {
            if unsent.contains(&seq) {
                self.finish(index, seq, Failure::TimedOutUnsent, wakers);
            } else if let Some(completion) = self.slot_mut(index, seq) {
                // The reply is still owed: the bytes stay counted and the token keeps its place.
                let told = State::Done(Outcome::Failed(Failure::TimedOutSent));
                if let State::Waiting(waker) = std::mem::replace(&mut completion.state, told) {
                    wakers.extend(waker);
                }
            }
        }
        self.flush_all();
        self.offer_room(wakers);
    }

    /// Nothing new is taken; what is not written yet ends as not executed. Gives whom to wake.
    pub(crate) fn close(&mut self, wakers: &mut Vec<Waker>) {
        self.closed = true;
        let deferred =
            self.order.drain().into_iter().map(|deferred| (deferred.entry.index, deferred.entry.seq));
        let tokens = std::mem::take(&mut self.fresh);
        let queued = self.units(tokens.into_iter());
        let queued = queued.into_iter().map(|(entry, _)| (entry.index, entry.seq));
        let unsent: Vec<(u32, u64)> = deferred.chain(queued).collect();
        self.out.clear();
        self.shared.clear();
        self.out_len = 0;
        for (index, seq) in unsent {
            self.finish(index, seq, Failure::Closed, wakers);
        }
        wakers.extend(self.line.drain(..).map(|(_, waker)| waker));
        wakers.extend(self.io.take());
    }

    /// As [`close`](Self::close), and what is in flight ends as unknown; for a lane whose task goes.
    pub(crate) fn abandon(&mut self, wakers: &mut Vec<Waker>) {
        self.close(wakers);
        let left: Vec<(u32, u64)> = self.slots.iter().map(|(index, slot)| (index as u32, slot.seq)).collect();
        for (index, seq) in left {
            self.finish(index, seq, Failure::Lost, wakers);
        }
    }
}

mod again;
#[cfg(test)]
mod order_holds;
#[cfg(test)]
mod tests;
mod upset;
