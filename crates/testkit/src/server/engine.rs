//! `Engine`: the data set, its connections and everything that commands change, behind one lock.
//!
//! It knows no socket: sessions bring commands and carry replies away; what others send to a connection waits in
//! its inbox until its session fetches it.

use std::collections::{BTreeSet, HashMap, VecDeque};

use bytes::Bytes;
use slab::Slab;
use tokio::time::Instant;

use super::{
    clock::Clock,
    cluster::Cluster,
    commands::{Command, Ctx, Lookup, pubsub::PubSub},
    config::Config,
    conn::{Blocked, Closing, Conn, ConnKey, ReplyMode},
    counters::Address,
    data::{Database, Entry, Kind},
    fault::Fault,
    maintenance::Maintenance,
    out::{Out, Proto},
    record::Record,
    request::Args,
    script::Scripts,
    tracking::Trackers,
};

/// Waits and watches of one database.
#[derive(Debug, Default)]
pub(super) struct Interest {
    /// Connections blocked on a key, the longest waiting first.
    pub(super) blocked: HashMap<Bytes, VecDeque<ConnKey>>,
    /// Connections that watch a key.
    pub(super) watching: HashMap<Bytes, BTreeSet<ConnKey>>,
}

/// Totals that INFO prints.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) commands: u64,
    pub(super) connections: u64,
    pub(super) error_replies: u64,
    pub(super) expired: u64,
    pub(super) hits: u64,
    pub(super) misses: u64,
}

/// Commands that are held back (`CLIENT PAUSE`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Pause {
    pub(super) until: Instant,
    pub(super) writes_only: bool,
}

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// It was answered, or waits for something of its own.
    Done,
    /// It has not run: the server is paused until then.
    Held(Instant),
}

/// The whole server but its sockets.
pub(super) struct Engine {
    pub(super) config: Config,
    pub(super) clock: Clock,
    /// When the batch that runs began.
    pub(super) now: Instant,
    pub(super) unix_ms: u64,
    pub(super) databases: Vec<Database>,
    pub(super) interest: Vec<Interest>,
    /// Keys that blocked connections may find filled.
    ready: VecDeque<(usize, Bytes)>,
    pub(super) conns: Slab<Conn>,
    next_id: u64,
    /// The connection whose command runs.
    pub(super) current: Option<ConnKey>,
    pub(super) pubsub: PubSub,
    pub(super) trackers: Trackers,
    pub(super) scripts: Scripts,
    pub(super) maintenance: Maintenance,
    pub(super) addresses: Vec<Address>,
    pub(super) cluster: Option<Cluster>,
    pub(super) record: Record,
    pub(super) pause: Option<Pause>,
    pub(super) totals: Totals,
    pub(super) run_id: String,
}

impl Engine {
    pub(super) fn new(config: Config, now: Instant) -> Self {
        let clock = Clock::start();
        let databases = config.databases;
        let mut random = fastrand::Rng::new();
        let maintenance = Maintenance::new(&config);
        Self {
            clock,
            now,
            unix_ms: clock.unix_millis(now),
            databases: (0..databases).map(|_| Database::default()).collect(),
            interest: (0..databases).map(|_| Interest::default()).collect(),
            ready: VecDeque::new(),
            conns: Slab::new(),
            next_id: 1,
            current: None,
            pubsub: PubSub::default(),
            trackers: Trackers::default(),
            scripts: Scripts::default(),
            maintenance,
            addresses: Vec::new(),
            cluster: None,
            record: Record::default(),
            pause: None,
            totals: Totals::default(),
            run_id: (0..40).map(|_| random.char('a'..='f')).collect(),
            config,
        }
    }

    /// Moves the clock; to be called first whenever the lock has been taken.
    pub(super) fn tick(&mut self, now: Instant) {
        self.now = now;
        self.unix_ms = self.clock.unix_millis(now);
        if self.pause.is_some_and(|pause| pause.until <= now) {
            self.pause = None;
        }
    }

    // --- connections

