//! What a test holds to steer a proxy and its connections.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};

use super::rules::{CutHow, Direction, Rules};

/// Orders that wait for a connection to carry them out.
pub(super) const MAX_ORDERS: usize = 64;

/// A connection through the proxy, counted from 1 in the order of acceptance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub(super) u64);

impl ConnectionId {
    /// Returns the number.
    pub fn number(self) -> u64 {
        self.0
    }
}

/// When injected bytes go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum When {
    /// Where the last RESP frame has ended, or will end: right for a push, or for a reply too many.
    BetweenFrames,
    /// At once, in the middle of a frame if one is half sent.
    Now,
}

/// A live connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// Its id.
    pub id: ConnectionId,
    /// The client's address.
    pub client: SocketAddr,
    /// The server that it was connected to; a later change of the proxy's server does not move it.
    pub upstream: SocketAddr,
    /// Bytes delivered to the client.
    pub to_client: u64,
    /// Bytes delivered to the server.
    pub to_server: u64,
}

/// A value for each direction.
#[derive(Clone, Debug, Default)]
pub(super) struct Both<T> {
    pub(super) to_client: T,
    pub(super) to_server: T,
}

impl<T> Both<T> {
    fn of(&self, direction: Direction) -> &T {
        match direction {
            Direction::ToClient => &self.to_client,
            Direction::ToServer => &self.to_server,
        }
    }

    fn of_mut(&mut self, direction: Direction) -> &mut T {
        match direction {
            Direction::ToClient => &mut self.to_client,
            Direction::ToServer => &mut self.to_server,
        }
    }
}

/// Bytes to put into a direction.
#[derive(Debug)]
pub(super) struct Injection {
    pub(super) bytes: Bytes,
    pub(super) when: When,
}

/// One direction of one connection, as the handle reaches it.
#[derive(Debug)]
pub(super) struct Reach {
    pub(super) rules: watch::Sender<Rules>,
    pub(super) injections: mpsc::Sender<Injection>,
    pub(super) delivered: Arc<AtomicU64>,
}

/// One connection, as the handle reaches it.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) client: SocketAddr,
    pub(super) upstream: SocketAddr,
    pub(super) ways: Both<Reach>,
    pub(super) end: mpsc::Sender<CutHow>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) upstream: SocketAddr,
    pub(super) rules: Both<Rules>,
    pub(super) live: BTreeMap<ConnectionId, Live>,
    pub(super) accepted: u64,
}

/// Asks the listening task to listen or not; answered when it is so.
pub(super) struct Listen {
    pub(super) wanted: bool,
    pub(super) done: oneshot::Sender<io::Result<()>>,
}

/// Steers a [`Proxy`](super::Proxy) while it runs. Cheap to clone; does not keep the proxy alive.
#[derive(Clone, Debug)]
pub struct ProxyHandle {
    pub(super) state: Arc<Mutex<State>>,
    pub(super) listen: mpsc::Sender<Listen>,
}

impl ProxyHandle {
    /// Sets the rules of one direction, for all live connections and for those to come.
    pub fn set(&self, direction: Direction, rules: Rules) {
        let mut state = self.state.lock();
        for live in state.live.values() {
            live.ways.of(direction).rules.send_replace(rules.clone());
        }
        *state.rules.of_mut(direction) = rules;
    }

    /// Sets the rules of one direction of one connection. Returns false when the connection is gone.
    pub fn set_on(&self, id: ConnectionId, direction: Direction, rules: Rules) -> bool {
        let state = self.state.lock();
        let live = state.live.get(&id);
        live.map(|live| live.ways.of(direction).rules.send_replace(rules)).is_some()
    }

    /// Lets everything through again, both ways, on all connections.
    pub fn clear(&self) {
        self.set(Direction::ToClient, Rules::new());
        self.set(Direction::ToServer, Rules::new());
    }

    /// Connects what is accepted from here on to another server. Live connections stay where they are.
    pub fn set_upstream(&self, upstream: SocketAddr) {
        self.state.lock().upstream = upstream;
    }

    /// Returns the server that the next connection goes to.
    pub fn upstream(&self) -> SocketAddr {
        self.state.lock().upstream
    }

    /// Slips bytes into a connection. The direction's rules of delay, loss and rewriting do not touch them; stall, slice and
    /// cut do.
    ///
    /// Returns false when the connection is gone or has 64 injections waiting.
    pub fn inject(
        &self,
        id: ConnectionId,
        direction: Direction,
        bytes: impl Into<Bytes>,
        when: When,
    ) -> bool {
        let injection = Injection { bytes: bytes.into(), when };
        let state = self.state.lock();
        state.live.get(&id).is_some_and(|live| live.ways.of(direction).injections.try_send(injection).is_ok())
    }

    /// Ends one connection in an orderly way (FIN to both sides). Returns false when it is gone.
    pub fn close(&self, id: ConnectionId) -> bool {
        self.end(id, CutHow::Close)
    }

    /// Resets one connection (RST to both sides). Returns false when it is gone.
    pub fn reset(&self, id: ConnectionId) -> bool {
        self.end(id, CutHow::Reset)
    }

    /// Ends all live connections in an orderly way. Returns how many there were.
    pub fn close_all(&self) -> usize {
        self.end_all(CutHow::Close)
    }

    /// Resets all live connections. Returns how many there were.
    pub fn reset_all(&self) -> usize {
        self.end_all(CutHow::Reset)
    }

    fn end(&self, id: ConnectionId, how: CutHow) -> bool {
        self.state.lock().live.get(&id).is_some_and(|live| live.end.try_send(how).is_ok())
    }

    fn end_all(&self, how: CutHow) -> usize {
        self.state.lock().live.values().filter(|live| live.end.try_send(how).is_ok()).count()
    }

    /// Returns the live connections, oldest first.
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        let state = self.state.lock();
        let info = |(id, live): (&ConnectionId, &Live)| ConnectionInfo {
            id: *id,
            client: live.client,
            upstream: live.upstream,
            to_client: live.ways.to_client.delivered.load(Ordering::Relaxed),
            to_server: live.ways.to_server.delivered.load(Ordering::Relaxed),
        };
        state.live.iter().map(info).collect()
    }

    /// Returns how many connections were accepted since the start.
    pub fn accepted(&self) -> u64 {
        self.state.lock().accepted
    }

    /// Refuses new connections (ECONNREFUSED), as when no server listens. Live ones go on.
    ///
    /// # Errors
    ///
    /// When the proxy is gone.
    ///
    /// # Cancel safety
    ///
    /// Safe: it is done or not done.
    pub async fn refuse(&self) -> io::Result<()> {
        self.listen(false).await
    }

    /// Accepts new connections again, on the same port.
    ///
    /// # Errors
    ///
    /// When the proxy is gone or cannot listen on its port any more.
    ///
    /// # Cancel safety
    ///
    /// Safe: it is done or not done.
    pub async fn accept(&self) -> io::Result<()> {
        self.listen(true).await
    }

    async fn listen(&self, wanted: bool) -> io::Result<()> {
        let (done, answer) = oneshot::channel();
        let gone = || io::Error::other("the proxy is gone");
        self.listen.send(Listen { wanted, done }).await.map_err(|_unsent| gone())?;
        answer.await.map_err(|_dropped| gone())?
    }
}
