//! Several commands at once: pipelines, which stay together on the wire where one node serves them, and transactions.

use std::{ops::Range, pin::Pin, sync::Arc, time::Duration};

use evenkeel_pool::{Lane, LaneCall, LaneId, Outcome};
use evenkeel_protocol::{Command, Endpoint, Refusal, Reply, ServerError, Slot, command::LaneRefusal};

use super::{
    CallOptions, Core, failure,
    fence::{Key, Stood, Turn},
    node::Node,
    retry, spread,
};
use crate::error::{Error, Executed, Phase};

/// Sends commands together, and gives each its own outcome, in the caller's order.
pub(super) async fn send_all(
    core: &Arc<Core>,
    commands: Vec<Command>,
    options: CallOptions,
) -> Result<Vec<Result<Reply, Error>>, Error> {
    if commands.is_empty() {
        return Ok(Vec::new());
    }
    check(&commands)?;
    let timeout = options.timeout.unwrap_or_else(|| core.config().command_timeout());
    if commands.iter().any(Command::is_blocking) {
        return on_lease(core, &commands, timeout).await;
    }
    if let Some(node) = core.only() {
        return Ok(send_group(core, Some(Arc::clone(node)), commands, timeout).await);
    }
    let mut results: Vec<Option<Result<Reply, Error>>> = Vec::new();
    results.resize_with(commands.len(), || None);
    // Each takes its place when it is polled first, in this order.
    let mut sending: Vec<Sending> = Vec::new();
    let mut first = 0;
    for (place, command) in commands.iter().enumerate() {
        let spread = spread::spread(&core.routes(), command).map_err(|error| error.in_pipeline(place))?;
        if spread.is_none() && !core.fences.stands(|| command.slot().map(Slot::number)) {
            continue;
        }
        sending.extend(run(core, &commands, first..place, timeout));
        first = place + 1;
        let (core, command) = (Arc::clone(core), command.clone());
        sending.push(Box::pin(async move {
            let reply = match spread {
                Some(spread) => spread::send(core, command, options, spread).await,
                // Its slot changes hands: it waits for its turn.
                None => retry::unrouted(core, command, timeout).await,
            };
            (vec![place], vec![reply])
        }));
    }
    sending.extend(run(core, &commands, first..commands.len(), timeout));
    for (places, replies) in join(sending).await {
        for (place, reply) in places.into_iter().zip(replies) {
            if let Some(result) = results.get_mut(place) {
                *result = Some(reply);
            }
        }
    }
    Ok(results
        .into_iter()
        .map(|result| result.unwrap_or_else(|| Err(Error::closed(Executed::Maybe))))
        .collect())
}

/// Commands on their way, by their places.
type Sending = Pin<Box<dyn Future<Output = (Vec<usize>, Vec<Result<Reply, Error>>)> + Send>>;

/// Commands that each go to one node, those of a node together.
fn run(core: &Arc<Core>, commands: &[Command], places: Range<usize>, timeout: Duration) -> Vec<Sending> {
    let groups = group(core, commands, places).into_iter();
    let sending = groups.map(|group| -> Sending {
        let core = Arc::clone(core);
        let unit: Vec<Command> =
            group.places.iter().filter_map(|place| commands.get(*place).cloned()).collect();
        Box::pin(async move {
            let replies = send_group(&core, group.node, unit, timeout).await;
            (group.places, replies)
        })
    });
    sending.collect()
}

/// Commands of one lane of one node, by their places.
struct Group {
    node: Option<Arc<Node>>,
    lane: Option<LaneId>,
    places: Vec<usize>,
}

fn group(core: &Core, commands: &[Command], places: Range<usize>) -> Vec<Group> {
    let routes = core.routes();
    let mut groups: Vec<Group> = Vec::new();
    for (place, command) in commands.iter().enumerate().take(places.end).skip(places.start) {
        let node = routes.node(command).cloned();
        let lane = node.as_ref().and_then(|node| node.lane(command.slot())).map(Lane::id);
        let same = groups.iter_mut().find(|group| group.lane == lane);
        match same {
            Some(group) => group.places.push(place),
            None => groups.push(Group { node, lane, places: vec![place] }),
        }
    }
    groups
}

