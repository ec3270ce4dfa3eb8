//! Shards whose primary is lost: their replicas are asked until one has taken over.

use std::time::{Duration, Instant};

use evenkeel_protocol::Endpoint;

use super::ClusterResolver;

/// Steps of the `ROLE` poll: half of it in jitter, so that a promotion is found within 40 ms.
const STEP: Duration = Duration::from_millis(40);
/// Steps once the cluster agreed that the primary failed, and for how long: the promotion follows within 0.05 to 1.0 s.
const FAST_STEP: Duration = Duration::from_millis(10);
const FAST_FOR: Duration = Duration::from_secs(2);
/// Four times the default node timeout: a primary lost for longer has nobody to take over.
const LONG: Duration = Duration::from_secs(60);
const LONG_STEP: Duration = Duration::from_millis(500);
/// The slots of a lost primary may also go to a node that nobody knew as its replica: the map is read again after so long, then
/// after twice as long each time, up to the longest.
const LOOK: Duration = Duration::from_secs(2);
const LOOK_MAX: Duration = Duration::from_secs(16);

/// A primary that we cannot reach, or that its cluster calls failed.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) primary: Endpoint,
    pub(super) next_step: Instant,
    since: Instant,
    fast_until: Option<Instant>,
    /// The fast poll is for one failure; `CLUSTERDOWN` comes with every command meanwhile.
    was_fast: bool,
    /// When the map is read again, and the wait after that.
    next_look: Instant,
    look: Duration,
}

impl ClusterResolver {
    /// The primary at `endpoint` is lost; nothing happens when it is none, or is known to be lost.
    pub(super) fn lose(&mut self, now: Instant, endpoint: &Endpoint) {
        if !self.is_primary(endpoint) || self.lost.iter().any(|lost| lost.primary == *endpoint) {
            return;
        }
        self.lost.push(Lost {
            primary: endpoint.clone(),
            next_step: now,
            since: now,
            fast_until: None,
            was_fast: false,
            next_look: now + LOOK,
            look: LOOK,
        });
        self.step_lost(now);
    }

    /// The cluster has agreed that this primary, or some primary, failed.
    pub(super) fn hurry(&mut self, now: Instant, primary: Option<&Endpoint>) {
        for lost in &mut self.lost {
            let is_meant = primary.is_none_or(|primary| *primary == lost.primary);
            if is_meant && !std::mem::replace(&mut lost.was_fast, true) {
                lost.fast_until = Some(now + FAST_FOR);
                lost.next_step = now;
            }
        }
        self.step_lost(now);
    }

    pub(super) fn step_lost(&mut self, now: Instant) {
        let mut asked = Vec::new();
        let mut wants_look = false;
        for lost in self.lost.iter_mut().filter(|lost| lost.next_step <= now) {
            asked.push(lost.primary.clone());
            asked.extend(self.published.peers_of_node(&lost.primary).map(|node| node.endpoint.clone()));
            let step = if lost.fast_until.is_some_and(|until| now < until) {
                FAST_STEP
            } else if now.saturating_duration_since(lost.since) < LONG {
                self.rng.at_most(STEP)
            } else {
                self.rng.at_most(LONG_STEP)
            };
            lost.next_step = now + step;
            if lost.next_look <= now {
                wants_look = true;
                lost.look = lost.look.saturating_mul(2).min(LOOK_MAX);
                lost.next_look = now + lost.look;
            }
        }
        if wants_look {
            self.want_refresh(now);
        }
        for endpoint in asked {
            self.ask_role(&endpoint);
        }
    }
}
