//! Pusher's protocol 7: `pusher-js` and Laravel Echo unmodified, with the signed REST API.
//!
//! The event of a publication is its own field where the data is an object with `event` and `data` (as Laravel
//! publishes to Redis too), else `message`. Continuity has no place in this protocol: where publications may be
//! missing, clients get the event `evenkeel:gap` on the channel.

pub(crate) mod auth;
pub(crate) mod encode;
pub(crate) mod rest;
pub(crate) mod session;

/// Whether a name is kept for channels that need Pusher's signature.
pub(crate) fn is_signed(channel: &str) -> bool {
    channel.starts_with("private-") || channel.starts_with("presence-")
}
