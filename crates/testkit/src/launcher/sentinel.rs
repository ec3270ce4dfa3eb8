//! Three sentinels that watch a primary and its replicas.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use super::error::LaunchError;
use super::kind::ServerKind;
use super::node::{Nodes, Role, data_config, quoted};
use super::wait::until;
use super::wire::Reply;

const SENTINELS: u16 = 3;
const QUORUM: u16 = 2;
/// A trio forms within 2 s with the quickened hellos; a loaded machine gets more.
const FORM_LIMIT: Duration = Duration::from_secs(60);
/// Beside the time that sentinels need to see a primary as down: election, promotion, and the leader's wait.
const FAILOVER_LIMIT: Duration = Duration::from_secs(60);
/// Periods while the trio forms, in milliseconds, and those that the sentinels start with and get back, so that failovers take
/// the time that they take elsewhere.
const QUICK: [(&str, &str); 2] = [("publish-period", "100"), ("info-period", "100")];
const USUAL: [(&str, &str); 2] = [("publish-period", "2000"), ("info-period", "10000")];
/// A sentinel that has just changed its primary has the first answer to a PING one period later. Where that is as long as
/// down-after (half a second, a second), it takes a sound primary for down, and others agree: one failover begets the next.
const PINGS_IN_DOWN_AFTER: u32 = 2;
const PING_PERIOD_MAX: Duration = Duration::from_secs(1);

/// How a Sentinel trio is started.
#[derive(Clone, Debug)]
pub struct SentinelOptions {
    name: String,
    replicas: u16,
    down_after: Duration,
    failover_timeout: Duration,
    password: Option<String>,
    sentinel_password: Option<String>,
    append_only: bool,
}

impl Default for SentinelOptions {
    fn default() -> Self {
        Self {
            name: "mymaster".into(),
            replicas: 2,
            down_after: Duration::from_secs(2),
            failover_timeout: Duration::from_secs(6),
            password: None,
            sentinel_password: None,
            append_only: false,
        }
    }
}

impl SentinelOptions {
    /// Name under which the sentinels know the primary. Default: `mymaster`.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Replicas of the primary. Default: 2.
    #[must_use]
    pub fn replicas(mut self, replicas: u16) -> Self {
        self.replicas = replicas;
        self
    }

    /// Time without an answer after which a sentinel sees the primary as down. Default: 2 s.
    ///
    /// 500 ms makes failovers quicker; a loaded machine then makes some of its own. The sentinels' own pings go out at least
    /// twice in it: once in it, and a promoted primary is taken for down again and a second failover follows.
    #[must_use]
    pub fn down_after(mut self, down_after: Duration) -> Self {
        self.down_after = down_after;
        self
    }

    /// Time in which a failover must end, and before the next one is tried. Default: 6 s.
    #[must_use]
    pub fn failover_timeout(mut self, failover_timeout: Duration) -> Self {
        self.failover_timeout = failover_timeout;
        self
    }

    /// Password of the data nodes. Default: none.
    #[must_use]
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Password of the sentinels. Default: none.
    #[must_use]
    pub fn sentinel_password(mut self, password: impl Into<String>) -> Self {
        self.sentinel_password = Some(password.into());
        self
    }

    /// Whether data nodes keep their data through a restart. Default: no.
    #[must_use]
    pub fn append_only(mut self, append_only: bool) -> Self {
        self.append_only = append_only;
        self
    }
}

/// How a failover is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SentinelFailover {
    /// `SENTINEL FAILOVER name COORDINATED`: the old primary hands over; only where the server has
    /// [`Feature::CoordinatedFailover`](super::Feature::CoordinatedFailover).
    Coordinated,
    /// `SENTINEL FAILOVER name`: the old primary goes on as a second one for some seconds, and what is written to
    /// it meanwhile is lost.
    Plain,
}

/// Three running sentinels, a primary and its replicas. They end with this guard.
#[derive(Debug)]
pub struct SentinelTrio {
    nodes: Nodes,
    name: String,
    replicas: usize,
    down_after: Duration,
}

