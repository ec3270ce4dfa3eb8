//! Settings as text: `maint_mode=auto` in a URL, `EVENKEEL_MAINT_MODE=auto` in the environment.

use std::time::Duration;

use super::{Config, ConfigError, LogLevel, Mode};
use crate::EndpointType;

impl Config {
    /// Takes one setting as text: a URL parameter such as `maint_mode=auto` or an environment variable such as
    /// `EVENKEEL_MAINT_MODE`, in any case.
    ///
    /// Gives `false` when the key is not about maintenance. Durations are written as `10s` or `500ms`.
    ///
    /// # Errors
    /// A key about maintenance that does not exist, or a value that cannot be read.
    pub fn set(&mut self, key: &str, value: &str) -> Result<bool, ConfigError> {
        let lower = key.to_ascii_lowercase();
        let Some(name) = lower.strip_prefix("evenkeel_").unwrap_or(&lower).strip_prefix("maint_") else {
            return Ok(false);
        };
        let bad = |expected| ConfigError::BadValue { key: key.to_owned(), value: value.to_owned(), expected };
        let value = value.trim();
        match name {
            "mode" => {
                self.mode = match_word(value, &MODES).ok_or_else(|| bad("auto, enabled or disabled"))?;
            }
            "endpoint_type" => {
                self.endpoint_type = value.parse().map_err(|_unknown| bad(EndpointType::WORDS))?;
            }
            "log_level" => {
                self.log_level =
                    match_word(value, &LOG_LEVELS).ok_or_else(|| bad("error, warn, info or debug"))?;
            }
            "relaxed_timeout" => self.relaxed_timeout = duration(value).ok_or_else(|| bad(DURATION))?,
            "handoff_timeout" => self.handoff_timeout = duration(value).ok_or_else(|| bad(DURATION))?,
            "post_handoff_relaxed_duration" => {
                self.post_handoff_relaxed_duration = duration(value).ok_or_else(|| bad(DURATION))?;
            }
            "circuit_breaker_reset_timeout" => {
                self.circuit_breaker_reset_timeout = duration(value).ok_or_else(|| bad(DURATION))?;
            }
            "max_handoff_retries" => {
                self.max_handoff_retries = value.parse().map_err(|_no| bad("a number from 1 to 10"))?;
            }
            "max_workers" => self.max_workers = value.parse().map_err(|_no| bad(COUNT))?,
            "handoff_queue_size" => self.handoff_queue_size = value.parse().map_err(|_no| bad(COUNT))?,
            "circuit_breaker_failure_threshold" => {
                self.circuit_breaker_failure_threshold = value.parse().map_err(|_no| bad(COUNT))?;
            }
            "circuit_breaker_max_requests" => {
                self.circuit_breaker_max_requests = value.parse().map_err(|_no| bad(COUNT))?;
            }
            "cut_channel" => {
                self.cut_channel = (!value.eq_ignore_ascii_case("off")).then(|| value.to_owned());
            }
            _ => return Err(ConfigError::UnknownKey { key: key.to_owned() }),
        }
        Ok(true)
    }

    /// The settings that differ from their defaults, as names without `maint_` and as text that [`set`](Self::set) reads.
    ///
    /// A cut channel of the name `off` cannot be written as text: it means none there.
    ///
    /// ```
    /// use evenkeel_hitless::{Config, Mode};
    ///
    /// assert_eq!(Config::new().mode(Mode::Enabled).to_text(), [("mode", "enabled".to_owned())]);
    /// ```
    pub fn to_text(&self) -> Vec<(&'static str, String)> {
        let all = |config: &Self| {
            [
                ("mode", word_of(config.mode, &MODES)),
                ("endpoint_type", config.endpoint_type.to_string()),
                ("relaxed_timeout", text_of(config.relaxed_timeout)),
                ("handoff_timeout", text_of(config.handoff_timeout)),
                ("max_handoff_retries", config.max_handoff_retries.to_string()),
                ("max_workers", config.max_workers.to_string()),
                ("handoff_queue_size", config.handoff_queue_size.to_string()),
                ("post_handoff_relaxed_duration", text_of(config.post_handoff_relaxed_duration)),
                ("log_level", word_of(config.log_level, &LOG_LEVELS)),
                ("circuit_breaker_failure_threshold", config.circuit_breaker_failure_threshold.to_string()),
                ("circuit_breaker_reset_timeout", text_of(config.circuit_breaker_reset_timeout)),
                ("circuit_breaker_max_requests", config.circuit_breaker_max_requests.to_string()),
                ("cut_channel", config.cut_channel.clone().unwrap_or_else(|| "off".to_owned())),
            ]
        };
        let pairs = all(self).into_iter().zip(all(&Self::new()));
        pairs.filter(|(mine, usual)| mine != usual).map(|(mine, _)| mine).collect()
    }
}

