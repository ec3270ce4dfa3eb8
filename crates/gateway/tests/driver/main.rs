//! The gateway over real sockets, with the memory broker.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "the helpers of tests"
)]

mod adversary;
mod browser;
mod centrifugo;
mod deflate;
mod directed;
#[cfg(feature = "tls")]
mod front;
mod gaps;
mod hooks;
mod hostile;
mod http;
mod jwks;
mod mounted;
mod npm;
#[cfg(feature = "otlp")]
mod otlp;
mod peer;
mod presence;
mod pusher;
mod restart;
mod start;
mod streams;
#[cfg(feature = "tls")]
mod tls;
