//! `LaneMachine`: when a lane dials, backs off, moves and gives up.
//!
//! It knows endpoints and times, not sockets. Whatever it wants done leaves as an [`Action`]; what comes of it comes
//! back as an [`Input`].

use std::{
    collections::VecDeque,
    net::IpAddr,
    time::{Duration, Instant},
};

use evenkeel_protocol::{Endpoint, Machine};

use self::silence::Silence;
use super::backoff::{Backoff, Seed};

/// One attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DialId(pub u64);

/// One request to move, named by whoever makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MoveId(pub u64);

/// Where to move, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MoveRequest {
    /// Named by the caller; told back with the result.
    pub id: MoveId,
    /// Where to go.
    pub target: Endpoint,
    /// Not before: jitter over many clients.
    pub not_before: Instant,
    /// When the attempt ends, and with it the target: later dials go to the lane's own endpoint again.
    pub deadline: Instant,
    /// How long the old connection may take to answer what it owes, from the switch on.
    pub drain: Duration,
    /// The target becomes the lane's own endpoint for good (a failover), not only until the deadline (maintenance).
    pub for_good: bool,
    /// Connect to this address of the target rather than to what a lookup says; under TLS the target's name counts.
    pub address: Option<IpAddr>,
    /// How the old and the new connection overlap.
    pub overlap: Overlap,
    /// From when on nothing is written to the one in use, unless the new one is made beside it.
    pub hush_at: Instant,
    /// The connection is made anew although it leads to the target's name: what is behind the name has changed.
    pub renew: bool,
    /// A failed dial ends the move; otherwise it is tried again until the deadline.
    pub once: bool,
}

/// How the connection in use and its successor overlap.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlap {
    /// Make before break: the one in use works until its successor stands.
    #[default]
    Beside,
    /// One out, one in: the one in use answers what it owes and is closed before the target is dialled.
    InPlace,
    /// From now on nothing is written to the one in use; the target is dialled at `not_before`, or when the peer has
    /// closed, again and again until the deadline.
    Quiet,
}

impl MoveRequest {
    /// A move at once, with what the old connection owes waited for until the deadline.
    pub fn new(id: MoveId, target: Endpoint, now: Instant, deadline: Instant) -> Self {
        Self {
            id,
            target,
            not_before: now,
            deadline,
            drain: deadline.saturating_duration_since(now),
            for_good: false,
            address: None,
            overlap: Overlap::Beside,
            hush_at: now,
            renew: false,
            once: false,
        }
    }
}

/// What a lane machine is told.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The connection in use has ended.
    Lost,
    /// A dial succeeded, handshake included.
    Dialed(DialId),
    /// A dial failed; `refused` when nobody listens there.
    DialFailed {
        /// Which.
        dial: DialId,
        /// The port is closed: the server process is gone.
        refused: bool,
    },
    /// Move.
    Move(MoveRequest),
    /// Replies are owed and no byte has come for long.
    Silent,
    /// Bytes come again.
    Heard,
    /// After [`Action::Hush`]: the connection in use owes nothing.
    Idle,
    /// Nothing new will be asked; the driver ends by itself.
    Close,
}

/// What a lane machine wants done.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect and shake hands; answer with `Dialed` or `DialFailed`.
    Dial {
        /// Its name.
        dial: DialId,
        /// Where.
        endpoint: Endpoint,
        /// This address of it, rather than what a lookup says.
        address: Option<IpAddr>,
    },
    /// Let go of a dial or of its connection.
    Discard(DialId),
    /// Send everything new over this dial's connection from now on; the one in use keeps what it owes until then.
    Adopt {
        /// The new connection.
        dial: DialId,
        /// The old connection is closed then, whatever it owes.
        drain_until: Instant,
        /// It is the successor that a move was to bring.
        moved: bool,
    },
    /// Close the connection in use as dead: what it owes is unknown.
    Condemn,
    /// Write nothing more to the connection in use, until [`Resume`](Self::Resume) or a new one; say when it owes nothing.
    Hush,
    /// Close the connection in use, which owes nothing.
    Leave,
    /// The connection in use is written to again.
    Resume,
    /// Tell the owner.
    Report(Report),
}

