//! How the layers below make errors, and what an error reply proves.

use std::{io, sync::Arc, time::Duration};

use evenkeel_hitless::Family;
use evenkeel_protocol::{
    Command, DecodeError, Endpoint, Refusal, ServerError,
    command::{LaneRefusal, Spec},
};

use evenkeel_topology::ResolveError;

use super::{Error, ErrorKind, Executed, Phase, What};
use crate::config::{ConfigError, Origin};

/// How the layers below make errors.
impl Error {
    /// The client is closed; `executed` is `Maybe` for what was still owed.
    pub(crate) fn closed(executed: Executed) -> Self {
        Self::new(ErrorKind::Closed, executed, What::Closed)
    }

    /// A command that one node must run has keys of different slots; it was not sent.
    pub(crate) fn cross_slot(command: &Command, one: &[u8], other: &[u8]) -> Self {
        let keys = [one, other].map(|key| String::from_utf8_lossy(key).into_owned());
        let command = CommandName::of(command).0;
        Self::new(ErrorKind::Misused, Executed::No, What::CrossSlot { command, keys })
    }

    /// The same error, of a time in which this maintenance was announced.
    pub(crate) fn during(mut self, maintenance: Option<Family>) -> Self {
        self.inner.maintenance = maintenance;
        self
    }

    /// The same error of a command of which other parts may have run.
    pub(crate) fn partly_executed(mut self) -> Self {
        self.inner.executed = Executed::Maybe;
        self
    }

    /// A dial failed. A timeout of the operating system is a timeout, not a refusal.
    pub(crate) fn dial(endpoint: Endpoint, origin: Origin, error: io::Error) -> Self {
        let failure = error.kind();
        let kind = match failure {
            io::ErrorKind::TimedOut => ErrorKind::Timeout,
            _ => ErrorKind::Connect,
        };
        Self::new(kind, Executed::No, What::Dial { origin, failure }).at(Some(endpoint)).caused_by(error)
    }

    /// A dial, or the handshake after it, did not end within its deadline.
    pub(crate) fn silent(endpoint: Endpoint, origin: Origin, phase: Phase, after: Duration) -> Self {
        Self::new(ErrorKind::Timeout, Executed::No, What::Timeout { phase, after, origin: Some(origin) })
            .at(Some(endpoint))
    }

    /// A deadline of a command is over.
    pub(crate) fn timeout(
        phase: Phase,
        after: Duration,
        endpoint: Option<Endpoint>,
        executed: Executed,
    ) -> Self {
        Self::new(ErrorKind::Timeout, executed, What::Timeout { phase, after, origin: None }).at(endpoint)
    }

    /// The server refused a step of the handshake (`AUTH`, `HELLO`, `SELECT`); `setting` is where its value came from.
    pub(crate) fn handshake(
        endpoint: Endpoint,
        step: &'static str,
        refused: ServerError,
        setting: Option<Origin>,
    ) -> Self {
        Self::new(
            ErrorKind::Handshake,
            Executed::No,
            What::Handshake { step, why: None, refused: Some(refused), setting },
        )
        .at(Some(endpoint))
    }

    /// The connection ended during the handshake, or TLS failed.
    pub(crate) fn handshake_failed(
        endpoint: Endpoint,
        step: &'static str,
        why: Option<&'static str>,
        cause: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        let what = What::Handshake { step, why, refused: None, setting: None };
        Self::new(ErrorKind::Handshake, Executed::No, what).at(Some(endpoint)).caused_by(cause)
    }

    /// The connection was lost.
    pub(crate) fn lost(endpoint: Endpoint, executed: Executed, cause: Option<io::Error>) -> Self {
        let error = Self::new(ErrorKind::Lost, executed, What::Lost).at(Some(endpoint));
        match cause {
            Some(cause) => error.caused_by(cause),
            None => error,
        }
    }

    /// A lane must not carry the command.
    pub(crate) fn misused(refusal: LaneRefusal) -> Self {
        Self::new(ErrorKind::Misused, Executed::No, What::Misused(refusal))
    }

    /// Nobody that was `asked` ("any sentinel", "any node of the cluster") knows a primary.
    pub(crate) fn no_primary(asked: &'static str) -> Self {
        Self::new(ErrorKind::Connect, Executed::No, What::NoPrimary { asked })
    }

    /// What the address or a setting asks for cannot be.
    pub(crate) fn wrong_setting(config: &crate::config::Config, why: &'static str) -> Self {
        ConfigError::new(config.origin(), crate::config::Problem::Wrong { why }).into()
    }

