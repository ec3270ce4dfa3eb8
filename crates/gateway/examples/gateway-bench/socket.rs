//! The load's WebSocket clients: enough of the protocol to subscribe and to count what comes.

use crate::board::Board;
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// What opens a subscription of the channel `bench`.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Hello {
    /// Connect and subscribe in one frame of Centrifugo's protocol.
    Centrifugo,
    /// The path alone says what is wanted.
    Path(&'static str),
}

/// Opens a subscription; with `narrow` the socket takes as little as a socket can.
pub(crate) async fn open(server: SocketAddr, hello: Hello, narrow: bool) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    if narrow {
        socket.set_recv_buffer_size(1).expect("a narrow socket");
    }
    let mut stream = socket.connect(server).await.expect("a connection");
    stream.set_nodelay(true).expect("a socket");
    let path = match hello {
        Hello::Centrifugo => "/connection/websocket",
        Hello::Path(path) => path,
    };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut buffer = [0; 1024];
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let read = stream.read(&mut buffer).await.expect("a head");
        assert!(read > 0, "refused");
        head.extend_from_slice(&buffer[..read]);
        assert!(head.len() < 4096, "no handshake: {}", String::from_utf8_lossy(&head));
    }
    if hello == Hello::Centrifugo {
        let first = "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"bench\"}}";
        stream.write_all(&frame(first)).await.expect("sent");
        let read = stream.read(&mut buffer).await.expect("a reply");
        assert!(read > 0, "closed");
    }
    stream
}

/// A masked text frame with an empty mask.
pub(crate) fn frame(text: &str) -> Vec<u8> {
    let mut out = vec![0x81];
    if text.len() < 126 {
        out.push(0x80 | text.len() as u8);
    } else {
        out.push(0xFE);
        out.extend((text.len() as u16).to_be_bytes());
    }
    out.extend([0; 4]);
    out.extend(text.as_bytes());
    out
}

/// Counts publications, whatever the pieces they come in.
pub(crate) async fn listen(stream: TcpStream, board: Rc<Board>, origin: Instant) {
    thread_local! {
        static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; 256 * 1024]);
    }
    let mut cut: Vec<u8> = Vec::new();
    let mut skip = 0;
    while stream.readable().await.is_ok() {
        let alive = BUFFER.with_borrow_mut(|buffer| {
            let read = match stream.try_read(buffer) {
                Ok(read) => read,
                Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
            };
            if read == 0 {
                return false;
            }
            let mut bytes = &buffer[..read];
            loop {
                let jump = bytes.len().min(skip);
                bytes = &bytes[jump..];
                skip -= jump;
                if bytes.is_empty() {
                    break;
                }
                // A header that was cut is put together from its pieces.
                let mut head = cut.clone();
                head.extend_from_slice(&bytes[..bytes.len().min(4)]);
                let (size, len) = match head.as_slice() {
                    [_, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([*high, *low]))),
                    [_, 126, ..] | [_] => {
                        cut.extend_from_slice(bytes);
                        break;
                    }
                    [_, short, ..] => (2, usize::from(*short)),
                    [] => break,
                };
                bytes = &bytes[size - cut.len()..];
                cut.clear();
                skip = len;
                // Heartbeats and whatever else is short are no publications.
                if len > 100 {
                    board.heard(bytes, origin);
                }
            }
            board.check();
            true
        });
        if !alive {
            break;
        }
    }
    board.ended.set(board.ended.get() + 1);
}
