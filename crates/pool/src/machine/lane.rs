//! `LaneMachine`: when a lane dials, backs off, moves and gives up.
//!
//! It knows endpoints and times, not sockets. Whatever it wants done leaves as an [`Action`]; what comes of it comes
//! back as an [`Input`].

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use evenkeel_protocol::{Endpoint, Machine};

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
    },
    /// Let go of a dial or of its connection.
    Discard(DialId),
    /// Send everything new over this dial's connection from now on; the one in use keeps what it owes until then.
    Adopt {
        /// The new connection.
        dial: DialId,
        /// The old connection is closed then, whatever it owes.
        drain_until: Instant,
    },
    /// Close the connection in use as dead: what it owes is unknown.
    Condemn,
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
}

/// Decides for one lane.
#[derive(Debug)]
pub struct LaneMachine {
    home: Endpoint,
    /// Dials go here until the time is over.
    redirect: Option<(Endpoint, Instant)>,
    /// Where the connection in use leads.
    at: Endpoint,
    state: State,
    moving: Option<Move>,
    /// A second connection that asks whether anybody still listens.
    probe: Option<DialId>,
    suspect: bool,
    attempt: u32,
    was_ready: bool,
    backoff: Backoff,
    seed: Seed,
    next_dial: u64,
    actions: VecDeque<Action>,
}

/// Between the tries of a move.
const MOVE_RETRY: Duration = Duration::from_millis(20);

