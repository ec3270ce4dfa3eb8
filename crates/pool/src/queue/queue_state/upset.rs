//! What happens to a queue whose connection is lost, left or held: commands are taken out of the append buffer, put back into
//! it, or made to wait, each with its own bytes and in the order of their places.

use std::task::Waker;

use bytes::BytesMut;
use evenkeel_protocol::Command;

use super::{Batch, Completion, Deferred, Entry, Failure, Outcome, Queue, Sent, State, Ticket, Unit};

impl Queue {
    /// Replies that what is not taken yet will have.
    pub(crate) fn fresh(&self) -> usize {
        self.fresh.len()
    }

    /// Appends a command of the lane's own, whose reply is looked at on its way and kept by nobody. It passes what waits: it
    /// belongs to the connection that takes it, right away, and is not sent again on another.
    pub(crate) fn append_own(&mut self, command: &Command) -> Sent {
        let unit = Unit::of(std::slice::from_ref(command));
        let seq = self.next_seq;
        self.next_seq += 1;
        let index = self.slots.insert(Completion {
            seq,
            state: State::Abandoned,
            deadline: 0,
            timeout: 0,
            bytes: u32::try_from(unit.len).unwrap_or(u32::MAX),
            slot: unit.slot,
            marks: unit.marks,
            owed: false,
            parts: None,
        }) as u32;
        self.bytes += unit.len;
        command.encode(&mut self.out);
        self.push_tokens(Entry { index, seq, slot: unit.slot, may_write: false, replies: 1 }, unit.len);
        Sent::new(index, seq)
    }

    /// The connection has ended after `written` bytes: tells those whose command had left whole, and puts back the others.
    ///
    /// `batch` is the last that was taken, whole, also the part of it that was written.
    pub(crate) fn lose(
        &mut self,
        in_flight: impl Iterator<Item = Sent>,
        written: u64,
        batch: &mut Batch,
        wakers: &mut Vec<Waker>,
    ) {
        let closed = self.closed;
        let units = self.units(in_flight);
        let owed: u64 = units.iter().map(|(_, len)| *len as u64).sum();
        // What is owed ends where the last batch ends.
        let mut end = batch.end.saturating_sub(owed);
        let mut unsent_from = batch.end;
        let mut unsent = Vec::new();
        for (entry, len) in units {
            let start = end;
            end += len as u64;
            let Some(place) = self.slot_mut(entry.index, entry.seq) else { continue };
            if std::mem::take(&mut place.owed) {
                self.order.settle(entry.slot);
            }
            if end > written {
                // The server cannot have seen its end: not executed.
                unsent_from = unsent_from.min(start);
                unsent.push((entry, len));
                continue;
            }
            let Some(place) = self.slot_mut(entry.index, entry.seq) else { continue };
            match &mut place.state {
                State::Waiting(waker) if place.marks.may_resend() && !closed => {
                    wakers.extend(waker.take());
                    place.state = State::Done(Outcome::MayResend);
                    self.order.expect_resend(entry.slot, entry.seq);
                }
                _ => self.finish(entry.index, entry.seq, Failure::Lost, wakers),
            }
        }
        let mut wire = batch.join();
        let skip = usize::try_from(unsent_from.saturating_sub(batch.base)).unwrap_or(usize::MAX);
        drop(wire.split_to(skip.min(wire.len())));
        self.put_back(cut(wire, unsent), wakers);
        self.flush_all();
        self.offer_room(wakers);
    }

    /// The commands and units whose tokens these are, each with the length of its bytes.
    pub(super) fn units(&self, tokens: impl Iterator<Item = Sent>) -> Vec<(Entry, usize)> {
        let (mut units, mut last) = (Vec::new(), None);
        for sent in tokens {
            if last.replace(sent) == Some(sent) {
                continue;
            }
            let place = self.slots.get(sent.index as usize).filter(|place| place.seq as u32 == sent.mark);
            units.extend(place.map(|place| {
                let entry = Entry {
                    index: sent.index,
                    seq: place.seq,
                    slot: place.slot,
                    may_write: place.marks.may_write(),
                    replies: place.replies(),
                };
                (entry, place.bytes as usize)
            }));
        }
        units
    }

    /// Takes the append buffer apart.
    fn take_queued(&mut self) -> Vec<Deferred> {
        let tokens = std::mem::take(&mut self.fresh);
        let units = self.units(tokens.into_iter());
        let mut queued = Batch {
            bytes: std::mem::take(&mut self.out),
            shared: std::mem::take(&mut self.shared),
            base: 0,
            end: self.out_len,
        };
        self.out_len = 0;
        cut(queued.join(), units)
    }

