//! Channels by name: which options a channel has, and what a session may do on it.
//!
//! A channel `news:sport` belongs to the namespace `news`; one without a colon has the default options. Nothing
//! is allowed that the options do not allow.

use crate::error::ConfigError;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How long a channel keeps its publications by default: long enough for a reload or a short outage.
const HISTORY_TTL: Duration = Duration::from_secs(300);

/// Who may do something on a channel.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Access {
    /// Every session.
    Anyone,
    /// Sessions that the hook lets, asked each time; for `subscribe` and `publish` only.
    Hook,
    /// No session; the server API still may.
    #[default]
    Nobody,
    /// Sessions with a user id.
    Users,
}

impl Access {
    /// Whether a session of `user` is let in.
    pub(crate) fn allows(self, user: &str) -> bool {
        match self {
            Self::Anyone => true,
            Self::Hook | Self::Nobody => false,
            Self::Users => !user.is_empty(),
        }
    }
}

/// What a channel keeps and what sessions may do on it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ChannelOptions {
    /// Who may subscribe. Default: nobody.
    pub subscribe: Access,
    /// Who may publish from a session. Default: nobody.
    pub publish: Access,
    /// Who may read the history from a session that is subscribed. Default: nobody.
    pub history: Access,
    /// Who may read from a session that is subscribed who else is. Default: nobody, and it is not kept.
    pub presence: Access,
    /// Whether subscribers hear of others that come and go. Default: false.
    pub join_leave: bool,
    /// Publications kept. Default: 0, which keeps none.
    pub history_size: u32,
    /// How long they are kept after the last publication. Default: 5 min. At least 1 s.
    #[serde(with = "humantime_serde")]
    pub history_ttl: Duration,
    /// Whether a client that comes back gets what it missed. Default: false. Needs history.
    pub recovery: bool,
}

impl Default for ChannelOptions {
    fn default() -> Self {
        Self {
            subscribe: Access::Nobody,
            publish: Access::Nobody,
            history: Access::Nobody,
            presence: Access::Nobody,
            join_leave: false,
            history_size: 0,
            history_ttl: HISTORY_TTL,
            recovery: false,
        }
    }
}

impl ChannelOptions {
    /// Whether publications on the channel are kept, and so have offsets.
    pub fn keeps_history(&self) -> bool {
        self.history_size > 0
    }

    /// Whether the others hear of one that comes or goes; Pusher's channels tell of users, and not again of one that is
    /// there with another session.
    pub(crate) fn tells(&self, channel: &str, user_is_there: bool) -> bool {
        if channel.starts_with("presence-") { !user_is_there } else { self.join_leave }
    }

    /// Whether it is known who is on the channel.
    pub fn keeps_presence(&self) -> bool {
        self.join_leave || self.presence != Access::Nobody
    }
}

/// A namespace: its name and the options of its channels, in one table of the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "NamespaceFile")]
#[non_exhaustive]
pub struct Namespace {
    /// The part of a channel's name before its first colon.
    pub name: String,
    /// The options of its channels.
    pub options: ChannelOptions,
}

impl Namespace {
    /// Gives the channels `<name>:...` their options.
    pub fn new(name: impl Into<String>, options: ChannelOptions) -> Self {
        Self { name: name.into(), options }
    }
}

/// The flat form of the file; `flatten` would let unknown keys through.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NamespaceFile {
    name: String,
    #[serde(default)]
    subscribe: Access,
    #[serde(default)]
    publish: Access,
    #[serde(default)]
    history: Access,
    #[serde(default)]
    presence: Access,
    #[serde(default)]
    join_leave: bool,
    #[serde(default)]
    history_size: u32,
    #[serde(default, with = "humantime_serde")]
    history_ttl: Option<Duration>,
    #[serde(default)]
    recovery: bool,
}

impl From<NamespaceFile> for Namespace {
    fn from(file: NamespaceFile) -> Self {
        let options = ChannelOptions {
            subscribe: file.subscribe,
            publish: file.publish,
            history: file.history,
            presence: file.presence,
            join_leave: file.join_leave,
            history_size: file.history_size,
            history_ttl: file.history_ttl.unwrap_or(HISTORY_TTL),
            recovery: file.recovery,
        };
        Self { name: file.name, options }
    }
}

/// All namespaces, checked.
#[derive(Clone, Debug)]
pub(crate) struct Namespaces {
    default: Arc<ChannelOptions>,
    by_name: BTreeMap<String, Arc<ChannelOptions>>,
}

impl Namespaces {
    pub(crate) fn new(default: &ChannelOptions, list: &[Namespace]) -> Result<Self, ConfigError> {
        check("channels", default)?;
        let mut by_name = BTreeMap::new();
        for namespace in list {
            if namespace.name.is_empty() || namespace.name.contains(':') {
                return Err(ConfigError::new("namespaces.name", "must be non-empty and without a colon"));
            }
            check(&namespace.name, &namespace.options)?;
            let twice = by_name.insert(namespace.name.clone(), Arc::new(namespace.options.clone()));
            if twice.is_some() {
                return Err(ConfigError::new("namespaces.name", "the same name is given twice"));
            }
        }
        Ok(Self { default: Arc::new(default.clone()), by_name })
    }

    /// The options of a channel; `None` when its namespace is unknown.
    pub(crate) fn options(&self, channel: &str) -> Option<&Arc<ChannelOptions>> {
        match channel.split_once(':') {
            None => Some(&self.default),
            Some((name, _)) => self.by_name.get(name),
        }
    }
}

fn check(name: &str, options: &ChannelOptions) -> Result<(), ConfigError> {
    if options.history == Access::Hook || options.presence == Access::Hook {
        return Err(ConfigError::new(name, "no hook is asked for history and presence"));
    }
    if options.recovery && !options.keeps_history() {
        return Err(ConfigError::new(format!("{name}.recovery"), "needs history_size above 0"));
    }
    if options.keeps_history() && options.history_ttl < Duration::from_secs(1) {
        return Err(ConfigError::new(format!("{name}.history_ttl"), "must be at least 1s"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Access, ChannelOptions, Namespace, Namespaces};

    #[test]
    fn the_prefix_chooses() {
        let news = ChannelOptions { subscribe: Access::Anyone, ..ChannelOptions::default() };
        let all = Namespaces::new(&ChannelOptions::default(), &[Namespace::new("news", news)]).unwrap();
        assert_eq!(all.options("news:sport:ball").unwrap().subscribe, Access::Anyone);
        assert_eq!(all.options("news").unwrap().subscribe, Access::Nobody);
        assert!(all.options("new:sport").is_none());
        assert!(all.options(":sport").is_none());
    }

    #[test]
    fn contradictions_are_refused_with_their_key() {
        let none = ChannelOptions::default();
        let bad = ChannelOptions { recovery: true, ..ChannelOptions::default() };
        let error = Namespaces::new(&none, &[Namespace::new("a", bad)]).unwrap_err();
        assert!(error.to_string().contains("a.recovery"));
        assert!(Namespaces::new(&none, &[Namespace::new("a:b", none.clone())]).is_err());
        assert!(
            Namespaces::new(&none, &[Namespace::new("a", none.clone()), Namespace::new("a", none.clone())])
                .is_err()
        );
    }
}
