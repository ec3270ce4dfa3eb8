//! Spans of what the gateway does for others, and its counters, for a collector of OpenTelemetry.
//!
//! Names and attributes are those of the semantic conventions. What clients and servers send never becomes an
//! attribute, and neither does a channel's name beyond its namespace: names may hold what identifies a person.

#[cfg(feature = "otlp")]
mod bounded;
#[cfg(feature = "otlp")]
mod config;
#[cfg(feature = "otlp")]
mod counters;
#[cfg(feature = "otlp")]
mod live;
#[cfg(not(feature = "otlp"))]
mod off;
#[cfg(feature = "otlp")]
mod post;

#[cfg(feature = "otlp")]
pub use config::OtlpConfig;
#[cfg(feature = "otlp")]
pub(crate) use live::{Span, Telemetry};
#[cfg(not(feature = "otlp"))]
pub(crate) use off::{Span, Telemetry};

use crate::broker::{History, Published};
use crate::error::BrokerError;
use crate::hooks::Hook;
use crate::publication::Position;
use http::{HeaderMap, Method};

/// What a span is about.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "otlp"), expect(dead_code, reason = "nobody reads it where nothing is exported"))]
pub(crate) enum Doing<'a> {
    /// A question to a hook; its headers may say what it belongs to.
    Ask { hook: Hook, host: &'a str, port: u16, headers: &'a HeaderMap },
    /// A publication given to the broker.
    Publish { channel: &'a str, bytes: usize },
    /// A client that comes back reads what it missed.
    Recover { channel: &'a str },
    /// A request of the server API; its headers may say what it belongs to.
    Serve { method: &'a Method, headers: &'a HeaderMap },
}

impl Span {
    /// Says what became of a recovery.
    pub(crate) fn recovered(&self, result: Result<&History, &BrokerError>, since: &Position) {
        match result {
            Ok(history) => {
                let whole = history.continues(since);
                self.text("evenkeel.recover.outcome", if whole { "recovered" } else { "unrecovered" });
                self.number("evenkeel.recover.publications", history.publications.len());
            }
            Err(error) => self.fail(kind(*error)),
        }
    }

    /// Says what became of a publication.
    pub(crate) fn published(&self, result: Result<&Published, &BrokerError>) {
        match result {
            Ok(Published::Accepted) => self.text("evenkeel.publish.outcome", "accepted"),
            Ok(Published::Delivered(_)) => self.text("evenkeel.publish.outcome", "delivered"),
            Err(error) => self.fail(kind(*error)),
        }
    }
}

/// A broker's error as the value of `error.type`.
pub(crate) const fn kind(error: BrokerError) -> &'static str {
    match error {
        BrokerError::Full => "full",
        BrokerError::Unavailable => "unavailable",
        BrokerError::Unknown => "unknown",
        BrokerError::Unsupported => "unsupported",
    }
}
