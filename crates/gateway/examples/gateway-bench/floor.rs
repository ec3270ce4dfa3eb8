//! The least that a server can do for the same clients.
//!
//! It answers the handshake and each frame of a subscriber with fixed bytes, and gives what it hears from Redis to
//! every subscriber, in the frame that the gateway would write. No heartbeats, no limits, no protocol. Once all that
//! one read brought goes out in one write for each socket, once every message on its own.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const HANDSHAKE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
/// The replies to connect and subscribe, as the gateway words them.
const REPLIES: &[u8] = b"\x81\x39{\"id\":1,\"connect\":{\"client\":\"c\"}}\n{\"id\":2,\"subscribe\":{}}";
const FRONT: &[u8] = b"{\"push\":{\"channel\":\"bench\",\"pub\":{\"data\":";
const BACK: &[u8] = b"}}}";

pub(crate) fn run(redis: &str, coalesce: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        println!("listening on {}", listener.local_addr().expect("an address"));
        let sockets: Rc<RefCell<Vec<TcpStream>>> = Rc::default();
        let mut redis = TcpStream::connect(redis).await.expect("redis");
        redis.write_all(b"SUBSCRIBE bench\r\n").await.expect("subscribed");
        tokio::task::spawn_local(hear(redis, sockets.clone(), coalesce));
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { continue };
            let mut head = [0; 1024];
            if stream.set_nodelay(true).is_err() || stream.read(&mut head).await.is_err() {
                continue;
            }
            if stream.write_all(HANDSHAKE).await.is_err() || stream.read(&mut head).await.is_err() {
                continue;
            }
            if stream.write_all(REPLIES).await.is_ok() {
                sockets.borrow_mut().push(stream);
            }
        }
    });
}

async fn hear(redis: TcpStream, sockets: Rc<RefCell<Vec<TcpStream>>>, coalesce: bool) {
    let mut buffer: Vec<u8> = Vec::with_capacity(1 << 16);
    let mut scratch = vec![0; 1 << 16];
    let mut out = Vec::new();
    loop {
        if redis.readable().await.is_err() {
            return;
        }
        match redis.try_read(&mut scratch) {
            Ok(0) => std::process::exit(1),
            Ok(read) => buffer.extend_from_slice(&scratch[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_gone) => std::process::exit(1),
        }
        out.clear();
        let mut at = 0;
        while let Some((message, payload)) = message(&buffer[at..]) {
            at += message;
            let Some(payload) = payload else { continue };
            let begin = out.len();
            let len = (FRONT.len() + payload.len() + BACK.len()) as u16;
            out.extend_from_slice(&[0x81, 126]);
            out.extend_from_slice(&len.to_be_bytes());
            out.extend_from_slice(FRONT);
            out.extend_from_slice(payload);
            out.extend_from_slice(BACK);
            if !coalesce {
                give(&sockets, &out[begin..]);
            }
        }
        buffer.drain(..at);
        if coalesce && !out.is_empty() {
            give(&sockets, &out);
        }
    }
}

/// The length of the first push and its payload; `None` while it is not whole.
fn message(bytes: &[u8]) -> Option<(usize, Option<&[u8]>)> {
    let mut at = line(bytes, 0)?.1;
    let mut parts = [&bytes[..0]; 3];
    for part in &mut parts {
        let (head, next) = line(bytes, at)?;
        if head.first() == Some(&b':') {
            // The count in the answer to SUBSCRIBE.
            return Some((next, None));
        }
        let len: usize = std::str::from_utf8(head.get(1..)?).ok()?.parse().ok()?;
        *part = bytes.get(next..next + len)?;
        at = next + len + 2;
        if at > bytes.len() {
            return None;
        }
    }
    Some((at, Some(parts[2])))
}

fn line(bytes: &[u8], from: usize) -> Option<(&[u8], usize)> {
    let rest = bytes.get(from..)?;
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    Some((&rest[..end], from + end + 2))
}

fn give(sockets: &RefCell<Vec<TcpStream>>, frame: &[u8]) {
    for socket in &*sockets.borrow() {
        // A floor has no slow readers: what does not fit is lost, and the load would show it.
        drop(socket.try_write(frame));
    }
}
