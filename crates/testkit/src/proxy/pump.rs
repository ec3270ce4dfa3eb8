//! One direction of one connection.
//!
//! Two loops: one reads, edits and stamps each chunk with the time at which it is due; the other writes what is due. Between
//! them stands a bounded queue, so that a delay costs no throughput and a stall is felt by the sender in the end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::boundary::Boundary;
use super::clock;
use super::handle::{ConnectionId, Injection, MAX_ORDERS, When};
use super::replace::Replace;
use super::rules::{CutHow, Rules};

const CHUNK: usize = 16 * 1024;
/// Chunks between the two loops: 1 MiB.
const QUEUE: usize = 64;

/// Moves the bytes of one direction.
pub(super) struct Pump {
    pub(super) id: ConnectionId,
    pub(super) rules: watch::Receiver<Rules>,
    pub(super) injected: mpsc::Receiver<Injection>,
    pub(super) delivered: Arc<AtomicU64>,
    pub(super) seed: u64,
}

struct Chunk {
    due: Instant,
    bytes: Bytes,
}

impl Pump {
    /// Moves bytes until the source ends, and then ends the sink. An error is how the whole connection is to be cut.
    pub(super) async fn run(self, source: ReadHalf<'_>, sink: WriteHalf<'_>) -> Result<(), CutHow> {
        let (tx, rx) = mpsc::channel(QUEUE);
        let reading = Reading {
            id: self.id,
            rules: self.rules.clone(),
            random: fastrand::Rng::with_seed(self.seed),
            latest: clock::now(),
        };
        let writing = Writing {
            sink,
            rules: self.rules,
            injected: self.injected,
            delivered: self.delivered,
            now: Rules::new(),
            cut: None,
            boundary: Boundary::default(),
            waiting: VecDeque::new(),
        };
        tokio::try_join!(reading.run(source, tx), writing.run(rx))?;
        Ok(())
    }
}

struct Reading {
    id: ConnectionId,
    rules: watch::Receiver<Rules>,
    random: fastrand::Rng,
    latest: Instant,
}

impl Reading {
    async fn run(mut self, mut source: ReadHalf<'_>, queue: mpsc::Sender<Chunk>) -> Result<(), CutHow> {
        let mut rules = self.rules.borrow_and_update().clone();
        let mut replaces = replaces(&rules);
        // The end of a stream is lost with everything else, until the rules let things through again.
        let mut end_was_lost = false;
        loop {
            let mut bytes = BytesMut::with_capacity(CHUNK);
            tokio::select! {
                biased;
                changed = self.rules.changed() => {
                    // The proxy is gone.
                    changed.map_err(|_gone| CutHow::Close)?;
                    self.send(finish(&mut replaces), &rules, &queue).await?;
                    rules = self.rules.borrow_and_update().clone();
                    replaces = self::replaces(&rules);
                    end_was_lost = false;
                }
                read = source.read_buf(&mut bytes), if !end_was_lost => {
                    if rules.is_lost && !matches!(read, Ok(1..)) {
                        end_was_lost = true;
                        continue;
                    }
                    if read.map_err(|_broken| CutHow::Reset)? == 0 {
                        return self.send(finish(&mut replaces), &rules, &queue).await;
                    }
                    if let Some(edit) = &rules.edit {
                        edit(self.id, &mut bytes);
                    }
                    for replace in &mut replaces {
                        bytes = replace.feed(&bytes);
                    }
                    self.send(bytes, &rules, &queue).await?;
                }
            }
        }
    }

    async fn send(
        &mut self,
        bytes: BytesMut,
        rules: &Rules,
        queue: &mpsc::Sender<Chunk>,
    ) -> Result<(), CutHow> {
        if bytes.is_empty() || rules.is_lost {
            return Ok(());
        }
        let jitter = rules.delay.jitter.as_nanos().try_into().unwrap_or(u64::MAX);
        let jitter = Duration::from_nanos(self.random.u64(0..=jitter));
        // Never before what was read earlier: bytes of a stream cannot overtake each other.
        self.latest = self.latest.max(clock::now() + rules.delay.base + jitter);
        let chunk = Chunk { due: self.latest, bytes: bytes.freeze() };
        queue.send(chunk).await.map_err(|_writer_ended| CutHow::Close)
    }
}

