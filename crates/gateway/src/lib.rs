//! Live updates to browsers: Redis pub/sub broadcast to WebSocket clients, through every failover.

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
