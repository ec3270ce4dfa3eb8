//! `FromReply` for the types of std: what a caller may ask a reply to be.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::{BuildHasher, Hash},
};

use bytes::Bytes;

use super::{
    Reader,
    reader::{Event, mismatch},
};
use crate::{error::DecodeError, frame::Frame};

/// A type that a reply can become.
///
/// Implementations read exactly one value. The rules are lenient where RESP2 and RESP3 differ: a map may come as an
/// array of pairs, a number or a boolean as text.
///
/// ```
/// use evenkeel_protocol::{DecodeError, FromReply, Reader, Reply};
///
/// struct Point { x: i64, y: i64 }
///
/// impl FromReply for Point {
///     fn from_reply(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
///         let (x, y) = <(i64, i64)>::from_reply(reader)?;
///         Ok(Self { x, y })
///     }
/// }
///
/// let point: Point = Reply::new((&b"*2\r\n:3\r\n$1\r\n4\r\n"[..]).into()).decode().unwrap();
/// assert_eq!((point.x, point.y), (3, 4));
/// ```
pub trait FromReply: Sized {
    /// Reads one value.
    ///
    /// # Errors
    /// Another kind, a value that does not fit, or the server's error.
    fn from_reply(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// Reads many; here so that bytes can be read as one string.
    ///
    /// # Errors
    /// As [`from_reply`](Self::from_reply).
    #[doc(hidden)]
    fn many_from_reply(reader: &mut Reader<'_>) -> Result<Vec<Self>, DecodeError> {
        let mut items = reader.list("list")?;
        let mut list = Vec::with_capacity(reader.room_for(&items));
        while reader.more(&mut items)? {
            list.push(Self::from_reply(reader)?);
        }
        Ok(list)
    }
}

/// Anything but an error.
impl FromReply for () {
    fn from_reply(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.peek()? {
            Event::Error(error) => Err(DecodeError::Server(error)),
            _ => reader.skip(),
        }
    }
}

/// `+OK`, `#t`, a number other than 0, and their opposites; null is false (`SET` with `NX`).
impl FromReply for bool {
    fn from_reply(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        const EXPECTED: &str = "boolean";
        match reader.next()? {
            Event::Boolean(value) => Ok(value),
            Event::Integer(number) => Ok(number != 0),
            Event::Null => Ok(false),
            Event::Text(found, text) => match text.as_ref() {
                b"OK" | b"1" | b"true" => Ok(true),
                b"0" | b"false" => Ok(false),
                _ => Err(DecodeError::Value { expected: EXPECTED, found }),
            },
            other => Err(mismatch(EXPECTED, other)),
        }
    }
}

macro_rules! integers {
    ($($type:ty),*) => {$(
        impl FromReply for $type {
            fn from_reply(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                let before = *reader;
                let number = reader.integer(stringify!($type))?;
                Self::try_from(number).map_err(|_out_of_range| DecodeError::Value {
                    expected: stringify!($type),
                    found: before.peek_kind(),
                })
            }
        }
    )*};
}

integers!(i8, i16, i32, i64, isize, u16, u32, usize);

impl FromReply for u64 {
    fn from_reply(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let event = reader.next()?;
        let found = event.kind();
        let wrong = DecodeError::Value { expected: "u64", found };
        match event {
            Event::Integer(number) => Self::try_from(number).map_err(|_negative| wrong),
            Event::Text(_, text) => std::str::from_utf8(&text).ok().and_then(|t| t.parse().ok()).ok_or(wrong),
            other => Err(mismatch("u64", other)),
        }
    }
}

/// A number from 0 to 255; `Vec<u8>` is one string.
impl FromReply for u8 {
    fn from_reply(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let before = *reader;
        let number = reader.integer("u8")?;
        Self::try_from(number)
            .map_err(|_out_of_range| DecodeError::Value { expected: "u8", found: before.peek_kind() })
    }