/// A refused command on its way, by its place in its unit.
type Again = Pin<Box<dyn Future<Output = (usize, Result<Reply, Error>)> + Send>>;

async fn send_group(
    core: &Arc<Core>,
    node: Option<Arc<Node>>,
    unit: Vec<Command>,
    timeout: Duration,
) -> Vec<Result<Reply, Error>> {
    let lane = node.as_ref().and_then(|node| {
        let slot = if node.has_one_lane() { None } else { unit.first().and_then(Command::slot) };
        node.lane(slot).cloned()
    });
    let (Some(node), Some(lane)) = (node, lane) else {
        return one_by_one(core, unit, timeout).await;
    };
    // A script that a slot's move refuses can be sent again only where the refusal is told apart from its own words.
    if core.only().is_none() && unit.iter().any(Command::is_script) {
        return one_by_one(core, unit, timeout).await;
    }
    let mut call = LaneCall::new(&lane, timeout);
    let outcome = loop {
        match std::future::poll_fn(|cx| call.poll_unit(&unit, cx)).await {
            // It goes again at its old place: the next poll does that.
            Outcome::MayResend => {}
            outcome => break outcome,
        }
    };
    let replies = match outcome {
        Outcome::Reply(reply) => vec![reply],
        Outcome::Replies(replies) => replies,
        Outcome::Failed(failure) if retry::is_rerouted(core, &node, failure) => {
            let place = call.place();
            let stood = |index| place.map(|place| Stood { lane: lane.clone(), place, index, call: None });
            let given_back = (0..)
                .zip(unit)
                .map(|(index, command)| retry::given_back(Arc::clone(core), command, timeout, stood(index)))
                .collect();
            // They have lined up: nobody needs to wait for this unit any more.
            drop(call);
            return join(given_back).await;
        }
        Outcome::Failed(failure) => {
            let error = failure::command(failure, &lane, timeout, core.config());
            return unit.iter().map(|_command| Err(error.clone())).collect();
        }
        _ => return unit.iter().map(|_command| Err(Error::closed(Executed::Maybe))).collect(),
    };
    if core.only().is_some() && replies.iter().any(|reply| reply.error().is_some()) {
        return in_place(core, &node, call, &unit, replies, timeout).await;
    }
    // What was answered had a place.
    let place = call.place().unwrap_or_default();
    let mut results = Vec::with_capacity(replies.len());
    let mut again: Vec<Again> = Vec::new();
    for (index, (command, reply)) in (0..).zip(unit.iter().zip(replies)) {
        results.push(match reply.error() {
            None => Ok(reply),
            Some(error) if retry::is_worth_it(core, command, &error) => {
                let stood = Some(Stood { lane: lane.clone(), place, index, call: None });
                let command = command.clone();
                let again_sent = retry::refused(Arc::clone(core), command, timeout, &node, error, stood);
                again.push(Box::pin(async move { (index as usize, again_sent.await) }));
                Err(Error::closed(Executed::No))
            }
            Some(error) => Err(Error::server(error, command, node.endpoint())),
        });
    }
    // They have lined up: nobody needs to wait for this unit any more.
    drop(call);
    for (index, result) in join(again).await {
        if let Some(place) = results.get_mut(index) {
            *place = result;
        }
    }
    results
}

