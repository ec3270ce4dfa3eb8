//! The long way of a command: refusals that prove that it did not run, places that have no owner yet, leases.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use evenkeel_pool::{Failure, Lane, LaneCall, Outcome, Readiness};
use evenkeel_protocol::{Command, Endpoint, Refusal, Reply, ServerError, Slot};

use super::{
    Complaint, Core, blocking, clock, failure,
    fence::{Key, Stood, Turn},
    node::Node,
};
use crate::error::{CommandName, Error, Executed, Phase};

/// Redirections that one command follows, at most: a cluster that sends in circles is not followed for ever.
const MAX_REDIRECTS: u32 = 16;

/// Between tries of a command that must wait: 10 ms, 20 ms ... 100 ms.
const WAIT_STEP: Duration = Duration::from_millis(10);
const WAIT_MAX: Duration = Duration::from_millis(100);

/// A command that blocks for ever is given this long, which is as good.
const FOR_EVER: Duration = Duration::from_secs(30 * 24 * 3600);

/// Whether an error is a refusal that this deployment can do something about.
///
/// In a script's own reply such a code proves nothing: it may have written first and returned it.
pub(super) fn is_worth_it(core: &Core, command: &Command, error: &ServerError) -> bool {
    !command.is_script() && is_passing(core, error)
}

/// As [`is_worth_it`], for an error that came before anything ran, whatever the command.
pub(super) fn is_passing(core: &Core, error: &ServerError) -> bool {
    let Some(refusal) = Refusal::parse(error) else { return false };
    let cluster = core.routes().is_cluster();
    match refusal {
        Refusal::Moved { .. } | Refusal::Ask { .. } | Refusal::TryAgain | Refusal::ClusterDown => cluster,
        Refusal::Loading | Refusal::NoReplicas | Refusal::Redirect { .. } => true,
        Refusal::MasterDown | Refusal::ReadOnly => cluster || core.follows_primary(),
        _ => false,
    }
}

/// Tells the topology what a refusal says about it.
pub(super) fn complain(core: &Core, here: &Endpoint, refusal: Refusal) {
    let complaint = match refusal {
        Refusal::ClusterDown => Complaint::ClusterDown,
        Refusal::Loading => Complaint::Loading,
        Refusal::MasterDown => Complaint::MasterDown,
        Refusal::ReadOnly => Complaint::ReadOnly,
        Refusal::Redirect { target } => Complaint::Redirect(target.resolve(here)),
        // The slot is on its way: nobody needs to look anything up.
        _ => Complaint::Busy,
    };
    core.complain(here, complaint);
}

/// The first refusal of commands that were sent together, if each of them was refused and nothing has run.
pub(super) fn all_refused(core: &Core, commands: &[Command], replies: &[Reply]) -> Option<ServerError> {
    let mut first = None;
    for (command, reply) in commands.iter().zip(replies) {
        let error = reply.error().filter(|error| is_worth_it(core, command, error))?;
        first.get_or_insert(error);
    }
    first
}

/// Waits out what a server says when it cannot answer yet, on a connection that is kept: the same command may go there again
/// then. False when it is something else, or no time is left.
pub(super) async fn sit_out(
    core: &Core,
    at: &Endpoint,
    error: &ServerError,
    deadline: Instant,
    waits: &mut u32,
) -> bool {
    let complaint = match Refusal::parse(error) {
        Some(Refusal::Loading) => Complaint::Loading,
        Some(Refusal::MasterDown) => Complaint::MasterDown,
        Some(Refusal::ClusterDown) => Complaint::ClusterDown,
        Some(Refusal::NoReplicas | Refusal::TryAgain) => Complaint::Busy,
        // It names another place, and a connection of one's own stays where it is.
        _ => return false,
    };
    if !is_passing(core, error) {
        return false;
    }
    core.complain(at, complaint);
    pause(core, deadline, waits).await
}

/// Waits a little longer each time, or until the topology changes; false when no time is left.
pub(super) async fn pause(core: &Core, deadline: Instant, waits: &mut u32) -> bool {
    let left = || deadline.saturating_duration_since(clock::now());
    *waits += 1;
    let pause = WAIT_STEP.saturating_mul(*waits).min(WAIT_MAX).min(left());
    let _either = tokio::time::timeout(pause, core.changed()).await;
    !left().is_zero()
}

/// Whether a command that a closed lane gave back belongs somewhere else by now.
pub(super) fn is_rerouted(core: &Core, node: &Arc<Node>, failure: Failure) -> bool {
    failure == Failure::Closed && !core.is_closed() && !core.is_current(node)
}

