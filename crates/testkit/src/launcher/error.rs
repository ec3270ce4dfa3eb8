//! What can go wrong while servers are started and steered.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// An error from the launcher.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// The named condition did not come true in time.
    #[error("waited {waited:?} for {what}")]
    Deadline {
        /// The condition.
        what: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// A server ended instead of answering.
    #[error("{program} on {addr} ended with {status}; its log ends with:\n{log}")]
    Exited {
        /// The server program.
        program: PathBuf,
        /// The address that it was to listen on.
        addr: SocketAddr,
        /// The exit status.
        status: String,
        /// The last lines of its log.
        log: String,
    },
    /// Files of a server could not be written.
    #[error("could not prepare the folder of a server")]
    Folder(#[source] io::Error),
    /// A connection to a server failed.
    #[error("could not talk to {addr}")]
    Io {
        /// The server's address.
        addr: SocketAddr,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// No free loopback port was found.
    #[error("no free loopback port was found after {tries} tries")]
    NoPort {
        /// How many ports were tried.
        tries: u32,
    },
    /// No process of this kind is running in the topology.
    #[error("no {what} of this topology is running")]
    NoneRuns {
        /// What was looked for.
        what: &'static str,
    },
    /// The process of this node is not running.
    #[error("the server on {addr} is not running")]
    NotRunning {
        /// The node's address.
        addr: SocketAddr,
    },
    /// A server answered with something that is not RESP2.
    #[error("{addr} answered with something that is not RESP2")]
    Protocol {
        /// The server's address.
        addr: SocketAddr,
    },
    /// A server answered a command with an error.
    #[error("{addr} refused {command}: {answer}")]
    Refused {
        /// The server's address.
        addr: SocketAddr,
        /// The command's name, without its arguments.
        command: String,
        /// The error that the server gave.
        answer: String,
    },
    /// A process could not be started or signalled.
    #[error("could not start or signal {program}")]
    Spawn {
        /// The program.
        program: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// No node of this topology has that address.
    #[error("no node of this topology listens on {addr}")]
    UnknownNode {
        /// The address asked for.
        addr: SocketAddr,
    },
}

impl LaunchError {
    /// Returns whether the server refused a command with this error code, such as `ERR` or `NOAUTH`.
    pub fn is_refused_with(&self, code: &str) -> bool {
        matches!(self, Self::Refused { answer, .. } if answer.split(' ').next() == Some(code))
    }
}
