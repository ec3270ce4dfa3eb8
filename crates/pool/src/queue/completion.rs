//! `Completion`: the place of one command, where its caller finds the outcome.

use std::task::Waker;

use evenkeel_protocol::Reply;

use super::{
    outcome::Outcome,
    unit::{MANY_SLOTS, Marks},
};

/// Where a command stands.
#[derive(Debug)]
pub(super) enum State {
    /// On its way.
    Waiting(Option<Waker>),
    Done(Outcome),
    /// The caller is gone; the place stays until the reply is in.
    Abandoned,
    /// The caller has been told that it did not run, and keeps its place until it goes elsewhere.
    Refused,
}

/// A command's place in the order, from its append until its last reply.
#[derive(Debug)]
pub(super) struct Completion {
    pub(super) seq: u64,
    pub(super) state: State,
    /// In milliseconds, and stamped by the first tick that sees the command: 0 before.
    pub(super) deadline: u32,
    pub(super) timeout: u32,
    pub(super) bytes: u32,
    pub(super) slot: u16,
    pub(super) marks: Marks,
    /// A switch counted this reply: later commands of the slot wait for it.
    pub(super) owed: bool,
    /// The replies of a unit that are in, while more are owed.
    pub(super) parts: Option<Box<Parts>>,
}

impl Completion {
    pub(super) fn is_of(&self, slot: u16) -> bool {
        self.slot == slot || self.slot == MANY_SLOTS
    }

    pub(super) fn may_be_refused(&self) -> bool {
        match &self.state {
            State::Done(outcome) => outcome.may_be_refused(),
            State::Waiting(_) | State::Refused => true,
            // Nobody sends it again.
            State::Abandoned => false,
        }
    }

    /// Tells the caller; true when nobody waits any more and the place is free.
    pub(super) fn tell(&mut self, outcome: Outcome, wakers: &mut Vec<Waker>) -> bool {
        match &mut self.state {
            State::Waiting(waker) => {
                wakers.extend(waker.take());
                self.state = State::Done(outcome);
                false
            }
            State::Abandoned => true,
            // A deadline was faster than the reply: the caller has been told, and its reply is let go.
            State::Done(_) | State::Refused => false,
        }
    }

    /// Replies that its command or unit gets in all.
    pub(super) fn replies(&self) -> u32 {
        self.parts.as_ref().map_or(1, |parts| parts.owed + parts.replies.len() as u32)
    }
}

/// The replies of a unit, as far as they are in.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) owed: u32,
    pub(super) replies: Vec<Reply>,
}
