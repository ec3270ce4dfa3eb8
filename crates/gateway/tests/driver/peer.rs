//! A WebSocket client for tests: it sends whatever it is told to, right or wrong.

use crate::start::DEADLINE;
use serde_json::Value;
use std::collections::VecDeque;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) struct Peer<S = TcpStream> {
    pub(crate) stream: S,
    lines: VecDeque<Value>,
}

/// A frame from the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Close(Option<(u16, String)>),
    /// The connection ended without a frame.
    Ended,
    Pong(Vec<u8>),
    Text(String),
}

impl Peer {
    /// Opens a WebSocket at `path`.
    pub(crate) async fn open(address: SocketAddr, path: &str) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap(), path).await
    }

    /// Opens a WebSocket and connects in Centrifugo's protocol.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::connect_over(TcpStream::connect(address).await.unwrap()).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peer<S> {
    /// Opens a WebSocket at `path` over a stream that stands.
    pub(crate) async fn over(mut stream: S, path: &str) -> Self {
        stream.write_all(request(path, "").as_bytes()).await.unwrap();
        let head = read_head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        Self::on(stream)
    }

    /// On a WebSocket that is open.
    pub(crate) fn on(stream: S) -> Self {
        Self { stream, lines: VecDeque::new() }
    }

    /// Opens a WebSocket over a stream that stands, and connects in Centrifugo's protocol.
    pub(crate) async fn connect_over(stream: S) -> Self {
        let mut peer = Self::over(stream, "/connection/websocket").await;
        peer.say("{\"id\":1,\"connect\":{}}").await;
        assert!(peer.json().await["connect"]["client"].is_string());
        peer
    }

    /// Subscribes and gives the reply.
    pub(crate) async fn subscribe(&mut self, channel: &str) -> Value {
        self.say(&serde_json::json!({"id":2,"subscribe":{"channel":channel}}).to_string()).await;
        let reply = self.json().await;
        assert_eq!(reply["id"], 2, "{reply}");
        reply
    }

    pub(crate) async fn say(&mut self, text: &str) {
        self.frame(0x81, text.as_bytes()).await;
    }

    pub(crate) async fn frame(&mut self, first: u8, payload: &[u8]) {
        self.stream.write_all(&encode(first, payload)).await.unwrap();
    }

    /// The next JSON object but for heartbeats.
    pub(crate) async fn json(&mut self) -> Value {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return line;
            }
            match self.next().await {
                Frame::Text(text) if text == "{}" => self.say("{}").await,
                Frame::Text(text) if text.contains("\"pusher:ping\"") => {
                    self.say(r#"{"event":"pusher:pong","data":{}}"#).await;
                }
                Frame::Text(text) => {
                    self.lines.extend(text.lines().map(|line| serde_json::from_str(line).unwrap()));
                }
                other => panic!("no text but {other:?}"),
            }
        }
    }

    /// The next frame.
    pub(crate) async fn next(&mut self) -> Frame {
        timeout(DEADLINE, self.read_frame()).await.expect("no frame came")
    }

    async fn read_frame(&mut self) -> Frame {
        let mut head = [0; 2];
        if self.stream.read_exact(&mut head).await.is_err() {
            return Frame::Ended;
        }
        assert_eq!(head[1] & 0x80, 0, "a masked frame from the server");
        let len = match head[1] {
            126 => usize::from(self.stream.read_u16().await.unwrap()),
            127 => usize::try_from(self.stream.read_u64().await.unwrap()).unwrap(),
            len => usize::from(len),
        };
        let mut payload = vec![0; len];
        if self.stream.read_exact(&mut payload).await.is_err() {
            return Frame::Ended;
        }
        match head[0] {
            0x81 => Frame::Text(String::from_utf8(payload).unwrap()),
            0x88 if payload.is_empty() => Frame::Close(None),
            0x88 => {
                let code = u16::from_be_bytes([payload[0], payload[1]]);
                Frame::Close(Some((code, String::from_utf8(payload[2..].to_vec()).unwrap())))
            }
            0x8A => Frame::Pong(payload),
            // A server may ask at any time whether we are there.
            0x89 => Box::pin(self.next()).await,
            other => panic!("frame {other:#x}"),
        }
    }

    /// Reads on until the close frame and gives its code.
    pub(crate) async fn closed(&mut self) -> u16 {
        loop {
            match self.next().await {
                Frame::Close(Some((code, _))) => return code,
                Frame::Text(_) | Frame::Pong(_) => {}
                other => panic!("no close code but {other:?}"),
            }
        }
    }
}

pub(crate) fn request(path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
}

pub(crate) fn encode(first: u8, payload: &[u8]) -> Vec<u8> {
    let key = [9, 8, 7, 6];
    let mut out = vec![first];
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=0xFFFF => {
            out.push(0xFE);
            out.extend((len as u16).to_be_bytes());
        }
        len => {
            out.push(0xFF);
            out.extend((len as u64).to_be_bytes());
        }
    }
    out.extend(key);
    out.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]));
    out
}

/// Reads the head of an HTTP answer, and not a byte more.
pub(crate) async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    let read = timeout(DEADLINE, async {
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => break,
            }
        }
    });
    read.await.expect("no head came");
    String::from_utf8(head).unwrap()
}
