//! `Client`: the handle, for every deployment.

use std::{sync::Arc, time::Duration};

use evenkeel_protocol::{Command, FromReply, ToArg, ToArgs};

use crate::{
    batch::Batch,
    call::{Call, Target},
    config::{Config, ConfigBuilder},
    core::Core,
    error::Error,
    events::EventStream,
    health::Health,
    lease::Lease,
    pipeline::Pipeline,
    pubsub::{Family, Subscribing},
    topology::{Topology, TopologyStream},
    transaction::Transaction,
};

/// A client of a Redis, whatever stands behind its address: one server, Sentinel or Cluster.
///
/// A handle is cheap to clone and can be used from any number of tasks at once. Dropping the last one closes the
/// connections without waiting; [`close`](Self::close) finishes what is owed first.
///
/// ```no_run
/// # async fn run() -> Result<(), evenkeel_client::Error> {
/// use evenkeel_client::Client;
///
/// let client = Client::connect("redis://localhost:6379").await?;
/// client.set("greeting", "hello").await?;
/// let visits = client.incr("visits").await?;
/// # let _ = visits;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    core: Arc<Core>,
}

impl Client {
    /// Connects to what a URL or a [`Config`] names, and waits until a connection stands.
    ///
    /// With `lazy` it does not wait. The configuration's warnings are logged once.
    ///
    /// # Errors
    /// A URL that is wrong, or no connection within `connect_timeout` and `handshake_timeout`.
    ///
    /// # Cancel safety
    /// Dropping the future gives up connecting and leaves nothing behind.
    pub async fn connect<C>(config: C) -> Result<Self, Error>
    where
        C: TryInto<Config>,
        Error: From<C::Error>,
    {
        let config = config.try_into()?;
        for warning in config.warnings() {
            tracing::warn!(target: "evenkeel::config", "{warning}");
        }
        Ok(Self { core: Core::connect(config).await? })
    }

    /// Connects to what the environment names: see [`Config::from_env`].
    ///
    /// # Errors
    /// A variable that is wrong or missing, by its name, and as [`connect`](Self::connect).
    ///
    /// # Cancel safety
    /// As [`connect`](Self::connect).
    pub async fn from_env() -> Result<Self, Error> {
        Self::connect(Config::from_env()?).await
    }

    /// Starts a configuration; [`ConfigBuilder::connect`] ends it.
    ///
    /// ```no_run
    /// # async fn run() -> Result<(), evenkeel_client::Error> {
    /// # use evenkeel_client::Client;
    /// let client = Client::builder().single("localhost:6379").client_name("app").connect().await?;
    /// # let _ = client;
    /// # Ok(()) }
    /// ```
    pub fn builder() -> ConfigBuilder {
        Config::builder()
    }

    /// The handoff engine of this client: live hooks and metrics.
    ///
    /// ```no_run
    /// # async fn run(client: &evenkeel_client::Client) {
    /// let handoffs = client.maintenance().metrics();
    /// # let _ = handoffs;
    /// # }
    /// ```
    pub fn maintenance(&self) -> &evenkeel_hitless::Maintenance {
        self.core.maintenance()
    }

    /// Makes every connection to `endpoint` anew before the deadline, make before break: for operators who are about to
    /// take that address away. Gives false when the client is closed.
    ///
    /// # Cancel safety
    /// A cancelled call may not have asked.
    pub async fn drain(&self, endpoint: &evenkeel_protocol::Endpoint, deadline: Duration) -> bool {
        self.core.drain(endpoint.clone(), deadline).await
    }

    /// Gives every key of the deployment, a handful at a time; see [`Scan`](crate::Scan).
    pub fn scan_all(&self) -> crate::Scan {
        crate::Scan::new(&self.core)
    }

    /// The deployment as it is known: nodes with roles, health, zones and lag, slots, sentinels, epoch and generation. It can be
    /// printed, and with the feature `serde` serialised. Asks nobody.
    ///
    /// ```no_run
    /// # async fn run(client: &evenkeel_client::Client) {
    /// println!("{}", client.topology());
    /// # }
    /// ```
    pub fn topology(&self) -> Arc<Topology> {
        self.core.reader().load()
    }

    /// What changes in the deployment from here on.
    ///
    /// ```no_run
    /// # async fn run(client: &evenkeel_client::Client) {
    /// use evenkeel_client::topology::Change;
    ///
    /// let mut changes = client.topology_changes();
    /// while let Some(update) = changes.recv().await {
    ///     for change in &update.changes {
    ///         if let Change::PrimaryChanged { to: Some(to), .. } = change {
    ///             println!("writes go to {to} since generation {}", update.topology.generation());
    ///         }
    ///     }
    /// }
    /// # }
    /// ```
    pub fn topology_changes(&self) -> TopologyStream {
        TopologyStream::new(self.core.reader().clone())
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        self.core.config()
    }

