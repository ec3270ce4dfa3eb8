//! Connections of Evenkeel: multiplexed lanes, exclusive leases, subscription links, and the endpoint tables over them.

pub mod machine;
mod queue;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
