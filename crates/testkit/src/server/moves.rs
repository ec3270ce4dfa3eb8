//! A move from one address to another, played from its announcement to the end of its grace.

use std::{sync::Arc, time::Duration};

use evenkeel_protocol::Endpoint;
use tokio::{net::TcpListener, sync::oneshot, time::sleep_until};

use super::{
    error::Error,
    listener::{listen_again, retire},
    maintenance::{Announced, MoveTarget},
    shared::Shared,
};

/// How an address is moved. The address `from` is announced to move, and is closed when the grace ends.
#[derive(Clone, Debug)]
#[must_use]
pub struct Move {
    from: usize,
    to: usize,
    grace: Duration,
    told: Option<Duration>,
    target: Told,
    flip_at: f64,
    copies: usize,
    withhold: Duration,
}

/// What the announcement says of the target.
#[derive(Clone, Debug)]
enum Told {
    Dead,
    Named,
    Other(Endpoint),
    Null,
}

impl Move {
    /// A move to the address `to`, which is named in the announcement. Connections that are still on `from` when the
    /// grace ends are closed.
    pub fn new(from: usize, to: usize, grace: Duration) -> Self {
        Self {
            from,
            to,
            grace,
            told: None,
            target: Told::Named,
            flip_at: 0.5,
            copies: 1,
            withhold: Duration::ZERO,
        }
    }

    /// Names no target. Default: the target is named in the form that each connection asked for.
    pub fn null_target(mut self) -> Self {
        self.target = Told::Null;
        self
    }

    /// Names a port of this host on which nobody listens. Default: as for [`null_target`](Self::null_target).
    pub fn dead_target(mut self) -> Self {
        self.target = Told::Dead;
        self
    }

    /// Names this endpoint instead of the address. Default: as for [`null_target`](Self::null_target).
    pub fn told_target(mut self, endpoint: Endpoint) -> Self {
        self.target = Told::Other(endpoint);
        self
    }

    /// When the front door leads to the new address, as a fraction of the grace from 0 to 1. Default: 0.5.
    pub fn flip_at(mut self, fraction: f64) -> Self {
        self.flip_at = if fraction.is_finite() { fraction.clamp(0.0, 1.0) } else { 1.0 };
        self
    }

    /// The grace that is announced, when it is not the true one. Default: the true one; the wire has whole seconds,
    /// a fraction is rounded up.
    pub fn announced_grace(mut self, told: Duration) -> Self {
        self.told = Some(told);
        self
    }

    /// How many times each connection is told. Default: 1.
    pub fn copies(mut self, copies: usize) -> Self {
        self.copies = copies.max(1);
        self
    }

    /// Withholds the replies of the old address in this last part of the grace; they are lost with their connections.
    /// Default: none.
    pub fn withhold_last(mut self, time: Duration) -> Self {
        self.withhold = time.min(self.grace);
        self
    }
}

/// What a move came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MoveReport {
    /// The announcement.
    pub announced: Announced,
    /// Connections that were still on the old address when the grace ended.
    pub closed: usize,
    /// Commands that the old address executed after the announcement.
    pub commands_after_announcement: u64,
}

/// A move under way. It goes on when this is dropped.
#[derive(Debug)]
pub struct Moving {
    announced: Announced,
    done: oneshot::Receiver<MoveReport>,
}

impl Moving {
    /// What the announcement reached.
    pub fn announced(&self) -> Announced {
        self.announced
    }

    /// Waits for the end of the grace.
    ///
    /// # Errors
    ///
    /// The server ended before the grace did.
    ///
    /// # Cancel safety
    ///
    /// Safe: the move goes on.
    pub async fn finished(self) -> Result<MoveReport, Error> {
        self.done.await.map_err(|_gone| Error::Ended)
    }
}

pub(super) async fn begin(shared: &Arc<Shared>, plan: Move) -> Result<Moving, Error> {
    let count = shared.with(|engine| engine.addresses.len());
    if let Some(index) = [plan.from, plan.to].into_iter().find(|&index| index >= count) {
        return Err(Error::NoSuchAddress { index, count });
    }
    listen_again(shared, plan.to).await?;
    let target = match &plan.target {
        Told::Dead => MoveTarget::Endpoint(dead_endpoint().await?),
        Told::Named => MoveTarget::Address(plan.to),
        Told::Other(endpoint) => MoveTarget::Endpoint(endpoint.clone()),
        Told::Null => MoveTarget::Null,
    };
    let told = plan.told.unwrap_or(plan.grace);
    let (start, before, announced) = shared.with(|engine| {
        let before = engine.addresses.get(plan.from).map_or(0, |a| a.counters.commands_after_announcement);
        let announced = engine.begin_move(plan.from, plan.grace, told, target);
        for _ in 1..plan.copies {
            engine.repeat_move(plan.from, announced.seq, told);
        }
        (engine.now, before, announced)
    });
    let (report, done) = oneshot::channel();
    let task = {
        let shared = Arc::clone(shared);
        async move {
            let flip = start + plan.grace.mul_f64(plan.flip_at);
            let withhold = start + plan.grace.saturating_sub(plan.withhold);
            let end = start + plan.grace;
            let mut steps = [(flip, true), (withhold, false)];
            steps.sort_by_key(|(at, _)| *at);
            for (at, flips) in steps {
                sleep_until(at).await;
                if flips {
                    shared.set_front_target(plan.to);
                } else if !plan.withhold.is_zero() {
                    // Beyond the end, so that nothing leaks out in its moment.
                    let until = end + Duration::from_secs(3600);
                    shared.with(|engine| engine.hold(Some(plan.from), until));
                }
            }
            sleep_until(end).await;
            let after = shared.with(|engine| {
                engine.addresses.get(plan.from).map_or(0, |a| a.counters.commands_after_announcement)
            });
            let closed = retire(&shared, plan.from).await;
            shared.with(|engine| engine.release(Some(plan.from)));
            // Nobody may be waiting for the report.
            let _unread =
                report.send(MoveReport { announced, closed, commands_after_announcement: after - before });
        }
    };
    if shared.spawn(task) { Ok(Moving { announced, done }) } else { Err(Error::Ended) }
}

/// An endpoint on which nobody listens: a port that was free a moment ago.
async fn dead_endpoint() -> Result<Endpoint, Error> {
    let addr = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let listen = |source| Error::Listen { addr, source };
    let listener = TcpListener::bind(addr).await.map_err(listen)?;
    let bound = listener.local_addr().map_err(listen)?;
    Ok(Endpoint::new("127.0.0.1", bound.port()))
}
