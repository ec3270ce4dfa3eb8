//! A TCP proxy that makes trouble: it delays, slices, cuts, stalls, loses, resets, injects and rewrites.
//!
//! It sits on a loopback port of its own before any server and knows nothing of Redis, but for one thing: it can
//! tell where RESP frames end, so that a push can be slipped in between two replies. Everything is steered while
//! connections live, through a [`ProxyHandle`] that any task may hold.
//!
//! ```
//! use std::time::Duration;
//!
//! use evenkeel_testkit::proxy::{Direction, Proxy, Rules};
//!
//! # async fn shown(server: std::net::SocketAddr) -> std::io::Result<()> {
//! let proxy = Proxy::start(server).await?;
//! let trouble = proxy.handle();
//! // Connect the client to `proxy.addr()`, then:
//! trouble.set(Direction::ToClient, Rules::new().delay(Duration::from_millis(20)).slice(3));
//! trouble.reset_all();
//! # Ok(())
//! # }
//! ```
//!
//! A [`Front`] puts several such proxies before one server and makes it announce maintenance.

mod boundary;
mod clock;
mod connection;
mod front;
mod handle;
mod listen;
mod pump;
mod replace;
mod rules;

pub use front::{Announced, Front, Notice};
pub use handle::{ConnectionId, ConnectionInfo, ProxyHandle, When};
pub use listen::Proxy;
pub use rules::{CutHow, Direction, Rules};
