//! Connectors: how a byte stream to a server is opened. Directly here; [`Socks5`](super::proxy::Socks5) and
//! [`HttpConnect`](super::proxy::HttpConnect) go through a proxy, and anything else is a [`Connector`] of the user's.
//!
//! A connector knows nothing of TLS or Redis: those are spoken over whatever stream it gives.

use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use evenkeel_protocol::Endpoint;
use tokio::{net::TcpStream, time::timeout};

use super::dial::{Phase, Stream};

/// A connection attempt under way.
pub type Connecting = Pin<Box<dyn Future<Output = Result<Connected, ConnectError>> + Send>>;

/// Opens byte streams to servers.
///
/// The dialler bounds the time of an attempt by dropping its future, so dropping must close what was opened.
pub trait Connector: Send + Sync + fmt::Debug {
    /// Opens a stream to `endpoint`.
    fn connect(&self, endpoint: &Endpoint) -> Connecting;
}

/// An open stream.
pub struct Connected {
    pub(crate) stream: Box<dyn Stream>,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) local: Option<SocketAddr>,
}

impl fmt::Debug for Connected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connected").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Connected {
    /// A stream, and the server's own address where it is known.
    pub fn new(stream: impl Stream, peer: Option<SocketAddr>) -> Self {
        Self { stream: Box::new(stream), peer, local: None }
    }

    /// Our own end, where the server sees it as we do. Default: not known.
    #[must_use]
    pub fn local(mut self, local: Option<SocketAddr>) -> Self {
        self.local = local;
        self
    }
}

/// Why a stream could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("no stream could be opened")]
pub struct ConnectError {
    pub(crate) phase: Phase,
    #[source]
    pub(crate) cause: io::Error,
}

impl ConnectError {
    /// The attempt failed in this phase.
    pub fn new(phase: Phase, cause: io::Error) -> Self {
        Self { phase, cause }
    }

    pub(crate) fn at(phase: Phase) -> impl Fn(io::Error) -> Self + Copy {
        move |cause| Self { phase, cause }
    }
}

/// Addresses being looked up.
pub type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Finds the addresses of a name. It is asked at each dial: an address may be what has changed.
pub trait Resolver: Send + Sync + fmt::Debug {
    /// The addresses of `host`, the preferred ones first, each with `port`.
    fn resolve(&self, host: &str, port: u16) -> Resolving;
}

/// The system's resolver.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve(&self, host: &str, port: u16) -> Resolving {
        let host = host.to_owned();
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    }
}

/// Opens TCP connections and Unix sockets itself: all addresses of a name, each with a head start over the next, with
/// keepalive and, on Linux, TCP_USER_TIMEOUT.
#[derive(Clone, Debug)]
pub struct Direct {
    resolver: Arc<dyn Resolver>,
}

impl Default for Direct {
    fn default() -> Self {
        Self { resolver: Arc::new(SystemResolver) }
    }
}

impl Direct {
    /// Who finds addresses. Default: [`SystemResolver`].
    #[must_use]
    pub fn resolver(mut self, resolver: Arc<dyn Resolver>) -> Self {
        self.resolver = resolver;
        self
    }

    /// Opens a TCP connection.
    pub(super) async fn tcp(&self, endpoint: &Endpoint) -> Result<TcpStream, ConnectError> {
        let addresses = self.resolver.resolve(endpoint.host(), endpoint.port()).await;
        let addresses = addresses.map_err(ConnectError::at(Phase::Resolve))?;
        let failed = ConnectError::at(Phase::Connect);
        let stream = staggered(interleave(addresses), TcpStream::connect).await.map_err(failed)?;
        set_options(&stream).map_err(failed)?;
        Ok(stream)
    }
}

impl Connector for Direct {
    fn connect(&self, endpoint: &Endpoint) -> Connecting {
        let (direct, endpoint) = (self.clone(), endpoint.clone());
        Box::pin(async move {
            if endpoint.is_unix() {
                return unix(&endpoint).await;
            }
            let stream = direct.tcp(&endpoint).await?;
            let (peer, local) = (stream.peer_addr().ok(), stream.local_addr().ok());
            Ok(Connected::new(stream, peer).local(local))
        })
    }
}

#[cfg(unix)]
async fn unix(endpoint: &Endpoint) -> Result<Connected, ConnectError> {
    let stream = tokio::net::UnixStream::connect(endpoint.host()).await;
    Ok(Connected::new(stream.map_err(ConnectError::at(Phase::Connect))?, None))
}

#[cfg(not(unix))]
#[expect(clippy::unused_async, reason = "the other systems' signature")]
async fn unix(_endpoint: &Endpoint) -> Result<Connected, ConnectError> {
    Err(ConnectError::new(Phase::Connect, io::ErrorKind::Unsupported.into()))
}

/// Alternates the address families, as RFC 8305 section 4 asks, the first family of the resolver first.
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v4 = addresses.first().is_some_and(SocketAddr::is_ipv4);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv4() == first_is_v4);
    let mut second = second.into_iter();
    let mut mixed = Vec::new();
    for address in first {
        mixed.push(address);
        mixed.extend(second.next());
    }
    mixed.extend(second);
    mixed
}

