//! The servers under the load: started, made to move, killed, ended.

mod embedded;
mod real;

use std::net::SocketAddr;

use evenkeel_testkit::launcher::{Control, Reply};

use self::embedded::Embedded;
use self::real::Real;

/// What goes wrong with servers, in words.
pub(super) type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Which servers the demo runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Mode {
    /// A server within this process that announces maintenance.
    #[default]
    Embedded,
    /// One real server.
    Single,
    /// Three sentinels, a primary and two replicas.
    Sentinel,
    /// Three primaries with a replica each.
    Cluster,
}

/// The kinds of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Trouble {
    /// Connections are closed by the server.
    ClientKill,
    /// Connections are reset on their way.
    Cut,
    /// A replica takes over by command.
    Failover,
    /// A shard migrates, and the server is slow meanwhile.
    Migration,
    /// An address is announced to move, and is closed when its grace ends.
    Moving,
    /// Slots with keys move to another primary.
    Reshard,
    /// The primary dies.
    Sigkill,
}

impl Mode {
    /// The name on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Single => "single",
            Self::Sentinel => "sentinel",
            Self::Cluster => "cluster",
        }
    }

    /// The trouble that this mode has, in the order in which it is made.
    pub(super) fn troubles(self) -> &'static [Trouble] {
        use Trouble::{ClientKill, Cut, Failover, Migration, Moving, Reshard, Sigkill};
        match self {
            Self::Embedded => &[Moving, Migration, ClientKill, Cut],
            Self::Single => &[Moving, ClientKill, Cut, Sigkill],
            Self::Sentinel => &[Moving, Failover, ClientKill, Cut, Sigkill],
            Self::Cluster => &[Moving, Failover, Reshard, ClientKill, Cut, Sigkill],
        }
    }
}

impl Trouble {
    /// The name in the report and on the page.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ClientKill => "client_kill",
            Self::Cut => "cut",
            Self::Failover => "failover",
            Self::Migration => "migration",
            Self::Moving => "moving",
            Self::Reshard => "reshard",
            Self::Sigkill => "sigkill",
        }
    }

    /// Whether nothing may be lost by it.
    pub(super) fn is_planned(self) -> bool {
        matches!(self, Self::Failover | Self::Migration | Self::Moving | Self::Reshard)
    }
}

/// Running servers.
#[derive(Debug)]
pub(super) enum Deployment {
    Embedded(Embedded),
    Real(Real),
}

impl Deployment {
    /// Starts what a mode needs, for the load of this run.
    pub(super) async fn start(mode: Mode, run: u64) -> Outcome<Self> {
        Ok(match mode {
            Mode::Embedded => Self::Embedded(Embedded::start().await?),
            mode => Self::Real(Real::start(mode, run).await?),
        })
    }

    /// The URL for clients.
    pub(super) fn url(&self) -> String {
        match self {
            Self::Embedded(server) => server.url(),
            Self::Real(servers) => servers.url(),
        }
    }

    /// What runs, in words.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Embedded(_) => "the embedded server, two addresses over one data set".to_owned(),
            Self::Real(servers) => servers.describe(),
        }
    }

    /// Waits until a kind of trouble can be made.
    pub(super) async fn prepare(&self, trouble: Trouble) -> Outcome<()> {
        match self {
            Self::Embedded(_) => Ok(()),
            Self::Real(servers) => servers.prepare(trouble).await,
        }
    }

    /// Makes trouble and waits until the servers are through with it. Says what was done.
    pub(super) async fn make(&self, trouble: Trouble) -> Outcome<String> {
        match self {
            Self::Embedded(server) => server.make(trouble).await,
            Self::Real(servers) => servers.make(trouble).await,
        }
    }

    /// The elements of a list, read from the surviving primary itself.
    pub(super) async fn list(&self, key: &str) -> Outcome<Vec<u64>> {
        let primary = match self {
            Self::Embedded(server) => server.primary(),
            Self::Real(servers) => servers.primary(key).await?,
        };
        let reply = Control::connect(primary, None).await?.command(&["LRANGE", key, "0", "-1"]).await?;
        let id =
            |item: &Reply| item.text().and_then(|text| text.parse().ok()).ok_or("a list of something else");
        Ok(reply.items().iter().map(id).collect::<Result<_, _>>()?)
    }

    /// Ends everything.
    pub(super) async fn shutdown(self) {
        match self {
            Self::Embedded(server) => server.shutdown().await,
            Self::Real(servers) => drop(servers),
        }
    }
}

/// Closes all connections of clients, subscribers included; gives their number.
async fn kill_clients(server: SocketAddr) -> Outcome<i64> {
    let mut control = Control::connect(server, None).await?;
    let mut killed = 0;
    for kind in ["normal", "pubsub"] {
        let reply = control.command(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]).await?;
        killed += reply.integer().unwrap_or(0);
    }
    if killed == 0 { Err("CLIENT KILL closed no connection".into()) } else { Ok(killed) }
}
