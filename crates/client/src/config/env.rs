//! Reads the environment: six variables that choose a deployment, and those of the handoff engine.
//!
//! | variable | meaning |
//! |---|---|
//! | `REDIS_MODE` | `single` (the default), `cluster` or `sentinel` |
//! | `REDIS_URL` | mode `single`: the server; `redis://localhost:6379` when unset |
//! | `REDIS_PASSWORD` | the password of data nodes, in every mode; sentinels never get it |
//! | `REDIS_CLUSTER_NODES` | mode `cluster`: `host:port,host:port,...` |
//! | `REDIS_SENTINELS` | mode `sentinel`: `host:port,host:port,...` |
//! | `REDIS_SENTINEL_NAME` | mode `sentinel`: the name of the primary |
//! | `EVENKEEL_MAINT_...` | settings of the handoff engine, as `maint_...` in a URL |
//!
//! An empty variable counts as unset, since that is how many tools write one.

use std::ffi::OsString;

use super::{
    Config, Deployment, Origin, Secret, Warning, builder,
    defaults::{PORT, SENTINEL_PORT},
    error::{ConfigError, Problem},
    nodes, url,
};
use crate::error::Error;

const MODE: &str = "REDIS_MODE";
const URL: &str = "REDIS_URL";
const PASSWORD: &str = "REDIS_PASSWORD";
const CLUSTER_NODES: &str = "REDIS_CLUSTER_NODES";
const SENTINELS: &str = "REDIS_SENTINELS";
const SENTINEL_NAME: &str = "REDIS_SENTINEL_NAME";
const ALL: [&str; 6] = [MODE, URL, PASSWORD, CLUSTER_NODES, SENTINELS, SENTINEL_NAME];
const MAINTENANCE: &str = "EVENKEEL_MAINT_";
/// Stands for the family where an error needs one name of it.
const MAINTENANCE_ORIGIN: Origin = Origin::Variable("the environment");

impl Config {
    /// Reads the process's environment: `REDIS_MODE`, `REDIS_URL`, `REDIS_PASSWORD`, `REDIS_CLUSTER_NODES`,
    /// `REDIS_SENTINELS`, `REDIS_SENTINEL_NAME`, and `EVENKEEL_MAINT_...`.
    ///
    /// Without any of them it is `redis://localhost:6379`.
    ///
    /// # Errors
    /// A variable that is wrong, missing in its mode or contradicts another, by its name.
    pub fn from_env() -> Result<Self, Error> {
        Self::from_vars(std::env::vars_os())
    }

    /// As [`from_env`](Self::from_env), from any list of names and values.
    ///
    /// ```
    /// use evenkeel_client::Config;
    /// let vars = [("REDIS_MODE", "cluster"), ("REDIS_CLUSTER_NODES", "node1:7000,node2:7001")];
    /// let config = Config::from_vars(vars)?;
    /// assert_eq!(config.to_string(), "redis+cluster://node1:7000,node2:7001");
    /// # Ok::<(), evenkeel_client::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`from_env`](Self::from_env).
    pub fn from_vars<N: Into<OsString>, V: Into<OsString>>(
        vars: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, Error> {
        Ok(Variables::collect(vars)?.read()?)
    }
}

/// The variables that concern us, the empty ones left out.
struct Variables {
    named: [Option<String>; 6],
    maintenance: Vec<(String, String)>,
}

impl Variables {
    fn collect<N: Into<OsString>, V: Into<OsString>>(
        vars: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Self, ConfigError> {
        let mut found = Self { named: Default::default(), maintenance: Vec::new() };
        let wrong = || Problem::Wrong { why: "is not UTF-8" };
        for (name, value) in vars {
            // A name that is not UTF-8 is none of ours.
            let Ok(name) = name.into().into_string() else { continue };
            let value = value.into();
            if value.is_empty() {
                continue;
            }
            if let Some((at, known)) = ALL.iter().enumerate().find(|(_, known)| **known == name) {
                let value = value
                    .into_string()
                    .map_err(|_not_utf8| ConfigError::new(Origin::Variable(known), wrong()))?;
                if let Some(place) = found.named.get_mut(at) {
                    *place = Some(value);
                }
            } else if name.starts_with(MAINTENANCE) {
                let value = value
                    .into_string()
                    .map_err(|_not_utf8| ConfigError::in_part(MAINTENANCE_ORIGIN, name.clone(), wrong()))?;
                found.maintenance.push((name, value));
            }
        }
        // The order of an environment is nobody's choice; errors must not depend on it.
        found.maintenance.sort();
        Ok(found)
    }

    fn get(&self, name: &str) -> Option<&str> {
        let at = ALL.iter().position(|known| *known == name)?;
        self.named.get(at)?.as_deref()
    }

    fn read(self) -> Result<Config, ConfigError> {
        let mut config = Config::default();
        let (mode, others): (&'static str, &[&'static str]) = match self.mode()? {
            Mode::Single => {
                if let Some(text) = self.get(URL) {
                    url::apply(&mut config, text).map_err(|error| error.at(Origin::Variable(URL)))?;
                    config.origin = Origin::Variable(URL);
                    config.read_maintenance()?;
                    if config.credentials.password.is_some() {
                        config.password_origin = Origin::Variable(URL);
                    }
                    if self.get(MODE).is_some() && !matches!(config.deployment, Deployment::Single { .. }) {
                        let with = "REDIS_URL, which is no URL of a single server".into();
                        return Err(ConfigError::new(Origin::Variable(MODE), Problem::Conflict { with }));
                    }
                }
                ("single", &[CLUSTER_NODES, SENTINELS, SENTINEL_NAME])
            }
            Mode::Cluster => {
                let nodes = self.list(CLUSTER_NODES, "mode cluster needs host:port,host:port,...", PORT)?;
                config.deployment = Deployment::Cluster { nodes };
                config.origin = Origin::Variable(CLUSTER_NODES);
                ("cluster", &[URL, SENTINELS, SENTINEL_NAME])
            }
            Mode::Sentinel => {
                let hint = "mode sentinel needs host:port,host:port,...";
                let sentinels = self.list(SENTINELS, hint, SENTINEL_PORT)?;
                let hint = "mode sentinel needs the name of the primary, such as mymaster";
                let name =
                    self.get(SENTINEL_NAME).map(str::trim).filter(|name| !name.is_empty()).ok_or_else(
                        || ConfigError::new(Origin::Variable(SENTINEL_NAME), Problem::Missing { hint }),
                    )?;
                config.deployment = Deployment::Sentinel {
                    sentinels,
                    name: name.to_owned(),
                    credentials: super::Credentials::default(),
                    tls: false,
                };
                config.origin = Origin::Variable(SENTINELS);
                ("sentinel", &[URL, CLUSTER_NODES])
            }
        };
        config.warnings.extend(
            others
                .iter()
                .filter(|variable| self.get(variable).is_some())
                .map(|&variable| Warning::OtherMode { variable, mode }),
        );
        self.password(&mut config)?;
        for (key, value) in self.maintenance {
            config.set_maintenance(key, value);
        }
        builder::check(&config)?;
        Ok(config)
    }

