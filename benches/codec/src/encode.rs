//! Encoders: commands appended to a reused buffer.

use std::hint::black_box;

use bytes::{BufMut, BytesMut};
use evenkeel_protocol::{Command, encode_command};

use crate::Work;

/// Commands for each call of a work.
pub const COMMANDS: usize = 64;

/// Name, key and, for SET, a value.
pub fn encode(row: &str) -> Option<(usize, Vec<(&'static str, Work)>)> {
    let value: &'static [u8] = match row {
        "encode-get" => &[],
        "encode-set64" => &[b'x'; 64],
        "encode-set1k" => &[b'x'; 1024],
        _ => return None,
    };
    let args: &'static [&'static [u8]] = if value.is_empty() {
        &[b"GET", b"bench:key:0001"]
    } else {
        Box::leak(Box::new([&b"SET"[..], b"bench:key:0001", value]))
    };
    let mut expected = Vec::new();
    hand_written(args, &mut expected);
    let length = expected.len();
    let mut works: Vec<(&'static str, Work)> = vec![
        ("evenkeel", appended(move |out: &mut BytesMut| encode_command(black_box(args), out))),
        (
            "evenkeel-command",
            appended(move |out: &mut BytesMut| {
                let args = black_box(args);
                let command = match args {
                    [_, key] => Command::with_head(b"$3\r\nGET\r\n", None).key(*key),
                    [_, key, value] => Command::with_head(b"$3\r\nSET\r\n", None).key(*key).arg(*value),
                    _ => unreachable!("GET and SET only"),
                };
                command.encode(out);
            }),
        ),
        ("floor", appended_vec(move |out| hand_written(black_box(args), out))),
        (
            "memcpy",
            appended_vec({
                let expected = expected.clone();
                move |out| out.extend_from_slice(black_box(&expected))
            }),
        ),
        (
            "redis-protocol",
            appended(move |out: &mut BytesMut| {
                use redis_protocol::resp2::{encode::extend_encode_borrowed, types::BorrowedFrame};
                let mut frames = [const { BorrowedFrame::Null }; 3];
                for (frame, arg) in frames.iter_mut().zip(black_box(args)) {
                    *frame = BorrowedFrame::BulkString(arg);
                }
                let frame = BorrowedFrame::Array(&frames[..args.len()]);
                extend_encode_borrowed(out, &frame, false).expect("the buffer grows");
            }),
        ),
        (
            "redis",
            appended_vec(move |out| {
                let mut command = redis::cmd("GET");
                if let [_, key, value] = black_box(args) {
                    command = redis::cmd("SET");
                    command.arg(*key).arg(*value);
                } else {
                    command.arg(args[1]);
                }
                command.write_packed_command(out);
            }),
        ),
        (
            "rustis",
            appended(move |out: &mut BytesMut| {
                let args = black_box(args);
                let mut command = rustis::resp::cmd(if args.len() == 2 { "GET" } else { "SET" });
                for arg in &args[1..] {
                    command = command.arg(serde_bytes::Bytes::new(arg));
                }
                let command: rustis::resp::Command = command.into();
                out.put_slice(command.bytes());
            }),
        ),
    ];
    #[cfg(hiredis)]
    works.push((
        "hiredis",
        appended_vec(move |out| {
            crate::hiredis::format(black_box(args), |bytes| out.extend_from_slice(bytes))
        }),
    ));
    for (codec, _) in &works {
        debug_assert!(!codec.is_empty());
    }
    Some((length, works))
}

/// What a person would write for one command in a hot loop.
fn hand_written(args: &[&[u8]], out: &mut Vec<u8>) {
    let mut number = itoa::Buffer::new();
    out.push(b'*');
    out.extend_from_slice(number.format(args.len()).as_bytes());
    out.extend_from_slice(b"\r\n");
    for arg in args {
        out.push(b'$');
        out.extend_from_slice(number.format(arg.len()).as_bytes());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

fn appended(mut one: impl FnMut(&mut BytesMut) + 'static) -> Work {
    let mut out = BytesMut::new();
    Box::new(move || {
        out.clear();
        for _ in 0..COMMANDS {
            one(&mut out);
        }
        black_box(&out);
    })
}

fn appended_vec(mut one: impl FnMut(&mut Vec<u8>) + 'static) -> Work {
    let mut out = Vec::new();
    Box::new(move || {
        out.clear();
        for _ in 0..COMMANDS {
            one(&mut out);
        }
        black_box(&out);
    })
}
