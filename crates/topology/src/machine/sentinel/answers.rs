//! What sentinels and data nodes answer, and what the client reports, taken in.

use std::time::Instant;

use evenkeel_protocol::Endpoint;

use super::{
    FAST_FOR, FAST_STEP, HOLD_LIMIT, STALE_AFTER, SentinelResolver,
    group::Link,
    nodes::{Heard, Said},
};
use crate::{
    error::AskFailure,
    machine::{
        action::{Action, Report, SentinelQuestion},
        input::{Complaint, SentinelAnswer},
    },
    read::ReplicaView,
};

impl SentinelResolver {
    pub(super) fn on_sentinel_answer(&mut self, now: Instant, sentinel: &Endpoint, answer: SentinelAnswer) {
        let question = match answer {
            SentinelAnswer::Members { .. } => SentinelQuestion::Members,
            SentinelAnswer::Primary { .. } | SentinelAnswer::UnknownName => SentinelQuestion::Primary,
        };
        let Some(known) = self.sentinels.find(sentinel) else { return };
        known.answered(question, None);
        match answer {
            SentinelAnswer::Members { id, replicas, sentinels } => {
                if let Some(id) = id {
                    for sentinel in self.sentinels.identify(sentinel, &id) {
                        self.actions.push_back(Action::UnwatchSentinel { sentinel });
                    }
                }
                for peer in sentinels {
                    self.learn_sentinel(&peer.endpoint, peer.id);
                }
                self.on_replicas(&replicas);
            }
            SentinelAnswer::Primary { endpoint, view } => {
                known.knows_the_name = true;
                known.says = Some((endpoint.clone(), view.config_epoch));
                self.sentinels.sort();
                if !view.is_failing_over {
                    // Its event link may have been cut when it said so.
                    self.attempts.finish(sentinel);
                }
                if view.is_handing_over && self.attempts.let_pass(sentinel) {
                    self.prove_current_anew();
                }
                // It began while nobody listened to it. Where it names another address already, the promotion has happened.
                let is_under_way = view.replaces.as_ref() == Some(&endpoint) && self.is_current(&endpoint);
                if is_under_way && !self.attempts.is_led_by(sentinel) {
                    self.on_attempt(now, sentinel, &endpoint, None);
                }
                if is_under_way && !view.is_handing_over && self.attempts.stop_passing(sentinel) {
                    self.hold(Some(now + HOLD_LIMIT));
                }
                if !view.is_down && self.is_current(&endpoint) {
                    self.odown.take_if(|(_, by)| by == sentinel);
                }
                self.on_named(now, sentinel, &endpoint, view.config_epoch);
            }
            SentinelAnswer::UnknownName => {
                known.says = None;
                known.knows_the_name = false;
                known.answered(SentinelQuestion::Members, None);
            }
        }
    }

    pub(super) fn on_replicas(&mut self, replicas: &[ReplicaView]) {
        for node in self.nodes.iter_mut() {
            node.is_listed = false;
        }
        for replica in replicas {
            if !self.learn_node(&replica.endpoint) {
                continue;
            }
            if let Some(node) = self.nodes.find(&replica.endpoint) {
                node.is_listed = true;
                node.is_announced = replica.is_announced;
                node.is_down = replica.is_down;
                node.is_linked = replica.is_linked;
                if replica.offset.is_some() {
                    node.offset = replica.offset;
                }
            }
        }
        let (sentinels, attempts, current) = (&self.sentinels, &self.attempts, &self.current);
        self.nodes.retain(|node| {
            node.is_listed
                || current.as_ref().is_some_and(|current| current.endpoint == node.endpoint)
                || attempts.mentions(&node.endpoint)
                || sentinels.naming(&node.endpoint) > 0
        });
    }

