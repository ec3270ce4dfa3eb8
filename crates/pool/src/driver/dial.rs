//! Dialling: a stream, TLS and the handshake, each within its time; few at once to one node.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use evenkeel_protocol::{
    Endpoint, Limits, Reply,
    conn::{
        Connection, Established, Handshake, HandshakeConfig, HandshakeError, Incoming, OptIn, OptInOutcome,
        Progress, Step, Violation,
    },
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::watch,
    time::timeout,
};

use super::{
    connect::{Connected, Connector, Direct},
    credentials::CredentialsProvider,
    gate::Gate,
};

/// A byte stream to a server; a connector's own needs nothing but `impl Stream for Mine {}`.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Bytes that have arrived and were not read yet, as far as the system tells. Default: 0, not known.
    ///
    /// A large string is read into memory of its own size once enough of it is here; what waits in the socket counts.
    fn arrived(&self) -> usize {
        0
    }
}

impl Stream for tokio::io::DuplexStream {}

impl Stream for tokio::net::TcpStream {
    #[cfg(unix)]
    fn arrived(&self) -> usize {
        arrived(self)
    }
}

#[cfg(unix)]
impl Stream for tokio::net::UnixStream {
    fn arrived(&self) -> usize {
        arrived(self)
    }
}

/// What `ioctl(FIONREAD)` says of a socket.
#[cfg(unix)]
fn arrived(socket: &impl std::os::fd::AsFd) -> usize {
    rustix::io::ioctl_fionread(socket).ok().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(0)
}

/// A TLS handshake under way.
pub type Securing = std::pin::Pin<Box<dyn Future<Output = io::Result<Box<dyn Stream>>> + Send>>;

/// Turns a byte stream into an encrypted one; behind it the peer's certificate has been verified.
pub trait Secure: Send + Sync + fmt::Debug {
    /// Shakes hands as a TLS client; `endpoint` is whose name the certificate must have.
    fn secure(&self, stream: Box<dyn Stream>, endpoint: &Endpoint) -> Securing;
}

/// Decides, connection by connection, whether to ask for maintenance notifications, and hears the answer.
pub trait OptInPolicy: Send + Sync + fmt::Debug {
    /// What to ask of the server at `endpoint`, whose address is `peer`; `None` asks nothing.
    fn ask(&self, endpoint: &Endpoint, peer: Option<SocketAddr>) -> Option<OptIn>;

    /// What the server answered; `resp3` when that is what is spoken.
    fn answered(&self, endpoint: &Endpoint, resp3: bool, outcome: &OptInOutcome);
}

/// How connections are made. Cheap to clone.
#[derive(Clone, Debug)]
pub struct DialConfig {
    handshake: Arc<HandshakeConfig>,
    connect_timeout: Duration,
    handshake_timeout: Duration,
    limits: Limits,
    secure: Option<Arc<dyn Secure>>,
    opt_in: Option<Arc<dyn OptInPolicy>>,
    connector: Arc<dyn Connector>,
    credentials: Option<Arc<dyn CredentialsProvider>>,
    gate: Arc<Gate>,
    move_gate: Arc<Gate>,
    /// Of a move that leaves its old connection first: whether a caller waits for it.
    wanted: Option<watch::Receiver<bool>>,
    /// What connections belong to, wherever they are dialled.
    pub(crate) home: Option<Endpoint>,
}

/// Dials to one node at once.
const MAX_DIALS: usize = 4;

/// The same for connections that leave their old one first: their callers wait.
const MAX_MOVES: usize = 32;

impl Default for DialConfig {
    fn default() -> Self {
        Self {
            handshake: Arc::new(HandshakeConfig::default()),
            connect_timeout: Duration::from_secs(2),
            handshake_timeout: Duration::from_secs(2),
            limits: Limits::default(),
            secure: None,
            opt_in: None,
            connector: Arc::new(Direct::default()),
            credentials: None,
            gate: Arc::new(Gate::new(MAX_DIALS)),
            move_gate: Arc::new(Gate::new(MAX_MOVES)),
            wanted: None,
            home: None,
        }
    }
}

