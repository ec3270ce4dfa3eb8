//! A Redis Cluster: primaries that share the slots, each with its replicas.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::cluster_view::{ClusterNode, parse};
use super::error::LaunchError;
use super::kind::ServerKind;
use super::node::{Nodes, Role, data_config};
use super::wait::until;

const SLOTS: u16 = 16_384;
/// A cluster of six forms in 2 to 3 s; nodes refuse to call it ok for the first two.
const FORM_LIMIT: Duration = Duration::from_secs(60);
/// Beside one and a half node timeouts: agreement, election, and a loaded machine.
const FAILOVER_LIMIT: Duration = Duration::from_secs(60);
/// Every node has heard from every other one: they ping each other at least once a second.
const GOSSIP: Duration = Duration::from_millis(1200);

/// Primaries with the slots that they serve.
type Served = Vec<(SocketAddr, Vec<RangeInclusive<u16>>)>;

/// How a cluster is started.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    primaries: u16,
    replicas_per_primary: u16,
    node_timeout: Duration,
    password: Option<String>,
    append_only: bool,
    config: Vec<String>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            primaries: 3,
            replicas_per_primary: 1,
            node_timeout: Duration::from_secs(2),
            password: None,
            append_only: false,
            config: Vec::new(),
        }
    }
}

impl ClusterOptions {
    /// Primaries; a failover needs a majority of them, so at least 3. Default: 3.
    #[must_use]
    pub fn primaries(mut self, primaries: u16) -> Self {
        self.primaries = primaries;
        self
    }

    /// Replicas of each primary. Default: 1.
    #[must_use]
    pub fn replicas_per_primary(mut self, replicas: u16) -> Self {
        self.replicas_per_primary = replicas;
        self
    }

    /// Time without an answer after which a node sees another as failing. Default: 2 s.
    ///
    /// A replica takes over after about one and a half of it plus 0.7 s. Below 1 s a loaded machine makes failovers of its own.
    #[must_use]
    pub fn node_timeout(mut self, node_timeout: Duration) -> Self {
        self.node_timeout = node_timeout;
        self
    }

    /// Password of all nodes. Default: none.
    #[must_use]
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Whether nodes keep their data through a restart. Default: no.
    #[must_use]
    pub fn append_only(mut self, append_only: bool) -> Self {
        self.append_only = append_only;
        self
    }

    /// Adds a line to the configuration of every node. Default: none.
    #[must_use]
    pub fn config(mut self, line: impl Into<String>) -> Self {
        self.config.push(line.into());
        self
    }
}

/// How a cluster failover is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClusterFailover {
    /// Without the primary's help: for a dead primary.
    Force,
    /// The primary pauses writes until the replica has them all: nothing is lost.
    Graceful,
    /// Without anybody's vote.
    Takeover,
}

/// A running cluster. Its nodes end with this guard.
#[derive(Debug)]
pub struct Cluster {
    pub(super) nodes: Nodes,
    pub(super) password: Option<String>,
}

impl Cluster {
    /// Starts the nodes, joins them, shares out the slots evenly, and waits until every node calls the cluster
    /// ok, all see the same owners, and every replica follows its primary.
    ///
    /// # Cancel safety
    ///
    /// Safe: what was started is ended.
    pub async fn start(kind: &ServerKind, options: ClusterOptions) -> Result<Self, LaunchError> {
        let mut nodes = Nodes::prepare(kind, "cluster")?;
        let password = options.password.as_deref();
        let all = options.primaries * (1 + options.replicas_per_primary);
        for _ in 0..all {
            nodes
                .start(Role::ClusterNode, password, |addr, folder| {
                    let mut config = data_config(addr, folder, password, options.append_only);
                    config.push("cluster-enabled yes".into());
                    config.push("cluster-config-file nodes.conf".into());
                    config.push(format!("cluster-node-timeout {}", options.node_timeout.as_millis()));
                    config.extend_from_slice(&options.config);
                    config
                })
                .await?;
        }
        let cluster = Self { nodes, password: options.password };
        cluster.join(usize::from(options.primaries)).await?;
        Ok(cluster)
    }

