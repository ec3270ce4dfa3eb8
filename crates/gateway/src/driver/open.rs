//! The opening of a connection: the request's head within its deadline, and where it goes from there.

use super::clock;
use super::conn::Conn;
use super::http;
use super::route::{Admitted, Route, refusal, route};
use super::session::Task;
use super::shared::{Phase, Shared, reached};
use super::socket::{Io, Socket};
use crate::hub::Command;
use crate::metrics::Metrics;
use crate::ws::handshake::Head;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

/// Header fields of a request at most.
const MAX_HEADERS: usize = 64;

/// Counts a connection as open while it lives.
pub(super) struct Counted {
    shared: Arc<Shared>,
    /// The address, where connections of one are counted.
    peer: Option<IpAddr>,
}

impl Counted {
    /// Takes over what was counted.
    pub(super) fn new(shared: Arc<Shared>, peer: Option<IpAddr>) -> Self {
        Self { shared, peer }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.shared.metrics.connections.fetch_sub(1, Ordering::Relaxed);
        if let Some(peer) = self.peer {
            self.shared.doors.leave(peer);
        }
    }
}

/// What takes a connection to the point where its session is connected; it gives none when it never was one.
pub(super) type Opening = Pin<Box<dyn Future<Output = Option<Box<Task>>> + Send>>;

/// Serves one connection to its end.
pub(super) async fn connection(guard: Counted, opening: Opening) {
    // Both ends of a connection's life are boxed, so that the task of an idle session is small.
    let Some(mut task) = opening.await else { return };
    guard.shared.metrics.sessions.fetch_add(1, Ordering::Relaxed);
    task.run().await;
    guard.shared.metrics.sessions.fetch_sub(1, Ordering::Relaxed);
    Box::pin(task.finish()).await;
}

/// Takes a connection to the point where its session is connected; `None` when it never was one.
pub(super) async fn open(shared: Arc<Shared>, stream: TcpStream) -> Option<Box<Task>> {
    let shared = &shared;
    // Without it small frames would wait for acknowledgements; a socket that refuses works all the same.
    drop(stream.set_nodelay(true));
    let deadline = Instant::from_std(clock::now() + shared.config.session.handshake_timeout);
    let Some(tls) = &shared.tls else {
        return serve(shared, stream, Socket::Tcp, deadline).await;
    };
    let mut phase = shared.phase.clone();
    let secured = tokio::select! {
        biased;
        () = reached(&mut phase, Phase::Stopped) => return None,
        secured = timeout_at(deadline, tls.accept(stream)) => secured,
    };
    let Ok(Ok(stream)) = secured else {
        Metrics::count(&shared.metrics.handshake_failed);
        return None;
    };
    serve(shared, stream, Socket::other, deadline).await
}

/// Reads the request on a stream of either kind, and does what it asks for.
async fn serve<S: Io + 'static>(
    shared: &Arc<Shared>,
    mut stream: S,
    socket: fn(S) -> Socket,
    deadline: Instant,
) -> Option<Box<Task>> {
    let mut phase = shared.phase.clone();
    let head = tokio::select! {
        biased;
        () = reached(&mut phase, Phase::Stopped) => return None,
        head = timeout_at(deadline, read_head(shared, &mut stream)) => head,
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
            drop(timeout(shared.config.session.close_timeout, say(&mut stream, &answer)).await);
            None
        }
        Route::Session(session) => {
            if !matches!(timeout_at(deadline, say(&mut stream, &session.answer)).await, Ok(Ok(()))) {
                return None;
            }
            let rest = read.bytes.get(read.head..).unwrap_or_default().to_vec();
            start(shared, socket(stream), session, rest).await
        }
    }
}

/// Writes, and sees to it that nothing stays behind in a stream that gathers.
async fn say(stream: &mut impl Io, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}

/// Begins a session on its stream; `rest` is what the client said already.
pub(super) async fn start(
    shared: &Arc<Shared>,
    socket: Socket,
    session: Box<Admitted>,
    rest: Vec<u8>,
) -> Option<Box<Task>> {
    let deflate = session.deflate;
    let conn = Conn::new(socket, (session.protocol, deflate), shared.bounds(), shared.metrics.clone());
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

async fn read_head(shared: &Arc<Shared>, stream: &mut impl Io) -> io::Result<Read> {
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
                let answer = refusal(431, "Request Header Fields Too Large", "the head is too long");
                say(stream, &answer).await?;
                return Err(io::ErrorKind::InvalidData.into());
            }
            Err(_bad) => {
                say(stream, &refusal(400, "Bad Request", "this is no HTTP/1.1 request")).await?;
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }
}
