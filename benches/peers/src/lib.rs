//! What all contestants of the peer bench share: the rows, the clocks, and the loop around a client.
//!
//! A contestant is a program of its own (`src/bin`): `evenkeel ROW RUNTIME ADDRESS MODE SECONDS` runs one row once
//! and prints one line of `name=value` pairs, which `cargo xtask bench peers` reads. It sets up no server and pins
//! nothing but its publisher: that is the driver's work.

pub mod allocations;
mod floor;
mod latency;
mod meter;
mod program;
mod publisher;
mod row;

pub use floor::Floor;
pub use meter::{Meter, Outcome};
pub use program::run;
pub use row::{Feed, Got, Peer};

/// Counts allocations where it is told to; in timed rounds it only forwards.
#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;
