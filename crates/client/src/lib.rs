//! The Evenkeel client: one handle for a single Redis, Sentinel or Cluster.

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