struct Trip {
    core: Arc<Core>,
    command: Command,
    timeout: Duration,
    deadline: Instant,
    redirects: u32,
    waits: u32,
    /// Its place among the commands of a slot that changes hands.
    turn: Option<Turn>,
    /// The place that it had when it was sent last.
    key: Option<Key>,
    /// Where it stood then.
    stood: Option<Stood>,
    /// Its place in its lane, outside a cluster: nothing of its slot passes it.
    kept: Option<LaneCall>,
    /// It has its place in a lane; outside a cluster nobody asks.
    is_placed: bool,
}

enum Next {
    Done(Result<Reply, Error>),
    /// Send it to this node, behind ASKING if so.
    Send {
        node: Arc<Node>,
        asking: bool,
    },
    /// Find out where it belongs.
    Route,
}

impl Trip {
    fn new(core: Arc<Core>, command: Command, timeout: Duration) -> Self {
        let deadline = clock::now() + timeout;
        Self {
            core,
            command,
            timeout,
            deadline,
            redirects: 0,
            waits: 0,
            turn: None,
            key: None,
            stood: None,
            kept: None,
            is_placed: false,
        }
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(clock::now())
    }

    /// Lines up with the others of its slot that were refused or given back, in the order in which they had been sent. Outside a
    /// cluster it goes again through the same lane, at the place that it has there.
    fn line_up(&mut self) {
        let Some(stood) = self.stood.take() else { return };
        if !self.core.routes().is_cluster() {
            self.kept = stood.call;
            return;
        }
        let Some(slot) = self.command.slot() else { return };
        let turn = self.core.fences.enter_refused(slot.number(), &stood, self.key);
        self.key = Some(turn.key());
        self.turn = Some(turn);
    }

    /// Waits until the commands of its slot that come first have gone; false when its time is over.
    async fn turn(&mut self) -> bool {
        if self.turn.is_none()
            && let Some(slot) = self.command.slot()
        {
            self.turn = self.core.fences.enter(slot.number());
            self.key = self.turn.as_ref().map(Turn::key).or(self.key);
        }
        match &self.turn {
            Some(turn) => tokio::time::timeout(self.left(), turn.comes()).await.is_ok(),
            None => true,
        }
    }

    /// Whether its turn still stands, or it still needs none, now that its node was chosen.
    fn confirmed(&self, node: &Node) -> bool {
        match (&self.turn, self.lane(node)) {
            (Some(turn), Some(lane)) => turn.confirm(lane),
            (Some(_), None) => true,
            (None, _) => !self.core.fences.stands(|| self.command.slot().map(Slot::number)),
        }
    }

