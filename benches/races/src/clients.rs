//! The clients that race, each as its own documentation sets it up, with a deadline of 10 s for a command.

use std::{sync::Arc, time::Duration};

use fred::prelude::{ClientLike, ListInterface};
use tokio::sync::Mutex;

/// How a write ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Acknowledged,
    Hung,
    MayHaveRun,
    NotExecuted,
}

impl Verdict {
    pub(crate) fn letter(self) -> char {
        match self {
            Self::Acknowledged => 'o',
            Self::Hung => 'h',
            Self::MayHaveRun => 'm',
            Self::NotExecuted => 'n',
        }
    }
}

type Failed = (Verdict, String);

/// A client of one of the kinds.
#[derive(Clone)]
pub(crate) enum AnyClient {
    Evenkeel(evenkeel_client::Client),
    Fred(fred::prelude::Client),
    RedisCluster(redis::cluster_async::ClusterConnection),
    RedisSentinel(Arc<RedisSentinel>),
}

/// The connection is asked for again after an error, as its documentation says.
pub(crate) struct RedisSentinel {
    sentinels: Mutex<redis::sentinel::SentinelClient>,
    conn: Mutex<Option<redis::aio::MultiplexedConnection>>,
}

impl RedisSentinel {
    async fn conn(&self) -> redis::RedisResult<redis::aio::MultiplexedConnection> {
        let mut conn = self.conn.lock().await;
        if let Some(conn) = &*conn {
            return Ok(conn.clone());
        }
        let fresh = self.sentinels.lock().await.get_async_connection().await?;
        *conn = Some(fresh.clone());
        Ok(fresh)
    }

    async fn push(&self, key: &str, number: usize) -> redis::RedisResult<()> {
        let mut conn = self.conn().await?;
        let result = redis::cmd("RPUSH").arg(key).arg(number).query_async::<i64>(&mut conn).await;
        if result.is_err() {
            *self.conn.lock().await = None;
        }
        result.map(|_length| ())
    }
}

impl AnyClient {
    pub(crate) async fn connect(client: &str, mode: &str, seeds: &[&str], name: &str) -> Result<Self, String> {
        match client {
            "evenkeel" => evenkeel(mode, seeds, name).await.map_err(|error| format!("{error:?}")),
            "fred" => fred(mode, seeds, name).await.map_err(|error| error.to_string()),
            "redis" => redis(mode, seeds, name).await.map_err(|error| error.to_string()),
            other => Err(format!("no client named {other}")),
        }
    }

    /// `RPUSH key number`.
    pub(crate) async fn push(&self, key: &str, number: usize) -> Result<(), Failed> {
        match self {
            Self::Evenkeel(client) => {
                client.cmd("RPUSH").arg(key).arg(number).query::<i64>().await.map(|_length| ()).map_err(|error| {
                    let verdict = match error.executed() {
                        evenkeel_client::Executed::No => Verdict::NotExecuted,
                        _ => Verdict::MayHaveRun,
                    };
                    let digits = |c: char| c.is_ascii_digit();
                    (verdict, error.to_string().replace(digits, "."))
                })
            }
            Self::Fred(client) => client.rpush::<i64, _, _>(key, number as u64).await.map(|_length| ()).map_err(|error| {
                use fred::error::ErrorKind;
                let verdict = match error.kind() {
                    ErrorKind::IO | ErrorKind::Timeout | ErrorKind::Canceled | ErrorKind::Unknown => Verdict::MayHaveRun,
                    _ => Verdict::NotExecuted,
                };
                (verdict, error.to_string())
            }),
            Self::RedisCluster(conn) => {
                let mut conn = conn.clone();
                let result = redis::cmd("RPUSH").arg(key).arg(number).query_async::<i64>(&mut conn).await;
                result.map(|_length| ()).map_err(|error| failed(&error))
            }
            Self::RedisSentinel(client) => client.push(key, number).await.map_err(|error| failed(&error)),
        }
    }
}

fn failed(error: &redis::RedisError) -> Failed {
    // A server's own word proves that it did not run; all else may have.
    let verdict = if error.code().is_some() || error.is_connection_refusal() {
        Verdict::NotExecuted
    } else {
        Verdict::MayHaveRun
    };
    (verdict, error.to_string())
}

async fn evenkeel(mode: &str, seeds: &[&str], name: &str) -> Result<AnyClient, evenkeel_client::Error> {
    let url = match mode {
        "sentinel" => format!("redis+sentinel://{}/{name}", seeds.join(",")),
        _ => format!("redis+cluster://{}", seeds.join(",")),
    };
    Ok(AnyClient::Evenkeel(evenkeel_client::Client::connect(url).await?))
}

async fn fred(mode: &str, seeds: &[&str], name: &str) -> Result<AnyClient, fred::error::Error> {
    use fred::types::config::{Config, ReconnectPolicy, Server, ServerConfig, UnresponsiveConfig};
    let servers: Vec<Server> = seeds
        .iter()
        .filter_map(|seed| seed.rsplit_once(':'))
        .map(|(host, port)| Server::new(host, port.parse().unwrap_or(6379)))
        .collect();
    let server = match mode {
        "sentinel" => ServerConfig::Sentinel {
            hosts: servers,
            service_name: name.to_owned(),
        },
        _ => ServerConfig::Clustered { hosts: servers, policy: Default::default() },
    };
    let client = fred::types::Builder::from_config(Config { server, ..Config::default() })
        .with_connection_config(|config| {
            config.connection_timeout = Duration::from_secs(1);
            config.internal_command_timeout = Duration::from_secs(1);
            config.max_command_attempts = 5;
            let second = Duration::from_secs(1);
            config.unresponsive = UnresponsiveConfig { max_timeout: Some(second), interval: second / 4 };
        })
        .with_performance_config(|config| config.default_command_timeout = Duration::from_secs(10))
        .set_policy(ReconnectPolicy::new_exponential(0, 50, 1000, 2))
        .build()?;
    client.init().await?;
    Ok(AnyClient::Fred(client))
}

async fn redis(mode: &str, seeds: &[&str], name: &str) -> redis::RedisResult<AnyClient> {
    let urls: Vec<String> = seeds.iter().map(|seed| format!("redis://{seed}")).collect();
    if mode == "sentinel" {
        let kind = redis::sentinel::SentinelServerType::Master;
        let sentinels = redis::sentinel::SentinelClient::build(urls, name.to_owned(), None, kind)?;
        let client = RedisSentinel { sentinels: Mutex::new(sentinels), conn: Mutex::new(None) };
        client.conn().await?;
        return Ok(AnyClient::RedisSentinel(Arc::new(client)));
    }
    let client = redis::cluster::ClusterClientBuilder::new(urls)
        .connection_timeout(Duration::from_secs(1))
        .response_timeout(Duration::from_secs(1))
        .build()?;
    Ok(AnyClient::RedisCluster(client.get_async_connection().await?))
}
