//! A connection that shows replies byte for byte.

#![expect(clippy::expect_used, reason = "a test without an answer has failed")]

use std::{net::SocketAddr, time::Duration};

use bytes::{Bytes, BytesMut};
use evenkeel_protocol::{Command, Frame, Limits, Scanner};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(10);

#[expect(clippy::disallowed_methods, reason = "tests measure how long the server takes")]
pub(super) fn now() -> std::time::Instant {
    std::time::Instant::now()
}

pub(super) struct Peer {
    stream: TcpStream,
    read: BytesMut,
    scanner: Scanner,
}

impl Peer {
    pub(super) async fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, read: BytesMut::new(), scanner: Scanner::new(Limits::default()) }
    }

    /// Connects and says HELLO 3.
    pub(super) async fn resp3(addr: SocketAddr) -> Self {
        let mut peer = Self::connect(addr).await;
        let hello = peer.ask(&["HELLO", "3"]).await;
        assert!(hello.starts_with(b"%"), "{hello:?}");
        peer
    }

    /// Connects, says HELLO 3 and opts in to maintenance notifications.
    pub(super) async fn opted_in(addr: SocketAddr, endpoint_type: &str) -> Self {
        let mut peer = Self::resp3(addr).await;
        let on = ["CLIENT", "MAINT_NOTIFICATIONS", "ON", "moving-endpoint-type", endpoint_type];
        assert_eq!(peer.ask(&on).await, "+OK\r\n");
        peer
    }

    pub(super) async fn send(&mut self, args: &[&str]) {
        let mut wire = BytesMut::new();
        let mut command = Command::new(args[0]);
        for arg in &args[1..] {
            command = command.arg(*arg);
        }
        command.encode(&mut wire);
        self.send_raw(&wire).await;
    }

    pub(super) async fn send_raw(&mut self, wire: &[u8]) {
        self.stream.write_all(wire).await.unwrap();
    }

    /// The next whole frame as it came; nothing when the other side has closed.
    pub(super) async fn try_next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(found) = self.scanner.scan(&self.read).unwrap() {
                return Some(self.read.split_to(found.len).freeze());
            }
            let read =
                timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await.expect("no answer in time");
            if read.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    pub(super) async fn next(&mut self) -> Bytes {
        self.try_next().await.expect("the connection was closed")
    }

    pub(super) async fn next_frame(&mut self) -> Frame {
        let bytes = self.next().await;
        Frame::parse(&bytes, &Limits::default()).unwrap()
    }

    pub(super) async fn ask(&mut self, args: &[&str]) -> Bytes {
        self.send(args).await;
        self.next().await
    }

    /// Asks for something whose reply is a number, be it an integer or a string.
    pub(super) async fn next_integer(&mut self, args: &[&str]) -> u64 {
        self.send(args).await;
        let frame = self.next_frame().await;
        match frame.as_str() {
            Some(text) => text.parse().unwrap(),
            None => frame.as_integer().unwrap().try_into().unwrap(),
        }
    }

    /// Whether nothing comes for a moment.
    pub(super) async fn is_silent(&mut self, time: Duration) -> bool {
        assert!(self.read.is_empty(), "unread: {:?}", self.read);
        timeout(time, self.stream.read_buf(&mut self.read)).await.is_err()
    }
}