    /// The lane of a node that takes the command.
    fn lane<'a>(&self, node: &'a Node) -> Option<&'a Lane> {
        node.lane(if node.has_one_lane() { None } else { self.command.slot() })
    }

    async fn wait(&mut self) -> bool {
        pause(&self.core, self.deadline, &mut self.waits).await
    }

    async fn refused(&mut self, at: Option<Endpoint>, error: ServerError) -> Next {
        let command = self.command.clone();
        let give_up = |error: ServerError| Next::Done(Err(Error::server(error, &command, at.clone())));
        // A script that got as far as this was refused when it was queued, so nothing of it has run.
        if !is_passing(&self.core, &error) {
            return give_up(error);
        }
        let Some(refusal) = Refusal::parse(&error) else { return give_up(error) };
        let Some(here) = at.clone() else { return give_up(error) };
        self.line_up();
        match refusal {
            Refusal::Moved { slot, target } => {
                self.redirects += 1;
                let owner = target.resolve(&here);
                if self.redirects > MAX_REDIRECTS {
                    return Next::Done(Err(Error::redirect(error, owner, self.redirects)));
                }
                if !self.core.allows(&owner) {
                    return Next::Done(Err(Error::redirect(error, owner, self.redirects)));
                }
                // A replica whose primary has died sends there until it is promoted: the second time round, wait.
                if self.redirects > 2 && !self.wait().await {
                    return Next::Done(Err(Error::redirect(error, owner, self.redirects)));
                }
                self.core.moved(slot, &owner);
                // Nobody waits for the map: who sent us there knows.
                match self.core.node_at(&owner).filter(|_| self.redirects <= 2) {
                    Some(node) => Next::Send { node, asking: false },
                    None => Next::Route,
                }
            }
            Refusal::Ask { target, .. } => {
                self.redirects += 1;
                let there = target.resolve(&here);
                if self.redirects > MAX_REDIRECTS || !self.core.allows(&there) {
                    return Next::Done(Err(Error::redirect(error, there, self.redirects)));
                }
                match self.core.node_at(&there) {
                    Some(node) => Next::Send { node, asking: true },
                    None => give_up(error),
                }
            }
            other => {
                complain(&self.core, &here, other);
                if self.wait().await { Next::Route } else { give_up(error) }
            }
        }
    }

    async fn send(&mut self, node: &Arc<Node>, asking: bool) -> Next {
        let left = self.left();
        let Some(lane) = self.lane(node).cloned() else {
            return Next::Done(Err(Error::closed(Executed::No)));
        };
        let at = Some(lane.endpoint());
        let proves = self.command.is_script() && self.core.routes().is_cluster();
        let mut unit = Vec::with_capacity(4);
        if asking {
            unit.push(Command::new("ASKING"));
        }
        if proves {
            // Inside MULTI a node that does not own the slot refuses before the script runs, and EXEC gives the
            // script's own words apart from that.
            unit.extend([Command::new("MULTI"), self.command.clone(), Command::new("EXEC")]);
        } else {
            unit.push(self.command.clone());
        }
        let kept_call = self.kept.take_if(LaneCall::again);
        let mut call = kept_call.unwrap_or_else(|| lane.call(left));
        self.is_placed = !self.core.routes().is_cluster();
        loop {
            let outcome = self.outcome(&mut call, &unit, node, &lane).await;
            let kept = if self.core.routes().is_cluster() { None } else { call.keep() };
            self.stood = call.place().map(|place| Stood { lane: lane.clone(), place, index: 0, call: kept });
            match outcome {
                Some(Outcome::MayResend) => {}
                Some(Outcome::Reply(reply)) => return self.answered(at, reply).await,
                Some(Outcome::Replies(replies)) if proves => return self.script_answered(at, &replies).await,
                Some(Outcome::Replies(mut replies)) => match replies.pop() {
                    Some(reply) => return self.answered(at, reply).await,
                    None => return Next::Done(Err(Error::closed(Executed::Maybe))),
                },
                Some(Outcome::Failed(failure)) => {
                    if is_rerouted(&self.core, node, failure) && !self.left().is_zero() {
                        self.line_up();
                        return Next::Route;
                    }
                    return Next::Done(Err(failure::command(
                        failure,
                        &lane,
                        self.timeout,
                        self.core.config(),
                    )));
                }
                // The map changed while the command was not written: it belongs somewhere else.
                _ => {
                    self.line_up();
                    return Next::Route;
                }
            }
        }
    }

    /// Waits for the outcome; `None` when the command was taken back because the topology changed.
    async fn outcome(
        &mut self,
        call: &mut LaneCall,
        unit: &[Command],
        node: &Arc<Node>,
        lane: &Lane,
    ) -> Option<Outcome> {
        loop {
            let changed = self.core.changed();
            tokio::select! {
                biased;
                outcome = std::future::poll_fn(|cx| {
                    let outcome = call.poll_unit(unit, cx);
                    // In a lane that is closed it has none, and keeps its turn.
                    if call.place().is_some() && !std::mem::replace(&mut self.is_placed, true) {
                        self.core.check_owner(&self.command, node);
                        // It has its place: the next one of its slot may go.
                        if let Some(turn) = self.turn.take() {
                            turn.placed(lane);
                        }
                    }
                    outcome
                }) => return Some(outcome),
                () = changed => {
                    // While its node is the owner, what came later waits behind it in the same lane: it would be passed.
                    let is_owner = self.core.routes().node(&self.command).is_some_and(|owner| Arc::ptr_eq(owner, node));
                    if !is_owner && lane.readiness() != Readiness::Ready && call.withdraw() {
                        return None;
                    }
                }
            }
        }
    }

    async fn answered(&mut self, at: Option<Endpoint>, reply: Reply) -> Next {
        match reply.error() {
            None => Next::Done(Ok(reply)),
            Some(error) if self.command.is_script() => {
                Next::Done(Err(Error::server(error, &self.command, at)))
            }
            Some(error) => self.refused(at, error).await,
        }
    }

    /// The replies to MULTI, the script and EXEC, ASKING in front perhaps.
    async fn script_answered(&mut self, at: Option<Endpoint>, replies: &[Reply]) -> Next {
        let [.., queued, exec] = replies else { return Next::Done(Err(Error::closed(Executed::Maybe))) };
        if let Some(error) = queued.error().or_else(|| exec.error()) {
            return self.refused(at, error).await;
        }
        let mut reader = exec.reader();
        let own = reader.list("list").and_then(|_one| reader.take_value()).map(Reply::new);
        match own {
            Ok(own) => self.answered(at, own).await,
            Err(cause) => Next::Done(Err(Error::decode(cause, CommandName::of(&self.command)))),
        }
    }

    async fn run(mut self, mut next: Next) -> Result<Reply, Error> {
        loop {
            next = match next {
                Next::Done(result) => return result,
                Next::Send { .. } | Next::Route if !self.turn().await => {
                    Next::Done(Err(Error::timeout(Phase::Topology, self.timeout, None, Executed::No)))
                }
                Next::Send { node, asking } if !self.confirmed(&node) => Next::Send { node, asking },
                Next::Send { node, asking } => self.send(&node, asking).await,
                Next::Route => {
                    let node = self.core.routes().node(&self.command).cloned();
                    if let Some(node) = node {
                        if self.confirmed(&node) { self.send(&node, false).await } else { Next::Route }
                    } else {
                        self.core.complain_unowned();
                        if self.wait().await {
                            Next::Route
                        } else {
                            let error = Error::timeout(Phase::Topology, self.timeout, None, Executed::No);
                            Next::Done(Err(error))
                        }
                    }
                }
            };
        }
    }
}

