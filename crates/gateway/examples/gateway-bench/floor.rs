//! The least that a server can do for the same clients.
//!
//! It answers the handshake and each frame of a subscriber with fixed bytes, and gives each frame of the
//! publisher, as it is, to every subscriber. No heartbeats, no limits, no protocol.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const HANDSHAKE: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
/// The replies to connect and subscribe, as the gateway words them.
const REPLIES: &[u8] = b"\x81\x35{\"id\":1,\"connect\":{\"client\":\"c\"}}\n{\"id\":2,\"subscribe\":{}}";

pub(crate) fn run(coalesce: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, async move {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        println!("{}", listener.local_addr().expect("an address"));
        let sockets: Rc<RefCell<Vec<TcpStream>>> = Rc::default();
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { continue };
            let mut head = [0; 1024];
            if stream.set_nodelay(true).is_err() || stream.read(&mut head).await.is_err() {
                continue;
            }
            if stream.write_all(HANDSHAKE).await.is_err() {
                continue;
            }
            // A subscriber's first frame is connect and subscribe, the publisher's is connect alone.
            let Ok(read) = stream.read(&mut head).await else { continue };
            if head.get(..read).is_some_and(|frame| frame.len() > 60) {
                if stream.write_all(REPLIES).await.is_ok() {
                    sockets.borrow_mut().push(stream);
                }
                continue;
            }
            tokio::task::spawn_local(publish(stream, sockets.clone(), coalesce));
        }
    });
}

async fn publish(stream: TcpStream, sockets: Rc<RefCell<Vec<TcpStream>>>, coalesce: bool) {
    if stream.try_write(b"\x81\x24{\"id\":1,\"connect\":{\"client\":\"cccc\"}}").is_err() {
        return;
    }
    let mut buffer = vec![0; 64 * 1024];
    let mut out = Vec::new();
    loop {
        if stream.readable().await.is_err() {
            return;
        }
        let read = match stream.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_gone) => return,
        };
        out.clear();
        let mut rest = buffer.get(..read).unwrap_or_default();
        // The load writes whole frames of 126 to 65 535 bytes with an empty mask.
        while let [_, _, high, low, _, _, _, _, more @ ..] = rest {
            let len = usize::from(u16::from_be_bytes([*high, *low]));
            let Some(payload) = more.get(..len) else { break };
            let begin = out.len();
            out.extend_from_slice(&[0x81, 126, *high, *low]);
            out.extend_from_slice(payload);
            rest = more.get(len..).unwrap_or_default();
            if !coalesce {
                give(&sockets, out.get(begin..).unwrap_or_default());
            }
        }
        if coalesce {
            give(&sockets, &out);
        }
    }
}

fn give(sockets: &RefCell<Vec<TcpStream>>, frame: &[u8]) {
    for socket in &*sockets.borrow() {
        // A floor has no slow readers: what does not fit is lost, and the load would show it.
        drop(socket.try_write(frame));
    }
}
