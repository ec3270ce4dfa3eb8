//! The gateway as a library: build it, start it, publish through it, stop it.

use crate::broker::{Broker, MemoryBroker, Published};
use crate::config::{BrokerKind, GatewayConfig, TokenConfig};
use crate::doors::Doors;
use crate::driver::hook::Hooks;
use crate::driver::jwks::{self, Source};
use crate::driver::listen::{accept, bind};
use crate::driver::service::GatewayService;
use crate::driver::shard;
use crate::driver::shared::{Phase, Shared};
use crate::driver::tls::Tls;
use crate::error::{BrokerError, ConfigError, Error};
use crate::hub::{Hub, SHARD_QUEUE};
use crate::metrics::Metrics;
use crate::namespace::{Access, Namespaces};
use crate::origin::AllowedOrigins;
use crate::presence::{REFRESH, Registry};
use crate::publication::{Channel, json_line};
#[cfg(feature = "otlp")]
use crate::telemetry::OtlpConfig;
use crate::telemetry::Telemetry;
use crate::token::{Authenticator, Verifier};
use crate::wire::machine::Rules;
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// Between two looks at channels that nobody hears any more.
const TICK: Duration = Duration::from_secs(1);
/// Between two looks at the connections still open while stopping.
const STOP_STEP: Duration = Duration::from_millis(10);

/// Builds a [`Gateway`].
#[derive(Debug, Default)]
#[must_use]
pub struct GatewayBuilder {
    config: GatewayConfig,
    broker: Option<Arc<dyn Broker>>,
    authenticator: Option<Arc<dyn Authenticator>>,
    shards: Option<usize>,
    #[cfg(feature = "otlp")]
    otlp: Option<OtlpConfig>,
}

impl GatewayBuilder {
    /// Sets all settings at once. Default: [`GatewayConfig::default`].
    pub fn config(mut self, config: GatewayConfig) -> Self {
        self.config = config;
        self
    }

    /// Uses this broker, whatever the settings name. Default: a fresh [`MemoryBroker`] when they say `memory`, and
    /// a [`RedisBroker`](crate::RedisBroker) over a client of its own when they say `redis`.
    pub fn broker(mut self, broker: Arc<dyn Broker>) -> Self {
        self.broker = Some(broker);
        self
    }

    /// Shards of the hub. Default: one for each worker of the runtime. More than the workers gain nothing.
    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = Some(shards);
        self
    }

    /// Checks clients' tokens in place of the JWT of the settings; [`TokenConfig::anonymous`] still says whether a
    /// client may come without one. Default: none.
    ///
    /// [`TokenConfig::anonymous`]: crate::TokenConfig::anonymous
    pub fn authenticator(mut self, authenticator: Arc<dyn Authenticator>) -> Self {
        self.authenticator = Some(authenticator);
        self
    }

    /// Tells this collector of OpenTelemetry what the gateway does. Default: nobody is told.
    #[cfg(feature = "otlp")]
    pub fn otlp(mut self, collector: OtlpConfig) -> Self {
        self.otlp = Some(collector);
        self
    }

    /// Listens and starts all tasks on the current runtime.
    ///
    /// # Errors
    /// [`Error::Config`] names the setting that cannot be used, [`Error::Listen`] the address.
    ///
    /// # Cancel safety
    /// When dropped nothing was started.
    pub async fn start(self) -> Result<Gateway, Error> {
        let prepared = self.prepare().await?;
        let listen = prepared.config.listen;
        let failed = |source| Error::Listen { address: listen, source };
        let listener = bind(&prepared.config).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let mut running = Running::start(prepared);
        running.doorway.spawn(accept(running.shared.clone(), listener, running.phase.subscribe()));
        tracing::info!(%address, shards = running.shared.shards, "gateway listening");
        Ok(Gateway { running, address })
    }

    /// Starts all tasks on the current runtime without listening: requests come through
    /// [`MountedGateway::service`]. The settings `listen`, `reuse_port` and `tls` are not looked at.
    ///
    /// # Errors
    /// [`Error::Config`] names the setting that cannot be used.
    ///
    /// # Cancel safety
    /// When dropped nothing was started.
    pub async fn mount(mut self) -> Result<MountedGateway, Error> {
        self.config.tls = None;
        Ok(MountedGateway { running: Running::start(self.prepare().await?) })
    }

    /// Checks and makes all that can fail.
    async fn prepare(self) -> Result<Prepared, Error> {
        let config = self.config;
        check(&config)?;
        let broker = match (self.broker, config.broker_kind()) {
            (Some(broker), _) => broker,
            (None, BrokerKind::Memory) => Arc::new(MemoryBroker::new()),
            (None, BrokerKind::Redis) => redis_broker(&config).await?,
        };
        let namespaces = Namespaces::new(&config.channels, &config.namespaces)?;
        let own = self.authenticator.is_some();
        let tokens = match self.authenticator {
            Some(own) => Some(Verifier::by(own, config.token.as_ref().is_some_and(|token| token.anonymous))),
            None => config.token.as_ref().map(Verifier::new).transpose()?,
        };
        let rules = Rules {
            namespaces,
            limits: config.limits.clone(),
            ping_seconds: config.session.ping_interval.as_secs().max(1),
            pusher: config.pusher.is_some(),
            asks_connect: config.hooks.connect.is_some(),
            asks_refresh: config.hooks.refresh.is_some(),
            asks_sub_refresh: config.hooks.sub_refresh.is_some(),
            tokens,
        };
        let jwks = config.token.as_ref().filter(|_| !own);
        let source = |token: &TokenConfig| {
            token.jwks_url.as_deref().map(|url| Source::new(url, token.jwks_ca_file.as_deref()))
        };
        let keys = jwks.and_then(source).transpose()?;
        let tls = config.tls.as_ref().map(Tls::new).transpose()?;
        let metrics = Arc::new(Metrics::default());
        #[cfg(feature = "otlp")]
        let telemetry = Arc::new(self.otlp.as_ref().map(Telemetry::new).transpose()?.unwrap_or_default());
        #[cfg(not(feature = "otlp"))]
        let telemetry = Arc::new(Telemetry);
        let hooks = Hooks::new(&config.hooks, &metrics, &telemetry)?;
        let workers = tokio::runtime::Handle::current().metrics().num_workers();
        let shards = self.shards.unwrap_or(workers).max(1);
        Ok(Prepared { config, broker, rules, keys, tls, hooks, metrics, telemetry, shards })
    }
}