    fn many_from_reply(reader: &mut Reader<'_>) -> Result<Vec<Self>, DecodeError> {
        Ok(reader.text("string")?.into_owned())
    }
}

impl FromReply for f64 {
    fn from_reply(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.double("f64")
    }
}

impl FromReply for f32 {
    fn from_reply(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.double("f32").map(|number| number as Self)
    }
}

impl FromReply for String {
    fn from_reply(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let before = *reader;
        // Checked before it is copied: a wrong one costs no allocation, and a right one is read while it is near.
        match reader.text("string")? {
            Cow::Borrowed(text) => std::str::from_utf8(text).map(str::to_owned).ok(),
            Cow::Owned(text) => Self::from_utf8(text).ok(),
        }
        .ok_or_else(|| DecodeError::Value { expected: "UTF-8 string", found: before.peek_kind() })
    }
}

/// A large string shares the reply's memory, as do all strings of a large list; others are copied.
impl FromReply for Bytes {
    fn from_reply(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.bytes("string")
    }

    fn many_from_reply(reader: &mut Reader<'_>) -> Result<Vec<Self>, DecodeError> {
        let mut items = reader.list("list")?;
        let mut list = Vec::with_capacity(reader.room_for(&items));
        while reader.more(&mut items)? {
            list.push(reader.bytes_of_list("string")?);
        }
        Ok(list)
    }
}

impl FromReply for Frame {
    fn from_reply(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.frame()
    }
}

/// Null is `None`.
impl<T: FromReply> FromReply for Option<T> {
    fn from_reply(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if reader.take_null() { Ok(None) } else { T::from_reply(reader).map(Some) }
    }
}

/// An error of the server inside an aggregate (as in a reply to EXEC) is kept apart from the other elements.
impl<T: FromReply> FromReply for Result<T, crate::ServerError> {
    fn from_reply(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match reader.peek()? {
            Event::Error(error) => {
                reader.skip()?;
                Ok(Err(error))
            }
            _ => T::from_reply(reader).map(Ok),
        }
    }
}

/// Null is an empty list.
impl<T: FromReply> FromReply for Vec<T> {
    fn from_reply(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        if reader.take_null() { Ok(Self::new()) } else { T::many_from_reply(reader) }
    }
}

impl<T: FromReply, const N: usize> FromReply for [T; N] {
    fn from_reply(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let list = T::many_from_reply(reader)?;
        let found = list.len();
        list.try_into().map_err(|_list| DecodeError::Count { expected: N, found })
    }
}

impl<T: FromReply + Eq + Hash, S: BuildHasher + Default> FromReply for HashSet<T, S> {
    fn from_reply(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut items = reader.list("set")?;
        let mut set = Self::with_capacity_and_hasher(reader.room_for(&items), S::default());
        while reader.more(&mut items)? {
            set.insert(T::from_reply(reader)?);
        }
        Ok(set)
    }
}

impl<T: FromReply + Ord> FromReply for BTreeSet<T> {
    fn from_reply(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut items = reader.list("set")?;
        let mut set = Self::new();
        while reader.more(&mut items)? {
            set.insert(T::from_reply(reader)?);
        }
        Ok(set)
    }
}

impl<K: FromReply + Eq + Hash, V: FromReply, S: BuildHasher + Default> FromReply for HashMap<K, V, S> {
    fn from_reply(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut items = reader.pairs("map")?;
        let mut map = Self::with_capacity_and_hasher(reader.room_for(&items), S::default());
        while reader.more(&mut items)? {
            let key = K::from_reply(reader)?;
            map.insert(key, V::from_reply(reader)?);
        }
        Ok(map)
    }
}

impl<K: FromReply + Ord, V: FromReply> FromReply for BTreeMap<K, V> {
    fn from_reply(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut items = reader.pairs("map")?;
        let mut map = Self::new();
        while reader.more(&mut items)? {
            let key = K::from_reply(reader)?;
            map.insert(key, V::from_reply(reader)?);
        }
        Ok(map)
    }
}

macro_rules! tuples {
    ($(($count:literal: $($name:ident),+);)*) => {$(
        impl<$($name: FromReply),+> FromReply for ($($name,)+) {
            fn from_reply(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
                let mut items = reader.list("list")?;
                if let Some(found) = items.known() {
                    if found != $count {
                        return Err(DecodeError::Count { expected: $count, found: usize::try_from(found).unwrap_or(usize::MAX) });
                    }
                }
                let mut seen = 0;
                let tuple = ($({
                    if !reader.more(&mut items)? {
                        return Err(DecodeError::Count { expected: $count, found: seen });
                    }
                    seen += 1;
                    $name::from_reply(reader)?
                },)+);
                if reader.more(&mut items)? {
                    return Err(DecodeError::Count { expected: $count, found: seen + 1 });
                }
                Ok(tuple)
            }
        }
    )*};
}

tuples! {
    (1: A);
    (2: A, B);
    (3: A, B, C);
    (4: A, B, C, D);
    (5: A, B, C, D, E);
    (6: A, B, C, D, E, F);
    (7: A, B, C, D, E, F, G);
    (8: A, B, C, D, E, F, G, H);
    (9: A, B, C, D, E, F, G, H, I);
    (10: A, B, C, D, E, F, G, H, I, J);
    (11: A, B, C, D, E, F, G, H, I, J, K);
    (12: A, B, C, D, E, F, G, H, I, J, K, L);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reply;

    fn decode<T: FromReply>(wire: &str) -> Result<T, DecodeError> {
        Reply::new(Bytes::copy_from_slice(wire.as_bytes())).decode()
    }

    #[test]
    fn scalars_and_strings() {
        assert_eq!(decode::<i64>(":-5\r\n"), Ok(-5));
        assert_eq!(decode::<u64>("$20\r\n18446744073709551615\r\n"), Ok(u64::MAX));
        assert_eq!(decode::<f64>("$3\r\n1.5\r\n"), Ok(1.5));
        assert_eq!(decode::<f64>(",inf\r\n"), Ok(f64::INFINITY));
        assert_eq!(decode::<bool>("+OK\r\n"), Ok(true));
        assert_eq!(decode::<bool>("$-1\r\n"), Ok(false));
        assert_eq!(decode::<String>("=5\r\ntxt:a\r\n").unwrap(), "a");
        assert_eq!(decode::<String>("$?\r\n;1\r\na\r\n;2\r\nbc\r\n;0\r\n").unwrap(), "abc");
        assert_eq!(decode::<Vec<u8>>("$3\r\n\x01\x02\x03\r\n").unwrap(), [1, 2, 3]);
        assert_eq!(decode::<Option<String>>("_\r\n").unwrap(), None);
        assert_eq!(decode::<Option<Bytes>>("$1\r\na\r\n").unwrap().as_deref(), Some(&b"a"[..]));
        assert_eq!(
            decode::<u8>(":300\r\n"),
            Err(DecodeError::Value { expected: "u8", found: crate::Kind::Integer })
        );
        assert!(matches!(decode::<()>("-ERR x\r\n"), Err(DecodeError::Server(_))));
        assert!(matches!(decode::<i64>("-ERR x\r\n"), Err(DecodeError::Server(_))));
    }

    #[test]
    fn aggregates_in_both_protocols() {
        let map = HashMap::from([("a".to_owned(), 1i64), ("b".to_owned(), 2)]);
        assert_eq!(decode::<HashMap<String, i64>>("%2\r\n+a\r\n:1\r\n+b\r\n:2\r\n").unwrap(), map);
        assert_eq!(
            decode::<HashMap<String, i64>>("*4\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nb\r\n$1\r\n2\r\n").unwrap(),
            map
        );
        assert_eq!(decode::<HashMap<String, i64>>("%?\r\n+a\r\n:1\r\n+b\r\n:2\r\n.\r\n").unwrap(), map);
        assert_eq!(decode::<Vec<Option<i64>>>("*2\r\n_\r\n:2\r\n").unwrap(), [None, Some(2)]);
        assert_eq!(decode::<(i64, String)>("*2\r\n:1\r\n+x\r\n").unwrap(), (1, "x".into()));
        assert_eq!(decode::<(i64,)>("*2\r\n:1\r\n+x\r\n"), Err(DecodeError::Count { expected: 1, found: 2 }));
        assert_eq!(decode::<Vec<(String, f64)>>("*1\r\n*2\r\n+a\r\n,1.5\r\n").unwrap(), [("a".into(), 1.5)]);
        assert_eq!(decode::<i64>("|1\r\n+ttl\r\n*1\r\n:9\r\n:7\r\n"), Ok(7));
        let nested: Vec<Result<i64, crate::ServerError>> = decode("*2\r\n:1\r\n-ERR no\r\n").unwrap();
        assert!(nested[0].is_ok() && nested[1].is_err());
        let frame: Vec<Frame> = decode("*2\r\n*1\r\n:1\r\n+x\r\n").unwrap();
        assert_eq!(frame[0].elements().unwrap().len(), 1);
    }
}
