//! Live updates to browsers: Redis pub/sub broadcast to WebSocket clients, through every failover.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use evenkeel_gateway::{Gateway, GatewayConfig};
//!
//! let config = GatewayConfig::default();
//! let gateway = Gateway::builder().config(config).start().await?;
//! gateway.handle().publish("news", r#"{"text":"hello"}"#).await?;
//! gateway.stop().await;
//! # Ok(()) }
//! ```
//!
//! Clients speak Centrifugo's JSON protocol at `/connection/websocket`; its libraries work unmodified.
//! `/healthz`, `/readyz`, `/metrics` and the server API under `/api/` answer over HTTP.
//!
//! | feature | default | what it brings |
//! |---|---|---|
//! | `redis` | yes | the broker over any Redis topology |
//! | `tls` | no | TLS of the gateway's own |
//! | `otlp` | no | traces and metrics to a collector of OpenTelemetry |

mod api;
pub mod broker;
mod config;
mod doors;
mod driver;
mod error;
mod gateway;
mod hooks;
mod hub;
mod keys;
mod metrics;
mod namespace;
mod origin;
mod outbox;
mod presence;
mod publication;
mod telemetry;
mod token;
mod wire;
mod ws;

pub use broker::{Broker, MemoryBroker, Published, RedisBroker};
pub use config::{
    ApiConfig, BrokerKind, GatewayConfig, LimitsConfig, OutageConfig, PusherConfig, RedisConfig,
    SessionConfig, TlsConfig, TokenConfig,
};
pub use driver::service::{GatewayBody, GatewayService};
pub use error::{BrokerError, ConfigError, Error};
pub use gateway::{Gateway, GatewayBuilder, GatewayHandle, MountedGateway};
pub use hooks::{HookConfig, HooksConfig};
pub use hub::{Deliveries, Reservation};
pub use namespace::{Access, ChannelOptions, Namespace};
pub use presence::Member;
pub use publication::{Channel, Epoch, Position, Publication, json_line};
#[cfg(feature = "otlp")]
pub use telemetry::OtlpConfig;
pub use token::{Authenticator, Permission, Rejected};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
