//! Which addresses a server may lead us to: redirections, Sentinel answers, cluster maps and announcements.

use evenkeel_protocol::Endpoint;

/// Addresses that may be dialled when a server names them. Seeds are always allowed.
///
/// ```
/// use evenkeel_topology::RedirectPolicy;
/// let policy = RedirectPolicy::only(["10.0.0.1", "*.redis.example.com"]);
/// assert!(policy.allows(&"node-3.redis.example.com:6379".parse().unwrap()));
/// assert!(!policy.allows(&"evilredis.example.com:6379".parse().unwrap()));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedirectPolicy(Option<Vec<String>>);

impl RedirectPolicy {
    /// Any address. The default.
    pub fn any() -> Self {
        Self(None)
    }

    /// Only these hosts: names or addresses, compared as text without regard to case; `*.` in front stands for any labels.
    pub fn only<S: Into<String>>(hosts: impl IntoIterator<Item = S>) -> Self {
        Self(Some(hosts.into_iter().map(|host| host.into().to_ascii_lowercase()).collect()))
    }

    /// True when `endpoint` may be dialled.
    pub fn allows(&self, endpoint: &Endpoint) -> bool {
        let Some(hosts) = &self.0 else { return true };
        let host = endpoint.host().to_ascii_lowercase();
        hosts.iter().any(|allowed| match allowed.strip_prefix('*') {
            Some(suffix) => suffix.starts_with('.') && host.len() > suffix.len() && host.ends_with(suffix),
            None => *allowed == host,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_hosts_are_allowed() {
        let policy = RedirectPolicy::only(["10.0.0.1", "*.example.com", "*", "::1"]);
        for (host, allowed) in [
            ("10.0.0.1", true),
            ("10.0.0.10", false),
            ("A.EXAMPLE.com", true),
            ("example.com", false),
            (".example.com", false),
            ("badexample.com", false),
            ("[::1]", true),
        ] {
            assert_eq!(policy.allows(&Endpoint::new(host, 1)), allowed, "{host}");
            assert!(RedirectPolicy::any().allows(&Endpoint::new(host, 1)));
        }
    }
}
