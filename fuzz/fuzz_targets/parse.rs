//! What the scanner delimits is read, or refused, by tree, reader, `decode` and serde alike; what is written is read again.
#![no_main]

use std::{collections::HashMap, fmt};

use bytes::{Bytes, BytesMut};
use evenkeel_protocol::{Frame, Limits, Push, Reply, Scanner, encode_frame};
use libfuzzer_sys::fuzz_target;
use serde::{Deserialize, Deserializer, de};

fuzz_target!(|data: &[u8]| {
    let limits = Limits::default().max_bulk(1 << 20).max_reply(1 << 20);
    let Ok(Some(found)) = Scanner::new(limits).scan(data) else { return };
    let bytes = Bytes::copy_from_slice(&data[..found.len]);
    let reply = Reply::new(bytes.clone());
    let parsed = Frame::parse(&bytes, &limits);
    assert_eq!(parsed.is_ok(), reply.frame().is_ok());
    if let Ok(frame) = parsed {
        let mut reader = reply.reader();
        reader.skip().expect("the reader walks what the parser reads");
        assert!(reader.next().is_err(), "it walks to the end");
        assert_eq!(reply.reader().take_value().expect("a value").len(), bytes.len());
        let _push = Push::read(&frame);
        // Not compared as frames: a NaN is unlike itself.
        let written = encode(&frame);
        let again = Frame::parse(&written, &limits).expect("what is written is read");
        assert_eq!(encode(&again), written);
    }
    let _kind = (reply.kind(), reply.error(), format!("{reply:?}"));
    let _text: Result<Option<String>, _> = reply.decode();
    let _list: Result<Vec<Option<i64>>, _> = reply.decode();
    let _lists: Result<Vec<Vec<Bytes>>, _> = reply.decode();
    let _map: Result<HashMap<String, Vec<u8>>, _> = reply.decode();
    let _pair: Result<(f64, Result<bool, evenkeel_protocol::ServerError>), _> = reply.decode();
    let _any: Result<Any, _> = reply.deserialize();
    // Bytes that no scanner has seen are an error at worst.
    let unseen = Reply::new(Bytes::copy_from_slice(data));
    let _kind = (unseen.kind(), unseen.error());
    let _frame = unseen.frame();
    let _list: Result<Vec<Vec<Bytes>>, _> = unseen.decode();
});

fn encode(frame: &Frame) -> Bytes {
    let mut wire = BytesMut::new();
    encode_frame(frame, &mut wire);
    wire.freeze()
}

/// Whatever serde can be told, without keeping it.
struct Any;

impl<'de> Deserialize<'de> for Any {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> de::Visitor<'de> for Any {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bytes<E>(self, _: &[u8]) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_none<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<Self, Self>()?.is_some() {}
        Ok(self)
    }
}
