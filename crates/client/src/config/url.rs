//! Reads URLs of every deployment; it knows no environment.
//!
//! ```text
//! redis://user:password@host:port/db?key=value        also rediss, valkey, valkeys
//! unix:///path/to/socket?db=1                         also redis+unix
//! redis+sentinel://s1:26379,s2/mymaster/db            also redis-sentinel, rediss+sentinel, ...
//! redis+cluster://n1:7000,n2:7000                     also redis-cluster, rediss+cluster, ...
//! ```

use std::{borrow::Cow, str::FromStr};

use evenkeel_protocol::Endpoint;
use percent_encoding::percent_decode_str;

use super::{
    Config, Credentials, Deployment, Origin, Secret, Tls, builder,
    defaults::{PORT, SENTINEL_PORT},
    error::{ConfigError, Problem},
    maintenance::in_url,
    nodes,
    value::Value,
};
use crate::error::Error;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Cluster,
    Sentinel,
    Single,
    Unix,
}

struct Scheme {
    family: Family,
    tls: bool,
}

/// Takes over what `text` says.
pub(super) fn apply(config: &mut Config, text: &str) -> Result<(), ConfigError> {
    let fail = |problem: Problem| Err(ConfigError::new(Origin::Url, problem));
    let Some((scheme, rest)) = text.trim().split_once("://") else {
        return fail(Problem::expected("a URL such as redis://localhost:6379", text));
    };
    let scheme =
        Scheme::parse(scheme).map_err(|problem| ConfigError::in_part(Origin::Url, "scheme", problem))?;
    if rest.contains('#') {
        return fail(Problem::Wrong { why: "a # must be written as %23" });
    }
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let (userinfo, hosts) = match authority.rsplit_once('@') {
        Some((userinfo, hosts)) => (Some(userinfo), hosts),
        None => (None, authority),
    };
    if userinfo.is_none() && (path.contains('@') || query.contains('@')) && hosts.contains(':') {
        // Perhaps the rest of a password stands there, so nothing of it is repeated.
        if nodes::list(hosts, PORT).is_err() {
            return fail(Problem::Wrong { why: "percent-encode / ? # and @ in a password" });
        }
    }
    if let Some(userinfo) = userinfo {
        credentials(config, userinfo)?;
    }
    if scheme.tls {
        config.tls.get_or_insert_default();
    }
    config.origin = Origin::Url;
    place(config, &scheme, hosts, path)?;
    Query::new(&scheme, !path.trim_matches('/').is_empty()).apply(config, query)?;
    builder::check(config)
}

impl FromStr for Config {
    type Err = Error;

    /// Reads a URL.
    fn from_str(text: &str) -> Result<Self, Error> {
        let mut config = Self::default();
        apply(&mut config, text)?;
        Ok(config)
    }
}

impl TryFrom<&str> for Config {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self, Error> {
        text.parse()
    }
}

impl TryFrom<String> for Config {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl TryFrom<&String> for Config {
    type Error = Error;

    fn try_from(text: &String) -> Result<Self, Error> {
        text.parse()
    }
}

impl Scheme {
    fn parse(text: &str) -> Result<Self, Problem> {
        const EXPECTED: &str =
            "redis, rediss, valkey or valkeys, alone or with +sentinel or +cluster, or unix or redis+unix";
        let unknown = || Problem::expected(EXPECTED, text);
        let lower = text.to_ascii_lowercase();
        if lower == "unix" {
            return Ok(Self { family: Family::Unix, tls: false });
        }
        let (base, family) = lower.split_once(['+', '-']).unwrap_or((&lower, ""));
        let tls = match base {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return Err(unknown()),
        };
        let family = match family {
            "" => Family::Single,
            "sentinel" => Family::Sentinel,
            "cluster" => Family::Cluster,
            "unix" if !tls => Family::Unix,
            _ => return Err(unknown()),
        };
        Ok(Self { family, tls })
    }
}

fn in_part<T>(part: &'static str, result: Result<T, Problem>) -> Result<T, ConfigError> {
    result.map_err(|problem| ConfigError::in_part(Origin::Url, part, problem))
}

fn decode(text: &str) -> Result<Cow<'_, str>, Problem> {
    percent_decode_str(text)
        .decode_utf8()
        .map_err(|_not_utf8| Problem::Wrong { why: "percent-encoded bytes are not UTF-8" })
}

fn credentials(config: &mut Config, userinfo: &str) -> Result<(), ConfigError> {
    let (username, password) = match userinfo.split_once(':') {
        Some((username, password)) => (username, Some(password)),
        None => (userinfo, None),
    };
    let username = in_part("user name", decode(username))?;
    config.credentials.username = (!username.is_empty()).then(|| username.into_owned());
    if let Some(password) = password.filter(|password| !password.is_empty()) {
        config.credentials.password = Some(Secret::new(in_part("password", decode(password))?));
        config.password_origin = Origin::Url;
    }
    Ok(())
}

