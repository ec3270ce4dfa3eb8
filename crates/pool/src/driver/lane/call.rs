//! `LaneCall`: one command on its way through a lane.

use std::{
    borrow::Borrow,
    fmt,
    task::{Context, Poll},
    time::Duration,
};

use evenkeel_protocol::Command;

use super::{Lane, Shared};
use crate::queue::{Append, Failure, Outcome, Ticket, Unit};

enum State {
    /// Not polled yet.
    Fresh,
    /// Waits for room at this place in the line.
    InLine(u64),
    /// Has its place in the order.
    Placed(Ticket),
    /// May go again: the connection ended before the reply.
    Resendable(Ticket),
    /// Its outcome was taken; if that was a refusal, it still counts as owed.
    Told(Ticket),
    Spent,
}

/// A command's way through a lane, which it owns or borrows. Dropping it disturbs nobody else.
///
/// With a borrowed lane a command touches no reference count, which callers on several threads would pass to and fro.
pub struct LaneCall<L: Borrow<Lane> = Lane> {
    /// Keeps the lane alive while a call is under way.
    lane: L,
    timeout: Duration,
    state: State,
    /// Its place in the lane's order, or behind all of them in the line for room, once it has one.
    place: Option<u64>,
}

/// Places in the line for room lie behind every place in the order.
const LINE: u64 = 1 << 63;

impl<L: Borrow<Lane>> fmt::Debug for LaneCall<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaneCall").field("lane", &self.shared().id).finish_non_exhaustive()
    }
}

impl<L: Borrow<Lane>> LaneCall<L> {
    /// A command that takes its place at its first poll, as [`Lane::call`].
    pub fn new(lane: L, timeout: Duration) -> Self {
        Self { lane, timeout, state: State::Fresh, place: None }
    }

    /// What keeps the place of a command that was refused or given back, until it is dropped; with a lane of its own.
    pub fn keep(&mut self) -> Option<LaneCall> {
        if !matches!(self.state, State::Told(_)) {
            return None;
        }
        let state = std::mem::replace(&mut self.state, State::Spent);
        Some(LaneCall { lane: self.lane.borrow().clone(), timeout: self.timeout, state, place: self.place })
    }

    fn shared(&self) -> &Shared {
        &self.lane.borrow().shared
    }

    /// Takes a place at the first poll, then waits for the outcome. The same command must be given each time.
    ///
    /// As [`poll_unit`](Self::poll_unit), for a single command.
    pub fn poll(&mut self, command: &Command, cx: &mut Context<'_>) -> Poll<Outcome> {
        self.poll_unit(std::slice::from_ref(command), cx)
    }

    /// Takes a place for commands that stay together on the wire; the same ones must be given each time.
    ///
    /// One command gives [`Outcome::Reply`], several give [`Outcome::Replies`].
    /// After [`Outcome::MayResend`] the next poll sends the command again, at its old place.
    pub fn poll_unit(&mut self, unit: &[Command], cx: &mut Context<'_>) -> Poll<Outcome> {
        let place = match &self.state {
            State::Placed(ticket) => {
                let outcome = self.shared().queue.lock().poll(ticket, cx);
                return match outcome {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(Outcome::MayResend) => {
                        if let State::Placed(ticket) = std::mem::replace(&mut self.state, State::Spent) {
                            self.state = State::Resendable(ticket);
                        }
                        Poll::Ready(Outcome::MayResend)
                    }
                    Poll::Ready(outcome) => {
                        // A refused one keeps its place until this call is dropped.
                        if let State::Placed(ticket) = std::mem::replace(&mut self.state, State::Spent)
                            && outcome.may_be_refused()
                        {
                            self.state = State::Told(ticket);
                        }
                        Poll::Ready(outcome)
                    }
                };
            }
            State::Resendable(_) => {
                if let State::Resendable(ticket) = std::mem::replace(&mut self.state, State::Spent) {
                    let io = self.shared().queue.lock().resend(&ticket, unit, cx.waker());
                    self.state = State::Placed(ticket);
                    if let Some(io) = io {
                        io.wake();
                    }
                }
                return Poll::Pending;
            }
            State::Told(_) | State::Spent => return Poll::Ready(Outcome::Failed(Failure::Closed)),
            State::Fresh => None,
            State::InLine(place) => Some(*place),
        };
        let (unit, waker) = (Unit::of(unit), cx.waker().clone());
        let (append, io) = self.shared().queue.lock().append(&unit, self.timeout, place, waker);
        if let Some(io) = io {
            io.wake();
        }
        match append {
            Append::Queued(ticket) => {
                self.place = Some(ticket.place());
                self.state = State::Placed(ticket);
                Poll::Pending
            }
            Append::Full(place) => {
                self.place = Some(LINE | place);
                self.state = State::InLine(place);
                Poll::Pending
            }
            Append::Closed => {
                self.state = State::Spent;
                Poll::Ready(Outcome::Failed(Failure::Closed))
            }
        }
    }

    /// Takes the command back if it is not written yet; true when it is certain that it never will be.
    pub fn withdraw(&mut self) -> bool {
        match &self.state {
            State::Fresh => true,
            State::InLine(place) => {
                let next = self.shared().queue.lock().leave_line(*place);
                self.state = State::Spent;
                if let Some(next) = next {
                    next.wake();
                }
                true
            }
            State::Placed(ticket) => {
                let mut wakers = Vec::new();
                let taken_back = self.shared().queue.lock().withdraw(ticket, &mut wakers);
                if taken_back {
                    self.state = State::Spent;
                }
                for waker in wakers {
                    waker.wake();
                }
                taken_back
            }
            State::Resendable(_) | State::Told(_) | State::Spent => false,
        }
    }

    /// Its place in the lane's order: of two commands of a lane the one with the lower place was sent first. `None` before it
    /// has one, and for good when the lane was closed already at its first poll.
    pub fn place(&self) -> Option<u64> {
        self.place
    }

    /// Whether the command still waits for room, so that it is certain that nobody has run it.
    pub fn waits_for_room(&self) -> bool {
        matches!(self.state, State::Fresh | State::InLine(_))
    }
}

impl<L: Borrow<Lane>> Drop for LaneCall<L> {
    fn drop(&mut self) {
        let waker = match &self.state {
            State::Fresh | State::Spent => None,
            State::InLine(place) => self.shared().queue.lock().leave_line(*place),
            State::Placed(ticket) | State::Resendable(ticket) | State::Told(ticket) => {
                self.shared().queue.lock().cancel(ticket)
            }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
