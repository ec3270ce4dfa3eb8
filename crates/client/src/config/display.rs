//! Writes a configuration as a URL that reads back as the same.

use std::fmt::{self, Write};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Config, Credentials, Deployment, Secret, maintenance::in_url};

/// What stays as it is: RFC 3986's unreserved characters.
const RESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// A path keeps its slashes.
const IN_PATH: AsciiSet = RESERVED.remove(b'/');

impl fmt::Display for Config {
    /// Writes the URL with `***` in place of passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, false)
    }
}

impl Config {
    /// The URL with its passwords, to be stored where secrets are kept.
    ///
    /// What has no place in a URL is left out: limits, the backoff and the policy of redirections.
    ///
    /// ```
    /// let config: evenkeel_client::Config = "redis://:secret@h:1?timeout=3s".parse()?;
    /// assert_eq!(config.to_string(), "redis://:***@h:1?command_timeout=3s");
    /// let again: evenkeel_client::Config = config.to_url_with_secrets().parse()?;
    /// assert_eq!(again, config);
    /// # Ok::<(), evenkeel_client::Error>(())
    /// ```
    pub fn to_url_with_secrets(&self) -> String {
        let mut out = String::new();
        // Writing to a string cannot fail.
        let _infallible = self.write(&mut out, true);
        out
    }

