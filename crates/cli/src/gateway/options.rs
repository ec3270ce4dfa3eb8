//! Every setting of the gateway as a flag and as a variable, by one table: `limits.max_channels` of the file is
//! `--limits-max-channels` and `EVENKEEL_GATEWAY_LIMITS_MAX_CHANNELS`.

use std::net::SocketAddr;

use clap::builder::PossibleValuesParser;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};
use evenkeel::gateway::GatewayConfig;
use toml::{Table, Value};

use super::Outcome;

/// Start of the names of all variables.
pub(super) const PREFIX: &str = "EVENKEEL_GATEWAY_";

/// How a setting is written on a command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// An IP address with a port.
    Address,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `10s`, `5m`.
    Duration,
    /// Words with commas between them.
    List,
    Number,
    /// Text that nobody else may see.
    Secret,
    /// `true` or `false`; the flag alone is `true`.
    Switch,
    Text,
    /// A value as the file has it.
    Toml,
}

/// A setting: its path in the file, how it is written, what it is.
struct Setting(&'static str, Kind, &'static str);

const WHO: Kind = Kind::Choice(&["anyone", "users", "nobody"]);
const WHO_OR_HOOK: Kind = Kind::Choice(&["anyone", "users", "hook", "nobody"]);

/// All settings, in the order of the help.
const SETTINGS: &[Setting] = &[
    Setting("listen", Kind::Address, "The address to listen on [default: 127.0.0.1:8000]"),
    Setting(
        "reuse_port",
        Kind::Switch,
        "Whether another process may listen on the same address, as during a restart [default: false]",
    ),
    Setting(
        "tls.cert_file",
        Kind::Text,
        "Certificate chain of the gateway's own TLS, PEM [default: none, plain]",
    ),
    Setting("tls.key_file", Kind::Text, "The certificate's private key, PEM"),
    Setting(
        "allowed_origins",
        Kind::List,
        "Origins of web pages that may connect; a flag may be given more than once [default: none]",
    ),
    Setting(
        "broker",
        Kind::Choice(&["memory", "redis"]),
        "What carries publications [default: redis when --redis-url or a variable such as REDIS_MODE is given, else memory]",
    ),
    Setting("redis.url", Kind::Secret, "Where Redis is; unset, REDIS_MODE and its kin say it"),
    Setting(
        "channels.subscribe",
        WHO_OR_HOOK,
        "Who may subscribe to channels without a namespace [default: nobody]",
    ),
    Setting("channels.publish", WHO_OR_HOOK, "Who may publish there from a session [default: nobody]"),
    Setting("channels.history", WHO, "Who may read their history from a session [default: nobody]"),
    Setting("channels.presence", WHO, "Who may read from a session who else is there [default: nobody]"),
    Setting("channels.join_leave", Kind::Switch, "Whether subscribers hear of others [default: false]"),
    Setting("channels.history_size", Kind::Number, "Publications that each of them keeps [default: 0]"),
    Setting(
        "channels.history_ttl",
        Kind::Duration,
        "How long they are kept after the last one [default: 5m]",
    ),
    Setting(
        "channels.recovery",
        Kind::Switch,
        "Whether a client that comes back gets what it missed [default: false]",
    ),
    Setting("namespaces", Kind::Toml, "Namespaces: [{name=\"chat\",subscribe=\"anyone\"}] [default: none]"),
    Setting(
        "hooks.connect.url",
        Kind::Secret,
        "Asked when a client connects without a token: http://host:port/path [default: none]",
    ),
    Setting("hooks.connect.timeout", Kind::Duration, "How long its answer may take [default: 1s]"),
    Setting("hooks.connect.max_concurrent", Kind::Number, "Questions to it under way at once [default: 64]"),
    Setting(
        "hooks.subscribe.url",
        Kind::Secret,
        "Asked for each subscription on channels whose subscribe is hook: http://host:port/path [default: none]",
    ),
    Setting("hooks.subscribe.timeout", Kind::Duration, "How long its answer may take [default: 1s]"),
    Setting(
        "hooks.subscribe.max_concurrent",
        Kind::Number,
        "Questions to it under way at once [default: 64]",
    ),
    Setting(
        "hooks.publish.url",
        Kind::Secret,
        "Asked for each publication on channels whose publish is hook: http://host:port/path [default: none]",
    ),
    Setting("hooks.publish.timeout", Kind::Duration, "How long its answer may take [default: 1s]"),
    Setting("hooks.publish.max_concurrent", Kind::Number, "Questions to it under way at once [default: 64]"),
    Setting(
        "hooks.refresh.url",
        Kind::Secret,
        "Asked when the permission ends that hooks.connect gave: http://host:port/path [default: none]",
    ),
    Setting("hooks.refresh.timeout", Kind::Duration, "How long its answer may take [default: 1s]"),
    Setting("hooks.refresh.max_concurrent", Kind::Number, "Questions to it under way at once [default: 64]"),
    Setting(
        "hooks.sub_refresh.url",
        Kind::Secret,
        "Asked when the permission ends that hooks.subscribe gave: http://host:port/path [default: none]",
    ),
    Setting("hooks.sub_refresh.timeout", Kind::Duration, "How long its answer may take [default: 1s]"),
    Setting(
        "hooks.sub_refresh.max_concurrent",
        Kind::Number,
        "Questions to it under way at once [default: 64]",
    ),
    Setting(
        "hooks.ca_file",
        Kind::Text,
        "Authorities, PEM, that https hooks are trusted by [default: the system's]",
    ),
    Setting("hooks.headers", Kind::List, "Headers of a client's request that hooks get too [default: none]"),
    Setting("limits.max_connections", Kind::Number, "Open connections of all kinds [default: 100000]"),
    Setting("limits.max_connections_per_address", Kind::Number, "Of one address [default: 0, any number]"),
    Setting(
        "limits.max_connections_per_second",
        Kind::Number,
        "Accepted in one second [default: 0, any number]",
    ),
    Setting("limits.max_message", Kind::Number, "Bytes of one message from a client [default: 65536]"),
    Setting("limits.max_publication", Kind::Number, "Bytes of one publication's data [default: 1048576]"),
    Setting("limits.outbox_bytes", Kind::Number, "Bytes queued for one session [default: 1048576]"),
    Setting("limits.outbox_messages", Kind::Number, "Frames queued for one session [default: 16384]"),
    Setting("limits.max_channels", Kind::Number, "Channels of one session [default: 128]"),
    Setting("limits.max_channel_name", Kind::Number, "Bytes of a channel's name [default: 255]"),
    Setting("limits.max_recovered", Kind::Number, "Publications of one recovery [default: 300]"),
    Setting("limits.max_head", Kind::Number, "Bytes of a request's head [default: 8192]"),
    Setting(
        "session.handshake_timeout",
        Kind::Duration,
        "From accept to the end of the request's head [default: 10s]",
    ),
    Setting(
        "session.connect_timeout",
        Kind::Duration,
        "From the open WebSocket to the connect command [default: 10s]",
    ),
    Setting("session.ping_interval", Kind::Duration, "Between two heartbeats [default: 25s]"),
    Setting("session.pong_timeout", Kind::Duration, "How long their answer may take [default: 8s]"),
    Setting(
        "session.close_timeout",
        Kind::Duration,
        "How long a close frame may take to be read [default: 2s]",
    ),
    Setting("session.drain", Kind::Duration, "How long a drain spreads its closes [default: 5s]"),
    Setting("session.compression", Kind::Switch, "Whether messages may be compressed [default: true]"),
    Setting(
        "api.key",
        Kind::Secret,
        "The key of the server API; better given by the variable or the file than on a command line that others can see",
    ),
    Setting("api.max_body", Kind::Number, "Bytes of one request's body [default: 4194304]"),
    Setting("token.hmac_secret", Kind::Secret, "The secret of HS256, HS384 and HS512 tokens [default: none]"),
    Setting("token.jwks_file", Kind::Text, "A JWKS document with public keys of tokens [default: none]"),
    Setting("token.jwks_url", Kind::Secret, "A URL of such a document [default: none]"),
    Setting(
        "token.jwks_ca_file",
        Kind::Text,
        "Authorities, PEM, that an https URL is trusted by [default: the system's]",
    ),
    Setting("token.jwks_refresh", Kind::Duration, "Between two fetches of it [default: 10m]"),
    Setting("token.anonymous", Kind::Switch, "Whether clients without a token are let in [default: false]"),
    Setting(
        "pusher.app_id",
        Kind::Text,
        "The application of Pusher's protocol: its number [default: none, off]",
    ),
    Setting("pusher.key", Kind::Text, "Its key"),
    Setting("pusher.secret", Kind::Secret, "Its secret"),
    Setting(
        "pusher.client_events",
        Kind::Switch,
        "Whether clients may send events to each other [default: false]",
    ),
    Setting("outage.queued_publications", Kind::Number, "Publications that wait for Redis [default: 65536]"),
    Setting("outage.queued_bytes", Kind::Number, "Bytes that wait for Redis [default: 67108864]"),
    Setting("outage.answer_within", Kind::Duration, "Until a publisher is told that it waits [default: 1s]"),
    Setting(
        "outage.subscribe_timeout",
        Kind::Duration,
        "How long a subscriber waits for Redis [default: 5s]",
    ),
    Setting(
        "outage.probe_interval",
        Kind::Duration,
        "Between two probes of the way of publications [default: 2s]",
    ),
    Setting(
        "outage.probe_timeout",
        Kind::Duration,
        "Age of the last good one that ends readiness [default: 5s]",
    ),
];

