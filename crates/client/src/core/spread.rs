//! Commands of a cluster that concern several slots or several nodes: taken apart, sent at the same time, put together.
//!
//! Which ones and how is the servers' own word (`request_policy` and `response_policy` of the command table).

mod gather;

use std::{collections::BTreeMap, pin::Pin, sync::Arc, time::Duration};

use evenkeel_pool::Outcome;
use evenkeel_protocol::{
    Command, Endpoint, Reply, Slot,
    command::{Request, Response, Spec},
};
use evenkeel_topology::Health;

use super::{CallOptions, Core, failure, node::Node, retry, route::Routes};
use crate::error::{Error, Executed};

/// Parts of a command on their way, and their replies in order.
type Parts = Vec<Pin<Box<dyn Future<Output = Result<Reply, Error>> + Send>>>;

/// How a command is spread over a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spread {
    /// A part for each slot of its keys.
    BySlot,
    /// The same on every node, replicas included, or on every primary.
    Everywhere { replicas: bool },
}

/// How this command is spread; `None` when one node runs it.
///
/// # Errors
/// Keys of different slots in a command that only one node could run: it was not sent.
pub(super) fn spread(routes: &Routes, command: &Command) -> Result<Option<Spread>, Error> {
    if !routes.is_cluster() {
        return Ok(None);
    }
    let Some(spec) = command.spec() else { return Ok(None) };
    let (first, last, _) = spec.keys();
    if first == 0 && !spec.has_movable_keys() {
        return Ok(everywhere(spec));
    }
    // Nearly every command has one key and is done here.
    if first == last && !spec.has_movable_keys() {
        return Ok(None);
    }
    let Some((one, other)) = two_slots(command) else { return Ok(None) };
    // Of these the keys are all that there is; a part of any other could say something else than the whole.
    if matches!(spec.name(), "DEL" | "EXISTS" | "MGET" | "MSET" | "TOUCH" | "UNLINK") {
        return Ok(Some(Spread::BySlot));
    }
    Err(Error::cross_slot(command, &one, &other))
}

fn everywhere(spec: &Spec) -> Option<Spread> {
    if !gather::can_join(spec) || spec.is_blocking() {
        return None;
    }
    match spec.request() {
        Request::AllNodes => Some(Spread::Everywhere { replicas: true }),
        Request::AllShards => Some(Spread::Everywhere { replicas: false }),
        _ => None,
    }
}

/// Two keys of one command that have different slots.
fn two_slots(command: &Command) -> Option<(Vec<u8>, Vec<u8>)> {
    let keys = command.keys();
    let (first, rest) = keys.split_first()?;
    let slot = Slot::of(first);
    let other = rest.iter().find(|key| Slot::of(key) != slot)?;
    Some((first.to_vec(), other.to_vec()))
}

/// Fails when commands that must run on one node have keys of different slots.
pub(super) fn one_slot<'a>(
    routes: &Routes,
    commands: impl IntoIterator<Item = &'a Command>,
) -> Result<(), Error> {
    if !routes.is_cluster() {
        return Ok(());
    }
    let mut known: Option<(Slot, Vec<u8>)> = None;
    for command in commands {
        for key in command.keys() {
            let slot = Slot::of(key);
            match &known {
                None => known = Some((slot, key.to_vec())),
                Some((first, one)) if *first != slot => return Err(Error::cross_slot(command, one, key)),
                Some(_) => {}
            }
        }
    }
    Ok(())
}

/// Sends the parts of a command at the same time, and puts their replies together.
pub(super) async fn send(
    core: Arc<Core>,
    command: Command,
    options: CallOptions,
    spread: Spread,
) -> Result<Reply, Error> {
    let Some(spec) = command.spec() else { return Err(Error::closed(Executed::No)) };
    match spread {
        Spread::BySlot => {
            let (parts, places) = by_slot(&command, spec);
            let sending: Parts = parts
                .into_iter()
                .map(|part| -> Pin<Box<dyn Future<Output = _> + Send>> {
                    let core = Arc::clone(&core);
                    Box::pin(async move { core.send(part, options).await })
                })
                .collect();
            let replies = super::batch::join(sending).await;
            match spec.response() {
                Response::Default => gather::in_order(&places, command.keys().len(), replies),
                _ => gather::joined(spec, replies),
            }
        }
        Spread::Everywhere { replicas } => {
            let timeout = options.timeout.unwrap_or_else(|| core.config().command_timeout());
            let nodes = nodes(&core, replicas);
            if nodes.is_empty() {
                return retry::unrouted(core, command, timeout).await;
            }
            let sending: Parts = nodes
                .into_iter()
                .map(|(node, must)| -> Pin<Box<dyn Future<Output = _> + Send>> {
                    let (core, command) = (Arc::clone(&core), command.clone());
                    Box::pin(async move {
                        match on_node(&core, &node, &command, timeout).await {
                            // A replica that was lost meanwhile learns what its primary knows when it is back.
                            Err(error) if !must && error.server_code().is_none() => {
                                Ok(Reply::new(gather::NOTHING))
                            }
                            result => result,
                        }
                    })
                })
                .collect();
            let mut replies = super::batch::join(sending).await;
            replies.retain(|reply| !matches!(reply, Ok(reply) if reply.as_bytes().is_empty()));
            gather::joined(spec, replies)
        }
    }
}

