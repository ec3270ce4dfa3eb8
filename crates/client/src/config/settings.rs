//! `Config`: a checked configuration, and the settings that stand in a URL's query.

use std::{num::NonZeroU16, time::Duration};

use evenkeel_protocol::{Endpoint, Limits};

use super::{
    Backoff, ConfigBuilder, Credentials, HookList, Origin, ProtocolVersion, ReadPolicy, RedirectPolicy,
    Transport, Warning, defaults, error::Problem, value::Value,
};

/// What is behind the client.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deployment {
    /// Redis Cluster.
    Cluster {
        /// Nodes to ask first; the others are learned.
        nodes: Vec<Endpoint>,
    },
    /// A primary and its replicas, watched by sentinels.
    Sentinel {
        /// Sentinels to ask first; the others are learned.
        sentinels: Vec<Endpoint>,
        /// The name under which the sentinels know the primary.
        name: String,
        /// What is said to the sentinels; they never get the data nodes' password.
        credentials: Credentials,
        /// The sentinels speak TLS.
        tls: bool,
    },
    /// One server.
    Single {
        /// Its address.
        endpoint: Endpoint,
    },
}

/// How TLS connections are made. Default: the system's certificate authorities, no certificate of our own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tls {
    /// A PEM file of certificate authorities that are trusted in place of the system's.
    pub ca_file: Option<String>,
    /// A PEM file with our own certificate, when the server asks for one.
    pub cert_file: Option<String>,
    /// A PEM file with the key of our own certificate.
    pub key_file: Option<String>,
    /// The name that the server's certificate must be for. Default: the host dialled.
    pub server_name: Option<String>,
    /// Takes any certificate: whoever is between can read and change everything. Default: false.
    pub insecure: bool,
}

/// A checked configuration.
///
/// Made from a URL (`FromStr`), from the environment ([`from_env`](Self::from_env)) or by a
/// [`ConfigBuilder`]. `Display` writes it as a URL with `***` in place of passwords, and `Debug` shows none either.
///
/// ```
/// use evenkeel_client::{Config, Deployment};
///
/// let config: Config = "redis+sentinel://:secret@s1:26379,s2/mymaster/1?timeout=3s".parse()?;
/// assert!(matches!(config.deployment(), Deployment::Sentinel { name, .. } if name == "mymaster"));
/// assert_eq!(config.command_timeout().as_secs(), 3);
/// assert_eq!(
///     config.to_string(),
///     "redis+sentinel://:***@s1:26379,s2:26379/mymaster/1?command_timeout=3s"
/// );
/// # Ok::<(), evenkeel_client::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub(super) deployment: Deployment,
    pub(super) origin: Origin,
    pub(super) credentials: Credentials,
    pub(super) password_origin: Origin,
    pub(super) tls: Option<Tls>,
    pub(super) settings: Settings,
    pub(super) backoff: Backoff,
    pub(super) limits: Limits,
    pub(super) redirect_policy: RedirectPolicy,
    pub(super) maintenance: Vec<(String, String)>,
    pub(super) hooks: HookList,
    pub(super) transport: Transport,
    pub(super) warnings: Vec<Warning>,
}

impl Default for Config {
    /// `redis://localhost:6379`
    fn default() -> Self {
        Self {
            deployment: Deployment::Single { endpoint: Endpoint::new("localhost", defaults::PORT) },
            origin: Origin::Default,
            credentials: Credentials::default(),
            password_origin: Origin::Default,
            tls: None,
            settings: Settings::default(),
            backoff: Backoff::default(),
            limits: Limits::default(),
            redirect_policy: RedirectPolicy::default(),
            maintenance: Vec::new(),
            hooks: HookList::default(),
            transport: Transport::default(),
            warnings: Vec::new(),
        }
    }
}

impl Config {
    /// Starts with `redis://localhost:6379` and every default.
    pub fn builder() -> ConfigBuilder {
        ConfigBuilder::default()
    }

    /// The same, but connecting waits for nothing: see [`lazy`](Self::lazy).
    #[must_use]
    pub fn into_lazy(mut self) -> Self {
        self.settings.lazy = true;
        self
    }

    /// The same with another [`backoff`](Self::backoff), unless one was chosen already.
    #[must_use]
    pub fn with_usual_backoff(mut self, usual: Backoff) -> Self {
        if self.backoff == Backoff::default() {
            self.backoff = usual;
        }
        self
    }