/// Waits before Redis is dialled again. A gateway is one client of many subscribers: that it is back at once is
/// worth the dials.
#[cfg(feature = "redis")]
const BACKOFF_STEP: Duration = Duration::from_millis(25);
#[cfg(feature = "redis")]
const BACKOFF_MAX: Duration = Duration::from_millis(75);

#[cfg(feature = "redis")]
async fn redis_broker(config: &GatewayConfig) -> Result<Arc<dyn Broker>, Error> {
    let settings = match config.redis.url.as_deref() {
        Some(url) => evenkeel_client::Config::try_from(url)?,
        None => evenkeel_client::Config::from_env()?,
    };
    // A gateway that starts before its Redis waits for it, not ready, instead of ending.
    let backoff = evenkeel_client::config::Backoff::Linear { step: BACKOFF_STEP, max: BACKOFF_MAX };
    let client = evenkeel_client::Client::connect(settings.into_lazy().with_usual_backoff(backoff)).await?;
    Ok(Arc::new(crate::broker::RedisBroker::new(Arc::new(client), config.outage.clone())))
}

#[cfg(not(feature = "redis"))]
async fn redis_broker(_config: &GatewayConfig) -> Result<Arc<dyn Broker>, Error> {
    let problem = "redis was chosen, and this program was built without the feature `redis`";
    std::future::ready(Err(ConfigError::new("broker", problem).into())).await
}

