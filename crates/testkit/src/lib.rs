//! Test against Redis without pain: an embedded server that announces maintenance, real-server topologies, a fault proxy, a simulated world.

pub mod launcher;
pub mod proxy;
pub mod server;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