impl Setting {
    fn flag(&self) -> String {
        self.0.replace(['.', '_'], "-")
    }

    fn variable(&self) -> String {
        format!("{PREFIX}{}", self.0.replace('.', "_").to_uppercase())
    }

    fn arg(&self) -> Arg {
        let arg = Arg::new(self.0).long(self.flag()).env(self.variable()).help(self.2);
        let arg = match self.0.split_once('.') {
            Some((section, _)) => arg.help_heading(format!("Settings of [{section}]")),
            None => arg,
        };
        match self.1 {
            Kind::Address => arg.value_name("ADDRESS").value_parser(is::<SocketAddr>),
            Kind::Choice(words) => arg.value_name("WHICH").value_parser(PossibleValuesParser::new(words)),
            Kind::Duration => arg.value_name("DURATION").value_parser(is_duration),
            Kind::List => arg.value_name("LIST").value_delimiter(',').action(ArgAction::Append),
            Kind::Number => arg.value_name("N").value_parser(is::<u64>),
            Kind::Secret => arg.value_name("TEXT").hide_env_values(true),
            Kind::Switch => arg
                .value_name("BOOL")
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true")
                .value_parser(is::<bool>),
            Kind::Text => arg.value_name("TEXT"),
            Kind::Toml => arg.value_name("TOML").value_parser(is_toml),
        }
    }

