//! What the handoff engine wants done, done to lanes, leases and links.

use std::{io, sync::Arc, time::Duration};

use evenkeel_hitless::{Action, Event as Notable, Family, Input, Move, MoveError, MoveStyle, Origin, Scope};
use evenkeel_pool::{
    DialError,
    driver::dial::Phase,
    machine::{MoveId, MoveRequest, Overlap},
};
use evenkeel_protocol::conn::{Step, StepError};

use super::{Director, Order};
use crate::{
    core::{
        Core,
        carrier::{Carrier, CarrierId},
        clock,
        floor::FloorKey,
        spawn,
    },
    events::Event,
};

impl Director {
    pub(super) fn act(&mut self, action: Action) {
        let Some(core) = self.core.upgrade() else { return };
        match action {
            Action::Move(request) => self.start_move(&core, &request),
            Action::Relax { scope, floor, cause } => self.relax(&core, &scope, floor, cause),
            Action::Restore { scope } => self.restore(&core, &scope),
            Action::AskDns { name } => self.ask_dns(name),
            Action::RedirectDials { from, to, .. } => core.redirect_leases(&from, Some(&to)),
            Action::EndRedirect { from, .. } => core.redirect_leases(&from, None),
            Action::MoveSlots { moves } => core.slots_moved(&moves),
            Action::VerifyTopology => core.verify_topology(),
            Action::Report(event) => notable(&core, &event),
            _ => {}
        }
    }

    fn start_move(&self, core: &Arc<Core>, request: &Move) {
        let conn = request.conn;
        let failed = |cause| Input::MoveFailed { conn, cause };
        let Some(carrier) = self.carrier_of(core, conn) else { return self.tell(failed(MoveError::Closed)) };
        if carrier.info().is_none_or(|info| info.number != conn.0) {
            // It drains already, or has gone a moment ago.
            return self.tell(failed(MoveError::Closed));
        }
        let target = request.to.endpoint.clone();
        if !core.allows(&target) {
            return self.tell(failed(MoveError::Forbidden));
        }
        let now = clock::now();
        let mut order = MoveRequest::new(MoveId(conn.0), target, now, request.deadline);
        order.drain = request.drain_until.saturating_duration_since(now);
        order.address = request.to.address;
        // What leads there by name is what has to change, and what comes of one attempt is the engine's to judge.
        order.renew = true;
        order.once = true;
        match request.style {
            MoveStyle::Beside => {}
            MoveStyle::InPlace => order.overlap = Overlap::InPlace,
            MoveStyle::Quiet { hush_at, dial_at } => {
                order.overlap = Overlap::Quiet;
                order.hush_at = hush_at;
                order.not_before = dial_at;
                order.once = false;
            }
            _ => return self.tell(failed(MoveError::Unsupported)),
        }
        // The connection is left without a successor beside it: what waits on it must have ended before, and nothing may
        // begin to wait on it.
        let leaves = match &carrier {
            Carrier::Lane(lane) if order.overlap != Overlap::Beside => Some(lane.clone()),
            _ => None,
        };
        if let Some(lane) = &leaves
            && core.blocked().leave(lane.id(), request.deadline)
        {
            // Who waits there writes nothing meanwhile; its wait goes on behind the close.
            order.hush_at = now;
        }
        if !carrier.move_to(order) {
            if let Some(lane) = &leaves {
                core.blocked().settled(lane.id());
            }
            return self.tell(failed(MoveError::Closed));
        }
        if let (Some(lane), Some(info)) = (leaves, carrier.info()) {
            core.end_wait(lane.id(), &info);
        }
    }

    pub(super) fn move_failed(&self, core: &Arc<Core>, carrier: CarrierId, number: u64) {
        if let CarrierId::Lane(lane) = carrier {
            core.blocked().settled(lane);
        }
        if number >= super::topology::FAILOVERS {
            return Self::follow_again(core, carrier);
        }
        let cause = core
            .carrier(carrier)
            .map_or(MoveError::Closed, |carrier| cause_of(carrier.last_error().as_deref()));
        self.tell(Input::MoveFailed { conn: evenkeel_hitless::ConnId(number), cause });
    }

