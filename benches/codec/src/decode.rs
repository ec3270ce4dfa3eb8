//! Decoders, each over bytes that are appended to its buffer chunk by chunk: that copy is inside every figure.

use std::{collections::HashMap, hint::black_box, rc::Rc};

use bytes::{Bytes, BytesMut};
use evenkeel_protocol::{FromReply, Limits, Reply, Scanner};

use crate::{Work, wires::Wire};

/// Finds the end of each reply and builds nothing.
pub fn delimit(wire: &Rc<Wire>) -> Vec<(&'static str, Work)> {
    let mut work: Vec<(&'static str, Work)> = vec![("evenkeel", evenkeel_delimit(Rc::clone(wire)))];
    if wire.chunk >= wire.bytes.len() {
        // It starts over when a reply is not whole, so it is a floor for whole replies only.
        work.push(("floor", skim(Rc::clone(wire))));
        work.push(("redis-protocol", redis_protocol_range(Rc::clone(wire))));
        work.push(("rustis", rustis_tape(Rc::clone(wire))));
    } else {
        work.push(("redis-protocol", redis_protocol_range(Rc::clone(wire))));
        work.push(("rustis", rustis_stream(Rc::clone(wire))));
    }
    #[cfg(hiredis)]
    if !wire.resp3 {
        work.push(("hiredis", hiredis(Rc::clone(wire), false)));
    }
    work
}

/// Makes values: `Vec<Bytes>` and `Vec<Vec<u8>>` of arrays, `HashMap<String, String>` of maps, or the decoder's own tree.
pub fn typed(row: &str, wire: &Rc<Wire>) -> Vec<(&'static str, Work)> {
    let mut work: Vec<(&'static str, Work)> = Vec::new();
    if row.contains("1000") && !row.contains("10000") {
        work.push(("evenkeel", evenkeel_typed::<HashMap<String, String>>(Rc::clone(wire))));
        work.push(("redis", redis_typed::<HashMap<String, String>>(Rc::clone(wire))));
        work.push(("rustis", rustis_typed::<HashMap<String, String>>(Rc::clone(wire))));
    } else {
        work.push(("evenkeel", evenkeel_typed::<Vec<Vec<u8>>>(Rc::clone(wire))));
        work.push(("evenkeel-bytes", evenkeel_typed::<Vec<Bytes>>(Rc::clone(wire))));
        work.push(("redis", redis_typed::<Vec<Vec<u8>>>(Rc::clone(wire))));
        work.push(("rustis", rustis_typed::<Vec<rustis::resp::BulkString>>(Rc::clone(wire))));
    }
    work.push(("floor", values_alone(row, Rc::clone(wire))));
    work.push(("evenkeel-frame", evenkeel_typed::<evenkeel_protocol::Frame>(Rc::clone(wire))));
    work.push(("redis-protocol", redis_protocol_owned(Rc::clone(wire))));
    work.push(("redis-protocol-bytes", redis_protocol_bytes(Rc::clone(wire))));
    #[cfg(hiredis)]
    if !wire.resp3 {
        work.push(("hiredis", hiredis(Rc::clone(wire), true)));
    }
    work
}

/// The copy into the buffer and the values of the row's type, made of texts whose places are known beforehand: what no
/// decoder that yields the type can do without.
fn values_alone(row: &str, wire: Rc<Wire>) -> Work {
    let mut places = Vec::new();
    let (mut scanner, mut at) =
        (Scanner::new(Limits::default()), 1 + wire.bytes.iter().position(|&byte| byte == b'\n').unwrap_or(0));
    while at < wire.bytes.len() {
        let found = scanner.scan(&wire.bytes[at..]).expect("the bytes are RESP").expect("they are whole");
        let head = 1 + wire.bytes[at..].iter().position(|&byte| byte == b'\n').unwrap_or(0);
        places.push(at + head..at + found.len - 2);
        at += found.len;
    }
    let is_map = row.contains("1000") && !row.contains("10000");
    let mut buf = Buffer::default();
    Box::new(move || {
        wire.bytes.chunks(wire.chunk).for_each(|chunk| buf.append(chunk));
        if is_map {
            let text = |place: &std::ops::Range<usize>| {
                std::str::from_utf8(&buf.rest()[place.clone()]).expect("text").to_owned()
            };
            let mut map = HashMap::with_capacity(places.len() / 2);
            map.extend(places.chunks_exact(2).map(|pair| (text(&pair[0]), text(&pair[1]))));
            std::hint::black_box(&map);
        } else {
            let list: Vec<Vec<u8>> = places.iter().map(|place| buf.rest()[place.clone()].to_vec()).collect();
            std::hint::black_box(&list);
        }
        buf.take(wire.bytes.len());
    })
}

/// A buffer that is appended to at its end and taken from at its front; empty, it begins anew.
#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    at: usize,
}

impl Buffer {
    fn append(&mut self, chunk: &[u8]) {
        self.bytes.extend_from_slice(chunk);
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.at..]
    }

    fn take(&mut self, length: usize) {
        self.at += length;
        if self.at == self.bytes.len() {
            self.bytes.clear();
            self.at = 0;
        }
    }
}