fn check(config: &GatewayConfig) -> Result<(), ConfigError> {
    let session = &config.session;
    if session.ping_interval < Duration::from_secs(1) {
        return Err(ConfigError::new("session.ping_interval", "must be at least 1s"));
    }
    if session.pong_timeout < Duration::from_secs(1) || session.pong_timeout >= session.ping_interval {
        return Err(ConfigError::new("session.pong_timeout", "must be at least 1s and below ping_interval"));
    }
    if config.token.as_ref().is_some_and(|token| token.jwks_refresh < Duration::from_secs(1)) {
        return Err(ConfigError::new("token.jwks_refresh", "must be at least 1s"));
    }
    if config.pusher.as_ref().is_some_and(|app| app.key.is_empty() || app.secret.is_empty()) {
        return Err(ConfigError::new("pusher", "key and secret must not be empty"));
    }
    if config.api.key.as_deref() == Some("") {
        return Err(ConfigError::new("api.key", "must not be empty; leave it out to switch the API off"));
    }
    if config.limits.max_head < 256 {
        return Err(ConfigError::new("limits.max_head", "must be at least 256"));
    }
    if config.limits.max_message < 128 {
        return Err(ConfigError::new("limits.max_message", "must be at least 128"));
    }
    let named = config.namespaces.iter().map(|namespace| (&*namespace.name, &namespace.options));
    for (name, options) in [("channels", &config.channels)].into_iter().chain(named) {
        let subscribes = options.subscribe == Access::Hook && config.hooks.subscribe.is_none();
        let publishes = options.publish == Access::Hook && config.hooks.publish.is_none();
        if subscribes || publishes {
            let key = format!("{name}.{}", if subscribes { "subscribe" } else { "publish" });
            return Err(ConfigError::new(key, "`hook` needs that endpoint under hooks"));
        }
    }
    for origin in &config.allowed_origins {
        let known = origin == "*" || origin == "null" || origin.contains("://");
        if !known || origin.ends_with('/') || (origin.contains('*') && origin != "*") {
            let problem = format!("`{origin}` is no origin such as https://app.example.com");
            return Err(ConfigError::new("allowed_origins", problem));
        }
    }
    Ok(())
}

/// A gateway that can start.
struct Prepared {
    config: GatewayConfig,
    broker: Arc<dyn Broker>,
    rules: Rules,
    keys: Option<Source>,
    tls: Option<Tls>,
    hooks: Hooks,
    metrics: Arc<Metrics>,
    telemetry: Arc<Telemetry>,
    shards: usize,
}

/// The tasks of a gateway.
#[derive(Debug)]
struct Running {
    shared: Arc<Shared>,
    phase: watch::Sender<Phase>,
    /// What takes connections.
    doorway: JoinSet<()>,
    shards: JoinSet<()>,
    tasks: JoinSet<()>,
}

impl Running {
    fn start(prepared: Prepared) -> Self {
        let Prepared { config, broker, rules, keys, tls, hooks, metrics, telemetry, shards: count } =
            prepared;
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..count).map(|_| mpsc::channel(SHARD_QUEUE)).unzip();
        let (phase, watching) = watch::channel(Phase::Running);
        let shared = Arc::new(Shared {
            rules: Arc::new(rules),
            origins: AllowedOrigins::new(&config.allowed_origins),
            pusher: config.pusher.clone().map(Arc::new),
            hub: Hub::new(senders.into(), broker.clone(), metrics.clone()),
            metrics,
            phase: watching.clone(),
            shards: count,
            next_shard: AtomicUsize::new(0),
            members: Registry::default(),
            doors: Doors::default(),
            tls,
            hooks,
            fetching: keys.as_ref().and_then(Source::secure),
            telemetry,
            config,
        });
        shared.telemetry.observe(&shared);
        let mut shards = JoinSet::new();
        for receiver in receivers {
            shards.spawn(shard::run(shared.clone(), receiver, watching.clone()));
        }
        let mut tasks = JoinSet::new();
        tasks.spawn(broker.run(shared.hub.deliveries()));
        tasks.spawn(tick(shared.clone()));
        if let (Some(keys), Some(token)) = (keys, &shared.config.token) {
            tasks.spawn(jwks::refresh(shared.clone(), keys, token.jwks_refresh));
        }
        Self { shared, phase, doorway: JoinSet::new(), shards, tasks }
    }

    async fn stop(mut self) {
        let spread = self.shared.config.session.drain + self.shared.config.session.close_timeout;
        self.phase.send_replace(Phase::Leaving);
        // It ends by itself, within a moment.
        while self.doorway.join_next().await.is_some() {}
        self.phase.send_replace(Phase::Draining);
        let all_gone = async {
            while self.shards.join_next().await.is_some() {}
            while self.shared.metrics.connections.load(Ordering::Relaxed) > 0 {
                tokio::time::sleep(STOP_STEP).await;
            }
        };
        // Whoever is still here after the deadline is cut off below.
        drop(tokio::time::timeout(spread + STOP_STEP, all_gone).await);
        self.phase.send_replace(Phase::Stopped);
        self.tasks.shutdown().await;
        self.shared.telemetry.stop().await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Stopped);
        // The shards close their sessions on their own and then end.
        self.shards.detach_all();
    }
}

