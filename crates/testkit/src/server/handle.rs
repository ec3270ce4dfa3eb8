//! `EmbeddedServer` and `ServerHandle`: the ends that a test holds.

use std::{fmt, net::SocketAddr, ops::Deref, sync::Arc, time::Duration};

use evenkeel_protocol::{
    Endpoint, Frame, Notice, Slot,
    maintenance::{SlotMove, SlotRanges},
};
use tokio::time::Instant;

use super::{
    clock,
    config::{Builder, Config, Spread},
    counters::{Address, AddressCounters, ConnectionInfo},
    engine::Engine,
    error::Error,
    listener::{Door, accept, bind, listen_again, retire},
    maintenance::{Announced, Audience, MaintenanceSupport},
    moves::{self, Move, Moving},
    out::Proto,
    record::Recorded,
    script::{Script, ScriptFn},
    shared::Shared,
};

/// How often keys whose time is over are removed though nobody asks for them, as in a real server.
const HOUSEKEEPING: Duration = Duration::from_millis(100);

/// A Redis for tests, within this process, on loopback. It ends when it is dropped: no task and no socket is left.
///
/// It is used through its [`ServerHandle`], which it dereferences to.
#[derive(Debug)]
pub struct EmbeddedServer {
    handle: ServerHandle,
}

impl EmbeddedServer {
    /// Settings to start from.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Starts a server with one address and all defaults.
    ///
    /// # Cancel safety
    ///
    /// Safe: what was started is ended.
    pub async fn start() -> Result<Self, Error> {
        Self::builder().start().await
    }

    pub(super) async fn launch(
        config: Config,
        count: usize,
        spread: Spread,
        hostnames: Vec<String>,
        scripts: Vec<(String, ScriptFn)>,
    ) -> Result<Self, Error> {
        let has_front = count > 1 && !config.cluster;
        let bound = bind(count, has_front, spread).await?;
        let mut engine = Engine::new(config, clock::now());
        let local = |listener: &tokio::net::TcpListener| {
            listener
                .local_addr()
                .map_err(|source| Error::Listen { addr: SocketAddr::from(([127, 0, 0, 1], 0)), source })
        };
        let mut names = hostnames.into_iter();
        for listener in &bound.addresses {
            engine.addresses.push(Address::new(local(listener)?, names.next()));
        }
        engine.found_cluster();
        for (source, script) in scripts {
            engine.scripts.register(&source, script);
        }
        let front = bound.front.as_ref().map(local).transpose()?;
        let shared = Arc::new(Shared::new(engine, front));
        // From here on a drop ends what has been started.
        let server = Self { handle: ServerHandle { shared: Arc::clone(&shared) } };
        for (index, listener) in bound.addresses.into_iter().enumerate() {
            shared.spawn_listener(index, accept(listener, Arc::clone(&shared), Door::Address(index)));
        }
        if let Some(listener) = bound.front {
            shared.spawn_listener(count, accept(listener, Arc::clone(&shared), Door::Front));
        }
        let keeper = Arc::clone(&shared);
        shared.spawn(async move {
            loop {
                tokio::time::sleep(HOUSEKEEPING).await;
                keeper.with(Engine::expire_all);
            }
        });
        Ok(server)
    }

    /// Another handle, for tasks beside the test.
    pub fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }

    /// Ends the server and waits until its last task has ended. A drop ends it as well, without waiting.
    ///
    /// # Cancel safety
    ///
    /// Safe: the server ends all the same.
    pub async fn shutdown(self) {
        let (mut tasks, listeners) = self.handle.shared.end();
        for listener in listeners {
            // An aborted task ends with an error that says so.
            let _aborted = listener.await;
        }
        while tasks.join_next().await.is_some() {}
    }
}

impl Deref for EmbeddedServer {
    type Target = ServerHandle;

    fn deref(&self) -> &ServerHandle {
        &self.handle
    }
}

impl Drop for EmbeddedServer {
    fn drop(&mut self) {
        self.handle.shared.end();
    }
}

/// Looks at an [`EmbeddedServer`] and makes trouble on it. Clones are cheap and do not keep the server alive.
#[derive(Clone)]
pub struct ServerHandle {
    shared: Arc<Shared>,
}

impl fmt::Debug for ServerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerHandle").field("addr", &self.addr()).finish_non_exhaustive()
    }
}

impl ServerHandle {
    /// The address for a client's configuration: the front door, or the only address.
    pub fn addr(&self) -> SocketAddr {
        self.shared.front.unwrap_or_else(|| self.address(0))
    }

