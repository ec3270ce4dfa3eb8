//! A scan of everything: node after node, until every slot was seen whole.
//!
//! A server's cursor means something to that process alone, and a key that changes its node between two looks can be
//! missed. So a pass over a node counts for those slots only that it had, and kept, from the pass's begin to its end, in one
//! process; a slot that was leaving meanwhile is seen whole once its target was passed over afterwards.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use evenkeel_protocol::{Command, Endpoint, Slot};

use super::{Core, clock, node::Node, spread};
use crate::error::{Error, Executed, Phase};

const SLOTS: usize = 16_384;

/// Between passes that bring nothing: slots are on their way, or nobody owns them.
const PAUSE: Duration = Duration::from_millis(20);

/// A set of slots.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Slots(Vec<bool>);

impl Slots {
    fn none() -> Self {
        Self(vec![false; SLOTS])
    }

    fn has(&self, slot: usize) -> bool {
        self.0.get(slot).copied().unwrap_or(false)
    }

    fn add(&mut self, slot: usize) {
        if let Some(slot) = self.0.get_mut(slot) {
            *slot = true;
        }
    }

    /// Adds those for which `of` is true; gives whether one is new.
    fn add_where(&mut self, of: impl Fn(usize) -> bool) -> bool {
        let mut any = false;
        for (slot, known) in self.0.iter_mut().enumerate() {
            if !*known && of(slot) {
                *known = true;
                any = true;
            }
        }
        any
    }

    fn first_missing(&self) -> Option<usize> {
        self.0.iter().position(|known| !known)
    }
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Own {
    /// The process: another one has other cursors.
    run_id: String,
    /// Slots that it serves and that go nowhere.
    stable: Slots,
    /// Slots that it serves and gives away, and to whom.
    leaving: BTreeMap<usize, Option<Endpoint>>,
    /// Slots that come to it.
    coming: Slots,
}

impl Own {
    /// A server that is no part of a cluster has everything.
    fn of_single(info: &str) -> Self {
        let mut stable = Slots::none();
        stable.add_where(|_| true);
        Self { run_id: run_id(info), stable, leaving: BTreeMap::new(), coming: Slots::none() }
    }

    /// Reads its own line of `CLUSTER NODES`.
    fn of_member(info: &str, nodes: &str) -> Self {
        let mut own = Self {
            run_id: run_id(info),
            stable: Slots::none(),
            leaving: BTreeMap::new(),
            coming: Slots::none(),
        };
        let mut addresses: BTreeMap<&str, Endpoint> = BTreeMap::new();
        let mut mine = "";
        for line in nodes.lines() {
            let mut words = line.split(' ');
            let (id, address, flags) = (words.next(), words.next(), words.next());
            if let (Some(id), Some(endpoint)) = (id, address.and_then(endpoint)) {
                addresses.insert(id, endpoint);
            }
            if flags.is_some_and(|flags| flags.split(',').any(|flag| flag == "myself")) {
                mine = line;
            }
        }
        for word in mine.split(' ').skip(8) {
            if let Some(moving) = word.strip_prefix('[').and_then(|word| word.strip_suffix(']')) {
                if let Some((slot, target)) = moving.split_once("->-") {
                    if let Ok(slot) = slot.parse() {
                        own.leaving.insert(slot, addresses.get(target).cloned());
                    }
                } else if let Some((slot, _)) = moving.split_once("-<-")
                    && let Ok(slot) = slot.parse()
                {
                    own.coming.add(slot);
                }
                continue;
            }
            let (first, last) = word.split_once('-').unwrap_or((word, word));
            if let (Ok(first), Ok(last)) = (first.parse::<usize>(), last.parse::<usize>()) {
                (first..=last.min(SLOTS - 1)).for_each(|slot| own.stable.add(slot));
            }
        }
        for slot in own.leaving.keys() {
            if let Some(known) = own.stable.0.get_mut(*slot) {
                *known = false;
            }
        }
        own
    }

    fn serves(&self, slot: usize) -> bool {
        self.stable.has(slot) || self.leaving.contains_key(&slot)
    }

