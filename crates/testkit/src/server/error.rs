//! What can go wrong with an embedded server itself.

use std::{io, net::SocketAddr};

/// Why the embedded server did not do what it was asked.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No loopback address could be had.
    #[error("could not listen on {addr}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// Slots were asked for where there are none.
    #[error("the embedded server was not built as a cluster")]
    NoCluster,
    /// There is no address with this index.
    #[error("there is no address {index}: the server has {count}")]
    NoSuchAddress {
        /// The index asked for.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// The server has ended.
    #[error("the embedded server has ended")]
    Ended,
    /// More addresses than a server can have.
    #[error("asked for {asked} addresses, at most {most} are possible")]
    TooManyAddresses {
        /// How many were asked for.
        asked: usize,
        /// How many there may be.
        most: usize,
    },
}
