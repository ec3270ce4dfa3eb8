//! nom `complete` parsers over whole frames; the [`Scanner`](crate::Scanner) has made sure that they are whole.
//!
//! nom stays inside: no signature outside this folder names it.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod aggregate;
mod scalar;

pub(crate) use aggregate::whole;
pub(crate) use scalar::{Header, double, header, integer};
