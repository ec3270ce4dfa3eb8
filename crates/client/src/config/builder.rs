//! `ConfigBuilder`: collects settings and checks them together.

use evenkeel_protocol::{Endpoint, Limits};

use super::{
    Backoff, Config, Credentials, Deployment, Origin, ReadPolicy, RedirectPolicy, Secret, Tls,
    defaults::{PORT, SENTINEL_PORT},
    error::{ConfigError, Problem},
    nodes, url,
};
use crate::error::Error;

/// Collects settings; [`build`](Self::build) checks them. What is wrong is reported there, the first mistake first.
///
/// ```
/// use std::time::Duration;
/// use evenkeel_client::Config;
///
/// let config = Config::builder()
///     .cluster(["10.0.0.1:7000", "10.0.0.2:7000"])
///     .password("secret")
///     .command_timeout(Duration::from_secs(3))
///     .build()?;
/// assert_eq!(config.seeds().len(), 2);
/// # Ok::<(), evenkeel_client::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct ConfigBuilder {
    pub(super) config: Config,
    pub(super) wrong: Option<ConfigError>,
}

impl ConfigBuilder {
    /// Takes over everything that a URL says; what it does not say stays.
    pub fn url(mut self, url: &str) -> Self {
        if let Err(error) = url::apply(&mut self.config, url) {
            self.note(error);
        }
        self
    }

    /// One server at `host:port`. Default: `localhost:6379`.
    pub fn single(mut self, endpoint: &str) -> Self {
        match nodes::endpoint(endpoint, PORT) {
            Ok(endpoint) => self.deploy(Deployment::Single { endpoint }),
            Err(problem) => self.note(ConfigError::in_part(Origin::Builder, "`single`", problem)),
        }
        self
    }

    /// One server at the Unix socket `path`.
    pub fn unix(mut self, path: &str) -> Self {
        self.deploy(Deployment::Single { endpoint: Endpoint::unix(path) });
        self
    }

    /// The primary that these sentinels know as `name`; their port is 26379 where none is given.
    pub fn sentinel<N: AsRef<str>>(
        mut self,
        name: impl Into<String>,
        sentinels: impl IntoIterator<Item = N>,
    ) -> Self {
        match collect(sentinels, SENTINEL_PORT) {
            Ok(sentinels) => self.deploy(Deployment::Sentinel {
                sentinels,
                name: name.into(),
                credentials: Credentials::default(),
                tls: false,
            }),
            Err(problem) => self.note(ConfigError::in_part(Origin::Builder, "`sentinel`", problem)),
        }
        self
    }

    /// The cluster that these nodes belong to.
    pub fn cluster<N: AsRef<str>>(mut self, nodes: impl IntoIterator<Item = N>) -> Self {
        match collect(nodes, PORT) {
            Ok(nodes) => self.deploy(Deployment::Cluster { nodes }),
            Err(problem) => self.note(ConfigError::in_part(Origin::Builder, "`cluster`", problem)),
        }
        self
    }

    /// What is said to sentinels, which never get the data nodes' password. Default: nothing. After `sentinel` or `url`.
    pub fn sentinel_credentials(mut self, said: Credentials) -> Self {
        match &mut self.config.deployment {
            Deployment::Sentinel { credentials, .. } => *credentials = said,
            _ => self.note(needs_sentinels("`sentinel_credentials`")),
        }
        self
    }

    /// The sentinels speak TLS. Default: as the URL's scheme says, else false. After `sentinel` or `url`.
    pub fn sentinel_tls(mut self, spoken: bool) -> Self {
        match &mut self.config.deployment {
            Deployment::Sentinel { tls, .. } => *tls = spoken,
            _ => self.note(needs_sentinels("`sentinel_tls`")),
        }
        self
    }

    /// What is said to data nodes. Default: nothing.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.config.credentials = credentials;
        self.config.password_origin = Origin::Builder;
        self
    }

    /// The password for data nodes. Default: none.
    pub fn password(mut self, password: impl Into<Secret>) -> Self {
        self.config.credentials.password = Some(password.into());
        self.config.password_origin = Origin::Builder;
        self
    }

    /// The user for data nodes. Default: the server's default user.
    pub fn username(mut self, username: impl Into<String>) -> Self {
        self.config.credentials.username = Some(username.into());
        self
    }

    /// Speaks TLS with data nodes. Default: as the URL's scheme says, else plain.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.config.tls = Some(tls);
        self
    }

    /// The wait before a lost connection is dialled again. Default: 50 ms, 100 ms, 150 ms, ... up to 2 s.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.config.backoff = backoff;
        self
    }

    /// Caps on what one reply may hold. Default: depth 128, a string 512 MiB, 2^24 elements, 1 GiB in all.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.config.limits = limits;
        self
    }

    /// Where redirections, sentinels and announcements may lead. Default: anywhere.
    pub fn redirect_policy(mut self, policy: RedirectPolicy) -> Self {
        self.config.redirect_policy = policy;
        self
    }

    /// Checks everything together.
    ///
    /// # Errors
    /// The first setting that is wrong, by its name.
    pub fn build(self) -> Result<Config, Error> {
        if let Some(error) = self.wrong {
            return Err(error.into());
        }
        check(&self.config)?;
        Ok(self.config)
    }

    fn deploy(&mut self, deployment: Deployment) {
        self.config.deployment = deployment;
        self.config.origin = Origin::Builder;
    }

    fn note(&mut self, error: ConfigError) {
        self.wrong.get_or_insert(error);
    }
}