/// What a lane tells its owner.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// Ready; `again` when it was before.
    Connected {
        /// Whether it had been connected before.
        again: bool,
        /// Where.
        endpoint: Endpoint,
    },
    /// The connection ended, or a dial failed; the next attempt comes after `delay`.
    Reconnecting {
        /// Where.
        endpoint: Endpoint,
        /// How many attempts have failed in a row.
        attempt: u32,
        /// When the next one starts.
        delay: Duration,
    },
    /// A move is done: new commands go to the target.
    Moved(MoveId),
    /// A move ended without success; the lane works on as it was.
    MoveFailed(MoveId),
    /// Commands are owed and the peer is silent.
    Suspect(Endpoint),
    /// A suspect peer does not answer a new connection either.
    Mute(Endpoint),
}

/// Where a lane stands.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneState {
    /// Waits before it dials again.
    Backoff,
    /// Takes nothing new.
    Closed,
    /// Connects.
    Dialing,
    /// Has a connection.
    Ready,
}

/// ```text
///    +---------- Lost ------------+
///    v                            |
///  Dialing -- Dialed --> Ready ---+      a move dials beside any of them,
///    |  ^                  ^             and ends in Ready when it adopts
///    |  +-- timeout --+    |
///    +-- DialFailed --> Backoff ---- move adopted ----> Ready
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Dialing(DialId),
    Backoff { until: Instant },
    Ready,
    Closed,
}

#[derive(Clone, Debug)]
struct Move {
    request: MoveRequest,
    tries: u32,
    dial: Option<DialId>,
    /// When to try next, while no dial is under way.
    next: Instant,
    /// Nothing is written to the connection in use meanwhile.
    hushed: bool,
}

impl Move {
    /// It waits for the connection in use to owe nothing.
    fn waits_for_idle(&self) -> bool {
        self.hushed && self.request.overlap == Overlap::InPlace
    }
}

/// Decides for one lane.
#[derive(Debug)]
pub struct LaneMachine {
    home: Endpoint,
    /// The address of `home` that it is bound to.
    address: Option<IpAddr>,
    /// Dials go here until the time is over.
    redirect: Option<(Endpoint, Option<IpAddr>, Instant)>,
    /// Where the connection in use leads.
    at: Endpoint,
    state: State,
    moving: Option<Move>,
    silence: Silence,
    attempt: u32,
    was_ready: bool,
    backoff: Backoff,
    seed: Seed,
    next_dial: u64,
    actions: VecDeque<Action>,
}

/// Between the tries of a move; it doubles four times.
const MOVE_RETRY: Duration = Duration::from_millis(20);
/// The same where the peer's close is what is waited for, and callers wait with it.
const QUIET_RETRY: Duration = Duration::from_millis(1);

impl LaneMachine {
    /// A lane that dials `home` at once.
    pub fn new(home: Endpoint, backoff: Backoff, seed: Seed) -> Self {
        Self::new_at(home, None, backoff, seed)
    }

    /// As [`new`](Self::new), at this address of `home` rather than at what a lookup says.
    pub fn new_at(home: Endpoint, address: Option<IpAddr>, backoff: Backoff, seed: Seed) -> Self {
        let mut machine = Self {
            at: home.clone(),
            home,
            address,
            redirect: None,
            state: State::Closed,
            moving: None,
            silence: Silence::default(),
            attempt: 0,
            was_ready: false,
            backoff,
            seed,
            next_dial: 0,
            actions: VecDeque::new(),
        };
        let home = machine.home.clone();
        machine.state = State::Dialing(machine.dial(home, address));
        machine
    }

    /// Where it stands.
    pub fn state(&self) -> LaneState {
        match self.state {
            State::Dialing(_) => LaneState::Dialing,
            State::Backoff { .. } => LaneState::Backoff,
            State::Ready => LaneState::Ready,
            State::Closed => LaneState::Closed,
        }
    }