impl DialConfig {
    /// What each connection is told first. Default: HELLO alone.
    #[must_use]
    pub fn handshake(mut self, handshake: HandshakeConfig) -> Self {
        self.handshake = Arc::new(handshake);
        self
    }

    /// Until the socket is connected, TLS included. Default: 2 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Until the handshake has answered; a stopped server accepts and never answers. Default: 2 s.
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// What replies may ask of memory.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Encrypts every connection. Default: none is.
    #[must_use]
    pub fn secure(mut self, secure: Option<Arc<dyn Secure>>) -> Self {
        self.secure = secure;
        self
    }

    /// Who decides on maintenance notifications. Default: the handshake's own setting.
    #[must_use]
    pub fn opt_in_policy(mut self, policy: Option<Arc<dyn OptInPolicy>>) -> Self {
        self.opt_in = policy;
        self
    }

    /// Who opens the stream. Default: [`Direct`], which knows TCP and Unix sockets.
    #[must_use]
    pub fn connector(mut self, connector: Arc<dyn Connector>) -> Self {
        self.connector = connector;
        self
    }

    /// Who says, at each dial, with what to log in; in place of the handshake's own credentials. Default: nobody.
    #[must_use]
    pub fn credentials(mut self, provider: Option<Arc<dyn CredentialsProvider>>) -> Self {
        self.credentials = provider;
        self
    }

    /// Dials to one node under way at once, over all who share this configuration and its clones; others wait in line.
    /// Default: 4.
    #[must_use]
    pub fn max_dials(mut self, max: NonZeroUsize) -> Self {
        self.gate = Arc::new(Gate::new(max.get()));
        self
    }

    /// The same for the dials of moves that callers wait for, since the old connection is left first (quietly, in place);
    /// they do not wait behind ordinary ones. Default: 32.
    #[must_use]
    pub fn max_moves(mut self, max: NonZeroUsize) -> Self {
        self.move_gate = Arc::new(Gate::new(max.get()));
        self
    }

    /// The same, for a dial of a move that leaves its old connection first; those that callers wait for go first.
    pub(crate) fn of_move(mut self, wanted: watch::Receiver<bool>) -> Self {
        self.wanted = Some(wanted);
        self
    }

    /// What each connection is told first.
    pub fn handshake_config(&self) -> &HandshakeConfig {
        &self.handshake
    }
}

/// What went on when a dial failed.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The socket was being connected.
    Connect,
    /// The server was being greeted; the step that did not answer.
    Handshake(Option<Step>),
    /// The name was being resolved.
    Resolve,
    /// TLS was being negotiated.
    Tls,
}

/// Why there is no connection. The reason is shared, so that all who wait can be told.
#[non_exhaustive]
#[derive(Clone, Debug, thiserror::Error)]
pub enum DialError {
    /// The peer closed during the handshake.
    #[error("{endpoint} closed the connection during the handshake")]
    Closed {
        /// Where.
        endpoint: Endpoint,
        /// The oldest step that it had not answered.
        step: Option<Step>,
    },
    /// The handshake failed.
    #[error("the handshake with {endpoint} failed")]
    Handshake {
        /// Where.
        endpoint: Endpoint,
        /// The step and why.
        #[source]
        cause: HandshakeError,
    },
    /// The network said no: refused, unreachable, reset, or the name does not resolve.
    #[error("cannot reach {endpoint}")]
    Io {
        /// Where.
        endpoint: Endpoint,
        /// When.
        phase: Phase,
        /// What the system said.
        #[source]
        cause: Arc<io::Error>,
    },
    /// What answers does not speak RESP.
    #[error("what listens at {endpoint} is not a Redis server")]
    NotRedis {
        /// Where.
        endpoint: Endpoint,
        /// What was wrong.
        #[source]
        cause: Violation,
    },
    /// Nothing came in time.
    #[error("{endpoint} did not answer in time")]
    TimedOut {
        /// Where.
        endpoint: Endpoint,
        /// What was waited for.
        phase: Phase,
    },
}

