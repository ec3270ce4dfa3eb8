//! Connecting: from a configuration to a running client, in each deployment.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use evenkeel_hitless::{Hooks, Maintenance, Settings, Sizes};
use evenkeel_pool::{
    DialConfig, LaneConfig, LeaseConfig, LinkConfig, Outcome, Readiness,
    machine::{Backoff as PoolBackoff, Growth, SentryConfig},
};
use evenkeel_protocol::{
    Command, Endpoint,
    conn::{Credentials as Login, HandshakeConfig, ProtocolChoice},
};
use evenkeel_topology::{
    Found, ResolveError,
    driver::{self, DriverConfig, ResolverHandle, TopologyEvent},
    machine::{ClusterConfig, ClusterResolver, FixedConfig, FixedResolver, SentinelConfig, SentinelResolver},
};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use super::{
    Complaint, Core,
    asker::Asker,
    blocking::Blocked,
    clock,
    director::{Director, Ears, Order},
    encrypt::{Encryption, encryption},
    failure, health,
    node::{Node, Setup},
    observe::Observer,
    opt_in::Asking,
    own_lane::OwnLane,
    reads::{self, Reads},
    relogin,
    route::{ClusterRoutes, Routes},
    spawn,
    subscriptions::Links,
};
use crate::{
    config::{Backoff, Config, Credentials, Deployment, ProtocolVersion, RedirectPolicy},
    error::{Error, Executed},
    events::Events,
    pubsub::PubSub,
};

/// Observations that may wait for the director; a burst of pushes on a hundred connections fits.
const OBSERVED: usize = 4096;

/// Orders that may wait.
const ORDERS: usize = 4096;

/// How everything below is configured.
struct Parts {
    dial: DialConfig,
    lane: LaneConfig,
    lease: LeaseConfig,
    link: LinkConfig,
    settings: Settings,
    sizes: Sizes,
    encryption: Encryption,
}

/// The topology under way.
struct Resolving {
    handle: ResolverHandle,
    events: mpsc::Receiver<TopologyEvent>,
}

impl Core {
    /// Connects as the configuration says; waits for the first connection unless it is lazy.
    pub(crate) async fn connect(config: Config) -> Result<Arc<Self>, Error> {
        let parts = parts(&config)?;
        // Before the first dial: what changes from now on is told to every connection.
        let provider = config.credentials_provider().map(|provider| (provider.current().0, provider));
        let pubsub = Arc::new(PubSub::new(config.subscriber_bytes(), config.subscriber_messages()));
        let (observed_tx, observed) = mpsc::channel(OBSERVED);
        let (order_tx, orders) = mpsc::channel(ORDERS);
        let observer = Arc::new(Observer::new(observed_tx, Arc::clone(&pubsub)));
        let lanes = usize::from(config.lanes().get());
        let lane_observer: Arc<dyn evenkeel_pool::LaneObserver> = Arc::<Observer>::clone(&observer);
        let setup = Setup::new(parts.lane.clone(), parts.lease.clone(), lanes, lane_observer);
        let reads = reading(&config, &parts, lanes);
        let only = match config.deployment() {
            Deployment::Single { endpoint } => Some(Arc::new(Node::start(&setup, endpoint))),
            _ => None,
        };
        let primary = Arc::new(ArcSwapOption::from_pointee(only.as_ref().map(|node| node.home().clone())));
        let mut resolving = resolve(&config, &parts, only.as_ref().map(|node| (node, Arc::clone(&primary))));
        let routes = match only {
            Some(node) => Routes::One(node),
            None => first_routes(&config, &setup, &mut resolving).await?,
        };
        if let Routes::One(node) = &routes {
            primary.store(Some(Arc::new(node.home().clone())));
        }
        let hooks = Hooks::default();
        for hook in config.hooks().iter() {
            hooks.add(Arc::clone(hook));
        }
        let apply_tx = order_tx.clone();
        let maintenance =
            Maintenance::start(parts.settings, parts.sizes, fastrand::u64(..), hooks, move |action| {
                // The director is far behind or gone: the engine's own deadlines cover what it does not hear.
                let _full = apply_tx.try_send(Order::Act(action));
            });
        let Resolving { handle, events: topology } = resolving;
        let core = Arc::new(Self {
            events: Events::default(),
            links: Links::new(parts.link, observer),
            setup,
            reads: Reads::new(reads),
            fences: Arc::default(),
            primary,
            only: match &routes {
                Routes::One(node) => Some(Arc::clone(node)),
                Routes::Cluster(_) => None,
            },
            routes: ArcSwap::from_pointee(routes),
            adopting: Mutex::new(()),
            changes: watch::Sender::new(0),
            closed: AtomicBool::new(false),
            orders: order_tx.clone(),
            policy: policy(&config),
            topology: (handle.reader().clone(), handle.reporter().clone()),
            maintenance: maintenance.clone(),
            blocked: Blocked::default(),
            unresolved: ArcSwapOption::empty(),
            checked: Mutex::new(None),
            out_of_step: AtomicU64::new(0),
            pubsub,
            config,
        });
        let ears = Ears { observed, orders, order_tx, topology };
        let director = Director::new(Arc::downgrade(&core), ears, maintenance, handle);
        spawn(director.run());
        if let Some((seen, provider)) = provider {
            spawn(relogin::follow(Arc::downgrade(&core), provider, seen));
        }
        spawn(health::watch(Arc::downgrade(&core), core.config.health_interval()));
        if !core.config.lazy() {
            core.first_connections().await?;
            core.check_kind()?;
            core.first_replicas().await;
            core.warn_of_superfluous_password().await;
        }
        Ok(core)
    }

