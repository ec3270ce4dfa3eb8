//! The Evenkeel client: one handle for a single Redis, Sentinel or Cluster.

pub mod config;
mod error;

pub use config::{Config, ConfigBuilder, Credentials, Deployment, Origin, Secret};
pub use error::{Error, ErrorKind, Executed, Phase};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