/// Goes on behind a refusal. The command has its place among others that were refused when this returns.
pub(super) fn refused(
    core: Arc<Core>,
    command: Command,
    timeout: Duration,
    node: &Node,
    error: ServerError,
    stood: Option<Stood>,
) -> impl Future<Output = Result<Reply, Error>> + Send + use<> {
    let at = node.endpoint();
    let mut trip = Trip::new(core, command, timeout);
    trip.stood = stood;
    trip.line_up();
    async move {
        let next = trip.refused(at, error).await;
        trip.run(next).await
    }
}

/// Finds another node for a command that a lane gave back; places as with [`refused`].
pub(super) fn given_back(
    core: Arc<Core>,
    command: Command,
    timeout: Duration,
    stood: Option<Stood>,
) -> impl Future<Output = Result<Reply, Error>> + Send + use<> {
    let mut trip = Trip::new(core, command, timeout);
    trip.stood = stood;
    trip.line_up();
    trip.run(Next::Route)
}

/// Finds an owner first.
pub(super) async fn unrouted(core: Arc<Core>, command: Command, timeout: Duration) -> Result<Reply, Error> {
    Trip::new(core, command, timeout).run(Next::Route).await
}

/// Runs a command that blocks, on a connection of its own.
pub(super) async fn waiting(core: Arc<Core>, command: Command, timeout: Duration) -> Result<Reply, Error> {
    let waits = command.blocks_for().flatten();
    // What the server is allowed to wait, and the usual time on top for the way there and back.
    let patience = command.blocks_for().map_or(timeout, |_| waits.map_or(FOR_EVER, |waits| waits + timeout));
    let mut trip = Trip::new(core, command, patience);
    loop {
        let node = trip.core.routes().node(&trip.command).cloned();
        let Some(node) = node else {
            trip.core.complain_unowned();
            if trip.wait().await {
                continue;
            }
            return Err(Error::timeout(Phase::Topology, patience, None, Executed::No));
        };
        let lease = match node.lend(trip.core.config(), || trip.core.is_current(&node)).await {
            Ok(lease) => lease,
            // Its keys are served elsewhere by now.
            Err(_lost) if !trip.core.is_current(&node) && !trip.core.is_closed() && trip.wait().await => {
                continue;
            }
            Err(error) => return Err(error),
        };
        let at = Some(lease.lane().endpoint());
        match blocking::request(&trip.core, lease.lane(), &trip.command, patience).await {
            Outcome::Reply(reply) => match reply.error() {
                None => return Ok(reply),
                // The role changed while the command waited: no element was taken.
                Some(error) if error.code() == "UNBLOCKED" && trip.core.follows_primary() => {
                    if let Some(at) = &at {
                        trip.core.complain(at, Complaint::Unblocked);
                    }
                    if !trip.wait().await {
                        return Err(Error::server(error, &trip.command, None));
                    }
                }
                Some(error) => match trip.refused(at, error).await {
                    Next::Done(result) => return result,
                    Next::Send { .. } | Next::Route => {}
                },
            },
            Outcome::Failed(failure) => {
                return Err(failure::command(failure, lease.lane(), patience, trip.core.config()));
            }
            _ => return Err(Error::closed(Executed::Maybe)),
        }
    }
}
