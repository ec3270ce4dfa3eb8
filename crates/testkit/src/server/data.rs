//! The data set: values with their kinds and expiry, in numbered databases. It knows no command and no connection.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
};

use bytes::Bytes;

use super::ordered::Ordered;

pub(super) type Text = Vec<u8>;
pub(super) type List = VecDeque<Bytes>;
pub(super) type Hash = Ordered<Vec<u8>>;
pub(super) type Set = Ordered<()>;

/// A sorted set: members by name, and by score and name.
#[derive(Debug, Default)]
pub(super) struct ZSet {
    pub(super) scores: HashMap<Bytes, f64>,
    pub(super) by_score: BTreeSet<(Score, Bytes)>,
}

impl ZSet {
    /// Sets a score and gives the one before.
    pub(super) fn insert(&mut self, member: &[u8], score: f64) -> Option<f64> {
        let member = Bytes::copy_from_slice(member);
        let old = self.scores.insert(member.clone(), score);
        if let Some(old) = old {
            self.by_score.remove(&(Score(old), member.clone()));
        }
        self.by_score.insert((Score(score), member));
        old
    }

    pub(super) fn remove(&mut self, member: &[u8]) -> bool {
        let Some((member, score)) = self.scores.remove_entry(member) else { return false };
        self.by_score.remove(&(Score(score), member))
    }
}

/// A score in its total order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Score(pub(super) f64);

impl PartialEq for Score {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Score {}

impl PartialOrd for Score {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Score {
    fn cmp(&self, other: &Self) -> Ordering {
        // -0 and 0 are one score.
        (self.0 + 0.0).total_cmp(&(other.0 + 0.0))
    }
}

/// The id of a stream entry: milliseconds and a count within them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StreamId(pub(super) u64, pub(super) u64);

impl StreamId {
    pub(super) const MAX: Self = Self(u64::MAX, u64::MAX);

    pub(super) fn next(self) -> Option<Self> {
        match self.1.checked_add(1) {
            Some(count) => Some(Self(self.0, count)),
            None => Some(Self(self.0.checked_add(1)?, 0)),
        }
    }

    pub(super) fn previous(self) -> Option<Self> {
        match self.1.checked_sub(1) {
            Some(count) => Some(Self(self.0, count)),
            None => Some(Self(self.0.checked_sub(1)?, u64::MAX)),
        }
    }
}

impl std::fmt::Display for StreamId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

/// Fields and values of a stream entry, in turn.
pub(super) type Fields = Vec<Bytes>;

/// A stream without consumer groups.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) entries: BTreeMap<StreamId, Fields>,
    pub(super) last_id: StreamId,
    pub(super) max_deleted: StreamId,
    pub(super) added: u64,
}

/// A value of one of Redis' kinds.
#[derive(Debug)]
pub(super) enum Value {
    Hash(Hash),
    List(List),
    Set(Set),
    Stream(Stream),
    Text(Text),
    ZSet(ZSet),
}

impl Value {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Hash(_) => "hash",
            Self::List(_) => "list",
            Self::Set(_) => "set",
            Self::Stream(_) => "stream",
            Self::Text(_) => "string",
            Self::ZSet(_) => "zset",
        }
    }
}

/// A kind of value, so that one accessor serves all.
pub(super) trait Kind: Default {
    fn of(value: &mut Value) -> Option<&mut Self>;
    fn wrap(self) -> Value;
    /// True when a key with this value would not exist in Redis.
    fn is_void(&self) -> bool;
}

macro_rules! kinds {
    ($($name:ident: $void:expr;)*) => {$(
        impl Kind for $name {
            fn of(value: &mut Value) -> Option<&mut Self> {
                match value {
                    Value::$name(inner) => Some(inner),
                    _ => None,
                }
            }

            fn wrap(self) -> Value {
                Value::$name(self)
            }

            fn is_void(&self) -> bool {
                let void: fn(&Self) -> bool = $void;
                void(self)
            }
        }
    )*};
}

kinds! {
    Hash: |hash| hash.is_empty();
    List: |list| list.is_empty();
    Set: |set| set.is_empty();
    Stream: |_| false;
    Text: |_| false;
    ZSet: |zset| zset.scores.is_empty();
}

/// A value and when it ends.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) value: Value,
    /// Unix milliseconds.
    expires_at: Option<u64>,
}

impl Entry {
    pub(super) fn expires_at(&self) -> Option<u64> {
        self.expires_at
    }
}

/// One numbered database.
#[derive(Debug, Default)]
pub(super) struct Database {
    entries: Ordered<Entry>,
    /// What expires, soonest first.
    expiring: BTreeSet<(u64, Bytes)>,
}

impl Database {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn expiring(&self) -> usize {
        self.expiring.len()
    }

    pub(super) fn keys(&self) -> &Ordered<Entry> {
        &self.entries
    }

    /// Whether the key is there although its time is over.
    pub(super) fn is_overdue(&self, key: &[u8], now: u64) -> bool {
        if self.expiring.is_empty() {
            return false;
        }
        self.entries.get(key).and_then(|entry| entry.expires_at).is_some_and(|at| at <= now)
    }

    /// The key whose time is over the longest.
    pub(super) fn overdue(&self, now: u64) -> Option<Bytes> {
        self.expiring.first().filter(|(at, _)| *at <= now).map(|(_, key)| key.clone())
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.entries.get(key)
    }

    pub(super) fn value_mut(&mut self, key: &[u8]) -> Option<&mut Value> {
        self.entries.get_mut(key).map(|entry| &mut entry.value)
    }

    /// Sets the value; the time to live of a value that was there stays.
    pub(super) fn put(&mut self, key: &[u8], value: Value) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.value = value;
        } else {
            self.entries.insert(key, Entry { value, expires_at: None });
        }
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        if let Some(at) = entry.expires_at {
            self.expiring.remove(&(at, Bytes::copy_from_slice(key)));
        }
        Some(entry)
    }

    /// Sets or takes away the end of a key. False when there is no such key.
    pub(super) fn set_expiry(&mut self, key: &[u8], at: Option<u64>) -> bool {
        let Some(entry) = self.entries.get_mut(key) else { return false };
        if entry.expires_at == at {
            return true;
        }
        let old = std::mem::replace(&mut entry.expires_at, at);
        let name = Bytes::copy_from_slice(key);
        if let Some(at) = at {
            self.expiring.insert((at, name.clone()));
        }
        if let Some(old) = old {
            self.expiring.remove(&(old, name));
        }
        true
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
        self.expiring.clear();
    }
}
