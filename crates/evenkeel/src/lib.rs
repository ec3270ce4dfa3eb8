//! Programs keep talking to Redis while Redis changes underneath them: client, topologies, hitless handoffs and a WebSocket gateway.
//!
//! ```no_run
//! use evenkeel::prelude::*;
//!
//! # async fn run() -> Result<(), Error> {
//! // Also redis+sentinel://s1,s2/mymaster and redis+cluster://n1,n2
//! let client = Client::connect("redis://localhost:6379").await?;
//! client.set("greeting", "hello").await?;
//! let visits = client.incr("visits").await?;
//! let (a, b): (i64, Option<String>) = client.pipeline().incr("a").get("b").await?;
//! # let _ = (visits, a, b);
//! # Ok(()) }
//! ```
//!
//! The types of the client stand at the top; each layer below it is a module.
//!
//! | module | what it is |
//! |---|---|
//! | [`client`] | one handle for a single Redis, Sentinel or Cluster |
//! | `gateway` | broadcasts what is published to WebSocket clients; behind the feature of the same name |
//! | [`hitless`] | decides what a client does about announced maintenance |
//! | [`topology`] | which server is the primary, who owns a slot |
//! | [`pool`] | multiplexed lanes, exclusive leases, subscription links |
//! | [`protocol`] | RESP2 and RESP3, commands and replies, without I/O |
//!
//! | feature | default | what it brings |
//! |---|---|---|
//! | `tokio` | yes | the runtime; the client needs it |
//! | `codec` | no | a codec for `tokio-util` |
//! | `gateway` | no | the module `gateway` |
//! | `otlp` | no | with `gateway`: traces and metrics to a collector of OpenTelemetry |
//! | `serde` | no | replies and settings through serde |
//! | `tls` | no | `rediss://`, and TLS of the gateway's own |

pub mod prelude;

pub use evenkeel_client as client;
pub use evenkeel_client::*;
#[cfg(feature = "gateway")]
pub use evenkeel_gateway as gateway;
#[cfg(feature = "gateway")]
pub use evenkeel_gateway::{Gateway, GatewayConfig};
pub use evenkeel_hitless as hitless;
pub use evenkeel_hitless::Config as MaintenanceConfig;
pub use evenkeel_pool as pool;
pub use evenkeel_pool::{LaneConfig, LeaseConfig as PoolConfig};
pub use evenkeel_protocol as protocol;
pub use evenkeel_topology as topology;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
