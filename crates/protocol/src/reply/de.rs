//! A serde `Deserializer` over replies: structs, enums and whatever else derives `Deserialize`, straight from the bytes.
//!
//! The rules are those of [`FromReply`]: a map may come as an array of pairs, a number or a boolean as text, null is
//! `None`. A struct is read from a map, a tuple from an array, an enum's unit variant from a string. Strings and bytes
//! may be borrowed from the reply.

use std::borrow::Cow;

use serde::{
    Deserialize,
    de::{
        self, DeserializeOwned, DeserializeSeed, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
        value::StrDeserializer,
    },
};

use super::{FromReply, Items, Reader, Reply, reader::Event};
use crate::error::DecodeError;

impl Reply {
    /// Turns the reply into any type that serde can read; strings may borrow from the reply.
    ///
    /// ```
    /// #[derive(serde::Deserialize, Debug, PartialEq)]
    /// struct User<'a> { name: &'a str, age: u8, mail: Option<String> }
    ///
    /// let resp2 = b"*4\r\n$4\r\nname\r\n$3\r\nada\r\n$3\r\nage\r\n$2\r\n36\r\n";
    /// let reply = evenkeel_protocol::Reply::new((&resp2[..]).into());
    /// let user: User<'_> = reply.deserialize().unwrap();
    /// assert_eq!(user, User { name: "ada", age: 36, mail: None });
    /// ```
    ///
    /// # Errors
    /// A reply of another kind, a value that does not fit, a missing field, or an error of the server.
    pub fn deserialize<'de, T: Deserialize<'de>>(&'de self) -> Result<T, DecodeError> {
        let mut reader = self.reader();
        T::deserialize(&mut reader)
    }
}

/// Makes any type that serde can read a type that a reply can become.
///
/// ```
/// # use evenkeel_protocol::{Reply, Serde};
/// #[derive(serde::Deserialize)]
/// struct Point { x: i64, y: i64 }
///
/// let reply = Reply::new((&b"%2\r\n+x\r\n:3\r\n+y\r\n:4\r\n"[..]).into());
/// let Serde(point) = reply.decode::<Serde<Point>>().unwrap();
/// assert_eq!((point.x, point.y), (3, 4));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(clippy::exhaustive_structs, reason = "it is there to be taken apart")]
pub struct Serde<T>(pub T);

impl<T: DeserializeOwned> FromReply for Serde<T> {
    fn from_reply(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        T::deserialize(reader).map(Self)
    }
}

/// Messages of types are dropped, since they may quote what the server holds.
impl de::Error for DecodeError {
    fn custom<T: std::fmt::Display>(_message: T) -> Self {
        Self::Refused
    }

    fn missing_field(field: &'static str) -> Self {
        Self::MissingField { field }
    }
}

macro_rules! numbers {
    ($($method:ident, $type:ty, $visit:ident;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            visitor.$visit(<$type>::from_reply(self)?)
        }
    )*};
}

