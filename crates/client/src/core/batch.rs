//! Several commands at once: pipelines, which stay together on the wire where one node serves them, and transactions.

use std::{sync::Arc, time::Duration};

use evenkeel_pool::{LaneCall, Outcome};
use evenkeel_protocol::{Command, Reply, command::LaneRefusal};

use super::{CallOptions, Core, failure, node::Node, retry};
use crate::error::{Error, Executed};

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
    let groups = group(core, &commands);
    let sending = groups.into_iter().map(|group| {
        let core = Arc::clone(core);
        let unit: Vec<Command> =
            group.places.iter().filter_map(|place| commands.get(*place).cloned()).collect();
        async move {
            let replies = send_group(&core, group.node, unit, timeout).await;
            (group.places, replies)
        }
    });
    for (places, replies) in join(sending.collect()).await {
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

/// Commands of one node, by their places.
struct Group {
    node: Option<Arc<Node>>,
    places: Vec<usize>,
}

fn group(core: &Core, commands: &[Command]) -> Vec<Group> {
    let routes = core.routes();
    let mut groups: Vec<Group> = Vec::new();
    for (place, command) in commands.iter().enumerate() {
        let node = routes.node(command).cloned();
        let same = groups.iter_mut().find(|group| match (&group.node, &node) {
            (Some(known), Some(node)) => Arc::ptr_eq(known, node),
            (None, None) => true,
            _ => false,
        });
        match same {
            Some(group) => group.places.push(place),
            None => groups.push(Group { node, places: vec![place] }),
        }
    }
    groups
}

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
            return one_by_one(core, unit, timeout).await;
        }
        Outcome::Failed(failure) => {
            let error = failure::command(failure, &lane, timeout, core.config());
            return unit.iter().map(|_command| Err(error.clone())).collect();
        }
        _ => return unit.iter().map(|_command| Err(Error::closed(Executed::Maybe))).collect(),
    };
    let mut results = Vec::with_capacity(replies.len());
    for (command, reply) in unit.iter().zip(replies) {
        results.push(match reply.error() {
            None => Ok(reply),
            Some(error) if retry::is_worth_it(core, command, &error) => {
                let (core, command, node) = (Arc::clone(core), command.clone(), Arc::clone(&node));
                // Refusals are rare: their way does not stay in the memory of every pipeline.
                Box::pin(retry::refused(core, command, timeout, node, error)).await
            }
            Some(error) => Err(Error::server(error, command, node.endpoint())),
        });
    }
    results
}

async fn one_by_one(core: &Arc<Core>, unit: Vec<Command>, timeout: Duration) -> Vec<Result<Reply, Error>> {
    let mut results = Vec::with_capacity(unit.len());
    for command in unit {
        results.push(retry::unrouted(Arc::clone(core), command, timeout).await);
    }
    results
}

/// Waits for all, at the same time.
async fn join<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
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
    let node = commands.first().and_then(|first| core.routes().node(first).cloned());
    let node = node.ok_or_else(|| Error::closed(Executed::No))?;
    let lease = node.leases().acquire().await.map_err(|error| failure::lease(error, core.config()))?;
    let waits: Duration = commands.iter().filter_map(|command| command.blocks_for().flatten()).sum();
    match lease.lane().request_unit(commands, timeout + waits).await {
        Outcome::Reply(reply) => Ok(split(commands, vec![reply], &node)),
        Outcome::Replies(replies) => Ok(split(commands, replies, &node)),
        Outcome::Failed(failure) => {
            Err(failure::command(failure, lease.lane(), timeout + waits, core.config()))
        }
        _ => Err(Error::closed(Executed::Maybe)),
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
    let timeout = options.timeout.unwrap_or_else(|| core.config().command_timeout());
    let deadline = super::clock::now() + timeout;
    let mut unit = Vec::with_capacity(commands.len() + 2);
    unit.push(Command::new("MULTI"));
    unit.extend(commands);
    unit.push(Command::new("EXEC"));
    loop {
        let node = unit.iter().find(|command| command.slot().is_some()).or_else(|| unit.first());
        let node = node.and_then(|command| core.routes().node(command).cloned());
        let node = node.ok_or_else(|| Error::closed(Executed::No))?;
        let slot = unit.iter().find_map(Command::slot);
        let lane = node.lane(slot).cloned().ok_or_else(|| Error::closed(Executed::No))?;
        let left = deadline.saturating_duration_since(super::clock::now());
        match lane.request_unit(&unit, left).await {
            Outcome::Replies(replies) => match judge(core, &unit, replies, &node) {
                Verdict::Done(result) => return result,
                Verdict::Again => {
                    let changed = core.changed();
                    let _either = tokio::time::timeout(Duration::from_millis(20), changed).await;
                    if super::clock::now() >= deadline {
                        return Err(Error::closed(Executed::No));
                    }
                }
            },
            Outcome::Failed(failure) if retry::is_rerouted(core, &node, failure) => {}
            Outcome::Failed(failure) => return Err(failure::command(failure, &lane, timeout, core.config())),
            _ => return Err(Error::closed(Executed::Maybe)),
        }
    }
}

enum Verdict {
    Done(Result<Reply, Error>),
    /// Nothing ran, and it may go again as a whole.
    Again,
}

/// EXECABORT proves that nothing ran; the refusal that caused it says whether another try is worth it.
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
    match (exec.error(), refused) {
        (None, _) => Verdict::Done(Ok(exec)),
        (Some(_abort), Some((place, command, error))) => {
            if let Some(owner) = super::complaints::redirected(core, node, &error) {
                core.moved(owner.0, &owner.1);
                return Verdict::Again;
            }
            if retry::is_passing(core, &error) {
                return Verdict::Again;
            }
            // MULTI stands before the caller's first command.
            Verdict::Done(Err(Error::not_queued(error, command, place.saturating_sub(1), node.endpoint())))
        }
        (Some(error), None) => {
            let last = unit.last().cloned().unwrap_or_else(|| Command::new("EXEC"));
            Verdict::Done(Err(Error::server(error, &last, node.endpoint())))
        }
    }
}
