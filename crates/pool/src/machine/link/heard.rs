//! What connections say: messages, confirmations, answers, refusals.

use std::time::Instant;

use bytes::Bytes;
use evenkeel_protocol::{Machine, Push, ServerError};

use super::{
    super::DialId,
    LinkMachine,
    cut::Cut,
    name::{ChannelKind, Name},
    settings::CUT_CHANNEL,
    side::{Answer, Change, Side},
    signal::{EndCause, LinkAction, LinkInput},
};

impl LinkMachine {
    /// Takes a push as [`LinkInput::Push`] does, but gives a message back that is to be delivered at once: nearly all are,
    /// and the queue of actions costs more than looking.
    pub fn pass(&mut self, now: Instant, dial: DialId, push: Push) -> Option<Push> {
        let channel = match &push {
            Push::Message { channel, .. } | Push::PatternMessage { channel, .. } => Some(channel),
            _ => None,
        };
        let plain = channel.is_some_and(|channel| !self.is_marker(channel))
            && self.is_active(dial)
            && self.skip.is_none()
            && self.actions.is_empty();
        if plain {
            return Some(push);
        }
        self.handle_input(now, LinkInput::Push(dial, push));
        None
    }

    pub(super) fn side(&mut self, dial: DialId) -> Option<&mut Side> {
        match (&mut self.active, &mut self.candidate) {
            (Some(active), _) if active.dial == dial => Some(active),
            (_, Some(candidate)) if candidate.side.dial == dial => Some(&mut candidate.side),
            _ => None,
        }
    }

    pub(super) fn is_active(&self, dial: DialId) -> bool {
        self.active.as_ref().is_some_and(|active| active.dial == dial)
    }

    pub(super) fn is_marker(&self, channel: &[u8]) -> bool {
        let front = self.settings.cut_channel.as_deref().unwrap_or(CUT_CHANNEL);
        channel.starts_with(front.as_bytes())
    }

    pub(super) fn handle_push(&mut self, now: Instant, dial: DialId, push: Push) {
        match &push {
            Push::Subscription { kind, channel: Some(channel), .. } => {
                if let Some((kind, began)) = ChannelKind::of(*kind) {
                    self.handle_confirmation(now, dial, kind, began, channel.clone());
                }
            }
            Push::Message { channel, sharded, .. } if self.is_marker(channel) => {
                let channel = channel.clone();
                if !sharded {
                    self.handle_marker(now, dial, &channel);
                }
            }
            // Markers are nobody's business, on patterns neither.
            Push::PatternMessage { channel, .. } if self.is_marker(channel) => {}
            Push::Message { .. } | Push::PatternMessage { .. } => self.handle_message(now, dial, push),
            // Everything else is the owner's, and the driver hands it over by itself.
            _ => {}
        }
    }

    pub(super) fn handle_message(&mut self, now: Instant, dial: DialId, push: Push) {
        if self.is_active(dial) {
            // Before the marker: the old connection has delivered it.
            if self.skip.is_none() {
                self.actions.push_back(LinkAction::Deliver(push));
            }
            return;
        }
        let Some(candidate) = self.candidate.as_mut().filter(|candidate| candidate.side.dial == dial) else {
            return;
        };
        // What comes before the marker is the old connection's to deliver.
        if let Cut::Marked { heard: true, held } = &mut candidate.cut
            && !held.push(push, self.settings.hold_messages, self.settings.hold_bytes)
        {
            self.take_over(now, false);
        }
    }

    pub(super) fn handle_confirmation(
        &mut self,
        now: Instant,
        dial: DialId,
        kind: ChannelKind,
        began: bool,
        text: Bytes,
    ) {
        let is_cut = kind == ChannelKind::Channel && self.is_marker(&text);
        let in_use = self.is_active(dial);
        let Some(side) = self.side(dial) else { return };
        let change = if is_cut {
            side.cut_confirmed(began)
        } else {
            side.confirmed(began, Name::new(kind, text.clone()))
        };
        match change {
            Change::Began(name) if in_use && self.wanted.contains(&name) => {
                self.announced.insert(name);
                self.actions.push_back(LinkAction::Confirmed(kind, text));
            }
            Change::Ended(name) if in_use => {
                self.announced.remove(&name);
                if !self.wanted.contains(&name) {
                    self.actions.push_back(LinkAction::Ended(kind, text, EndCause::Asked));
                }
            }
            Change::EndedByServer(name) if in_use => {
                self.announced.remove(&name);
                self.wanted.remove(&name);
                if let Some(candidate) = &mut self.candidate {
                    candidate.side.forget(&name);
                    candidate.side.touch(name);
                }
                self.actions.push_back(LinkAction::Ended(kind, text, EndCause::ByServer));
            }
            // The new side of a move lost what the old one has: it cannot stand in for it.
            Change::EndedByServer(_) => self.fail_candidate(now),
            Change::CutBegan => {
                if let Some(candidate) = &mut self.candidate
                    && candidate.channel == text
                    && let Cut::Joining { old, new } = &mut candidate.cut
                {
                    *(if in_use { old } else { new }) = true;
                }
            }
            // A candidate's subscriptions are told when it takes over.
            Change::Began(_) | Change::Ended(_) | Change::Nothing => {}
        }
    }

    pub(super) fn handle_reply(
        &mut self,
        now: Instant,
        dial: DialId,
        error: Option<ServerError>,
        number: Option<i64>,
    ) {
        let in_use = self.is_active(dial);
        let Some(side) = self.side(dial) else { return };
        match side.answered(error, number) {
            Answer::Refused { names, error } => self.refused(now, in_use, names, error),
            Answer::CutRefused => self.cut_off(now),
            // Both connections hear the marker where one server holds both; it must have counted them.
            Answer::Published(count) => {
                if !in_use && count.is_none_or(|count| count < 2) {
                    self.cut_off(now);
                }
            }
            Answer::Nothing => {}
        }
    }

    pub(super) fn refused(&mut self, now: Instant, in_use: bool, names: Vec<Name>, error: ServerError) {
        let stands_elsewhere =
            |name: &Name| !in_use && self.active.as_ref().is_some_and(|active| active.is_on(name));
        if names.iter().any(stands_elsewhere) {
            // The old connection has what the new one is refused: stay.
            return self.fail_candidate(now);
        }
        let Some(kind) = names.first().map(|name| name.kind) else { return };
        let mut texts = Vec::new();
        for name in names {
            if self.wanted.remove(&name) {
                let candidate = self.candidate.as_mut().map(|candidate| &mut candidate.side);
                for side in [self.active.as_mut(), candidate].into_iter().flatten() {
                    side.forget(&name);
                    side.touch(name.clone());
                }
                texts.push(name.text);
            } else if in_use {
                self.actions.push_back(LinkAction::Ended(kind, name.text, EndCause::Asked));
            }
        }
        if !texts.is_empty() {
            self.actions.push_back(LinkAction::Refused(kind, texts, error));
        }
    }
}