    /// The endpoint in use, or the one that is dialled.
    pub fn endpoint(&self) -> &Endpoint {
        &self.at
    }

    /// Whether the peer owes replies and says nothing.
    pub fn is_suspect(&self) -> bool {
        self.silence.is_suspect()
    }

    /// Whether the peer owes replies, says nothing, and does not answer a new connection either.
    pub fn is_mute(&self) -> bool {
        self.silence.is_mute()
    }

    /// Its own endpoint.
    pub fn home(&self) -> &Endpoint {
        &self.home
    }

    /// The move under way, with its dial when one has started.
    pub(crate) fn moving(&self) -> Option<(Option<DialId>, &MoveRequest)> {
        self.moving.as_ref().map(|moving| (moving.dial, &moving.request))
    }

    fn dial(&mut self, endpoint: Endpoint, address: Option<IpAddr>) -> DialId {
        let dial = DialId(self.next_dial);
        self.next_dial += 1;
        self.actions.push_back(Action::Dial { dial, endpoint, address });
        dial
    }

    /// Where an ordinary dial goes now.
    fn destination(&mut self, now: Instant) -> (Endpoint, Option<IpAddr>) {
        match &self.redirect {
            Some((target, address, until)) if *until > now => (target.clone(), *address),
            _ => {
                self.redirect = None;
                (self.home.clone(), self.address)
            }
        }
    }

    fn redial(&mut self, now: Instant) {
        let (endpoint, address) = self.destination(now);
        self.at = endpoint.clone();
        self.state = State::Dialing(self.dial(endpoint, address));
    }

    fn back_off(&mut self, now: Instant) {
        self.attempt += 1;
        // A target that does not answer is given up for the lane's own endpoint.
        if self.redirect.take().is_some() {
            return self.redial(now);
        }
        let delay = self.backoff.jittered(self.attempt, &mut self.seed);
        self.state = State::Backoff { until: now + delay };
        self.actions.push_back(Action::Report(Report::Reconnecting {
            endpoint: self.at.clone(),
            attempt: self.attempt,
            delay,
        }));
    }

    fn ready(&mut self) {
        self.state = State::Ready;
        self.attempt = 0;
        self.silence.heard();
        let again = std::mem::replace(&mut self.was_ready, true);
        self.actions.push_back(Action::Report(Report::Connected { again, endpoint: self.at.clone() }));
    }

    fn dialed(&mut self, now: Instant, dial: DialId) {
        if self.silence.is_probe(dial) {
            self.silence.answered(now);
            self.actions.push_back(Action::Discard(dial));
            return;
        }
        if let Some(moving) = self.moving.take_if(|moving| moving.dial == Some(dial)) {
            return self.adopt_move(now, dial, moving.request);
        }
        match self.state {
            State::Dialing(known) if known == dial => {
                self.actions.push_back(Action::Adopt { dial, drain_until: now, moved: false });
                self.ready();
            }
            // A dial that nobody waits for any more.
            _ => self.actions.push_back(Action::Discard(dial)),
        }
    }

    fn adopt_move(&mut self, now: Instant, dial: DialId, request: MoveRequest) {
        if let State::Dialing(other) = self.state
            && other != dial
        {
            self.actions.push_back(Action::Discard(other));
        }
        if let Some(probe) = self.silence.over() {
            self.actions.push_back(Action::Discard(probe));
        }
        self.at = request.target.clone();
        if request.for_good {
            self.home = request.target;
            self.redirect = None;
        } else {
            self.redirect = Some((request.target, request.address, request.deadline));
        }
        self.actions.push_back(Action::Adopt { dial, drain_until: now + request.drain, moved: true });
        let was_down = self.state != State::Ready;
        self.state = State::Ready;
        self.attempt = 0;
        if was_down {
            self.ready();
        }
        self.actions.push_back(Action::Report(Report::Moved(request.id)));
    }

