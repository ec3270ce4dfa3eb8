//! The handoff engine's part of a configuration: its settings and the user's hooks.

use std::{fmt, sync::Arc};

use evenkeel_hitless::{NotificationHook, Protocol, Settings};

use super::{
    Config, ConfigBuilder, ProtocolVersion,
    error::{ConfigError, Problem},
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
        self.config.maintenance.push((format!("maint_{}", key.as_ref()), value.into()));
        self
    }

    /// Looks at announcements of maintenance before they are acted on, behind the hooks added before.
    pub fn maintenance_hook(mut self, hook: impl NotificationHook + 'static) -> Self {
        self.config.hooks.0.push(Arc::new(hook));
        self
    }
}

impl Config {
    /// The handoff engine's settings in force.
    pub(crate) fn handoff_settings(&self) -> Result<Settings, ConfigError> {
        let wrong = |error| ConfigError::new(self.origin, Problem::Maintenance(error));
        let mut config = evenkeel_hitless::Config::new();
        for (key, value) in &self.maintenance {
            config.set(key, value).map_err(wrong)?;
        }
        let protocol = match self.protocol() {
            ProtocolVersion::Resp2 => Protocol::Resp2,
            ProtocolVersion::Auto | ProtocolVersion::Resp3 => Protocol::Resp3,
        };
        config.build(protocol).map_err(wrong)
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
        let error = Config::builder().maintenance("relaxed_timeout", "0s").build().unwrap_err().to_string();
        assert!(error.contains("relaxed_timeout"), "{error}");
        let error = "redis://h?protocol=2&maint_mode=enabled".parse::<Config>().unwrap_err().to_string();
        assert!(error.contains("RESP3"), "{error}");
        assert!("redis://h?protocol=2".parse::<Config>().is_ok());
    }

    #[test]
    fn hooks_are_kept_in_order_and_never_shown() {
        let config = Config::builder().maintenance_hook(LoggingHook::new(LogLevel::Error)).build().unwrap();
        assert_eq!(config.hooks().iter().count(), 1);
        assert!(format!("{config:?}").contains("1 hooks"));
        assert_eq!(config, config.clone());
    }
}
