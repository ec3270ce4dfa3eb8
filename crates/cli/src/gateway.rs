//! `evenkeel gateway`: settings from a file, then the environment, then flags; runs until it is told to end.

mod options;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use evenkeel::gateway::{Access, BrokerKind, Gateway, GatewayConfig, OtlpConfig};

use tokio::signal::unix::{SignalKind, signal};

use crate::interrupt::Interrupt;
use options::{Options, PREFIX};

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

const MORE: &str = "Redis is named by REDIS_MODE, REDIS_URL, REDIS_PASSWORD, REDIS_SENTINELS, REDIS_SENTINEL_NAME and \
REDIS_CLUSTER_NODES.\nTraces and metrics go to a collector of OpenTelemetry where OTEL_EXPORTER_OTLP_ENDPOINT names one.\n\
EVENKEEL_LOG filters what is logged.";

/// Arguments of `evenkeel gateway`. A flag wins over its variable, a variable over the file.
#[derive(Debug, clap::Args)]
#[command(after_long_help = MORE)]
pub(crate) struct Args {
    /// The settings file, TOML.
    #[arg(long, value_name = "FILE", env = "EVENKEEL_GATEWAY_CONFIG")]
    config: Option<PathBuf>,
    /// Short for --channels-subscribe.
    #[arg(long, value_enum, value_name = "WHO", env = "EVENKEEL_GATEWAY_SUBSCRIBE")]
    subscribe: Option<Who>,
    /// Short for --channels-publish.
    #[arg(long, value_enum, value_name = "WHO", env = "EVENKEEL_GATEWAY_PUBLISH")]
    publish: Option<Who>,
    /// Short for --channels-history-size with --channels-recovery.
    #[arg(long, value_name = "N", env = "EVENKEEL_GATEWAY_HISTORY_SIZE")]
    history_size: Option<u32>,
    /// Reads and checks all settings, and ends.
    #[arg(long)]
    check_config: bool,
    #[command(flatten)]
    options: Options,
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
    let secure = config.tls.is_some();
    let mut interrupted = Interrupt::new()?;
    let mut builder = Gateway::builder().config(config);
    if let Some(collector) = OtlpConfig::from_env() {
        builder = builder.otlp(collector);
    }
    let gateway = tokio::select! {
        biased;
        gateway = builder.start() => gateway?,
        () = interrupted.wait() => return Ok(true),
    };
    let address = gateway.local_addr();
    let scheme = if secure { "wss" } else { "ws" };
    // Whoever read the address may be gone: that is no reason to end.
    let _unheard = writeln!(std::io::stdout(), "listening on {scheme}://{address}/connection/websocket");
    let mut hangups = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            biased;
            () = interrupted.wait() => break,
            _ = hangups.recv() => match gateway.handle().reload() {
                Ok(()) => tracing::info!(target: "evenkeel_gateway", "keys and certificates were read again"),
                Err(error) => tracing::error!(target: "evenkeel_gateway", %error, "what it was read for stays as it was"),
            },
        }
    }
    let _unheard = writeln!(std::io::stdout(), "ending");
    gateway.stop().await;
    Ok(true)
}

fn settings(args: Args, is_set: impl Fn(&str) -> bool) -> Outcome<GatewayConfig> {
    let Args { config: file, subscribe, publish, history_size, options, check_config: _ } = args;
    let file = file.as_deref().map_or_else(|| Ok(toml::Table::new()), read)?;
    let mut config = options.over(&file)?;
    if let Some(who) = subscribe {
        config.channels.subscribe = who.into();
    }
    if let Some(who) = publish {
        config.channels.publish = who.into();
    }
    if let Some(size) = history_size {
        config.channels.history_size = size;
        config.channels.recovery = size > 0;
    }
    // Who says where Redis is wants it.
    if config.broker.is_none() && REDIS.into_iter().any(is_set) {
        config.broker = Some(BrokerKind::Redis);
    }
    Ok(config)
}

fn read(file: &Path) -> Outcome<toml::Table> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let wrong = |error: toml::de::Error| {
        // The whole error would quote the line, which may hold a secret.
        let line = error
            .span()
            .map_or(1, |span| text.get(..span.start).unwrap_or_default().matches('\n').count() + 1);
        format!("{}, line {line}: {}", file.display(), error.message())
    };
    // By itself first, because only then an error knows its line.
    toml::from_str::<GatewayConfig>(&text).map_err(wrong)?;
    Ok(toml::from_str(&text).map_err(wrong)?)
}

/// An unknown variable is an error, as an unknown key of the file is.
fn refuse_unknown(names: impl Iterator<Item = String>) -> Outcome<()> {
    const SHORT: [&str; 4] = ["CONFIG", "HISTORY_SIZE", "PUBLISH", "SUBSCRIBE"];
    for name in names {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        if !SHORT.contains(&rest) && !options::variables().any(|known| known == name) {
            return Err(format!("{name} is no variable of the gateway; --help lists those").into());
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
    fn every_kind_of_setting_can_be_a_flag() {
        let config = settings(args(&[
            "--reuse-port",
            "--session-compression=false",
            "--session-drain",
            "90s",
            "--allowed-origins",
            "https://a.example,https://b.example",
            "--allowed-origins",
            "https://c.example",
            "--namespaces",
            r#"[{name="chat",publish="users",history_ttl="1m"}]"#,
            "--token-hmac-secret",
            "123",
            "--channels-presence",
            "users",
        ]))
        .unwrap();
        assert!(config.reuse_port && !config.session.compression);
        assert_eq!(config.session.drain.as_secs(), 90);
        assert_eq!(config.allowed_origins.len(), 3);
        assert_eq!(config.namespaces[0].options.history_ttl.as_secs(), 60);
        assert_eq!(config.token.unwrap().hmac_secret, "123", "text stays text");
        assert_eq!(config.channels.presence, evenkeel::gateway::Access::Users);
    }

    #[test]
    fn what_a_flag_cannot_be_is_named() {
        for (words, named) in [
            (["--limits-max-channels", "many"], "--limits-max-channels"),
            (["--session-drain", "90"], "--session-drain"),
            (["--broker", "kafka"], "--broker"),
            (["--listen", "here"], "--listen"),
            (["--namespaces", "[{"], "--namespaces"),
        ] {
            let error = Program::try_parse_from([&["gateway"], &words[..]].concat()).err().unwrap();
            assert!(error.to_string().contains(named), "{error}");
        }
        let error = settings(args(&["--tls-cert-file", "c.pem"])).unwrap_err().to_string();
        assert!(error.contains("--tls-cert-file") && error.contains("key_file"), "{error}");
        let file = file("[limits]\nmax_channels = 7\n");
        let path = file.path().to_str().unwrap();
        let words = ["--config", path, "--limits-max-head", "9000", "--namespaces", "[{name='a',histroy=1}]"];
        let error = settings(args(&words)).unwrap_err().to_string();
        assert!(error.contains("EVENKEEL_GATEWAY_NAMESPACES") && error.contains("histroy"), "{error}");
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