    pub(super) fn connect(
        &mut self,
        address: usize,
        sockets: (std::net::SocketAddr, std::net::SocketAddr),
    ) -> ConnKey {
        let id = self.next_id;
        self.next_id += 1;
        self.totals.connections += 1;
        if let Some(address) = self.addresses.get_mut(address) {
            address.counters.accepted += 1;
            address.counters.open += 1;
        }
        let user = self.config.needs_no_password().then(|| "default".to_owned());
        self.conns.insert(Conn::new(id, address, sockets, user, self.now))
    }

    pub(super) fn disconnect(&mut self, key: ConnKey) {
        self.unblock(key);
        self.unwatch(key);
        self.unsubscribe_all(key);
        self.stop_tracking(key);
        let conn = self.conns.remove(key);
        if let Some(address) = self.addresses.get_mut(conn.address) {
            address.counters.open -= 1;
            if conn.closing == Some(Closing::Now) {
                address.counters.closed_by_server += 1;
            }
        }
    }

    pub(super) fn by_id(&self, id: u64) -> Option<ConnKey> {
        self.conns.iter().find(|(_, conn)| conn.id == id).map(|(key, _)| key)
    }

    /// Ends a connection; its session does the work.
    pub(super) fn close(&mut self, key: ConnKey, how: Closing) {
        if let Some(conn) = self.conns.get_mut(key) {
            conn.closing.get_or_insert(how);
            conn.wake.notify_one();
        }
    }