/// The parts of a command by slot, in the order of the first key of each, and the keys' places in each part.
fn by_slot(command: &Command, spec: &'static Spec) -> (Vec<Command>, Vec<Vec<usize>>) {
    let step = usize::try_from(spec.keys().2).unwrap_or(1).max(1);
    let args: Vec<&[u8]> = command.args().collect();
    let mut index: BTreeMap<Slot, usize> = BTreeMap::new();
    let (mut parts, mut places): (Vec<Command>, Vec<Vec<usize>>) = (Vec::new(), Vec::new());
    for (place, arguments) in args.get(1..).unwrap_or_default().chunks(step).enumerate() {
        let [key, values @ ..] = arguments else { continue };
        let at = *index.entry(Slot::of(key)).or_insert_with(|| {
            parts.push(Command::new(spec.name()));
            places.push(Vec::new());
            parts.len() - 1
        });
        if let (Some(part), Some(known)) = (parts.get_mut(at), places.get_mut(at)) {
            let mut longer = std::mem::replace(part, Command::new("")).key(*key);
            for value in values {
                longer = longer.arg(*value);
            }
            *part = longer;
            known.push(place);
        }
    }
    if command.may_run_twice() {
        parts = parts.into_iter().map(Command::idempotent).collect();
    }
    (parts, places)
}

/// Every primary, and every replica in order if so; with whether it must answer.
fn nodes(core: &Arc<Core>, replicas: bool) -> Vec<(Arc<Node>, bool)> {
    let topology = core.reader().load();
    let primaries: Vec<&Endpoint> = topology.primaries().map(|node| &node.endpoint).collect();
    let mut nodes: Vec<_> =
        primaries.iter().filter_map(|endpoint| core.node_at(endpoint).map(|node| (node, true))).collect();
    if replicas {
        let known =
            topology.nodes().iter().filter(|node| matches!(node.health, Health::Online | Health::Unknown));
        let others = known.filter(|node| !primaries.contains(&&node.endpoint));
        nodes.extend(
            others.filter_map(|node| core.reads().node(core, &node.endpoint).map(|node| (node, false))),
        );
    }
    nodes
}

/// Sends to this node and no other.
pub(super) async fn on_node(
    core: &Arc<Core>,
    node: &Node,
    command: &Command,
    timeout: Duration,
) -> Result<Reply, Error> {
    let Some(lane) = node.lane(None) else { return Err(Error::closed(Executed::No)) };
    let mut call = lane.call(timeout);
    loop {
        let unit = std::slice::from_ref(command);
        return match std::future::poll_fn(|cx| call.poll_unit(unit, cx)).await {
            Outcome::MayResend => continue,
            Outcome::Reply(reply) => match reply.error() {
                None => Ok(reply),
                Some(error) => Err(Error::server(error, command, node.endpoint())),
            },
            Outcome::Failed(failure) => Err(failure::command(failure, lane, timeout, core.config())),
            _ => Err(Error::closed(Executed::Maybe)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(command: &Command) -> Vec<String> {
        command.args().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect()
    }

    #[test]
    fn parts_keep_the_order_of_their_keys_and_know_their_places() {
        let command = Command::new("MSET").arg("{a}1").arg(1).arg("{b}1").arg(2).arg("{a}2").arg(3);
        let (parts, places) = by_slot(&command, command.spec().unwrap());
        let parts: Vec<_> = parts.iter().map(shown).collect();
        assert_eq!(parts[0], ["MSET", "{a}1", "1", "{a}2", "3"]);
        assert_eq!(parts[1], ["MSET", "{b}1", "2"]);
        assert_eq!(places, [vec![0, 2], vec![1]]);
    }

    #[test]
    fn keys_of_one_slot_stay_together_and_others_are_named() {
        let command = |name: &str, keys: [&str; 2]| Command::new(name).arg(keys[0]).arg(keys[1]);
        assert_eq!(two_slots(&command("MGET", ["{x}1", "{x}2"])), None);
        assert_eq!(two_slots(&command("RENAME", ["a", "b"])), Some((b"a".to_vec(), b"b".to_vec())));
        let error = Error::cross_slot(&command("RENAME", ["a", "b"]), b"a", b"b");
        let words = error.to_string();
        assert!(words.contains("RENAME") && words.contains("\"a\"") && words.contains("\"b\""), "{words}");
        assert_eq!(error.executed(), Executed::No);
    }
}
