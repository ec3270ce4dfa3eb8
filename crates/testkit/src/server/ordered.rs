//! `Ordered`: a hash map that remembers the order of insertion, so that replies and cursors do not depend on a hash.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

/// Keys and values; walks go in the order in which keys were first inserted.
#[derive(Debug)]
pub(super) struct Ordered<V> {
    values: HashMap<Bytes, (u64, V)>,
    order: BTreeMap<u64, Bytes>,
    next: u64,
}

impl<V> Default for Ordered<V> {
    fn default() -> Self {
        Self { values: HashMap::new(), order: BTreeMap::new(), next: 1 }
    }
}

impl<V> Ordered<V> {
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub(super) fn contains(&self, key: &[u8]) -> bool {
        self.values.contains_key(key)
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&V> {
        self.values.get(key).map(|(_, value)| value)
    }

    pub(super) fn get_mut(&mut self, key: &[u8]) -> Option<&mut V> {
        self.values.get_mut(key).map(|(_, value)| value)
    }

    /// Sets a value and gives the one before. An overwritten key keeps its place.
    pub(super) fn insert(&mut self, key: &[u8], value: V) -> Option<V> {
        if let Some((_, old)) = self.values.get_mut(key) {
            return Some(std::mem::replace(old, value));
        }
        let key = Bytes::copy_from_slice(key);
        self.order.insert(self.next, key.clone());
        self.values.insert(key, (self.next, value));
        self.next += 1;
        None
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Option<V> {
        let (place, value) = self.values.remove(key)?;
        self.order.remove(&place);
        Some(value)
    }

    pub(super) fn clear(&mut self) {
        self.values.clear();
        self.order.clear();
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Bytes> {
        self.order.values()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Bytes, &V)> {
        self.order.values().filter_map(|key| self.values.get(key).map(|(_, value)| (key, value)))
    }

    /// Up to `count` keys from a cursor on, and the next cursor; 0 begins and ends.
    ///
    /// A key that is there during a whole walk is met once in it, whatever is inserted or removed meanwhile.
    pub(super) fn scan(&self, cursor: u64, count: usize) -> (u64, Vec<Bytes>) {
        let mut walk = self.order.range(cursor..);
        let keys = walk.by_ref().take(count).map(|(_, key)| key.clone()).collect();
        (walk.next().map_or(0, |(&place, _)| place), keys)
    }

    /// The key at a place between 0 and `len` in walking order.
    pub(super) fn nth_key(&self, index: usize) -> Option<&Bytes> {
        self.order.values().nth(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walks_go_in_order_of_insertion_and_cursors_survive_changes() {
        let mut map = Ordered::default();
        for key in [b"c", b"a", b"b"] {
            assert_eq!(map.insert(key, 1), None);
        }
        assert_eq!(map.insert(b"c", 2), Some(1));
        let (cursor, first) = map.scan(0, 1);
        assert_eq!(first, ["c"]);
        map.remove(b"c");
        map.insert(b"d", 1);
        let (end, rest) = map.scan(cursor, 10);
        assert_eq!((end, rest), (0, vec![Bytes::from("a"), Bytes::from("b"), Bytes::from("d")]));
    }
}