fn replaces(rules: &Rules) -> Vec<Replace> {
    rules.rewrites.iter().map(|(from, to)| Replace::new(from.clone(), to.clone())).collect()
}

/// Returns what all steps held back: each step's rest still goes through the steps behind it.
fn finish(replaces: &mut [Replace]) -> BytesMut {
    let mut rest = BytesMut::new();
    for replace in replaces {
        rest = replace.feed(&rest);
        rest.extend_from_slice(&replace.finish());
    }
    rest
}

struct Writing<'a> {
    sink: WriteHalf<'a>,
    rules: watch::Receiver<Rules>,
    injected: mpsc::Receiver<Injection>,
    delivered: Arc<AtomicU64>,
    now: Rules,
    /// Bytes left until the cut.
    cut: Option<u64>,
    boundary: Boundary,
    /// Injections that wait for the end of a frame.
    waiting: VecDeque<Bytes>,
}

impl Writing<'_> {
    async fn run(mut self, mut queue: mpsc::Receiver<Chunk>) -> Result<(), CutHow> {
        self.take_rules()?;
        let mut next: Option<Chunk> = None;
        loop {
            let flows = !self.now.is_stalled;
            let due = next.as_ref().map(|chunk| chunk.due);
            tokio::select! {
                // Rules first, so that what is set applies to the very next byte.
                biased;
                changed = self.rules.changed() => {
                    changed.map_err(|_gone| CutHow::Close)?;
                    self.take_rules()?;
                }
                Some(injection) = self.injected.recv(), if flows && self.waiting.len() < MAX_ORDERS => {
                    match injection.when {
                        When::Now => self.put(&injection.bytes).await?,
                        When::BetweenFrames => {
                            self.waiting.push_back(injection.bytes);
                            self.put_waiting().await?;
                        }
                    }
                }
                () = sleep_until(due), if flows && due.is_some() => {
                    if let Some(chunk) = next.take() {
                        self.put_chunk(&chunk.bytes).await?;
                    }
                }
                chunk = queue.recv(), if flows && due.is_none() => {
                    let Some(chunk) = chunk else {
                        // The source has ended; the other direction may go on.
                        return self.sink.shutdown().await.map_err(|_broken| CutHow::Reset);
                    };
                    next = Some(chunk);
                }
            }
        }
    }

    fn take_rules(&mut self) -> Result<(), CutHow> {
        self.now = self.rules.borrow_and_update().clone();
        self.cut = self.now.cut.map(|cut| cut.after);
        self.check_cut()
    }

    fn check_cut(&self) -> Result<(), CutHow> {
        match self.now.cut {
            Some(cut) if self.cut == Some(0) => Err(cut.how),
            _ => Ok(()),
        }
    }

    /// Writes what was read, with the waiting injections at the first ends of frames in it.
    async fn put_chunk(&mut self, mut bytes: &[u8]) -> Result<(), CutHow> {
        while !self.waiting.is_empty() {
            let Some((frame, rest)) = self.boundary.next_end(bytes).map(|end| bytes.split_at(end)) else {
                return self.put(bytes).await;
            };
            self.put(frame).await?;
            self.put_waiting().await?;
            bytes = rest;
        }
        let mut rest = bytes;
        while let Some(end) = self.boundary.next_end(rest) {
            rest = rest.get(end..).unwrap_or_default();
        }
        self.put(bytes).await
    }

    async fn put_waiting(&mut self) -> Result<(), CutHow> {
        while self.boundary.is_at_rest()
            && let Some(bytes) = self.waiting.pop_front()
        {
            self.put(&bytes).await?;
        }
        Ok(())
    }

    async fn put(&mut self, bytes: &[u8]) -> Result<(), CutHow> {
        for mut piece in bytes.chunks(self.now.slice.unwrap_or(usize::MAX)) {
            if let Some(left) = self.cut {
                let len = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                piece = piece.get(..len).unwrap_or_default();
                self.cut = Some(left - len as u64);
            }
            self.sink.write_all(piece).await.map_err(|_broken| CutHow::Reset)?;
            self.delivered.fetch_add(piece.len() as u64, Ordering::Relaxed);
            self.check_cut()?;
            if self.now.slice.is_some() {
                // Lets the reader run in between, so that it sees the pieces one by one.
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
