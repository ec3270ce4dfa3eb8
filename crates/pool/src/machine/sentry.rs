//! `Sentry`: when a connection proves that replies and commands are in step, and what the answer says.
//!
//! It knows no socket and no FIFO: the driver appends the `PING` that it is given, and shows it each reply that comes while
//! the answer is owed, with whether it stands in the answer's place.

use std::time::{Duration, Instant};

use evenkeel_protocol::{Command, Reply};

use super::backoff::Seed;

/// When a connection asks for a proof. Default: never.
///
/// Replies find their callers by their order, so nothing needs it while server and proxies keep to the protocol: it is for
/// those who do not trust what stands between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SentryConfig {
    every: u32,
    idle: Option<Duration>,
}

impl SentryConfig {
    /// Asks behind every so many commands; 0 is never. Default: 0.
    ///
    /// A reply can have gone astray since the last proof at most: fewer commands are in doubt when the number is smaller,
    /// and each `PING` costs the server as much as a `GET`.
    #[must_use]
    pub fn every(mut self, commands: u32) -> Self {
        self.every = commands;
        self
    }

    /// Asks once when nothing was written for so long and something was since the last proof. Default: never.
    #[must_use]
    pub fn idle(mut self, after: Option<Duration>) -> Self {
        self.idle = after;
        self
    }

    /// True when it never asks.
    pub fn is_off(&self) -> bool {
        self.every == 0 && self.idle.is_none()
    }
}

/// Why replies and commands of a connection cannot be told apart any more; it is closed.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutOfStep {
    /// Bytes that are not RESP, or over a limit.
    NotResp,
    /// What was answered is not what the sentry had asked. Replies since its last proof may have been others' too.
    Sentry,
    /// A reply that nobody asked for.
    Unasked,
}

/// What a reply tells of the steps.
#[expect(clippy::exhaustive_enums, reason = "there is no third way")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing speaks against it.
    InStep,
    /// It is another's: close the connection, and hand out nothing that was read with it.
    OutOfStep,
}

/// ```text
///  Watching -- n commands, or silence --> Due -- asked --> Asked
///     ^                                                    |  |
///     +---- the nonce in its place, or an error there -----+  +-- anything else there, or the nonce elsewhere: out of step
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Watching,
    Due,
    Asked { nonce: String },
}

/// Decides for one connection.
#[derive(Debug)]
pub struct Sentry {
    config: SentryConfig,
    seed: Seed,
    state: State,
    /// Commands since the last proof was asked for.
    unproven: u32,
    idle_at: Option<Instant>,
}

impl Sentry {
    /// Watches a connection that has written nothing yet; `None` when it would never ask. The seed is of its questions' words.
    pub fn new(config: SentryConfig, seed: Seed) -> Option<Self> {
        let sentry = Self { config, seed, state: State::Watching, unproven: 0, idle_at: None };
        (!config.is_off()).then_some(sentry)
    }

    /// So many commands of callers are written now.
    pub fn wrote(&mut self, now: Instant, commands: u32) {
        if commands == 0 {
            return;
        }
        self.unproven = self.unproven.saturating_add(commands);
        self.idle_at = self.config.idle.map(|idle| now + idle);
        if self.state == State::Watching && self.config.every > 0 && self.unproven >= self.config.every {
            self.state = State::Due;
        }
    }

    /// Tells that `now` has come; calls that are too early do nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|at| at <= now) {
            self.state = State::Due;
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next, if ever.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.idle_at.filter(|_| self.state == State::Watching && self.unproven > 0)
    }

    /// A question is to be asked with the next write.
    pub fn is_due(&self) -> bool {
        self.state == State::Due
    }

    /// The question, when it is due. Its answer is owed from now on.
    pub fn ask(&mut self) -> Option<Command> {
        if !self.is_due() {
            return None;
        }
        let nonce = format!("evenkeel:{:016x}", self.seed.draw());
        let ping = Command::new("PING").arg(&nonce);
        self.state = State::Asked { nonce };
        self.unproven = 0;
        Some(ping)
    }

    /// Looks at a reply; `own` when it stands in the place of the question's answer.
    pub fn handle_reply(&mut self, own: bool, reply: &Reply) -> Verdict {
        let State::Asked { nonce } = &self.state else { return Verdict::InStep };
        let is_nonce = is_text(reply, nonce);
        if !own {
            // The answer in a caller's place: a reply before it is missing.
            return if is_nonce { Verdict::OutOfStep } else { Verdict::InStep };
        }
        // An error (no permission, a script that runs, still loading) proves nothing either way: counting begins anew.
        let refused = reply.error().is_some();
        self.state = State::Watching;
        if is_nonce || refused { Verdict::InStep } else { Verdict::OutOfStep }
    }
}

