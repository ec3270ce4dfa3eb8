//! Who is on a channel: members, and the registry of those that this gateway answers for.
//!
//! The broker keeps members with an expiry, and the gateway that has their sessions says again and again that they are
//! there; so nobody stays for longer than [`LIFE`] after a gateway was killed.

use crate::publication::Channel;
use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How long a member stays without word from its gateway.
pub const LIFE: Duration = Duration::from_secs(30);
/// Seconds between two such words.
pub(crate) const REFRESH: u64 = 10;

/// One session on a channel.
#[derive(Clone, Deserialize, Serialize)]
pub struct Member {
    /// The session.
    pub client: Box<str>,
    /// Its user; empty for nobody in particular.
    #[serde(default)]
    pub user: Box<str>,
    /// What the application says of it: JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info: Option<Box<RawValue>>,
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("client", &self.client).finish_non_exhaustive()
    }
}

impl Member {
    pub(crate) fn new(client: &str, user: &str, info: Option<Box<RawValue>>) -> Self {
        Self { client: client.into(), user: user.into(), info }
    }

    /// The member as JSON on one line.
    pub fn to_json(&self) -> Bytes {
        // Strings and JSON that was read already always serialize.
        let text = serde_json::to_vec(self).unwrap_or_default();
        crate::publication::json_line(Bytes::from(text))
    }

    /// Reads what [`to_json`](Self::to_json) wrote.
    pub fn from_json(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }
}

/// Members by their clients, channel by channel.
pub(crate) type Members = HashMap<Channel, BTreeMap<Box<str>, Arc<Member>>>;

/// The members whose sessions are here.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    members: Mutex<Members>,
}

impl Registry {
    pub(crate) fn add(&self, channel: &Channel, member: Arc<Member>) {
        self.members.lock().entry(channel.clone()).or_default().insert(member.client.clone(), member);
    }

    pub(crate) fn remove(&self, channel: &Channel, client: &str) -> Option<Arc<Member>> {
        let mut all = self.members.lock();
        let members = all.get_mut(channel)?;
        let member = members.remove(client);
        if members.is_empty() {
            all.remove(channel);
        }
        member
    }

    /// Everybody, channel by channel.
    pub(crate) fn all(&self) -> Vec<(Channel, Vec<Arc<Member>>)> {
        let all = self.members.lock();
        let mut all: Vec<_> = all
            .iter()
            .map(|(channel, members)| (channel.clone(), members.values().cloned().collect()))
            .collect();
        all.sort_by(|(one, _): &(Channel, _), (other, _)| one.cmp(other));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::{Member, Registry};
    use std::sync::Arc;

    #[test]
    fn members_are_written_and_read() {
        let info = serde_json::value::RawValue::from_string("{\"name\":\n\"A\"}".to_owned()).unwrap();
        let member = Member::new("c1", "u1", Some(info));
        let json = member.to_json();
        assert_eq!(json, r#"{"client":"c1","user":"u1","info":{"name":"A"}}"#);
        let read = Member::from_json(&json).unwrap();
        assert_eq!((&*read.client, &*read.user, read.info.unwrap().get()), ("c1", "u1", r#"{"name":"A"}"#));
        assert!(Member::from_json(b"{}").is_none());
        assert!(!format!("{member:?}").contains("name"));
    }

    #[test]
    fn a_registry_forgets_who_left() {
        let registry = Registry::default();
        registry.add(&"a".into(), Arc::new(Member::new("c1", "", None)));
        assert!(registry.remove(&"a".into(), "c2").is_none());
        assert!(registry.remove(&"b".into(), "c1").is_none());
        assert_eq!(registry.all().len(), 1);
        assert!(registry.remove(&"a".into(), "c1").is_some());
        assert!(registry.all().is_empty());
    }
}