    fn dial_failed(&mut self, now: Instant, dial: DialId, refused: bool) {
        if self.silence.is_probe(dial) {
            self.silence.failed(now);
            if refused && self.state == State::Ready && self.silence.is_suspect() {
                self.actions.push_back(Action::Condemn);
            }
            return;
        }
        if let Some(moving) = self.moving.as_mut().filter(|moving| moving.dial == Some(dial)) {
            moving.dial = None;
            moving.tries += 1;
            let quiet = moving.request.overlap == Overlap::Quiet;
            let step = if quiet { QUIET_RETRY } else { MOVE_RETRY };
            moving.next = now + step.saturating_mul(1 << moving.tries.min(4));
            if moving.request.once || moving.next >= moving.request.deadline {
                self.give_up_move(now);
            }
            // The old side was lost before: the move's dial was the lane's own as well.
            if self.state == State::Dialing(dial) {
                self.back_off(now);
            }
            return;
        }
        if self.state == State::Dialing(dial) {
            self.back_off(now);
        }
    }

    fn give_up_move(&mut self, now: Instant) {
        let Some(moving) = self.moving.take() else { return };
        let is_alone = moving.dial.is_some_and(|dial| self.state == State::Dialing(dial));
        // Nobody has a connection, and the same would be dialled again: callers need not wait from the start.
        let leads_home = moving.request.target == self.home && moving.request.address == self.address;
        if let Some(dial) = moving.dial.filter(|_| !(is_alone && leads_home)) {
            self.actions.push_back(Action::Discard(dial));
        }
        self.resume(&moving);
        self.actions.push_back(Action::Report(Report::MoveFailed(moving.request.id)));
        if is_alone {
            self.redirect = None;
            if !leads_home {
                self.redial(now);
            }
        }
    }

    fn resume(&mut self, moving: &Move) {
        if moving.hushed && self.state == State::Ready {
            self.actions.push_back(Action::Resume);
        }
    }

    fn start_move(&mut self, now: Instant, request: MoveRequest) {
        let under_way = self.moving.take();
        let mut dial = None;
        let mut alone = false;
        if let Some(old) = under_way {
            alone = old.dial.is_some_and(|dial| self.state == State::Dialing(dial));
            if old.request.target == request.target && old.request.address == request.address {
                // The dial goes on: told again and again faster than a dial takes, a lane would never arrive.
                dial = old.dial;
            } else if let Some(dial) = old.dial {
                self.actions.push_back(Action::Discard(dial));
            }
            self.resume(&old);
            if old.request.target != request.target || old.request.id != request.id {
                // The newest word counts.
                self.actions.push_back(Action::Report(Report::MoveFailed(old.request.id)));
            }
        }
        if self.state == State::Ready
            && self.at == request.target
            && !self.silence.is_suspect()
            && !request.renew
        {
            // There already: a late joiner, or a dial that was redirected in time.
            if let Some(dial) = dial {
                self.actions.push_back(Action::Discard(dial));
            }
            if request.for_good {
                self.home = request.target;
            }
            self.actions.push_back(Action::Report(Report::Moved(request.id)));
            return;
        }
        let next = request.not_before.max(now);
        self.moving = Some(Move { request, tries: 0, dial, next, hushed: false });
        if alone {
            self.go_with_move();
        } else {
            self.drive_move(now);
        }
    }

    fn drive_move(&mut self, now: Instant) {
        let Some(moving) = &mut self.moving else { return };
        if now >= moving.request.deadline {
            return self.give_up_move(now);
        }
        let overlaps = moving.request.overlap == Overlap::Beside;
        if !overlaps && !moving.hushed && self.state == State::Ready && now >= moving.request.hush_at {
            moving.hushed = true;
            self.actions.push_back(Action::Hush);
        }
        if moving.dial.is_none() && now >= moving.next && !moving.waits_for_idle() {
            self.dial_move();
        }
    }

    fn dial_move(&mut self) {
        let Some(moving) = &mut self.moving else { return };
        let dial = DialId(self.next_dial);
        self.next_dial += 1;
        moving.dial = Some(dial);
        let (endpoint, address) = (moving.request.target.clone(), moving.request.address);
        self.actions.push_back(Action::Dial { dial, endpoint, address });
    }