    /// The files or names that encryption needs are wrong.
    #[cfg(feature = "tls")]
    pub(crate) fn tls(cause: evenkeel_pool::TlsError) -> Self {
        let problem = crate::config::Problem::Wrong { why: "encryption cannot be set up" };
        Self::from(ConfigError::new(Origin::Default, problem)).caused_by(cause)
    }

    /// As [`no_primary`](Self::no_primary), with what was found instead.
    pub(crate) fn unresolved(asked: &'static str, cause: Option<ResolveError>) -> Self {
        match cause {
            Some(cause @ ResolveError::WrongKind { .. }) => {
                Self::new(ErrorKind::Connect, Executed::No, What::WrongKind(cause))
            }
            Some(cause) => Self::no_primary(asked).caused_by(cause),
            None => Self::no_primary(asked),
        }
    }

    /// `what` is full ("the queue of the connection", "the pool of leases").
    pub(crate) fn overloaded(
        what: &'static str,
        cause: Option<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        let mut error = Self::new(ErrorKind::Overloaded, Executed::No, What::Overloaded { what });
        error.inner.source = cause.map(Arc::from);
        error
    }

    /// The peer sent what is no RESP.
    pub(crate) fn protocol(
        endpoint: Endpoint,
        executed: Executed,
        cause: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self::new(ErrorKind::Protocol, executed, What::Protocol).at(Some(endpoint)).caused_by(cause)
    }

    /// The bounded retries ended; `last` is what `node` answered then.
    pub(crate) fn redirect(last: ServerError, node: Endpoint, retries: u32) -> Self {
        Self::new(ErrorKind::Redirect, Executed::No, What::Redirect { last, retries }).at(Some(node))
    }

    /// The server answered `error` to `command`.
    pub(crate) fn server(error: ServerError, command: &Command, endpoint: Option<Endpoint>) -> Self {
        let executed = executed_by(&error, command.is_script());
        Self::answered(error, CommandName::of(command), executed, endpoint)
    }

    pub(crate) fn answered(
        error: ServerError,
        command: CommandName,
        executed: Executed,
        endpoint: Option<Endpoint>,
    ) -> Self {
        Self::new(ErrorKind::Server, executed, What::Server { command: command.0, error }).at(endpoint)
    }

    /// The server refused to queue `command` of a transaction, so that none of it ran.
    pub(crate) fn not_queued(
        error: ServerError,
        command: &Command,
        position: usize,
        endpoint: Option<Endpoint>,
    ) -> Self {
        Self::answered(error, CommandName::of(command), Executed::No, endpoint).in_pipeline(position)
    }

    /// The reply is not of the type asked for; an error of the server inside it stays one.
    pub(crate) fn decode(cause: DecodeError, command: CommandName) -> Self {
        match cause {
            DecodeError::Server(error) => {
                let executed = executed_by(&error, command.is_script());
                Self::answered(error, command, executed, None)
            }
            cause => Self::new(ErrorKind::Decode, Executed::Yes, What::Decode { command: command.0 })
                .caused_by(cause),
        }
    }

    /// The same error, as that of the command at `position` of a pipeline.
    pub(crate) fn in_pipeline(mut self, position: usize) -> Self {
        self.inner.position = Some(position);
        self
    }
}

/// The name of a command as the table has it; text that the table does not know is never shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommandName(&'static str);

impl CommandName {
    pub(crate) const TRANSACTION: Self = Self("EXEC");
    pub(crate) const UNKNOWN: Self = Self("the command");

    pub(crate) fn of(command: &Command) -> Self {
        Self(command.spec().map_or(Self::UNKNOWN.0, Spec::name))
    }

    pub(crate) fn named(name: Option<&'static str>) -> Self {
        name.map_or(Self::UNKNOWN, Self)
    }

    pub(crate) fn as_str(self) -> &'static str {
        self.0
    }

    fn is_script(self) -> bool {
        matches!(self.0, "EVAL" | "EVALSHA" | "FCALL")
    }
}

/// What an error reply proves.
///
/// The codes below are given before a command runs. A script may have written before it returns any of them, but
/// for `NOSCRIPT`: no command that a script may call answers it.
fn executed_by(error: &ServerError, script: bool) -> Executed {
    if error.code() == "NOSCRIPT" {
        return Executed::No;
    }
    let before = Refusal::parse(error).is_some()
        || matches!(
            error.code(),
            "ASK"
                | "BUSY"
                | "DENIED"
                | "EXECABORT"
                | "MISCONF"
                | "MOVED"
                | "NOAUTH"
                | "NOPERM"
                | "NOPROTO"
                | "OOM"
        );
    match (before, script) {
        (true, true) => Executed::Maybe,
        (true, false) => Executed::No,
        (false, _) => Executed::Yes,
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        Self::new(ErrorKind::Config, Executed::No, What::Config(error))
    }
}

impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}
