//! The candidate of a move and the exact cut between it and the connection in use.
//!
//! One server orders all that it publishes. A marker that both connections hear divides the messages of both at the
//! same place: the old connection delivers what came before it, the new one what came after.

use std::{collections::VecDeque, time::Instant};

use bytes::Bytes;
use evenkeel_protocol::Push;

use super::{
    super::{DialId, Input},
    LinkMachine,
    name::Name,
    settings::Peer,
    side::Side,
    signal::{EndCause, GapInfo, LinkAction},
};

/// How the cut stands.
///
/// ```text
///  Joining -- both hear the channel --> Marked -- the old one hears the marker --> taken over, exactly
///     |                                   |
///     +---- refused, or no time left -----+---> Off: taken over as soon as it stands, with a gap
/// ```
#[derive(Debug)]
pub(super) enum Cut {
    /// Both are told to subscribe the channel; who has confirmed.
    Joining { old: bool, new: bool },
    /// The marker is published; `heard` when the new connection has heard it.
    Marked { heard: bool, held: Held },
    /// It cannot be made.
    Off,
}

/// The new connection of a move, while the old one still delivers.
pub(super) struct Candidate {
    pub(super) side: Side,
    /// Where its marker is published; empty when no cut is tried.
    pub(super) channel: Bytes,
    pub(super) cut: Cut,
    /// It stands, and new subscriptions go to it alone; when the cut must be done.
    pub(super) until: Option<Instant>,
}

/// What came behind the marker, until the old connection has delivered everything before it.
#[derive(Default)]
pub(super) struct Held {
    messages: VecDeque<Push>,
    bytes: usize,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Held({} messages)", self.messages.len())
    }
}

impl Held {
    /// Keeps a message; false when it was the last that fits.
    pub(super) fn push(&mut self, push: Push, max_messages: usize, max_bytes: usize) -> bool {
        self.bytes = self.bytes.saturating_add(weight(&push));
        self.messages.push_back(push);
        self.messages.len() < max_messages && self.bytes < max_bytes
    }

    pub(super) fn into_messages(self) -> VecDeque<Push> {
        self.messages
    }
}

/// Bytes that a message keeps alive.
fn weight(push: &Push) -> usize {
    size_of::<Push>()
        + match push {
            Push::Message { channel, payload, .. } => channel.len() + payload.len(),
            Push::PatternMessage { pattern, channel, payload } => {
                pattern.len() + channel.len() + payload.len()
            }
            _ => 0,
        }
}

/// The connection in use was taken over at the marker, and has not heard it yet: what comes before was delivered.
pub(super) struct Skip {
    pub(super) channel: Bytes,
    /// When the old connection had delivered everything before the marker.
    pub(super) since: Instant,
    pub(super) until: Instant,
}

impl LinkMachine {
    pub(super) fn dialed(&mut self, now: Instant, dial: DialId, peer: Peer) {
        let request =
            self.lane.moving().filter(|(known, _)| *known == Some(dial)).map(|(_, request)| request);
        let (Some(request), Some(active)) = (request, &mut self.active) else {
            self.arrived = Some(dial);
            self.tell_lane(now, Input::Dialed(dial));
            self.arrived = None;
            return;
        };
        let may_cut = peer.resp3 && !peer.cluster && !request.for_good;
        let mut side = Side::new(dial, &self.wanted, now);
        let (mut channel, mut cut) = (Bytes::new(), Cut::Off);
        if let Some(front) = self.settings.cut_channel.as_deref().filter(|_| may_cut) {
            channel = Bytes::from(format!("{front}{:016x}", self.nonces.draw()));
            cut = Cut::Joining { old: false, new: false };
            let old = active.cut(&channel, true, now);
            let new = side.cut(&channel, true, now);
            self.actions.push_back(LinkAction::Write(active.dial, old));
            self.actions.push_back(LinkAction::Write(dial, new));
        }
        self.candidate = Some(Candidate { side, channel, cut, until: None });
    }

    /// This connection is the one in use from now on.
    pub(super) fn adopt(&mut self, now: Instant, dial: DialId) {
        let candidate = self.candidate.take_if(|candidate| candidate.side.dial == dial);
        let mut held = VecDeque::new();
        let side = match candidate {
            Some(candidate) => {
                // A skip leaves the channel when it ends.
                let leaves = !candidate.channel.is_empty() && self.skip.is_none();
                if let Cut::Marked { heard: true, held: waiting } = candidate.cut {
                    held = waiting.into_messages();
                }
                let mut side = candidate.side;
                if leaves {
                    let leave = side.cut(&candidate.channel, false, now);
                    self.actions.push_back(LinkAction::Write(dial, leave));
                }
                side
            }
            None if self.arrived == Some(dial) => Side::new(dial, &self.wanted, now),
            // The lane machine adopts only what it was told of.
            None => return,
        };
        let old = self.active.replace(side);
        self.suspect = None;
        self.actions.push_back(LinkAction::Use(dial));
        if let Some(old) = &old {
            self.actions.push_back(LinkAction::Discard(old.dial));
        }
        self.announce(old.as_ref());
        self.tell_gap();
        self.actions.extend(held.into_iter().map(LinkAction::Deliver));
    }