impl LaneMachine {
    /// A lane that dials `home` at once.
    pub fn new(home: Endpoint, backoff: Backoff, seed: Seed) -> Self {
        let mut machine = Self {
            at: home.clone(),
            home,
            redirect: None,
            state: State::Closed,
            moving: None,
            probe: None,
            suspect: false,
            attempt: 0,
            was_ready: false,
            backoff,
            seed,
            next_dial: 0,
            actions: VecDeque::new(),
        };
        let home = machine.home.clone();
        machine.state = State::Dialing(machine.dial(home));
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

    /// Its own endpoint.
    pub fn home(&self) -> &Endpoint {
        &self.home
    }

    /// The move under way, with its dial when one has started.
    pub(crate) fn moving(&self) -> Option<(Option<DialId>, &MoveRequest)> {
        self.moving.as_ref().map(|moving| (moving.dial, &moving.request))
    }

    fn dial(&mut self, endpoint: Endpoint) -> DialId {
        let dial = DialId(self.next_dial);
        self.next_dial += 1;
        self.actions.push_back(Action::Dial { dial, endpoint });
        dial
    }

    /// Where an ordinary dial goes now.
    fn destination(&mut self, now: Instant) -> Endpoint {
        match &self.redirect {
            Some((target, until)) if *until > now => target.clone(),
            _ => {
                self.redirect = None;
                self.home.clone()
            }
        }
    }

    fn redial(&mut self, now: Instant) {
        let endpoint = self.destination(now);
        self.at = endpoint.clone();
        self.state = State::Dialing(self.dial(endpoint));
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
        self.suspect = false;
        let again = std::mem::replace(&mut self.was_ready, true);
        self.actions.push_back(Action::Report(Report::Connected { again, endpoint: self.at.clone() }));
    }

    fn dialed(&mut self, now: Instant, dial: DialId) {
        if self.probe == Some(dial) {
            // Somebody listens: the server is slow, not gone.
            self.probe = None;
            self.actions.push_back(Action::Discard(dial));
            return;
        }
        if let Some(moving) = self.moving.take_if(|moving| moving.dial == Some(dial)) {
            return self.adopt_move(now, dial, moving.request);
        }
        match self.state {
            State::Dialing(known) if known == dial => {
                self.actions.push_back(Action::Adopt { dial, drain_until: now });
                self.ready();
            }
            // A dial that nobody waits for any more.
            _ => self.actions.push_back(Action::Discard(dial)),
        }
    }

    fn adopt_move(&mut self, now: Instant, dial: DialId, request: MoveRequest) {
        if let State::Dialing(other) = self.state {
            self.actions.push_back(Action::Discard(other));
        }
        if let Some(probe) = self.probe.take() {
            self.actions.push_back(Action::Discard(probe));
        }
        self.at = request.target.clone();
        if request.for_good {
            self.home = request.target;
            self.redirect = None;
        } else {
            self.redirect = Some((request.target, request.deadline));
        }
        self.actions.push_back(Action::Adopt { dial, drain_until: now + request.drain });
        let was_down = self.state != State::Ready;
        self.state = State::Ready;
        self.attempt = 0;
        self.suspect = false;
        if was_down {
            self.ready();
        }
        self.actions.push_back(Action::Report(Report::Moved(request.id)));
    }

    fn dial_failed(&mut self, now: Instant, dial: DialId, refused: bool) {
        if self.probe == Some(dial) {
            self.probe = None;
            if refused && self.state == State::Ready && self.suspect {
                self.actions.push_back(Action::Condemn);
            }
            return;
        }
        if let Some(moving) = self.moving.as_mut().filter(|moving| moving.dial == Some(dial)) {
            moving.dial = None;
            moving.tries += 1;
            moving.next = now + MOVE_RETRY.saturating_mul(1 << moving.tries.min(4));
            if moving.next >= moving.request.deadline {
                self.give_up_move();
            }
            return;
        }
        if self.state == State::Dialing(dial) {
            self.back_off(now);
        }
    }

    fn give_up_move(&mut self) {
        if let Some(moving) = self.moving.take() {
            if let Some(dial) = moving.dial {
                self.actions.push_back(Action::Discard(dial));
            }
            self.actions.push_back(Action::Report(Report::MoveFailed(moving.request.id)));
        }
    }

    fn start_move(&mut self, now: Instant, request: MoveRequest) {
        let under_way = self.moving.take();
        let mut dial = None;
        if let Some(old) = under_way {
            if old.request.target == request.target {
                // The dial goes on: told again and again faster than a dial takes, a lane would never arrive.
                dial = old.dial;
            } else if let Some(dial) = old.dial {
                self.actions.push_back(Action::Discard(dial));
            }
            if old.request.target != request.target || old.request.id != request.id {
                // The newest word counts.
                self.actions.push_back(Action::Report(Report::MoveFailed(old.request.id)));
            }
        }
        if self.state == State::Ready && self.at == request.target && !self.suspect {
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
        self.moving = Some(Move { request, tries: 0, dial, next });
        self.drive_move(now);
    }

    fn drive_move(&mut self, now: Instant) {
        let Some(moving) = &mut self.moving else { return };
        if now >= moving.request.deadline {
            return self.give_up_move();
        }
        if moving.dial.is_none() && now >= moving.next {
            let dial = DialId(self.next_dial);
            self.next_dial += 1;
            moving.dial = Some(dial);
            let endpoint = moving.request.target.clone();
            self.actions.push_back(Action::Dial { dial, endpoint });
        }
    }

    fn lost(&mut self, now: Instant) {
        self.suspect = false;
        if let Some(probe) = self.probe.take() {
            self.actions.push_back(Action::Discard(probe));
        }
        self.actions.push_back(Action::Report(Report::Reconnecting {
            endpoint: self.at.clone(),
            attempt: 0,
            delay: Duration::ZERO,
        }));
        if let Some(moving) = &mut self.moving {
            // The old side has gone: no jitter any more, and the target is where everything goes.
            moving.next = now;
            let target = (moving.request.target.clone(), moving.request.deadline);
            if moving.request.for_good {
                self.home = target.0;
            } else {
                self.redirect = Some(target);
            }
            self.drive_move(now);
        }
        self.redial(now);
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
                if self.state == State::Ready && self.probe.is_none() {
                    if !self.suspect {
                        self.suspect = true;
                        self.actions.push_back(Action::Report(Report::Suspect(self.at.clone())));
                    }
                    let at = self.at.clone();
                    self.probe = Some(self.dial(at));
                }
            }
            Input::Heard => self.suspect = false,
            Input::Close => {
                self.give_up_move();
                if let State::Dialing(dial) = self.state {
                    self.actions.push_back(Action::Discard(dial));
                }
                if let Some(probe) = self.probe.take() {
                    self.actions.push_back(Action::Discard(probe));
                }
                self.state = State::Closed;
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.drive_move(now);
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
        let moving = self.moving.as_ref().map(|moving| match moving.dial {
            Some(_) => moving.request.deadline,
            None => moving.next.min(moving.request.deadline),
        });
        [backoff, moving].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests;
