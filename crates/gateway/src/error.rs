//! Errors of the gateway.

use std::borrow::Cow;

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("setting {key}: {problem}")]
pub struct ConfigError {
    key: String,
    problem: Cow<'static, str>,
}

impl ConfigError {
    pub(crate) fn new(key: impl Into<String>, problem: impl Into<Cow<'static, str>>) -> Self {
        Self { key: key.into(), problem: problem.into() }
    }

    /// The setting, as a path of keys.
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Redis could not be connected to.
    #[cfg(feature = "redis")]
    #[error("the broker cannot be connected to")]
    Redis(#[from] evenkeel_client::Error),
    /// The address could not be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Why a broker did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// The queue for an outage is full; nothing was done.
    #[error("the queue of waiting publications is full")]
    Full,
    /// The broker could not be reached in time; nothing was done.
    #[error("the broker cannot be reached")]
    Unavailable,
    /// The broker was reached, and whether it did what was asked is not known.
    #[error("the broker did not answer")]
    Unknown,
    /// The broker does not offer this.
    #[error("the broker does not offer this")]
    Unsupported,
}
