//! `Director`: the one task that composes a client. It hears connections, the topology and the handoff engine, and makes
//! each one's wishes happen on the others.
//!
//! `topology` and `hitless` do not know each other: what one must tell the other passes through here.

mod maintenance;
mod topology;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use evenkeel_hitless::{Action, ConnId, Input, Maintenance, Origin, Scope};
use evenkeel_pool::{
    ConnInfo, LaneId,
    machine::{MoveId, Report},
};
use evenkeel_protocol::{Endpoint, Push};
use evenkeel_topology::driver::{ResolverHandle, TopologyEvent};
use tokio::sync::mpsc;

use super::{
    Core,
    carrier::{Carrier, CarrierId},
    floor::FloorKey,
    observe::Observed,
};
use crate::events::Event;

/// What the director is told from elsewhere than connections.
#[derive(Debug)]
pub(crate) enum Order {
    /// The handoff engine wants something done.
    Act(Action),
    /// Make every connection of this endpoint anew before the deadline.
    Drain { endpoint: Endpoint, deadline: Instant },
    /// The answer of a resolver.
    Resolved { name: Arc<str>, addresses: Vec<IpAddr> },
}

/// A connection that the engine knows.
struct Known {
    carrier: CarrierId,
    origin: Origin,
}

/// Where the director hears from.
pub(crate) struct Ears {
    pub(crate) observed: mpsc::Receiver<Observed>,
    pub(crate) orders: mpsc::Receiver<Order>,
    pub(crate) order_tx: mpsc::Sender<Order>,
    pub(crate) topology: mpsc::Receiver<TopologyEvent>,
}

pub(crate) struct Director {
    core: Weak<Core>,
    ears: Ears,
    maintenance: Maintenance,
    /// Ends the resolver with the director.
    _resolver: ResolverHandle,
    conns: BTreeMap<u64, Known>,
    /// Floors in force, with the key under which carriers know them.
    floors: BTreeMap<Scope, (FloorKey, Duration)>,
    next_floor: u64,
    /// Lanes that wait for the primary before their held writes may go.
    to_release: BTreeSet<LaneId>,
    /// The failover under way: since when, and from where.
    failover: Option<(Instant, Option<Endpoint>)>,
    /// What the primary before may take to answer what it owes.
    farewell: Duration,
}

impl Director {
    pub(crate) fn new(
        core: Weak<Core>,
        ears: Ears,
        maintenance: Maintenance,
        resolver: ResolverHandle,
    ) -> Self {
        Self {
            core,
            ears,
            maintenance,
            _resolver: resolver,
            conns: BTreeMap::new(),
            floors: BTreeMap::new(),
            next_floor: 0,
            to_release: BTreeSet::new(),
            failover: None,
            farewell: topology::FAREWELL,
        }
    }

