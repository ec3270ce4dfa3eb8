//! Settings of hitless upgrades: a builder and its rules; `text` reads URL parameters and environment variables.

mod text;

use std::time::Duration;

use crate::{EndpointType, sizes::Sizes};

/// 10 s: four times what a command is given otherwise covers the pauses that hosted servers announce.
const RELAXED_TIMEOUT: Duration = Duration::from_secs(10);
/// 15 s: the grace that servers give by default.
const HANDOFF_TIMEOUT: Duration = Duration::from_secs(15);
const MAX_HANDOFF_RETRIES: u8 = 3;
/// Beyond an hour a duration is a mistake in its unit, such as milliseconds read as seconds.
const LONGEST: Duration = Duration::from_secs(3600);
/// Prefix of the marker channels of the exact cut.
const CUT_CHANNEL: &str = "__evenkeel:cut:";

/// Whether the client asks servers to announce maintenance.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize), serde(rename_all = "kebab-case"))]
pub enum Mode {
    /// Ask every server; those that refuse are used without announcements. The default.
    #[default]
    Auto,
    /// Never ask.
    Disabled,
    /// A server that refuses is an error of the connection.
    Enabled,
}

/// Which events the engine logs under the target `evenkeel::hitless`; each level includes those before it.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize), serde(rename_all = "kebab-case"))]
pub enum LogLevel {
    /// What costs commands: connections that could not be moved. The default.
    #[default]
    Error,
    /// What may cost commands: failed attempts, windows that no announcement ended.
    Warn,
    /// Handoffs and windows.
    Info,
    /// Every announcement, with what came of it.
    Debug,
}

/// The protocol that the client is to speak.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// RESP2: no announcement can arrive.
    Resp2,
    /// RESP3.
    #[default]
    Resp3,
}

/// When a target that fails is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BreakerConfig {
    pub(crate) failure_threshold: u32,
    pub(crate) reset_timeout: Duration,
    pub(crate) max_requests: u32,
}

/// Settings of hitless upgrades, before their rules are checked by [`build`](Self::build).
///
/// ```
/// use evenkeel_hitless::{Config, Mode, Protocol};
/// use std::time::Duration;
///
/// let settings = Config::new()
///     .mode(Mode::Enabled)
///     .relaxed_timeout(Duration::from_secs(20))
///     .build(Protocol::Resp3)?;
/// assert_eq!(settings.post_handoff_relaxed_duration(), Duration::from_secs(40));
/// # Ok::<(), evenkeel_hitless::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize, serde::Serialize),
    serde(default, deny_unknown_fields)
)]
pub struct Config {
    mode: Mode,
    endpoint_type: EndpointType,
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    relaxed_timeout: Duration,
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    handoff_timeout: Duration,
    max_handoff_retries: u8,
    max_workers: usize,
    handoff_queue_size: usize,
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    post_handoff_relaxed_duration: Duration,
    log_level: LogLevel,
    circuit_breaker_failure_threshold: u32,
    #[cfg_attr(feature = "serde", serde(with = "humantime_serde"))]
    circuit_breaker_reset_timeout: Duration,
    circuit_breaker_max_requests: u32,
    cut_channel: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Auto,
            endpoint_type: EndpointType::Auto,
            relaxed_timeout: RELAXED_TIMEOUT,
            handoff_timeout: HANDOFF_TIMEOUT,
            max_handoff_retries: MAX_HANDOFF_RETRIES,
            max_workers: 0,
            handoff_queue_size: 0,
            post_handoff_relaxed_duration: Duration::ZERO,
            log_level: LogLevel::Error,
            circuit_breaker_failure_threshold: 5,
            circuit_breaker_reset_timeout: Duration::from_secs(60),
            circuit_breaker_max_requests: 3,
            cut_channel: Some(CUT_CHANNEL.to_owned()),
        }
    }
}

impl Config {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether servers are asked to announce maintenance. Default: [`Mode::Auto`].
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// The form in which servers name the target of a move. Default: [`EndpointType::Auto`].
    #[must_use]
    pub fn endpoint_type(mut self, endpoint_type: EndpointType) -> Self {
        self.endpoint_type = endpoint_type;
        self
    }

    /// The least time that an answer is given during maintenance. Default: 10 s.
    ///
    /// A floor: longer timeouts stay as they are. Too long and a dead server is noticed late in a window.
    #[must_use]
    pub fn relaxed_timeout(mut self, relaxed_timeout: Duration) -> Self {
        self.relaxed_timeout = relaxed_timeout;
        self
    }

    /// The most time that the handoff of one connection takes; the announced grace ends it earlier. Default: 15 s.
    #[must_use]
    pub fn handoff_timeout(mut self, handoff_timeout: Duration) -> Self {
        self.handoff_timeout = handoff_timeout;
        self
    }

    /// Further attempts after the first one failed, 1 to 10. Default: 3.
    #[must_use]
    pub fn max_handoff_retries(mut self, max_handoff_retries: u8) -> Self {
        self.max_handoff_retries = max_handoff_retries;
        self
    }

