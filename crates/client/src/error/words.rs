//! The words of an error: never a key, a value or a secret.

use std::{fmt, io};

use evenkeel_protocol::Endpoint;
use evenkeel_topology::{Found, ResolveError};

use super::{Error, Phase, What};
use crate::config::Origin;

/// Writes the server's address, or words in its place.
struct Where<'a>(Option<&'a Endpoint>);

impl fmt::Display for Where<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(endpoint) => fmt::Display::fmt(endpoint, f),
            None => f.write_str("the server"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(position) = self.inner.position {
            write!(f, "command {} of the pipeline: ", position.saturating_add(1))?;
        }
        self.fmt_what(f)?;
        match self.inner.maintenance {
            Some(family) => write!(f, " (maintenance is announced there: {})", family.word()),
            None => Ok(()),
        }
    }
}

impl Error {
    fn fmt_what(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoint = self.inner.endpoint.as_ref();
        let server = Where(endpoint);
        match &self.inner.what {
            What::Closed => f.write_str("the client is closed"),
            What::Config(error) => fmt::Display::fmt(error, f),
            What::CrossSlot { command, keys: [one, other] } => write!(
                f,
                "the keys {one:?} and {other:?} of {command} belong to different hash slots: give them one hash tag, as in \
                 \"{{tag}}:name\""
            ),
            What::Decode { command } => {
                write!(f, "the reply to {command} is not of the type asked for")
            }
            What::Dial { origin, failure } => fmt_dial(f, endpoint, origin, *failure),
            What::Handshake { step, why, refused, setting } => {
                write!(f, "{server} did not complete {step}")?;
                if let Some(setting) = setting {
                    write!(f, " with what {setting} says")?;
                }
                why.iter().try_for_each(|why| write!(f, ": {why}"))?;
                refused.iter().try_for_each(|error| write!(f, ": {error}"))
            }
            What::Lost => write!(f, "the connection to {server} was lost"),
            What::Misused(refusal) => fmt::Display::fmt(refusal, f),
            What::NoPrimary { asked } => write!(f, "{asked} knows no primary that answers"),
            What::Overloaded { what } => write!(f, "{what} is full"),
            What::Protocol => {
                write!(f, "{server} sent what is no RESP; does something else than Redis run there?")
            }
            What::Redirect { last, retries } => {
                write!(f, "{server} still answered {last} after {retries} retries")
            }
            What::Server { command, error } => {
                write!(f, "{server} answered {command} with {error}")?;
                if error.code() == "MOVED" {
                    f.write_str(" (it is a node of a cluster, and redis+cluster:// addresses follow)")?;
                }
                Ok(())
            }
            What::Timeout { phase, after, origin } => {
                let after = humantime::format_duration(*after);
                match phase {
                    Phase::Dial => write!(f, "no connection to {server} within {after}")?,
                    Phase::Handshake => write!(
                        f,
                        "{server} took the connection and did not answer the handshake within {after}"
                    )?,
                    Phase::Hold => write!(f, "the failover that the command waited for took over {after}")?,
                    Phase::Lease => write!(f, "no connection was free within {after}")?,
                    Phase::Queue => write!(f, "the command could not be sent to {server} within {after}")?,
                    Phase::Reply => write!(f, "no answer from {server} within {after}")?,
                    Phase::Subscribe => write!(f, "the subscription was not confirmed within {after}")?,
                    Phase::Topology => write!(f, "no answer about who is the primary within {after}")?,
                }
                if let Some(origin) = origin {
                    write!(f, " (address from {origin})")?;
                }
                match phase {
                    Phase::Dial | Phase::Handshake | Phase::Reply | Phase::Topology => {
                        f.write_str(": ETIMEDOUT, look at the network and any firewall between")
                    }
                    _ => Ok(()),
                }
            }
            What::WrongKind(error) => fmt_wrong_kind(f, error),
        }
    }
}

/// Says what stands there, and which address would be right.
fn fmt_wrong_kind(f: &mut fmt::Formatter<'_>, error: &ResolveError) -> fmt::Result {
    fmt::Display::fmt(error, f)?;
    match error {
        ResolveError::WrongKind { found: Found::Sentinel, .. } => {
            f.write_str(": redis+sentinel://HOST:PORT/NAME is the address of the primary that it watches")
        }
        ResolveError::WrongKind { found: Found::ClusterNode, .. } => {
            f.write_str(": redis+cluster://HOST:PORT is the address of a cluster")
        }
        ResolveError::WrongKind { .. } => {
            f.write_str(": redis://HOST:PORT is the address of a single server")
        }
        _ => Ok(()),
    }
}

fn fmt_dial(
    f: &mut fmt::Formatter<'_>,
    endpoint: Option<&Endpoint>,
    origin: &Origin,
    failure: io::ErrorKind,
) -> fmt::Result {
    write!(f, "cannot connect to {} (address from {origin}): ", Where(endpoint))?;
    let unix = endpoint.is_some_and(Endpoint::is_unix);
    match failure {
        io::ErrorKind::ConnectionRefused if unix => {
            f.write_str("ECONNREFUSED, is Redis running with this unixsocket?")
        }
        io::ErrorKind::ConnectionRefused => {
            let port = endpoint.map(Endpoint::port).unwrap_or_default();
            write!(f, "ECONNREFUSED, is Redis running on port {port}?")
        }
        io::ErrorKind::TimedOut => f.write_str("ETIMEDOUT, look at the network and any firewall between"),
        io::ErrorKind::NotFound if unix => f.write_str("ENOENT, there is no such socket"),
        io::ErrorKind::PermissionDenied => f.write_str("EACCES, this user may not"),
        io::ErrorKind::HostUnreachable => f.write_str("EHOSTUNREACH, look at the network"),
        io::ErrorKind::NetworkUnreachable => f.write_str("ENETUNREACH, look at the network"),
        other => write!(f, "{other}"),
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Error");
        debug.field("kind", &self.inner.kind).field("executed", &self.inner.executed);
        debug.field("message", &self.to_string());
        if let Some(maintenance) = self.inner.maintenance {
            debug.field("maintenance", &maintenance);
        }
        if let Some(source) = &self.inner.source {
            debug.field("source", source);
        }
        debug.finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner.source.as_deref().map(|source| source as _)
    }
}