impl DialError {
    /// True when nobody listens there.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Io { phase: Phase::Connect, cause, .. } if cause.kind() == io::ErrorKind::ConnectionRefused)
    }

    /// Where it was tried.
    pub fn endpoint(&self) -> &Endpoint {
        match self {
            Self::Closed { endpoint, .. }
            | Self::Handshake { endpoint, .. }
            | Self::Io { endpoint, .. }
            | Self::NotRedis { endpoint, .. }
            | Self::TimedOut { endpoint, .. } => endpoint,
        }
    }
}

/// Connections of this process, counted: a number is never used again.
static CONNECTIONS: AtomicU64 = AtomicU64::new(1);

/// What is known of a connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnInfo {
    /// Its number in this process.
    pub number: u64,
    /// The configured endpoint that it belongs to, wherever announcements and failovers have led it.
    pub home: Endpoint,
    /// Where it was dialled.
    pub endpoint: Endpoint,
    /// The address behind the name; `None` for a Unix socket.
    pub peer: Option<SocketAddr>,
    /// Our own end, which the server knows this connection by where nothing translates addresses between.
    pub local: Option<SocketAddr>,
    /// What the handshake told.
    pub established: Established,
}

/// A connection that may be used.
pub struct Dialed {
    pub(crate) stream: Box<dyn Stream>,
    /// Bytes read behind the handshake's last reply.
    pub(crate) read: BytesMut,
    /// Pushes that came during the handshake.
    pub(crate) pushes: Vec<Reply>,
    /// Who it is.
    pub info: ConnInfo,
}

impl fmt::Debug for Dialed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialed").field("info", &self.info).finish_non_exhaustive()
    }
}

/// Connects to `endpoint` and shakes hands.
///
/// # Errors
/// What failed, in which phase, and where.
///
/// # Cancel safety
/// Dropping the future closes the socket; nothing else remembers it.
pub async fn dial(endpoint: &Endpoint, config: &DialConfig) -> Result<Dialed, DialError> {
    dial_at(endpoint, None, config).await
}

/// As [`dial`], to this address of `endpoint` rather than to what a lookup says; under TLS the name still counts.
///
/// # Errors
/// As [`dial`].
///
/// # Cancel safety
/// As [`dial`].
pub async fn dial_at(
    endpoint: &Endpoint,
    address: Option<IpAddr>,
    config: &DialConfig,
) -> Result<Dialed, DialError> {
    // The line ends: whoever stands in front is gone within the same times.
    let _place = match &config.wanted {
        Some(wanted) => config.move_gate.enter_wanted(endpoint, wanted.clone()).await,
        None => config.gate.enter(endpoint).await,
    };
    let timed_out = |phase| DialError::TimedOut { endpoint: endpoint.clone(), phase };
    let connecting = timeout(config.connect_timeout, connect(endpoint, address, config)).await;
    let Connected { stream, peer, local } = connecting.map_err(|_elapsed| timed_out(Phase::Connect))??;
    let mut handshake = config.handshake_config().clone();
    if let Some(provider) = &config.credentials {
        handshake = handshake.credentials(provider.current().1);
    }
    if let Some(policy) = &config.opt_in {
        handshake = handshake.opt_in(policy.ask(endpoint, peer));
    }
    let mut greeting = Greeting::new(stream, handshake, config.limits);
    match timeout(config.handshake_timeout, greeting.run(endpoint)).await {
        Ok(Ok(established)) => {
            if let Some(policy) = &config.opt_in {
                policy.answered(endpoint, established.server.resp3, &established.maintenance);
            }
            Ok(Dialed {
                stream: greeting.stream,
                read: greeting.read,
                pushes: greeting.pushes,
                info: ConnInfo {
                    number: CONNECTIONS.fetch_add(1, Ordering::Relaxed),
                    home: config.home.as_ref().unwrap_or(endpoint).clone(),
                    endpoint: endpoint.clone(),
                    peer,
                    local,
                    established,
                },
            })
        }
        Ok(Err(error)) => Err(error),
        Err(_elapsed) => Err(timed_out(Phase::Handshake(greeting.handshake.waiting_for()))),
    }
}