    /// Tells what stands on the connection in use and was not told, and what ended with the old one.
    pub(super) fn announce(&mut self, old: Option<&Side>) {
        let Some(side) = &self.active else { return };
        for name in side.on().filter(|name| self.wanted.contains(name)) {
            if self.announced.insert(name.clone()) {
                self.actions.push_back(LinkAction::Confirmed(name.kind, name.text.clone()));
            }
        }
        for name in old.into_iter().flat_map(Side::known) {
            // What both were asked to end is told when the connection in use confirms it.
            if !self.wanted.contains(name) && !side.knows(name) {
                self.announced.remove(name);
                self.actions.push_back(LinkAction::Ended(name.kind, name.text.clone(), EndCause::Asked));
            }
        }
    }

    pub(super) fn drop_candidate(&mut self, now: Instant) {
        let Some(candidate) = self.candidate.take() else { return };
        let Some(active) = &mut self.active else { return };
        if !candidate.channel.is_empty() {
            let leave = active.cut(&candidate.channel, false, now);
            self.actions.push_back(LinkAction::Write(active.dial, leave));
        }
        if candidate.until.is_some() {
            // Subscriptions that went to the candidate alone are the old connection's again.
            let missing: Vec<Name> = self.wanted.iter().filter(|name| !active.knows(name)).cloned().collect();
            for name in missing {
                active.touch(name);
            }
        }
    }

    /// The candidate is of no use; the lane machine may dial another.
    pub(super) fn fail_candidate(&mut self, now: Instant) {
        let Some(dial) = self.candidate.as_ref().map(|candidate| candidate.side.dial) else { return };
        self.drop_candidate(now);
        self.actions.push_back(LinkAction::Discard(dial));
        self.tell_lane(now, Input::DialFailed { dial, refused: false });
    }

    /// The candidate becomes the connection in use; without an exact cut messages may be missing or come twice.
    pub(super) fn take_over(&mut self, now: Instant, exact: bool) {
        let Some(candidate) = &self.candidate else { return };
        let dial = candidate.side.dial;
        if exact {
            if let Cut::Marked { heard: false, .. } = &candidate.cut {
                let until = candidate.until.unwrap_or(now);
                self.skip = Some(Skip { channel: candidate.channel.clone(), since: now, until });
            }
        } else {
            self.skip = None;
            let since = self.active.as_ref().map_or(now, |active| active.heard);
            self.owe_gap(GapInfo { may_repeat: true, since });
        }
        self.tell_lane(now, Input::Dialed(dial));
    }

    /// Brings the candidate a step further.
    pub(super) fn advance(&mut self, now: Instant) {
        let deadline = self.lane.moving().map(|(_, request)| request.deadline);
        let (Some(candidate), Some(active)) = (&mut self.candidate, &self.active) else { return };
        if !candidate.side.is_standing() {
            return;
        }
        if candidate.until.is_none() {
            let patience = now + self.settings.cut_timeout;
            candidate.until = Some(deadline.map_or(patience, |deadline| deadline.min(patience)));
        }
        match &candidate.cut {
            Cut::Off => self.take_over(now, false),
            Cut::Joining { old: true, new: true } if active.is_settled() => {
                candidate.cut = Cut::Marked { heard: false, held: Held::default() };
                let publish = candidate.side.publish(&candidate.channel, now);
                self.actions.push_back(LinkAction::Write(candidate.side.dial, publish));
            }
            Cut::Joining { .. } | Cut::Marked { .. } => {}
        }
    }

    pub(super) fn handle_marker(&mut self, now: Instant, dial: DialId, channel: &Bytes) {
        if self.is_active(dial) {
            if self.skip.take_if(|skip| skip.channel == channel).is_some() {
                self.leave_cut(now, channel);
            } else if self.candidate.as_ref().is_some_and(|candidate| {
                matches!(candidate.cut, Cut::Marked { .. }) && candidate.channel == channel
            }) {
                self.take_over(now, true);
            }
            return;
        }
        if let Some(candidate) = &mut self.candidate
            && candidate.side.dial == dial
            && candidate.channel == channel
            && let Cut::Marked { heard, .. } = &mut candidate.cut
        {
            *heard = true;
        }
    }

    pub(super) fn leave_cut(&mut self, now: Instant, channel: &Bytes) {
        if let Some(active) = &mut self.active {
            let leave = active.cut(channel, false, now);
            self.actions.push_back(LinkAction::Write(active.dial, leave));
        }
    }

    /// The exact cut cannot be made; the candidate takes over without it.
    pub(super) fn cut_off(&mut self, now: Instant) {
        let Some(candidate) = &mut self.candidate else { return };
        match candidate.cut {
            Cut::Marked { .. } => self.take_over(now, false),
            // As soon as it stands.
            Cut::Joining { .. } | Cut::Off => candidate.cut = Cut::Off,
        }
    }
}