    /// HELLO accepts any password where the default user needs none: somebody should know that nothing is protected.
    async fn warn_of_superfluous_password(&self) {
        let credentials = self.config.credentials();
        if credentials.password.is_none() || credentials.username.is_some() {
            return;
        }
        let lane = self.routes().all().first().and_then(|node| node.lane(None).cloned());
        let Some(lane) = lane else { return };
        // Where AUTH went alone the server would have said so.
        if lane.info().is_none_or(|info| !info.established.server.resp3) {
            return;
        }
        let question = Command::new("ACL").arg("GETUSER").arg("default");
        let answer = lane.request(&question, self.config.answer_timeout()).await;
        // A server that does not tell, or does not let us ask, is none that asks for no password.
        let Outcome::Reply(reply) = answer else { return };
        let Ok(user) = reply.frame() else { return };
        let flags = user.get("flags").and_then(|flags| flags.elements()).unwrap_or_default();
        if flags.iter().any(|flag| flag.as_bytes() == Some(b"nopass")) {
            let origin = self.config.password_origin();
            tracing::warn!(target: "evenkeel::config", "the password of {origin} is not asked for: the server lets everybody in");
        }
    }

    /// A sentinel takes connections and no data: who gave its address for a server's should hear it at once. A node of a
    /// cluster serves what it owns, and says by MOVED that it does not own the rest.
    fn check_kind(&self) -> Result<(), Error> {
        if self.follows_primary() {
            return Ok(());
        }
        let lane = self.routes().all().first().and_then(|node| node.lane(None).cloned());
        let Some(info) = lane.and_then(|lane| lane.info()) else { return Ok(()) };
        if info.established.server.role == "replica" {
            // Whose, it is asked.
            self.complain(&info.endpoint, Complaint::ReadOnly);
        }
        match info.established.server.mode.as_str() {
            "sentinel" => Err(Error::unresolved(
                "the server",
                Some(ResolveError::WrongKind {
                    endpoint: info.endpoint.clone(),
                    found: Found::Sentinel,
                    expected: "a single server",
                }),
            )),
            "cluster" => {
                let endpoint = &info.endpoint;
                tracing::warn!(
                    target: "evenkeel::config",
                    "{endpoint} is a node of a cluster: only the keys of its own slots can be reached by this address"
                );
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn first_connections(&self) -> Result<(), Error> {
        let mut first_error = None;
        let nodes = self.routes().all();
        let owned: Vec<_> = match &**self.routes() {
            Routes::One(_) => nodes,
            // A cluster works as far as its nodes do; one that is down is no reason to refuse.
            Routes::Cluster(_) => nodes.into_iter().take(1).collect(),
        };
        for node in owned {
            for lane in node.lanes() {
                if lane.first_attempt().await != Readiness::Ready && first_error.is_none() {
                    first_error = Some(match lane.last_error() {
                        Some(error) => failure::dial(&error, &self.config),
                        None => Error::closed(Executed::No),
                    });
                }
            }
        }
        match first_error {
            Some(error) if !self.follows_primary() => Err(error),
            _ => Ok(()),
        }
    }
}

/// How connections to replicas are made: those of a cluster say that they are for reading.
fn reading(config: &Config, parts: &Parts, lanes: usize) -> Setup {
    let is_cluster = matches!(config.deployment(), Deployment::Cluster { .. });
    // A replica that may redirect would send every read to its primary.
    let handshake = parts.dial.handshake_config().clone().read_only(is_cluster).redirect(false);
    let lane = parts.lane.clone().dial(parts.dial.clone().handshake(handshake));
    reads::setup(lane, parts.lease.clone(), lanes)
}

/// Starts whoever finds out where commands go. `only` is a single server's node, and whom it is meant to lead to.
fn resolve(
    config: &Config,
    parts: &Parts,
    only: Option<(&Arc<Node>, Arc<ArcSwapOption<Endpoint>>)>,
) -> Resolving {
    let policy = policy(config);
    let zones = config.zone().is_some();
    let sentinel_login = match config.deployment() {
        Deployment::Sentinel { credentials, .. } => login(credentials),
        _ => None,
    };
    let plain = |login: Option<Login>| {
        dial(config, identified(config, HandshakeConfig::default().credentials(login)))
    };
    let (secure_data, secure_sentinels) = (parts.encryption.data.clone(), parts.encryption.sentinels.clone());
    let data =
        plain(login(config.credentials())).credentials(config.credentials_provider()).secure(secure_data);
    let data = LaneConfig::default().dial(data).limits(config.limits());
    let sentinel_dial = plain(sentinel_login).secure(secure_sentinels);
    let sentinel = LaneConfig::default().dial(sentinel_dial.clone()).limits(config.limits());
    let watch = LinkConfig::default()
        .dial(sentinel_dial)
        .ping_after(Duration::from_secs(1))
        .answer_timeout(Duration::from_secs(3));
    let asker = Asker::new(data, sentinel, watch);
    let seed = fastrand::u64(..);
    let driver = DriverConfig::default().tls(config.tls().is_some());
    let (handle, events) = match config.deployment() {
        Deployment::Sentinel { sentinels, name, .. } => {
            let machine = SentinelConfig::new(name.clone(), sentinels.clone())
                .redirect_policy(policy)
                .learn_zones(zones);
            driver::spawn(|now| SentinelResolver::new(machine, seed, now), asker, driver.name(name.clone()))
        }
        Deployment::Cluster { nodes } => {
            let machine = ClusterConfig::new(nodes.clone()).redirect_policy(policy).learn_zones(zones);
            driver::spawn(|now| ClusterResolver::new(machine, seed, now), asker, driver)
        }
        Deployment::Single { endpoint } => {
            // The handshake has told what it is: see `check_kind`.
            let machine = FixedConfig::new(endpoint.clone()).redirect_policy(policy).ask_at_once(false);
            let (node, place) =
                only.map_or_else(Default::default, |(node, place)| (Arc::downgrade(node), place));
            let asker = OwnLane::new(node, place, asker);
            // The questions wait in the lane like any command: a server that only pauses is no reason to call it silent.
            let driver = driver.ask_timeout(config.command_timeout());
            driver::spawn(|now| FixedResolver::new(machine, seed, now), asker, driver)
        }
    };
    Resolving { handle, events }
}

/// The addresses that may be dialled when a server names them.
pub(super) fn policy(config: &Config) -> evenkeel_topology::RedirectPolicy {
    match config.redirect_policy() {
        RedirectPolicy::Any => evenkeel_topology::RedirectPolicy::any(),
        RedirectPolicy::Hosts(hosts) => evenkeel_topology::RedirectPolicy::only(hosts.iter().cloned()),
    }
}

/// Waits until somebody says where commands go.
async fn first_routes(config: &Config, setup: &Setup, resolving: &mut Resolving) -> Result<Routes, Error> {
    let patience = config.connect_timeout() + config.handshake_timeout();
    let deadline = clock::now() + patience;
    let mut last: Option<ResolveError> = None;
    let mut generation = 0;
    let reader = resolving.handle.reader().clone();
    loop {
        let topology = tokio::select! {
            biased;
            topology = reader.newer_than(generation) => topology,
            event = resolving.events.recv() => {
                if let Some(TopologyEvent::Unresolved(error)) = event {
                    // What answered was the wrong thing, or nothing could: waiting does not make it another.
                    let hopeless = !matches!(error, ResolveError::PrimaryUnproven { .. });
                    last = Some(error);
                    if hopeless {
                        break;
                    }
                }
                continue;
            }
            () = tokio::time::sleep_until(deadline.into()) => break,
        };
        let Some(topology) = topology else { break };
        generation = topology.generation();
        if matches!(config.deployment(), Deployment::Cluster { .. }) {
            let nodes = topology
                .primaries()
                .map(|node| (node.endpoint.clone(), Arc::new(Node::start(setup, &node.endpoint))))
                .collect::<std::collections::BTreeMap<Endpoint, _>>();
            if !nodes.is_empty() {
                return Ok(Routes::Cluster(ClusterRoutes::new(nodes, topology)));
            }
        } else if let Some(primary) = topology.primary_of(None) {
            return Ok(Routes::One(Arc::new(Node::start(setup, primary))));
        }
    }
    let asked = match config.deployment() {
        Deployment::Cluster { .. } => "any node of the cluster",
        _ => "any sentinel",
    };
    Err(Error::unresolved(asked, last))
}

/// Names the library, unless that is not wanted.
fn identified(config: &Config, handshake: HandshakeConfig) -> HandshakeConfig {
    if config.identity() { handshake.library("evenkeel", env!("CARGO_PKG_VERSION")) } else { handshake }
}

fn parts(config: &Config) -> Result<Parts, Error> {
    let settings = config.handoff_settings()?;
    let handshake = HandshakeConfig::default()
        .protocol(match config.protocol() {
            ProtocolVersion::Resp2 => ProtocolChoice::Resp2,
            ProtocolVersion::Resp3 => ProtocolChoice::Resp3,
            ProtocolVersion::Auto => ProtocolChoice::Auto,
        })
        .credentials(login(config.credentials()))
        .client_name(config.client_name().map(str::to_owned))
        .database(config.db())
        // In a cluster MOVED says the same.
        .redirect(config.identity() && !matches!(config.deployment(), Deployment::Cluster { .. }));
    let handshake = identified(config, handshake);
    let encryption = encryption(config)?;
    let pool = usize::from(config.lanes().get()) + config.max_leases();
    let sizes = settings.sizes(pool, config.max_connections());
    let asking = Asking::new(settings.clone(), config.tls().is_some());
    let dial = dial(config, handshake)
        .credentials(config.credentials_provider())
        .opt_in_policy(Some(Arc::new(asking)))
        // The engine's workers are what bounds them.
        .max_moves(NonZeroUsize::new(sizes.workers).unwrap_or(NonZeroUsize::MIN))
        .secure(encryption.data.clone());
    let lane = LaneConfig::default()
        .dial(dial.clone())
        .backoff(backoff(config.backoff()))
        .budget(config.connection_budget())
        .limits(config.limits())
        .sentry(SentryConfig::default().every(config.sentry_every()).idle(config.sentry_idle()))
        // A cluster's slots go to other lanes; there fences keep the order.
        .keep_refused(!matches!(config.deployment(), Deployment::Cluster { .. }))
        .seed(fastrand::u64(..));
    let lease = LeaseConfig::default().max(config.max_leases()).acquire_timeout(config.lease_timeout());
    let link = LinkConfig::default()
        .dial(dial.clone())
        .backoff(backoff(config.backoff()))
        .cut_channel(settings.cut_channel())
        .limits(config.limits())
        .seed(fastrand::u64(..));
    Ok(Parts { dial, lane, lease, link, settings, sizes, encryption })
}

fn dial(config: &Config, handshake: HandshakeConfig) -> DialConfig {
    let dial = DialConfig::default()
        .handshake(handshake)
        .connect_timeout(config.connect_timeout())
        .handshake_timeout(config.handshake_timeout())
        .limits(config.limits());
    match config.connector() {
        Some(connector) => dial.connector(connector),
        None => dial,
    }
}

fn login(credentials: &Credentials) -> Option<Login> {
    let password = credentials.password.as_ref()?;
    Some(match &credentials.username {
        Some(user) => Login::user(user.as_str(), password.expose()),
        None => Login::password(password.expose()),
    })
}

fn backoff(backoff: Backoff) -> PoolBackoff {
    let (step, max, growth) = match backoff {
        Backoff::Exponential { step, max } => (step, max, Growth::Exponential),
        Backoff::Linear { step, max } => (step, max, Growth::Linear),
    };
    PoolBackoff::default().first(step).max(max).growth(growth)
}
