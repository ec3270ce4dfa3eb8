//! Commands that are given back to their callers, and go again at their old places or not at all.

use std::task::Waker;

use bytes::BytesMut;
use evenkeel_protocol::Command;

use super::{Deferred, Entry, Failure, Outcome, Queue, State, Ticket};

impl Queue {
    /// Whoever had this place does not come back: what waited for the decision goes on.
    pub(super) fn let_go(&mut self, index: u32) -> Option<Waker> {
        let place = self.slots.remove(index as usize);
        if self.order.is_empty() || !self.order.expects(place.slot, place.seq) {
            return None;
        }
        self.order.forget(place.slot, place.seq);
        self.flush(place.slot);
        self.io.take()
    }

    /// Sends a command again at its old place in its slot's order.
    pub(crate) fn resend(&mut self, ticket: Ticket, unit: &[Command], waker: &Waker) -> Option<Waker> {
        let closed = self.closed;
        let completion = self.slot_mut(ticket.index, ticket.seq)?;
        let was_refused = matches!(completion.state, State::Refused);
        if closed {
            let failure = if was_refused { Failure::Closed } else { Failure::Lost };
            completion.state = State::Done(Outcome::Failed(failure));
            waker.wake_by_ref();
            return None;
        }
        completion.state = State::Waiting(Some(waker.clone()));
        let mut bytes = 0;
        if was_refused {
            bytes = unit.iter().map(Command::encoded_len).sum();
            completion.bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        } else {
            // A command that its server may have died of is not worth sending a third time.
            completion.marks = completion.marks.without_resend();
        }
        if let Some(parts) = &mut completion.parts {
            parts.owed = unit.len() as u32;
            parts.replies.clear();
        }
        let entry = Entry {
            index: ticket.index,
            seq: ticket.seq,
            slot: completion.slot,
            may_write: completion.marks.may_write(),
            replies: unit.len() as u32,
        };
        let mut wire = BytesMut::new();
        for command in unit {
            command.encode(&mut wire);
        }
        let slot = completion.slot;
        self.bytes += bytes;
        let deferred = Deferred::new(entry, wire);
        // Of one that was refused it is known that it did not run.
        if was_refused {
            self.order.wait(deferred);
        } else {
            self.order.resend(deferred);
        }
        self.flush(slot);
        self.io.take()
    }
}