/// Outside a cluster: what was refused goes again together, at the place that the unit has in its lane.
async fn in_place(
    core: &Arc<Core>,
    node: &Arc<Node>,
    mut call: LaneCall<&Lane>,
    unit: &[Command],
    mut replies: Vec<Reply>,
    timeout: Duration,
) -> Vec<Result<Reply, Error>> {
    let deadline = super::clock::now() + timeout;
    let mut results: Vec<Result<Reply, Error>> =
        unit.iter().map(|_command| Err(Error::closed(Executed::Maybe))).collect();
    let mut asked: Vec<usize> = (0..unit.len()).collect();
    let mut tries = 0;
    loop {
        let at = node.endpoint();
        let (mut refused, mut again) = (Vec::new(), Vec::new());
        for (place, reply) in asked.into_iter().zip(replies) {
            let (Some(result), Some(command)) = (results.get_mut(place), unit.get(place)) else { continue };
            let Some(error) = reply.error() else {
                *result = Ok(reply);
                continue;
            };
            if let (Some(refusal), Some(here), true) =
                (Refusal::parse(&error), &at, retry::is_worth_it(core, command, &error))
            {
                retry::complain(core, here, refusal);
                refused.push(place);
                again.push(command.clone());
            }
            *result = Err(Error::server(error, command, at.clone()));
        }
        if again.is_empty() {
            return results;
        }
        if !retry::pause(core, deadline, &mut tries).await || !call.again() {
            return results;
        }
        let outcome = loop {
            match std::future::poll_fn(|cx| call.poll_unit(&again, cx)).await {
                Outcome::MayResend => {}
                outcome => break outcome,
            }
        };
        replies = match outcome {
            Outcome::Reply(reply) => vec![reply],
            Outcome::Replies(replies) => replies,
            Outcome::Failed(failure) => {
                let error = failure::command(failure, call.lane(), timeout, core.config());
                for place in refused {
                    if let Some(result) = results.get_mut(place) {
                        *result = Err(error.clone());
                    }
                }
                return results;
            }
            _ => return results,
        };
        asked = refused;
    }
}

/// Each takes its place when it is polled first, in this order, so that nothing that comes later passes any of them.
async fn one_by_one(core: &Arc<Core>, unit: Vec<Command>, timeout: Duration) -> Vec<Result<Reply, Error>> {
    let sending = unit.into_iter().map(|command| retry::unrouted(Arc::clone(core), command, timeout));
    join(sending.collect()).await
}

