//! The decisions: which node to ask, whom to believe, where writes go. No clock, no I/O, no randomness but a seed.
//!
//! The three resolvers take the same inputs and give the same actions, so that one driver and one simulated world run
//! them all. An input that a resolver has no use for is ignored.

mod action;
pub mod cluster;
pub mod fixed;
mod input;
mod jitter;
pub mod sentinel;
mod zones;

pub use action::{Action, Report, SentinelQuestion, ViewCommand};
pub use cluster::{ClusterConfig, ClusterResolver};
pub use fixed::{FixedConfig, FixedResolver};
pub use input::{Complaint, Input, SentinelAnswer};
pub use sentinel::{SentinelConfig, SentinelResolver};
