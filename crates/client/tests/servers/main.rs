//! The client against real servers that are really killed, failed over and resharded.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails by panicking")]

mod cluster;
mod handoff;
mod handoff_defects;
mod handoff_errors;
mod handoff_kinds;
mod load;
mod login;
mod pubsub;
mod sentinel;
mod single;
mod surface;
mod whole_cluster;