    /// Nobody has a connection any more: the move's dial is the lane's own.
    fn go_with_move(&mut self) {
        let Some(moving) = &mut self.moving else { return };
        moving.hushed = false;
        let (target, address) = (moving.request.target.clone(), moving.request.address);
        self.at = target.clone();
        if moving.request.for_good {
            self.home = target;
        } else {
            self.redirect = Some((target, address, moving.request.deadline));
        }
        if moving.dial.is_none() {
            self.dial_move();
        }
        if let Some(dial) = self.moving.as_ref().and_then(|moving| moving.dial) {
            self.state = State::Dialing(dial);
        }
    }

    /// The connection in use owes nothing: one out.
    fn idle(&mut self) {
        let leaves = self.moving.as_ref().is_some_and(Move::waits_for_idle);
        if leaves && self.state == State::Ready {
            if let Some(probe) = self.silence.over() {
                self.actions.push_back(Action::Discard(probe));
            }
            self.actions.push_back(Action::Leave);
            self.go_with_move();
        }
    }

    fn lost(&mut self, now: Instant) {
        if let Some(probe) = self.silence.over() {
            self.actions.push_back(Action::Discard(probe));
        }
        self.actions.push_back(Action::Report(Report::Reconnecting {
            endpoint: self.at.clone(),
            attempt: 0,
            delay: Duration::ZERO,
        }));
        match &self.moving {
            // No jitter any more, and the target is where everything goes.
            Some(moving) if now < moving.request.deadline => self.go_with_move(),
            _ => self.redial(now),
        }
    }
}

impl Machine for LaneMachine {
    type Input = Input;
    type Action = Action;

    fn handle_input(&mut self, now: Instant, input: Input) {
        if self.state == State::Closed {
            if let Input::Dialed(dial) = input {
                self.actions.push_back(Action::Discard(dial));
            }
            return;
        }
        match input {
            Input::Lost if self.state == State::Ready => self.lost(now),
            // The answer to a question that is no longer asked.
            Input::Lost => {}
            Input::Dialed(dial) => self.dialed(now, dial),
            Input::DialFailed { dial, refused } => self.dial_failed(now, dial, refused),
            Input::Move(request) => self.start_move(now, request),
            Input::Silent => {
                if self.state != State::Ready {
                    return;
                }
                if self.silence.silent(now) {
                    self.actions.push_back(Action::Report(Report::Suspect(self.at.clone())));
                }
                if self.silence.wants_probe(now) {
                    let at = self.at.clone();
                    let probe = self.dial(at, None);
                    self.silence.asked(now, probe);
                }
            }
            Input::Heard => self.silence.heard(),
            Input::Idle => self.idle(),
            Input::Close => {
                self.give_up_move(now);
                if let State::Dialing(dial) = self.state {
                    self.actions.push_back(Action::Discard(dial));
                }
                if let Some(probe) = self.silence.over() {
                    self.actions.push_back(Action::Discard(probe));
                }
                self.state = State::Closed;
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.drive_move(now);
        if self.silence.handle_timeout(now) {
            self.actions.push_back(Action::Report(Report::Mute(self.at.clone())));
        }
        if let State::Backoff { until } = self.state
            && now >= until
        {
            self.redial(now);
        }
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let backoff = match self.state {
            State::Backoff { until } => Some(until),
            _ => None,
        };
        let hush = self.moving.as_ref().filter(|moving| {
            !moving.hushed && moving.request.overlap != Overlap::Beside && self.state == State::Ready
        });
        let hush = hush.map(|moving| moving.request.hush_at.min(moving.request.deadline));
        let moving = self.moving.as_ref().map(|moving| match moving.dial {
            Some(_) => moving.request.deadline,
            None if moving.waits_for_idle() => moving.request.deadline,
            None => moving.next.min(moving.request.deadline),
        });
        [backoff, hush, moving, self.silence.poll_timeout()].into_iter().flatten().min()
    }
}

mod silence;
#[cfg(test)]
mod tests;