/// A running gateway.
///
/// Dropping it closes all sessions at once; [`stop`](Self::stop) does so gently.
#[derive(Debug)]
pub struct Gateway {
    running: Running,
    address: SocketAddr,
}

impl Gateway {
    /// Starts with the default settings.
    pub fn builder() -> GatewayBuilder {
        GatewayBuilder::default()
    }

    /// The address listened on.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// A handle that publishes and looks, cheap to clone.
    pub fn handle(&self) -> GatewayHandle {
        GatewayHandle { shared: self.running.shared.clone() }
    }

    /// Stops: takes no more connections, closes the sessions spread over the configured time with a code that
    /// makes clients come back elsewhere, and ends all tasks.
    ///
    /// # Cancel safety
    /// When dropped everything ends at once.
    pub async fn stop(self) {
        self.running.stop().await;
    }
}

/// A running gateway that listens on nothing: another HTTP server hands it requests.
///
/// Dropping it closes all sessions at once; [`stop`](Self::stop) does so gently.
#[derive(Debug)]
pub struct MountedGateway {
    running: Running,
}

impl MountedGateway {
    /// What the server mounts. It answers 503 to new sessions once the gateway stops.
    pub fn service(&self) -> GatewayService {
        GatewayService::new(self.running.shared.clone())
    }

    /// A handle that publishes and looks, cheap to clone.
    pub fn handle(&self) -> GatewayHandle {
        GatewayHandle { shared: self.running.shared.clone() }
    }

    /// Stops: opens no more sessions, closes those that are open spread over the configured time with a code that
    /// makes clients come back elsewhere, and ends all tasks.
    ///
    /// # Cancel safety
    /// When dropped everything ends at once.
    pub async fn stop(self) {
        self.running.stop().await;
    }
}

/// Publishes through a gateway and looks at it.
#[derive(Clone, Debug)]
pub struct GatewayHandle {
    shared: Arc<Shared>,
}

impl GatewayHandle {
    /// Publishes on a channel. A payload that is JSON is delivered as such, any other as a JSON string.
    ///
    /// # Errors
    /// [`BrokerError::Unsupported`] for a channel whose namespace is unknown; otherwise what the broker says.
    ///
    /// # Cancel safety
    /// When dropped the publication may or may not be published.
    pub async fn publish(&self, channel: &str, payload: impl Into<Bytes>) -> Result<Published, BrokerError> {
        let options = self.shared.rules.namespaces.options(channel).ok_or(BrokerError::Unsupported)?;
        let data = json_line(payload.into());
        self.shared.publish(&Channel::from(channel), data, options).await
    }

    /// Reads the keys of tokens, certificate and key of TLS, and the authorities that hooks and the source of keys are
    /// trusted by, anew, as after a rotation. Sessions go on.
    ///
    /// # Errors
    /// What is wrong with a file; what it was read for before stays then, and the others are new.
    pub fn reload(&self) -> Result<(), ConfigError> {
        let config = &self.shared.config;
        // Before the keys, which are fetched with them.
        let fetching = match (&self.shared.fetching, &config.token) {
            (Some(fetching), Some(TokenConfig { jwks_ca_file: Some(file), .. })) => {
                fetching.reload("token.jwks_ca_file", file)
            }
            _ => Ok(()),
        };
        let hooks = self.shared.hooks.reload(&config.hooks);
        let tokens = match (&self.shared.rules.tokens, &config.token) {
            (Some(tokens), Some(config)) => tokens.reload(config),
            _ => Ok(()),
        };
        let tls = match (&self.shared.tls, &config.tls) {
            (Some(tls), Some(config)) => tls.reload(config),
            _ => Ok(()),
        };
        fetching.and(hooks).and(tokens).and(tls)
    }

    /// Whether publications can be delivered now; what `/readyz` says.
    pub fn is_ready(&self) -> bool {
        self.shared.is_ready()
    }

    /// Open sessions.
    pub fn sessions(&self) -> usize {
        usize::try_from(self.shared.metrics.sessions.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// The counters in Prometheus' text form; what `/metrics` says.
    pub fn metrics(&self) -> String {
        self.shared.render_metrics()
    }
}

async fn tick(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(TICK);
    let mut tick = 0_u64;
    loop {
        ticks.tick().await;
        tick += 1;
        shared.hub.tick();
        if tick.is_multiple_of(REFRESH) {
            shared.members.say_again(&**shared.hub.broker(), |channel| shared.rules.options(channel)).await;
        }
    }
}