    pub(super) fn on_named(&mut self, now: Instant, sentinel: &Endpoint, endpoint: &Endpoint, epoch: u64) {
        if let Some(current) = self.current.as_mut().filter(|current| current.endpoint == *endpoint) {
            if epoch > current.epoch {
                current.epoch = epoch;
                self.attempts.end_up_to(epoch);
            }
            if let Some(sentinel) = self.sentinels.find(sentinel) {
                sentinel.told_stale = false;
            }
            return;
        }
        let is_stale = self.current.as_ref().is_some_and(|current| {
            epoch < current.epoch && now.saturating_duration_since(current.since) >= STALE_AFTER
        });
        let is_news = is_stale
            && self.sentinels.find(sentinel).is_some_and(|s| !std::mem::replace(&mut s.told_stale, true));
        if is_news {
            self.report(Report::StaleSentinel { sentinel: sentinel.clone() });
        }
        if self.learn_node(endpoint) {
            self.ask_role(endpoint);
        }
    }

    pub(super) fn on_heard(&mut self, now: Instant, endpoint: &Endpoint, heard: Heard) {
        match heard {
            Heard::AskAgain => self.ask_role(endpoint),
            Heard::Noted if self.is_current(endpoint) => self.on_current_heard(now),
            Heard::Ignored | Heard::Noted => {}
        }
    }

    pub(super) fn on_current_heard(&mut self, now: Instant) {
        let Some(current) = &mut self.current else { return };
        let said = self.nodes.said(&current.endpoint).clone();
        if said == Said::Primary {
            current.lost_since = None;
            return;
        }
        let is_news = current.lost_since.is_none();
        current.lost_since.get_or_insert(now);
        self.doubt(now);
        // The doubt forgot what was said before it; this was said within it.
        let Some(endpoint) = self.primary().cloned() else { return };
        if let Some(node) = self.nodes.find(&endpoint) {
            node.said = said.clone();
        }
        match said {
            Said::Replica { of } => {
                self.hold(None);
                // It has handed over, and whoever takes over says so within milliseconds.
                if is_news {
                    self.fast_until = Some(now + FAST_FOR);
                    self.next_step = self.next_step.min(now + FAST_STEP);
                }
                if let Some(of) = of.filter(|of| self.learn_node(of)) {
                    self.ask_role(&of);
                }
            }
            Said::Silent(failure) if failure.proves_absence() => self.hold(None),
            // A server that only pauses answers later; nothing is held for it until a failover is announced.
            Said::Silent(_) | Said::Nothing | Said::Primary => {}
        }
    }

    pub(super) fn on_refused(&mut self, now: Instant, endpoint: &Endpoint, complaint: &Complaint) {
        if !self.is_current(endpoint) {
            return;
        }
        let of = match complaint {
            Complaint::ReadOnly | Complaint::MasterDown => None,
            Complaint::Redirect(target) => Some(target.clone()),
            Complaint::ClusterDown | Complaint::Loading | Complaint::Unblocked => return self.doubt(now),
        };
        let is_known = matches!(self.nodes.said(endpoint), Said::Replica { .. }) && self.hold.is_some();
        if is_known {
            return;
        }
        self.doubt_refusing(now);
        self.hold(None);
        if let Some(node) = self.nodes.find(endpoint) {
            node.said = Said::Replica { of: of.clone() };
        }
        if let Some(of) = of.filter(|of| self.learn_node(of)) {
            self.ask_role(&of);
        }
    }

    pub(super) fn on_event_link(&mut self, now: Instant, sentinel: &Endpoint, is_up: bool) {
        let Some(known) = self.sentinels.find(sentinel) else { return };
        let was_up = known.link == Link::Up;
        if is_up {
            known.link_is_up();
        } else {
            known.link_is_down(now, &mut self.rng);
        }
        if !is_up && self.phase == super::Phase::Doubting {
            self.next_ask = self.next_ask.min(now + super::SENTINEL_STEP);
        }
        if is_up {
            // What it published while nobody listened shows in its answer.
            self.ask_sentinel(sentinel, SentinelQuestion::Primary);
        }
        if was_up != is_up {
            let sentinel = sentinel.clone();
            self.report(if is_up {
                Report::EventLinkUp { sentinel }
            } else {
                Report::EventLinkDown { sentinel }
            });
        }
    }

    pub(super) fn on_sentinel_failed(
        &mut self,
        sentinel: &Endpoint,
        question: SentinelQuestion,
        failure: AskFailure,
    ) {
        if let Some(known) = self.sentinels.find(sentinel) {
            known.answered(question, Some(failure));
            self.sentinels.sort();
        }
    }
}
