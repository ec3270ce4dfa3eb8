//! `ClusterResolver`: keeps the slot map of a cluster, patched at once by what servers say and refreshed rarely.
//!
//! `MOVED` and announcements change single slots without asking. A refresh asks one random node, one refresh at a time, never
//! sooner than the least interval after the one before. A lost primary's replicas are asked for `ROLE` until one says that it
//! has taken over, which is tens of milliseconds before other nodes know; one that died as a primary has to prove it. Answers that are older than what is known are not
//! believed: by the cluster's epoch, and for a second after each change by the change itself, because news travels by gossip.

mod doubt;
mod lost;
mod map;
mod refresh;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use evenkeel_protocol::{Endpoint, Machine, Slot};

use self::{doubt::Doubts, lost::Lost, map::Patches, refresh::Refresh};
use super::{
    action::{Action, Report},
    input::{Complaint, Input},
    jitter::Jitter,
    zones::Zones,
};
use crate::{
    diff::{Change, diff},
    error::{AskFailure, Found},
    read::{ClusterView, RoleView},
    redirect_policy::RedirectPolicy,
    snapshot::{Health, Role, Topology},
};

/// Remembered addresses that were refused, so that each is reported once.
const MAX_DENIED: usize = 64;

/// How to keep the map of a cluster.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    seeds: Vec<Endpoint>,
    policy: RedirectPolicy,
    refresh_interval: Duration,
    learn_zones: bool,
}

impl ClusterConfig {
    /// The cluster to which the nodes at `seeds` belong; one that answers is enough.
    pub fn new(seeds: impl IntoIterator<Item = Endpoint>) -> Self {
        Self {
            seeds: seeds.into_iter().collect(),
            policy: RedirectPolicy::any(),
            refresh_interval: Duration::from_secs(30),
            learn_zones: false,
        }
    }

    /// Which addresses nodes may name. Default: any.
    #[must_use]
    pub fn redirect_policy(mut self, policy: RedirectPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Whether nodes whose map does not tell their availability zone are asked for it. Default: no.
    ///
    /// For [`ReadPolicy::NearestByZone`](crate::ReadPolicy::NearestByZone): each node is connected to once.
    #[must_use]
    pub fn learn_zones(mut self, learn: bool) -> Self {
        self.learn_zones = learn;
        self
    }

    /// How often the map is read while nothing happens. Default: 30 s.
    ///
    /// `MOVED` tells of moved slots by itself; this is for replicas that come and go.
    #[must_use]
    pub fn refresh_interval(mut self, interval: Duration) -> Self {
        self.refresh_interval = interval;
        self
    }
}

/// Keeps a cluster's slot map. See the [module](self) for whom it believes.
#[derive(Debug)]
pub struct ClusterResolver {
    config: ClusterConfig,
    rng: Jitter,
    actions: VecDeque<Action>,
    published: Arc<Topology>,
    /// The newest epoch of any view.
    epoch: u64,
    patches: Patches,
    refresh: Refresh,
    lost: Vec<Lost>,
    doubts: Doubts,
    roles_asked: BTreeSet<Endpoint>,
    denied: VecDeque<Endpoint>,
    zones: Zones,
}

impl ClusterResolver {
    /// A resolver that begins at `now`; `seed` decides which nodes it asks, and its jitter.
    pub fn new(config: ClusterConfig, seed: u64, now: Instant) -> Self {
        let mut resolver = Self {
            rng: Jitter::new(seed),
            actions: VecDeque::new(),
            published: Arc::default(),
            epoch: 0,
            patches: Patches::default(),
            refresh: Refresh::new(now),
            lost: Vec::new(),
            doubts: Doubts::default(),
            roles_asked: BTreeSet::new(),
            denied: VecDeque::new(),
            zones: Zones::new(config.learn_zones),
            config,
        };
        resolver.handle_timeout(now);
        resolver
    }

    fn is_allowed(&mut self, endpoint: &Endpoint) -> bool {
        if self.config.policy.allows(endpoint) || self.config.seeds.contains(endpoint) {
            return true;
        }
        if !self.denied.contains(endpoint) {
            if self.denied.len() >= MAX_DENIED {
                self.denied.pop_front();
            }
            self.denied.push_back(endpoint.clone());
            self.actions.push_back(Action::Report(Report::AddressDenied { endpoint: endpoint.clone() }));
        }
        false
    }

    fn ask_role(&mut self, endpoint: &Endpoint) {
        if self.roles_asked.insert(endpoint.clone()) {
            self.actions.push_back(Action::AskRole { endpoint: endpoint.clone() });
        }
    }