    /// [`addr`](Self::addr) as `redis://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.addr())
    }

    /// The address with this index; the last one when there are fewer.
    pub fn address(&self, index: usize) -> SocketAddr {
        self.shared.with(|engine| {
            let address = engine.addresses.get(index).or_else(|| engine.addresses.last());
            address.map_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)), |address| address.socket)
        })
    }

    /// [`address`](Self::address) as an endpoint.
    pub fn endpoint(&self, index: usize) -> Endpoint {
        let addr = self.address(index);
        Endpoint::new(&addr.ip().to_string(), addr.port())
    }

    /// How many addresses there are, without the front door.
    pub fn addresses(&self) -> usize {
        self.shared.with(|engine| engine.addresses.len())
    }

    // --- maintenance

    /// Decides what becomes of `CLIENT MAINT_NOTIFICATIONS` from here on; who has opted in stays so.
    pub fn set_maintenance(&self, support: MaintenanceSupport) {
        self.shared.with(|engine| engine.maintenance.support = support);
    }

    /// Announces maintenance to those connections of the audience that opted in and speak RESP3.
    ///
    /// A notice without a sequence id gets the next one. Nothing else happens: no connection is closed. A MOVING is
    /// told again to late joiners of its addresses until its grace ends; a MIGRATED or FAILED_OVER is told to every
    /// late joiner until the next one.
    pub fn announce(&self, notice: &Notice, audience: Audience) -> Announced {
        self.shared.with(|engine| engine.announce(notice, audience))
    }

    /// Sends raw bytes to connections, opted in or not, behind whatever they have been sent; gives their number.
    pub fn send_raw(&self, bytes: &[u8], audience: Audience) -> usize {
        self.shared.with(|engine| engine.send_raw(bytes, audience))
    }

    /// Announces a move and plays it in the background, to the end of its grace. The new address listens from now on.
    ///
    /// # Errors
    ///
    /// An address that does not exist, or cannot be listened on again, or a server that has ended.
    ///
    /// # Cancel safety
    ///
    /// Safe: a cancelled call has either announced the move, which then goes on, or nothing but made the new address
    /// listen.
    pub async fn move_endpoint(&self, plan: Move) -> Result<Moving, Error> {
        moves::begin(&self.shared, plan).await
    }

    /// Stops listening on an address and closes its connections; gives their number.
    ///
    /// # Cancel safety
    ///
    /// Safe: the address is closed all the same.
    pub async fn retire(&self, address: usize) -> usize {
        retire(&self.shared, address).await
    }

    /// Listens again on an address that was retired.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn listen(&self, address: usize) -> Result<(), Error> {
        listen_again(&self.shared, address).await
    }

    /// Makes the front door lead to an address; connections that stand stay where they are.
    pub fn set_front_target(&self, address: usize) {
        self.shared.set_front_target(address);
    }

    /// The address that the front door leads to.
    pub fn front_target(&self) -> usize {
        self.shared.front_target()
    }

    // --- trouble

    /// Withholds all replies and pushes of an address, or of all, for a time; commands run meanwhile.
    pub fn hold_replies(&self, address: Option<usize>, time: Duration) {
        self.shared.with(|engine| {
            let until = engine.now + time;
            engine.hold(address, until);
        });
    }

    /// Lets withheld replies go.
    pub fn release_replies(&self, address: Option<usize>) {
        self.shared.with(|engine| engine.release(address));
    }

    /// Runs no command of anybody for a time, or no writes, as CLIENT PAUSE does.
    pub fn pause(&self, time: Duration, writes_only: bool) {
        self.shared.with(|engine| {
            let until = engine.now + time;
            engine.pause_until(until, writes_only);
        });
    }

    /// Ends a pause.
    pub fn unpause(&self) {
        self.shared.with(Engine::unpause);
    }

    /// Closes connections at once; answers not yet written are lost. Gives their number.
    pub fn close(&self, audience: Audience) -> usize {
        self.shared.with(|engine| engine.close_all(audience))
    }

    // --- slots

    /// The address that owns a slot; 0 without a cluster.
    pub fn slot_owner(&self, slot: Slot) -> usize {
        self.shared.with(|engine| engine.cluster.as_ref().map_or(0, |cluster| cluster.owner(slot.number())))
    }

    /// Slots begin to leave their owners for an address: keys that are missing are asked for there (ASK), commands over
    /// keys on both sides are to be tried again.
    ///
    /// # Errors
    ///
    /// There is no such address, or no cluster.
    pub fn begin_migration(&self, slots: &SlotRanges, to: usize) -> Result<(), Error> {
        self.shared.with(|engine| engine.begin_migration(slots, to))
    }

    /// The keys of migrating slots have arrived: they are asked for at the target from now on. Gives their number.
    pub fn hand_over_keys(&self, slots: &SlotRanges) -> usize {
        self.shared.with(|engine| engine.hand_over_keys(slots))
    }

    /// Slots belong to an address from now on, migrating or not; everybody else answers MOVED, and subscriptions to
    /// their shard channels end. Nothing is announced. Gives what moved.
    ///
    /// # Errors
    ///
    /// There is no such address, or no cluster.
    pub fn move_slots(&self, slots: &SlotRanges, to: usize) -> Result<Vec<SlotMove>, Error> {
        self.shared.with(|engine| engine.move_slots(slots, to))
    }

    /// Announces SMIGRATING to everybody who opted in, moves the slots after `within`, and announces SMIGRATED.
    /// Gives the sequence id of the last.
    ///
    /// # Errors
    ///
    /// There is no such address, or no cluster.
    ///
    /// # Cancel safety
    ///
    /// A cancelled call may have announced what then does not happen.
    pub async fn reshard(&self, slots: &SlotRanges, to: usize, within: Duration) -> Result<u64, Error> {
        let start = self.shared.with(|engine| {
            engine.check_node(to)?;
            engine.announce(&Notice::SlotsMigrating { seq: None, slots: slots.clone() }, Audience::All);
            Ok(engine.now)
        })?;
        tokio::time::sleep_until(start + within).await;
        self.shared.with(|engine| {
            let moves = engine.move_slots(slots, to)?;
            Ok(engine.announce(&Notice::SlotsMigrated { seq: None, moves }, Audience::All).seq)
        })
    }

    // --- counters

    /// The counters of an address; zeros for one that does not exist.
    pub fn counters(&self, address: usize) -> AddressCounters {
        self.shared.with(|engine| engine.addresses.get(address).map(|a| a.counters).unwrap_or_default())
    }

    /// The connections that are open, by id.
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        let mut list: Vec<_> = self.shared.with(|engine| {
            engine
                .conns
                .iter()
                .map(|(_, conn)| ConnectionInfo {
                    id: conn.id,
                    address: conn.address,
                    peer: conn.peer,
                    local: conn.local,
                    protocol: if conn.proto() == Proto::Resp3 { 3 } else { 2 },
                    name: conn.name.clone(),
                    library: conn.library.clone(),
                    database: conn.db,
                    maintenance: conn.maintenance,
                    subscriptions: conn.subscriptions() + conn.shard_channels.len(),
                    blocked: conn.blocked.is_some(),
                    commands: conn.commands,
                    commands_after_announcement: conn.commands_after_announcement,
                })
                .collect()
        });
        list.sort_by_key(|conn| conn.id);
        list
    }

    /// Records the latest commands of all connections from here on, at most `capacity` of them; 0 ends it.
    pub fn record(&self, capacity: usize) {
        self.shared.with(|engine| engine.record.start(capacity));
    }

    /// The commands recorded, in the order in which they ran.
    pub fn recorded(&self) -> Vec<Recorded> {
        self.shared.with(|engine| engine.record.commands())
    }

    // --- data

    /// Lets EVAL run `script` when it is called with exactly this source; gives the SHA-1 for EVALSHA. See [`Script`].
    pub fn register_script(
        &self,
        source: &str,
        script: impl Fn(&mut Script<'_>) -> Result<Frame, String> + Send + Sync + 'static,
    ) -> String {
        self.shared.with(|engine| engine.scripts.register(source, ScriptFn::new(script)))
    }

    /// Publishes to a channel and to the patterns that fit, as PUBLISH does; gives the number of receivers.
    pub fn publish(&self, channel: &[u8], payload: &[u8]) -> usize {
        self.shared.with(|engine| engine.publish(channel, payload))
    }
}

impl Engine {
    /// Keeps replies inside until then.
    pub(super) fn hold(&mut self, address: Option<usize>, until: Instant) {
        for (index, held) in self.addresses.iter_mut().enumerate() {
            if address.is_none_or(|wanted| wanted == index) {
                held.held_until = Some(until);
            }
        }
    }

    /// Lets replies go.
    pub(super) fn release(&mut self, address: Option<usize>) {
        for (index, held) in self.addresses.iter_mut().enumerate() {
            if address.is_none_or(|wanted| wanted == index) {
                held.held_until = None;
            }
        }
        for (_, conn) in &self.conns {
            conn.wake.notify_one();
        }
    }
}
