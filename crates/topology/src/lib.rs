//! Which server is the primary, who owns a slot: the single, Sentinel and Cluster resolvers of Evenkeel.
//!
//! A resolver is a machine: it is told what servers answered and what sentinels published, and says what to ask next and
//! where writes go. The drivers do the asking; the result is a [`Topology`], an immutable snapshot that every reader shares.
//!
//! ```
//! use evenkeel_topology::{Draft, Mode, Node, ReadPolicy, Role};
//!
//! let mut draft = Draft::new(Mode::Sentinel);
//! let primary = draft.node(Node::new("10.0.0.1:6379".parse().unwrap(), Role::Primary));
//! draft.shard(Some(primary), []);
//! let topology = draft.build(1);
//! assert_eq!(topology.plan(None, &ReadPolicy::Primary, 0, |_| None).first().unwrap().port(), 6379);
//! ```
//!
//! | feature | what it adds |
//! |---|---|
//! | `tokio` (default) | the drivers that ask nodes and watch sentinels |
//! | `serde` | snapshots can be serialised |

mod diff;
#[cfg(feature = "tokio")]
pub mod driver;
mod error;
pub mod machine;
mod plan;
pub mod read;
mod redirect_policy;
mod slot_map;
mod snapshot;

pub use diff::{Change, diff};
pub use error::{AskFailure, Found, ReadError, ResolveError, Unproven};
pub use machine::{
    Action, ClusterConfig, ClusterResolver, Complaint, FixedConfig, FixedResolver, Input, Report,
    SentinelAnswer, SentinelConfig, SentinelQuestion, SentinelResolver, ViewCommand,
};
pub use plan::{Plan, ReadPolicy};
pub use redirect_policy::RedirectPolicy;
pub use slot_map::SlotMap;
pub use snapshot::{Draft, Health, Mode, Node, Role, SentinelNode, Topology};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