/// Whether the reply is this text; others are told apart by their length.
fn is_text(reply: &Reply, text: &str) -> bool {
    /// Bytes of the header and line ends around a short string, at most.
    const AROUND: usize = 8;
    let len = reply.as_bytes().len();
    let may_be = (text.len()..=text.len() + AROUND).contains(&len);
    may_be && reply.reader().text("string").is_ok_and(|found| found == text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "origin of virtual time")]
    fn origin() -> Instant {
        Instant::now()
    }

    fn sentry(config: SentryConfig) -> Sentry {
        Sentry::new(config, Seed::new(7)).unwrap()
    }

    fn reply(wire: &str) -> Reply {
        Reply::new(wire.to_owned().into())
    }

    /// The answer that the question wants.
    fn answer(ping: &Command) -> Reply {
        let mut wire = bytes::BytesMut::new();
        ping.encode(&mut wire);
        let args: Vec<String> = Reply::new(wire.freeze()).decode().unwrap();
        assert_eq!(args[0], "PING");
        reply(&format!("${}\r\n{}\r\n", args[1].len(), args[1]))
    }

    #[test]
    fn without_a_reason_to_ask_there_is_none() {
        assert!(Sentry::new(SentryConfig::default(), Seed::new(1)).is_none());
    }

    #[test]
    fn it_asks_behind_every_so_many_commands_and_once_at_a_time() {
        let now = origin();
        let mut sentry = sentry(SentryConfig::default().every(10));
        sentry.wrote(now, 9);
        assert!(sentry.ask().is_none());
        sentry.wrote(now, 1);
        let first = sentry.ask().unwrap();
        assert_eq!(sentry.poll_timeout(), None);
        // What is written while the answer is owed counts for the next question.
        sentry.wrote(now, 25);
        assert!(sentry.ask().is_none());
        assert_eq!(sentry.handle_reply(false, &reply("+OK\r\n")), Verdict::InStep);
        assert_eq!(sentry.handle_reply(true, &answer(&first)), Verdict::InStep);
        sentry.wrote(now, 1);
        let second = sentry.ask().unwrap();
        assert_ne!(answer(&first), answer(&second));
    }

    #[test]
    fn it_asks_once_after_silence_that_follows_commands() {
        let (start, idle) = (origin(), Duration::from_secs(5));
        let mut sentry = sentry(SentryConfig::default().idle(Some(idle)));
        assert_eq!(sentry.poll_timeout(), None);
        sentry.wrote(start, 1);
        let later = start + Duration::from_secs(3);
        sentry.wrote(later, 1);
        assert_eq!(sentry.poll_timeout(), Some(later + idle));
        sentry.handle_timeout(start + idle);
        assert!(!sentry.is_due(), "too early");
        sentry.handle_timeout(later + idle);
        let ping = sentry.ask().unwrap();
        assert_eq!(sentry.handle_reply(true, &answer(&ping)), Verdict::InStep);
        // Its own question is no reason for another.
        sentry.wrote(later + idle, 0);
        assert_eq!(sentry.poll_timeout(), None);
    }

    #[test]
    fn an_answer_in_another_place_and_another_answer_are_out_of_step() {
        for wrong in ["+OK\r\n", "$4\r\nPONG\r\n", "_\r\n", "$25\r\nevenkeel:0000000000000000\r\n", ":1\r\n"]
        {
            let mut sentry = sentry(SentryConfig::default().every(1));
            sentry.wrote(origin(), 1);
            assert!(sentry.ask().is_some());
            assert_eq!(sentry.handle_reply(true, &reply(wrong)), Verdict::OutOfStep, "{wrong:?}");
        }
        let mut sentry = sentry(SentryConfig::default().every(1));
        sentry.wrote(origin(), 1);
        let ping = sentry.ask().unwrap();
        assert_eq!(sentry.handle_reply(false, &answer(&ping)), Verdict::OutOfStep);
    }

    #[test]
    fn an_error_in_its_place_proves_nothing_and_counting_begins_anew() {
        let now = origin();
        let mut sentry = sentry(SentryConfig::default().every(3));
        sentry.wrote(now, 3);
        assert!(sentry.ask().is_some());
        assert_eq!(sentry.handle_reply(true, &reply("-NOPERM no\r\n")), Verdict::InStep);
        sentry.wrote(now, 2);
        assert!(!sentry.is_due());
        sentry.wrote(now, 1);
        assert!(sentry.is_due());
    }
}
