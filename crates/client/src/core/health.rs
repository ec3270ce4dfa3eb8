//! Health: what is known of every connection, and a question to every primary now and then.

use std::{
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use evenkeel_pool::{Outcome, Readiness, machine::OutOfStep};
use evenkeel_protocol::{Command, Endpoint};

use super::{Core, clock, node::Node, route::Routes};
use crate::{
    events::{Disorder, Event},
    health::{ConnectionState, EndpointHealth, Health, Role},
};

/// Asks every `interval` until the client has gone.
pub(super) async fn watch(core: Weak<Core>, interval: Duration) {
    if interval.is_zero() {
        return;
    }
    let Some(gone) = core.upgrade().map(|core| core.gone()) else { return };
    tokio::pin!(gone);
    loop {
        tokio::select! {
            biased;
            () = &mut gone => return,
            () = tokio::time::sleep(interval) => {}
        }
        let Some(core) = core.upgrade() else { return };
        if !core.is_closed() {
            core.is_healthy().await;
        }
        for node in core.routes().all() {
            node.leases().reap();
        }
    }
}

impl Core {
    /// Asks every primary for a PONG, within the answer timeout.
    pub(crate) async fn is_healthy(&self) -> bool {
        let nodes = self.routes().all();
        let mut healthy = !nodes.is_empty() && !self.is_closed();
        for node in nodes.iter().filter(|node| self.is_primary(node)) {
            healthy &= self.answers(node).await;
        }
        *self.checked.lock() = Some((clock::now(), healthy));
        healthy
    }

    async fn answers(&self, node: &Node) -> bool {
        let Some(lane) = node.lane(None) else { return false };
        let pong = lane.request(&Command::new("PING"), self.config().answer_timeout()).await;
        matches!(pong, Outcome::Reply(reply) if reply.error().is_none())
    }

    fn is_primary(&self, node: &Node) -> bool {
        match &**self.routes() {
            Routes::One(_) => true,
            Routes::Cluster(cluster) => cluster.is_primary(node.home()),
        }
    }

    /// A connection was closed because its replies did not fit its commands.
    pub(super) fn out_of_step(&self, endpoint: Endpoint, cause: OutOfStep) {
        self.out_of_step.fetch_add(1, Ordering::Relaxed);
        let cause = match cause {
            OutOfStep::Sentry => Disorder::Sentry,
            OutOfStep::Unasked => Disorder::Unasked,
            // What is new in the pool is no better.
            _ => Disorder::NotResp,
        };
        self.events().emit(&Event::OutOfStep { endpoint, cause });
    }

    /// What is known without asking.
    pub(crate) fn health(&self) -> Health {
        let nodes = self.routes().all();
        let endpoints: Vec<EndpointHealth> = nodes.iter().map(|node| self.health_of(node)).collect();
        let usable = |health: &EndpointHealth| health.state == ConnectionState::Ready;
        let mut health = Health::default();
        health.healthy = !self.is_closed()
            && !endpoints.is_empty()
            && endpoints.iter().filter(|health| health.role != Role::Replica).all(usable);
        health.endpoints = endpoints;
        let unheard = |topology: &evenkeel_topology::Topology| {
            let unheard = topology.sentinels().iter().filter(|sentinel| !sentinel.watched);
            unheard.map(|sentinel| sentinel.endpoint.clone()).collect()
        };
        health.unheard_sentinels = self.reader().with(unheard);
        health.out_of_step = self.out_of_step.load(Ordering::Relaxed);
        if let Some((at, passed)) = *self.checked.lock() {
            health.checked_ago = Some(clock::now().saturating_duration_since(at));
            health.last_check_passed = Some(passed);
        }
        health
    }

    fn health_of(&self, node: &Arc<Node>) -> EndpointHealth {
        let lanes = node.lanes();
        let state = match lanes.first().map(|lane| (lane.readiness(), lane.is_suspect())) {
            Some((Readiness::Ready, false)) => ConnectionState::Ready,
            Some((Readiness::Ready, true)) => ConnectionState::Suspect,
            Some((Readiness::Connecting, _)) => ConnectionState::Connecting,
            _ => ConnectionState::Down,
        };
        let role = if self.is_primary(node) { Role::Primary } else { Role::Replica };
        let endpoint = node.endpoint().unwrap_or_else(|| node.home().clone());
        let mut health = EndpointHealth::new(endpoint, role, state);
        health.in_flight = lanes.iter().map(evenkeel_pool::Lane::in_flight).sum();
        health.bytes = lanes.iter().map(evenkeel_pool::Lane::bytes).sum();
        health.relaxed = lanes.iter().any(|lane| lane.floor().is_some());
        health
    }
}
