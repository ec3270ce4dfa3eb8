//! The driver against a scripted deployment in virtual time, and against real servers.

#![expect(clippy::unwrap_used, reason = "tests report by panicking, in their own functions too")]

mod cluster;
mod driver;
mod seeds;
mod sentinel;
mod tcp;
