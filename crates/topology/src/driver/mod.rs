//! Runs a resolver: asks what it wants asked, watches sentinels, publishes snapshots, hands the rest to the client.
//!
//! It decides nothing. Whoever has connections implements [`Ask`]; [`spawn`] starts the one task.

mod ask;
mod clock;
mod outbox;
mod publish;
mod questions;
mod run;

pub use ask::{Ask, EventSink, NodeRole};
pub use outbox::TopologyEvent;
pub use publish::TopologyReader;
pub use run::{DriverConfig, Reporter, ResolverHandle, spawn};