    fn is_primary(&self, endpoint: &Endpoint) -> bool {
        self.published.primaries().any(|node| node.endpoint == *endpoint)
    }

    /// Replaces the snapshot when `next` says something else, and remembers what moved.
    fn publish(&mut self, now: Instant, next: Topology) {
        if next.says_the_same_as(&self.published) {
            return;
        }
        let changes = diff(&self.published, &next);
        self.published = Arc::new(next);
        self.actions.push_back(Action::Publish(Arc::clone(&self.published)));
        for change in changes {
            match change {
                Change::SlotsMoved { slots, from: Some(from), to } => self.patches.note(now, slots, from, to),
                Change::PrimaryChanged { from, to: Some(to) } => {
                    let is_lost = |from: &Endpoint| self.lost.iter().any(|lost| lost.primary == *from);
                    let from_is_down = from.as_ref().is_some_and(is_lost);
                    self.doubts.settle(&to);
                    if let Some(from) = from.as_ref().filter(|_| from_is_down) {
                        self.doubts.begin(from, now, self.epoch);
                    }
                    let epoch = self.epoch;
                    self.actions.push_back(Action::PrimaryChanged { from, to, epoch, from_is_down });
                }
                _ => {}
            }
        }
        let published = &self.published;
        self.lost.retain(|lost| published.primaries().any(|node| node.endpoint == lost.primary));
        self.doubts.retain(|endpoint| published.node(endpoint).is_some());
    }

    fn ask_zones(&mut self) {
        for node in self.published.nodes().iter().filter(|node| node.zone.is_none()) {
            if self.zones.ask(&node.endpoint) {
                self.actions.push_back(Action::AskKind { endpoint: node.endpoint.clone() });
            }
        }
    }

    /// Puts what was learned into the snapshot.
    fn publish_zones(&mut self, now: Instant) {
        if let Some(next) = self.published.with_zones(|endpoint| self.zones.of(endpoint)) {
            self.publish(now, next);
        }
    }

    fn on_view(&mut self, now: Instant, endpoint: &Endpoint, view: &ClusterView) {
        self.refresh.answered(endpoint, None);
        let says_itself =
            self.doubts.is_doubtful(endpoint, view.epoch, self.epoch) && view.has_primary(endpoint);
        let is_old = says_itself || view.epoch.is_some_and(|epoch| epoch < self.epoch);
        let knows_slots = view.shards.iter().any(|shard| !shard.slots.is_empty());
        let had_slots = self.published.slots().is_some_and(|slots| slots.owned() > 0);
        if is_old || (had_slots && !knows_slots) {
            self.refresh.found_stale(endpoint);
            self.actions.push_back(Action::Report(Report::StaleView { endpoint: endpoint.clone() }));
            return self.ask_another(now);
        }
        if !knows_slots {
            self.refresh.found_no_slots(endpoint);
            return self.ask_another(now);
        }
        self.epoch = self.epoch.max(view.epoch.unwrap_or(0));
        let next = self.draft(view);
        let (next, is_lagging) = self.patches.apply(now, next);
        self.publish(now, next);
        self.ask_zones();
        self.end_refresh(now);
        if is_lagging {
            self.want_refresh(now);
        }
        let failed: Vec<_> = self
            .published
            .primaries()
            .filter(|node| node.health == Health::Failed)
            .map(|n| n.endpoint.clone())
            .collect();
        for primary in failed {
            self.lose(now, &primary);
            self.hurry(now, Some(&primary));
        }
    }

    fn on_view_failed(&mut self, now: Instant, endpoint: &Endpoint, failure: &AskFailure) {
        let asked_shards = self.refresh.asked_shards(endpoint);
        self.refresh.answered(endpoint, Some(failure.clone()));
        if failure.is_unsupported() {
            if asked_shards {
                self.refresh.only_slots(endpoint);
                return self.ask_view(endpoint);
            }
            self.actions.push_back(Action::AskKind { endpoint: endpoint.clone() });
            return self.refresh.awaits_kind(endpoint);
        }
        self.ask_another(now);
    }

    fn on_kind(&mut self, now: Instant, endpoint: &Endpoint, kind: Option<Found>) {
        if self.refresh.learned_kind(endpoint, kind.unwrap_or(Found::DataNode)) {
            self.ask_another(now);
        }
    }

