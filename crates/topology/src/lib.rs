//! Which server is the primary, who owns a slot: the single, Sentinel and Cluster resolvers of Evenkeel.

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