    /// Handoff dials at once per endpoint. Default: 0, computed from the pool's size ([`Sizes::new`]).
    #[must_use]
    pub fn max_workers(mut self, max_workers: usize) -> Self {
        self.max_workers = max_workers;
        self
    }

    /// Connections that may wait for their handoff; those beyond are left to ordinary reconnection.
    /// Default: 0, computed from the pool's size ([`Sizes::new`]).
    #[must_use]
    pub fn handoff_queue_size(mut self, handoff_queue_size: usize) -> Self {
        self.handoff_queue_size = handoff_queue_size;
        self
    }

    /// How long a moved connection keeps relaxed timeouts. Default: zero, which means twice the relaxed timeout.
    #[must_use]
    pub fn post_handoff_relaxed_duration(mut self, post_handoff_relaxed_duration: Duration) -> Self {
        self.post_handoff_relaxed_duration = post_handoff_relaxed_duration;
        self
    }

    /// What is logged. Default: [`LogLevel::Error`].
    #[must_use]
    pub fn log_level(mut self, log_level: LogLevel) -> Self {
        self.log_level = log_level;
        self
    }

    /// Failures in a row after which a target is left alone, at least 1. Default: 5.
    #[must_use]
    pub fn circuit_breaker_failure_threshold(mut self, failures: u32) -> Self {
        self.circuit_breaker_failure_threshold = failures;
        self
    }

    /// How long a failing target is left alone. Default: 60 s.
    #[must_use]
    pub fn circuit_breaker_reset_timeout(mut self, reset_timeout: Duration) -> Self {
        self.circuit_breaker_reset_timeout = reset_timeout;
        self
    }

    /// Attempts that must succeed before a target is trusted again, at least 1. Default: 3.
    #[must_use]
    pub fn circuit_breaker_max_requests(mut self, requests: u32) -> Self {
        self.circuit_breaker_max_requests = requests;
        self
    }

    /// The prefix of the marker channels of the exact cut; `None` switches the cut off.
    /// Default: `__evenkeel:cut:`.
    ///
    /// The server's user must be allowed to publish and subscribe there.
    #[must_use]
    pub fn cut_channel(mut self, prefix: Option<String>) -> Self {
        self.cut_channel = prefix;
        self
    }

    /// Checks the rules and gives the settings in force for a client that speaks `protocol`.
    ///
    /// [`Mode::Auto`] over RESP2 becomes [`Mode::Disabled`]: nothing could be announced there.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn build(self, protocol: Protocol) -> Result<Settings, ConfigError> {
        for (setting, value, zero_allowed) in [
            ("relaxed_timeout", self.relaxed_timeout, false),
            ("handoff_timeout", self.handoff_timeout, false),
            ("post_handoff_relaxed_duration", self.post_handoff_relaxed_duration, true),
            ("circuit_breaker_reset_timeout", self.circuit_breaker_reset_timeout, true),
        ] {
            if value.is_zero() && !zero_allowed {
                return Err(ConfigError::MustBePositive { setting });
            }
            if value > LONGEST {
                return Err(ConfigError::TooLong { setting });
            }
        }
        if !(1..=10).contains(&self.max_handoff_retries) {
            return Err(ConfigError::Retries { found: self.max_handoff_retries });
        }
        for (setting, value) in [
            ("circuit_breaker_failure_threshold", self.circuit_breaker_failure_threshold),
            ("circuit_breaker_max_requests", self.circuit_breaker_max_requests),
        ] {
            if value == 0 {
                return Err(ConfigError::MustBePositive { setting });
            }
        }
        if self.cut_channel.as_ref().is_some_and(String::is_empty) {
            return Err(ConfigError::EmptyCutChannel);
        }
        let mode = match (self.mode, protocol) {
            (Mode::Enabled, Protocol::Resp2) => return Err(ConfigError::NeedsResp3),
            (Mode::Auto, Protocol::Resp2) => Mode::Disabled,
            (mode, _) => mode,
        };
        let post_handoff_relaxed_duration = if self.post_handoff_relaxed_duration.is_zero() {
            self.relaxed_timeout * 2
        } else {
            self.post_handoff_relaxed_duration
        };
        Ok(Settings { config: Self { mode, post_handoff_relaxed_duration, ..self } })
    }
}

/// Settings whose rules hold; made by [`Config::build`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    config: Config,
}

impl Settings {
    /// Whether servers are asked.
    pub fn mode(&self) -> Mode {
        self.config.mode
    }

    /// The form in which targets are named.
    pub fn endpoint_type(&self) -> EndpointType {
        self.config.endpoint_type
    }

    /// The floor of timeouts during maintenance.
    pub fn relaxed_timeout(&self) -> Duration {
        self.config.relaxed_timeout
    }

    /// The most time for the handoff of one connection.
    pub fn handoff_timeout(&self) -> Duration {
        self.config.handoff_timeout
    }

    /// Attempts after the first.
    pub fn max_handoff_retries(&self) -> u8 {
        self.config.max_handoff_retries
    }

