//! The handshake: HELLO, AUTH, names, database, opt-ins, in as few round trips as safety allows.
//!
//! Nothing of a user's is ever behind it on the wire: a connection is handed out only when each step has answered, so a
//! late or lost reply of the handshake can shift nobody's.
//!
//! ```text
//!   start() ----> Greeting ---- HELLO accepted -------------------> Established
//!                    |  HELLO unknown or RESP3 refused                   ^
//!                    +----------> Plain (AUTH, SELECT ... in RESP2) -----+
//! ```

use std::{collections::VecDeque, fmt};

use bytes::BytesMut;

use crate::{command::Command, limits::Limits};
use crate::{error::DecodeError, reply::Reply, server_error::ServerError};

/// A user name and a password. `Debug` shows neither.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: Option<String>,
    password: String,
}

impl Credentials {
    /// A password for the default user.
    pub fn password(password: impl Into<String>) -> Self {
        Self { user: None, password: password.into() }
    }

    /// A user of the server's ACL.
    pub fn user(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self { user: Some(user.into()), password: password.into() }
    }

    /// The command that logs a living connection in.
    pub fn login(&self) -> Command {
        let command = Command::new("AUTH");
        match &self.user {
            Some(user) => command.arg(user).arg(&self.password),
            None => command.arg(&self.password),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(redacted)")
    }
}

/// Which protocol to ask for.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProtocolChoice {
    /// RESP3 by HELLO, RESP2 where the server refuses it.
    #[default]
    Auto,
    /// RESP2, without HELLO.
    Resp2,
    /// RESP3 or nothing.
    Resp3,
}

/// How to opt in to maintenance notifications.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OptIn {
    /// Fail the connection when the server refuses.
    pub required: bool,
    /// `moving-endpoint-type`: `internal-ip` and so on; `None` sends the bare form.
    pub endpoint_type: Option<&'static str>,
}

impl OptIn {
    /// An opt-in.
    pub fn new(required: bool, endpoint_type: Option<&'static str>) -> Self {
        Self { required, endpoint_type }
    }
}

/// What every connection is told before it is used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HandshakeConfig {
    protocol: ProtocolChoice,
    credentials: Option<Credentials>,
    client_name: Option<String>,
    database: u32,
    read_only: bool,
    redirect: bool,
    opt_in: Option<OptIn>,
    library: Option<(String, String)>,
}

impl HandshakeConfig {
    /// The protocol. Default: RESP3 with RESP2 behind it.
    #[must_use]
    pub fn protocol(mut self, protocol: ProtocolChoice) -> Self {
        self.protocol = protocol;
        self
    }

    /// Who logs in. Default: nobody.
    #[must_use]
    pub fn credentials(mut self, credentials: Option<Credentials>) -> Self {
        self.credentials = credentials;
        self
    }

    /// The connection's name in `CLIENT LIST`. Default: none.
    #[must_use]
    pub fn client_name(mut self, name: Option<String>) -> Self {
        self.client_name = name;
        self
    }

    /// The database. Default: 0.
    #[must_use]
    pub fn database(mut self, database: u32) -> Self {
        self.database = database;
        self
    }

    /// Sends READONLY, so that a cluster's replica answers reads. Default: no.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Sends Valkey's `CLIENT CAPA redirect`; a refusal does no harm. Default: no.
    #[must_use]
    pub fn redirect(mut self, redirect: bool) -> Self {
        self.redirect = redirect;
        self
    }

    /// Opts in to maintenance notifications. Default: no.
    #[must_use]
    pub fn opt_in(mut self, opt_in: Option<OptIn>) -> Self {
        self.opt_in = opt_in;
        self
    }

    /// Names the library by `CLIENT SETINFO`; a refusal does no harm. Default: no.
    #[must_use]
    pub fn library(mut self, name: impl Into<String>, version: impl Into<String>) -> Self {
        self.library = Some((name.into(), version.into()));
        self
    }

    /// The opt-in asked for, if any.
    pub fn opt_in_wanted(&self) -> Option<&OptIn> {
        self.opt_in.as_ref()
    }
}