    fn mode(&self) -> Result<Mode, ConfigError> {
        match self.get(MODE).map(str::trim) {
            None => Ok(Mode::Single),
            Some(text) if text.eq_ignore_ascii_case("single") => Ok(Mode::Single),
            Some(text) if text.eq_ignore_ascii_case("cluster") => Ok(Mode::Cluster),
            Some(text) if text.eq_ignore_ascii_case("sentinel") => Ok(Mode::Sentinel),
            Some(text) => {
                let problem = Problem::expected("single, cluster or sentinel", text);
                Err(ConfigError::new(Origin::Variable(MODE), problem))
            }
        }
    }

    fn list(
        &self,
        variable: &'static str,
        hint: &'static str,
        default_port: u16,
    ) -> Result<Vec<evenkeel_protocol::Endpoint>, ConfigError> {
        let problem = match self.get(variable).map(str::trim).filter(|text| !text.is_empty()) {
            None => Problem::Missing { hint },
            Some(text) => match nodes::list(text, default_port) {
                Ok(list) => return Ok(list),
                Err(problem) => problem,
            },
        };
        Err(ConfigError::new(Origin::Variable(variable), problem))
    }

    /// It wins over none in the URL; two that differ are an error.
    fn password(&self, config: &mut Config) -> Result<(), ConfigError> {
        let Some(password) = self.get(PASSWORD) else { return Ok(()) };
        match &config.credentials.password {
            Some(other) if other.expose() != password => {
                let with = "the password in REDIS_URL".into();
                Err(ConfigError::new(Origin::Variable(PASSWORD), Problem::Conflict { with }))
            }
            Some(_) => Ok(()),
            None => {
                config.credentials.password = Some(Secret::new(password));
                config.password_origin = Origin::Variable(PASSWORD);
                Ok(())
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Mode {
    Cluster,
    Sentinel,
    Single,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn read<const N: usize>(vars: [(&str, &str); N]) -> Config {
        Config::from_vars(vars).unwrap_or_else(|error| panic!("{vars:?}: {error}"))
    }

    #[test]
    fn the_three_modes_as_documented() {
        assert_eq!(read([]).to_string(), "redis://localhost:6379");
        let config = read([("REDIS_MODE", "single"), ("REDIS_URL", "redis://h:1"), ("REDIS_PASSWORD", "p")]);
        assert_eq!(config.to_url_with_secrets(), "redis://:p@h:1");
        assert_eq!(config.origin(), Origin::Variable("REDIS_URL"));
        assert_eq!(config.password_origin(), Origin::Variable("REDIS_PASSWORD"));
        let config = read([
            ("REDIS_MODE", "cluster"),
            ("REDIS_CLUSTER_NODES", "node1:7000,node2:7001,node3:7002"),
            ("REDIS_PASSWORD", "p"),
        ]);
        assert_eq!(config.to_url_with_secrets(), "redis+cluster://:p@node1:7000,node2:7001,node3:7002");
        let config = read([
            ("REDIS_MODE", "sentinel"),
            ("REDIS_SENTINELS", "sentinel1:26379,sentinel2:26380,sentinel3:26381"),
            ("REDIS_SENTINEL_NAME", "mymaster"),
            ("REDIS_PASSWORD", "p"),
        ]);
        assert_eq!(
            config.to_url_with_secrets(),
            "redis+sentinel://:p@sentinel1:26379,sentinel2:26380,sentinel3:26381/mymaster"
        );
        let Deployment::Sentinel { credentials, .. } = config.deployment() else { panic!("{config:?}") };
        assert!(credentials.is_empty(), "sentinels never get the data nodes' password");
        assert!(config.warnings().is_empty());
    }

    #[test]
    fn a_variable_of_another_mode_is_reported() {
        let config = read([
            ("REDIS_MODE", "cluster"),
            ("REDIS_CLUSTER_NODES", "n:1"),
            ("REDIS_URL", "redis://h"),
            ("REDIS_SENTINEL_NAME", "m"),
            ("REDIS_SENTINELS", ""),
        ]);
        let warnings: Vec<String> = config.warnings().iter().map(ToString::to_string).collect();
        assert_eq!(
            warnings,
            [
                "REDIS_URL is set and not used: REDIS_MODE is cluster",
                "REDIS_SENTINEL_NAME is set and not used: REDIS_MODE is cluster",
            ]
        );
    }

    #[test]
    fn passwords_of_variable_and_url() {
        let same = read([("REDIS_URL", "redis://:p@h"), ("REDIS_PASSWORD", "p")]);
        assert_eq!(same.password_origin(), Origin::Variable("REDIS_URL"));
        let user = read([("REDIS_URL", "redis://app@h"), ("REDIS_PASSWORD", "p")]);
        assert_eq!(user.to_url_with_secrets(), "redis://app:p@h:6379");
        let error = Config::from_vars([("REDIS_URL", "redis://:p@h"), ("REDIS_PASSWORD", "q")]).unwrap_err();
        assert_eq!(error.to_string(), "REDIS_PASSWORD: contradicts the password in REDIS_URL");
    }

    #[test]
    fn each_mistake_names_its_variable_and_what_was_found() {
        let check = |vars: &[(&str, &str)], expected: &str| {
            let error = Config::from_vars(vars.iter().copied()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert_eq!(error.to_string(), expected);
        };
        check(
            &[("REDIS_MODE", "clusterr")],
            "REDIS_MODE: expected single, cluster or sentinel, found \"clusterr\"",
        );
        check(
            &[("REDIS_MODE", "cluster")],
            "REDIS_CLUSTER_NODES: missing or empty, mode cluster needs host:port,host:port,...",
        );
        check(
            &[("REDIS_MODE", "cluster"), ("REDIS_CLUSTER_NODES", "a:1,b:99999")],
            "REDIS_CLUSTER_NODES: expected host:port with a port from 1 to 65535, found \"b:99999\"",
        );
        check(
            &[("REDIS_MODE", "sentinel"), ("REDIS_SENTINEL_NAME", "m")],
            "REDIS_SENTINELS: missing or empty, mode sentinel needs host:port,host:port,...",
        );
        check(
            &[("REDIS_MODE", "sentinel"), ("REDIS_SENTINELS", "s:1")],
            "REDIS_SENTINEL_NAME: missing or empty, mode sentinel needs the name of the primary, such as mymaster",
        );
        check(
            &[("REDIS_URL", "localhost:6379")],
            "REDIS_URL: expected a URL such as redis://localhost:6379, found \"localhost:6379\"",
        );
        check(
            &[("REDIS_URL", "redis://h?lanes=x")],
            "REDIS_URL: `lanes`: expected a number from 1 to 65535, found \"x\"",
        );
        check(
            &[("REDIS_MODE", "single"), ("REDIS_URL", "redis+cluster://h")],
            "REDIS_MODE: contradicts REDIS_URL, which is no URL of a single server",
        );
    }

    #[test]
    fn no_mistake_repeats_a_password() {
        for vars in [
            [("REDIS_URL", "redis://:hunter2@h:99999"), ("REDIS_PASSWORD", "hunter2")],
            [("REDIS_URL", "redis://:hunter2@h"), ("REDIS_PASSWORD", "hunter3")],
            [("REDIS_URL", "redis://x:hunter2@h?password=hunter3"), ("REDIS_PASSWORD", "hunter2")],
            [("REDIS_MODE", "cluster"), ("REDIS_CLUSTER_NODES", "redis://:hunter2@h:1")],
        ] {
            let error = Config::from_vars(vars).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter"), "{error}");
        }
    }

    #[test]
    fn settings_of_the_handoff_engine_are_collected() {
        let config = read([
            ("EVENKEEL_MAINT_RELAXED_TIMEOUT", "10s"),
            ("EVENKEEL_MAINT_MODE", "auto"),
            ("EVENKEEL_OTHER", "x"),
        ]);
        let pairs = [("EVENKEEL_MAINT_MODE", "auto"), ("EVENKEEL_MAINT_RELAXED_TIMEOUT", "10s")];
        assert_eq!(config.maintenance(), pairs.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }
}
