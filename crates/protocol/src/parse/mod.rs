//! nom `complete` parsers over whole frames; the [`Scanner`](crate::Scanner) has made sure that they are whole.
//!
//! nom stays inside: no signature outside this folder names it.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod aggregate;
mod scalar;

pub(crate) use aggregate::{front, whole};
pub(crate) use scalar::{Header, blob, double, header, integer, short_length};
