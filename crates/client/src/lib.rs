//! The Evenkeel client: one handle for a single Redis, Sentinel or Cluster.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use bytes::Bytes;
//! use evenkeel_client::{Client, Error, Frame};
//!
//! # async fn run() -> Result<(), Error> {
//! let client = Client::connect("redis://localhost:6379").await?;
//! client.set("greeting", "hello").await?;
//! let n: i64 = client.incr("visits").await?;
//! let (a, b): (i64, Option<String>) = client.pipeline().incr("a").get("b").await?;
//! client.get::<Option<Bytes>>("k").timeout(Duration::from_millis(50)).await?;
//! client.cmd("FT.SEARCH").arg("idx").arg("*").query::<Frame>().await?;
//! let mut news = client.subscribe(["news"]).await?;
//! # let _ = (n, a, b, news.recv().await);
//! # Ok(()) }
//! ```
//!
//! A command is a method; its options stand between the call and the `.await`, which sends it. [`Pipeline`],
//! [`Transaction`], [`Batch`] and [`Lease`] have the same methods. Every error tells by [`Error::executed`] whether the
//! server may have run the command.
//!
//! This crate knows what callers see and composes what lies below: connections in `evenkeel-pool`, topologies in
//! `evenkeel-topology`, announced maintenance in `evenkeel-hitless`. The
//! [architecture](https://github.com/evenkeel/evenkeel/blob/main/ARCHITECTURE.md) has the map.
//!
//! | feature | what it adds |
//! |---|---|
//! | `tokio` (default) | nothing here: the switch that every crate of the workspace has |
//! | `tls` | TLS by rustls |
//! | `serde` | `Deserialize` of [`Config`], and of replies; `Serialize` of [`topology::Topology`] |

mod batch;
mod call;
mod client;
mod commands;
pub mod config;
mod core;
mod error;
mod events;
mod health;
mod lease;
mod mailbox;
mod pipeline;
mod pubsub;
mod replies;
mod scan;
pub mod topology;
mod transaction;

pub use batch::Batch;
pub use call::Call;
pub use client::{Client, Cmd};
pub use commands::{End, Pairs, ReadOptions, Script, ToPairs, Trim, ZaddOptions, kind};
pub use config::{Config, ConfigBuilder, Credentials, Deployment, Origin, ReadPolicy, Secret};
pub use error::{Error, ErrorKind, Executed, MaintenanceKind, Phase};
/// Settings of announced maintenance, and all that is behind them: [`ConfigBuilder::maintenance_config`].
pub use evenkeel_hitless::{self as hitless, Config as MaintenanceConfig};
/// Hooks around announcements of maintenance: [`ConfigBuilder::maintenance_hook`].
pub use evenkeel_hitless::{LoggingHook, Maintenance, MetricsHook, NotificationContext, NotificationHook};
/// What the client's signatures take and give.
pub use evenkeel_protocol::{
    Command, DecodeError, Endpoint, Frame, FromReply, Kind, Reader, Reply, ServerError, Slot, ToArg, ToArgs,
};
pub use events::{Disorder, Event, EventStream};
pub use health::{ConnectionState, EndpointHealth, Health, Role};
pub use lease::Lease;
pub use pipeline::{EachPipeline, Pipeline};
pub use pubsub::{Delivery, Subscribing, Subscription};
pub use replies::{Append, Replies};
pub use scan::Scan;
pub use topology::{Topology, TopologyStream, TopologyUpdate};
pub use transaction::{Transaction, Unwatched, Watched};

/// The futures behind the `.await`s, for those who must name them.
pub mod future {
    pub use crate::{
        pipeline::{Each, Outcome, Piping, Whole},
        transaction::Executing,
    };
}

/// How connections come about and log in: [`ConfigBuilder::connector`], [`ConfigBuilder::credentials_provider`].
pub mod transport {
    pub use evenkeel_pool::{
        ConnectError, Connected, Connecting, Connector, CredentialsProvider, Direct, HttpConnect,
        LiveCredentials, Renewed, Resolver, Resolving, Socks5, Stream, SystemResolver,
    };
    /// A user name and a password, or a token.
    pub use evenkeel_protocol::conn::Credentials as Login;
}

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