/// One step of the handshake.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// AUTH, alone or in HELLO.
    Auth,
    /// `CLIENT CAPA`.
    Capability,
    /// HELLO.
    Hello,
    /// `CLIENT SETINFO`.
    Info,
    /// `CLIENT MAINT_NOTIFICATIONS`.
    MaintNotifications,
    /// `CLIENT SETNAME`.
    Name,
    /// READONLY.
    ReadOnly,
    /// SELECT.
    Select,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auth => "AUTH",
            Self::Capability => "CLIENT CAPA",
            Self::Hello => "HELLO",
            Self::Info => "CLIENT SETINFO",
            Self::MaintNotifications => "CLIENT MAINT_NOTIFICATIONS",
            Self::Name => "CLIENT SETNAME",
            Self::ReadOnly => "READONLY",
            Self::Select => "SELECT",
        })
    }
}

/// Why a step failed.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepError {
    /// RESP3 is needed and the server speaks RESP2.
    #[error("RESP3 is required and the server refuses it")]
    NoResp3,
    /// The server answered an error.
    #[error("the server answered: {0}")]
    Server(ServerError),
    /// The reply is not what this step answers.
    #[error("the reply is not one of Redis")]
    Shape(#[source] DecodeError),
}

/// A handshake that failed, with the step that did.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{step} failed")]
pub struct HandshakeError {
    /// The step.
    pub step: Step,
    /// Why.
    #[source]
    pub cause: StepError,
}

/// What HELLO told of the server; read by key, since keys and order differ between servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerInfo {
    /// `redis`, `valkey`, ...; empty when the server has no HELLO.
    pub server: String,
    /// Its version.
    pub version: String,
    /// True when RESP3 is spoken.
    pub resp3: bool,
    /// This connection's id, for `CLIENT UNBLOCK` and `CLIENT KILL`.
    pub id: Option<i64>,
    /// `standalone`, `cluster` or `sentinel`.
    pub mode: String,
    /// `master` or `replica`; empty on a sentinel.
    pub role: String,
    /// The availability zone, where the server tells it.
    pub zone: Option<String>,
}

/// What became of the opt-in to maintenance notifications.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OptInOutcome {
    /// The server will announce maintenance.
    Accepted,
    /// It was not asked for.
    #[default]
    NotAsked,
    /// The server refused, in its words.
    Refused(ServerError),
}

/// A handshake that is through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Established {
    /// Who answered.
    pub server: ServerInfo,
    /// Whether maintenance will be announced.
    pub maintenance: OptInOutcome,
}

/// The handshake under way.
///
/// Write what [`start`](Self::start) gives, hand in each reply, write what comes back, until it is established.
#[derive(Debug)]
pub struct Handshake {
    config: HandshakeConfig,
    /// Steps written and not answered, in order.
    expected: VecDeque<Step>,
    state: State,
    established: Established,
    /// The first failure that ends the handshake; told when every reply of the round is in.
    failure: Option<HandshakeError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// HELLO and all else in one write.
    Greeting { fall_back: bool },
    /// The server has no HELLO: one more write, in RESP2.
    Plain,
}

/// What a reply of the handshake leads to.
#[derive(Debug)]
#[non_exhaustive]
pub enum Progress {
    /// More replies of this round are owed.
    Wait,
    /// Write these bytes and go on.
    Write(BytesMut),
    /// The connection may be used.
    Done(Established),
}

impl Handshake {
    /// Begins; the bytes are the first write.
    pub fn start(config: HandshakeConfig) -> (Self, BytesMut) {
        let mut handshake = Self {
            config,
            expected: VecDeque::new(),
            state: State::Greeting { fall_back: false },
            established: Established::default(),
            failure: None,
        };
        let mut out = BytesMut::new();
        if handshake.config.protocol == ProtocolChoice::Resp2 {
            handshake.plain(&mut out);
        } else {
            handshake.greet(&mut out);
        }
        if handshake.expected.is_empty() {
            // Something must answer before anybody's command is sent: a listener that accepts may be dead.
            handshake.say(&mut out, Step::Hello, &Command::new("PING"));
        }
        (handshake, out)
    }