    /// The value as the file has it.
    fn value(&self, words: &[String]) -> Option<Value> {
        let first = words.first()?;
        match self.1 {
            Kind::List => Some(Value::Array(words.iter().cloned().map(Value::String).collect())),
            Kind::Number => first.parse().ok().map(Value::Integer),
            Kind::Switch => first.parse().ok().map(Value::Boolean),
            Kind::Toml => toml::from_str::<Table>(&format!("value = {first}")).ok()?.remove("value"),
            Kind::Address | Kind::Choice(_) | Kind::Duration | Kind::Secret | Kind::Text => {
                Some(Value::String(first.clone()))
            }
        }
    }

    /// Puts the value into the settings of a file.
    fn put(&self, table: &mut Table, value: Value) {
        let (sections, key) = self.0.rsplit_once('.').unwrap_or(("", self.0));
        let mut table = table;
        for section in sections.split('.').filter(|section| !section.is_empty()) {
            let below = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            // Something else in its place is refused, by its name, when the whole is read.
            let Value::Table(below) = below else { return };
            table = below;
        }
        table.insert(key.to_owned(), value);
    }
}

fn is<T: std::str::FromStr<Err: ToString>>(text: &str) -> Result<String, String> {
    text.parse::<T>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn is_duration(text: &str) -> Result<String, String> {
    humantime::parse_duration(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn is_toml(text: &str) -> Result<String, String> {
    let whole = toml::from_str::<Table>(&format!("value = {text}"));
    whole.map(|_| text.to_owned()).map_err(|error| error.message().to_owned())
}

/// The names of all variables of the table.
pub(super) fn variables() -> impl Iterator<Item = String> {
    SETTINGS.iter().map(Setting::variable)
}

/// What flags and variables say, flags first.
#[derive(Clone, Default)]
pub(super) struct Options(Vec<(&'static Setting, Value)>);

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Some are secrets.
        f.debug_list().entries(self.0.iter().map(|(setting, _)| setting.0)).finish()
    }
}

impl clap::Args for Options {
    fn augment_args(command: Command) -> Command {
        command.args(SETTINGS.iter().map(Setting::arg))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Options {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut options = Vec::new();
        for setting in SETTINGS {
            let Some(words) = matches.get_many::<String>(setting.0) else { continue };
            let words: Vec<String> = words.cloned().collect();
            let wrong = || {
                let text = format!("the value of --{} cannot be read", setting.flag());
                clap::Error::raw(ErrorKind::ValueValidation, text)
            };
            options.push((setting, setting.value(&words).ok_or_else(wrong)?));
        }
        Ok(Self(options))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Options {
    /// The settings of a file with these in their place.
    pub(super) fn over(&self, file: &Table) -> Outcome<GatewayConfig> {
        self.settle(file, None).map_err(|problem| {
            // The one without which all would be well is the one to name.
            let culprit = (0..self.0.len()).find(|&at| self.settle(file, Some(at)).is_ok());
            match culprit.and_then(|at| self.0.get(at)) {
                Some((setting, _)) => {
                    format!("--{} or {}: {problem}", setting.flag(), setting.variable()).into()
                }
                None => format!("flags and variables: {problem}").into(),
            }
        })
    }

    fn settle(&self, file: &Table, without: Option<usize>) -> Result<GatewayConfig, String> {
        let mut table = file.clone();
        for (at, (setting, value)) in self.0.iter().enumerate() {
            if Some(at) != without {
                setting.put(&mut table, value.clone());
            }
        }
        table.try_into().map_err(|error: toml::de::Error| error.message().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::{GatewayConfig, SETTINGS, Table, Value};
    use std::collections::BTreeSet;

    /// The keys that the settings know at a place: they say so when they are given one that they do not know.
    fn known(section: &str) -> BTreeSet<String> {
        let text = if section.is_empty() { "'?' = 1".to_owned() } else { format!("[{section}]\n'?' = 1") };
        let error = toml::from_str::<GatewayConfig>(&text).unwrap_err();
        let (_, list) = error.message().split_once("expected").unwrap();
        list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    #[test]
    fn every_setting_has_a_flag_and_a_variable() {
        let keys = |section: &str| -> BTreeSet<String> {
            let all = SETTINGS.iter().map(|setting| setting.0);
            let below = all.filter_map(|key| match section {
                "" => Some(key),
                _ => key.strip_prefix(section)?.strip_prefix('.'),
            });
            below.map(|key| key.split('.').next().unwrap().to_owned()).collect()
        };
        let sections: BTreeSet<_> = SETTINGS
            .iter()
            .flat_map(|setting| setting.0.match_indices('.').map(|(end, _)| &setting.0[..end]))
            .collect();
        assert!(sections.len() >= 12, "{sections:?}");
        for section in std::iter::once("").chain(sections) {
            assert_eq!(keys(section), known(section), "[{section}]");
        }
    }

    #[test]
    fn names_follow_from_the_path() {
        let setting = SETTINGS.iter().find(|setting| setting.0 == "limits.max_channels").unwrap();
        assert_eq!(setting.flag(), "limits-max-channels");
        assert_eq!(setting.variable(), "EVENKEEL_GATEWAY_LIMITS_MAX_CHANNELS");
        let mut table = Table::new();
        setting.put(&mut table, Value::Integer(3));
        let config: GatewayConfig = table.try_into().unwrap();
        assert_eq!(config.limits.max_channels, 3);
        let mut table = Table::new();
        for (path, value) in [("hooks.connect.url", "http://h/"), ("hooks.connect.timeout", "3s")] {
            let setting = SETTINGS.iter().find(|setting| setting.0 == path).unwrap();
            setting.put(&mut table, Value::String(value.to_owned()));
        }
        let config: GatewayConfig = table.try_into().unwrap();
        assert!(config.hooks.refresh.is_none() && config.hooks.sub_refresh.is_none());
        let mut table = Table::new();
        for path in ["hooks.refresh.url", "hooks.sub_refresh.url"] {
            let setting = SETTINGS.iter().find(|setting| setting.0 == path).unwrap();
            setting.put(&mut table, Value::String(format!("http://h/{path}")));
        }
        let more: GatewayConfig = table.try_into().unwrap();
        assert_eq!(more.hooks.refresh.unwrap().url, "http://h/hooks.refresh.url");
        assert_eq!(more.hooks.sub_refresh.unwrap().url, "http://h/hooks.sub_refresh.url");
        let connect = config.hooks.connect.unwrap();
        assert_eq!((connect.url.as_str(), connect.timeout.as_secs()), ("http://h/", 3));
    }
}
