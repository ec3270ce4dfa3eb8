//! The client against real servers that are really killed, failed over and resharded.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

mod adversity;
mod away;
mod cluster;
mod handoff;
mod handoff_defects;
mod handoff_errors;
mod handoff_kinds;
mod load;
mod login;
mod lost_node;
mod order;
mod out_of_step;
mod pause;
mod pubsub;
mod seeds;
mod sentinel;
mod single;
mod surface;
#[cfg(feature = "tls")]
mod tls;
mod topologies;
mod whole_cluster;