    /// What is behind the client.
    pub fn deployment(&self) -> &Deployment {
        &self.deployment
    }

    /// The addresses configured: the server, the sentinels or the nodes.
    pub fn seeds(&self) -> &[Endpoint] {
        match &self.deployment {
            Deployment::Cluster { nodes } => nodes,
            Deployment::Sentinel { sentinels, .. } => sentinels,
            Deployment::Single { endpoint } => std::slice::from_ref(endpoint),
        }
    }

    /// Where the addresses came from.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// What is said to data nodes.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Where the password came from.
    pub fn password_origin(&self) -> Origin {
        self.password_origin
    }

    /// How TLS is spoken with data nodes; `None` for plain connections.
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// The wait before a lost connection is dialled again. Default: 50 ms, 100 ms, 150 ms, ... up to 2 s.
    pub fn backoff(&self) -> Backoff {
        self.backoff
    }

    /// Caps on what one reply may hold.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Where redirections may lead. Default: anywhere.
    pub fn redirect_policy(&self) -> &RedirectPolicy {
        &self.redirect_policy
    }

    /// Settings of the handoff engine by the names under which they were given: `maint_...` or `EVENKEEL_MAINT_...`.
    pub fn maintenance(&self) -> &[(String, String)] {
        &self.maintenance
    }

    /// What works and is probably not what was meant.
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }
}