/// Reads hosts and path.
fn place(config: &mut Config, scheme: &Scheme, hosts: &str, path: &str) -> Result<(), ConfigError> {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    match scheme.family {
        Family::Unix => {
            if !hosts.is_empty() {
                let why = "a socket has a path and no host: write unix:///path";
                return in_part("host", Err(Problem::Wrong { why }));
            }
            let path = in_part("path", decode(path))?;
            config.deployment = Deployment::Single { endpoint: Endpoint::unix(&path) };
            return Ok(());
        }
        Family::Single => {
            if hosts.contains(',') {
                let why = "several hosts need redis+cluster:// or redis+sentinel://";
                return in_part("host", Err(Problem::Wrong { why }));
            }
            let hosts = if hosts.is_empty() { "localhost" } else { hosts };
            let endpoint = in_part("host", nodes::endpoint(hosts, PORT))?;
            config.deployment = Deployment::Single { endpoint };
        }
        Family::Cluster => {
            let nodes = in_part("hosts", nodes::list(hosts, PORT))?;
            config.deployment = Deployment::Cluster { nodes };
        }
        Family::Sentinel => {
            let sentinels = in_part("hosts", nodes::list(hosts, SENTINEL_PORT))?;
            // One part that is a number is the database, as in URLs that give the name in the query.
            let name = match (path.trim_matches('/').contains('/'), parts.clone().next()) {
                (false, Some(part)) if part.parse::<u32>().is_ok() => String::new(),
                _ => in_part("path", decode(parts.next().unwrap_or_default()))?.into_owned(),
            };
            let tls = scheme.tls;
            config.deployment =
                Deployment::Sentinel { sentinels, name, credentials: Credentials::default(), tls };
        }
    }
    if let Some(db) = parts.next() {
        let number = db.parse().map_err(|_no_number| Problem::expected("the number of a database", db));
        config.settings.db = in_part("path", number)?;
    }
    match parts.next() {
        Some(_) => in_part("path", Err(Problem::Wrong { why: "has too many parts" })),
        None => Ok(()),
    }
}

/// Reads the query.
struct Query {
    family: Family,
    /// Canonical keys that were there.
    seen: Vec<Cow<'static, str>>,
    path_has_parts: bool,
}

impl Query {
    fn new(scheme: &Scheme, path_has_parts: bool) -> Self {
        Self { family: scheme.family, seen: Vec::new(), path_has_parts }
    }

    fn apply(mut self, config: &mut Config, query: &str) -> Result<(), ConfigError> {
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let part = format!("`{key}`");
            let set = decode(value).and_then(|value| self.set(config, key, &value));
            set.map_err(|problem| ConfigError::in_part(Origin::Url, part, problem))?;
        }
        Ok(())
    }

    fn set(&mut self, config: &mut Config, key: &str, value: &str) -> Result<(), Problem> {
        let path_db =
            (key == "db" && self.path_has_parts && self.family != Family::Unix).then_some(config.settings.db);
        let canonical: Cow<'static, str> = match config.settings.apply(key, value) {
            Some(set) => set?.into(),
            None => Self::set_other(config, key, value)?,
        };
        match path_db {
            Some(db) if db != 0 && db != config.settings.db => {
                return Err(Problem::Conflict { with: "the path".into() });
            }
            _ => {}
        }
        if canonical != "node" && self.seen.contains(&canonical) {
            return Err(Problem::Twice);
        }
        self.seen.push(canonical);
        Ok(())
    }

    /// Settings that are no single value. Those of sentinels are unknown elsewhere.
    fn set_other(config: &mut Config, key: &str, value: &str) -> Result<Cow<'static, str>, Problem> {
        if key.starts_with("maint_") {
            config.set_maintenance(key.to_owned(), value.to_owned());
            return Ok(in_url(key).into());
        }
        let text = || value.to_owned();
        let needs_tls = Problem::Wrong { why: "needs TLS: write rediss:// in front" };
        let known = match (key, &mut config.deployment, &mut config.tls) {
            ("user" | "username", ..) => {
                config.credentials.username = Some(text());
                "username"
            }
            ("pass" | "password", ..) => {
                if config.credentials.password.replace(value.into()).is_some_and(|p| p.expose() != value) {
                    return Err(Problem::Conflict { with: "another password".into() });
                }
                config.password_origin = Origin::Url;
                "password"
            }
            ("node", Deployment::Cluster { nodes }, _) => {
                nodes.push(nodes::endpoint(value, PORT)?);
                "node"
            }
            ("node", Deployment::Sentinel { sentinels, .. }, _) => {
                sentinels.push(nodes::endpoint(value, SENTINEL_PORT)?);
                "node"
            }
            ("sentinel_name" | "sentinelServiceName", Deployment::Sentinel { name, .. }, _) => {
                if !name.is_empty() && name != value {
                    return Err(Problem::Conflict { with: "the path".into() });
                }
                *name = text();
                "sentinel_name"
            }
            ("sentinel_username" | "sentinelUsername", Deployment::Sentinel { credentials, .. }, _) => {
                credentials.username = Some(text());
                "sentinel_username"
            }
            ("sentinel_password" | "sentinelPassword", Deployment::Sentinel { credentials, .. }, _) => {
                credentials.password = Some(value.into());
                "sentinel_password"
            }
            ("sentinel_tls", Deployment::Sentinel { tls, .. }, _) => {
                *tls = flag(value)?;
                "sentinel_tls"
            }
            ("tls_ca_file", _, Some(tls)) => file(&mut tls.ca_file, value, "tls_ca_file"),
            ("tls_cert_file", _, Some(tls)) => file(&mut tls.cert_file, value, "tls_cert_file"),
            ("tls_key_file", _, Some(tls)) => file(&mut tls.key_file, value, "tls_key_file"),
            ("tls_server_name", _, Some(tls)) => file(&mut tls.server_name, value, "tls_server_name"),
            ("tls_insecure", _, Some(tls)) => {
                tls.insecure = flag(value)?;
                "tls_insecure"
            }
            (key, _, None) if Tls::KEYS.contains(&key) => return Err(needs_tls),
            _ => return Err(Problem::Unknown),
        };
        Ok(known.into())
    }
}

