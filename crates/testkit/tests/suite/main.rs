//! The testkit against real servers, real sockets and its own embedded server.

#![expect(clippy::unwrap_used, reason = "tests report by panicking, in their own functions too")]

mod deployment;
mod front;
mod launcher;
mod proxy;
mod server;