    async fn join(&self, primaries: usize) -> Result<(), LaunchError> {
        let addresses = self.addresses();
        for (n, addr) in addresses.iter().enumerate() {
            let mut control = self.nodes.control(*addr).await?;
            if n < primaries {
                let (first, last) = share(n, primaries);
                control.command(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]).await?;
            }
            // Different from the start, so that no two nodes have to settle a collision.
            control.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(n + 1).to_string()]).await?;
            for other in addresses.iter().take(n) {
                let (ip, port) = (other.ip().to_string(), other.port().to_string());
                control.command(&["CLUSTER", "MEET", &ip, &port]).await?;
            }
        }
        let known = |view: &[ClusterNode]| {
            view.len() == addresses.len() && view.iter().all(|node| node.is_primary() && node.is_linked)
        };
        until(FORM_LIMIT, "the cluster's nodes to know each other", || async {
            self.all_see(known).await.then_some(())
        })
        .await?;
        let view = self.view(self.any_running()?).await?;
        for (n, replica) in addresses.iter().enumerate().skip(primaries) {
            let primary = addresses.get(n % primaries);
            let primary = view.iter().find(|node| Some(&node.addr) == primary);
            let primary = primary.ok_or(LaunchError::UnknownNode { addr: *replica })?;
            self.nodes.command(*replica, &["CLUSTER", "REPLICATE", &primary.id]).await?;
        }
        self.wait_until_whole().await
    }

    /// Waits until every running node calls the cluster ok and sees all running nodes in order, with every replica following.
    ///
    /// For tests that killed or restarted nodes and want the cluster whole again.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn wait_until_whole(&self) -> Result<(), LaunchError> {
        until(FORM_LIMIT, "the cluster to be whole", || async { self.is_whole().await.then_some(()) }).await
    }

    async fn is_whole(&self) -> bool {
        let running = self.running();
        let mut owners = None;
        for addr in &running {
            let Ok(view) = self.view(*addr).await else { return false };
            let seen = |addr| view.iter().find(|node| node.addr == addr);
            let in_order = running.iter().all(|addr| {
                seen(*addr).is_some_and(|node| {
                    node.is_linked
                        && if node.slots.is_empty() { node.is_replica() } else { node.is_primary() }
                })
            });
            let mut served: Vec<_> = view
                .iter()
                .filter(|node| node.is_primary() && !node.slots.is_empty())
                .map(|node| (node.addr, node.slots.clone()))
                .collect();
            served.sort_by_key(|(addr, _)| *addr);
            let count: usize = served.iter().flat_map(|(_, slots)| slots).map(ExactSizeIterator::len).sum();
            if !in_order
                || count != usize::from(SLOTS)
                || *owners.get_or_insert_with(|| served.clone()) != served
                || !self.is_ready(*addr).await.unwrap_or(false)
            {
                return false;
            }
        }
        true
    }

    /// Returns whether the node calls the cluster ok and, if it is a replica, follows its primary.
    async fn is_ready(&self, addr: SocketAddr) -> Result<bool, LaunchError> {
        let mut control = self.nodes.control(addr).await?;
        let info = control.command(&["CLUSTER", "INFO"]).await?;
        if !info.text().is_some_and(|info| info.contains("cluster_state:ok")) {
            return Ok(false);
        }
        let role = control.command(&["ROLE"]).await?;
        Ok(match role.items() {
            [role, _, _, link, ..] if role.text() == Some("slave") => link.text() == Some("connected"),
            _ => true,
        })
    }

    /// Returns the addresses of all nodes, the first primaries first.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.addresses()
    }

    /// Returns the processes, to kill, stop or restart them.
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// Returns the cluster as one node sees it.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn view(&self, from: SocketAddr) -> Result<Vec<ClusterNode>, LaunchError> {
        let answer = self.nodes.command(from, &["CLUSTER", "NODES"]).await?;
        answer.text().and_then(parse).ok_or(LaunchError::Protocol { addr: from })
    }

    /// Returns the primary that serves a slot, as the first running node sees it.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn owner(&self, slot: u16) -> Result<ClusterNode, LaunchError> {
        let from = self.any_running()?;
        let owner = self.view(from).await?.into_iter().find(|node| node.is_primary() && node.serves(slot));
        owner.ok_or(LaunchError::UnknownNode { addr: from })
    }

    /// Returns the replicas of a primary, as the first running node sees them.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn replicas_of(&self, primary: SocketAddr) -> Result<Vec<ClusterNode>, LaunchError> {
        let mut view = self.view(self.any_running()?).await?;
        let id = view.iter().find(|node| node.addr == primary).map(|node| node.id.clone());
        let id = id.ok_or(LaunchError::UnknownNode { addr: primary })?;
        view.retain(|node| node.is_replica() && node.follows.as_ref() == Some(&id));
        Ok(view)
    }

    /// Asks a replica to take over from its primary and returns once it has begun.
    ///
    /// # Cancel safety
    ///
    /// A cancelled call may or may not have begun a failover.
    pub async fn failover(&self, replica: SocketAddr, how: ClusterFailover) -> Result<(), LaunchError> {
        let command: &[&str] = match how {
            ClusterFailover::Force => &["CLUSTER", "FAILOVER", "FORCE"],
            ClusterFailover::Graceful => &["CLUSTER", "FAILOVER"],
            ClusterFailover::Takeover => &["CLUSTER", "FAILOVER", "TAKEOVER"],
        };
        self.nodes.command(replica, command).await.map(|_ok| ())
    }

    /// Waits until every running node sees a slot served by `owner`.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn wait_for_owner(&self, slot: u16, owner: SocketAddr) -> Result<(), LaunchError> {
        let what = format!("all nodes to see slot {slot} at {owner}");
        let served = |node: &ClusterNode| node.addr == owner && node.is_primary() && node.serves(slot);
        until(FAILOVER_LIMIT, &what, || async {
            self.all_see(|view| view.iter().any(served)).await.then_some(())
        })
        .await
    }

    /// Waits until every running node sees a slot served by another node than `old`, the same one, and returns that.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn wait_for_new_owner(&self, slot: u16, old: SocketAddr) -> Result<SocketAddr, LaunchError> {
        let what = format!("all nodes to see slot {slot} elsewhere than at {old}");
        until(FAILOVER_LIMIT, &what, || async {
            let owner = self.owner(slot).await.ok()?.addr;
            let served = |node: &ClusterNode| node.addr == owner && node.is_primary() && node.serves(slot);
            (owner != old && self.all_see(|view| view.iter().any(served)).await).then_some(owner)
        })
        .await
    }

    /// Waits until every running node has had the same view of who serves which slots for longer than a round of gossip.
    ///
    /// Right behind a reshard some messages still tell of before. A replica that hears one while it is promoted may give up the
    /// slot that moved last, for good: all others name it as the owner, and it says that nobody is (seen with redis 7.0).
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn settle(&self) -> Result<(), LaunchError> {
        let what = "all nodes to agree on who serves which slots";
        let looking = async {
            let mut before = None;
            loop {
                let agreed = until(FAILOVER_LIMIT, what, || self.agreed()).await?;
                if before.replace(agreed.clone()) == Some(agreed) {
                    return Ok(());
                }
                tokio::time::sleep(GOSSIP).await;
            }
        };
        tokio::time::timeout(FAILOVER_LIMIT, looking).await.unwrap_or_else(|_late| {
            Err(LaunchError::Deadline { what: what.to_owned(), waited: FAILOVER_LIMIT })
        })
    }

    /// Who serves which slots, if all running nodes say the same.
    async fn agreed(&self) -> Option<Served> {
        let mut agreed = None;
        for addr in self.running() {
            let primaries = self.view(addr).await.ok()?.into_iter().filter(ClusterNode::is_primary);
            let mut served: Served = primaries.map(|node| (node.addr, node.slots)).collect();
            served.sort_by_key(|(addr, _)| *addr);
            if *agreed.get_or_insert_with(|| served.clone()) != served {
                return None;
            }
        }
        agreed
    }

    async fn all_see(&self, condition: impl Fn(&[ClusterNode]) -> bool) -> bool {
        for addr in self.running() {
            if !self.view(addr).await.is_ok_and(|view| condition(&view)) {
                return false;
            }
        }
        true
    }

    fn running(&self) -> Vec<SocketAddr> {
        self.addresses().into_iter().filter(|addr| self.nodes.is_running(*addr)).collect()
    }

    fn any_running(&self) -> Result<SocketAddr, LaunchError> {
        self.running().first().copied().ok_or(LaunchError::NoneRuns { what: "node" })
    }
}

/// Returns the first and last slot of primary `n` of `primaries`.
fn share(n: usize, primaries: usize) -> (usize, usize) {
    let slots = usize::from(SLOTS);
    (slots * n / primaries, slots * (n + 1) / primaries - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_every_slot_once() {
        for primaries in 1..=7 {
            let mut next = 0;
            for n in 0..primaries {
                let (first, last) = share(n, primaries);
                assert_eq!(first, next);
                next = last + 1;
            }
            assert_eq!(next, usize::from(SLOTS));
        }
    }
}
