//! A hosted Redis made of a real one: several addresses over one server, which announce maintenance.
//!
//! No open server knows `CLIENT MAINT_NOTIFICATIONS`. A front lets the command through, turns the server's refusal into `+OK`,
//! remembers which connections opted in under RESP3, and slips announcements in between their replies. So every real
//! server can be made to announce a move, while it goes on answering everything else itself.

mod notice;
mod sniffer;
mod state;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

pub use self::notice::Notice;
use self::state::FrontState;
use super::clock;
use super::handle::{ProxyHandle, When};
use super::listen::Proxy;
use super::rules::{Direction, Rules};

/// A real server behind several addresses that announce maintenance. Everything ends with this guard.
#[derive(Debug)]
pub struct Front {
    proxies: Vec<Proxy>,
    state: Arc<Mutex<FrontState>>,
    /// The ends of grace times to come.
    graces: Mutex<Vec<JoinHandle<()>>>,
}

/// What an announcement reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Announced {
    /// The sequence id that it carries.
    pub sequence: u64,
    /// The connections that were told: those that had opted in.
    pub connections: usize,
}

impl Front {
    /// Puts `addresses` loopback addresses before a server. All accept connections.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is kept.
    pub async fn start(upstream: SocketAddr, addresses: usize) -> io::Result<Self> {
        let state = Arc::new(Mutex::new(FrontState::default()));
        let mut proxies = Vec::new();
        for n in 0..addresses {
            let proxy = Proxy::start(upstream).await?;
            let seen = Arc::clone(&state);
            let to_server = move |id, bytes: &mut bytes::BytesMut| seen.lock().client_sent(n, id, bytes);
            proxy.handle().set(Direction::ToServer, Rules::new().edit(to_server));
            let seen = Arc::clone(&state);
            let to_client =
                move |id, bytes: &mut bytes::BytesMut| seen.lock().server_sent(n, id, bytes, clock::now());
            proxy.handle().set(Direction::ToClient, Rules::new().edit(to_client));
            state.lock().addresses.push(proxy.addr());
            proxies.push(proxy);
        }
        Ok(Self { proxies, state, graces: Mutex::new(Vec::new()) })
    }

    /// Returns the addresses that clients connect to.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.state.lock().addresses.clone()
    }

    /// Returns the handle of one address's proxy, for further trouble.
    ///
    /// Setting rules on it for a whole direction ends the front's own work there.
    pub fn proxy(&self, address: usize) -> Option<ProxyHandle> {
        self.proxies.get(address).map(Proxy::handle)
    }

    /// Connects what is accepted from here on to another server, on all addresses.
    pub fn set_upstream(&self, upstream: SocketAddr) {
        for proxy in &self.proxies {
            proxy.handle().set_upstream(upstream);
        }
    }

    /// Refuses the opt-in, as an open server does, or accepts it again. Default: accepts.
    pub fn refuse_opt_in(&self, refuses: bool) {
        self.state.lock().refuses = refuses;
    }

    /// Returns how many live connections of an address have opted in.
    pub fn opted_in(&self, address: usize) -> usize {
        self.proxies.get(address).map_or(0, |proxy| self.listeners(address, proxy).len())
    }

    /// Announces that everybody on address `from` is to move to address `to`, and retires `from` when `grace` is over: its
    /// connections are closed and new ones refused. `to` accepts connections from now on.
    ///
    /// Who opts in on `from` meanwhile is told as well, with the time that is left. Returns `None` for an address that the front
    /// does not have.
    ///
    /// # Errors
    ///
    /// When `to` cannot be listened on again.
    ///
    /// # Cancel safety
    ///
    /// Safe: it is announced or not announced.
    pub async fn announce_move(
        &self,
        from: usize,
        to: usize,
        grace: Duration,
    ) -> io::Result<Option<Announced>> {
        let (Some(old), Some(new)) = (self.proxies.get(from), self.proxies.get(to)) else { return Ok(None) };
        new.handle().accept().await?;
        let until = clock::now() + grace;
        let sequence = self.state.lock().begin_move(from, to, until);
        let told =
            self.tell(from, old, |state, endpoint_type| state.moving(from, endpoint_type, clock::now()));
        let (old, state) = (old.handle(), Arc::clone(&self.state));
        let retire = tokio::spawn(async move {
            tokio::time::sleep_until(until).await;
            if state.lock().end_move(from, sequence) {
                // The proxy may have gone meanwhile, and its connections with it.
                let _gone = old.refuse().await;
                old.close_all();
            }
        });
        let mut graces = self.graces.lock();
        graces.retain(|grace| !grace.is_finished());
        graces.push(retire);
        Ok(Some(Announced { sequence, connections: told }))
    }

    /// Announces something else than a move on one address. Nothing happens to its connections.
    pub fn announce(&self, address: usize, notice: Notice) -> Option<Announced> {
        let proxy = self.proxies.get(address)?;
        let sequence = self.state.lock().next_sequence();
        let frame = notice.frame(sequence);
        let connections = self.tell(address, proxy, |_state, _endpoint_type| Some(frame.clone()));
        Some(Announced { sequence, connections })
    }

    fn tell(
        &self,
        address: usize,
        proxy: &Proxy,
        frame: impl Fn(&FrontState, state::EndpointType) -> Option<Bytes>,
    ) -> usize {
        let mut told = 0;
        for (id, endpoint_type) in self.listeners(address, proxy) {
            let frame = frame(&self.state.lock(), endpoint_type);
            let handle = proxy.handle();
            told += usize::from(
                frame.is_some_and(|frame| handle.inject(id, Direction::ToClient, frame, When::BetweenFrames)),
            );
        }
        told
    }

    fn listeners(
        &self,
        address: usize,
        proxy: &Proxy,
    ) -> Vec<(super::handle::ConnectionId, state::EndpointType)> {
        let live: Vec<_> = proxy.handle().connections().into_iter().map(|live| live.id).collect();
        self.state.lock().listeners(address, &live)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        for grace in self.graces.get_mut() {
            grace.abort();
        }
    }
}