    fn say(&mut self, out: &mut BytesMut, step: Step, command: &Command) {
        command.encode(out);
        self.expected.push_back(step);
    }

    fn greet(&mut self, out: &mut BytesMut) {
        let mut hello = Command::new("HELLO").arg(3);
        if let Some(credentials) = &self.config.credentials {
            let user = credentials.user.as_deref().unwrap_or("default");
            hello = hello.arg("AUTH").arg(user).arg(&credentials.password);
        }
        if let Some(name) = &self.config.client_name {
            hello = hello.arg("SETNAME").arg(name);
        }
        self.say(out, Step::Hello, &hello);
        self.common(out, true);
    }

    fn plain(&mut self, out: &mut BytesMut) {
        self.state = State::Plain;
        if let Some(credentials) = &self.config.credentials {
            let auth = Command::new("AUTH");
            let auth = match &credentials.user {
                Some(user) => auth.arg(user).arg(&credentials.password),
                None => auth.arg(&credentials.password),
            };
            self.say(out, Step::Auth, &auth);
        }
        if let Some(name) = &self.config.client_name {
            let name = Command::new("CLIENT").arg("SETNAME").arg(name);
            self.say(out, Step::Name, &name);
        }
        self.common(out, false);
    }

    fn common(&mut self, out: &mut BytesMut, resp3: bool) {
        if let Some((name, version)) = self.config.library.clone() {
            for (what, value) in [("LIB-NAME", name), ("LIB-VER", version)] {
                self.say(out, Step::Info, &Command::new("CLIENT").arg("SETINFO").arg(what).arg(value));
            }
        }
        if self.config.database != 0 {
            self.say(out, Step::Select, &Command::new("SELECT").arg(self.config.database));
        }
        if self.config.read_only {
            self.say(out, Step::ReadOnly, &Command::new("READONLY"));
        }
        if self.config.redirect {
            self.say(out, Step::Capability, &Command::new("CLIENT").arg("CAPA").arg("redirect"));
        }
        if let Some(opt_in) = self.config.opt_in.clone().filter(|_| resp3) {
            let mut command = Command::new("CLIENT").arg("MAINT_NOTIFICATIONS").arg("ON");
            if let Some(endpoint_type) = opt_in.endpoint_type {
                command = command.arg("moving-endpoint-type").arg(endpoint_type);
            }
            self.say(out, Step::MaintNotifications, &command);
        }
    }

    /// Replies that are still owed in this round.
    pub fn owed(&self) -> usize {
        self.expected.len()
    }

    /// The step whose reply comes next; the one to name when it never comes.
    pub fn waiting_for(&self) -> Option<Step> {
        self.expected.front().copied()
    }

    /// A failure that was answered already; what to tell when the peer closes before the round is through.
    pub fn failure_so_far(&self) -> Option<&HandshakeError> {
        self.failure.as_ref()
    }

    /// Takes the reply to the oldest step.
    ///
    /// # Errors
    /// The step that failed; the connection is of no use then. A failure is told only when the whole round has been
    /// answered, so that the words of a later reply are never taken for those of an earlier one.
    pub fn handle_reply(&mut self, reply: &Reply) -> Result<Progress, HandshakeError> {
        let Some(step) = self.expected.pop_front() else { return Ok(Progress::Wait) };
        self.take(step, reply);
        if !self.expected.is_empty() {
            return Ok(Progress::Wait);
        }
        if matches!(self.state, State::Greeting { fall_back: true }) {
            self.failure = None;
            let mut out = BytesMut::new();
            self.plain(&mut out);
            if self.expected.is_empty() {
                return self.finish();
            }
            return Ok(Progress::Write(out));
        }
        self.finish()
    }

