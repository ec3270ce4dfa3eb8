//! `EmbeddedServer`: a Redis for tests within the test's own process, which announces maintenance as hosted servers do.
//!
//! It speaks RESP2 and RESP3, keeps one data set behind one or more loopback addresses, and plays what real servers
//! do to their clients: moves announced and carried out, replies withheld, connections closed, slots that change
//! hands. It is no database: nothing is persisted, replicated or evicted, and EVAL runs only scripts registered in Rust.
//!
//! ```
//! use std::time::Duration;
//! use evenkeel_testkit::server::{EmbeddedServer, Move};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), evenkeel_testkit::server::Error> {
//! let server = EmbeddedServer::builder().addresses(2).start().await?;
//! // ... point a client at server.url(), then:
//! let moving = server.move_endpoint(Move::new(0, 1, Duration::from_millis(20))).await?;
//! let report = moving.finished().await?;
//! assert_eq!((report.closed, server.front_target()), (0, 1));
//! # Ok(())
//! # }
//! ```

mod clock;
mod cluster;
mod commands;
mod config;
mod conn;
mod counters;
mod data;
mod engine;
mod error;
mod fault;
mod glob;
mod handle;
mod listener;
mod maintenance;
mod moves;
mod ordered;
mod out;
mod record;
mod request;
mod script;
mod session;
mod shared;
mod tracking;

pub use config::{Builder, Spread};
pub use counters::{AddressCounters, ConnectionInfo};
pub use error::Error;
pub use handle::{EmbeddedServer, ServerHandle};
pub use maintenance::{Announced, Audience, EndpointType, MaintenanceSupport};
pub use moves::{Move, MoveReport, Moving};
pub use record::Recorded;
pub use script::Script;
