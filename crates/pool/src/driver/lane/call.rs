//! `LaneCall`: one command on its way through a lane.

use std::{
    borrow::Borrow,
    fmt,
    task::{Context, Poll},
    time::Duration,
};

use evenkeel_protocol::{Command, Reply};

use super::{Lane, Shared};
use crate::queue::{Append, Failure, Outcome, Ticket, Unit};

/// ```text
/// Fresh --no room--> InLine --room--> Placed --outcome--> Told --> Spent
///   |                                 ^  |
///   |                                 |  +--connection lost--> Resendable --polled--> Placed
///   +--room---------------------------+
///   +--closed--> Unplaced
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Not polled yet.
    Fresh,
    /// Waits for room, at the place in the line that the ticket's number tells.
    InLine,
    /// Has its place in the order.
    Placed,
    /// May go again: the connection ended before the reply, or the server refused it.
    Resendable,
    /// Its outcome was taken; if that was a refusal, it still counts as owed.
    Told,
    Spent,
    /// The lane was closed already: it never had a place.
    Unplaced,
}

/// A command's way through a lane, which it owns or borrows. Dropping it disturbs nobody else.
///
/// With a borrowed lane a command touches no reference count, which callers on several threads would pass to and fro.
pub struct LaneCall<L: Borrow<Lane> = Lane> {
    /// Keeps the lane alive while a call is under way.
    lane: L,
    /// What it has in the queue; the state says what kind of place that is.
    ticket: Ticket,
    /// In milliseconds, as the queue counts: this stands in the future of every command.
    timeout: u32,
    state: State,
}

impl<L: Borrow<Lane>> fmt::Debug for LaneCall<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LaneCall").field("lane", &self.shared().id).finish_non_exhaustive()
    }
}

impl<L: Borrow<Lane>> LaneCall<L> {
    /// A command that takes its place at its first poll, as [`Lane::call`].
    pub fn new(lane: L, timeout: Duration) -> Self {
        let millis =
            timeout.as_secs().saturating_mul(1000).saturating_add(u64::from(timeout.subsec_millis()));
        Self::of_millis(lane, millis)
    }

    /// As [`new`](Self::new), with a timeout in milliseconds, which is what is kept of it.
    #[inline]
    pub fn of_millis(lane: L, timeout: u64) -> Self {
        let timeout = u32::try_from(timeout).unwrap_or(u32::MAX);
        Self { lane, ticket: Ticket::default(), timeout, state: State::Fresh }
    }

    /// What keeps the lane.
    pub fn lane(&self) -> &L {
        &self.lane
    }

    /// What keeps the place of a command that was refused or given back, until it is dropped; with a lane of its own.
    pub fn keep(&mut self) -> Option<LaneCall> {
        if self.state != State::Told {
            return None;
        }
        self.state = State::Spent;
        let lane = self.lane.borrow().clone();
        Some(LaneCall { lane, ticket: self.ticket, timeout: self.timeout, state: State::Told })
    }

