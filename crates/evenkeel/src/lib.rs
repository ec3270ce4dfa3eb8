//! Programs keep talking to Redis while Redis changes underneath them: client, topologies, hitless handoffs and a WebSocket gateway.

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
