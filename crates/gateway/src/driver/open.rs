//! The opening of a connection: accept, the request's head within its deadline, and where it goes from there.

use super::conn::Conn;
use super::http;
use super::session::Task;
use super::shared::{Phase, Shared, reached};
use crate::hub::Command;
use crate::metrics::Metrics;
use crate::wire::Protocol;
use crate::ws::handshake::{self, Head, Refusal};
use bytes::Bytes;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

/// Header fields of a request at most.
const MAX_HEADERS: usize = 64;
/// Wait after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The answer at the limit of connections.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// Accepts connections until the gateway drains.
pub(crate) async fn accept(shared: Arc<Shared>, listener: TcpListener, mut phase: watch::Receiver<Phase>) {
    loop {
        let accepted = tokio::select! {
            biased;
            _ = phase.changed() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        Metrics::count(&shared.metrics.accepted);
        let open = shared.metrics.connections.fetch_add(1, Ordering::Relaxed);
        let guard = Counted { shared: shared.clone() };
        if usize::try_from(open).unwrap_or(0) >= shared.config.limits.max_connections {
            Metrics::count(&shared.metrics.refused);
            // A fresh socket takes so little at once; if it does not, the client learns it from the close.
            drop(stream.try_write(FULL));
            drop(guard);
            continue;
        }
        tokio::spawn(connection(guard, stream));
    }
}

/// Counts a connection as open while it lives.
struct Counted {
    shared: Arc<Shared>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.shared.metrics.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn connection(guard: Counted, stream: TcpStream) {
    // Both ends of a connection's life are boxed, so that the task of an idle session is small.
    let Some(mut task) = Box::pin(open(&guard.shared, stream)).await else { return };
    guard.shared.metrics.sessions.fetch_add(1, Ordering::Relaxed);
    task.run().await;
    guard.shared.metrics.sessions.fetch_sub(1, Ordering::Relaxed);
    Box::pin(task.finish()).await;
}

/// Takes a connection to the point where its session is connected; `None` when it never was one.
async fn open(shared: &Arc<Shared>, mut stream: TcpStream) -> Option<Box<Task>> {
    let mut phase = shared.phase.clone();
    // Without it small frames would wait for acknowledgements; a socket that refuses works all the same.
    drop(stream.set_nodelay(true));
    let deadline = shared.config.session.handshake_timeout;
    let head = tokio::select! {
        biased;
        () = reached(&mut phase, Phase::Stopped) => return None,
        head = timeout(deadline, read_head(shared, &mut stream)) => head,
    };
    let Ok(Ok(read)) = head else {
        Metrics::count(&shared.metrics.handshake_failed);
        return None;
    };
    match read.route {
        Route::Http => {
            http::serve(shared.clone(), stream, read.bytes, phase).await;
            None
        }
        Route::Refused(answer) => {
            Metrics::count(&shared.metrics.handshake_failed);
            drop(timeout(shared.config.session.close_timeout, stream.write_all(&answer)).await);
            None
        }
        Route::WebSocket(answer) => {
            if stream.write_all(&answer).await.is_err() {
                return None;
            }
            let rest = read.bytes.get(read.head..).unwrap_or_default().to_vec();
            start(shared, stream, rest).await
        }
    }
}

async fn start(shared: &Arc<Shared>, stream: TcpStream, rest: Vec<u8>) -> Option<Box<Task>> {
    let conn = Conn::new(stream, Protocol::Centrifugo, shared.bounds(), shared.metrics.clone());
    let conn = Arc::new(conn);
    let shard = shared.pick_shard();
    shared.hub.tell(shard, Command::Attach(conn.clone())).await;
    let mut task = Box::new(Task::new(shared.clone(), conn.clone(), shard));
    let connected = timeout(shared.config.session.connect_timeout, async {
        task.feed(rest).await && task.run_until_connected().await
    });
    match connected.await {
        Ok(true) => return Some(task),
        Ok(false) => {}
        Err(_elapsed) => {
            conn.close(Protocol::Centrifugo.stale(), false);
            conn.flush();
        }
    }
    task.finish().await;
    None
}

/// A request's head, and what was read behind it.
struct Read {
    bytes: Vec<u8>,
    head: usize,
    route: Route,
}

/// Where a request goes.
enum Route {
    Http,
    Refused(Bytes),
    WebSocket(Bytes),
}

async fn read_head(shared: &Shared, stream: &mut TcpStream) -> io::Result<Read> {
    let most = shared.config.limits.max_head;
    let mut bytes = Vec::with_capacity(1_024);
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&bytes) {
            Ok(httparse::Status::Complete(head)) => {
                let parsed = Head {
                    method: request.method.unwrap_or_default(),
                    target: request.path.unwrap_or_default(),
                    version: request.version.unwrap_or(0),
                    headers: request.headers,
                };
                let route = route(shared, &parsed);
                return Ok(Read { bytes, head, route });
            }
            Ok(httparse::Status::Partial) if bytes.len() < most => {}
            Ok(httparse::Status::Partial) => {
                stream
                    .write_all(&refusal(431, "Request Header Fields Too Large", "the head is too long"))
                    .await?;
                return Err(io::ErrorKind::InvalidData.into());
            }
            Err(_bad) => {
                stream.write_all(&refusal(400, "Bad Request", "this is no HTTP/1.1 request")).await?;
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }
}

fn route(shared: &Shared, head: &Head<'_>) -> Route {
    if head.path() != "/connection/websocket" {
        return Route::Http;
    }
    let origin = head.header("origin");
    let origin_clear = origin.is_some() || !head.has("origin");
    if !origin_clear || !shared.origins.allows(origin, head.header("host").unwrap_or_default()) {
        return Route::Refused(refusal(403, "Forbidden", "this origin is not among the allowed ones"));
    }
    match handshake::accept(head) {
        Ok(answer) => Route::WebSocket(answer),
        Err(why @ (Refusal::BadKey | Refusal::BadRequest)) => {
            Route::Refused(refusal(400, "Bad Request", &why.to_string()))
        }
        Err(why @ Refusal::BadVersion) => {
            let text = why.to_string();
            Route::Refused(Bytes::from(format!(
                "HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n\
                 Connection: close\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{text}",
                text.len()
            )))
        }
        Err(why @ Refusal::NoUpgrade) => Route::Refused(refusal(400, "Bad Request", &why.to_string())),
    }
}

fn refusal(status: u16, name: &str, text: &str) -> Bytes {
    Bytes::from(format!(
        "HTTP/1.1 {status} {name}\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{text}",
        text.len()
    ))
}
