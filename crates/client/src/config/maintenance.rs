//! The handoff engine's part of a configuration: its settings and the user's hooks.

use std::{fmt, sync::Arc};

use evenkeel_hitless::{NotificationHook, Protocol, Settings};

use super::{
    Config, ConfigBuilder, ProtocolVersion,
    error::{ConfigError, Origin, Problem},
};

/// Hooks, in the order in which they were added.
#[derive(Clone, Default)]
pub(crate) struct HookList(Vec<Arc<dyn NotificationHook>>);

impl HookList {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<dyn NotificationHook>> {
        self.0.iter()
    }
}

impl PartialEq for HookList {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(|(a, b)| Arc::ptr_eq(a, b))
    }
}

impl fmt::Debug for HookList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} hooks", self.0.len())
    }
}

impl ConfigBuilder {
    /// A setting of the handoff engine by its name without `maint_`, as `("relaxed_timeout", "10s")`.
    pub fn maintenance(mut self, key: impl AsRef<str>, value: impl Into<String>) -> Self {
        self.config.set_maintenance(format!("maint_{}", key.as_ref()), value.into());
        self
    }

    /// All settings of the handoff engine at once, in place of those given before; what is given later by name goes on top.
    ///
    /// They are checked by [`build`](Self::build), together with everything else.
    ///
    /// ```
    /// use evenkeel_client::{Config, MaintenanceConfig, hitless::Mode};
    /// use std::time::Duration;
    ///
    /// let config = Config::builder()
    ///     .maintenance_config(
    ///         MaintenanceConfig::new()
    ///             .mode(Mode::Enabled)
    ///             .relaxed_timeout(Duration::from_secs(20)),
    ///     )
    ///     .build()?;
    /// assert!(config.to_string().contains("maint_mode=enabled"));
    /// # Ok::<(), evenkeel_client::Error>(())
    /// ```
    #[expect(clippy::needless_pass_by_value, reason = "given away, as to every other setter of the builder")]
    pub fn maintenance_config(mut self, settings: evenkeel_hitless::Config) -> Self {
        self.config.maintenance.clear();
        settings.to_text().into_iter().fold(self, |builder, (name, value)| builder.maintenance(name, value))
    }

    /// Looks at announcements of maintenance before they are acted on, behind the hooks added before.
    pub fn maintenance_hook(mut self, hook: impl NotificationHook + 'static) -> Self {
        self.config.hooks.0.push(Arc::new(hook));
        self
    }
}

/// A setting's name as a URL has it: `maint_...`, whatever source it came from.
pub(super) fn in_url(key: &str) -> String {
    let lower = key.to_ascii_lowercase();
    lower.strip_prefix("evenkeel_").map_or_else(|| lower.clone(), str::to_owned)
}

impl Config {
    /// Takes a setting by its name in any source. Said again, the later word counts: a URL has no room for both.
    pub(super) fn set_maintenance(&mut self, key: String, value: String) {
        let name = in_url(&key);
        self.maintenance.retain(|(known, _)| in_url(known) != name);
        self.maintenance.push((key, value));
    }

    /// The settings as they were given, each read for itself.
    pub(super) fn read_maintenance(&self) -> Result<evenkeel_hitless::Config, ConfigError> {
        let mut config = evenkeel_hitless::Config::new();
        for (key, value) in &self.maintenance {
            config
                .set(key, value)
                .map_err(|error| ConfigError::new(self.origin_of(key), Problem::Maintenance(error)))?;
        }
        Ok(config)
    }

    /// The handoff engine's settings in force.
    pub(crate) fn handoff_settings(&self) -> Result<Settings, ConfigError> {
        let config = self.read_maintenance()?;
        let protocol = match self.protocol() {
            ProtocolVersion::Resp2 => Protocol::Resp2,
            ProtocolVersion::Auto | ProtocolVersion::Resp3 => Protocol::Resp3,
        };
        config.build(protocol).map_err(|error| {
            // A rule may be broken by several settings together.
            let mut origins = self.maintenance.iter().map(|(key, _)| self.origin_of(key));
            let first = origins.next().unwrap_or(self.origin);
            let origin = if origins.all(|origin| origin == first) { first } else { self.origin };
            ConfigError::new(origin, Problem::Maintenance(error))
        })
    }

