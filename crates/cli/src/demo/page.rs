//! The page that a person looks at: one file, fed by server-sent events, with buttons that make trouble.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use evenkeel::gateway::GatewayHandle;
use evenkeel::{Client, Health};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::board::Board;
use super::deployment::{Mode, Outcome};
use super::ledger::Ledger;
use super::pubsub::Raw;
use super::troubles::Troublemaker;

const HTML: &str = include_str!("page.html");
/// Between two pictures.
const FRAME: Duration = Duration::from_millis(500);
/// What is published longer ago than this and not delivered counts as lost, until it comes.
const LATE: Duration = Duration::from_secs(2);
const MAX_HEAD: usize = 8_192;
/// From accept to the end of the request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections at once.
const MAX_CONNECTIONS: usize = 64;

/// What the page shows and steers.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) mode: Mode,
    pub(super) board: Arc<Board>,
    pub(super) client: Client,
    pub(super) gateway: GatewayHandle,
    pub(super) brokers: Client,
    pub(super) ledger: Arc<Ledger>,
    pub(super) raw: Arc<Raw>,
    pub(super) troublemaker: Arc<Troublemaker>,
}

/// Listens; the future serves until it is dropped.
pub(super) async fn serve(page: Page, port: u16) -> Outcome<(SocketAddr, impl Future<Output = ()>)> {
    let listen = TcpListener::bind(("127.0.0.1", port)).await;
    let listener = listen.map_err(|error| format!("cannot listen on --port {port}: {error}"))?;
    let address = listener.local_addr()?;
    let (pictures, picture) = tokio::sync::watch::channel(Arc::<str>::from("{}"));
    let page = Arc::new(page);
    let serving = async move {
        let mut connections = JoinSet::new();
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut frames = tokio::time::interval(FRAME);
        loop {
            tokio::select! {
                biased;
                _ = frames.tick() => {
                    pictures.send_replace(page.picture().to_string().into());
                    while connections.try_join_next().is_some() {}
                }
                accepted = listener.accept() => {
                    let Ok((stream, _)) = accepted else { continue };
                    let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
                    let (page, picture) = (Arc::clone(&page), picture.clone());
                    connections.spawn(async move {
                        // A browser that went away is no news.
                        let _gone = page.answer(stream, address, picture).await;
                        drop(permit);
                    });
                }
            }
        }
    };
    Ok((address, serving))
}

impl Page {
    async fn answer(
        self: Arc<Self>,
        mut stream: TcpStream,
        address: SocketAddr,
        mut picture: tokio::sync::watch::Receiver<Arc<str>>,
    ) -> std::io::Result<()> {
        let Ok(head) = tokio::time::timeout(HEAD_TIMEOUT, read_head(&mut stream)).await else {
            return Ok(());
        };
        let head = head?;
        let line = head.lines().next().unwrap_or_default();
        let header = |name: &str| {
            head.lines().skip(1).find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        // Another site's page must not steer this one, by whatever name it finds it.
        let port = address.port();
        let is_ours = |host: &str| host == format!("127.0.0.1:{port}") || host == format!("localhost:{port}");
        let from_us =
            header("origin").is_none_or(|origin| origin.strip_prefix("http://").is_some_and(is_ours));
        if !header("host").is_some_and(is_ours) || !from_us {
            return respond(&mut stream, "403 Forbidden", "text/plain", "this page is for this machine\n")
                .await;
        }
        match line.split(' ').take(2).collect::<Vec<_>>().as_slice() {
            ["GET", "/"] => respond(&mut stream, "200 OK", "text/html; charset=utf-8", HTML).await,
            ["GET", "/live"] => {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\
                            Connection: close\r\n\r\n";
                stream.write_all(head.as_bytes()).await?;
                loop {
                    let data = format!("data: {}\n\n", *picture.borrow_and_update());
                    stream.write_all(data.as_bytes()).await?;
                    if picture.changed().await.is_err() {
                        return Ok(());
                    }
                }
            }
            ["POST", path] => self.trouble(&mut stream, path).await,
            _ => respond(&mut stream, "404 Not Found", "text/plain", "not here\n").await,
        }
    }

    async fn trouble(&self, stream: &mut TcpStream, path: &str) -> std::io::Result<()> {
        let name = path.strip_prefix("/trouble/").unwrap_or_default();
        let trouble = self.mode.troubles().iter().copied().find(|trouble| trouble.name() == name);
        let Some(trouble) = trouble else {
            return respond(stream, "404 Not Found", "text/plain", "no such trouble\n").await;
        };
        if self.troublemaker.last.try_lock().is_err() {
            let busy = "one trouble at a time: the last one is not over\n";
            return respond(stream, "409 Conflict", "text/plain", busy).await;
        }
        let maker = Arc::clone(&self.troublemaker);
        // It goes on when the browser does not wait for it.
        let made = tokio::spawn(async move {
            let made = maker.make(trouble).await;
            if let Err(error) = &made {
                maker.board.log(format!("trouble: {error}"));
            }
            made.is_ok()
        });
        match made.await {
            Ok(true) => respond(stream, "200 OK", "text/plain", "made\n").await,
            _ => respond(stream, "500 Internal Server Error", "text/plain", "see the log\n").await,
        }
    }

    /// Everything that the page shows.
    fn picture(&self) -> Value {
        let counts = self.ledger.counts(LATE);
        let (raw, _) = self.raw.counts();
        let (p50, p99) = self.board.fresh_percentiles();
        let (next, log) = self.board.lines(0);
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        json!({
            "mode": self.mode.name(),
            "troubles": self.mode.troubles().iter().map(|trouble| trouble.name()).collect::<Vec<_>>(),
            "made": self.board.made(),
            "open": self.board.windows().iter().rev().take(1).find(|window| window.end.is_none()).map(|window| {
                json!({"kind": window.kind, "planned": window.planned})
            }),
            "commands": count(&self.board.commands),
            "failed": count(&self.board.failed),
            "handoffs": count(&self.board.handoffs),
            "failovers": count(&self.board.failovers),
            "p50": p50,
            "p99": p99,
            "published": counts.published,
            "delivered": counts.delivered,
            "lost": counts.missing,
            "doubled": counts.doubled,
            "raw": {"published": raw.published, "delivered": raw.delivered, "lost": raw.lost + raw.silent, "gaps": raw.gaps},
            "sessions": self.gateway.sessions(),
            "ready": self.gateway.is_ready(),
            "connections": [
                {"who": "program", "health": health(&self.client.health())},
                {"who": "gateway", "health": health(&self.brokers.health())},
            ],
            "next": next,
            "log": log,
        })
    }
}

fn health(health: &Health) -> Value {
    let endpoints = health.endpoints.iter().map(|endpoint| {
        json!({
            "endpoint": endpoint.endpoint.to_string(),
            "role": format!("{:?}", endpoint.role).to_lowercase(),
            "state": format!("{:?}", endpoint.state).to_lowercase(),
            "in_flight": endpoint.in_flight,
            "relaxed": endpoint.relaxed,
        })
    });
    json!({"healthy": health.healthy, "endpoints": endpoints.collect::<Vec<_>>()})
}

async fn read_head(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
        if head.len() > MAX_HEAD {
            return Err(std::io::Error::other("the request's head is too long"));
        }
    }
    String::from_utf8(head).map_err(std::io::Error::other)
}

async fn respond(stream: &mut TcpStream, status: &str, kind: &str, body: &str) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}