fn evenkeel_delimit(wire: Rc<Wire>) -> Work {
    let mut scanner = Scanner::new(Limits::default());
    let mut buf = Buffer::default();
    Box::new(move || {
        let mut replies = 0;
        for chunk in wire.bytes.chunks(wire.chunk) {
            buf.append(chunk);
            while let Some(found) = scanner.scan(buf.rest()).expect("the bytes are RESP") {
                buf.take(found.len);
                replies += 1;
            }
        }
        assert_eq!(replies, wire.replies);
    })
}

fn evenkeel_typed<T: FromReply + 'static>(wire: Rc<Wire>) -> Work {
    let mut scanner = Scanner::new(Limits::default());
    let mut buf = BytesMut::new();
    Box::new(move || {
        let mut replies = 0;
        for chunk in wire.bytes.chunks(wire.chunk) {
            buf.extend_from_slice(chunk);
            while let Some(found) = scanner.scan(&buf).expect("the bytes are RESP") {
                let reply = Reply::new(buf.split_to(found.len).freeze());
                black_box(reply.decode::<T>().expect("the bytes are of the type"));
                replies += 1;
            }
        }
        assert_eq!(replies, wire.replies);
    })
}

/// Walks headers with nothing kept and nothing checked but what must be: the least that finding an end can cost.
fn skim(wire: Rc<Wire>) -> Work {
    fn line(buf: &[u8], at: usize) -> Option<(i64, usize)> {
        let (mut value, mut negative, mut at) = (0i64, false, at);
        loop {
            match *buf.get(at)? {
                b'\r' => return Some((if negative { -value } else { value }, at + 2)),
                b'-' => negative = true,
                digit => value = value * 10 + i64::from(digit.wrapping_sub(b'0')),
            }
            at += 1;
        }
    }
    fn reply(buf: &[u8]) -> Option<usize> {
        let (mut at, mut left) = (0usize, 1i64);
        while left > 0 {
            left -= 1;
            match *buf.get(at)? {
                b'$' => {
                    let (length, next) = line(buf, at + 1)?;
                    at = if length < 0 { next } else { next + length as usize + 2 };
                }
                b'*' => {
                    let (count, next) = line(buf, at + 1)?;
                    left += count.max(0);
                    at = next;
                }
                b'%' => {
                    let (count, next) = line(buf, at + 1)?;
                    left += 2 * count;
                    at = next;
                }
                _ => {
                    while *buf.get(at)? != b'\n' {
                        at += 1;
                    }
                    at += 1;
                }
            }
        }
        (at <= buf.len()).then_some(at)
    }
    let mut buf = Buffer::default();
    Box::new(move || {
        let mut replies = 0;
        buf.append(&wire.bytes);
        while let Some(end) = reply(buf.rest()) {
            buf.take(end);
            replies += 1;
        }
        assert_eq!(replies, wire.replies);
    })
}

fn redis_protocol_range(wire: Rc<Wire>) -> Work {
    let mut buf = Buffer::default();
    Box::new(move || {
        let mut replies = 0;
        for chunk in wire.bytes.chunks(wire.chunk) {
            buf.append(chunk);
            loop {
                let end = if wire.resp3 {
                    let found =
                        redis_protocol::resp3::decode::complete::decode_range(buf.rest()).expect("RESP3");
                    found.map(|(_, end)| end)
                } else {
                    redis_protocol::resp2::decode::decode_range(buf.rest())
                        .expect("RESP2")
                        .map(|(_, end)| end)
                };
                let Some(end) = end else { break };
                buf.take(end);
                replies += 1;
            }
        }
        assert_eq!(replies, wire.replies);
    })
}

