//! `LinkMachine`: which subscriptions a node's link wants, what its connections have confirmed, and how it moves.
//!
//! It knows names and times, not sockets. The life of its connections is a [`LaneMachine`]'s; what this one adds is that
//! each new connection is told everything that is wanted, that a move takes over only when the new connection stands,
//! and that a gap is never silent.

mod cut;
mod heard;
mod name;
mod settings;
mod side;
mod signal;

use std::{
    collections::{BTreeSet, VecDeque},
    fmt,
    time::{Duration, Instant},
};

use bytes::Bytes;
use evenkeel_protocol::{Endpoint, Machine, Push};

use self::{
    cut::{Candidate, Skip},
    name::Name,
    side::Side,
};
use super::{Action, Backoff, DialId, Input, LaneMachine, LaneState, Seed};

pub use self::{
    name::ChannelKind,
    settings::{CUT_CHANNEL, LinkSettings, Peer},
    signal::{EndCause, GapInfo, LinkAction, LinkInput},
};

/// Decides for one link.
pub struct LinkMachine {
    lane: LaneMachine,
    settings: LinkSettings,
    wanted: BTreeSet<Name>,
    /// What the owner was told to stand, and does.
    announced: BTreeSet<Name>,
    active: Option<Side>,
    candidate: Option<Candidate>,
    /// A connection that the lane machine is just being told of.
    arrived: Option<DialId>,
    skip: Option<Skip>,
    /// A gap to be told when the connection stands.
    gap: Option<GapInfo>,
    floor: Option<Duration>,
    /// The peer is suspect; when to say so again.
    suspect: Option<Instant>,
    nonces: Seed,
    actions: VecDeque<LinkAction>,
}

impl fmt::Debug for LinkMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkMachine")
            .field("state", &self.lane.state())
            .field("wanted", &self.wanted.len())
            .field("moving", &self.candidate.is_some())
            .finish_non_exhaustive()
    }
}

/// While a peer is suspect and no probe is under way, another one starts after so long.
const PROBE_INTERVAL: Duration = Duration::from_millis(250);

impl LinkMachine {
    /// A link that dials `home` at once.
    ///
    /// `nonces` names the channels of cuts: it must differ between all links of all clients of a server.
    pub fn new(home: Endpoint, backoff: Backoff, settings: LinkSettings, jitter: Seed, nonces: Seed) -> Self {
        let mut machine = Self {
            lane: LaneMachine::new(home, backoff, jitter),
            settings,
            wanted: BTreeSet::new(),
            announced: BTreeSet::new(),
            active: None,
            candidate: None,
            arrived: None,
            skip: None,
            gap: None,
            floor: None,
            suspect: None,
            nonces,
            actions: VecDeque::new(),
        };
        while let Some(action) = machine.lane.poll_action() {
            if let Action::Dial { dial, endpoint, address } = action {
                machine.actions.push_back(LinkAction::Dial { dial, endpoint, address });
            }
        }
        machine
    }

    /// Where it stands.
    pub fn state(&self) -> LaneState {
        self.lane.state()
    }

    /// The endpoint in use, or the one that is dialled.
    pub fn endpoint(&self) -> &Endpoint {
        self.lane.endpoint()
    }

    /// How many subscriptions are wanted.
    pub fn wanted(&self) -> usize {
        self.wanted.len()
    }

    // The lane machine: told what happens, its actions done.

    fn tell_lane(&mut self, now: Instant, input: Input) {
        self.lane.handle_input(now, input);
        self.settle(now);
    }

    /// Does what the lane machine says, or passes it on.
    fn settle(&mut self, now: Instant) {
        while let Some(action) = self.lane.poll_action() {
            match action {
                Action::Dial { dial, endpoint, address } => {
                    self.actions.push_back(LinkAction::Dial { dial, endpoint, address });
                }
                Action::Discard(dial) => {
                    if self.candidate.as_ref().is_some_and(|candidate| candidate.side.dial == dial) {
                        self.drop_candidate(now);
                    }
                    self.actions.push_back(LinkAction::Discard(dial));
                }
                Action::Adopt { dial, .. } => self.adopt(now, dial),
                Action::Condemn => self.condemn(now),
                Action::Leave => self.leave(now),
                // Nothing is owed on a link, and what it still hears before the close is heard.
                Action::Hush => self.lane.handle_input(now, Input::Idle),
                Action::Resume => {}
                Action::Report(report) => self.actions.push_back(LinkAction::Report(report)),
            }
        }
    }

