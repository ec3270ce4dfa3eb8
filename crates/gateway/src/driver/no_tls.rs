//! Stands in for TLS where the crate was built without it: there never is one.

use crate::config::TlsConfig;
use crate::error::ConfigError;
use std::io;
use std::path::Path;
use tokio::net::TcpStream;

/// Never made.
#[derive(Debug)]
pub(crate) enum Tls {}

impl Tls {
    pub(crate) fn new(_config: &TlsConfig) -> Result<Self, ConfigError> {
        Err(ConfigError::new("tls", "was asked for, and this program was built without the feature `tls`"))
    }

    pub(crate) fn reload(&self, _config: &TlsConfig) -> Result<(), ConfigError> {
        match *self {}
    }

    #[expect(clippy::unused_async, reason = "stands in for a call that waits")]
    pub(crate) async fn accept(&self, _stream: TcpStream) -> io::Result<TcpStream> {
        match *self {}
    }
}

/// Never made.
#[derive(Debug)]
pub(crate) enum Outgoing {}

impl Outgoing {
    pub(crate) fn new(key: &'static str, _own: Option<&Path>) -> Result<Self, ConfigError> {
        Err(ConfigError::new(key, "needs TLS, and this program was built without the feature `tls`"))
    }

    pub(crate) fn reload(&self, _key: &'static str, _own: &Path) -> Result<(), ConfigError> {
        match *self {}
    }

    #[expect(clippy::unused_async, reason = "stands in for a call that waits")]
    pub(crate) async fn connect(&self, _host: &str, _stream: TcpStream) -> io::Result<TcpStream> {
        match *self {}
    }
}