/// Between attempts to different addresses of one name (RFC 8305, "Connection Attempt Delay").
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Tries the addresses in turn, each getting a head start over the next; a failure starts the next at once, and the
/// first that connects wins.
async fn staggered<S, F>(addresses: Vec<SocketAddr>, connect: impl Fn(SocketAddr) -> F) -> io::Result<S>
where
    F: Future<Output = io::Result<S>> + Send,
{
    let mut rest = addresses.into_iter();
    let mut attempts: Vec<Pin<Box<F>>> = Vec::new();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    loop {
        match rest.next() {
            Some(address) => attempts.push(Box::pin(connect(address))),
            None if attempts.is_empty() => return Err(last),
            None => {}
        }
        let first = std::future::poll_fn(|cx| poll_first(&mut attempts, cx));
        let result = if rest.len() == 0 {
            first.await
        } else {
            match timeout(ATTEMPT_DELAY, first).await {
                Ok(result) => result,
                Err(_elapsed) => continue,
            }
        };
        match result {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
}

/// Polls every attempt; one that ends is taken out.
fn poll_first<F: Future>(attempts: &mut Vec<Pin<Box<F>>>, cx: &mut Context<'_>) -> Poll<F::Output> {
    for index in 0..attempts.len() {
        if let Some(attempt) = attempts.get_mut(index)
            && let Poll::Ready(result) = attempt.as_mut().poll(cx)
        {
            drop(attempts.remove(index));
            return Poll::Ready(result);
        }
    }
    Poll::Pending
}

/// Probes of an idle connection start after 30 s, 5 s apart, three of them.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(5), 3);

/// Written bytes that the peer's kernel does not acknowledge for so long end the connection.
#[cfg(target_os = "linux")]
const USER_TIMEOUT: Duration = Duration::from_secs(10);

fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    let (idle, interval, retries) = KEEPALIVE;
    let keepalive = socket2::TcpKeepalive::new().with_time(idle).with_interval(interval);
    #[cfg(not(windows))]
    let keepalive = keepalive.with_retries(retries);
    socket.set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;
    use crate::driver::clock;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn families_take_turns_and_the_resolvers_first_goes_first() {
        let mixed =
            interleave(["[::1]:1", "[::2]:1", "1.1.1.1:1", "[::3]:1", "2.2.2.2:1"].map(address).into());
        assert_eq!(mixed, ["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"].map(address));
        assert!(interleave(Vec::new()).is_empty());
    }

    /// Runs attempts that each take so long and end so; gives when each began and what came of it.
    async fn race(script: &'static [(u64, bool)]) -> (Vec<u128>, Result<u16, io::ErrorKind>, u128) {
        let began = Mutex::new(Vec::new());
        let start = clock::now();
        let addresses = (0..script.len()).map(|n| SocketAddr::from(([127, 0, 0, 1], n as u16))).collect();
        let result = staggered(addresses, |address| {
            began.lock().push((clock::now() - start).as_millis());
            let (after, connects) = script[usize::from(address.port())];
            async move {
                tokio::time::sleep(Duration::from_millis(after)).await;
                if connects { Ok(address.port()) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
            }
        })
        .await;
        (began.into_inner(), result.map_err(|error| error.kind()), (clock::now() - start).as_millis())
    }

    #[tokio::test(start_paused = true)]
    async fn each_address_gets_a_head_start_and_the_first_to_connect_wins() {
        // The first never answers in time: the second wins although it began later.
        assert_eq!(race(&[(10_000, true), (20, true), (1, true)]).await, (vec![0, 250], Ok(1), 270));
        // A slow first one still wins when it connects before the others do.
        assert_eq!(race(&[(300, true), (10_000, true)]).await, (vec![0, 250], Ok(0), 300));
        // A refusal starts the next at once.
        assert_eq!(race(&[(5, false), (5, false), (5, true)]).await, (vec![0, 5, 10], Ok(2), 15));
        // All refused is the last refusal; none to try is an error of its own.
        assert_eq!(
            race(&[(5, false), (300, false)]).await,
            (vec![0, 5], Err(io::ErrorKind::ConnectionRefused), 305)
        );
        assert_eq!(race(&[]).await, (vec![], Err(io::ErrorKind::NotFound), 0));
    }

    #[derive(Debug)]
    struct Moving(Mutex<Vec<SocketAddr>>);

    impl Resolver for Moving {
        fn resolve(&self, host: &str, _port: u16) -> Resolving {
            assert_eq!(host, "redis.test");
            let next = self.0.lock().remove(0);
            Box::pin(async move { Ok(vec![next]) })
        }
    }

    #[tokio::test]
    async fn a_name_is_asked_again_at_each_dial() {
        let first = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let second = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addresses = vec![first.local_addr().unwrap(), second.local_addr().unwrap()];
        let direct = Direct::default().resolver(Arc::new(Moving(Mutex::new(addresses.clone()))));
        let endpoint = Endpoint::new("redis.test", 6379);
        for address in addresses {
            assert_eq!(direct.connect(&endpoint).await.unwrap().peer, Some(address));
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn sockets_notice_a_peer_that_is_gone() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::new("127.0.0.1", listener.local_addr().unwrap().port());
        let stream = Direct::default().tcp(&endpoint).await.unwrap();
        let socket = socket2::SockRef::from(&stream);
        assert!(stream.nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
    }
}