fn redis_protocol_owned(wire: Rc<Wire>) -> Work {
    let mut buf = Buffer::default();
    Box::new(move || {
        let mut replies = 0;
        for chunk in wire.bytes.chunks(wire.chunk) {
            buf.append(chunk);
            loop {
                let end = if wire.resp3 {
                    let found = redis_protocol::resp3::decode::complete::decode(buf.rest()).expect("RESP3");
                    found.map(|(frame, end)| (black_box(frame), end).1)
                } else {
                    let found = redis_protocol::resp2::decode::decode(buf.rest()).expect("RESP2");
                    found.map(|(frame, end)| (black_box(frame), end).1)
                };
                let Some(end) = end else { break };
                buf.take(end);
                replies += 1;
            }
        }
        assert_eq!(replies, wire.replies);
    })
}

fn redis_protocol_bytes(wire: Rc<Wire>) -> Work {
    let mut buf = BytesMut::new();
    Box::new(move || {
        let mut replies = 0;
        for chunk in wire.bytes.chunks(wire.chunk) {
            buf.extend_from_slice(chunk);
            loop {
                let found = if wire.resp3 {
                    let found = redis_protocol::resp3::decode::complete::decode_bytes_mut(&mut buf);
                    found.expect("RESP3").map(|found| drop(black_box(found)))
                } else {
                    let found = redis_protocol::resp2::decode::decode_bytes_mut(&mut buf);
                    found.expect("RESP2").map(|found| drop(black_box(found)))
                };
                if found.is_none() {
                    break;
                }
                replies += 1;
            }
        }
        assert_eq!(replies, wire.replies);
    })
}

/// The parser of the crate `redis` gives no length, so it is given the bytes of one reply at a time.
fn redis_typed<T: redis::FromRedisValue + 'static>(wire: Rc<Wire>) -> Work {
    let one = wire.bytes.len() / wire.replies;
    let mut buf = Vec::new();
    Box::new(move || {
        buf.clear();
        buf.extend_from_slice(&wire.bytes);
        for reply in buf.chunks(one) {
            let value = redis::parse_redis_value(reply).expect("the bytes are RESP");
            black_box(redis::from_redis_value::<T>(value).expect("the bytes are of the type"));
        }
    })
}

/// Whole replies, each fed to the decoder: it makes the index that later decoding walks along.
fn rustis_tape(wire: Rc<Wire>) -> Work {
    let one = wire.bytes.len() / wire.replies;
    let mut tape = rustis::resp::bench_support::BenchTape::new();
    let mut buf = Vec::new();
    Box::new(move || {
        buf.clear();
        buf.extend_from_slice(&wire.bytes);
        // It gives no length, so it is told where each reply ends.
        for reply in buf.chunks(one) {
            rustis::resp::bench_support::bench_parse_only(reply, &mut tape);
        }
    })
}

fn rustis_stream(wire: Rc<Wire>) -> Work {
    Box::new(move || {
        let found = rustis::resp::bench_support::bench_decode_stream_prereserve(&wire.bytes, wire.chunk);
        black_box(found.expect("the bytes are RESP"));
    })
}

fn rustis_typed<T: serde::de::DeserializeOwned + 'static>(wire: Rc<Wire>) -> Work {
    let one = wire.bytes.len() / wire.replies;
    Box::new(move || {
        for reply in wire.bytes.chunks(one) {
            // It copies the bytes into a buffer of the reply's own.
            let value = rustis::resp::bench_support::bench_decode_to::<T>(reply);
            black_box(value.expect("the bytes are of the type"));
        }
    })
}

#[cfg(hiredis)]
fn hiredis(wire: Rc<Wire>, objects: bool) -> Work {
    let mut reader = crate::hiredis::Reader::new(objects);
    Box::new(move || {
        let replies: usize = wire.bytes.chunks(wire.chunk).map(|chunk| reader.feed(chunk)).sum();
        assert_eq!(replies, wire.replies);
    })
}
