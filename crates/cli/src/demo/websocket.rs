//! A WebSocket client as small as the demo needs it: text frames of a server that it trusts.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// The longest frame that is taken: far beyond a recovery of the demo.
const MAX_FRAME: u64 = 16 << 20;

/// An open WebSocket.
#[derive(Debug)]
pub(super) struct WebSocket {
    stream: BufReader<TcpStream>,
}

impl WebSocket {
    /// Connects and upgrades.
    pub(super) async fn open(address: SocketAddr, path: &str) -> io::Result<Self> {
        let mut stream = BufReader::new(TcpStream::connect(address).await?);
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ZXZlbmtlZWwgZGVtbyAhIQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
            if head.len() > 8_192 {
                return Err(io::Error::other("the answer has no end"));
            }
        }
        if head.starts_with(b"HTTP/1.1 101 ") {
            Ok(Self { stream })
        } else {
            Err(io::Error::other("the gateway did not upgrade"))
        }
    }

    /// Sends a text frame.
    pub(super) async fn say(&mut self, text: &str) -> io::Result<()> {
        self.send(0x81, text.as_bytes()).await
    }

    async fn send(&mut self, first: u8, payload: &[u8]) -> io::Result<()> {
        let mut out = vec![first];
        match payload.len() {
            len @ 0..=125 => out.push(0x80 | len as u8),
            len => {
                let len = u16::try_from(len).map_err(io::Error::other)?;
                out.push(0xFE);
                out.extend(len.to_be_bytes());
            }
        }
        let key = fastrand::u32(..).to_be_bytes();
        out.extend(key);
        out.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        self.stream.write_all(&out).await
    }

    /// The next text; `None` when the server closes.
    pub(super) async fn hear(&mut self) -> io::Result<Option<String>> {
        loop {
            let first = self.stream.read_u8().await?;
            let len = match self.stream.read_u8().await? {
                126 => u64::from(self.stream.read_u16().await?),
                127 => self.stream.read_u64().await?,
                len => u64::from(len),
            };
            if len > MAX_FRAME {
                return Err(io::Error::other("a frame that is too long"));
            }
            let mut payload = vec![0; len as usize];
            self.stream.read_exact(&mut payload).await?;
            match first {
                0x81 => return String::from_utf8(payload).map(Some).map_err(io::Error::other),
                0x88 => return Ok(None),
                0x89 => self.send(0x8A, &payload).await?,
                _ => {}
            }
        }
    }
}