    /// Where a setting of the handoff engine came from.
    fn origin_of(&self, key: &str) -> Origin {
        match self.origin {
            _ if key.starts_with("EVENKEEL_") => Origin::Environment,
            Origin::Default => Origin::Builder,
            origin => origin,
        }
    }

    pub(crate) fn hooks(&self) -> &HookList {
        &self.hooks
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use evenkeel_hitless::{LogLevel, LoggingHook, Mode};

    use super::*;

    #[test]
    fn settings_come_from_every_source_and_are_checked_at_once() {
        let config: Config = "redis://h?maint_mode=auto&maint_relaxed_timeout=15s".parse().unwrap();
        let settings = config.handoff_settings().unwrap();
        assert_eq!((settings.mode(), settings.relaxed_timeout()), (Mode::Auto, Duration::from_secs(15)));
        let error = "redis://h?maint_mode=maybe".parse::<Config>().unwrap_err().to_string();
        assert!(error.starts_with("the URL: maint_mode=maybe is wrong"), "{error}");
        let error = Config::from_vars([("EVENKEEL_MAINT_MOOD", "auto")]).unwrap_err().to_string();
        assert!(error.contains("EVENKEEL_MAINT_MOOD"), "{error}");
        let error = Config::from_vars([("EVENKEEL_MAINT_MODE", "on")]).unwrap_err().to_string();
        assert!(error.starts_with("the environment: EVENKEEL_MAINT_MODE=on is wrong"), "{error}");
        // A wrong word is told, whether or not a later one replaces it.
        let vars = [("REDIS_URL", "redis://h?maint_mode=maybe"), ("EVENKEEL_MAINT_MODE", "auto")];
        let error = Config::from_vars(vars).unwrap_err().to_string();
        assert!(error.starts_with("REDIS_URL: maint_mode=maybe is wrong"), "{error}");
        let vars = [("REDIS_URL", "redis://h"), ("EVENKEEL_MAINT_RELAXED_TIMEOUT", "0s")];
        let error = Config::from_vars(vars).unwrap_err().to_string();
        assert!(error.starts_with("the environment: relaxed_timeout must be"), "{error}");
        let error = Config::builder().maintenance("relaxed_timeout", "0s").build().unwrap_err().to_string();
        assert!(error.starts_with("the builder: relaxed_timeout must be"), "{error}");
        let error = "redis://h?protocol=2&maint_mode=enabled".parse::<Config>().unwrap_err().to_string();
        assert!(error.contains("RESP3"), "{error}");
        assert!("redis://h?protocol=2".parse::<Config>().is_ok());
    }

    #[test]
    fn all_settings_are_given_at_once_and_single_ones_on_top() {
        let all =
            evenkeel_hitless::Config::new().mode(Mode::Enabled).relaxed_timeout(Duration::from_millis(1500));
        let builder = Config::builder().maintenance("max_workers", "9").maintenance_config(all.clone());
        let config = builder.maintenance("relaxed_timeout", "20s").build().unwrap();
        let expected = all.relaxed_timeout(Duration::from_secs(20)).build(Protocol::Resp3).unwrap();
        assert_eq!(config.handoff_settings().unwrap(), expected);
        assert_eq!(config.to_string().parse::<Config>().unwrap().handoff_settings().unwrap(), expected);
    }

    #[test]
    fn a_variable_goes_on_top_of_the_url_and_only_it_is_shown() {
        let vars =
            [("REDIS_URL", "redis://h?maint_relaxed_timeout=5s"), ("EVENKEEL_MAINT_RELAXED_TIMEOUT", "7s")];
        let config = Config::from_vars(vars).unwrap();
        assert_eq!(config.maintenance().len(), 1);
        let shown = config.to_string();
        assert!(shown.ends_with("maint_relaxed_timeout=7s") && !shown.contains("5s"), "{shown}");
        let read = shown.parse::<Config>().unwrap().handoff_settings().unwrap();
        assert_eq!(read.relaxed_timeout(), config.handoff_settings().unwrap().relaxed_timeout());
    }

    #[test]
    fn hooks_are_kept_in_order_and_never_shown() {
        let config = Config::builder().maintenance_hook(LoggingHook::new(LogLevel::Error)).build().unwrap();
        assert_eq!(config.hooks().iter().count(), 1);
        assert!(format!("{config:?}").contains("1 hooks"));
        assert_eq!(config, config.clone());
    }
}