    fn holds(&self, slot: usize) -> bool {
        self.serves(slot) || self.coming.has(slot)
    }
}

fn run_id(info: &str) -> String {
    let line = info.lines().find_map(|line| line.strip_prefix("run_id:"));
    line.unwrap_or_default().trim().to_owned()
}

/// `ip:port@bus,hostname`; the name counts where there is no address.
fn endpoint(address: &str) -> Option<Endpoint> {
    let (place, rest) = address.split_once('@')?;
    let (host, port) = place.rsplit_once(':')?;
    let port = port.parse().ok()?;
    let host = if host.is_empty() { rest.split(',').nth(1)? } else { host };
    Some(Endpoint::new(host, port))
}

/// What has been seen whole.
#[derive(Debug)]
struct Seen {
    whole: Slots,
    /// A pass over the node that served it is over: what it gave away since is at its target.
    at_source: Slots,
    targets: BTreeMap<usize, Endpoint>,
}

impl Seen {
    fn nothing() -> Self {
        Self { whole: Slots::none(), at_source: Slots::none(), targets: BTreeMap::new() }
    }

    /// A pass from `begin` to `end` is over; `before` is what had been seen at its source when it began. Gives whether it
    /// brought something.
    fn passed(&mut self, begin: &Own, end: &Own, before: &Slots) -> bool {
        if begin.run_id != end.run_id {
            return false;
        }
        let news = self.whole.add_where(|slot| {
            (begin.stable.has(slot) && end.stable.has(slot))
                || (before.has(slot) && begin.holds(slot) && end.holds(slot))
        });
        for (slot, target) in begin.leaving.iter().chain(&end.leaving) {
            if let Some(target) = target {
                self.targets.insert(*slot, target.clone());
            }
        }
        self.at_source.add_where(|slot| begin.serves(slot)) || news
    }
}

/// A pass under way.
struct Pass {
    node: Arc<Node>,
    begin: Own,
    before: Slots,
    cursor: Bytes,
}

/// A scan under way.
pub(crate) struct Scanning {
    core: Arc<Core>,
    /// Arguments behind the cursor.
    options: Vec<Bytes>,
    seen: Seen,
    pass: Option<Pass>,
    /// Without any progress since.
    stuck_since: Option<Instant>,
    is_over: bool,
}

impl Scanning {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self {
            core,
            options: Vec::new(),
            seen: Seen::nothing(),
            pass: None,
            stuck_since: None,
            is_over: false,
        }
    }

    pub(crate) fn option(&mut self, name: &'static str, value: Bytes) {
        self.options.extend([Bytes::from_static(name.as_bytes()), value]);
    }

    /// The next keys; `None` when everything was seen.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Bytes>>, Error> {
        while !self.is_over {
            let step = match self.pass.take() {
                None => self.begin().await,
                Some(pass) => self.step(pass).await,
            };
            match step {
                Ok(Some(keys)) if keys.is_empty() => {}
                Ok(Some(keys)) => return Ok(Some(keys)),
                Ok(None) => self.pause(None).await?,
                Err(error) => self.pause(Some(error)).await?,
            }
        }
        Ok(None)
    }

    /// The node was lost, or slots are on their way: another pass, for as long as a command may take.
    async fn pause(&mut self, error: Option<Error>) -> Result<(), Error> {
        // What the server itself refuses, it will refuse again.
        let error = match error {
            Some(error) if error.server_code().is_some_and(|code| !is_passing(code)) => return Err(error),
            other => other,
        };
        let now = clock::now();
        let patience = self.core.config().command_timeout();
        let since = *self.stuck_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= patience {
            let late = || Error::timeout(Phase::Topology, patience, None, Executed::No);
            return Err(error.unwrap_or_else(late));
        }
        let changed = self.core.changed();
        let _either = tokio::time::timeout(PAUSE, changed).await;
        Ok(())
    }

    async fn begin(&mut self) -> Result<Option<Vec<Bytes>>, Error> {
        let Some(slot) = self.seen.whole.first_missing() else {
            self.is_over = true;
            return Ok(Some(Vec::new()));
        };
        let Some(node) = self.node_of(slot) else { return Ok(None) };
        let begin = self.own(&node).await?;
        if !begin.holds(slot) {
            // The map is behind, or ahead.
            self.core.verify_topology();
            return Ok(None);
        }
        let before = self.seen.at_source.clone();
        self.pass = Some(Pass { node, begin, before, cursor: Bytes::from_static(b"0") });
        Ok(Some(Vec::new()))
    }

    fn node_of(&self, slot: usize) -> Option<Arc<Node>> {
        let routes = self.core.routes();
        if !routes.is_cluster() {
            return routes.all().into_iter().next();
        }
        let target = self.seen.targets.get(&slot).filter(|_| self.seen.at_source.has(slot));
        if let Some(target) = target {
            return self.core.node_at(target);
        }
        let slot = u16::try_from(slot).ok().and_then(Slot::new)?;
        routes.owner(slot).cloned()
    }

    async fn step(&mut self, mut pass: Pass) -> Result<Option<Vec<Bytes>>, Error> {
        let mut command = Command::new("SCAN").arg(&pass.cursor);
        for option in &self.options {
            command = command.arg(option);
        }
        let timeout = self.core.config().command_timeout();
        let reply = spread::on_node(&self.core, &pass.node, &command, timeout).await?;
        let (cursor, mut keys): (Bytes, Vec<Bytes>) =
            reply.decode().map_err(|cause| Error::decode(cause, crate::error::CommandName::of(&command)))?;
        // What other passes gave already need not come twice.
        keys.retain(|key| !self.seen.whole.has(usize::from(Slot::of(key).number())));
        if cursor.as_ref() == b"0" {
            let end = self.own(&pass.node).await?;
            if self.seen.passed(&pass.begin, &end, &pass.before) {
                self.stuck_since = None;
            }
        } else {
            pass.cursor = cursor;
            self.pass = Some(pass);
        }
        Ok(Some(keys))
    }

    async fn own(&self, node: &Arc<Node>) -> Result<Own, Error> {
        let timeout = self.core.config().command_timeout();
        let ask = async |command: Command| -> Result<String, Error> {
            let reply = spread::on_node(&self.core, node, &command, timeout).await?;
            let name = crate::error::CommandName::of(&command);
            reply.decode().map_err(|cause| Error::decode(cause, name))
        };
        let info = ask(Command::new("INFO").arg("server")).await?;
        if !self.core.routes().is_cluster() {
            return Ok(Own::of_single(&info));
        }
        let nodes = ask(Command::new("CLUSTER").arg("NODES")).await?;
        Ok(Own::of_member(&info, &nodes))
    }
}

