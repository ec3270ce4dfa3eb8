//! `Pairs`: replies that alternate between two things, however the server writes them.

use std::ops::{Deref, DerefMut};

use evenkeel_protocol::{DecodeError, FromReply, Kind, Reader};

/// Pairs in the order in which the server gave them: fields and values, members and scores.
///
/// RESP2 sends them flat and RESP3 as a map or as lists of two; this reads all of these. Null is empty.
///
/// ```
/// use evenkeel_client::{Pairs, Reply};
///
/// for wire in ["*2\r\n$1\r\na\r\n$1\r\n1\r\n", "*1\r\n*2\r\n$1\r\na\r\n,1\r\n", "%1\r\n$1\r\na\r\n:1\r\n"] {
///     let pairs: Pairs<String, f64> = Reply::new(wire.into()).decode().unwrap();
///     assert_eq!(*pairs, [("a".to_owned(), 1.0)]);
/// }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pairs<A, B>(pub Vec<(A, B)>);

impl<A, B> Deref for Pairs<A, B> {
    type Target = Vec<(A, B)>;

    fn deref(&self) -> &Vec<(A, B)> {
        &self.0
    }
}

impl<A, B> DerefMut for Pairs<A, B> {
    fn deref_mut(&mut self) -> &mut Vec<(A, B)> {
        &mut self.0
    }
}

impl<A, B> IntoIterator for Pairs<A, B> {
    type Item = (A, B);
    type IntoIter = std::vec::IntoIter<(A, B)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, A, B> IntoIterator for &'a Pairs<A, B> {
    type Item = &'a (A, B);
    type IntoIter = std::slice::Iter<'a, (A, B)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<A: FromReply, B: FromReply> FromReply for Pairs<A, B> {
    fn from_reply(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if reader.take_null() {
            return Ok(Self(Vec::new()));
        }
        // A look ahead on a copy of the reader: lists of two stand where the first thing would.
        let mut ahead = *reader;
        let nested = match ahead.list("pairs") {
            Ok(mut items) => ahead.more(&mut items)? && ahead.peek_kind() == Kind::Array,
            Err(_map) => false,
        };
        if nested {
            return <(A, B)>::many_from_reply(reader).map(Self);
        }
        let mut items = reader.pairs("pairs")?;
        let mut pairs = Vec::with_capacity(reader.room_for(&items) / 2);
        while reader.more(&mut items)? {
            let first = A::from_reply(reader)?;
            pairs.push((first, B::from_reply(reader)?));
        }
        Ok(Self(pairs))
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_protocol::Reply;

    use super::*;

    #[test]
    fn flat_nested_mapped_and_missing() {
        let check = |wire: &'static str, expected: &[(&str, i64)]| {
            let pairs: Pairs<String, i64> = Reply::new(wire.into()).decode().unwrap();
            let found: Vec<(&str, i64)> = pairs.iter().map(|(a, b)| (a.as_str(), *b)).collect();
            assert_eq!(found, expected, "{wire:?}");
        };
        let both = [("a", 1), ("b", 2)];
        check("*4\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n:2\r\n", &both);
        check("*2\r\n*2\r\n$1\r\na\r\n:1\r\n*2\r\n$1\r\nb\r\n:2\r\n", &both);
        check("%2\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n:2\r\n", &both);
        check("*0\r\n", &[]);
        check("_\r\n", &[]);
        check("*-1\r\n", &[]);
    }

    #[test]
    fn what_is_no_list_is_an_error() {
        let read = |wire: &'static str| Reply::new(wire.into()).decode::<Pairs<String, i64>>();
        assert!(read(":1\r\n").is_err());
        assert!(read("-ERR no\r\n").is_err());
        assert!(read("*3\r\n$1\r\na\r\n:1\r\n$1\r\nb\r\n").is_err());
    }
}
