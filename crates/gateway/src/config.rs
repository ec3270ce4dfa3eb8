//! Settings of the gateway, as a file gives them: unknown keys are refused, every key has a default.

use crate::hooks::HooksConfig;
use crate::namespace::{ChannelOptions, Namespace};
use serde::Deserialize;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Settings of a gateway.
///
/// `Default` gives what an empty file gives: the memory broker on 127.0.0.1:8000, no channel open to anybody,
/// no server API.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct GatewayConfig {
    /// The address to listen on. Default: `127.0.0.1:8000`.
    pub listen: SocketAddr,
    /// Whether another process may listen on the same address (SO_REUSEPORT), as during a restart. Default: false. On
    /// Linux the system spreads connections over all that listen, and a gateway that stops leaves none unanswered.
    pub reuse_port: bool,
    /// TLS of the gateway's own. Default: unset, and connections are plain. Needs the feature `tls`.
    pub tls: Option<TlsConfig>,
    /// Origins of web pages that may connect, each exact (`https://app.example.com`). Default: none, which lets
    /// in the gateway's own origin and requests without an `Origin` header. `*` lets in everybody.
    pub allowed_origins: Vec<String>,
    /// Which broker carries publications. Default: unset, which is [`BrokerKind::Redis`] when `redis.url` is set, else
    /// [`BrokerKind::Memory`]; the program `evenkeel` takes `REDIS_MODE` and its kin for such a wish too.
    pub broker: Option<BrokerKind>,
    /// Options of channels without a namespace prefix. Default: nobody may do anything.
    pub channels: ChannelOptions,
    /// Options of channels named `<namespace>:...`. Default: none; a channel of an unknown one is refused.
    pub namespaces: Vec<Namespace>,
    /// Bounds on what clients may use.
    pub limits: LimitsConfig,
    /// Heartbeats and deadlines of sessions.
    pub session: SessionConfig,
    /// The HTTP API for servers.
    pub api: ApiConfig,
    /// Tokens of clients. Default: unset, and every client is anonymous.
    pub token: Option<TokenConfig>,
    /// The application of Pusher's protocol. Default: unset, which switches that protocol off.
    pub pusher: Option<PusherConfig>,
    /// The application's own endpoints that are asked before clients may do something. Default: none.
    pub hooks: HooksConfig,
    /// Where Redis is, for the broker `redis`.
    pub redis: RedisConfig,
    /// How the gateway behaves while its broker is unreachable.
    pub outage: OutageConfig,
}

/// TLS of the gateway's own: 1.2 and 1.3, HTTP/1.1 only.
///
/// Both files are read again by [`GatewayHandle::reload`](crate::GatewayHandle::reload), for the handshakes that follow.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificate and those that lead to its authority, PEM.
    pub cert_file: PathBuf,
    /// The certificate's private key, PEM: PKCS #8, PKCS #1 or SEC 1.
    pub key_file: PathBuf,
}

/// Tokens that say who a client is: JWT signed with a shared secret, or by a public key of a JWKS file.
///
/// A client's token has its user as `sub` and may end with `exp`. A token for one channel has `sub` and
/// `channel`, and opens that channel whatever its options say; its `exp` counts when the client subscribes.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenConfig {
    /// The secret of HS256, HS384 and HS512. Default: none.
    #[serde(default)]
    pub hmac_secret: String,
    /// A JWKS document with public keys for RS256, RS384, RS512, ES256, ES384 and EdDSA. Default: none. At least one
    /// of secret, file and URL is needed. Read again by [`GatewayHandle::reload`](crate::GatewayHandle::reload).
    #[serde(default)]
    pub jwks_file: Option<PathBuf>,
    /// A URL of such a document, `http` or (with the feature `tls`) `https`. Default: none. Fetched when the gateway
    /// starts and every `jwks_refresh`, and sooner, at most once a second, when a token names a key that is not known.
    /// While it cannot be fetched the keys stay as they were; until it was once, its tokens are refused.
    #[serde(default)]
    pub jwks_url: Option<String>,
    /// The authorities, PEM, one of which must have signed the certificate of an `https` URL. Default: the system's. Read
    /// when the gateway starts.
    #[serde(default)]
    pub jwks_ca_file: Option<PathBuf>,
    /// Between two fetches of `jwks_url`. Default: 10 min. At least 1 s.
    #[serde(default = "jwks_refresh", with = "humantime_serde")]
    pub jwks_refresh: Duration,
    /// Whether a client without a token is let in, with the empty user. Default: false, close code 3500.
    #[serde(default)]
    pub anonymous: bool,
}