    fn finish(&mut self) -> Result<Progress, HandshakeError> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let opt_in_needs_it = self.config.opt_in.as_ref().is_some_and(|opt_in| opt_in.required);
        let needed_by = if self.config.protocol == ProtocolChoice::Resp3 {
            Some(Step::Hello)
        } else {
            opt_in_needs_it.then_some(Step::MaintNotifications)
        };
        if let Some(step) = needed_by.filter(|_| !self.established.server.resp3) {
            return Err(HandshakeError { step, cause: StepError::NoResp3 });
        }
        Ok(Progress::Done(std::mem::take(&mut self.established)))
    }

    fn take(&mut self, step: Step, reply: &Reply) {
        let error = reply.error();
        match (step, error) {
            (Step::Hello, Some(error)) => self.hello_refused(error),
            (Step::Hello, None) if self.config.protocol == ProtocolChoice::Resp2 => {}
            (Step::Hello, None) => match ServerInfo::read(reply) {
                Ok(server) => self.established.server = server,
                Err(cause) => self.fail(Step::Hello, StepError::Shape(cause)),
            },
            // Old servers know neither; nobody depends on them.
            (Step::Info | Step::Capability | Step::Name, _) => {}
            (Step::MaintNotifications, None) => self.established.maintenance = OptInOutcome::Accepted,
            (Step::MaintNotifications, Some(error)) => {
                if self.config.opt_in.as_ref().is_some_and(|opt_in| opt_in.required) {
                    self.fail(step, StepError::Server(error.clone()));
                }
                self.established.maintenance = OptInOutcome::Refused(error);
            }
            (_, Some(error)) => self.fail(step, StepError::Server(error)),
            (_, None) => {}
        }
    }

    fn hello_refused(&mut self, error: ServerError) {
        let unknown = error.code() == "NOPROTO" || error.detail().starts_with("unknown command");
        if !unknown {
            let auth = matches!(error.code(), "WRONGPASS" | "NOAUTH" | "NOPERM");
            return self.fail(if auth { Step::Auth } else { Step::Hello }, StepError::Server(error));
        }
        if self.config.protocol == ProtocolChoice::Resp3 {
            return self.fail(Step::Hello, StepError::NoResp3);
        }
        self.state = State::Greeting { fall_back: true };
    }

    fn fail(&mut self, step: Step, cause: StepError) {
        if self.failure.is_none() {
            self.failure = Some(HandshakeError { step, cause });
        }
    }
}

