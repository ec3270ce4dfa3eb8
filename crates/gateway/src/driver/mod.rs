//! The async half: tasks of the gateway, of its shards and of its sessions.

pub(crate) mod clock;
pub(crate) mod conn;
pub(crate) mod hook;
pub(crate) mod http;
pub(crate) mod jwks;
pub(crate) mod listen;
pub(crate) mod open;
pub(crate) mod rest;
pub(crate) mod route;
pub(crate) mod service;
pub(crate) mod session;
pub(crate) mod shard;
pub(crate) mod shared;
pub(crate) mod socket;
#[cfg_attr(not(feature = "tls"), path = "no_tls.rs")]
pub(crate) mod tls;
