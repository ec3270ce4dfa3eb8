//! The opt-in of the handshake: whether to ask a server for announcements, and what its answer means.
//!
//! The question travels with the other commands of the handshake and costs no round trip; nothing here sends it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use evenkeel_protocol::Endpoint;

use crate::{Mode, Protocol};

/// How long a refusal is believed: a server may be upgraded or have the feature switched on.
const REFUSAL_TTL: Duration = Duration::from_secs(600);
/// Servers whose refusal is remembered; beyond, the one that expires first is asked again early.
const MAX_REFUSALS: usize = 1024;

/// Whether `CLIENT MAINT_NOTIFICATIONS ON` is part of a handshake.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptIn {
    /// Ask, and tell [`Refusals::judge`] the answer.
    Ask,
    /// Do not ask.
    Skip,
}

/// What a server said to the question.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptInReply<'a> {
    /// `+OK`.
    Accepted,
    /// An error, in the server's words.
    Refused(&'a str),
}

/// What the answer means for the connection.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptInVerdict {
    /// Announcements will come on this connection.
    Accepted,
    /// The connection must not be used.
    Fail(OptInError),
    /// The connection is used without announcements; nobody is bothered.
    Quiet,
}

/// Why a connection fails in [`Mode::Enabled`].
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptInError {
    /// The server refused.
    #[error("the server refused maintenance notifications: {words}")]
    Refused {
        /// The server's words.
        words: String,
    },
    /// Only RESP2 could be agreed on, where no announcement arrives.
    #[error("maintenance notifications need RESP3, and the server speaks RESP2")]
    Resp2,
}

/// Remembers which servers refused, each for ten minutes.
///
/// A refusal concerns one server only: others are asked all the same, and an acceptance by one promotes no other.
///
/// ```
/// use evenkeel_hitless::{Mode, OptIn, OptInReply, OptInVerdict, Protocol, Refusals};
/// # #[expect(clippy::disallowed_methods)] let now = std::time::Instant::now();
/// let server = "localhost:6379".parse().unwrap();
/// let mut refusals = Refusals::default();
/// assert_eq!(refusals.decide(now, Mode::Auto, &server), OptIn::Ask);
/// let reply = OptInReply::Refused("ERR unknown subcommand");
/// assert_eq!(refusals.judge(now, Mode::Auto, &server, Protocol::Resp3, reply), OptInVerdict::Quiet);
/// assert_eq!(refusals.decide(now, Mode::Auto, &server), OptIn::Skip);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Refusals {
    until: BTreeMap<Endpoint, Instant>,
}

impl Refusals {
    /// Whether to ask `server`, which is what is dialled.
    pub fn decide(&self, now: Instant, mode: Mode, server: &Endpoint) -> OptIn {
        match mode {
            Mode::Disabled => OptIn::Skip,
            Mode::Auto if self.until.get(server).is_some_and(|until| now < *until) => OptIn::Skip,
            Mode::Auto | Mode::Enabled => OptIn::Ask,
        }
    }

    /// What the answer of `server` means, when the handshake agreed on `protocol`.
    pub fn judge(
        &mut self,
        now: Instant,
        mode: Mode,
        server: &Endpoint,
        protocol: Protocol,
        reply: OptInReply<'_>,
    ) -> OptInVerdict {
        let error = match (reply, protocol) {
            (OptInReply::Accepted, Protocol::Resp3) => {
                self.until.remove(server);
                return OptInVerdict::Accepted;
            }
            (OptInReply::Accepted, Protocol::Resp2) => OptInError::Resp2,
            (OptInReply::Refused(words), _) => OptInError::Refused { words: words.to_owned() },
        };
        if mode == Mode::Enabled {
            return OptInVerdict::Fail(error);
        }
        self.until.retain(|_, until| now < *until);
        if self.until.len() >= MAX_REFUSALS
            && let Some(first) =
                self.until.iter().min_by_key(|(_, until)| **until).map(|(key, _)| key.clone())
        {
            self.until.remove(&first);
        }
        self.until.insert(server.clone(), now + REFUSAL_TTL);
        OptInVerdict::Quiet
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "origin of virtual time")]
    fn origin() -> Instant {
        Instant::now()
    }

    fn server(port: u16) -> Endpoint {
        Endpoint::new("h", port)
    }

    const NO: OptInReply<'_> = OptInReply::Refused("ERR unknown subcommand 'maint_notifications'");

    #[test]
    fn a_refusal_is_remembered_per_server_and_expires() {
        let now = origin();
        let mut refusals = Refusals::default();
        assert_eq!(refusals.judge(now, Mode::Auto, &server(1), Protocol::Resp3, NO), OptInVerdict::Quiet);
        assert_eq!(refusals.decide(now, Mode::Auto, &server(1)), OptIn::Skip);
        assert_eq!(refusals.decide(now, Mode::Auto, &server(2)), OptIn::Ask);
        assert_eq!(refusals.decide(now + REFUSAL_TTL, Mode::Auto, &server(1)), OptIn::Ask);
        // A server that accepts later is asked on every connection from then on.
        let yes = OptInReply::Accepted;
        assert_eq!(refusals.judge(now, Mode::Auto, &server(1), Protocol::Resp3, yes), OptInVerdict::Accepted);
        assert_eq!(refusals.decide(now, Mode::Auto, &server(1)), OptIn::Ask);
    }

    #[test]
    fn enabled_fails_with_the_servers_words_and_disabled_never_asks() {
        let now = origin();
        let mut refusals = Refusals::default();
        let verdict = refusals.judge(now, Mode::Enabled, &server(1), Protocol::Resp3, NO);
        let OptInVerdict::Fail(error) = verdict else { panic!("{verdict:?}") };
        assert!(error.to_string().contains("unknown subcommand"), "{error}");
        assert_eq!(refusals.decide(now, Mode::Enabled, &server(1)), OptIn::Ask);
        assert_eq!(refusals.decide(now, Mode::Disabled, &server(1)), OptIn::Skip);
        assert_eq!(
            refusals.judge(now, Mode::Enabled, &server(1), Protocol::Resp2, OptInReply::Accepted),
            OptInVerdict::Fail(OptInError::Resp2)
        );
    }

    #[test]
    fn the_memory_is_bounded() {
        let now = origin();
        let mut refusals = Refusals::default();
        for port in 1..=2000 {
            refusals.judge(now, Mode::Auto, &server(port), Protocol::Resp3, NO);
        }
        assert_eq!(refusals.until.len(), MAX_REFUSALS);
    }
}