    /// Puts commands that never left back in their order with what came since, which waits behind what may be sent again; those that
    /// nobody waits for are let go.
    fn put_back(&mut self, back: Vec<Deferred>, wakers: &mut Vec<Waker>) {
        if back.is_empty() && self.order.is_empty() {
            return;
        }
        // What was refused and sent again since stands before what never left.
        let mut all: Vec<Deferred> = back.into_iter().chain(self.take_queued()).collect();
        all.sort_by_key(|deferred| deferred.entry.seq);
        for deferred in all {
            let Deferred { entry, .. } = &deferred;
            let closed = self.closed;
            match self.slot_mut(entry.index, entry.seq) {
                Some(place) if matches!(place.state, State::Waiting(_)) && !closed => {
                    // A unit that was cut has its first replies to come again.
                    if let Some(parts) = &mut place.parts {
                        parts.owed = entry.replies;
                        parts.replies.clear();
                    }
                    self.place_again(deferred);
                }
                _ => self.finish(entry.index, entry.seq, Failure::Closed, wakers),
            }
        }
    }

    /// Puts a command where it belongs by the rules of the moment.
    fn place_again(&mut self, deferred: Deferred) {
        if self.order.must_wait(deferred.entry.slot, deferred.entry.may_write) {
            self.order.wait(deferred);
        } else {
            self.push_wire(deferred.entry, &deferred.wire);
        }
    }

    pub(super) fn flush_all(&mut self) {
        let mut ready = std::mem::take(&mut self.ready);
        self.order.take_all_ready(&mut ready);
        self.append_deferred(&mut ready);
        self.ready = ready;
    }

    /// Takes the append buffer apart, and puts each command that `keep` keeps where it belongs by the rules of the moment.
    pub(super) fn sort_queued(&mut self, mut keep: impl FnMut(&Entry) -> bool) {
        for deferred in self.take_queued() {
            if keep(&deferred.entry) {
                self.place_again(deferred);
            }
        }
        // One that waits for nobody may have been put with those of its slot that do.
        self.flush_all();
    }

    /// The connection is left for another: what it still owes blocks the slots concerned, also for what is queued and not
    /// taken yet.
    pub(crate) fn leave(&mut self, in_flight: impl Iterator<Item = Sent>) {
        for sent in in_flight {
            let Some(place) = self.place_of(sent).filter(|place| !place.owed) else { continue };
            place.owed = true;
            let slot = place.slot;
            self.order.owe(slot);
        }
        if !self.order.is_empty() {
            self.sort_queued(|_entry| true);
        }
    }

    /// Holds writes back, those too that are queued and not yet taken.
    pub(crate) fn hold(&mut self) {
        if self.order.is_holding() {
            return;
        }
        self.order.hold();
        self.sort_queued(|_sent| true);
    }

    /// Lets held writes go, in order; gives the I/O task's waker.
    pub(crate) fn release(&mut self) -> Option<Waker> {
        self.order.release();
        self.flush_all();
        self.io.take()
    }

    /// Takes back a command that is not written yet; true when it is certain that it never will be.
    pub(crate) fn withdraw(&mut self, ticket: Ticket, wakers: &mut Vec<Waker>) -> bool {
        let waits = self
            .slot_mut(ticket.index, ticket.seq)
            .is_some_and(|completion| matches!(completion.state, State::Waiting(_)));
        if !waits {
            return false;
        }
        let mut found = false;
        self.order.remove_where(|entry| {
            found |= entry.seq == ticket.seq;
            entry.seq == ticket.seq
        });
        if !found && self.fresh.contains(&Sent::new(ticket.index, ticket.seq)) {
            found = true;
            self.sort_queued(|entry| entry.seq != ticket.seq);
        }
        if found {
            self.release_slot(ticket.index);
            self.flush_all();
            self.offer_room(wakers);
        }
        found
    }
}

/// Cuts `wire` into the bytes of each of `units`.
fn cut(mut wire: BytesMut, units: Vec<(Entry, usize)>) -> Vec<Deferred> {
    let deferred = |(entry, len): (Entry, usize)| Deferred::new(entry, wire.split_to(len.min(wire.len())));
    units.into_iter().map(deferred).collect()
}
