//! RESP2 and RESP3 codec, commands, replies and the connection machine of Evenkeel, without I/O.

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