    /// Writes something that is not the reply of the command that runs.
    pub(super) fn send(&mut self, key: ConnKey, write: impl FnOnce(&mut Out)) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        write(&mut conn.inbox);
        if conn.inbox.buf.len() > self.config.max_output {
            // A peer that does not read must not take all memory.
            conn.closing.get_or_insert(Closing::Now);
        }
        if self.current != Some(key) {
            conn.wake.notify_one();
        }
    }

    // --- data

    pub(super) fn database(&mut self, db: usize) -> &mut Database {
        // Commands take their database from `SELECT`, which checks it.
        let db = if db < self.databases.len() { db } else { 0 };
        #[expect(clippy::indexing_slicing, reason = "there is at least database 0")]
        &mut self.databases[db]
    }

    /// Removes the key when its time is over.
    pub(super) fn expire(&mut self, db: usize, key: &[u8]) {
        let now = self.unix_ms;
        if self.database(db).is_overdue(key, now) {
            self.database(db).remove(key);
            self.totals.expired += 1;
            self.touched(db, key);
        }
    }

    /// Removes every key whose time is over.
    pub(super) fn expire_all(&mut self) {
        for db in 0..self.databases.len() {
            let now = self.unix_ms;
            while let Some(key) = self.database(db).overdue(now) {
                self.expire(db, &key);
            }
        }
    }

    pub(super) fn entry(&mut self, db: usize, key: &[u8]) -> Option<&Entry> {
        self.expire(db, key);
        self.database(db).get(key)
    }

    /// The value of a key, when it is of the kind.
    pub(super) fn read<K: Kind>(&mut self, db: usize, key: &[u8]) -> Result<Option<&mut K>, Fault> {
        self.expire(db, key);
        match self.database(db).value_mut(key) {
            None => Ok(None),
            Some(value) => K::of(value).map(Some).ok_or(Fault::WRONG_TYPE),
        }
    }

    /// The value of a key; made when there is none.
    pub(super) fn make<K: Kind>(&mut self, db: usize, key: &[u8]) -> Result<&mut K, Fault> {
        if self.entry(db, key).is_none() {
            self.database(db).put(key, K::default().wrap());
        }
        self.read(db, key)?.ok_or(Fault::NO_SUCH_KEY)
    }

    pub(super) fn remove(&mut self, db: usize, key: &[u8]) -> bool {
        self.expire(db, key);
        let found = self.database(db).remove(key).is_some();
        if found {
            self.touched(db, key);
        }
        found
    }

    /// After a collection has changed: tells who watches, and removes it when nothing is left in it.
    pub(super) fn changed<K: Kind>(&mut self, db: usize, key: &[u8]) {
        let void = self.database(db).value_mut(key).and_then(K::of).is_some_and(|value| value.is_void());
        if void {
            self.database(db).remove(key);
        }
        self.touched(db, key);
    }

    /// Tells everybody who watches or tracks the key.
    pub(super) fn touched(&mut self, db: usize, key: &[u8]) {
        if let Some(interest) = self.interest.get_mut(db)
            && !interest.watching.is_empty()
            && let Some(watchers) = interest.watching.get(key)
        {
            for &watcher in watchers {
                if let Some(conn) = self.conns.get_mut(watcher) {
                    conn.watch_broken = true;
                }
            }
        }
        self.invalidate(key);
    }

    /// Empties a database and tells who watches or tracks a key of it.
    pub(super) fn flush(&mut self, db: usize) {
        let watched: Vec<Bytes> = self.interest.get(db).map_or_else(Vec::new, |interest| {
            let mut keys: Vec<_> = interest.watching.keys().cloned().collect();
            keys.sort();
            keys
        });
        for key in watched {
            if self.database(db).get(&key).is_some() {
                self.database(db).remove(&key);
                self.touched(db, &key);
            }
        }
        self.database(db).clear();
    }

    // --- blocking

    /// A key may have what a blocked connection waits for.
    pub(super) fn signal(&mut self, db: usize, key: &[u8]) {
        if self.interest.get(db).is_some_and(|interest| interest.blocked.contains_key(key)) {
            self.ready.push_back((db, Bytes::copy_from_slice(key)));
        }
    }

    pub(super) fn block(&mut self, key: ConnKey, blocked: Blocked) {
        let keys = blocked.wait.keys();
        if let Some(interest) = self.interest.get_mut(blocked.db) {
            for name in keys {
                let queue = interest.blocked.entry(name).or_default();
                if !queue.contains(&key) {
                    queue.push_back(key);
                }
            }
        }
        if let Some(conn) = self.conns.get_mut(key) {
            conn.blocked = Some(blocked);
        }
    }

    /// Ends a wait and gives what it was.
    pub(super) fn unblock(&mut self, key: ConnKey) -> Option<Blocked> {
        let blocked = self.conns.get_mut(key)?.blocked.take()?;
        if let Some(interest) = self.interest.get_mut(blocked.db) {
            for name in blocked.wait.keys() {
                if let Some(queue) = interest.blocked.get_mut(&name) {
                    queue.retain(|&waiting| waiting != key);
                    if queue.is_empty() {
                        interest.blocked.remove(&name);
                    }
                }
            }
        }
        Some(blocked)
    }

    /// Ends waits whose time is over.
    pub(super) fn time_out(&mut self, key: ConnKey) {
        let over = self
            .conns
            .get(key)
            .and_then(|conn| conn.blocked.as_ref()?.until)
            .is_some_and(|until| until <= self.now);
        if over && let Some(blocked) = self.unblock(key) {
            self.send(key, |out| blocked.wait.time_out(out));
        }
    }

    /// Gives what has come to the connections that wait for it, the longest waiting first.
    fn serve_ready(&mut self) {
        while let Some((db, name)) = self.ready.pop_front() {
            let waiting: Vec<ConnKey> = self
                .interest
                .get(db)
                .and_then(|interest| interest.blocked.get(&name))
                .map(|queue| queue.iter().copied().collect())
                .unwrap_or_default();
            for key in waiting {
                if self.entry(db, &name).is_none() {
                    break;
                }
                let Some(conn) = self.conns.get_mut(key) else { continue };
                let Some(blocked) = conn.blocked.clone() else { continue };
                let mut out = Out::new(conn.proto());
                if self.attempt(blocked.db, &blocked.wait, &mut out) {
                    self.unblock(key);
                    self.send(key, |inbox| inbox.buf.extend_from_slice(&out.buf));
                }
            }
        }
    }

    // --- transactions

    pub(super) fn unwatch(&mut self, key: ConnKey) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        conn.watch_broken = false;
        for (db, name) in std::mem::take(&mut conn.watched) {
            let Some(interest) = self.interest.get_mut(db) else { continue };
            if let Some(watchers) = interest.watching.get_mut(&name) {
                watchers.remove(&key);
                if watchers.is_empty() {
                    interest.watching.remove(&name);
                }
            }
        }
    }

    // --- commands

    /// Runs one command of a connection; its reply, and what was pushed to the connection meanwhile, goes to `out`.
    pub(super) fn execute(&mut self, key: ConnKey, args: Args<'_>, out: &mut Out) -> Flow {
        let Some(conn) = self.conns.get_mut(key) else { return Flow::Done };
        let found = Lookup::of(args);
        if let Some(pause) = self.pause
            && (!pause.writes_only
                || found.command().is_some_and(|command| conn.is_held_by_write_pause(command)))
        {
            return Flow::Held(pause.until);
        }
        conn.commands += 1;
        conn.last_used = self.now;
        self.totals.commands += 1;
        if let Some(address) = self.addresses.get_mut(conn.address) {
            address.counters.commands += 1;
            address.counters.commands_after_announcement += u64::from(address.is_moving(self.now));
        }
        conn.commands_after_announcement += u64::from(conn.announced);
        self.record.note(conn, args);
        out.proto = conn.proto();
        self.current = Some(key);
        let start = out.buf.len();
        let done = self.dispatch(key, &found, args, out);
        if let Err(fault) = done {
            out.buf.truncate(start);
            out.error(&fault.0);
            self.totals.error_replies += 1;
        }
        if !self.ready.is_empty() {
            self.serve_ready();
        }
        self.current = None;
        let Some(conn) = self.conns.get_mut(key) else { return Flow::Done };
        match conn.reply {
            ReplyMode::On => {}
            ReplyMode::Off => out.buf.truncate(start),
            ReplyMode::SkipNext => {
                out.buf.truncate(start);
                conn.reply = ReplyMode::Skip;
            }
            ReplyMode::Skip => {
                out.buf.truncate(start);
                conn.reply = ReplyMode::On;
            }
        }
        if !conn.inbox.buf.is_empty() {
            out.buf.extend_from_slice(&conn.inbox.buf);
            conn.inbox.buf.clear();
        }
        Flow::Done
    }

    fn dispatch(&mut self, key: ConnKey, found: &Lookup, args: Args<'_>, out: &mut Out) -> Result<(), Fault> {
        let Some(conn) = self.conns.get_mut(key) else { return Ok(()) };
        let admitted = match found {
            Lookup::Found(command) => conn.admit(command).map(|()| *command),
            Lookup::Refused(fault) => Err(fault.clone()),
        };
        let admitted = match admitted {
            Ok(command) => self.route(key, command, args).map(|()| command),
            refused => refused,
        };
        let Some(conn) = self.conns.get_mut(key) else { return Ok(()) };
        let command = match admitted {
            Ok(command) => command,
            Err(fault) => {
                if let Some(multi) = &mut conn.multi {
                    multi.refused = true;
                }
                return Err(fault);
            }
        };
        conn.last_command = command.full_name();
        if let Some(multi) = &mut conn.multi
            && !command.runs_in_multi()
        {
            multi.queue.push(args.from(0).collect());
            out.simple("QUEUED");
            return Ok(());
        }
        self.call(key, command, args, out, false)
    }

    /// Runs a command that nothing speaks against.
    pub(super) fn call(
        &mut self,
        key: ConnKey,
        command: &'static Command,
        args: Args<'_>,
        out: &mut Out,
        at_once: bool,
    ) -> Result<(), Fault> {
        let db = self.conns.get(key).map_or(0, |conn| conn.db);
        let done = (command.run())(&mut Ctx { engine: self, out, key, db, at_once }, args);
        if done.is_ok() {
            self.track_reads(key, command, args);
        }
        done
    }
}

impl Conn {
    /// Whether the command may run on this connection in its present state.
    fn admit(&self, command: &Command) -> Result<(), Fault> {
        if self.user.is_none() && !command.needs_no_auth() {
            return Err("NOAUTH Authentication required.".into());
        }
        if self.proto() == Proto::Resp2 && self.is_subscriber() && !command.runs_while_subscribed() {
            let name = command.full_name().to_ascii_lowercase();
            return Err(format!(
                "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are \
                 allowed in this context"
            )
            .into());
        }
        Ok(())
    }

    fn is_held_by_write_pause(&self, command: &Command) -> bool {
        command.writes()
            || (command.name() == "EXEC" && self.multi.as_ref().is_some_and(|multi| !multi.queue.is_empty()))
    }
}
