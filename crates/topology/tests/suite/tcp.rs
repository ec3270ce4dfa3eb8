//! `Tcp`: asks over plain connections, one kept for each endpoint. Enough for tests: no TLS, no credentials.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::BytesMut;
use evenkeel_protocol::{Command, Endpoint, Limits, Push, Reply, Scanner};
use evenkeel_topology::{
    AskFailure,
    driver::{Ask, EventSink, NodeRole},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

type Kept = Arc<tokio::sync::Mutex<Option<Conn>>>;

#[derive(Clone, Debug, Default)]
pub(crate) struct Tcp {
    kept: Arc<Mutex<HashMap<Endpoint, Kept>>>,
    asked: Arc<Mutex<HashMap<String, usize>>>,
}

impl Tcp {
    /// How often a command was asked, by its words up to the second.
    pub(crate) fn asked(&self, command: &str) -> usize {
        self.asked.lock().unwrap().get(command).copied().unwrap_or(0)
    }
}

#[derive(Debug)]
struct Conn {
    stream: TcpStream,
    read: BytesMut,
    scanner: Scanner,
}

impl Conn {
    async fn open(endpoint: &Endpoint) -> io::Result<Self> {
        let stream = TcpStream::connect((endpoint.host(), endpoint.port())).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, read: BytesMut::new(), scanner: Scanner::new(Limits::default()) })
    }

    async fn write(&mut self, commands: &[Command]) -> io::Result<()> {
        let mut wire = BytesMut::new();
        for command in commands {
            command.encode(&mut wire);
        }
        self.stream.write_all(&wire).await
    }

    async fn reply(&mut self) -> io::Result<Reply> {
        loop {
            if let Some(found) = self.scanner.scan(&self.read).map_err(io::Error::other)? {
                self.scanner = Scanner::new(Limits::default());
                return Ok(Reply::new(self.read.split_to(found.len).freeze()));
            }
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
        }
    }

    async fn round(&mut self, commands: &[Command]) -> io::Result<Vec<Reply>> {
        self.write(commands).await?;
        let mut replies = Vec::new();
        for _ in commands {
            replies.push(self.reply().await?);
        }
        Ok(replies)
    }
}

fn failure(error: &io::Error) -> AskFailure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => AskFailure::Refused,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
            AskFailure::Reset
        }
        _ => AskFailure::Unreachable,
    }
}

impl Ask for Tcp {
    async fn ask(
        &self,
        endpoint: Endpoint,
        _role: NodeRole,
        commands: Vec<Command>,
        _deadline: Duration,
    ) -> Result<Vec<Reply>, AskFailure> {
        for command in &commands {
            let words: Vec<_> = command.args().take(2).map(String::from_utf8_lossy).collect();
            *self.asked.lock().unwrap().entry(words.join(" ")).or_default() += 1;
        }
        let kept = Arc::clone(self.kept.lock().unwrap().entry(endpoint.clone()).or_default());
        let mut kept = kept.lock().await;
        // Taken out, so that a dropped question takes its connection with it.
        let mut conn = match kept.take() {
            Some(conn) => conn,
            None => Conn::open(&endpoint).await.map_err(|error| failure(&error))?,
        };
        let replies = conn.round(&commands).await.map_err(|error| failure(&error))?;
        *kept = Some(conn);
        Ok(replies)
    }

    async fn watch(&self, sentinel: Endpoint, events: EventSink) -> AskFailure {
        let listen = async {
            let mut conn = Conn::open(&sentinel).await?;
            conn.write(&[Command::new("PSUBSCRIBE").arg("*")]).await?;
            loop {
                let frame = conn.reply().await?.frame().map_err(io::Error::other)?;
                match Push::read(&frame) {
                    Some(Push::PatternMessage { channel, payload, .. }) => {
                        events.message(channel, payload).await;
                    }
                    Some(Push::Subscription { .. }) => events.up().await,
                    _ => {}
                }
            }
        };
        let ended: io::Result<()> = listen.await;
        ended.map_or_else(|error| failure(&error), |()| AskFailure::Reset)
    }
}