    fn write(&self, f: &mut impl Write, secrets: bool) -> fmt::Result {
        let secret = |secret: &Secret| {
            if secrets {
                utf8_percent_encode(secret.expose(), &RESERVED).to_string()
            } else {
                "***".to_owned()
            }
        };
        let mut query: Vec<(String, String)> = Vec::new();
        let mut push = |key: &str, value: &str| {
            query.push((key.to_owned(), utf8_percent_encode(value, &RESERVED).to_string()));
        };
        let unix = matches!(&self.deployment, Deployment::Single { endpoint } if endpoint.is_unix());
        let s = if self.tls.is_some() { "s" } else { "" };
        match &self.deployment {
            Deployment::Single { .. } if unix => f.write_str("unix://")?,
            Deployment::Single { .. } => write!(f, "redis{s}://")?,
            Deployment::Cluster { .. } => write!(f, "redis{s}+cluster://")?,
            Deployment::Sentinel { .. } => write!(f, "redis{s}+sentinel://")?,
        }
        let Credentials { username, password } = &self.credentials;
        if unix {
            if let Some(username) = username {
                push("username", username);
            }
        } else if !self.credentials.is_empty() {
            write!(f, "{}", utf8_percent_encode(username.as_deref().unwrap_or_default(), &RESERVED))?;
            password.iter().try_for_each(|password| write!(f, ":{}", secret(password)))?;
            f.write_char('@')?;
        }
        for (index, seed) in self.seeds().iter().enumerate() {
            match (index, unix) {
                (_, true) => write!(f, "{}", utf8_percent_encode(seed.host(), &IN_PATH))?,
                (0, false) => write!(f, "{seed}")?,
                (_, false) => write!(f, ",{seed}")?,
            }
        }
        // In a path one part that is a number would be read as a database.
        let mut db_in_path = !unix;
        let mut sentinel_password = None;
        if let Deployment::Sentinel { name, credentials, tls, .. } = &self.deployment {
            write!(f, "/{}", utf8_percent_encode(name, &RESERVED))?;
            if name.parse::<u32>().is_ok() {
                f.write_str("/0")?;
                db_in_path = false;
            }
            if let Some(username) = &credentials.username {
                push("sentinel_username", username);
            }
            sentinel_password = credentials.password.as_ref().map(secret);
            if *tls != self.tls.is_some() {
                push("sentinel_tls", if *tls { "true" } else { "false" });
            }
        }
        let db = self.settings.db;
        if db_in_path && db != 0 {
            write!(f, "/{db}")?;
        }
        for (key, value) in self.settings.written() {
            if key != "db" || !db_in_path {
                push(key, &value);
            }
        }
        if let Some(tls) = &self.tls {
            if let Some(file) = &tls.ca_file {
                push("tls_ca_file", file);
            }
            if let Some(file) = &tls.cert_file {
                push("tls_cert_file", file);
            }
            if let Some(file) = &tls.key_file {
                push("tls_key_file", file);
            }
            if let Some(name) = &tls.server_name {
                push("tls_server_name", name);
            }
            if tls.insecure {
                push("tls_insecure", "true");
            }
        }
        for (key, value) in &self.maintenance {
            push(&in_url(key), value);
        }
        query.extend(sentinel_password.map(|text| ("sentinel_password".to_owned(), text)));
        if unix {
            query.extend(password.as_ref().map(|password| ("password".to_owned(), secret(password))));
        }
        for (index, (key, value)) in query.iter().enumerate() {
            write!(f, "{}{key}={value}", if index == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Config {
    /// Reads a URL. There is no `Serialize`: it would write passwords where nobody expects them.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn passwords_show_only_when_asked_for() {
        for text in [
            "redis://u:hunter2@h",
            "unix:///s?password=hunter2",
            "redis+sentinel://:hunter2@s/m?sentinel_password=hunter3",
            "rediss+cluster://:hunter2@a,b",
        ] {
            let config: Config = text.parse().unwrap();
            assert!(!format!("{config} {config:?}").contains("hunter"), "{config}");
            assert!(config.to_url_with_secrets().contains("hunter2"));
        }
    }

    fn urls() -> impl Strategy<Value = Config> {
        let word = "[a-zA-Z0-9 @:/?#&=%+é-]{1,12}";
        let host = "[a-z][a-z0-9.-]{0,10}";
        let hosts = prop::collection::vec((host, 1u16..), 1..4);
        (
            0..4,
            hosts,
            prop::option::of(word),
            prop::option::of(word),
            word,
            0u32..20,
            any::<bool>(),
            1u64..100_000,
        )
            .prop_map(|(kind, hosts, username, password, name, db, tls, millis)| {
                let hosts: Vec<String> = hosts.into_iter().map(|(h, p)| format!("{h}:{p}")).collect();
                let builder = Config::builder();
                let mut builder = match kind {
                    0 => builder.single(&hosts[0]),
                    1 => builder.unix(&format!("/{name}")),
                    2 => builder.cluster(&hosts),
                    _ => builder.sentinel(name.clone(), &hosts).sentinel_credentials(Credentials {
                        username: username.clone(),
                        password: Some(name.as_str().into()),
                    }),
                };
                builder = builder
                    .db(db)
                    .command_timeout(std::time::Duration::from_millis(millis))
                    .maintenance("relaxed_timeout", format!("{millis}ms"));
                if let Some(username) = username {
                    builder = builder.username(username);
                }
                if let Some(password) = password {
                    builder = builder.password(password);
                }
                if tls && kind != 1 {
                    builder = builder.tls(crate::config::Tls { ca_file: Some(name), ..Default::default() });
                }
                builder.build().unwrap()
            })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_as_the_same(config in urls()) {
            let url = config.to_url_with_secrets();
            let read: Config = url.parse().unwrap_or_else(|error| panic!("{url}: {error}"));
            prop_assert_eq!(read.deployment(), config.deployment(), "{}", url);
            prop_assert_eq!(read.credentials(), config.credentials(), "{}", url);
            prop_assert_eq!(&read.settings, &config.settings, "{}", url);
            prop_assert_eq!(read.tls(), config.tls(), "{}", url);
            prop_assert_eq!(read.maintenance(), config.maintenance(), "{}", url);
            prop_assert_eq!(read.to_url_with_secrets(), url);
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,60}", tail in "[a-z:/@?&=,#%0-9]{0,40}") {
            let _either = text.parse::<Config>();
            let _either = format!("redis+sentinel://{tail}").parse::<Config>();
            let _either = format!("redis://{tail}").parse::<Config>();
        }
    }
}