impl SentinelTrio {
    /// Starts the processes and waits until every sentinel knows the others and every replica, and the replicas follow.
    ///
    /// # Cancel safety
    ///
    /// Safe: what was started is ended.
    pub async fn start(kind: &ServerKind, options: SentinelOptions) -> Result<Self, LaunchError> {
        let mut nodes = Nodes::prepare(kind, "sentinel")?;
        let password = options.password.as_deref();
        let data = |addr: SocketAddr, folder: &Path| {
            let mut config = data_config(addr, folder, password, options.append_only);
            // A primary that is stopped for a moment must find its replicas again by a partial resync.
            config.push("repl-timeout 10".into());
            config
        };
        let primary = nodes.start(Role::Data, password, data).await?;
        for _ in 0..options.replicas {
            nodes
                .start(Role::Data, password, |addr, folder| {
                    let mut config = data(addr, folder);
                    config.push(format!("replicaof 127.0.0.1 {}", primary.port()));
                    config
                })
                .await?;
        }
        for _ in 0..SENTINELS {
            nodes
                .start(Role::Sentinel, options.sentinel_password.as_deref(), |addr, folder| {
                    sentinel_config(&options, addr, folder, primary)
                })
                .await?;
        }
        let trio = Self {
            nodes,
            replicas: usize::from(options.replicas),
            name: options.name,
            down_after: options.down_after,
        };
        trio.set_periods(&QUICK).await?;
        trio.wait_until_formed().await?;
        trio.set_periods(&USUAL).await?;
        let ping =
            (trio.down_after / PINGS_IN_DOWN_AFTER).min(PING_PERIOD_MAX).as_millis().max(1).to_string();
        trio.set_periods(&[("ping-period", &ping)]).await?;
        trio.wait_until_replicating(primary).await?;
        Ok(trio)
    }

    /// A replica that has loaded its primary's data gets nothing more until it has said so, up to a second later: a failover
    /// before that loses what was written meanwhile, whoever wrote it.
    async fn wait_until_replicating(&self, primary: SocketAddr) -> Result<(), LaunchError> {
        let replicas = self.replicas.to_string();
        until(FORM_LIMIT, "the replicas to follow the primary's stream", || async {
            // Something must be in the stream for a replica to have it; a message to nobody leaves nothing behind.
            let mut control = self.nodes.control(primary).await.ok()?;
            control.command(&["PUBLISH", "launcher:formed", ""]).await.ok()?;
            let reply = control.command(&["WAIT", &replicas, "100"]).await.ok()?;
            (reply.integer()? >= i64::try_from(self.replicas).ok()?).then_some(())
        })
        .await
    }

    async fn set_periods(&self, periods: &[(&str, &str)]) -> Result<(), LaunchError> {
        for sentinel in self.sentinels() {
            for (period, milliseconds) in periods {
                self.nodes.command(sentinel, &["SENTINEL", "DEBUG", period, milliseconds]).await?;
            }
        }
        Ok(())
    }