    fn on_moved(&mut self, now: Instant, slot: Slot, target: &Endpoint) {
        if !self.is_allowed(target) {
            return;
        }
        if self.published.primary_of(Some(slot)) != Some(target) {
            let next = self.published.with_moved(slot, target);
            self.publish(now, next);
        }
        self.want_refresh(now);
    }

    fn on_slots_moved(&mut self, now: Instant, moves: &[(u16, u16, Endpoint)]) {
        let mut next = Topology::clone(&self.published);
        for (first, last, target) in moves {
            if self.is_allowed(target) {
                next = map::with_moved_runs(next, *first..=*last, target);
            }
        }
        self.publish(now, next);
        self.want_refresh(now);
    }

    fn on_role(&mut self, now: Instant, endpoint: &Endpoint, role: &RoleView) {
        if !self.roles_asked.remove(endpoint) {
            return;
        }
        match role {
            RoleView::Primary { .. } if self.is_primary(endpoint) => {
                let is_failed = |node: &crate::snapshot::Node| node.health == Health::Failed;
                if self.published.node(endpoint).is_some_and(is_failed) {
                    // We reach it and its cluster does not: a replica may take over all the same.
                    self.want_refresh(now);
                } else {
                    // It was only our connection.
                    self.lost.retain(|lost| lost.primary != *endpoint);
                }
            }
            RoleView::Primary { .. } => {
                let of = self.published.primary_of_node(endpoint).cloned();
                if !of.as_ref().is_some_and(|of| self.lost.iter().any(|lost| lost.primary == *of)) {
                    return;
                }
                if self.doubts.has(endpoint) {
                    if self.doubts.is_due(endpoint, now) {
                        self.refresh_from(now, endpoint);
                    }
                } else {
                    let next = self.published.with_promoted(endpoint);
                    self.publish(now, next);
                    if let Some(of) = of {
                        self.doubts.began_after(&of, self.epoch);
                    }
                    self.refresh_from(now, endpoint);
                }
            }
            RoleView::Replica { primary, .. } => {
                self.doubts.settle(endpoint);
                if let Some(primary) = primary.clone().filter(|_| self.is_primary(endpoint)) {
                    self.want_refresh(now);
                    if self.published.node(&primary).is_some_and(|node| node.role == Role::Replica) {
                        self.ask_role(&primary);
                    }
                }
            }
            RoleView::Sentinel => {}
        }
    }

    fn on_refused(&mut self, now: Instant, endpoint: &Endpoint, complaint: &Complaint) {
        match complaint {
            Complaint::ClusterDown => {
                self.hurry(now, None);
                self.want_refresh(now);
            }
            Complaint::ReadOnly | Complaint::Unblocked => {
                self.lose(now, endpoint);
                self.want_refresh(now);
            }
            Complaint::Redirect(_) | Complaint::MasterDown => self.want_refresh(now),
            Complaint::Loading => {}
        }
    }
}

impl Machine for ClusterResolver {
    type Input = Input;
    type Action = Action;

    fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::ConnectionLost { endpoint } => {
                self.lose(now, &endpoint);
                self.want_refresh(now);
            }
            Input::KindAnswered { endpoint, kind, zone } => {
                self.zones.learned(&endpoint, zone);
                self.on_kind(now, &endpoint, kind);
                self.publish_zones(now);
            }
            Input::KindFailed { endpoint } => {
                self.zones.failed(&endpoint);
                self.on_kind(now, &endpoint, None);
            }
            Input::Moved { slot, target } => self.on_moved(now, slot, &target),
            Input::Refused { endpoint, complaint } => self.on_refused(now, &endpoint, &complaint),
            Input::RoleAnswered { endpoint, role } => self.on_role(now, &endpoint, &role),
            Input::RoleFailed { endpoint, .. } => {
                self.roles_asked.remove(&endpoint);
            }
            Input::SlotsMoved { moves } => self.on_slots_moved(now, &moves),
            Input::ViewAnswered { endpoint, view } => self.on_view(now, &endpoint, &view),
            Input::ViewFailed { endpoint, failure } => self.on_view_failed(now, &endpoint, &failure),
            // These belong to Sentinel.
            Input::EventLinkDown { .. }
            | Input::EventLinkUp { .. }
            | Input::SentinelAnswered { .. }
            | Input::SentinelEvent { .. }
            | Input::SentinelFailed { .. } => {}
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.step_lost(now);
        self.step_refresh(now);
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let lost = self.lost.iter().map(|lost| lost.next_step);
        lost.chain([self.refresh.due()]).min()
    }
}
