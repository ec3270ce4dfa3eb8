//! The listening socket: bound, accepted from, and handed over to another process without a refused connection.

use super::clock;
use super::open::{self, Counted};
use super::shared::{Phase, Shared, reached};
use crate::config::GatewayConfig;
use crate::metrics::Metrics;
use futures_util::FutureExt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1_024;
/// Wait after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a socket that shares its port takes no new handshakes before it closes: a round trip around the world, so
/// that those under way end. A client that knocks meanwhile knocks again after a second, at the other socket.
const HAND_OVER: Duration = Duration::from_millis(300);
/// The answer at the limit of connections.
const FULL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// Binds the address of the settings.
pub(crate) fn bind(config: &GatewayConfig) -> io::Result<TcpListener> {
    let address = config.listen;
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections of a process before this one may still be saying goodbye.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    if config.reuse_port {
        share_port(&socket)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(unix)]
fn share_port(socket: &TcpSocket) -> io::Result<()> {
    socket.set_reuseport(true)
}

#[cfg(not(unix))]
fn share_port(_socket: &TcpSocket) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Accepts connections until the gateway leaves its port, and then those that were on their way.
pub(crate) async fn accept(shared: Arc<Shared>, listener: TcpListener, mut phase: watch::Receiver<Phase>) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = reached(&mut phase, Phase::Leaving) => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => admit(&shared, stream, peer),
            Err(_short_of) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
    if shared.config.reuse_port && refuse_handshakes(&listener).is_ok() {
        let until = Instant::from_std(clock::now() + HAND_OVER);
        while let Ok(accepted) = timeout_at(until, listener.accept()).await {
            match accepted {
                Ok((stream, peer)) => admit(&shared, stream, peer),
                Err(_short_of) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }
    // Closing a listener resets what waits in its queue. It holds no more than this, and more may always come.
    for _ in 0..BACKLOG {
        let waiting = tokio::task::unconstrained(listener.accept()).now_or_never();
        let Some(Ok((stream, peer))) = waiting else { break };
        admit(&shared, stream, peer);
    }
}

/// Makes a listener deaf to new handshakes, and to nothing else: a refusal would reach the client, silence makes it
/// knock again, and by then the port belongs to another process alone.
#[cfg(target_os = "linux")]
fn refuse_handshakes(listener: &TcpListener) -> io::Result<()> {
    use socket2::{SockFilter, SockRef};
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_SET: u16 = 0x45;
    const RETURN: u16 = 0x06;
    /// Where the flags of a TCP header stand, and the one that opens a connection.
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    SockRef::from(listener).attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(JUMP_IF_SET, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])
}

#[cfg(not(target_os = "linux"))]
fn refuse_handshakes(_listener: &TcpListener) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

fn admit(shared: &Arc<Shared>, stream: TcpStream, peer: SocketAddr) {
    Metrics::count(&shared.metrics.accepted);
    let open = shared.metrics.connections.fetch_add(1, Ordering::Relaxed);
    let limits = &shared.config.limits;
    let (here, fresh) = shared.doors.enter(peer.ip(), limits, clock::now());
    let guard = Counted::new(shared.clone(), here.then(|| peer.ip()));
    if !fresh || usize::try_from(open).unwrap_or(0) >= limits.max_connections {
        Metrics::count(&shared.metrics.refused);
        // A fresh socket takes so little at once; if it does not, or speaks TLS, the client learns it from the close.
        drop(stream.try_write(FULL));
        drop(guard);
        return;
    }
    tokio::spawn(open::connection(guard, Box::pin(open::open(shared.clone(), stream))));
}