/// Waits for all, at the same time.
pub(super) async fn join<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut waiting: Vec<_> = futures.into_iter().map(|future| (Some(Box::pin(future)), None)).collect();
    std::future::poll_fn(|cx| {
        let mut pending = false;
        for (future, output) in &mut waiting {
            if let Some(running) = future {
                match running.as_mut().poll(cx) {
                    std::task::Poll::Ready(value) => {
                        *output = Some(value);
                        *future = None;
                    }
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        if pending { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    waiting.into_iter().filter_map(|(_, output)| output).collect()
}

/// WAIT speaks of earlier writes of the same connection: in a pipeline behind them it may stand.
fn check(commands: &[Command]) -> Result<(), Error> {
    for (place, command) in commands.iter().enumerate() {
        if let Some(refusal) = LaneRefusal::of(command) {
            let waits = matches!(refusal.command, "WAIT" | "WAITAOF");
            if !(waits && place > 0) {
                return Err(Error::misused(refusal).in_pipeline(place));
            }
        }
    }
    Ok(())
}

async fn on_lease(
    core: &Arc<Core>,
    commands: &[Command],
    timeout: Duration,
) -> Result<Vec<Result<Reply, Error>>, Error> {
    spread::one_slot(&core.routes(), commands)?;
    let keyed = commands.iter().find(|command| command.slot().is_some()).or_else(|| commands.first());
    let waits: Duration = commands.iter().filter_map(|command| command.blocks_for().flatten()).sum();
    let patience = timeout + waits;
    let deadline = super::clock::now() + patience;
    let mut tries = 0;
    loop {
        let node = keyed.and_then(|command| core.routes().node(command).cloned());
        let node = node.ok_or_else(|| Error::closed(Executed::No))?;
        let lease = node.lend(core.config(), || core.is_current(&node)).await?;
        let left = deadline.saturating_duration_since(super::clock::now());
        let replies = match lease.lane().request_unit(commands, left).await {
            Outcome::Reply(reply) => vec![reply],
            Outcome::Replies(replies) => replies,
            Outcome::Failed(failure) => {
                return Err(failure::command(failure, lease.lane(), patience, core.config()));
            }
            _ => return Err(Error::closed(Executed::Maybe)),
        };
        let refused = retry::all_refused(core, commands, &replies);
        let at = lease.lane().endpoint();
        drop(lease);
        // While the server is not ready for any of them, none has run.
        let again = match refused {
            Some(error) => retry::sit_out(core, &at, &error, deadline, &mut tries).await,
            None => false,
        };
        if !again {
            return Ok(split(commands, replies, &node));
        }
    }
}

fn split(commands: &[Command], replies: Vec<Reply>, node: &Node) -> Vec<Result<Reply, Error>> {
    commands
        .iter()
        .zip(replies)
        .map(|(command, reply)| match reply.error() {
            None => Ok(reply),
            Some(error) => Err(Error::server(error, command, node.endpoint())),
        })
        .collect()
}

/// Runs commands between MULTI and EXEC, as one unit on the wire; gives EXEC's reply.
pub(super) async fn transaction(
    core: &Arc<Core>,
    commands: Vec<Command>,
    options: CallOptions,
) -> Result<Reply, Error> {
    for (place, command) in commands.iter().enumerate() {
        if let Some(refusal) = LaneRefusal::of(command) {
            return Err(Error::misused(refusal).in_pipeline(place));
        }
    }
    spread::one_slot(&core.routes(), &commands)?;
    let timeout = options.timeout.unwrap_or_else(|| core.config().command_timeout());
    let deadline = super::clock::now() + timeout;
    let mut unit = Vec::with_capacity(commands.len() + 2);
    unit.push(Command::new("MULTI"));
    unit.extend(commands);
    unit.push(Command::new("EXEC"));
    let slot = unit.iter().find_map(Command::slot);
    let (mut turn, mut key): (Option<Turn>, Option<Key>) = (None, None);
    // The node that takes it although it does not own the slot yet.
    let mut asked: Option<Arc<Node>> = None;
    // Its place in its lane, outside a cluster.
    let mut kept: Option<LaneCall> = None;
    loop {
        if let Some(slot) = slot.filter(|_| turn.is_none()) {
            turn = core.fences.enter(slot.number());
            key = turn.as_ref().map(Turn::key).or(key);
        }
        if let Some(turn) = &turn {
            let left = deadline.saturating_duration_since(super::clock::now());
            if tokio::time::timeout(left, turn.comes()).await.is_err() {
                return Err(Error::timeout(Phase::Topology, timeout, None, Executed::No));
            }
        }
        let node = unit.iter().find(|command| command.slot().is_some()).or_else(|| unit.first());
        let asking = asked.is_some();
        let node = asked.take().or_else(|| node.and_then(|command| core.routes().node(command).cloned()));
        let Some(node) = node else {
            // Nobody owns the slot just now.
            core.complain_unowned();
            pause(core).await;
            if super::clock::now() >= deadline {
                return Err(Error::timeout(Phase::Topology, timeout, None, Executed::No));
            }
            continue;
        };
        let lane = node.lane(slot).cloned().ok_or_else(|| Error::closed(Executed::No))?;
        let confirmed = match &turn {
            Some(turn) => turn.confirm(&lane),
            None => !core.fences.stands(|| slot.map(Slot::number)),
        };
        if !confirmed {
            asked = asking.then_some(node);
            continue;
        }
        // Inside MULTI what ASKING allows goes on until EXEC.
        let whole: Vec<Command> =
            asking.then(|| Command::new("ASKING")).into_iter().chain(unit.iter().cloned()).collect();
        let left = deadline.saturating_duration_since(super::clock::now());
        let kept_call = kept.take_if(LaneCall::again);
        let mut call = kept_call.unwrap_or_else(|| lane.call(left));
        let mut is_placed = !core.routes().is_cluster();
        let outcome = std::future::poll_fn(|cx| {
            let outcome = call.poll_unit(&whole, cx);
            if call.place().is_some() && !std::mem::replace(&mut is_placed, true) {
                if let Some(command) = unit.iter().find(|command| command.slot().is_some()) {
                    core.check_owner(command, &node);
                }
                // It has its place: the next one of its slot may go.
                if let Some(turn) = turn.take() {
                    turn.placed(&lane);
                }
            }
            outcome
        })
        .await;
        let mut line_up = || {
            let place = call.place()?;
            let stood = Stood { lane: lane.clone(), place, index: 0, call: None };
            let slot = slot.filter(|_| core.routes().is_cluster())?;
            let turn = core.fences.enter_refused(slot.number(), &stood, key);
            key = Some(turn.key());
            Some(turn)
        };
        match outcome {
            Outcome::Replies(mut replies) => {
                match judge(core, &unit, replies.split_off(usize::from(asking)), &node) {
                    Verdict::Done(result) => return result,
                    Verdict::Ask(target) => {
                        turn = line_up();
                        asked = core.node_at(&target);
                        if super::clock::now() >= deadline {
                            return Err(Error::timeout(Phase::Topology, timeout, None, Executed::No));
                        }
                    }
                    Verdict::Again => {
                        turn = line_up();
                        kept = if core.only().is_some() { call.keep() } else { None };
                        pause(core).await;
                        if super::clock::now() >= deadline {
                            return Err(Error::timeout(Phase::Topology, timeout, None, Executed::No));
                        }
                    }
                }
            }
            Outcome::Failed(failure) if retry::is_rerouted(core, &node, failure) => turn = line_up(),
            Outcome::Failed(failure) => return Err(failure::command(failure, &lane, timeout, core.config())),
            _ => return Err(Error::closed(Executed::Maybe)),
        }
    }
}

/// Until the map changes, or somebody may have changed his mind.
async fn pause(core: &Core) {
    let _either = tokio::time::timeout(Duration::from_millis(20), core.changed()).await;
}

enum Verdict {
    Done(Result<Reply, Error>),
    /// Nothing ran, and it may go again as a whole.
    Again,
    /// Nothing ran, and it may go again as a whole at this node, which does not own the slot yet.
    Ask(Endpoint),
}

/// EXECABORT proves that nothing ran; the refusal that caused it says whether another try is worth it. So does a refusal as the
/// reply of EXEC itself: the slot left between queueing and EXEC, and the server looks before it runs anything.
fn judge(core: &Core, unit: &[Command], replies: Vec<Reply>, node: &Node) -> Verdict {
    let refused = unit
        .iter()
        .zip(&replies)
        .enumerate()
        .take(unit.len() - 1)
        .find_map(|(place, (command, reply))| reply.error().map(|error| (place, command, error)));
    let Some(exec) = replies.into_iter().next_back() else {
        return Verdict::Done(Err(Error::closed(Executed::Maybe)));
    };
    let again = |error: &ServerError| {
        if let Some(owner) = super::complaints::redirected(core, node, error) {
            core.moved(owner.0, &owner.1);
            return Some(Verdict::Again);
        }
        if let (Some(Refusal::Ask { target, .. }), Some(here)) = (Refusal::parse(error), node.endpoint()) {
            let there = target.resolve(&here);
            return core.allows(&there).then_some(Verdict::Ask(there));
        }
        if let (Some(refusal), Some(here), true) =
            (Refusal::parse(error), node.endpoint(), core.only().is_some())
        {
            retry::complain(core, &here, refusal);
        }
        retry::is_passing(core, error).then_some(Verdict::Again)
    };
    match (exec.error(), refused) {
        (None, _) => Verdict::Done(Ok(exec)),
        (Some(_abort), Some((place, command, error))) => {
            if let Some(verdict) = again(&error) {
                return verdict;
            }
            // MULTI stands before the caller's first command.
            Verdict::Done(Err(Error::not_queued(error, command, place.saturating_sub(1), node.endpoint())))
        }
        (Some(error), None) => {
            if let Some(verdict) = again(&error) {
                return verdict;
            }
            let last = unit.last().cloned().unwrap_or_else(|| Command::new("EXEC"));
            Verdict::Done(Err(Error::server(error, &last, node.endpoint())))
        }
    }
}