async fn connect(
    endpoint: &Endpoint,
    address: Option<IpAddr>,
    config: &DialConfig,
) -> Result<Connected, DialError> {
    let failed = |phase, cause| DialError::Io { endpoint: endpoint.clone(), phase, cause: Arc::new(cause) };
    let place = address.map(|address| Endpoint::new(&address.to_string(), endpoint.port()));
    let connected = config.connector.connect(place.as_ref().unwrap_or(endpoint)).await;
    let Connected { stream, peer, local } = connected.map_err(|error| failed(error.phase, error.cause))?;
    match &config.secure {
        None => Ok(Connected { stream, peer, local }),
        // The name counts, whatever address of it was dialled.
        Some(secure) => match secure.secure(stream, endpoint).await {
            Ok(stream) => Ok(Connected { stream, peer, local }),
            Err(cause) => Err(failed(Phase::Tls, cause)),
        },
    }
}

/// Bytes of one reply before the handshake is through, and of all pushes together: a peer that nobody knows yet is given
/// no more.
const EARLY_BYTES: usize = 1 << 20;

/// Pushes before the handshake is through.
const EARLY_PUSHES: usize = 256;

/// The handshake on a stream.
struct Greeting {
    stream: Box<dyn Stream>,
    read: BytesMut,
    pushes: Vec<Reply>,
    /// Bytes of them.
    pushed: usize,
    handshake: Handshake,
    conn: Connection<()>,
    out: BytesMut,
}

impl Greeting {
    fn new(stream: Box<dyn Stream>, handshake: HandshakeConfig, limits: Limits) -> Self {
        let (handshake, out) = Handshake::start(handshake);
        let small = |limit: usize| limit.min(EARLY_BYTES);
        let mut conn =
            Connection::new(limits.max_bulk(small(limits.bulk())).max_reply(small(limits.reply())));
        for _ in 0..handshake.owed() {
            conn.sent(());
        }
        Self { stream, read: BytesMut::new(), pushes: Vec::new(), pushed: 0, handshake, conn, out }
    }

    /// Keeps a push until the connection is in use.
    fn keep(&mut self, push: Reply) -> Result<(), Violation> {
        self.pushed += push.as_bytes().len();
        self.pushes.push(push);
        let fits = self.pushed <= EARLY_BYTES && self.pushes.len() <= EARLY_PUSHES;
        if fits { Ok(()) } else { Err(Violation::Flood) }
    }

    async fn run(&mut self, endpoint: &Endpoint) -> Result<Established, DialError> {
        let io = |cause| DialError::Io {
            endpoint: endpoint.clone(),
            phase: Phase::Handshake(None),
            cause: Arc::new(cause),
        };
        loop {
            self.stream.write_all(&self.out).await.map_err(io)?;
            self.out.clear();
            while self.out.is_empty() {
                let not_redis = |cause| DialError::NotRedis { endpoint: endpoint.clone(), cause };
                let next = self.conn.next(&mut self.read).map_err(not_redis)?;
                match next {
                    Some(Incoming::Reply((), reply)) => match self.handshake.handle_reply(&reply) {
                        Ok(Progress::Done(established)) => return Ok(established),
                        Ok(Progress::Write(out)) => {
                            for _ in 0..self.handshake.owed() {
                                self.conn.sent(());
                            }
                            self.out = out;
                        }
                        Ok(_) => {}
                        Err(cause) => {
                            return Err(DialError::Handshake { endpoint: endpoint.clone(), cause });
                        }
                    },
                    Some(Incoming::Push(push)) => self.keep(push).map_err(not_redis)?,
                    Some(_) => {}
                    None => {
                        if self.stream.read_buf(&mut self.read).await.map_err(io)? == 0 {
                            return Err(match self.handshake.failure_so_far() {
                                Some(cause) => {
                                    DialError::Handshake { endpoint: endpoint.clone(), cause: cause.clone() }
                                }
                                None => DialError::Closed {
                                    endpoint: endpoint.clone(),
                                    step: self.handshake.waiting_for(),
                                },
                            });
                        }
                    }
                }
            }
        }
    }
}