/// Defines each setting once: its field, default, setter, getter and keys in a URL's query, the first one written.
macro_rules! settings {
    (
        values { $(
            $(#[doc = $doc:literal])+
            $field:ident: $type:ty = $default:expr, $key:literal $(| $alias:literal)*;
        )+ }
        names { $(
            $(#[doc = $name_doc:literal])+
            $name:ident: $name_key:literal $(| $name_alias:literal)*;
        )+ }
    ) => {
        /// What stands in a URL's query.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub(super) struct Settings {
            $(pub(super) $field: $type,)+
            $(pub(super) $name: Option<String>,)+
        }

        impl Default for Settings {
            fn default() -> Self {
                Self { $($field: $default,)+ $($name: None,)+ }
            }
        }

        impl Settings {
            /// Reads one setting and tells its canonical key; `None` for a key that is not one of them.
            pub(super) fn apply(&mut self, key: &str, text: &str) -> Option<Result<&'static str, Problem>> {
                Some(match key {
                    $($key $(| $alias)* => read(&mut self.$field, text).map(|()| $key),)+
                    $($name_key $(| $name_alias)* => read(&mut self.$name, text).map(|()| $name_key),)+
                    _ => return None,
                })
            }

            /// What differs from the defaults, as keys and values.
            pub(super) fn written(&self) -> Vec<(&'static str, String)> {
                let default = Self::default();
                let mut written = Vec::new();
                $(if self.$field != default.$field {
                    written.extend(self.$field.print().map(|text| ($key, text)));
                })+
                $(written.extend(self.$name.print().map(|text| ($name_key, text)));)+
                written
            }
        }

        impl Config {
            $($(#[doc = $doc])+
            pub fn $field(&self) -> $type {
                self.settings.$field
            })+
            $($(#[doc = $name_doc])+
            pub fn $name(&self) -> Option<&str> {
                self.settings.$name.as_deref()
            })+
        }

        impl ConfigBuilder {
            $($(#[doc = $doc])+
            pub fn $field(mut self, value: $type) -> Self {
                self.config.settings.$field = value;
                self
            })+
            $($(#[doc = $name_doc])+
            pub fn $name(mut self, value: impl Into<String>) -> Self {
                self.config.settings.$name = Some(value.into());
                self
            })+
        }
    };
}

fn read<T: Value>(field: &mut T, text: &str) -> Result<(), Problem> {
    *field = T::parse(text).ok_or_else(|| Problem::expected(T::EXPECTED, text))?;
    Ok(())
}

settings! {
    values {
        /// The time in which an answer is expected once a command is written. Default: 2 s.
        ///
        /// Announced maintenance relaxes it; a connection that is silent for longer is looked into. Shorter notices a
        /// dead server sooner and takes slow commands for one.
        answer_timeout: Duration = defaults::ANSWER_TIMEOUT, "answer_timeout";
        /// The time that [`Client::close`](crate::Client::close) is commonly given. Default: 5 s.
        close_timeout: Duration = defaults::CLOSE_TIMEOUT, "close_timeout";
        /// A command's time in all, from the first poll to its reply. Default: 10 s.
        ///
        /// It spans waiting, sending, redirections and failovers: below a second or two it gives up while a failover runs.
        command_timeout: Duration = defaults::COMMAND_TIMEOUT, "command_timeout" | "timeout";
        /// The time for a dial. Default: 2 s.
        connect_timeout: Duration = defaults::CONNECT_TIMEOUT, "connect_timeout";
        /// Bytes queued and in flight on one connection before callers wait. Default: 16 MiB.
        connection_budget: usize = defaults::CONNECTION_BUDGET, "connection_budget";
        /// The number of the database. Default: 0, the only one that most clusters have.
        db: u32 = 0, "db";
        /// Dials at the same time to one node. Default: 4.
        dials_per_node: usize = defaults::DIALS_PER_NODE, "dials_per_node";
        /// The time for the handshake behind a dial. Default: 2 s.
        handshake_timeout: Duration = defaults::HANDSHAKE_TIMEOUT, "handshake_timeout";
        /// The time between two health checks. Default: 30 s.
        health_interval: Duration = defaults::HEALTH_INTERVAL, "health_interval";
        /// Whether the server is told who connects: the library's name and version (`CLIENT SETINFO`), and that it follows
        /// redirections (Valkey's `CLIENT CAPA`). Default: true.
        ///
        /// False is for proxies that close a connection at a command they do not know; such a proxy also needs
        /// `protocol=2`, with which nothing is said before the first command but what credentials and the database need.
        identity: bool = true, "identity";
        /// Shared connections to each endpoint. Default: 1.
        ///
        /// One multiplexed connection saturates most servers; raise it when one core cannot parse replies fast enough.
        /// Commands on different slots of one handle may then overtake each other.
        lanes: NonZeroU16 = defaults::LANES, "lanes";
        /// Connects at the first command, so that the program starts while its server is away. Default: false.
        lazy: bool = false, "lazy";
        /// The wait for a connection of one's own, a server that is away for a moment included. Default: 5 s.
        lease_timeout: Duration = defaults::LEASE_TIMEOUT, "lease_timeout";
        /// Connections to one endpoint at most, lanes and leases together; 0 is no cap beyond theirs. Default: 0.
        max_connections: usize = 0, "max_connections";
        /// Leased connections to one endpoint at most. Default: 16.
        max_leases: usize = defaults::MAX_LEASES, "max_leases";
        /// Leased connections kept open to one endpoint while nobody uses them. Default: 0.
        min_idle_leases: usize = defaults::MIN_IDLE_LEASES, "min_idle_leases";
        /// Which protocol is spoken. Default: RESP3, RESP2 when the server refuses it.
        protocol: ProtocolVersion = ProtocolVersion::Auto, "protocol";
        /// Where reads go. Default: to the primary.
        read_policy: ReadPolicy = ReadPolicy::Primary, "read_policy" | "read";
        /// Proves behind every so many commands on a shared connection that replies are in step, by a `PING` with a word of
        /// its own; 0 is never. Default: 0.
        ///
        /// A connection that is not is closed, and what is in flight told as unknown: see
        /// [`Event::OutOfStep`](crate::Event::OutOfStep). Each question costs the server as much as a `GET`.
        sentry_every: u32 = 0, "sentry_every";
        /// The same once nothing was written for so long, when something was since the last proof. Default: never.
        sentry_idle: Option<Duration> = None, "sentry_idle";
        /// Bytes that wait for one subscriber before the oldest are dropped. Default: 8 MiB.
        subscriber_bytes: usize = defaults::SUBSCRIBER_BYTES, "subscriber_bytes";
        /// Messages that wait for one subscriber before the oldest are dropped. Default: 65 536.
        subscriber_messages: usize = defaults::SUBSCRIBER_MESSAGES, "subscriber_messages";
    }
    names {
        /// The name of every connection, as `CLIENT LIST` shows it. Default: none.
        client_name: "client_name" | "name";
        /// The zone that we are in, for [`ReadPolicy::Zone`]. Default: none.
        zone: "zone";
    }
}