fn is_passing(code: &str) -> bool {
    matches!(code, "CLUSTERDOWN" | "LOADING" | "MASTERDOWN" | "READONLY" | "REDIRECT" | "UNBLOCKED")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHERS: &str = "bb 127.0.0.1:7002@17002,host-b master - 0 0 2 connected 9-16383\n";

    fn own(run: &str, slots: &str) -> Own {
        let nodes = format!("{OTHERS}aa 127.0.0.1:7001@17001 myself,master - 0 0 1 connected {slots}\n");
        Own::of_member(&format!("# Server\r\nrun_id:{run}\r\n"), &nodes)
    }

    fn after(passes: &[(&str, &str, &str, &str)]) -> Vec<usize> {
        let mut seen = Seen::nothing();
        for (run, begin, end_run, end) in passes {
            let before = seen.at_source.clone();
            seen.passed(&own(run, begin), &own(end_run, end), &before);
        }
        (0..SLOTS).filter(|slot| seen.whole.has(*slot)).collect()
    }

    #[test]
    fn a_pass_counts_for_what_stayed_in_one_process() {
        assert_eq!(after(&[("r", "0-3", "r", "0-3")]), [0, 1, 2, 3]);
        assert_eq!(after(&[("r", "0-3", "r", "0-1 3")]), [0, 1, 3]);
        assert_eq!(after(&[("r", "0-3", "other", "0-3")]), [0; 0]);
        // What came in the middle may have come with keys behind the cursor.
        assert_eq!(after(&[("r", "0-1", "r", "0-3")]), [0, 1]);
    }

    #[test]
    fn what_leaves_is_seen_whole_behind_its_target() {
        let source = ("r", "0-3 [2->-bb]", "r", "0-3 [2->-bb]");
        assert_eq!(after(&[source]), [0, 1, 3]);
        assert_eq!(after(&[source, ("t", "[2-<-aa]", "t", "[2-<-aa]")]), [0, 1, 2, 3]);
        assert_eq!(after(&[source, ("t", "[2-<-aa]", "t", "2")]), [0, 1, 2, 3]);
        // The target before the source proves nothing.
        assert_eq!(after(&[("t", "[2-<-aa]", "t", "[2-<-aa]"), source]), [0, 1, 3]);
        let leaving = own("r", "0-3 [2->-bb]").leaving;
        assert_eq!(leaving.get(&2), Some(&Some("127.0.0.1:7002".parse().unwrap())));
    }
}
