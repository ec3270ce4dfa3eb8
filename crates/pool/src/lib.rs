//! Connections of Evenkeel: multiplexed lanes, exclusive leases, subscription links, and the endpoint tables over them.
//!
//! | feature | what it adds |
//! |---|---|
//! | `tokio` (default) | the drivers: sockets, timers and tasks |
//! | `tls` | encrypted connections by rustls |

#[cfg(feature = "tokio")]
pub mod driver;
pub mod machine;
mod queue;

#[cfg(feature = "tls")]
pub use driver::tls::{TlsBuilder, TlsConfig, TlsError};
#[cfg(feature = "tokio")]
pub use driver::{
    connect::{ConnectError, Connected, Connecting, Connector, Direct, Resolver, Resolving, SystemResolver},
    credentials::{CredentialsProvider, LiveCredentials, Renewed},
    dial::{ConnInfo, DialConfig, DialError, Phase, Stream},
    lane::{Deaf, Lane, LaneCall, LaneConfig, LaneId, LaneObserver, Readiness},
    lease::{AcquireError, Lease, LeaseConfig, LeasePool, Reuse},
    link::{Link, LinkConfig, LinkId, LinkObserver},
    proxy::{HttpConnect, Socks5},
};
pub use queue::{Failure, Outcome};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