    /// How long a moved connection stays relaxed; never zero.
    pub fn post_handoff_relaxed_duration(&self) -> Duration {
        self.config.post_handoff_relaxed_duration
    }

    /// What is logged.
    pub fn log_level(&self) -> LogLevel {
        self.config.log_level
    }

    /// The prefix of marker channels, if the exact cut is on.
    pub fn cut_channel(&self) -> Option<&str> {
        self.config.cut_channel.as_deref()
    }

    /// Workers and queue for a pool of `pool_size` (lanes plus most leases) and at most `max_connections` (0 = no cap).
    pub fn sizes(&self, pool_size: usize, max_connections: usize) -> Sizes {
        Sizes::new(self.config.max_workers, self.config.handoff_queue_size, pool_size, max_connections)
    }

    pub(crate) fn breaker(&self) -> BreakerConfig {
        BreakerConfig {
            failure_threshold: self.config.circuit_breaker_failure_threshold,
            reset_timeout: self.config.circuit_breaker_reset_timeout,
            max_requests: self.config.circuit_breaker_max_requests,
        }
    }
}

/// A setting that breaks a rule.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A value that cannot be read.
    #[error("{key}={value} is wrong: expected {expected}")]
    BadValue {
        /// The key as it was given.
        key: String,
        /// The value as it was given.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// The marker channels would have no name.
    #[error("cut_channel must not be empty; `off` switches the exact cut off")]
    EmptyCutChannel,
    /// A value that must be more than zero.
    #[error("{setting} must be more than zero")]
    MustBePositive {
        /// The setting.
        setting: &'static str,
    },
    /// Announcements travel as RESP3 pushes.
    #[error("mode enabled needs RESP3; choose protocol 3, or mode auto or disabled")]
    NeedsResp3,
    /// The count of retries is out of range.
    #[error("max_handoff_retries must be from 1 to 10, not {found}")]
    Retries {
        /// What was given.
        found: u8,
    },
    /// A duration of more than an hour.
    #[error("{setting} must not be longer than one hour")]
    TooLong {
        /// The setting.
        setting: &'static str,
    },
    /// A key about maintenance that does not exist.
    #[error("there is no setting {key}")]
    UnknownKey {
        /// The key as it was given.
        key: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_contract() {
        let settings = Config::new().build(Protocol::Resp3).unwrap();
        assert_eq!(settings.mode(), Mode::Auto);
        assert_eq!(settings.endpoint_type(), EndpointType::Auto);
        assert_eq!(settings.relaxed_timeout(), Duration::from_secs(10));
        assert_eq!(settings.handoff_timeout(), Duration::from_secs(15));
        assert_eq!(settings.max_handoff_retries(), 3);
        assert_eq!(settings.post_handoff_relaxed_duration(), Duration::from_secs(20));
        assert_eq!(settings.log_level(), LogLevel::Error);
        assert_eq!(settings.cut_channel(), Some("__evenkeel:cut:"));
        let breaker = settings.breaker();
        assert_eq!((breaker.failure_threshold, breaker.max_requests), (5, 3));
        assert_eq!(breaker.reset_timeout, Duration::from_secs(60));
    }

    #[test]
    fn a_broken_rule_is_named() {
        let refused = |config: Config| config.build(Protocol::Resp3).unwrap_err().to_string();
        let zero = Duration::ZERO;
        assert_eq!(refused(Config::new().relaxed_timeout(zero)), "relaxed_timeout must be more than zero");
        assert_eq!(refused(Config::new().handoff_timeout(zero)), "handoff_timeout must be more than zero");
        for retries in [0, 11] {
            assert_eq!(
                refused(Config::new().max_handoff_retries(retries)),
                format!("max_handoff_retries must be from 1 to 10, not {retries}")
            );
        }
        assert_eq!(
            refused(Config::new().relaxed_timeout(Duration::from_secs(30_000))),
            "relaxed_timeout must not be longer than one hour"
        );
        assert!(refused(Config::new().circuit_breaker_failure_threshold(0)).contains("failure_threshold"));
        assert!(refused(Config::new().circuit_breaker_max_requests(0)).contains("max_requests"));
        assert!(refused(Config::new().cut_channel(Some(String::new()))).contains("cut_channel"));
    }

    #[test]
    fn resp2_is_refused_when_enabled_and_quiet_when_auto() {
        assert_eq!(Config::new().mode(Mode::Enabled).build(Protocol::Resp2), Err(ConfigError::NeedsResp3));
        assert_eq!(Config::new().build(Protocol::Resp2).unwrap().mode(), Mode::Disabled);
    }

    #[cfg(feature = "serde")]
    #[test]
    fn a_settings_file_refuses_unknown_keys() {
        let read: Config = serde_json::from_str(r#"{"mode":"enabled","relaxed_timeout":"3s"}"#).unwrap();
        assert_eq!(read, Config::new().mode(Mode::Enabled).relaxed_timeout(Duration::from_secs(3)));
        assert!(serde_json::from_str::<Config>(r#"{"moed":"enabled"}"#).is_err());
    }
}
