//! The form in which a server names the target of a move, and what suits a connection best.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// How the server is asked to name targets (`moving-endpoint-type`).
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize, serde::Serialize), serde(rename_all = "kebab-case"))]
pub enum EndpointType {
    /// Whatever suits the connection: [`resolve`](Self::resolve). The default; never sent.
    #[default]
    Auto,
    /// A public name.
    ExternalFqdn,
    /// A public address.
    ExternalIp,
    /// A name of the private network.
    InternalFqdn,
    /// An address of the private network.
    InternalIp,
    /// No address: the configured name is asked again.
    None,
}

/// Suffixes of names that no public resolver knows.
const PRIVATE_SUFFIXES: [&str; 7] =
    [".local", ".internal", ".corp", ".lan", ".intranet", ".private", ".localhost"];

impl EndpointType {
    pub(crate) const WORDS: &'static str =
        "auto, internal-ip, internal-fqdn, external-ip, external-fqdn or none";

    const ALL: [Self; 6] =
        [Self::Auto, Self::ExternalFqdn, Self::ExternalIp, Self::InternalFqdn, Self::InternalIp, Self::None];

    /// The word on the wire; `None` for [`Auto`](Self::Auto), which must be resolved first.
    pub fn wire(self) -> Option<&'static str> {
        (self != Self::Auto).then(|| self.word())
    }

    /// What to ask for on one connection; never [`Auto`](Self::Auto).
    ///
    /// The address that answered tells inside from outside, because it is what this program can reach; a lookup of
    /// its own could tell otherwise. Under TLS a name is asked for, so that certificates verify; a name also where
    /// no address is known but the host's own. A connection without any address (a Unix socket) asks for none.
    ///
    /// ```
    /// use evenkeel_hitless::EndpointType;
    /// let peer = Some("10.0.0.7".parse().unwrap());
    /// assert_eq!(EndpointType::Auto.resolve("cache.example.com", peer, false), EndpointType::InternalIp);
    /// assert_eq!(EndpointType::Auto.resolve("cache.example.com", peer, true), EndpointType::InternalFqdn);
    /// assert_eq!(EndpointType::None.resolve("cache.example.com", peer, true), EndpointType::None);
    /// ```
    #[must_use]
    pub fn resolve(self, configured_host: &str, peer: Option<IpAddr>, tls: bool) -> Self {
        if self != Self::Auto {
            return self;
        }
        let literal = configured_host.trim_matches(['[', ']']).parse().ok();
        let inside = match peer.or(literal) {
            Some(address) => is_private(address),
            None if configured_host.is_empty() || configured_host.starts_with('/') => return Self::None,
            None => is_private_name(configured_host),
        };
        match (inside, tls) {
            (true, true) => Self::InternalFqdn,
            (true, false) => Self::InternalIp,
            (false, true) => Self::ExternalFqdn,
            (false, false) => Self::ExternalIp,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::ExternalFqdn => "external-fqdn",
            Self::ExternalIp => "external-ip",
            Self::InternalFqdn => "internal-fqdn",
            Self::InternalIp => "internal-ip",
            Self::None => "none",
        }
    }
}

impl fmt::Display for EndpointType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A word that names no endpoint type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {}", EndpointType::WORDS)]
pub struct EndpointTypeError;

impl FromStr for EndpointType {
    type Err = EndpointTypeError;

    fn from_str(text: &str) -> Result<Self, EndpointTypeError> {
        Self::ALL.into_iter().find(|kind| text.eq_ignore_ascii_case(kind.word())).ok_or(EndpointTypeError)
    }
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_private_v4(v4),
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_private_v4(v4),
            None => v6 == Ipv6Addr::LOCALHOST || v6.is_unique_local() || v6.is_unicast_link_local(),
        },
    }
}

fn is_private_v4(v4: Ipv4Addr) -> bool {
    let [a, b, ..] = v4.octets();
    // Whoever reaches 100.64/10 (carrier-grade NAT, overlay networks) stands inside that network.
    v4.is_private() || v4.is_loopback() || v4.is_link_local() || (a == 100 && (64..128).contains(&b))
}

fn is_private_name(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    !host.contains('.') || PRIVATE_SUFFIXES.iter().any(|suffix| host.ends_with(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_follows_the_peer_and_tls() {
        use EndpointType::{Auto, ExternalFqdn, ExternalIp, InternalFqdn, InternalIp, None as NoAddress};
        for (host, peer, tls, expected) in [
            ("redis.example.com", Some("54.1.2.3"), false, ExternalIp),
            ("redis.example.com", Some("54.1.2.3"), true, ExternalFqdn),
            ("redis.example.com", Some("172.16.0.1"), false, InternalIp),
            ("redis.example.com", Some("::ffff:10.1.1.1"), true, InternalFqdn),
            ("localhost", Some("127.0.0.1"), false, InternalIp),
            ("h", Some("169.254.1.1"), false, InternalIp),
            ("h", Some("100.64.0.1"), false, InternalIp),
            ("h", Some("100.128.0.1"), false, ExternalIp),
            ("h", Some("fd00::1"), false, InternalIp),
            ("h", Some("fe80::1"), false, InternalIp),
            ("h", Some("2a00::1"), false, ExternalIp),
            ("10.0.0.1", None, false, InternalIp),
            ("[::1]", None, false, InternalIp),
            ("cache.internal", None, true, InternalFqdn),
            ("redis", None, false, InternalIp),
            ("redis.example.com", None, false, ExternalIp),
            ("/run/redis.sock", None, false, NoAddress),
            ("", None, false, NoAddress),
        ] {
            let peer = peer.map(|text| text.parse().unwrap());
            assert_eq!(Auto.resolve(host, peer, tls), expected, "{host} {peer:?} {tls}");
        }
    }

    #[test]
    fn words_are_read_and_written() {
        for kind in EndpointType::ALL {
            assert_eq!(kind.to_string().to_uppercase().parse(), Ok(kind));
        }
        assert_eq!(EndpointType::Auto.wire(), None);
        assert_eq!(EndpointType::ExternalIp.wire(), Some("external-ip"));
        assert!("ip".parse::<EndpointType>().is_err());
    }
}
