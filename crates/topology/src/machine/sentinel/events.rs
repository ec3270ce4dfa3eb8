//! What the sentinels publish, taken in.

use std::time::Instant;

use evenkeel_protocol::Endpoint;

use super::{HAND_OVER_LEAD, HOLD_LIMIT, RESET_WAIT, SentinelResolver, nodes::Said};
use crate::{
    machine::action::{Report, SentinelQuestion},
    read::{Instance, InstanceKind, Notification, SentinelEvent},
};

impl SentinelResolver {
    pub(super) fn on_event(&mut self, now: Instant, sentinel: &Endpoint, channel: &[u8], payload: &[u8]) {
        let Some(event) = SentinelEvent::parse(channel, payload) else { return };
        if event.name().is_some_and(|name| name != self.config.name) {
            return;
        }
        let Some(known) = self.sentinels.find(sentinel) else { return };
        match event {
            SentinelEvent::NewEpoch(epoch) => known.epoch_seen = known.epoch_seen.max(Some(epoch)),
            SentinelEvent::Switched { to, .. } => self.on_switched(now, sentinel, &to),
            SentinelEvent::About { what, instance, primary, .. } => {
                self.on_notification(now, sentinel, &what, &instance, &primary);
            }
        }
    }

    fn on_notification(
        &mut self,
        now: Instant,
        sentinel: &Endpoint,
        what: &Notification,
        instance: &Instance,
        primary: &Endpoint,
    ) {
        let is_about_current = self.is_current(&instance.endpoint);
        match what {
            Notification::Aborted(_) => {
                if self.attempts.end(sentinel) {
                    self.report(Report::FailoverAborted { sentinel: sentinel.clone() });
                    self.prove_current_anew();
                }
            }
            Notification::ConfigUpdated => self.ask_sentinel(sentinel, SentinelQuestion::Primary),
            Notification::Down | Notification::Up => self.on_down(now, instance, *what == Notification::Down),
            Notification::Elected | Notification::Trying => self.on_attempt(now, sentinel, primary, None),
            Notification::Ended => {
                self.attempts.finish(sentinel);
                self.ask_sentinels_that_differ();
            }
            Notification::Joined => self.on_joined(instance),
            Notification::ObjectivelyDown if is_about_current => {
                self.odown.get_or_insert_with(|| (now, sentinel.clone()));
                self.hurry(now);
            }
            Notification::ObjectivelyUp if is_about_current => self.odown = None,
            Notification::Promoted
                if is_about_current && self.resets.take_if(|by| by == sentinel).is_some() =>
            {
                // What is written meanwhile would be lost on the way. The loss of our connection ends the wait sooner. A wait for
                // another failover goes on.
                if !self.attempts.blocks(&instance.endpoint) {
                    self.hold(Some(now + RESET_WAIT));
                }
                if let Some(node) = self.nodes.find(&instance.endpoint) {
                    node.said = Said::Nothing;
                }
            }
            Notification::Promoted | Notification::Selected => {
                self.on_attempt(now, sentinel, primary, Some(&instance.endpoint));
            }
            Notification::Rebooted if is_about_current => self.doubt(now),
            // A primary that hands over by itself is told to at this moment.
            Notification::State(state) if state == "wait-promotion" => {
                self.attempts.stop_passing_at(sentinel, now);
                if self.attempts.stop_due(now, primary) && self.is_current(primary) {
                    self.hold(Some(now + HOLD_LIMIT));
                }
            }
            // The states between the other events say nothing that those do not; the rest is about a primary of the past.
            Notification::State(_)
            | Notification::ObjectivelyDown
            | Notification::ObjectivelyUp
            | Notification::Rebooted => {}
        }
    }

