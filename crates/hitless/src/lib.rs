//! The handoff engine of Evenkeel: announced maintenance moves connections before it happens.

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