    fn in_scope(&self, core: &Core, scope: &Scope) -> Vec<Carrier> {
        match scope {
            Scope::Conn(conn) => self.carrier_of(core, *conn).into_iter().collect(),
            Scope::Endpoint(endpoint) => {
                core.carriers().into_iter().filter(|carrier| carrier.home() == *endpoint).collect()
            }
            _ => Vec::new(),
        }
    }

    fn relax(&mut self, core: &Core, scope: &Scope, floor: Duration, cause: Family) {
        self.next_floor += 1;
        let key = FloorKey::new(self.next_floor, cause);
        let before = self.floors.insert(scope.clone(), (key, floor));
        for carrier in self.in_scope(core, scope) {
            carrier.relax(key.0, floor);
        }
        if let Some((before, _)) = before {
            for carrier in core.carriers() {
                carrier.restore(before.0);
            }
        }
    }

    /// A connection that opens inside a window is relaxed as the others.
    pub(super) fn relax_new(&self, core: &Core, carrier: CarrierId, origin: &Origin) {
        let floor = self.floors.get(&Scope::Endpoint(origin.endpoint.clone()));
        if let (Some((key, floor)), Some(carrier)) = (floor, core.carrier(carrier)) {
            carrier.relax(key.0, *floor);
        }
    }

    fn restore(&mut self, core: &Core, scope: &Scope) {
        if let Some((key, _)) = self.floors.remove(scope) {
            for carrier in core.carriers() {
                carrier.restore(key.0);
            }
        }
    }

    fn ask_dns(&self, name: Arc<str>) {
        let tx = self.ears.order_tx.clone();
        spawn(async move {
            let addresses = match tokio::net::lookup_host((&*name, 0)).await {
                Ok(found) => found.map(|address| address.ip()).collect(),
                Err(_unresolved) => Vec::new(),
            };
            // The client may be gone: nobody needs the answer then.
            let _gone = tx.send(Order::Resolved { name, addresses }).await;
        });
    }
}

fn notable(core: &Core, event: &Notable) {
    tracing::debug!(target: "evenkeel::hitless", ?event, "maintenance");
    if let Notable::HandoffFinished { endpoint, moved, abandoned, waited, took, .. } = event {
        let to = core.place_of_home(endpoint).unwrap_or_else(|| endpoint.clone());
        core.events().emit(&Event::HandedOff {
            from: endpoint.clone(),
            to,
            waited: *waited,
            took: *took,
            moved: *moved,
            abandoned: *abandoned,
        });
    }
}

/// Why a carrier could not move, from what its last dial said.
fn cause_of(error: Option<&DialError>) -> MoveError {
    match error {
        None | Some(DialError::TimedOut { .. }) => MoveError::Deadline,
        Some(DialError::Handshake { cause, .. }) => match (&cause.step, &cause.cause) {
            (Step::Auth, _) => MoveError::Auth,
            (_, StepError::Server(error)) if error.code() == "LOADING" => MoveError::NotReady,
            (_, StepError::Server(error)) if error.detail().starts_with("max number of clients") => {
                MoveError::Full
            }
            _ => MoveError::Handshake,
        },
        // The certificate is the wrong one; that is told as data that cannot be taken. It will not be another by itself.
        Some(DialError::Io { phase: Phase::Tls, cause, .. })
            if cause.kind() == io::ErrorKind::InvalidData =>
        {
            MoveError::Forbidden
        }
        Some(DialError::Io { .. }) => MoveError::Unreachable,
        Some(_) => MoveError::Handshake,
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_protocol::Endpoint;

    use super::*;

    #[test]
    fn a_certificate_that_does_not_verify_is_no_network_trouble() {
        let failed = |phase, kind: io::ErrorKind| {
            let cause = Arc::new(io::Error::from(kind));
            cause_of(Some(&DialError::Io { endpoint: Endpoint::new("h", 1), phase, cause }))
        };
        assert_eq!(failed(Phase::Tls, io::ErrorKind::InvalidData), MoveError::Forbidden);
        assert_eq!(failed(Phase::Tls, io::ErrorKind::ConnectionReset), MoveError::Unreachable);
        assert_eq!(failed(Phase::Connect, io::ErrorKind::ConnectionRefused), MoveError::Unreachable);
        assert_eq!(cause_of(None), MoveError::Deadline);
    }
}