impl<'de> de::Deserializer<'de> for &mut Reader<'de> {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let mut ahead = *self;
        match ahead.next()? {
            Event::List(..) => self.deserialize_seq(visitor),
            Event::Map(_) => self.deserialize_map(visitor),
            event => {
                *self = ahead;
                match event {
                    Event::Text(_, text) => visit_text_or_bytes(text, visitor),
                    Event::Error(error) => Err(DecodeError::Server(error)),
                    Event::Integer(number) => visitor.visit_i64(number),
                    Event::Double(number) => visitor.visit_f64(number),
                    Event::Boolean(value) => visitor.visit_bool(value),
                    Event::Null => visitor.visit_none(),
                    other => Err(DecodeError::Kind { expected: "value", found: other.kind() }),
                }
            }
        }
    }

    numbers! {
        deserialize_bool, bool, visit_bool;
        deserialize_i8, i8, visit_i8;
        deserialize_i16, i16, visit_i16;
        deserialize_i32, i32, visit_i32;
        deserialize_i64, i64, visit_i64;
        deserialize_u8, u8, visit_u8;
        deserialize_u16, u16, visit_u16;
        deserialize_u32, u32, visit_u32;
        deserialize_u64, u64, visit_u64;
        deserialize_f32, f32, visit_f32;
        deserialize_f64, f64, visit_f64;
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let before = *self;
        let invalid = || DecodeError::Value { expected: "UTF-8 string", found: before.peek_kind() };
        match self.text("string")? {
            Cow::Borrowed(text) => {
                visitor.visit_borrowed_str(std::str::from_utf8(text).map_err(|_invalid| invalid())?)
            }
            Cow::Owned(text) => visitor.visit_string(String::from_utf8(text).map_err(|_invalid| invalid())?),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.text("string")? {
            Cow::Borrowed(text) => visitor.visit_borrowed_bytes(text),
            Cow::Owned(text) => visitor.visit_byte_buf(text),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.take_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        <()>::from_reply(self)?;
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let before = *self;
        // Null is an empty list.
        let mut items = if self.take_null() { Items::none() } else { self.list("list")? };
        let value = visitor.visit_seq(Elements { reader: self, items: &mut items })?;
        self.at_end(&mut items, "list", before)?;
        Ok(value)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let before = *self;
        let mut items = if self.take_null() { Items::none() } else { self.pairs("map")? };
        let value = visitor.visit_map(Elements { reader: self, items: &mut items })?;
        self.at_end(&mut items, "map", before)?;
        Ok(value)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let mut ahead = *self;
        if matches!(ahead.next()?, Event::List(..) | Event::Map(_)) {
            // A variant with content: its name and the content, as a pair.
            let before = *self;
            let mut items = self.pairs("variant and its content")?;
            if !self.more(&mut items)? {
                return Err(DecodeError::Value { expected: "variant", found: before.peek_kind() });
            }
            let value = visitor.visit_enum(Variant { reader: self })?;
            self.at_end(&mut items, "variant", before)?;
            return Ok(value);
        }
        let before = *self;
        let name = self.text("variant")?;
        let name = std::str::from_utf8(&name)
            .map_err(|_invalid| DecodeError::Value { expected: "variant", found: before.peek_kind() })?;
        visitor.visit_enum(StrDeserializer::new(name))
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_str(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.skip()?;
        visitor.visit_unit()
    }
}

impl Reader<'_> {
    /// The type has taken all elements: a reader that goes on must not begin in the middle of an aggregate.
    fn at_end(&mut self, items: &mut Items, expected: &'static str, before: Self) -> Result<(), DecodeError> {
        if self.more(items)? {
            return Err(DecodeError::Value { expected, found: before.peek_kind() });
        }
        Ok(())
    }
}

fn visit_text_or_bytes<'de, V: Visitor<'de>>(
    text: Cow<'de, [u8]>,
    visitor: V,
) -> Result<V::Value, DecodeError> {
    match text {
        Cow::Borrowed(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => visitor.visit_borrowed_str(text),
            Err(_binary) => visitor.visit_borrowed_bytes(bytes),
        },
        Cow::Owned(bytes) => match String::from_utf8(bytes) {
            Ok(text) => visitor.visit_string(text),
            Err(binary) => visitor.visit_byte_buf(binary.into_bytes()),
        },
    }
}

/// The elements of an array, or the pairs of a map.
struct Elements<'r, 'de> {
    reader: &'r mut Reader<'de>,
    items: &'r mut Items,
}

impl<'de> SeqAccess<'de> for Elements<'_, 'de> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, DecodeError> {
        if self.reader.more(self.items)? { seed.deserialize(&mut *self.reader).map(Some) } else { Ok(None) }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.reader.room_for(self.items))
    }
}

impl<'de> MapAccess<'de> for Elements<'_, 'de> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        self.next_element_seed(seed)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, DecodeError> {
        seed.deserialize(&mut *self.reader)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.reader.room_for(self.items))
    }
}

/// A variant with content; the reader stands before its name.
struct Variant<'r, 'de> {
    reader: &'r mut Reader<'de>,
}