    /// Lets a command that was refused go again at its old place: the next poll sends it, or what is left of its unit, as if it
    /// had never been sent. Where the lane keeps what is refused ([`LaneConfig::keep_refused`]), nothing of its slot has passed
    /// it meanwhile.
    ///
    /// False when there is nothing to send again: it has not been answered, or not with an error.
    ///
    /// [`LaneConfig::keep_refused`]: super::LaneConfig::keep_refused
    pub fn again(&mut self) -> bool {
        let may_go = self.state == State::Told;
        if may_go {
            self.state = State::Resendable;
        }
        may_go
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

    /// Takes the reply of a command that has its place and was answered with anything but an error. `None` says nothing:
    /// [`poll`](Self::poll) knows all the rest.
    #[inline]
    pub fn take_reply(&mut self) -> Option<Reply> {
        if self.state != State::Placed {
            return None;
        }
        let reply = self.shared().queue.lock().take_reply(self.ticket)?;
        self.state = State::Spent;
        Some(reply)
    }

    /// Takes a place for commands that stay together on the wire; the same ones must be given each time.
    ///
    /// One command gives [`Outcome::Reply`], several give [`Outcome::Replies`].
    /// After [`Outcome::MayResend`], and after [`again`](Self::again), the next poll sends it again, at its old place.
    #[inline]
    pub fn poll_unit(&mut self, unit: &[Command], cx: &mut Context<'_>) -> Poll<Outcome> {
        if self.state != State::Placed {
            return self.take_place(unit, cx);
        }
        let outcome = std::task::ready!(self.shared().queue.lock().poll(self.ticket, cx));
        self.state = match &outcome {
            Outcome::MayResend => State::Resendable,
            // A refused one keeps its place until this call is dropped.
            outcome if outcome.may_be_refused() => State::Told,
            _ => State::Spent,
        };
        Poll::Ready(outcome)
    }

    /// The poll of a command that has no place in the order yet, or goes again at the one it had.
    fn take_place(&mut self, unit: &[Command], cx: &mut Context<'_>) -> Poll<Outcome> {
        let place = match self.state {
            State::Resendable => {
                let io = self.shared().queue.lock().resend(self.ticket, unit, cx.waker());
                self.state = State::Placed;
                if let Some(io) = io {
                    io.wake();
                }
                return Poll::Pending;
            }
            State::Placed | State::Told | State::Spent | State::Unplaced => {
                return Poll::Ready(Outcome::Failed(Failure::Closed));
            }
            State::Fresh => None,
            State::InLine => Some(self.ticket.in_line()),
        };
        let (unit, waker) = (Unit::of(unit), cx.waker().clone());
        let (append, io) = self.shared().queue.lock().append(&unit, self.timeout, place, waker);
        if let Some(io) = io {
            io.wake();
        }
        match append {
            Append::Queued(ticket) => {
                self.ticket = ticket;
                self.state = State::Placed;
                Poll::Pending
            }
            Append::Full(place) => {
                self.ticket = Ticket::of_line(place);
                self.state = State::InLine;
                Poll::Pending
            }
            Append::Closed => {
                self.state = if self.state == State::Fresh { State::Unplaced } else { State::Spent };
                Poll::Ready(Outcome::Failed(Failure::Closed))
            }
        }
    }

    /// Takes the command back if it is not written yet; true when it is certain that it never will be.
    pub fn withdraw(&mut self) -> bool {
        match self.state {
            State::Fresh => true,
            State::InLine => {
                let next = self.shared().queue.lock().leave_line(self.ticket.in_line());
                self.state = State::Spent;
                if let Some(next) = next {
                    next.wake();
                }
                true
            }
            State::Placed => {
                let mut wakers = Vec::new();
                let taken_back = self.shared().queue.lock().withdraw(self.ticket, &mut wakers);
                if taken_back {
                    self.state = State::Spent;
                }
                for waker in wakers {
                    waker.wake();
                }
                taken_back
            }
            State::Resendable | State::Told | State::Spent | State::Unplaced => false,
        }
    }

    /// Its place in the lane's order: of two commands of a lane the one with the lower place was sent first, and one that
    /// waits for room comes behind all that have their place. `None` before it has any, and for good when the lane was closed
    /// already at its first poll.
    pub fn place(&self) -> Option<u64> {
        match self.state {
            State::Fresh | State::Unplaced => None,
            _ => Some(self.ticket.place()),
        }
    }

    /// Whether the command still waits for room, so that it is certain that nobody has run it.
    pub fn waits_for_room(&self) -> bool {
        matches!(self.state, State::Fresh | State::InLine)
    }
}

impl<L: Borrow<Lane>> Drop for LaneCall<L> {
    #[inline]
    fn drop(&mut self) {
        if self.state != State::Spent {
            self.give_up();
        }
    }
}

impl<L: Borrow<Lane>> LaneCall<L> {
    /// Nobody waits any more.
    fn give_up(&mut self) {
        let waker = match self.state {
            State::Fresh | State::Spent | State::Unplaced => None,
            State::InLine => self.shared().queue.lock().leave_line(self.ticket.in_line()),
            State::Placed | State::Resendable | State::Told => self.shared().queue.lock().cancel(self.ticket),
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
