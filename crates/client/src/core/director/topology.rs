//! What the topology says, done to routes, lanes and links.

use std::{sync::Arc, time::Duration};

use evenkeel_pool::{
    Readiness,
    machine::{MoveId, MoveRequest},
};
use evenkeel_protocol::Endpoint;
use evenkeel_topology::{Change, Report, driver::TopologyEvent};

use super::Director;
use crate::{
    core::{
        Core,
        carrier::{Carrier, CarrierId},
        clock,
    },
    events::Event,
};

/// Moves that follow a primary have numbers from here on; those of the handoff engine are connection numbers.
pub(super) const FAILOVERS: u64 = 1 << 62;

/// How long a lane goes on trying to reach a new primary before it is told again.
const FOLLOW_FOR: Duration = Duration::from_secs(5);

/// What an old primary that still answers may take to answer what it owes.
pub(super) const FAREWELL: Duration = Duration::from_secs(2);

/// What one that its sentinels agreed to be down may take. It has been replaced by now: what it answers yet it did behind its
/// successor's back, and it will be thrown away. Nobody is told that it succeeded.
const LAST_WORDS: Duration = Duration::ZERO;

impl Director {
    pub(super) fn topology_event(&mut self, event: TopologyEvent) {
        let Some(core) = self.core.upgrade() else { return };
        match event {
            TopologyEvent::HoldWrites { .. } => self.hold(&core),
            TopologyEvent::Release { primary } => self.release(&core, &primary),
            TopologyEvent::PrimaryChanged { from, to, from_is_down, .. } => {
                self.farewell = if from_is_down { LAST_WORDS } else { FAREWELL };
                self.primary_changed(&core, from, &to);
            }
            TopologyEvent::Changed(changes) => {
                core.adopt_topology();
                for change in changes {
                    if let Change::SlotsMoved { slots, from, to } = change {
                        let (first, last) = (*slots.start(), *slots.end());
                        core.events().emit(&Event::SlotMoved { first, last, from, to });
                    }
                }
            }
            TopologyEvent::Report(report) => report_to_people(&report),
            TopologyEvent::Unresolved(error) => core.unresolved(error),
            _ => core.adopt_topology(),
        }
    }

    fn hold(&mut self, core: &Arc<Core>) {
        if core.routes().is_cluster() {
            return;
        }
        if self.failover.is_none() {
            self.failover = Some((clock::now(), core.current_primary()));
        }
        for lane in core.lanes() {
            lane.hold();
        }
    }

    fn primary_changed(&mut self, core: &Arc<Core>, from: Option<Endpoint>, to: &Endpoint) {
        if core.routes().is_cluster() {
            // What a primary that goes was given to spread may never have left it, whichever node our link is on.
            core.pubsub().gap(false, |_family, _name| true);
            if from.is_some() {
                let took = Duration::ZERO;
                core.events().emit(&Event::FailoverCompleted { from, to: to.clone(), took });
            }
            return core.adopt_topology();
        }
        core.set_primary(to);
        if from.is_some() && self.failover.is_none() {
            self.failover = Some((clock::now(), from.clone()));
        }
        // The first primary is the one that the lanes were started for: dialling it beside would be a dial for nothing.
        if from.is_some() || core.lanes().iter().any(|lane| lane.home() != *to) {
            for lane in core.lanes() {
                follow(&Carrier::Lane(lane), to, self.farewell);
            }
            for link in core.links().all() {
                follow(&Carrier::Link(link), to, self.farewell);
            }
            core.redirect_all_leases(to);
        }
        core.note_change();
        // Lanes may stand there already.
        for lane in core.lanes() {
            self.arrived(core, CarrierId::Lane(lane.id()));
        }
    }

    /// Held writes may go, as soon as their lane stands at the primary.
    fn release(&mut self, core: &Arc<Core>, primary: &Endpoint) {
        core.set_primary(primary);
        for lane in core.lanes() {
            self.to_release.insert(lane.id());
            if lane.endpoint() != *primary {
                follow(&Carrier::Lane(lane.clone()), primary, self.farewell);
            }
            self.arrived(core, CarrierId::Lane(lane.id()));
        }
    }

    /// A lane has a connection: if it is the one to the primary, what was held may go.
    pub(super) fn arrived(&mut self, core: &Arc<Core>, carrier: CarrierId) {
        let Some(Carrier::Lane(lane)) = core.carrier(carrier) else { return };
        let Some(primary) = core.current_primary() else { return };
        if lane.readiness() != Readiness::Ready || lane.endpoint() != primary {
            return;
        }
        if self.to_release.remove(&lane.id()) {
            lane.release();
        }
        if lane.is_holding() {
            return;
        }
        if let Some((since, from)) = self.failover.take()
            && from.as_ref() != Some(&primary)
        {
            let took = clock::now().saturating_duration_since(since);
            core.events().emit(&Event::FailoverCompleted { from, to: primary, took });
        }
    }

    /// A lane could not reach the new primary in time: it is told again while that is the primary.
    pub(super) fn follow_again(core: &Arc<Core>, carrier: CarrierId) {
        if let (Some(carrier), Some(primary)) = (core.carrier(carrier), core.current_primary()) {
            follow(&carrier, &primary, FAREWELL);
        }
    }
}

/// What somebody should look into is a warning; the rest is for those who look for it.
fn report_to_people(report: &Report) {
    match report {
        Report::AddressDenied { endpoint } => {
            tracing::warn!(target: "evenkeel::topology", %endpoint, "a server names an address that redirect_policy does not allow");
        }
        Report::IsReplica { endpoint, primary } => {
            let primary = primary.as_ref().map_or_else(|| "unknown".to_owned(), ToString::to_string);
            tracing::warn!(target: "evenkeel::topology", %endpoint, primary, "the server is a replica: it refuses writes");
        }
        Report::UnexpectedPrimary { endpoint } => {
            tracing::warn!(target: "evenkeel::topology", %endpoint, "a replica says that it is a primary, and no sentinel made it one");
        }
        report => tracing::debug!(target: "evenkeel::topology", ?report, "topology"),
    }
}

fn follow(carrier: &Carrier, to: &Endpoint, farewell: Duration) {
    let now = clock::now();
    let mut request = MoveRequest::new(MoveId(FAILOVERS), to.clone(), now, now + FOLLOW_FOR);
    request.for_good = true;
    // A peer that is mute owes nothing that will ever come; one that is only silent may say yet that it did not run it.
    request.drain = match carrier {
        Carrier::Lane(lane) if lane.is_mute() || lane.readiness() != Readiness::Ready => Duration::ZERO,
        _ => farewell,
    };
    if !carrier.move_to(request) {
        tracing::debug!(target: "evenkeel::topology", %to, "a connection that is closing does not follow");
    }
}