const MODES: [(&str, Mode); 3] =
    [("auto", Mode::Auto), ("disabled", Mode::Disabled), ("enabled", Mode::Enabled)];

const LOG_LEVELS: [(&str, LogLevel); 4] = [
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
];

const DURATION: &str = "a duration with its unit, such as 10s or 500ms";
const COUNT: &str = "a whole number";

fn duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok()
}

/// A duration without spaces, exact to the nanosecond.
fn text_of(duration: Duration) -> String {
    humantime::format_duration(duration).to_string().replace(' ', "")
}

fn word_of<T: Copy + PartialEq>(meaning: T, words: &[(&str, T)]) -> String {
    let word = words.iter().find(|(_, known)| *known == meaning);
    word.map_or_else(String::new, |(word, _)| (*word).to_owned())
}

fn match_word<T: Copy>(value: &str, words: &[(&str, T)]) -> Option<T> {
    words.iter().find(|(word, _)| value.eq_ignore_ascii_case(word)).map(|(_, meaning)| *meaning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_read_from_url_and_environment() {
        let mut config = Config::new();
        for (key, value) in [
            ("maint_mode", "Enabled"),
            ("EVENKEEL_MAINT_ENDPOINT_TYPE", "external-fqdn"),
            ("maint_relaxed_timeout", "20s"),
            ("EVENKEEL_MAINT_HANDOFF_TIMEOUT", "1m"),
            ("maint_max_handoff_retries", "10"),
            ("maint_max_workers", "4"),
            ("maint_handoff_queue_size", "40"),
            ("maint_post_handoff_relaxed_duration", "500ms"),
            ("maint_log_level", "debug"),
            ("maint_circuit_breaker_failure_threshold", "2"),
            ("maint_circuit_breaker_reset_timeout", "5s"),
            ("maint_circuit_breaker_max_requests", "1"),
            ("maint_cut_channel", "off"),
        ] {
            assert_eq!(config.set(key, value), Ok(true), "{key}");
        }
        let expected = Config::new()
            .mode(Mode::Enabled)
            .endpoint_type(EndpointType::ExternalFqdn)
            .relaxed_timeout(Duration::from_secs(20))
            .handoff_timeout(Duration::from_secs(60))
            .max_handoff_retries(10)
            .max_workers(4)
            .handoff_queue_size(40)
            .post_handoff_relaxed_duration(Duration::from_millis(500))
            .log_level(LogLevel::Debug)
            .circuit_breaker_failure_threshold(2)
            .circuit_breaker_reset_timeout(Duration::from_secs(5))
            .circuit_breaker_max_requests(1)
            .cut_channel(None);
        assert_eq!(config, expected);
    }

    #[test]
    fn what_is_written_as_text_is_read_again() {
        assert_eq!(Config::new().to_text(), []);
        let config = Config::new()
            .mode(Mode::Disabled)
            .endpoint_type(EndpointType::None)
            .relaxed_timeout(Duration::new(61, 1_500_001))
            .handoff_timeout(Duration::from_millis(1))
            .max_handoff_retries(1)
            .max_workers(7)
            .handoff_queue_size(70)
            .post_handoff_relaxed_duration(Duration::from_secs(3599))
            .log_level(LogLevel::Info)
            .circuit_breaker_failure_threshold(9)
            .circuit_breaker_reset_timeout(Duration::from_micros(3))
            .circuit_breaker_max_requests(8)
            .cut_channel(None);
        let mut read = Config::new();
        for (name, value) in config.to_text() {
            assert_eq!(read.set(&format!("maint_{name}"), &value), Ok(true), "{name}={value}");
        }
        assert_eq!(read, config);
        assert_eq!(config.to_text().len(), 13);
    }

    #[test]
    fn wrong_text_names_the_setting_and_what_was_found() {
        let mut config = Config::new();
        assert_eq!(config.set("protocol", "3"), Ok(false));
        assert_eq!(
            config.set("maint_mod", "auto"),
            Err(ConfigError::UnknownKey { key: "maint_mod".to_owned() })
        );
        let error = config.set("EVENKEEL_MAINT_RELAXED_TIMEOUT", "10").unwrap_err();
        assert_eq!(
            error.to_string(),
            "EVENKEEL_MAINT_RELAXED_TIMEOUT=10 is wrong: expected a duration with its unit, such as 10s or 500ms"
        );
        for (key, value) in [
            ("maint_mode", "on"),
            ("maint_endpoint_type", "ip"),
            ("maint_max_handoff_retries", "-1"),
            ("maint_max_workers", "many"),
            ("maint_log_level", "loud"),
        ] {
            assert!(matches!(config.set(key, value), Err(ConfigError::BadValue { .. })), "{key}");
        }
        assert_eq!(config, Config::new());
    }
}
