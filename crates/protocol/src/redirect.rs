//! Replies that say "not here" or "not now": the server provably did not run the command.

use crate::{endpoint::Endpoint, server_error::ServerError, slot::Slot};

/// What a refusing reply asks of the client (cluster specification; command pages of the codes).
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `ASK slot host:port`: this one command goes there, behind ASKING; the map stays.
    Ask {
        /// The slot that migrates.
        slot: Slot,
        /// Where; `None` stands for the host that answered, with the port given.
        target: Target,
    },
    /// `CLUSTERDOWN`: no quorum or a slot without owner; wait.
    ClusterDown,
    /// `LOADING`: the data set is being read; wait.
    Loading,
    /// `MASTERDOWN`: a replica that has lost its primary.
    MasterDown,
    /// `MOVED slot host:port`: the slot has another owner.
    Moved {
        /// The slot.
        slot: Slot,
        /// Its owner.
        target: Target,
    },
    /// `NOREPLICAS`: too few replicas for a write; wait.
    NoReplicas,
    /// `READONLY`: this node is a replica.
    ReadOnly,
    /// Valkey's `REDIRECT host:port`: the primary of this replica.
    Redirect {
        /// The primary.
        target: Target,
    },
    /// `TRYAGAIN`: keys of one command are on both sides of a migration; wait.
    TryAgain,
}

/// The address in a redirection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Target {
    /// The host; `None` stands for the host that answered.
    pub host: Option<String>,
    /// The port.
    pub port: u16,
}

impl Target {
    /// The endpoint meant, seen from the node that answered.
    pub fn resolve(&self, answered_by: &Endpoint) -> Endpoint {
        match &self.host {
            Some(host) => Endpoint::new(host, self.port),
            None => answered_by.with_port(self.port),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|&port| port > 0)?;
        let host = (!host.is_empty() && host != "?").then(|| host.trim_matches(['[', ']']).to_owned());
        Some(Self { host, port })
    }
}

impl Refusal {
    /// Reads a refusal from an error reply; `None` when it is another error or malformed.
    pub fn parse(error: &ServerError) -> Option<Self> {
        let slot_and_target = |detail: &str| {
            let (slot, target) = detail.split_once(' ')?;
            Some((Slot::new(slot.parse().ok()?)?, Target::parse(target.trim())?))
        };
        match error.code() {
            "ASK" => slot_and_target(error.detail()).map(|(slot, target)| Self::Ask { slot, target }),
            "CLUSTERDOWN" => Some(Self::ClusterDown),
            "LOADING" => Some(Self::Loading),
            "MASTERDOWN" => Some(Self::MasterDown),
            "MOVED" => slot_and_target(error.detail()).map(|(slot, target)| Self::Moved { slot, target }),
            "NOREPLICAS" => Some(Self::NoReplicas),
            "READONLY" => Some(Self::ReadOnly),
            "REDIRECT" => Target::parse(error.detail().trim()).map(|target| Self::Redirect { target }),
            "TRYAGAIN" => Some(Self::TryAgain),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirections_are_read_with_odd_hosts() {
        let read = |text: &str| Refusal::parse(&ServerError::parse(text.as_bytes()));
        let slot = Slot::new(3999).unwrap();
        let target = |host: Option<&str>| Target { host: host.map(str::to_owned), port: 6381 };
        assert_eq!(
            read("MOVED 3999 127.0.0.1:6381"),
            Some(Refusal::Moved { slot, target: target(Some("127.0.0.1")) })
        );
        assert_eq!(read("MOVED 3999 :6381"), Some(Refusal::Moved { slot, target: target(None) }));
        assert_eq!(read("MOVED 3999 ?:6381"), Some(Refusal::Moved { slot, target: target(None) }));
        assert_eq!(read("ASK 3999 ::1:6381"), Some(Refusal::Ask { slot, target: target(Some("::1")) }));
        assert_eq!(read("REDIRECT h:6381"), Some(Refusal::Redirect { target: target(Some("h")) }));
        assert_eq!(read("MOVED 99999 h:1"), None);
        assert_eq!(read("MOVED x"), None);
        assert_eq!(read("READONLY You can't write"), Some(Refusal::ReadOnly));
        assert_eq!(read("ERR x"), None);
        let here = Endpoint::new("10.0.0.1", 7000);
        assert_eq!(target(None).resolve(&here), Endpoint::new("10.0.0.1", 6381));
    }
}