    /// Runs until the client has gone.
    pub(crate) async fn run(mut self) {
        let Some(core) = self.core.upgrade() else { return };
        let (pubsub, gone) = (Arc::clone(core.pubsub()), core.gone());
        drop(core);
        tokio::pin!(gone);
        loop {
            tokio::select! {
                // What happens to connections first: decisions rest on it.
                biased;
                () = &mut gone => break,
                observed = self.ears.observed.recv() => match observed {
                    Some(observed) => self.observe(observed),
                    None => break,
                },
                // The resolver ends with the director, never before.
                Some(event) = self.ears.topology.recv() => self.topology_event(event),
                order = self.ears.orders.recv() => match order {
                    Some(order) => self.obey(order),
                    None => break,
                },
                () = pubsub.changed() => {
                    if let Some(core) = self.core.upgrade() {
                        core.change_subscriptions(pubsub.take_changes());
                    }
                }
            }
        }
        self.maintenance.close(Duration::from_secs(1)).await;
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Act(action) => self.act(action),
            Order::Drain { endpoint, deadline } => self.tell(Input::Drain { endpoint, deadline }),
            Order::Resolved { name, addresses } => self.tell(Input::DnsAnswer { name, addresses }),
        }
    }

    /// Tells the handoff engine; it counts what it has no room for.
    fn tell(&self, input: Input) {
        if let Err(error) = self.maintenance.tell(input) {
            tracing::debug!(target: "evenkeel::hitless", %error, "an observation was left out");
        }
    }

    fn origin(info: &ConnInfo) -> Origin {
        let mut origin = Origin::new(ConnId(info.number), info.home.clone(), info.peer);
        origin.dialled = info.endpoint.clone();
        origin
    }

    fn observe(&mut self, observed: Observed) {
        let Some(core) = self.core.upgrade() else { return };
        match observed {
            Observed::Report(carrier, report) => self.reported(&core, carrier, report),
            Observed::Opened { carrier, info, instead_of } => {
                let origin = Self::origin(&info);
                self.relax_new(&core, carrier, &origin);
                // What waits on the connection that is left is ended there and goes on here; where the old one had to be
                // left first, that was done before.
                if let CarrierId::Lane(lane) = carrier
                    && !core.blocked().settled(lane)
                    && let Some(old) = &instead_of
                {
                    core.end_wait(lane, old);
                }
                self.conns.insert(info.number, Known { carrier, origin: origin.clone() });
                self.tell(match instead_of {
                    Some(old) => Input::Switched { conn: ConnId(old.number), successor: origin },
                    None => Input::Opened { origin },
                });
            }
            Observed::OutOfStep { info, cause } => core.out_of_step(info.endpoint.clone(), cause),
            Observed::Closed { info } => {
                self.conns.remove(&info.number);
                self.tell(Input::Closed { conn: ConnId(info.number) });
            }
            Observed::Push { info, push, during_handshake, at } => {
                let origin = match self.conns.get(&info.number) {
                    Some(known) => known.origin.clone(),
                    None => Self::origin(&info),
                };
                match push {
                    Push::Maintenance(notice) => {
                        let received_at = Some(at);
                        self.tell(Input::Notice { origin, during_handshake, received_at, notice });
                    }
                    Push::MalformedMaintenance(error) => self.tell(Input::Malformed { origin, error }),
                    _ => {}
                }
            }
            Observed::DialFailed { carrier } => {
                if let Some(carrier) = core.carrier(carrier) {
                    self.tell(Input::DialFailed { endpoint: carrier.home() });
                }
            }
            Observed::ShardEnded { link, channel } => core.shard_ended(link, &channel),
            Observed::Refused { link, kind, channels, error } => {
                core.subscription_refused(link, kind, &channels, &error);
            }
        }
    }

    fn reported(&mut self, core: &Arc<Core>, carrier: CarrierId, report: Report) {
        match report {
            Report::MoveFailed(MoveId(number)) => self.move_failed(core, carrier, number),
            Report::Moved(_) => self.arrived(core, carrier),
            Report::Connected { again, endpoint } => {
                if core.speaks_for(carrier) {
                    core.events().emit(&Event::Connected { endpoint, again });
                }
                self.arrived(core, carrier);
            }
            Report::Reconnecting { endpoint, attempt, delay } => {
                core.connection_lost(&endpoint);
                if attempt == 0 && core.routes().is_cluster() {
                    // A node that dies takes with it what it was given to spread, whichever node our link is on.
                    core.pubsub().gap(false, |_family, _name| true);
                    core.adopt_topology();
                }
                if core.speaks_for(carrier) {
                    core.events().emit(&Event::Reconnecting { endpoint, attempt, delay });
                }
            }
            Report::Suspect(endpoint) => core.connection_lost(&endpoint),
            // If it owns nothing any more, nobody else ends what waits for its answers.
            Report::Mute(_) => core.adopt_topology(),
            _ => {}
        }
    }

    fn carrier_of(&self, core: &Core, conn: ConnId) -> Option<Carrier> {
        self.conns.get(&conn.0).and_then(|known| core.carrier(known.carrier))
    }
}
