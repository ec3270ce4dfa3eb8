//! The opening of a connection: accept, the request's head within its deadline, and where it goes from there.

use super::clock;
use super::conn::Conn;
use super::http;
use super::route::{Admitted, Route, refusal, route};
use super::session::Task;
use super::shared::{Phase, Shared, reached};
use crate::hub::Command;
use crate::metrics::Metrics;
use crate::ws::handshake::Head;
use std::io;
use std::net::IpAddr;
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
        let Ok((stream, peer)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        Metrics::count(&shared.metrics.accepted);
        let open = shared.metrics.connections.fetch_add(1, Ordering::Relaxed);
        let limits = &shared.config.limits;
        let (here, fresh) = shared.doors.enter(peer.ip(), limits, clock::now());
        let guard = Counted { shared: shared.clone(), peer: here.then(|| peer.ip()) };
        if !fresh || usize::try_from(open).unwrap_or(0) >= limits.max_connections {
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
    /// The address, where connections of one are counted.
    peer: Option<IpAddr>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.shared.metrics.connections.fetch_sub(1, Ordering::Relaxed);
        if let Some(peer) = self.peer {
            self.shared.doors.leave(peer);
        }
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
        Route::Session(session) => {
            if stream.write_all(&session.answer).await.is_err() {
                return None;
            }
            let rest = read.bytes.get(read.head..).unwrap_or_default().to_vec();
            start(shared, stream, session, rest).await
        }
    }
}

async fn start(
    shared: &Arc<Shared>,
    stream: TcpStream,
    session: Box<Admitted>,
    rest: Vec<u8>,
) -> Option<Box<Task>> {
    let deflate = session.deflate;
    let conn = Conn::new(stream, (session.protocol, deflate), shared.bounds(), shared.metrics.clone());
    let conn = Arc::new(conn);
    let shard = shared.pick_shard();
    shared.hub.tell(shard, Command::Attach(conn.clone())).await;
    let mut task = Box::new(Task::new(shared.clone(), conn, session.machine, shard));
    if task.begin(rest).await && task.run_until_connected(shared.config.session.connect_timeout).await {
        return Some(task);
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

async fn read_head(shared: &Arc<Shared>, stream: &mut TcpStream) -> io::Result<Read> {
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
