//! `Endpoint`: an address that we dial; it knows nothing of who lives there.

use std::{fmt, str::FromStr, sync::Arc};

/// Where a server listens: a host and a port, or the path of a Unix socket.
///
/// ```
/// use evenkeel_protocol::Endpoint;
/// let v6: Endpoint = "[::1]:6379".parse().unwrap();
/// assert_eq!((v6.host(), v6.port()), ("::1", 6379));
/// assert_eq!(v6.to_string(), "[::1]:6379");
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    host: Arc<str>,
    /// 0 stands for a Unix socket, which has a path and no port.
    port: u16,
}

impl Endpoint {
    /// A TCP endpoint; brackets around an IPv6 host are taken off.
    pub fn new(host: &str, port: u16) -> Self {
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        Self { host: host.into(), port }
    }

    /// The Unix socket at `path`.
    pub fn unix(path: &str) -> Self {
        Self { host: path.into(), port: 0 }
    }

    /// True for a Unix socket.
    pub fn is_unix(&self) -> bool {
        self.port == 0
    }

    /// The host without brackets, or the path of a Unix socket.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 0 for a Unix socket.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The same host with another port.
    #[must_use]
    pub fn with_port(&self, port: u16) -> Self {
        Self { host: Arc::clone(&self.host), port }
    }

    /// Reads `host:port`, the port optional.
    ///
    /// The last colon divides, so `::1:6379` as servers print it is the port 6379 of `::1`; with brackets there is no doubt.
    ///
    /// # Errors
    /// An empty host, or a port that is no number from 1 to 65535.
    pub fn parse_with_default_port(text: &str, default_port: u16) -> Result<Self, EndpointError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(EndpointError::NoHost) } else { Ok(Self::unix(path)) };
        }
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, rest)) => (host, Some(rest.strip_prefix(':').ok_or(EndpointError::BadPort)?)),
            None => match text.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        if host.is_empty() {
            return Err(EndpointError::NoHost);
        }
        let port = match port {
            None => default_port,
            Some(port) => match port.parse::<u16>() {
                Ok(port) if port > 0 => port,
                _ => return Err(EndpointError::BadPort),
            },
        };
        Ok(Self::new(host, port))
    }
}

/// Why a text is not `host:port`.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// The port is not a number from 1 to 65535.
    #[error("the port is not a number from 1 to 65535")]
    BadPort,
    /// There is no host in front of the port.
    #[error("the host is missing")]
    NoHost,
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    /// Reads `host:port`; without a port it is 6379.
    fn from_str(text: &str) -> Result<Self, EndpointError> {
        Self::parse_with_default_port(text, 6379)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_unix() {
            write!(f, "unix:{}", self.host)
        } else if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_colon_divides_host_and_port() {
        let check = |text: &str, host: &str, port: u16| {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!((endpoint.host(), endpoint.port()), (host, port), "{text}");
        };
        check("localhost:6379", "localhost", 6379);
        check("localhost", "localhost", 6379);
        check("[::1]:7000", "::1", 7000);
        check("[::1]", "::1", 6379);
        check("fe80::1:7000", "fe80::1", 7000);
        check("unix:/tmp/redis.sock", "/tmp/redis.sock", 0);
        for bad in ["", ":6379", "host:", "host:0", "host:70000", "host:x", "[::1]7000", "unix:"] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
    }
}
