//! The handoff engine of Evenkeel: announced maintenance moves connections before it happens.
//!
//! [`HandoffEngine`] is a machine: what servers announce and what happens to connections goes in as [`Input`], what is
//! to be done comes out as [`Action`]. It knows neither sockets nor pools nor topologies.
//!
//! ```
//! use evenkeel_hitless::{Config, Mode, Protocol};
//!
//! let settings = Config::new().mode(Mode::Auto).build(Protocol::Resp3)?;
//! let sizes = settings.sizes(100, 0);
//! assert_eq!((sizes.workers, sizes.queue), (33, 500));
//! # Ok::<(), evenkeel_hitless::ConfigError>(())
//! ```
//!
//! | feature | what it adds |
//! |---|---|
//! | `tokio` (default) | the driver: a task that runs the engine, its timer and the hooks |
//! | `serde` | settings from files |

mod action;
mod config;
#[cfg(feature = "tokio")]
mod driver;
mod endpoint_type;
mod event;
mod hooks;
mod ids;
mod input;
pub mod machine;
mod metrics;
mod opt_in;
mod sizes;

pub use action::{Action, Destination, Move, MoveStyle, Scope};
pub use config::{Config, ConfigError, LogLevel, Mode, Protocol, Settings};
#[cfg(feature = "tokio")]
pub use driver::{Apply, Maintenance, TellError};
pub use endpoint_type::{EndpointType, EndpointTypeError};
pub use event::{Event, Family, HandoffCause, Outcome};
#[cfg(feature = "tokio")]
pub use hooks::LoggingHook;
pub use hooks::{
    HookMetrics, Hooks, MetricsHook, NotificationContext, NotificationHook, NotificationMetrics,
};
pub use ids::{ConnId, HandoffId, Origin};
pub use input::{Input, MoveError};
pub use machine::HandoffEngine;
pub use metrics::{Durations, Metrics, Sample, SampleKind};
pub use opt_in::{OptIn, OptInError, OptInReply, OptInVerdict, Refusals};
pub use sizes::Sizes;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