const fn jwks_refresh() -> Duration {
    Duration::from_secs(600)
}

impl Default for TokenConfig {
    fn default() -> Self {
        Self {
            hmac_secret: String::new(),
            jwks_file: None,
            jwks_url: None,
            jwks_ca_file: None,
            jwks_refresh: jwks_refresh(),
            anonymous: false,
        }
    }
}

impl std::fmt::Debug for TokenConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenConfig").field("anonymous", &self.anonymous).finish_non_exhaustive()
    }
}

/// The application of Pusher's protocol.
///
/// While it is set, channels named `private-...` and `presence-...` need its signature, in every protocol.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PusherConfig {
    /// The number of the application in paths of the REST API.
    pub app_id: String,
    /// The application's key, which clients know.
    pub key: String,
    /// The application's secret, which only servers know.
    pub secret: String,
    /// Whether clients may send events to each other on private channels. Default: false.
    #[serde(default)]
    pub client_events: bool,
}

impl std::fmt::Debug for PusherConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PusherConfig")
            .field("app_id", &self.app_id)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// Where Redis is.
#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct RedisConfig {
    /// The address: `redis://`, `rediss://`, `redis+sentinel://`, `redis+cluster://` and their kin, with the
    /// client's settings as its query. Default: unset, and the environment says it: `REDIS_MODE`, `REDIS_URL`,
    /// `REDIS_PASSWORD`, `REDIS_SENTINELS`, `REDIS_SENTINEL_NAME`, `REDIS_CLUSTER_NODES`.
    pub url: Option<String>,
}

impl std::fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // An address may hold a password.
        f.debug_struct("RedisConfig").field("url", &self.url.as_ref().map(|_| "<set>")).finish()
    }
}

/// What carries publications between publishers and sessions.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum BrokerKind {
    /// This process alone; nothing to install.
    #[default]
    Memory,
    /// A Redis of any topology, shared by all gateways on it.
    Redis,
}

/// Bounds on what clients may use.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct LimitsConfig {
    /// Open connections of all kinds. Default: 100 000. Further ones get 503 with `Retry-After`.
    pub max_connections: usize,
    /// Open connections from one address. Default: 0, as many as there may be. Further ones get 503 with `Retry-After`.
    pub max_connections_per_address: usize,
    /// Connections accepted in one second. Default: 0, as many as come. Further ones get 503 with `Retry-After`.
    pub max_connections_per_second: u32,
    /// Bytes of one message from a client. Default: 65 536. A longer one ends the session with 1009.
    pub max_message: u32,
    /// Bytes of one publication's data. Default: 1 048 576.
    pub max_publication: usize,
    /// Bytes queued for one session. Default: 1 048 576. Beyond it the session is closed as slow (3008).
    pub outbox_bytes: usize,
    /// Frames queued for one session. Default: 16 384. Beyond it the session is closed as slow (3008).
    pub outbox_messages: usize,
    /// Channels that one session may be subscribed to. Default: 128.
    pub max_channels: usize,
    /// Bytes of a channel's name. Default: 255.
    pub max_channel_name: usize,
    /// Publications that a recovery or a history call returns at most. Default: 300.
    pub max_recovered: usize,
    /// Bytes of a request's head. Default: 8 192.
    pub max_head: usize,
}

/// Heartbeats and deadlines of sessions.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct SessionConfig {
    /// From accept to the end of the request's head. Default: 10 s.
    #[serde(with = "humantime_serde")]
    pub handshake_timeout: Duration,
    /// From the open WebSocket to the client's connect command. Default: 10 s, then close code 3502.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Between two heartbeats. Default: 25 s. Whole seconds, at least 1.
    #[serde(with = "humantime_serde")]
    pub ping_interval: Duration,
    /// How long the answer to a heartbeat may take. Default: 8 s, then close code 3012. Shorter than the
    /// interval.
    #[serde(with = "humantime_serde")]
    pub pong_timeout: Duration,
    /// How long a closed session may take to read its close frame. Default: 2 s.
    #[serde(with = "humantime_serde")]
    pub close_timeout: Duration,
    /// How long a drain spreads its closes. Default: 5 s.
    #[serde(with = "humantime_serde")]
    pub drain: Duration,
    /// Whether messages are compressed for clients that ask for it (permessage-deflate, each once for all of them, from
    /// 128 bytes on). Default: true.
    pub compression: bool,
}