    // Losing and gaps.

    fn owe_gap(&mut self, gap: GapInfo) {
        if self.announced.is_empty() && self.gap.is_none() {
            return;
        }
        self.gap = Some(match self.gap {
            Some(known) => {
                GapInfo { may_repeat: known.may_repeat || gap.may_repeat, since: known.since.min(gap.since) }
            }
            None => gap,
        });
    }

    /// Tells the gap once everything stands again.
    fn tell_gap(&mut self) {
        if self.active.as_ref().is_some_and(Side::is_standing)
            && let Some(gap) = self.gap.take()
        {
            self.actions.push_back(LinkAction::Gap(gap));
        }
    }

    fn lost(&mut self, now: Instant, dial: DialId) {
        if self.active.as_ref().is_some_and(|active| active.dial == dial) {
            self.lose_active(now);
        } else if self.candidate.as_ref().is_some_and(|candidate| candidate.side.dial == dial) {
            self.fail_candidate(now);
        }
    }

    fn lose_active(&mut self, now: Instant) {
        if !self.part_with_active() {
            return;
        }
        self.lane.handle_input(now, Input::Lost);
        match self.candidate.as_ref().map(|candidate| candidate.side.dial) {
            // It is connected already: nothing is nearer.
            Some(dial) => self.tell_lane(now, Input::Dialed(dial)),
            None => self.settle(now),
        }
    }

    /// The lane machine closes the connection in use to make room for its successor.
    fn leave(&mut self, now: Instant) {
        let Some(dial) = self.active.as_ref().map(|active| active.dial) else { return };
        self.drop_candidate(now);
        self.actions.push_back(LinkAction::Discard(dial));
        self.part_with_active();
    }

    /// The connection in use is none any more; what it carried has a gap.
    fn part_with_active(&mut self) -> bool {
        let Some(old) = self.active.take() else { return false };
        self.suspect = None;
        self.skip = None;
        self.owe_gap(GapInfo { may_repeat: self.candidate.is_some(), since: old.heard });
        self.announced.clear();
        // What nobody wants has ended with the connection.
        for name in old.known().filter(|name| !self.wanted.contains(name)) {
            self.actions.push_back(LinkAction::Ended(name.kind, name.text.clone(), EndCause::Asked));
        }
        true
    }

    fn condemn(&mut self, now: Instant) {
        if let Some(active) = &self.active {
            self.actions.push_back(LinkAction::Discard(active.dial));
            self.lose_active(now);
        }
    }

    // What is wanted.

    fn subscribe(&mut self, kind: ChannelKind, names: Vec<Bytes>) {
        for text in names {
            let name = Name::new(kind, text);
            self.wanted.insert(name.clone());
            if let Some(candidate) = &mut self.candidate {
                candidate.side.touch(name.clone());
            }
            let Some(active) = &mut self.active else { continue };
            if active.is_on(&name) {
                // Whoever asks again waits for the answer again.
                self.announced.insert(name.clone());
                self.actions.push_back(LinkAction::Confirmed(name.kind, name.text));
            } else {
                active.touch(name);
            }
        }
    }

    fn unsubscribe(&mut self, kind: ChannelKind, names: Vec<Bytes>) {
        for text in names {
            let name = Name::new(kind, text);
            self.wanted.remove(&name);
            if let Some(candidate) = &mut self.candidate {
                candidate.side.forget(&name);
                candidate.side.touch(name.clone());
            }
            let known = match &mut self.active {
                Some(active) => {
                    active.forget(&name);
                    active.touch(name.clone());
                    active.knows(&name)
                }
                None => false,
            };
            if !known {
                self.actions.push_back(LinkAction::Ended(kind, name.text, EndCause::Asked));
            }
        }
    }

    /// Sends what is missing, and goes on with a move and a gap that waited for it.
    fn drive(&mut self, now: Instant) {
        let candidate_alone = self.candidate.as_ref().is_some_and(|candidate| candidate.until.is_some());
        let sides = [
            self.active.as_mut().map(|side| (side, !candidate_alone)),
            self.candidate.as_mut().map(|candidate| (&mut candidate.side, true)),
        ];
        for (side, may_begin) in sides.into_iter().flatten() {
            while let Some(command) = side.drive(&self.wanted, may_begin, now) {
                self.actions.push_back(LinkAction::Write(side.dial, command));
            }
        }
        self.tell_gap();
        self.advance(now);
    }

