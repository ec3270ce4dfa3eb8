//! How a load publishes: into Redis, or through a server's own HTTP API.

use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Bytes of each publication's data.
const DATA: usize = 128;

/// Where publications go.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// `POST` to this path, the data as the body.
    Http(SocketAddr, &'static str),
    /// `PUBLISH bench`.
    Redis(SocketAddr),
}

impl Target {
    pub(crate) fn read(text: &str) -> Self {
        let (kind, address) = text.split_once(':').expect("redis:ADDRESS or nchan:ADDRESS");
        let address = address.parse().expect("an address");
        if kind == "redis" { Self::Redis(address) } else { Self::Http(address, "/pub/bench") }
    }
}

/// One connection that publishes.
pub(crate) struct Publisher {
    target: Target,
    stream: TcpStream,
}

impl Publisher {
    pub(crate) async fn open(target: Target) -> Self {
        let (Target::Http(address, _) | Target::Redis(address)) = target;
        let stream = TcpStream::connect(address).await.expect("a publisher");
        stream.set_nodelay(true).expect("a socket");
        Self { target, stream }
    }

    /// Publishes `count` publications, written as one. Answers are read away, not waited for.
    pub(crate) async fn publish(&mut self, count: u64, micros: u128) {
        let data = data(micros);
        let one = match self.target {
            Target::Redis(_) => {
                format!("*3\r\n$7\r\nPUBLISH\r\n$5\r\nbench\r\n${}\r\n{data}\r\n", data.len())
            }
            Target::Http(_, path) => format!(
                "POST {path} HTTP/1.1\r\nHost: here\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{data}",
                data.len()
            ),
        };
        self.stream.write_all(one.repeat(count as usize).as_bytes()).await.expect("published");
        let mut scratch = [0; 16 * 1024];
        while matches!(self.stream.try_read(&mut scratch), Ok(read) if read > 0) {}
    }

    /// Waits for the answer to one publication that was published alone.
    pub(crate) async fn settle(&mut self) {
        let mut scratch = [0; 4096];
        drop(
            tokio::time::timeout(std::time::Duration::from_millis(200), self.stream.read(&mut scratch)).await,
        );
    }
}

/// A JSON string that begins with the time.
fn data(micros: u128) -> String {
    let stamp = format!("{micros:012}");
    format!("\"{stamp}{}\"", "x".repeat(DATA - stamp.len() - 2))
}