/// The HTTP API for servers: off until it has a key.
#[derive(Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ApiConfig {
    /// The value of the header `X-API-Key` that opens `/api/`. Default: unset, and `/api/` answers 404.
    pub key: Option<String>,
    /// Bytes of one request's body. Default: unset, 4 MiB.
    pub max_body: Option<usize>,
}

impl std::fmt::Debug for ApiConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiConfig")
            .field("key", &self.key.as_ref().map(|_| "<set>"))
            .field("max_body", &self.max_body)
            .finish()
    }
}

/// How the gateway behaves while its broker is unreachable.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct OutageConfig {
    /// Publications that wait for the broker. Default: 65 536. Beyond it they are refused.
    pub queued_publications: usize,
    /// Bytes that wait for the broker. Default: 64 MiB. Beyond it publications are refused.
    pub queued_bytes: usize,
    /// How long a publisher waits before it is told that its publication is queued. Default: 1 s.
    #[serde(with = "humantime_serde")]
    pub answer_within: Duration,
    /// How long a subscriber waits for the broker before it is told to try again. Default: 5 s.
    #[serde(with = "humantime_serde")]
    pub subscribe_timeout: Duration,
    /// Between two probes of the way that publications take. Default: 2 s.
    #[serde(with = "humantime_serde")]
    pub probe_interval: Duration,
    /// Age of the last good probe at which the gateway stops being ready. Default: 5 s.
    #[serde(with = "humantime_serde")]
    pub probe_timeout: Duration,
}

impl GatewayConfig {
    /// The broker that these settings ask for.
    pub fn broker_kind(&self) -> BrokerKind {
        let by_url = if self.redis.url.is_some() { BrokerKind::Redis } else { BrokerKind::Memory };
        self.broker.unwrap_or(by_url)
    }
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8000)),
            reuse_port: false,
            tls: None,
            allowed_origins: Vec::new(),
            broker: None,
            channels: ChannelOptions::default(),
            namespaces: Vec::new(),
            limits: LimitsConfig::default(),
            session: SessionConfig::default(),
            api: ApiConfig::default(),
            token: None,
            pusher: None,
            hooks: HooksConfig::default(),
            redis: RedisConfig::default(),
            outage: OutageConfig::default(),
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            max_connections: 100_000,
            max_connections_per_address: 0,
            max_connections_per_second: 0,
            max_message: 65_536,
            max_publication: 1 << 20,
            outbox_bytes: 1 << 20,
            outbox_messages: 16_384,
            max_channels: 128,
            max_channel_name: 255,
            max_recovered: 300,
            max_head: 8_192,
        }
    }
}

impl Default for SessionConfig {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            ping_interval: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(8),
            close_timeout: Duration::from_secs(2),
            drain: Duration::from_secs(5),
            compression: true,
        }
    }
}

impl Default for OutageConfig {
    fn default() -> Self {
        Self {
            queued_publications: 65_536,
            queued_bytes: 64 << 20,
            answer_within: Duration::from_secs(1),
            subscribe_timeout: Duration::from_secs(5),
            probe_interval: Duration::from_secs(2),
            probe_timeout: Duration::from_secs(5),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BrokerKind, GatewayConfig};
    use std::time::Duration;

    #[test]
    fn a_file_gives_what_it_says() {
        let config: GatewayConfig = toml::from_str(
            r#"
            listen = "0.0.0.0:9000"
            broker = "redis"
            allowed_origins = ["https://app.example.com"]
            [channels]
            subscribe = "anyone"
            [[namespaces]]
            name = "news"
            subscribe = "anyone"
            history_size = 100
            history_ttl = "5m"
            recovery = true
            [session]
            ping_interval = "10s"
            [api]
            key = "hush"
            "#,
        )
        .unwrap();
        assert_eq!(config.broker, Some(BrokerKind::Redis));
        assert_eq!(config.broker_kind(), BrokerKind::Redis);
        assert_eq!(config.session.ping_interval, Duration::from_secs(10));
        assert_eq!(config.namespaces[0].options.history_ttl, Duration::from_secs(300));
        assert!(!format!("{config:?}").contains("hush"));
    }

    #[test]
    fn an_unknown_key_is_refused_and_named() {
        for (file, key) in [
            ("listn = \"0.0.0.0:1\"", "listn"),
            ("[limits]\nmax_chanels = 1", "max_chanels"),
            ("[channels]\nsubcribe = \"anyone\"", "subcribe"),
            ("[[namespaces]]\nname = \"a\"\nhistory = 1", "history"),
            ("[session]\nping = \"1s\"", "ping"),
        ] {
            let error = toml::from_str::<GatewayConfig>(file).unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
    }
}