    // Time.

    fn heard(&mut self, now: Instant, dial: DialId) {
        let in_use = self.is_active(dial);
        if let Some(side) = self.side(dial) {
            side.heard = now;
        }
        if in_use && self.suspect.take().is_some() {
            self.tell_lane(now, Input::Heard);
        }
    }

    fn watch(&mut self, now: Instant) {
        let Some(active) = &mut self.active else { return };
        let Some(since) = active.silent_since() else {
            if now >= active.heard + self.settings.ping_after {
                let ping = active.ping(now);
                self.actions.push_back(LinkAction::Write(active.dial, ping));
            }
            return;
        };
        if now >= since + self.answer_timeout() {
            self.condemn(now);
        } else if self.floor.is_none() && now >= self.suspect.unwrap_or(since + self.settings.suspect_after) {
            self.suspect = Some(now + PROBE_INTERVAL);
            self.tell_lane(now, Input::Silent);
        }
    }

    fn answer_timeout(&self) -> Duration {
        self.settings.answer_timeout.max(self.floor.unwrap_or_default())
    }

    fn watch_timeout(&self) -> Option<Instant> {
        let active = self.active.as_ref()?;
        let Some(since) = active.silent_since() else { return Some(active.heard + self.settings.ping_after) };
        let end = since + self.answer_timeout();
        if self.floor.is_some() {
            return Some(end);
        }
        Some(end.min(self.suspect.unwrap_or(since + self.settings.suspect_after)))
    }

    fn close(&mut self, now: Instant) {
        for dial in [
            self.active.take().map(|active| active.dial),
            self.candidate.take().map(|candidate| candidate.side.dial),
        ]
        .into_iter()
        .flatten()
        {
            self.actions.push_back(LinkAction::Discard(dial));
        }
        self.skip = None;
        self.tell_lane(now, Input::Close);
    }
}

impl Machine for LinkMachine {
    type Input = LinkInput;
    type Action = LinkAction;

    fn handle_input(&mut self, now: Instant, input: LinkInput) {
        match input {
            // The hot ones change nothing that is wanted.
            LinkInput::Heard(dial) => return self.heard(now, dial),
            LinkInput::Push(dial, push @ (Push::Message { .. } | Push::PatternMessage { .. })) => {
                return self.handle_push(now, dial, push);
            }
            LinkInput::Push(dial, push) => self.handle_push(now, dial, push),
            LinkInput::Close => self.close(now),
            LinkInput::Dialed(dial, peer) => self.dialed(now, dial, peer),
            LinkInput::DialFailed { dial, refused } => {
                self.tell_lane(now, Input::DialFailed { dial, refused });
            }
            LinkInput::Lost(dial) => self.lost(now, dial),
            LinkInput::Move(request) => self.tell_lane(now, Input::Move(request)),
            LinkInput::Relax(floor) => self.floor = floor,
            LinkInput::Reply { dial, error, number } => self.handle_reply(now, dial, error, number),
            LinkInput::Subscribe(kind, names) => self.subscribe(kind, names),
            LinkInput::Unsubscribe(kind, names) => self.unsubscribe(kind, names),
        }
        self.drive(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        // A candidate that stands takes over before its move's deadline discards it.
        if self.candidate.as_ref().and_then(|candidate| candidate.until).is_some_and(|until| now >= until) {
            self.take_over(now, false);
        }
        if let Some(skip) = self.skip.take_if(|skip| now >= skip.until) {
            self.owe_gap(GapInfo { may_repeat: true, since: skip.since });
            self.leave_cut(now, &skip.channel);
        }
        self.lane.handle_timeout(now);
        self.settle(now);
        self.watch(now);
        self.drive(now);
    }

    fn poll_action(&mut self) -> Option<LinkAction> {
        self.actions.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let cut = self.candidate.as_ref().and_then(|candidate| candidate.until);
        let skip = self.skip.as_ref().map(|skip| skip.until);
        [cut, skip, self.lane.poll_timeout(), self.watch_timeout()].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests;
