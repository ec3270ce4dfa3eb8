//! Errors by operation: reading an answer, asking a node, resolving a deployment.

use std::fmt;

use evenkeel_protocol::{Endpoint, ParseError, ServerError};

/// Why an answer of a server is not what was asked for. It holds no byte of the answer, except the words of an error.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// A part is missing or of another kind.
    #[error("malformed answer to {command}")]
    Malformed {
        /// The command that was answered.
        command: &'static str,
    },
    /// The bytes are no whole frame.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The server answered an error.
    #[error("the server answered an error")]
    Server(#[source] ServerError),
}

/// Why a node gave no answer.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskFailure {
    /// It answered with something that could not be understood.
    #[error("malformed answer")]
    Malformed,
    /// It refused the connection: nothing listens there.
    #[error("connection refused")]
    Refused,
    /// The connection was cut while the answer was awaited.
    #[error("connection reset")]
    Reset,
    /// It answered an error.
    #[error("{0}")]
    Server(ServerError),
    /// It stayed silent until the deadline.
    #[error("no answer in time")]
    TimedOut,
    /// It could not be reached for another reason: name, route, TLS, credentials.
    #[error("unreachable")]
    Unreachable,
}

impl AskFailure {
    /// Nobody is there to take a write: what is sent there cannot run.
    pub(crate) fn proves_absence(&self) -> bool {
        matches!(self, Self::Refused | Self::Unreachable)
    }

    /// The server does not know the command or has the feature off.
    pub(crate) fn is_unsupported(&self) -> bool {
        matches!(self, Self::Server(error) if error.code() == "ERR" && {
            let detail = error.detail().to_ascii_lowercase();
            detail.starts_with("unknown command") || detail.starts_with("unknown subcommand")
        })
    }

    /// The server is there and said something, if not what was asked for.
    pub(crate) fn is_answer(&self) -> bool {
        matches!(self, Self::Server(_))
    }

    /// The server is not part of a cluster.
    pub(crate) fn is_cluster_off(&self) -> bool {
        matches!(self, Self::Server(error) if error.detail().contains("cluster support disabled"))
    }
}

/// What was found at an address.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A node of a cluster.
    ClusterNode,
    /// A data node: it does not know the commands of sentinels.
    DataNode,
    /// A primary outside a cluster.
    Primary,
    /// A replica outside a cluster.
    Replica,
    /// A sentinel.
    Sentinel,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClusterNode => "a cluster node",
            Self::DataNode => "a data node",
            Self::Primary => "a primary",
            Self::Replica => "a replica",
            Self::Sentinel => "a sentinel",
        })
    }
}

/// Why no primary, or no slot map, could be found. Resolvers go on trying; whoever waits has a deadline.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The redirect policy forbids every address that was named.
    #[error("{endpoint} is named as a server, and redirect_policy does not allow it")]
    Denied {
        /// The address.
        endpoint: Endpoint,
    },
    /// A node of a cluster answers, and nobody owns a slot there.
    #[error("{endpoint} is a cluster node, and no slot is assigned to any node that it knows")]
    NoSlots {
        /// The node.
        endpoint: Endpoint,
    },
    /// No seed answered.
    #[error("none of {count} seeds answered; {first}: {failure}", count = .seeds.len(), first = first_of(.seeds), failure = failure_of(.seeds))]
    NoneReachable {
        /// Each seed with what happened there.
        seeds: Vec<(Endpoint, AskFailure)>,
    },
    /// The sentinels name a primary that does not say so itself, or does not answer.
    #[error("the sentinels name {endpoint} as primary, which {found}")]
    PrimaryUnproven {
        /// The address that they name.
        endpoint: Endpoint,
        /// What was found there.
        found: Unproven,
    },
    /// No sentinel knows a primary by this name.
    #[error("no sentinel that answered knows a primary named `{name}`; {sentinel} answered")]
    UnknownName {
        /// The name that was asked for.
        name: String,
        /// One of the sentinels that answered.
        sentinel: Endpoint,
    },
    /// A server of another kind was found.
    #[error("{endpoint} is {found}, expected {expected}")]
    WrongKind {
        /// Where.
        endpoint: Endpoint,
        /// What is there.
        found: Found,
        /// What the configuration expects.
        expected: &'static str,
    },
}

/// What was found in place of a primary.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unproven {
    /// It gave no answer.
    NoAnswer(AskFailure),
    /// It says that it is a replica.
    SaysReplica,
}

impl fmt::Display for Unproven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer(failure) => write!(f, "gives no answer: {failure}"),
            Self::SaysReplica => f.write_str("says that it is a replica"),
        }
    }
}

fn first_of(seeds: &[(Endpoint, AskFailure)]) -> String {
    seeds.first().map_or_else(|| "no seed".to_owned(), |(endpoint, _)| endpoint.to_string())
}

fn failure_of(seeds: &[(Endpoint, AskFailure)]) -> String {
    seeds.first().map_or_else(|| "nothing was asked".to_owned(), |(_, failure)| failure.to_string())
}
