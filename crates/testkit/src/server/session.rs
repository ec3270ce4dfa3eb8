//! One connection's task: moves bytes between its socket and the engine, and waits for whatever comes first.

use std::{io, sync::Arc};

use bytes::{Buf, BytesMut};
use tokio::{
    io::Interest,
    net::TcpStream,
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{
    clock,
    conn::{Closing, ConnKey},
    engine::Flow,
    out::{Out, Proto},
    request::Requests,
    shared::Shared,
};

/// Commands run under one hold of the engine's lock, at most: others want their turn.
const BATCH: usize = 1024;

/// Answers gathered before they are written.
const BATCH_BYTES: usize = 256 * 1024;

/// Free space that a read begins with.
const READ: usize = 16 * 1024;

/// Bytes read ahead of a command that waits, at most.
const MAX_READ_AHEAD: usize = 1024 * 1024;

/// Takes the connection out of the engine however its task ends.
struct Registered {
    shared: Arc<Shared>,
    key: ConnKey,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.shared.with(|engine| engine.disconnect(self.key));
    }
}

/// What the engine says after a batch.
#[derive(Debug, Default)]
struct Step {
    closing: Option<Closing>,
    /// A command or all replies wait until then.
    timer: Option<Instant>,
    /// No command may run before something happens.
    stopped: bool,
    /// Replies must stay here.
    held: bool,
    /// There is more to run.
    more: bool,
}

pub(super) struct Session {
    registered: Registered,
    stream: TcpStream,
    wake: Arc<Notify>,
    read: BytesMut,
    requests: Requests,
    out: Out,
}

impl Session {
    pub(super) fn new(shared: Arc<Shared>, key: ConnKey, wake: Arc<Notify>, stream: TcpStream) -> Self {
        Self {
            registered: Registered { shared, key },
            stream,
            wake,
            read: BytesMut::new(),
            requests: Requests::default(),
            out: Out::new(Proto::Resp2),
        }
    }

    /// Serves until either side ends the connection.
    pub(super) async fn run(mut self) {
        loop {
            let step = self.step();
            if !step.held && self.flush().is_err() {
                return;
            }
            match step.closing {
                Some(Closing::Now) => return,
                Some(Closing::Flush) if step.held || self.out.buf.is_empty() => return,
                _ => {}
            }
            if step.more && self.out.buf.len() < BATCH_BYTES {
                tokio::task::yield_now().await;
                continue;
            }
            if self.wait(&step).await.is_err() {
                return;
            }
        }
    }

    /// Runs what has been read and fetches what others sent, under one lock.
    fn step(&mut self) -> Step {
        let Self { registered, read, requests, out, .. } = self;
        let key = registered.key;
        let mut step = Step::default();
        let mut done = 0;
        let mut ran = 0;
        registered.shared.with(|engine| {
            engine.time_out(key);
            engine.fetch(key, out);
            loop {
                let Some(conn) = engine.conns.get(key) else { return };
                if conn.closing.is_some() || conn.blocked.is_some() {
                    break;
                }
                if ran == BATCH || out.buf.len() >= BATCH_BYTES {
                    step.more = true;
                    break;
                }
                let rest = read.get(done..).unwrap_or_default();
                match requests.next(rest) {
                    Ok(0) => break,
                    Ok(length) => {
                        let args = requests.args(rest);
                        if args.len() > 0
                            && let Flow::Held(until) = engine.execute(key, args, out)
                        {
                            step.timer = Some(until);
                            step.stopped = true;
                            break;
                        }
                        done += length;
                        ran += 1;
                    }
                    Err(fault) => {
                        out.error(&fault);
                        engine.close(key, Closing::Flush);
                        done = read.len();
                        break;
                    }
                }
            }
            if out.buf.len() > engine.config.max_output {
                engine.close(key, Closing::Now);
            }
            let now = engine.now;
            let Some(conn) = engine.conns.get(key) else { return };
            step.closing = conn.closing;
            if let Some(blocked) = &conn.blocked {
                step.stopped = true;
                step.timer = blocked.until;
            }
            let held = engine.addresses.get(conn.address).and_then(|address| address.held_until);
            if let Some(held) = held.filter(|&held| held > now) {
                step.held = true;
                step.timer = Some(step.timer.map_or(held, |timer| timer.min(held)));
            }
        });
        read.advance(done);
        step
    }

    /// Writes what the socket takes.
    fn flush(&mut self) -> io::Result<()> {
        while !self.out.buf.is_empty() {
            match self.stream.try_write(&self.out.buf) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.out.buf.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn wait(&mut self, step: &Step) -> io::Result<()> {
        let reads = !step.stopped || self.read.len() < MAX_READ_AHEAD;
        let reads = reads && !(step.more && self.out.buf.len() >= BATCH_BYTES);
        let writes = !step.held && !self.out.buf.is_empty();
        let interest = match (reads, writes) {
            (true, true) => Some(Interest::READABLE | Interest::WRITABLE),
            (true, false) => Some(Interest::READABLE),
            (false, true) => Some(Interest::WRITABLE),
            (false, false) => None,
        };
        let socket = async {
            match interest {
                Some(interest) => self.stream.ready(interest).await,
                None => std::future::pending().await,
            }
        };
        let timer = async {
            match step.timer {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        // Not biased: no branch does more than note that its time has come.
        tokio::select! {
            ready = socket => {
                if ready?.is_readable() && reads {
                    self.receive()?;
                }
            }
            () = self.wake.notified() => {}
            () = timer => {}
        }
        Ok(())
    }

    fn receive(&mut self) -> io::Result<()> {
        if self.read.capacity() - self.read.len() < READ / 4 {
            self.read.reserve(READ);
        }
        match self.stream.try_read_buf(&mut self.read) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl super::engine::Engine {
    /// Moves what waits for a connection into its output.
    fn fetch(&mut self, key: ConnKey, out: &mut Out) {
        let Some(conn) = self.conns.get_mut(key) else { return };
        if !conn.inbox.buf.is_empty() {
            out.buf.extend_from_slice(&conn.inbox.buf);
            conn.inbox.buf.clear();
        }
    }
}

impl Shared {
    /// Runs `work` on the engine with its clock moved to the present.
    pub(super) fn with<R>(&self, work: impl FnOnce(&mut super::engine::Engine) -> R) -> R {
        let mut engine = self.engine.lock();
        engine.tick(clock::now());
        work(&mut engine)
    }
}