impl<'de> EnumAccess<'de> for Variant<'_, 'de> {
    type Error = DecodeError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), DecodeError> {
        let name = seed.deserialize(&mut *self.reader)?;
        Ok((name, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_, 'de> {
    type Error = DecodeError;

    fn unit_variant(self) -> Result<(), DecodeError> {
        <()>::from_reply(self.reader)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, DecodeError> {
        seed.deserialize(self.reader)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, DecodeError> {
        de::Deserializer::deserialize_seq(self.reader, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        de::Deserializer::deserialize_map(self.reader, visitor)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::Kind;

    fn read<T: DeserializeOwned>(wire: &str) -> Result<T, DecodeError> {
        Reply::new(wire.to_owned().into()).deserialize()
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct User {
        name: String,
        age: u8,
        #[serde(default)]
        tags: Vec<String>,
        mail: Option<String>,
    }

    fn ada() -> User {
        User { name: "ada".into(), age: 36, tags: vec!["a".into(), "b".into()], mail: None }
    }

    #[test]
    fn a_struct_is_read_from_either_protocol_and_extra_fields_are_passed_over() {
        let resp3 = "%5\r\n+name\r\n$3\r\nada\r\n+age\r\n:36\r\n+more\r\n*1\r\n%1\r\n:1\r\n:2\r\n+tags\r\n~2\r\n+a\r\n+b\r\n+mail\r\n_\r\n";
        let resp2 = "*8\r\n$4\r\nname\r\n$3\r\nada\r\n$3\r\nage\r\n$2\r\n36\r\n$4\r\ntags\r\n*2\r\n+a\r\n+b\r\n$4\r\nmail\r\n$-1\r\n";
        let streamed = "%?\r\n+name\r\n$?\r\n;2\r\nad\r\n;1\r\na\r\n;0\r\n+age\r\n:36\r\n+tags\r\n*?\r\n+a\r\n+b\r\n.\r\n.\r\n";
        let attributed = format!("|1\r\n+ttl\r\n:5\r\n{resp3}");
        for wire in [resp3, resp2, streamed, &attributed] {
            assert_eq!(read::<User>(wire).unwrap(), ada(), "{wire}");
        }
    }

    #[test]
    fn scalars_lists_tuples_and_maps() {
        assert_eq!(read::<(i64, String)>("*2\r\n:1\r\n+x\r\n").unwrap(), (1, "x".into()));
        assert_eq!(read::<Vec<Option<f64>>>("*2\r\n,1.5\r\n_\r\n").unwrap(), [Some(1.5), None]);
        assert_eq!(read::<Vec<i64>>("*-1\r\n").unwrap(), [0; 0]);
        assert_eq!(read::<BTreeMap<String, u64>>("%1\r\n+a\r\n$1\r\n9\r\n").unwrap()["a"], 9);
        assert!(read::<bool>("+OK\r\n").unwrap());
        assert_eq!(read::<char>("+x\r\n").unwrap(), 'x');
        read::<()>("+OK\r\n").unwrap();
    }

    #[test]
    fn enums_by_name_or_as_a_pair() {
        #[derive(Debug, PartialEq, Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum Role {
            Master,
            Slave { host: String, port: u16 },
            Sentinel(Vec<String>),
        }
        assert_eq!(read::<Role>("+master\r\n").unwrap(), Role::Master);
        let slave = "*2\r\n+slave\r\n%2\r\n+host\r\n+h\r\n+port\r\n:6379\r\n";
        assert_eq!(read::<Role>(slave).unwrap(), Role::Slave { host: "h".into(), port: 6379 });
        let sentinel = "%1\r\n+sentinel\r\n*1\r\n+a\r\n";
        assert_eq!(read::<Role>(sentinel).unwrap(), Role::Sentinel(vec!["a".into()]));
        assert_eq!(read::<Role>("+nobody\r\n"), Err(DecodeError::Refused));
    }

    #[test]
    fn what_does_not_fit_is_an_error_without_contents() {
        assert_eq!(read::<User>("%1\r\n+name\r\n+x\r\n"), Err(DecodeError::MissingField { field: "age" }));
        assert!(matches!(read::<User>("-ERR no\r\n"), Err(DecodeError::Server(_))));
        assert!(matches!(read::<(i64,)>("*2\r\n:1\r\n:2\r\n"), Err(DecodeError::Value { .. })));
        assert!(matches!(
            read::<Vec<i64>>("*1\r\n+secret\r\n"),
            Err(DecodeError::Value { expected: "i64", found: Kind::Simple })
        ));
        let error = read::<std::net::IpAddr>("+secret\r\n").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"));
    }

    #[test]
    fn an_unread_tail_of_a_struct_does_not_shift_what_follows() {
        let both: (User, i64) =
            read("*2\r\n%3\r\n+name\r\n+ada\r\n+age\r\n:36\r\n+tags\r\n*2\r\n+a\r\n+b\r\n:7\r\n").unwrap();
        assert_eq!(both, (ada(), 7));
    }
}
