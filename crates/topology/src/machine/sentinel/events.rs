//! What the sentinels publish, taken in.

use std::time::Instant;

use evenkeel_protocol::Endpoint;

use super::{HOLD_LIMIT, SentinelResolver};
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
                self.ask_all_sentinels();
            }
            Notification::Joined => self.on_joined(instance),
            Notification::ObjectivelyDown if is_about_current => {
                self.odown.get_or_insert_with(|| (now, sentinel.clone()));
                self.hurry(now);
            }
            Notification::ObjectivelyUp if is_about_current => self.odown = None,
            Notification::Promoted | Notification::Selected => {
                self.on_attempt(now, sentinel, primary, Some(&instance.endpoint));
            }
            Notification::Rebooted if is_about_current => self.doubt(now),
            // The states between the other events say nothing that those do not; the rest is about a primary of the past.
            Notification::State(_)
            | Notification::ObjectivelyDown
            | Notification::ObjectivelyUp
            | Notification::Rebooted => {}
        }
    }

    /// `sentinel` leads a failover of `primary`.
    fn on_attempt(
        &mut self,
        now: Instant,
        sentinel: &Endpoint,
        primary: &Endpoint,
        selected: Option<&Endpoint>,
    ) {
        let is_ours = self.is_current(primary);
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
        // A primary that hands over by itself stops soon after its heir was chosen, and what it has not answered by then it
        // never will.
        let stops = is_news && attempt.is_passing;
        if is_ours && (is_new || stops) {
            attempt.blocks = true;
            self.hold(Some(now + HOLD_LIMIT));
        }
        if is_new {
            self.report(Report::FailoverStarted { sentinel: sentinel.clone() });
        }
        if is_new || is_news {
            self.hurry(now);
        }
        // A promotion that is already announced has happened.
        if let Some(selected) = selected {
            self.ask_role(selected);
        }
    }

    /// `sentinel` says that the primary is at `to` now: it and all others are asked for the epoch.
    fn on_switched(&mut self, now: Instant, sentinel: &Endpoint, to: &Endpoint) {
        self.attempts.finish(sentinel);
        if !self.is_current(to) && self.learn_node(to) {
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
