//! `Builder`: what an embedded server is like before it starts.

use std::{fmt, num::NonZeroUsize};

use super::{
    MaintenanceSupport,
    error::Error,
    handle::EmbeddedServer,
    script::{Script, ScriptFn},
};
use evenkeel_protocol::Frame;

/// Addresses of one server, at most: each may be a loopback host of its own.
const MAX_ADDRESSES: usize = 64;

/// How several addresses differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Spread {
    /// One loopback host each, all with the same port: clients that keep their port when they move can follow.
    ///
    /// Where the system has no other loopback hosts than 127.0.0.1, it is as [`Ports`](Self::Ports).
    #[default]
    Hosts,
    /// 127.0.0.1 with one port each.
    Ports,
}

/// What the engine needs to know for good. It holds passwords, hence no `Debug`.
pub(super) struct Config {
    pub(super) databases: usize,
    pub(super) users: Vec<(String, String)>,
    pub(super) version: String,
    pub(super) max_output: usize,
    pub(super) support: MaintenanceSupport,
    pub(super) retain: bool,
    pub(super) first_seq: u64,
    pub(super) push_first: bool,
    pub(super) cluster: bool,
}

impl Config {
    pub(super) fn needs_no_password(&self) -> bool {
        !self.users.iter().any(|(user, _)| user == "default")
    }
}

/// Settings of an [`EmbeddedServer`].
#[must_use]
pub struct Builder {
    config: Config,
    addresses: NonZeroUsize,
    spread: Spread,
    hostnames: Vec<String>,
    scripts: Vec<(String, ScriptFn)>,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            config: Config {
                databases: 16,
                users: Vec::new(),
                version: "7.4.1".to_owned(),
                max_output: 256 << 20,
                support: MaintenanceSupport::Enabled,
                retain: true,
                first_seq: 0,
                push_first: false,
                cluster: false,
            },
            addresses: NonZeroUsize::MIN,
            spread: Spread::Hosts,
            hostnames: Vec::new(),
            scripts: Vec::new(),
        }
    }
}

impl Builder {
    /// How many addresses lead to the data set. Default: 1.
    ///
    /// With two or more there is a front door as well: the address that a client has in its configuration, which
    /// leads to one of the others at a time. 0 counts as 1; more than 64 are refused at the start.
    pub fn addresses(mut self, count: usize) -> Self {
        self.addresses = NonZeroUsize::new(count).unwrap_or(NonZeroUsize::MIN);
        self
    }

    /// How several addresses differ. Default: [`Spread::Hosts`].
    pub fn spread(mut self, spread: Spread) -> Self {
        self.spread = spread;
        self
    }

    /// Names of the addresses, in their order, for clients that ask for an FQDN. Default: none, and such clients are
    /// told the IP address.
    pub fn hostnames<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.hostnames = names.into_iter().map(Into::into).collect();
        self
    }

    /// Password of the user `default`. Default: none is needed.
    pub fn password(self, password: impl Into<String>) -> Self {
        self.user("default", password)
    }

    /// Adds a user who may do everything. Default: `default`, without a password.
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.config.users.push((name.into(), password.into()));
        self
    }

    /// Numbered databases. Default: 16, as real servers have; 0 counts as 1.
    pub fn databases(mut self, count: usize) -> Self {
        self.config.databases = count.max(1);
        self
    }

    /// The version that HELLO and INFO name. Default: `7.4.1`.
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.config.version = version.into();
        self
    }

    /// What becomes of `CLIENT MAINT_NOTIFICATIONS`. Default: [`MaintenanceSupport::Enabled`].
    pub fn maintenance(mut self, support: MaintenanceSupport) -> Self {
        self.config.support = support;
        self
    }

    /// Whether the latest MIGRATED or FAILED_OVER is told to every connection that opts in later. Default: yes.
    pub fn retain_completions(mut self, retain: bool) -> Self {
        self.config.retain = retain;
        self
    }

    /// Sequence id of the first announcement. Default: 0, which is what hosted servers begin with.
    pub fn first_seq(mut self, seq: u64) -> Self {
        self.config.first_seq = seq;
        self
    }

    /// Unread output of one connection in bytes beyond which it is closed. Default: 256 MiB.
    pub fn max_output(mut self, bytes: usize) -> Self {
        self.config.max_output = bytes;
        self
    }

    /// Whether `DEBUG PROTOCOL push` sends its push before its reply. Default: no; Redis 7.0 did.
    pub fn push_before_reply(mut self, push_first: bool) -> Self {
        self.config.push_first = push_first;
        self
    }

    /// Makes a cluster of the addresses: each is a primary that owns an equal share of the slots. Default: no.
    ///
    /// The nodes share one data set; slots only decide who answers for a key.
    pub fn cluster(mut self) -> Self {
        self.config.cluster = true;
        self
    }

    /// Lets EVAL run `script` when it is called with exactly this source. See [`Script`].
    pub fn script(
        mut self,
        source: impl Into<String>,
        script: impl Fn(&mut Script<'_>) -> Result<Frame, String> + Send + Sync + 'static,
    ) -> Self {
        self.scripts.push((source.into(), ScriptFn::new(script)));
        self
    }

    /// Starts the server on loopback, on ports that the system chooses.
    ///
    /// It must be called within a tokio runtime, which the server's tasks then run on.
    ///
    /// # Cancel safety
    ///
    /// Safe: what was started is ended.
    pub async fn start(self) -> Result<EmbeddedServer, Error> {
        if self.addresses.get() > MAX_ADDRESSES {
            return Err(Error::TooManyAddresses { asked: self.addresses.get(), most: MAX_ADDRESSES });
        }
        EmbeddedServer::launch(self.config, self.addresses.get(), self.spread, self.hostnames, self.scripts)
            .await
    }
}