impl Tls {
    const KEYS: [&str; 5] =
        ["tls_ca_file", "tls_cert_file", "tls_key_file", "tls_server_name", "tls_insecure"];
}

fn flag(text: &str) -> Result<bool, Problem> {
    bool::parse(text).ok_or_else(|| Problem::expected(bool::EXPECTED, text))
}

fn file(field: &mut Option<String>, value: &str, key: &'static str) -> &'static str {
    *field = Some(value.to_owned());
    key
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{ProtocolVersion, ReadPolicy};

    fn read(text: &str) -> Config {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn single_servers() {
        let check = |text: &str, endpoint: &str, tls: bool, db: u32| {
            let config = read(text);
            assert_eq!(config.seeds().first().map(ToString::to_string).as_deref(), Some(endpoint), "{text}");
            assert_eq!((config.tls().is_some(), config.db()), (tls, db), "{text}");
        };
        check("redis://localhost:6379", "localhost:6379", false, 0);
        check("redis://", "localhost:6379", false, 0);
        check("valkey://h", "h:6379", false, 0);
        check("rediss://h:7/3", "h:7", true, 3);
        check("valkeys://[::1]:7/", "[::1]:7", true, 0);
        check("redis://h?db=4", "h:6379", false, 4);
        check("redis://h/4?db=4", "h:6379", false, 4);
        check("unix:///tmp/r%20s.sock?db=1", "unix:/tmp/r s.sock", false, 1);
        check("redis+unix:///tmp/r.sock", "unix:/tmp/r.sock", false, 0);
        check("REDIS://Host:1", "Host:1", false, 0);
    }

    #[test]
    fn credentials_are_decoded() {
        let check = |text: &str, username: Option<&str>, password: Option<&str>| {
            let found = read(text).credentials().clone();
            assert_eq!(found.username.as_deref(), username, "{text}");
            assert_eq!(found.password.as_ref().map(Secret::expose), password, "{text}");
        };
        check("redis://h", None, None);
        check("redis://:p%40s%2Fs@h", None, Some("p@s/s"));
        check("redis://app:p@ss@h", Some("app"), Some("p@ss"));
        check("redis://app@h", Some("app"), None);
        check("unix:///s?user=app&pass=x", Some("app"), Some("x"));
    }

    #[test]
    fn sentinels_and_clusters_in_both_styles() {
        for text in [
            "redis+sentinel://u:p@s1:26379,s2/mymaster/2?sentinel_password=sp",
            "redis-sentinel://u:p@s1/2?node=s2:26379&sentinelServiceName=mymaster&sentinelPassword=sp",
            "valkey+sentinel://u:p@s1,s2:26379/mymaster/2?sentinelPassword=sp",
        ] {
            let config = read(text);
            let Deployment::Sentinel { sentinels, name, credentials, tls } = config.deployment() else {
                panic!("{text}")
            };
            let sentinels: Vec<String> = sentinels.iter().map(ToString::to_string).collect();
            assert_eq!(sentinels, ["s1:26379", "s2:26379"], "{text}");
            assert_eq!((name.as_str(), config.db(), *tls), ("mymaster", 2, false), "{text}");
            assert_eq!(credentials.password.as_ref().unwrap().expose(), "sp");
            assert_eq!(config.credentials().password.as_ref().unwrap().expose(), "p");
        }
        assert!(matches!(
            read("rediss+sentinel://s1/m?sentinel_tls=false").deployment(),
            Deployment::Sentinel { tls: false, .. }
        ));
        for text in ["redis+cluster://a:1,b:2", "redis-cluster://a:1?node=b:2", "redis+cluster://a:1,b:2/"] {
            let shown: Vec<String> = read(text).seeds().iter().map(ToString::to_string).collect();
            assert_eq!(shown, ["a:1", "b:2"], "{text}");
        }
    }

    #[test]
    fn the_query_sets_what_it_names() {
        let config = read(
            "redis://h?protocol=2&client_name=app&timeout=3s&connect_timeout=250ms&lanes=2&read=prefer_replica\
             &zone=eu-1&lazy=true&maint_mode=auto&maint_relaxed_timeout=15s&sentry_every=1000&sentry_idle=5s",
        );
        assert_eq!((config.sentry_every(), config.sentry_idle()), (1000, Some(Duration::from_secs(5))));
        assert!(config.to_string().contains("sentry_every=1000&sentry_idle=5s"), "{config}");
        assert_eq!(read("redis://h?sentry_idle=never").sentry_idle(), None);
        assert_eq!(config.protocol(), ProtocolVersion::Resp2);
        assert_eq!(config.client_name(), Some("app"));
        assert_eq!(config.command_timeout(), Duration::from_secs(3));
        assert_eq!(config.connect_timeout(), Duration::from_millis(250));
        assert_eq!(config.lanes().get(), 2);
        assert_eq!(config.read_policy(), ReadPolicy::PreferReplica);
        assert!(config.lazy());
        let pairs = [("maint_mode", "auto"), ("maint_relaxed_timeout", "15s")];
        assert_eq!(config.maintenance(), pairs.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn mistakes_are_named() {
        let check = |text: &str, expected: &str| {
            let error = text.parse::<Config>().unwrap_err().to_string();
            assert_eq!(error, expected, "{text}");
        };
        check(
            "localhost:6379",
            "the URL: expected a URL such as redis://localhost:6379, found \"localhost:6379\"",
        );
        check(
            "http://h",
            "the URL: scheme: expected redis, rediss, valkey or valkeys, alone or with +sentinel or +cluster, or \
             unix or redis+unix, found \"http\"",
        );
        check(
            "redis://h:70000",
            "the URL: host: expected host:port with a port from 1 to 65535, found \"h:70000\"",
        );
        check("redis://a,b", "the URL: host: several hosts need redis+cluster:// or redis+sentinel://");
        check("redis://h/x", "the URL: path: expected the number of a database, found \"x\"");
        check("redis://h/1/2", "the URL: path: has too many parts");
        check("redis://h/1?db=2", "the URL: `db`: contradicts the path");
        check("redis://h?colour=red", "the URL: `colour`: unknown setting");
        check("redis://h?sentinel_password=x", "the URL: `sentinel_password`: unknown setting");
        check("redis://h?timeout=1s&command_timeout=2s", "the URL: `command_timeout`: given twice");
        check(
            "redis://h?timeout=5",
            "the URL: `timeout`: expected a duration with its unit, such as 500ms or 10s, found \"5\"",
        );
        check("redis://h?protocol=4", "the URL: `protocol`: expected 2, 3 or auto, found \"4\"");
        check(
            "redis://h?sentry_idle=0s",
            "the URL: `sentry_idle`: expected never, or a duration with its unit, such as 500ms or 10s, found \"0s\"",
        );
        check("redis://h?lanes=0", "the URL: `lanes`: expected a number from 1 to 65535, found \"0\"");
        check("redis+sentinel://s1", "the URL: name of the primary: missing or empty, such as mymaster");
        check(
            "redis+cluster://",
            "the URL: hosts: expected host:port with a port from 1 to 65535, found \"\"",
        );
        check("unix://host/path", "the URL: host: a socket has a path and no host: write unix:///path");
        check("redis://h?tls_insecure=true", "the URL: `tls_insecure`: needs TLS: write rediss:// in front");
        check("redis://h#1", "the URL: a # must be written as %23");
        check("redis://:%ff@h", "the URL: password: percent-encoded bytes are not UTF-8");
    }

    #[test]
    fn a_password_that_is_not_encoded_is_not_repeated() {
        for text in ["redis://:hun/ter@h", "redis://:hun?ter@h", "redis://u:hun#ter@h", "redis://u:1/hun@h"] {
            let error = text.parse::<Config>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hun"), "{error}");
        }
    }
}