impl ServerInfo {
    fn read(reply: &Reply) -> Result<Self, DecodeError> {
        let frame = reply.checked_frame(&Limits::default())?;
        if frame.elements().is_none() {
            return Err(DecodeError::Kind { expected: "map of server properties", found: reply.kind() });
        }
        let text = |key: &str| frame.get(key).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
        Ok(Self {
            server: text("server"),
            version: text("version"),
            resp3: frame.get("proto").and_then(crate::Frame::as_integer) == Some(3),
            id: frame.get("id").and_then(crate::Frame::as_integer),
            mode: text("mode"),
            role: text("role"),
            zone: Some(text("availability_zone")).filter(|zone| !zone.is_empty()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: &str = "%7\r\n+server\r\n+redis\r\n+version\r\n+7.0.15\r\n+proto\r\n:3\r\n+id\r\n:5\r\n+mode\r\n+standalone\r\n+role\r\n+master\r\n+modules\r\n*0\r\n";

    fn run(
        config: HandshakeConfig,
        replies: &[&str],
    ) -> (Vec<String>, Result<Option<Established>, HandshakeError>) {
        let (mut handshake, out) = Handshake::start(config);
        let mut writes = vec![String::from_utf8_lossy(&out).into_owned()];
        for reply in replies {
            match handshake.handle_reply(&Reply::new(reply.to_string().into())) {
                Ok(Progress::Wait) => {}
                Ok(Progress::Write(out)) => writes.push(String::from_utf8_lossy(&out).into_owned()),
                Ok(Progress::Done(established)) => return (writes, Ok(Some(established))),
                Err(error) => return (writes, Err(error)),
            }
        }
        (writes, Ok(None))
    }

    fn full() -> HandshakeConfig {
        HandshakeConfig::default()
            .credentials(Some(Credentials::user("u", "secret")))
            .client_name(Some("app".into()))
            .database(2)
            .opt_in(Some(OptIn::new(false, Some("internal-ip"))))
            .library("evenkeel", "0.1")
    }

    #[test]
    fn one_write_asks_for_everything() {
        let (writes, result) = run(full(), &[HELLO, "+OK\r\n", "+OK\r\n", "+OK\r\n", "+OK\r\n"]);
        assert_eq!(writes.len(), 1);
        assert!(
            writes[0].contains("AUTH") && writes[0].contains("SELECT") && writes[0].contains("internal-ip")
        );
        let established = result.unwrap().unwrap();
        assert!(established.server.resp3);
        assert_eq!((established.server.id, established.server.mode.as_str()), (Some(5), "standalone"));
        assert_eq!(established.maintenance, OptInOutcome::Accepted);
    }

    #[test]
    fn a_refused_opt_in_is_quiet_unless_required() {
        let refusal = "-ERR unknown subcommand 'MAINT_NOTIFICATIONS'. Try CLIENT HELP.\r\n";
        let config = HandshakeConfig::default().opt_in(Some(OptIn::new(false, None)));
        let (_, result) = run(config, &[HELLO, refusal]);
        assert!(matches!(result.unwrap().unwrap().maintenance, OptInOutcome::Refused(_)));
        let config = HandshakeConfig::default().opt_in(Some(OptIn::new(true, None)));
        let (_, result) = run(config, &[HELLO, refusal]);
        assert_eq!(result.unwrap_err().step, Step::MaintNotifications);
    }

    #[test]
    fn servers_without_hello_are_met_in_resp2() {
        let unknown = "-ERR unknown command `HELLO`, with args beginning with: `3`\r\n";
        let noauth = "-NOAUTH Authentication required.\r\n";
        let (writes, result) = run(
            full(),
            &[
                unknown, noauth, noauth, noauth, noauth, "+OK\r\n", "+OK\r\n", "-ERR\r\n", "-ERR\r\n",
                "+OK\r\n",
            ],
        );
        assert_eq!(writes.len(), 2);
        assert!(writes[1].starts_with("*3\r\n$4\r\nAUTH"));
        assert!(!writes[1].contains("MAINT"));
        assert!(!result.unwrap().unwrap().server.resp3);
        let (_, result) = run(
            full().protocol(ProtocolChoice::Resp3),
            &["-NOPROTO no\r\n", "+OK\r\n", "+OK\r\n", "+OK\r\n", "+OK\r\n"],
        );
        assert_eq!(result.unwrap_err().cause, StepError::NoResp3);
    }

    #[test]
    fn resp3_that_is_required_and_not_spoken_is_told() {
        let config = HandshakeConfig::default().protocol(ProtocolChoice::Resp3);
        for hello in ["%1\r\n+proto\r\n:2\r\n", "*0\r\n"] {
            let (_, result) = run(config.clone(), &[hello]);
            let error = HandshakeError { step: Step::Hello, cause: StepError::NoResp3 };
            assert_eq!(result, Err(error), "{hello:?}");
        }
    }

    #[test]
    fn a_wrong_password_names_auth_and_no_secret() {
        let wrong = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
        let noauth = "-NOAUTH Authentication required.\r\n";
        let (_, result) = run(full(), &[wrong, noauth, noauth, noauth, noauth]);
        let error = result.unwrap_err();
        assert_eq!(error.step, Step::Auth);
        assert!(!format!("{error:?} {error} {:?}", full()).contains("secret"));
    }

    #[test]
    fn a_failure_waits_for_the_whole_round() {
        let (_, result) = run(full(), &["-ERR max number of clients reached\r\n", "+OK\r\n"]);
        assert_eq!(result, Ok(None));
    }

    #[test]
    fn another_kind_of_server_is_told_as_such() {
        let (_, result) = run(HandshakeConfig::default(), &["+PONG\r\n"]);
        assert!(matches!(result.unwrap_err().cause, StepError::Shape(_)));
    }
}
