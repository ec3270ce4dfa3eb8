//! Choices among ways to do things.

use std::time::Duration;

use super::defaults::{BACKOFF_MAX, BACKOFF_STEP};

/// Where reads go.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ReadPolicy {
    /// To the node that answers fastest, replicas included. What was just written may not be there yet.
    Nearest,
    /// To a replica, to the primary when there is none. What was just written may not be there yet.
    PreferReplica,
    /// To the primary.
    #[default]
    Primary,
    /// To a node of the own `zone`, else to any replica, else to the primary.
    Zone,
}

/// Which protocol is spoken.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ProtocolVersion {
    /// RESP3 by `HELLO`, RESP2 when the server refuses it.
    #[default]
    Auto,
    /// RESP2: maintenance is never announced on it.
    Resp2,
    /// RESP3, or an error.
    Resp3,
}

/// Where redirections, sentinels and announcements may lead. Credentials go nowhere before this is checked.
#[non_exhaustive]
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RedirectPolicy {
    /// Anywhere; under TLS the name must verify.
    #[default]
    Any,
    /// Only to hosts of this list, and to those configured: names and addresses, compared without regard to case; `*.` in front of a
    /// name stands for any labels.
    Hosts(Vec<String>),
}

/// The wait before a lost connection is dialled again; jitter is added where it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backoff {
    /// `step`, twice that, four times, ... up to `max`.
    Exponential {
        /// The first wait.
        step: Duration,
        /// The longest wait.
        max: Duration,
    },
    /// `step`, twice that, three times, ... up to `max`.
    Linear {
        /// The first wait, and what each further one adds.
        step: Duration,
        /// The longest wait.
        max: Duration,
    },
}

impl Default for Backoff {
    /// 50 ms, 100 ms, 150 ms, ... up to 2 s.
    fn default() -> Self {
        Self::Linear { step: BACKOFF_STEP, max: BACKOFF_MAX }
    }
}

impl Backoff {
    /// The wait before dial number `attempt`; the first dial after a loss is number 1.
    pub fn wait(&self, attempt: u32) -> Duration {
        let attempt = attempt.max(1);
        match *self {
            Self::Linear { step, max } => step.saturating_mul(attempt).min(max),
            Self::Exponential { step, max } => {
                let factor = 1u32.checked_shl(attempt - 1).unwrap_or(u32::MAX);
                step.saturating_mul(factor).min(max)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_their_cap() {
        let waits = |backoff: Backoff| [1, 2, 3, 40, 4000].map(|n| backoff.wait(n).as_millis());
        assert_eq!(waits(Backoff::default()), [50, 100, 150, 2000, 2000]);
        let exponential = Backoff::Exponential { step: BACKOFF_STEP, max: BACKOFF_MAX };
        assert_eq!(waits(exponential), [50, 100, 200, 2000, 2000]);
    }
}