    /// Waits until every running sentinel knows the two others and every replica, and sees none of them as down.
    ///
    /// For tests that killed or restarted nodes and want the trio whole again.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn wait_until_formed(&self) -> Result<(), LaunchError> {
        until(FORM_LIMIT, "the sentinels to know each other and the replicas", || async {
            for sentinel in self.sentinels() {
                if self.nodes.is_running(sentinel) && !self.is_formed(sentinel).await.unwrap_or(false) {
                    return None;
                }
            }
            Some(())
        })
        .await
    }

    async fn is_formed(&self, sentinel: SocketAddr) -> Result<bool, LaunchError> {
        let mut control = self.nodes.control(sentinel).await?;
        let primary = control.command(&["SENTINEL", "MASTER", &self.name]).await?;
        let fields = pairs(&primary);
        let number = |key| fields.iter().find(|(k, _)| *k == key).and_then(|(_, v)| v.parse::<usize>().ok());
        if number("num-slaves") != Some(self.replicas)
            || number("num-other-sentinels") != Some(usize::from(SENTINELS) - 1)
        {
            return Ok(false);
        }
        let replicas = control.command(&["SENTINEL", "REPLICAS", &self.name]).await?;
        Ok(replicas.items().iter().all(|replica| {
            let fields = pairs(replica);
            let is = |key, value| fields.contains(&(key, value));
            is("flags", "slave") && is("master-link-status", "ok")
        }))
    }

    /// Returns the name under which the sentinels know the primary.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the addresses of the sentinels.
    pub fn sentinels(&self) -> Vec<SocketAddr> {
        self.nodes.with_role(Role::Sentinel)
    }

    /// Returns the addresses of the data nodes, whatever they are at the moment.
    pub fn data_nodes(&self) -> Vec<SocketAddr> {
        self.nodes.with_role(Role::Data)
    }

    /// Returns the processes, to kill, stop or restart them.
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// Returns the primary that every running sentinel names, that none of them is about to replace, and whose own ROLE says
    /// that it is one; waits until they agree.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn primary(&self) -> Result<SocketAddr, LaunchError> {
        until(FAILOVER_LIMIT + self.down_after, "the sentinels to name one primary", || self.agreed_primary())
            .await
    }

    /// Waits until every running sentinel names another primary than `old` and that one's own ROLE says so.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn wait_for_new_primary(&self, old: SocketAddr) -> Result<SocketAddr, LaunchError> {
        until(FAILOVER_LIMIT + self.down_after, "the sentinels to name another primary", || async {
            self.agreed_primary().await.filter(|primary| *primary != old)
        })
        .await
    }

    async fn agreed_primary(&self) -> Option<SocketAddr> {
        let mut agreed = None;
        for sentinel in self.sentinels() {
            if !self.nodes.is_running(sentinel) {
                continue;
            }
            let named = self.primary_named_by(sentinel).await.ok()??;
            if self.is_replaced_by(sentinel, named).await.ok()? {
                return None;
            }
            if agreed.is_some_and(|other| other != named) {
                return None;
            }
            agreed = Some(named);
        }
        let primary = agreed?;
        self.is_primary(primary).await.then_some(primary)
    }

    /// Returns the primary that one sentinel names at the moment.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn primary_named_by(&self, sentinel: SocketAddr) -> Result<Option<SocketAddr>, LaunchError> {
        let answer =
            self.nodes.command(sentinel, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", &self.name]).await?;
        let [ip, port] = answer.items() else { return Ok(None) };
        let ip = ip.text().and_then(|ip| ip.parse::<IpAddr>().ok());
        let port = port.text().and_then(|port| port.parse::<u16>().ok());
        Ok(ip.zip(port).map(SocketAddr::from))
    }

    /// Whether a sentinel sees the primary that it names as down, or leads a failover that has not promoted another yet.
    async fn is_replaced_by(&self, sentinel: SocketAddr, named: SocketAddr) -> Result<bool, LaunchError> {
        let primary = self.nodes.command(sentinel, &["SENTINEL", "MASTER", &self.name]).await?;
        let fields = pairs(&primary);
        let field = |key| fields.iter().find(|(k, _)| *k == key).map_or("", |(_, value)| *value);
        let flags: Vec<&str> = field("flags").split(',').collect();
        // Until its failover has ended, the leader describes the old primary and names the new one.
        let describes_it = field("port").parse() == Ok(named.port());
        Ok(describes_it && (flags.contains(&"o_down") || flags.contains(&"failover_in_progress")))
    }

    /// Returns whether the node's own ROLE says that it is a primary.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn is_primary(&self, node: SocketAddr) -> bool {
        let role = self.nodes.command(node, &["ROLE"]).await;
        role.is_ok_and(|role| role.items().first().and_then(Reply::text) == Some("master"))
    }

    /// Asks the first running sentinel for a failover and returns once it has begun.
    ///
    /// # Errors
    ///
    /// [`LaunchError::Refused`] when a failover runs already, when no replica is good enough, and for
    /// [`Coordinated`](SentinelFailover::Coordinated) where the server does not have it.
    ///
    /// # Cancel safety
    ///
    /// A cancelled call may or may not have begun a failover.
    pub async fn failover(&self, how: SentinelFailover) -> Result<(), LaunchError> {
        let mut command = vec!["SENTINEL", "FAILOVER", &self.name];
        if how == SentinelFailover::Coordinated {
            command.push("COORDINATED");
        }
        let sentinel = self.sentinels().into_iter().find(|sentinel| self.nodes.is_running(*sentinel));
        let sentinel = sentinel.ok_or(LaunchError::NoneRuns { what: "sentinel" })?;
        self.nodes.command(sentinel, &command).await.map(|_ok| ())
    }
}

fn sentinel_config(
    options: &SentinelOptions,
    addr: SocketAddr,
    folder: &Path,
    primary: SocketAddr,
) -> Vec<String> {
    let name = &options.name;
    let mut config = vec![
        format!("port {}", addr.port()),
        "bind 127.0.0.1".into(),
        format!("dir {}", quoted(&folder.to_string_lossy())),
        format!("sentinel monitor {name} 127.0.0.1 {} {QUORUM}", primary.port()),
        format!("sentinel down-after-milliseconds {name} {}", options.down_after.as_millis()),
        format!("sentinel failover-timeout {name} {}", options.failover_timeout.as_millis()),
        format!("sentinel parallel-syncs {name} 1"),
    ];
    if let Some(password) = options.password.as_deref().map(quoted) {
        config.push(format!("sentinel auth-pass {name} {password}"));
    }
    if let Some(password) = options.sentinel_password.as_deref().map(quoted) {
        config.push(format!("requirepass {password}"));
        config.push(format!("sentinel sentinel-pass {password}"));
    }
    config
}

/// Reads a RESP2 map: a flat list of keys and values.
fn pairs(reply: &Reply) -> Vec<(&str, &str)> {
    reply
        .items()
        .chunks_exact(2)
        .filter_map(|pair| match pair {
            [key, value] => Some((key.text()?, value.text()?)),
            _ => None,
        })
        .collect()
}
