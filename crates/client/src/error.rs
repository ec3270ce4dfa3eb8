//! `Error`: what failed, and whether the server may have run it; it does not know how anything is sent.

use std::{fmt, io, sync::Arc, time::Duration};

use evenkeel_protocol::{
    Command, DecodeError, Endpoint, Refusal, ServerError,
    command::{LaneRefusal, Spec},
};

use crate::config::{ConfigError, Origin};

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
    Decode { command: &'static str },
    Dial { origin: Origin, failure: io::ErrorKind },
    Handshake { step: &'static str, refused: Option<ServerError>, setting: Option<Origin> },
    Lost,
    Misused(LaneRefusal),
    NoPrimary { asked: &'static str },
    Overloaded { what: &'static str },
    Protocol,
    Redirect { last: ServerError, retries: u32 },
    Server { command: &'static str, error: ServerError },
    Timeout { phase: Phase, after: Duration, origin: Option<Origin> },
}

impl Error {
    fn new(kind: ErrorKind, executed: Executed, what: What) -> Self {
        Self { inner: Box::new(Inner { kind, executed, what, endpoint: None, position: None, source: None }) }
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

    /// What the deadline was for, when one is over.
    pub fn phase(&self) -> Option<Phase> {
        match self.inner.what {
            What::Timeout { phase, .. } => Some(phase),
            _ => None,
        }
    }
}

/// How the layers below make errors.
impl Error {
    /// The client is closed; `executed` is `Maybe` for what was still owed.
    pub(crate) fn closed(executed: Executed) -> Self {
        Self::new(ErrorKind::Closed, executed, What::Closed)
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
            What::Handshake { step, refused: Some(refused), setting },
        )
        .at(Some(endpoint))
    }

    /// The connection ended during the handshake, or TLS failed.
    pub(crate) fn handshake_failed(
        endpoint: Endpoint,
        step: &'static str,
        cause: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self::new(ErrorKind::Handshake, Executed::No, What::Handshake { step, refused: None, setting: None })
            .at(Some(endpoint))
            .caused_by(cause)
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
    pub(crate) fn unresolved(asked: &'static str, cause: Option<evenkeel_topology::ResolveError>) -> Self {
        match cause {
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
        let endpoint = self.inner.endpoint.as_ref();
        let server = Where(endpoint);
        match &self.inner.what {
            What::Closed => f.write_str("the client is closed"),
            What::Config(error) => fmt::Display::fmt(error, f),
            What::Decode { command } => {
                write!(f, "the reply to {command} is not of the type asked for")
            }
            What::Dial { origin, failure } => fmt_dial(f, endpoint, origin, *failure),
            What::Handshake { step, refused, setting } => {
                write!(f, "{server} did not complete {step}")?;
                if let Some(setting) = setting {
                    write!(f, " with what {setting} says")?;
                }
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
            What::Server { command, error } => write!(f, "{server} answered {command} with {error}"),
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
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn here() -> Endpoint {
        Endpoint::new("127.0.0.1", 6399)
    }

    #[test]
    fn it_is_one_word_wide_and_goes_everywhere() {
        fn everywhere<T: Send + Sync + Clone + std::error::Error + 'static>() {}
        everywhere::<Error>();
        assert_eq!(size_of::<Error>(), size_of::<usize>());
        assert_eq!(size_of::<Result<(), Error>>(), size_of::<usize>());
    }

    #[test]
    fn a_refused_dial_says_what_to_look_at() {
        let error = Error::dial(
            here(),
            Origin::Variable("REDIS_URL"),
            io::Error::from(io::ErrorKind::ConnectionRefused),
        );
        assert_eq!((error.kind(), error.executed()), (ErrorKind::Connect, Executed::No));
        assert_eq!(
            error.to_string(),
            "cannot connect to 127.0.0.1:6399 (address from REDIS_URL): ECONNREFUSED, is Redis running on port 6399?"
        );
        assert!(std::error::Error::source(&error).is_some());
    }

    #[test]
    fn silence_is_a_timeout_that_names_network_and_firewall() {
        let ours = Error::silent(here(), Origin::Url, Phase::Dial, Duration::from_secs(2));
        let theirs = Error::dial(here(), Origin::Url, io::Error::from(io::ErrorKind::TimedOut));
        let reply = Error::timeout(Phase::Reply, Duration::from_millis(50), Some(here()), Executed::Maybe);
        for error in [&ours, &theirs, &reply] {
            let text = error.to_string();
            assert!(error.is_timeout(), "{text}");
            assert!(
                text.contains("ETIMEDOUT") && text.contains("network") && text.contains("firewall"),
                "{text}"
            );
            assert!(text.contains("127.0.0.1:6399"), "{text}");
        }
        assert!(ours.is_safe_to_retry() && !reply.is_safe_to_retry());
    }

    #[test]
    fn what_an_error_reply_proves_depends_on_its_code_and_on_scripts() {
        let check = |command: &str, text: &str, executed| {
            let error = Error::server(ServerError::parse(text.as_bytes()), &Command::new(command), None);
            assert_eq!(error.executed(), executed, "{command} {text}");
            assert_eq!(error.server_code(), text.split(' ').next());
        };
        check("SET", "READONLY You can't write against a read only replica.", Executed::No);
        check("SET", "MOVED 12 127.0.0.1:7001", Executed::No);
        check("SET", "OOM command not allowed", Executed::No);
        check("EXEC", "EXECABORT Transaction discarded", Executed::No);
        check("LPUSH", "WRONGTYPE Operation against a key", Executed::Yes);
        check("EVAL", "READONLY You can't write", Executed::Maybe);
        check("EVALSHA", "NOSCRIPT No matching script.", Executed::No);
        check("EVAL_RO", "READONLY You can't write", Executed::No);
    }

    #[test]
    fn a_redirection_that_does_not_end_names_the_node() {
        let error = Error::redirect(ServerError::parse(b"MOVED 12 10.0.0.7:7001"), here(), 16);
        assert_eq!(error.kind(), ErrorKind::Redirect);
        let text = error.to_string();
        assert!(
            text.contains("127.0.0.1:6399") && text.contains("10.0.0.7:7001") && text.contains("16"),
            "{text}"
        );
        assert!(error.is_safe_to_retry());
    }

    #[test]
    fn a_wrong_password_names_its_setting_and_not_itself() {
        let error = Error::handshake(
            here(),
            "AUTH",
            ServerError::parse(b"WRONGPASS invalid username-password pair or user is disabled."),
            Some(Origin::Variable("REDIS_PASSWORD")),
        );
        assert_eq!(error.server_code(), Some("WRONGPASS"));
        assert!(error.to_string().contains("REDIS_PASSWORD"), "{error}");
    }

    #[test]
    fn what_is_not_queued_did_not_run_whatever_the_code() {
        let error = ServerError::parse(b"ERR unknown command");
        let error = Error::not_queued(error, &Command::new("SET"), 1, Some(here()));
        assert_eq!((error.executed(), error.position()), (Executed::No, Some(1)));
    }

    #[test]
    fn unknown_names_are_not_repeated() {
        let error = Error::server(ServerError::parse(b"ERR unknown command"), &Command::new("hunter2"), None);
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }

    #[test]
    fn an_error_inside_a_reply_stays_the_servers() {
        let name = CommandName::of(&Command::new("GET"));
        let error = Error::decode(DecodeError::Server(ServerError::parse(b"WRONGTYPE x")), name);
        assert_eq!(error.kind(), ErrorKind::Server);
        let error =
            Error::decode(DecodeError::Kind { expected: "i64", found: evenkeel_protocol::Kind::Blob }, name)
                .in_pipeline(2);
        assert_eq!((error.kind(), error.executed()), (ErrorKind::Decode, Executed::Yes));
        assert_eq!(
            error.to_string(),
            "command 3 of the pipeline: the reply to GET is not of the type asked for"
        );
    }
}