    /// `sentinel` leads a failover of `primary`.
    pub(super) fn on_attempt(
        &mut self,
        now: Instant,
        sentinel: &Endpoint,
        primary: &Endpoint,
        selected: Option<&Endpoint>,
    ) {
        let is_ours = self.is_current(primary);
        let current = self.primary().cloned();
        let seen = self.sentinels.find(sentinel).and_then(|s| s.epoch_seen);
        // Late word of a failover that is over.
        if self.current.is_some() && seen.map_or(!is_ours, |seen| seen <= self.epoch()) {
            return;
        }
        if let Some(selected) = selected {
            self.learn_node(selected);
        }
        // The epoch of a failover is newer than every configuration before it.
        let epoch = seen.unwrap_or_else(|| self.epoch() + 1);
        let is_allowed = selected.is_none_or(|selected| self.nodes.find(selected).is_some());
        let Some((attempt, is_new)) = self.attempts.note(now, sentinel, primary, epoch) else { return };
        let is_news = attempt.selected.as_ref() != selected && selected.is_some();
        if is_news && is_allowed {
            attempt.selected = selected.cloned();
        }
        // One that replaces a primary of the past promotes whom it has chosen all the same, in a newer epoch: ours goes too.
        let replaces_ours = is_news && !is_ours && current.as_ref() != selected;
        if let Some(current) = current.filter(|_| replaces_ours) {
            attempt.primary = current;
        }
        let is_ours = is_ours || (replaces_ours && self.current.is_some());
        // A sentinel that lost its time (tilt mode) goes on half a minute after it began, when the hold is long over.
        let goes_on = is_news && !attempt.is_passing;
        if is_ours && (is_new || goes_on) {
            attempt.blocks = true;
            self.hold(Some(now + HOLD_LIMIT));
        }
        if is_new {
            self.report(Report::FailoverStarted { sentinel: sentinel.clone() });
            // It tells whether the primary hands over by itself.
            self.ask_sentinel(sentinel, SentinelQuestion::Primary);
        }
        if is_news {
            self.attempts.stop_passing_at(sentinel, now + HAND_OVER_LEAD);
        }
        if is_new || is_news {
            self.hurry(now);
        }
        // A promotion that is already announced has happened. What the chosen one said before is no word of it: it may have been a
        // primary of the past, that is one no more.
        if let Some(selected) = selected {
            if is_news
                && !self.is_current(selected)
                && let Some(node) = self.nodes.find(selected)
            {
                node.forget();
            }
            self.ask_role(selected);
        }
    }

    /// `sentinel` says that the primary is at `to` now. Where we know that already, and it said nothing newer, this is its
    /// answer. Else it and all others are asked for the epoch.
    fn on_switched(&mut self, now: Instant, sentinel: &Endpoint, to: &Endpoint) {
        if self.is_current(to) {
            self.attempts.end_others_than_of(to, sentinel);
        }
        self.attempts.finish(sentinel);
        let epoch = self.epoch();
        if self.is_current(to) {
            let Some(known) = self.sentinels.find(sentinel) else { return };
            if known.says.as_ref().is_none_or(|(_, said)| *said <= epoch) {
                known.says = Some((to.clone(), epoch));
                return;
            }
        } else if self.learn_node(to) {
            self.doubt(now);
            self.ask_role(to);
        }
        self.ask_all_sentinels();
    }

    fn on_down(&mut self, now: Instant, instance: &Instance, is_down: bool) {
        match instance.kind {
            InstanceKind::Primary if is_down && self.is_current(&instance.endpoint) => self.doubt(now),
            InstanceKind::Replica => {
                if let Some(node) = self.nodes.find(&instance.endpoint) {
                    node.is_down = is_down;
                    self.ask_role(&instance.endpoint);
                }
            }
            InstanceKind::Primary | InstanceKind::Sentinel => {}
        }
    }

    fn on_joined(&mut self, instance: &Instance) {
        match instance.kind {
            InstanceKind::Replica => {
                if self.learn_node(&instance.endpoint) {
                    if let Some(node) = self.nodes.find(&instance.endpoint) {
                        node.is_listed = true;
                    }
                    self.ask_role(&instance.endpoint);
                }
            }
            InstanceKind::Sentinel => self.learn_sentinel(&instance.endpoint, None),
            InstanceKind::Primary => {}
        }
    }
}