    /// Any command by its name, for those that have no method.
    ///
    /// ```no_run
    /// # async fn run(client: &evenkeel_client::Client) -> Result<(), evenkeel_client::Error> {
    /// use evenkeel_client::Frame;
    /// let found = client.cmd("FT.SEARCH").arg("idx").arg("*").query::<Frame>().await?;
    /// # let _ = found;
    /// # Ok(()) }
    /// ```
    pub fn cmd(&self, name: &str) -> Cmd<'_> {
        Cmd::new(self.target(), name)
    }

    /// Sends a command made elsewhere.
    pub fn send<T: FromReply>(&self, command: Command) -> Call<'_, T> {
        Call::new(self.target(), command)
    }

    /// Commands sent together, their replies as one tuple.
    ///
    /// ```no_run
    /// # async fn run(client: &evenkeel_client::Client) -> Result<(), evenkeel_client::Error> {
    /// let (a, b): (i64, Option<String>) = client.pipeline().incr("a").get("b").await?;
    /// # let _ = (a, b);
    /// # Ok(()) }
    /// ```
    pub fn pipeline(&self) -> Pipeline<'_> {
        Pipeline::new(self.target())
    }

    /// Commands sent together, their number known at run time only.
    pub fn batch(&self) -> Batch<'_> {
        Batch::new(self.target())
    }

    /// Commands that run together or not at all (`MULTI`, `EXEC`), their replies as one tuple.
    ///
    /// ```no_run
    /// # async fn run(client: &evenkeel_client::Client) -> Result<(), evenkeel_client::Error> {
    /// let (left, right): (i64, i64) =
    ///     client.transaction().decrby("{account}:a", 5).incrby("{account}:b", 5).await?;
    /// # let _ = (left, right);
    /// # Ok(()) }
    /// ```
    pub fn transaction(&self) -> Transaction<'_> {
        Transaction::new(self.target())
    }

    /// A connection of one's own, for `WATCH`, `MONITOR` and whatever changes a connection.
    ///
    /// Commands that block need no lease of the caller's: they take one by themselves.
    ///
    /// A server that is away for less than `lease_timeout` costs a wait and no error.
    ///
    /// # Errors
    /// No connection free, or none to be had, within `lease_timeout`; a login that is refused ends the wait at once.
    ///
    /// # Cancel safety
    /// Dropping the future gives the place in the queue up.
    pub async fn lease(&self) -> Result<Lease, Error> {
        Ok(Lease::new(self.core.lease().await?))
    }

    /// Subscribes to channels and waits until the server has confirmed them.
    ///
    /// ```no_run
    /// # async fn run(client: &evenkeel_client::Client) -> Result<(), evenkeel_client::Error> {
    /// use evenkeel_client::Delivery;
    ///
    /// let mut news = client.subscribe(["news"]).await?;
    /// while let Some(delivery) = news.recv().await {
    ///     match delivery {
    ///         Delivery::Message { payload, .. } => println!("{} bytes", payload.len()),
    ///         Delivery::Gap { .. } | Delivery::Lagged { .. } => println!("something may be missing"),
    ///         _ => {}
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub fn subscribe(&self, channels: impl ToArgs) -> Subscribing<'_> {
        Subscribing::new(&self.core, Family::Channel, &channels)
    }

    /// Subscribes to all channels that match patterns such as `news.*`, and waits until the server has confirmed them.
    pub fn psubscribe(&self, patterns: impl ToArgs) -> Subscribing<'_> {
        Subscribing::new(&self.core, Family::Pattern, &patterns)
    }

    /// Subscribes to shard channels, which live in one slot of a cluster, and waits until the server has confirmed them.
    pub fn ssubscribe(&self, channels: impl ToArgs) -> Subscribing<'_> {
        Subscribing::new(&self.core, Family::Shard, &channels)
    }

    /// What happens to the connections from here on.
    pub fn events(&self) -> EventStream {
        self.core.events().listen()
    }

    /// Whether the deployment answers just now.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn is_healthy(&self) -> bool {
        self.core.is_healthy().await
    }

    /// What is known of every connection, without asking anybody.
    pub fn health(&self) -> Health {
        self.core.health()
    }

    /// Takes no more commands, finishes what is owed and closes; what is still owed after `deadline` is cut off.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the client closing.
    pub async fn close(&self, deadline: Duration) {
        self.core.close(deadline).await;
    }

    pub(crate) fn target(&self) -> Target<'_> {
        Target::Shared(&self.core)
    }
}

impl ConfigBuilder {
    /// Checks everything and connects: [`build`](Self::build), then [`Client::connect`].
    ///
    /// # Errors
    /// As those two.
    ///
    /// # Cancel safety
    /// As [`Client::connect`].
    pub async fn connect(self) -> Result<Client, Error> {
        Client::connect(self.build()?).await
    }
}

/// A command by its name; [`query`](Self::query) says what the reply becomes.
#[derive(Debug)]
#[must_use = "a command is sent when it is awaited"]
pub struct Cmd<'a> {
    target: Target<'a>,
    command: Command,
}

impl<'a> Cmd<'a> {
    pub(crate) fn new(target: Target<'a>, name: &str) -> Self {
        Self { target, command: Command::new(name) }
    }

    /// Appends an argument.
    pub fn arg(mut self, arg: impl ToArg) -> Self {
        self.command = self.command.arg(arg);
        self
    }

    /// Appends arguments.
    pub fn args(mut self, args: impl ToArgs) -> Self {
        self.command = self.command.args_from(args);
        self
    }

    /// Appends a key; the first one decides where the command goes, for commands that the client does not know.
    pub fn key(mut self, key: impl ToArg) -> Self {
        self.command = self.command.key(key);
        self
    }

    /// Says what the reply becomes; awaiting it sends the command.
    pub fn query<T: FromReply>(self) -> Call<'a, T> {
        Call::new(self.target, self.command)
    }
}
