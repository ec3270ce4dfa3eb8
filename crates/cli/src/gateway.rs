//! `evenkeel gateway`: settings from a file, then the environment, then flags; runs until it is told to end.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use evenkeel::gateway::{Access, BrokerKind, Gateway, GatewayConfig};

use tokio::signal::unix::{SignalKind, signal};

use crate::interrupt::Interrupt;

/// Start of the names of all variables; an unknown one is an error, as an unknown key of the file is.
const PREFIX: &str = "EVENKEEL_GATEWAY_";

/// The variables that say where Redis is.
const REDIS: [&str; 6] = [
    "REDIS_MODE",
    "REDIS_URL",
    "REDIS_PASSWORD",
    "REDIS_SENTINELS",
    "REDIS_SENTINEL_NAME",
    "REDIS_CLUSTER_NODES",
];

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Arguments of `evenkeel gateway`. A flag wins over its variable, a variable over the file.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The settings file, TOML.
    #[arg(long, value_name = "FILE", env = "EVENKEEL_GATEWAY_CONFIG")]
    config: Option<PathBuf>,
    /// The address to listen on [default: 127.0.0.1:8000].
    #[arg(long, value_name = "ADDRESS", env = "EVENKEEL_GATEWAY_LISTEN")]
    listen: Option<SocketAddr>,
    /// What carries publications [default: redis when --redis-url or a variable such as REDIS_MODE is given, else memory].
    #[arg(long, value_enum, env = "EVENKEEL_GATEWAY_BROKER")]
    broker: Option<Broker>,
    /// Where Redis is, for the broker `redis`; unset, `REDIS_MODE` and its kin say it.
    #[arg(long, value_name = "URL", env = "EVENKEEL_GATEWAY_REDIS_URL", hide_env_values = true)]
    redis_url: Option<String>,
    /// An origin of web pages that may connect; may be given more than once, in the variable joined by commas.
    #[arg(long, value_name = "ORIGIN", env = "EVENKEEL_GATEWAY_ALLOWED_ORIGINS", value_delimiter = ',')]
    allowed_origins: Vec<String>,
    /// The key of the server API; better given by the variable or the file than on a command line that others can see.
    #[arg(long, value_name = "KEY", env = "EVENKEEL_GATEWAY_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// Who may subscribe to channels without a namespace [default: nobody].
    #[arg(long, value_enum, value_name = "WHO", env = "EVENKEEL_GATEWAY_SUBSCRIBE")]
    subscribe: Option<Who>,
    /// Who may publish there from a session [default: nobody].
    #[arg(long, value_enum, value_name = "WHO", env = "EVENKEEL_GATEWAY_PUBLISH")]
    publish: Option<Who>,
    /// How many publications each of them keeps, for clients that come back [default: 0].
    #[arg(long, value_name = "N", env = "EVENKEEL_GATEWAY_HISTORY_SIZE")]
    history_size: Option<u32>,
    /// Reads and checks all settings, and ends.
    #[arg(long)]
    check_config: bool,
}

impl std::fmt::Debug for Args {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A URL may hold a password, and the key is one.
        f.debug_struct("Args")
            .field("config", &self.config)
            .field("listen", &self.listen)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Broker {
    /// This process alone.
    Memory,
    /// A Redis of any topology.
    Redis,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Who {
    /// Everybody.
    Anyone,
    /// Nobody.
    Nobody,
    /// Clients with a user, by their tokens.
    Users,
}

impl From<Who> for Access {
    fn from(who: Who) -> Self {
        match who {
            Who::Anyone => Self::Anyone,
            Who::Nobody => Self::Nobody,
            Who::Users => Self::Users,
        }
    }
}

/// Runs the gateway until SIGINT or SIGTERM.
pub(crate) async fn run(args: Args) -> Outcome<bool> {
    let check_only = args.check_config;
    refuse_unknown(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()))?;
    let config = settings(args, |name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))?;
    if check_only {
        writeln!(std::io::stdout(), "the settings are readable")?;
        return Ok(true);
    }
    let mut interrupted = Interrupt::new()?;
    let gateway = tokio::select! {
        biased;
        gateway = Gateway::builder().config(config).start() => gateway?,
        () = interrupted.wait() => return Ok(true),
    };
    let address = gateway.local_addr();
    // Whoever read the address may be gone: that is no reason to end.
    let _unheard = writeln!(std::io::stdout(), "listening on ws://{address}/connection/websocket");
    let mut hangups = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            biased;
            () = interrupted.wait() => break,
            _ = hangups.recv() => match gateway.handle().reload() {
                Ok(()) => tracing::info!(target: "evenkeel_gateway", "keys were read again"),
                Err(error) => tracing::error!(target: "evenkeel_gateway", %error, "the old keys stay"),
            },
        }
    }
    let _unheard = writeln!(std::io::stdout(), "ending");
    gateway.stop().await;
    Ok(true)
}