fn collect<N: AsRef<str>>(
    list: impl IntoIterator<Item = N>,
    default_port: u16,
) -> Result<Vec<Endpoint>, Problem> {
    list.into_iter().map(|text| nodes::endpoint(text.as_ref(), default_port)).collect()
}

fn needs_sentinels(part: &'static str) -> ConfigError {
    ConfigError::in_part(Origin::Builder, part, Problem::Wrong { why: "there are no sentinels" })
}

/// The rules across settings.
pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    let fail = |part: &'static str, problem: Problem| Err(ConfigError::in_part(config.origin, part, problem));
    match &config.deployment {
        Deployment::Cluster { nodes } if nodes.is_empty() => {
            return fail("nodes", Problem::Missing { hint: "give one node at least" });
        }
        Deployment::Sentinel { sentinels, .. } if sentinels.is_empty() => {
            return fail("sentinels", Problem::Missing { hint: "give one sentinel at least" });
        }
        Deployment::Sentinel { name, .. } if name.is_empty() => {
            return fail("name of the primary", Problem::Missing { hint: "such as mymaster" });
        }
        Deployment::Single { endpoint } if endpoint.is_unix() && endpoint.host().is_empty() => {
            return fail("path", Problem::Missing { hint: "such as unix:///run/redis.sock" });
        }
        _ => {}
    }
    let settings = &config.settings;
    if settings.read_policy == ReadPolicy::Zone && settings.zone.is_none() {
        return fail("`zone`", Problem::Missing { hint: "reads shall go to a zone" });
    }
    if settings.min_idle_leases > settings.max_leases {
        return fail(
            "`min_idle_leases`",
            Problem::Conflict { with: "`max_leases`, which is smaller".into() },
        );
    }
    let zeros = [
        ("`connection_budget`", settings.connection_budget),
        ("`dials_per_node`", settings.dials_per_node),
        ("`max_leases`", settings.max_leases),
        ("`subscriber_bytes`", settings.subscriber_bytes),
        ("`subscriber_messages`", settings.subscriber_messages),
    ];
    for (part, value) in zeros {
        if value == 0 {
            return fail(part, Problem::Wrong { why: "must be 1 or more" });
        }
    }
    let durations = [
        ("`answer_timeout`", settings.answer_timeout),
        ("`close_timeout`", settings.close_timeout),
        ("`command_timeout`", settings.command_timeout),
        ("`connect_timeout`", settings.connect_timeout),
        ("`handshake_timeout`", settings.handshake_timeout),
        ("`health_interval`", settings.health_interval),
        ("`lease_timeout`", settings.lease_timeout),
    ];
    let sentry = settings.sentry_idle.map(|idle| ("`sentry_idle`", idle));
    for (part, value) in durations.into_iter().chain(sentry) {
        if value.is_zero() {
            return fail(part, Problem::Wrong { why: "must be longer than 0" });
        }
    }
    config.handoff_settings()?;
    match &config.tls {
        Some(tls) if tls.cert_file.is_some() != tls.key_file.is_some() => {
            fail("`tls_cert_file`", Problem::Wrong { why: "goes together with `tls_key_file`" })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn the_first_mistake_is_reported_by_name() {
        let check = |builder: ConfigBuilder, text: &str| {
            let error = builder.build().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(text), "{error}");
        };
        check(Config::builder().single("host:99999").single("fine"), "`single`");
        check(Config::builder().cluster(Vec::<String>::new()), "nodes: missing");
        check(Config::builder().sentinel("", ["s1"]), "name of the primary");
        check(Config::builder().command_timeout(Duration::ZERO), "`command_timeout`");
        check(Config::builder().read_policy(ReadPolicy::Zone), "`zone`");
        check(Config::builder().max_leases(1).min_idle_leases(2), "`min_idle_leases`");
        check(Config::builder().sentinel_tls(true), "no sentinels");
        check(Config::builder().tls(Tls { cert_file: Some("c".into()), ..Tls::default() }), "`tls_key_file`");
        check(Config::builder().url("redis://h?nonsense=1"), "`nonsense`: unknown setting");
    }

    #[test]
    fn a_url_and_calls_go_together() {
        let config = Config::builder()
            .password("secret")
            .url("redis://10.0.0.1?db=2")
            .client_name("app")
            .build()
            .unwrap();
        assert_eq!((config.db(), config.client_name()), (2, Some("app")));
        assert_eq!(config.credentials().password.as_ref().unwrap().expose(), "secret");
        assert_eq!(config.origin(), Origin::Url);
    }
}
