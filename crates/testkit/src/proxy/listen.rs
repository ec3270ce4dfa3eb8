//! The listening side: accepts connections and owns their tasks.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

use super::connection;
use super::handle::{Both, ConnectionId, Listen, ProxyHandle, State};
use crate::launcher::ReservedPort;

const BACKLOG: u32 = 128;
/// Seed of the jitter when none is given; any number does.
const DEFAULT_SEED: u64 = 7;

/// A running proxy. Its connections end with this guard.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    handle: ProxyHandle,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy before `upstream`, on a free loopback port.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is kept.
    pub async fn start(upstream: SocketAddr) -> io::Result<Self> {
        Self::start_seeded(upstream, DEFAULT_SEED).await
    }

    /// Starts a proxy whose jitter is drawn from `seed`.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is kept.
    pub async fn start_seeded(upstream: SocketAddr, seed: u64) -> io::Result<Self> {
        let port = ReservedPort::reserve(false).map_err(io::Error::other)?;
        let addr = port.addr();
        let (listen, orders) = mpsc::channel(1);
        let state =
            State { upstream, rules: Both::default(), live: std::collections::BTreeMap::new(), accepted: 0 };
        let handle = ProxyHandle { state: Arc::new(Mutex::new(state)), listen };
        let task = Listening { port, orders, state: Arc::clone(&handle.state), seed };
        let listener = task.listen()?;
        let task = tokio::spawn(task.run(listener));
        let proxy = Self { addr, handle, task };
        // One turn of the listening task, so that what it answers first is not a surprise.
        proxy.handle.accept().await?;
        Ok(proxy)
    }

    /// Returns the address that clients connect to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns a handle that steers the proxy.
    pub fn handle(&self) -> ProxyHandle {
        self.handle.clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The task owns the listener and the connections' tasks: they all end with it.
        self.task.abort();
    }
}

struct Listening {
    port: ReservedPort,
    orders: mpsc::Receiver<Listen>,
    state: Arc<Mutex<State>>,
    seed: u64,
}

impl Listening {
    fn listen(&self) -> io::Result<TcpListener> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(self.port.addr())?;
        socket.listen(BACKLOG)
    }

    async fn run(mut self, listener: TcpListener) {
        let mut listener = Some(listener);
        let mut connections = JoinSet::new();
        loop {
            let accepted = async {
                match &listener {
                    Some(listener) => listener.accept().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // Orders first: a flood of connections must not keep the proxy from refusing them.
                biased;
                order = self.orders.recv() => {
                    let Some(Listen { wanted, done }) = order else { return };
                    let result = match (wanted, listener.is_some()) {
                        (true, false) => self.listen().map(|again| listener = Some(again)),
                        (true, true) => Ok(()),
                        (false, _) => { listener = None; Ok(()) }
                    };
                    // Whoever asked may have gone.
                    let _gone = done.send(result);
                }
                Some(_ended) = connections.join_next() => {}
                Ok((client, from)) = accepted => {
                    connections.spawn(self.connection(client, from));
                }
            }
        }
    }

    fn connection(&self, client: TcpStream, from: SocketAddr) -> impl Future<Output = ()> + use<> {
        let (id, upstream) = {
            let mut state = self.state.lock();
            state.accepted += 1;
            (ConnectionId(state.accepted), state.upstream)
        };
        let seed = self.seed.wrapping_add(id.number());
        connection::run(id, client, from, upstream, seed, Arc::clone(&self.state))
    }
}