fn settings(args: Args, is_set: impl Fn(&str) -> bool) -> Outcome<GatewayConfig> {
    let mut config = args.config.as_deref().map_or_else(|| Ok(GatewayConfig::default()), read)?;
    if let Some(listen) = args.listen {
        config.listen = listen;
    }
    if let Some(broker) = args.broker {
        config.broker = Some(match broker {
            Broker::Memory => BrokerKind::Memory,
            Broker::Redis => BrokerKind::Redis,
        });
    }
    if let Some(url) = args.redis_url {
        config.redis.url = Some(url);
    }
    if !args.allowed_origins.is_empty() {
        config.allowed_origins = args.allowed_origins;
    }
    if let Some(key) = args.api_key {
        config.api.key = Some(key);
    }
    if let Some(who) = args.subscribe {
        config.channels.subscribe = who.into();
    }
    if let Some(who) = args.publish {
        config.channels.publish = who.into();
    }
    if let Some(size) = args.history_size {
        config.channels.history_size = size;
        config.channels.recovery = size > 0;
    }
    // Who says where Redis is wants it.
    if config.broker.is_none() && REDIS.into_iter().any(is_set) {
        config.broker = Some(BrokerKind::Redis);
    }
    Ok(config)
}

fn read(file: &Path) -> Outcome<GatewayConfig> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    toml::from_str(&text).map_err(|error| {
        // The whole error would quote the line, which may hold a secret.
        let line = error
            .span()
            .map_or(1, |span| text.get(..span.start).unwrap_or_default().matches('\n').count() + 1);
        format!("{}, line {line}: {}", file.display(), error.message()).into()
    })
}

fn refuse_unknown(names: impl Iterator<Item = String>) -> Outcome<()> {
    const KNOWN: [&str; 9] = [
        "CONFIG",
        "LISTEN",
        "BROKER",
        "REDIS_URL",
        "ALLOWED_ORIGINS",
        "API_KEY",
        "SUBSCRIBE",
        "PUBLISH",
        "HISTORY_SIZE",
    ];
    for name in names {
        if name.strip_prefix(PREFIX).is_some_and(|rest| !KNOWN.contains(&rest)) {
            let known: Vec<_> = KNOWN.iter().map(|known| format!("{PREFIX}{known}")).collect();
            return Err(
                format!("{name} is no variable of the gateway; those are {}", known.join(", ")).into()
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Args, BrokerKind, refuse_unknown};
    use clap::Parser;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        args: Args,
    }

    fn args(words: &[&str]) -> Args {
        Program::try_parse_from([&["gateway"], words].concat()).unwrap().args
    }

    /// The settings that `words` give where no variable is set.
    fn settings(args: Args) -> super::Outcome<super::GatewayConfig> {
        super::settings(args, |_| false)
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn flags_win_over_the_file_and_the_rest_stays() {
        assert_eq!(settings(args(&[])).unwrap().listen.to_string(), "127.0.0.1:8000");
        let file = file("listen = \"127.0.0.1:9000\"\nbroker = \"redis\"\n[limits]\nmax_channels = 7\n");
        let path = file.path().to_str().unwrap();
        let config = settings(args(&["--config", path, "--listen", "127.0.0.1:9001"])).unwrap();
        assert_eq!(config.listen.port(), 9001);
        assert_eq!((config.broker, config.limits.max_channels), (Some(BrokerKind::Redis), 7));
        let config = settings(args(&["--config", path, "--broker", "memory"])).unwrap();
        assert_eq!((config.listen.port(), config.broker), (9000, Some(BrokerKind::Memory)));
    }

    #[test]
    fn whoever_says_where_redis_is_gets_it() {
        let with = |words: &[&str], set: &'static str| {
            super::settings(args(words), |name| name == set).unwrap().broker_kind()
        };
        assert_eq!(with(&[], ""), BrokerKind::Memory);
        for name in super::REDIS {
            assert_eq!(with(&[], name), BrokerKind::Redis, "{name}");
        }
        assert_eq!(with(&["--redis-url", "redis://h"], ""), BrokerKind::Redis);
        assert_eq!(with(&["--broker", "memory"], "REDIS_MODE"), BrokerKind::Memory);
    }

    #[test]
    fn flags_open_channels() {
        let config = settings(args(&["--subscribe", "anyone", "--history-size", "9"])).unwrap();
        assert_eq!(config.channels.subscribe, evenkeel::gateway::Access::Anyone);
        assert_eq!(config.channels.publish, evenkeel::gateway::Access::Nobody);
        assert!(config.channels.recovery && config.channels.history_size == 9);
    }

    #[test]
    fn unknown_keys_and_variables_are_refused_by_name_and_secrets_stay_unsaid() {
        let file = file("listen = \"127.0.0.1:9000\"\n[api]\nkye = \"hush\"\n");
        let error = settings(args(&["--config", file.path().to_str().unwrap()])).unwrap_err().to_string();
        assert!(error.contains("kye") && error.contains("line 3") && !error.contains("hush"), "{error}");
        let error = refuse_unknown(["PATH", "EVENKEEL_GATEWAY_LISTN"].map(str::to_owned).into_iter());
        assert!(error.unwrap_err().to_string().contains("EVENKEEL_GATEWAY_LISTN"));
        assert!(refuse_unknown(["EVENKEEL_GATEWAY_LISTEN".to_owned()].into_iter()).is_ok());
        assert!(
            !format!("{:?}", args(&["--api-key", "hush", "--redis-url", "redis://:hush@h"])).contains("hush")
        );
    }
}
