//! `Error`: what failed, and whether the server may have run it; it does not know how anything is sent.

mod make;
mod words;

use std::{io, sync::Arc, time::Duration};

/// The kind of maintenance behind a window of relaxed timeouts, as [`Error::maintenance`] tells it.
pub use evenkeel_hitless::Family as MaintenanceKind;
use evenkeel_hitless::Family;
use evenkeel_protocol::{Endpoint, ServerError, command::LaneRefusal};
use evenkeel_topology::ResolveError;

use crate::config::{ConfigError, Origin};

pub(crate) use make::CommandName;

type Source = Arc<dyn std::error::Error + Send + Sync>;

/// An error from the client.
///
/// `Display` prints this level only; walk [`source`](std::error::Error::source) for the cause.
/// The wording may change in any release: match on [`kind`](Self::kind).
/// Neither `Display` nor `Debug` shows a key, a value or a secret.
///
/// ```
/// use evenkeel_client::{Config, ErrorKind, Executed};
///
/// let error = "redis://localhost:70000".parse::<Config>().unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Config);
/// assert_eq!(error.executed(), Executed::No);
/// ```
#[derive(Clone)]
pub struct Error {
    inner: Box<Inner>,
}

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    executed: Executed,
    what: What,
    endpoint: Option<Endpoint>,
    /// The place in its pipeline, from 0.
    position: Option<usize>,
    /// The maintenance that was announced when it happened.
    maintenance: Option<Family>,
    source: Option<Source>,
}

/// What went wrong, in general.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The client is closed.
    Closed,
    /// A URL, a variable or a call of the builder is wrong or missing.
    Config,
    /// No connection could be made, or none to a primary.
    Connect,
    /// The reply is not of the type asked for.
    Decode,
    /// The server did not let the connection in: a wrong password, a protocol or database that it does not have.
    Handshake,
    /// The connection was lost while the command was owed.
    Lost,
    /// The command cannot run this way, and nothing was sent; the message names the right call.
    Misused,
    /// A queue, a budget or the pool of leases is full.
    Overloaded,
    /// The peer does not speak RESP.
    Protocol,
    /// The bounded retries of redirections and refusals ended.
    Redirect,
    /// The server answered an error; [`Error::server_code`] tells which.
    Server,
    /// A deadline is over.
    Timeout,
}

/// Whether the server may have run the command.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Executed {
    /// It did not: the command was never sent, or the server said so.
    No,
    /// Nobody knows: it was sent and no answer came, or the answer proves nothing.
    Maybe,
    /// It did, and this is what it answered.
    Yes,
}

/// What a deadline was for.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Making a connection.
    Dial,
    /// Logging in on a new connection.
    Handshake,
    /// Waiting for the end of a failover.
    Hold,
    /// Waiting for a connection of one's own.
    Lease,
    /// Waiting for room on a connection, or for a connection.
    Queue,
    /// Waiting for the answer of a command that was sent.
    Reply,
    /// Waiting for the confirmation of a subscription.
    Subscribe,
    /// Finding out who the primary is, or who owns a slot.
    Topology,
}

#[derive(Clone)]
enum What {
    Closed,
    Config(ConfigError),
    CrossSlot {
        command: &'static str,
        keys: [String; 2],
    },
    Decode {
        command: &'static str,
    },
    Dial {
        origin: Origin,
        failure: io::ErrorKind,
    },
    Handshake {
        step: &'static str,
        why: Option<&'static str>,
        refused: Option<ServerError>,
        setting: Option<Origin>,
    },
    Lost,
    Misused(LaneRefusal),
    NoPrimary {
        asked: &'static str,
    },
    Overloaded {
        what: &'static str,
    },
    Protocol,
    Redirect {
        last: ServerError,
        retries: u32,
    },
    Server {
        command: &'static str,
        error: ServerError,
    },
    Timeout {
        phase: Phase,
        after: Duration,
        origin: Option<Origin>,
    },
    WrongKind(ResolveError),
}

impl Error {
    fn new(kind: ErrorKind, executed: Executed, what: What) -> Self {
        let (endpoint, position, maintenance, source) = (None, None, None, None);
        Self { inner: Box::new(Inner { kind, executed, what, endpoint, position, maintenance, source }) }
    }

    fn at(mut self, endpoint: Option<Endpoint>) -> Self {
        self.inner.endpoint = endpoint;
        self
    }

    fn caused_by(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.inner.source = Some(Arc::new(source));
        self
    }

    /// What went wrong, in general.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// Whether the server may have run the command.
    pub fn executed(&self) -> Executed {
        self.inner.executed
    }

    /// True when a retry cannot run the command twice.
    pub fn is_safe_to_retry(&self) -> bool {
        self.inner.executed == Executed::No
    }

    /// True when a deadline was over, ours or the operating system's.
    pub fn is_timeout(&self) -> bool {
        self.inner.kind == ErrorKind::Timeout
    }

    /// The code of the server's error, such as `WRONGTYPE`, when the server answered one.
    pub fn server_code(&self) -> Option<&str> {
        self.server_error().map(ServerError::code)
    }

    /// The server's error, when it answered one.
    pub fn server_error(&self) -> Option<&ServerError> {
        match &self.inner.what {
            What::Server { error, .. } | What::Redirect { last: error, .. } => Some(error),
            What::Handshake { refused, .. } => refused.as_ref(),
            _ => None,
        }
    }

    /// The server that it is about, where one was chosen.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        self.inner.endpoint.as_ref()
    }

    /// The place of the command in its pipeline or transaction, from 0.
    pub fn position(&self) -> Option<usize> {
        self.inner.position
    }

    /// The maintenance that the server had announced and that was not over when a command failed without an answer: its
    /// deadline passed, its connection was lost, or none could be had. `None` outside of such a window.
    ///
    /// ```
    /// # fn look(error: &evenkeel_client::Error) {
    /// use evenkeel_client::MaintenanceKind;
    ///
    /// if error.is_timeout() && error.maintenance() == Some(MaintenanceKind::Failover) {
    ///     // Slow because of a failover that was announced, not because of the network.
    /// }
    /// # }
    /// ```
    pub fn maintenance(&self) -> Option<MaintenanceKind> {
        self.inner.maintenance
    }

    /// What the deadline was for, when one is over.
    pub fn phase(&self) -> Option<Phase> {
        match self.inner.what {
            What::Timeout { phase, .. } => Some(phase),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
