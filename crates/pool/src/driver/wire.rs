//! `Wire`: one socket with its read buffer and the replies that it owes.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use bytes::BytesMut;
use evenkeel_protocol::{
    Limits, Reply,
    conn::{Connection, Violation},
};
use tokio::io::AsyncWrite;

use super::{
    clock,
    dial::{ConnInfo, Dialed, Stream},
};
use crate::{
    machine::{OutOfStep, Sentry, Verdict},
    queue::{Batch, Queue, Sent},
};

/// Room that a read has at least, and the most that is made for ordinary replies.
const READ_ROOM: (usize, usize) = (8 * 1024, 64 * 1024);

/// A string as large as this is read into memory of its own, exactly as large as it.
const OWN_BUFFER: usize = 64 * 1024;

/// What is made room for when nearly nothing of it has arrived.
const OWN_BUFFER_FIRST: usize = 48 * 1024;

/// Less room than this is not worth a read.
const NEARLY_FULL: usize = 4 * 1024;

/// Bytes read in one turn, so that neither writing nor other tasks starve.
const READ_BUDGET: usize = 512 * 1024;

/// Replies and pushes taken in one turn: a list of the smallest ones would be many times as large as their bytes.
const AT_ONCE: usize = 1024;

pub(crate) struct Wire {
    stream: Box<dyn Stream>,
    read: BytesMut,
    /// The memory that was read into before. By the time `read` is full its replies are mostly dropped, and it is used again:
    /// two pieces of memory take turns instead of a new one each time.
    spare: BytesMut,
    room: usize,
    conn: Connection<Sent>,
    batch: Batch,
    /// Bytes of the batch that have left.
    at: usize,
    pub(crate) info: Arc<ConnInfo>,
    /// Bytes came since this was last asked.
    heard: bool,
    sentry: Option<Sentry>,
    /// The place of the sentry's question, while its answer is owed.
    asked: Option<Sent>,
}

/// Why a wire ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The peer closed.
    Closed,
    /// The system said no.
    Io(io::Error),
    /// Nobody knows any more which reply belongs to whom.
    OutOfStep(OutOfStep),
}

impl Wire {
    pub(crate) fn new(dialed: Dialed, limits: Limits, sentry: Option<Sentry>) -> (Self, Vec<Reply>) {
        let wire = Self {
            stream: dialed.stream,
            read: dialed.read,
            spare: BytesMut::new(),
            room: READ_ROOM.0,
            conn: Connection::new(limits),
            batch: Batch::default(),
            at: 0,
            info: Arc::new(dialed.info),
            heard: true,
            sentry,
            asked: None,
        };
        (wire, dialed.pushes)
    }

    /// Replies that are owed.
    pub(crate) fn owed(&self) -> usize {
        self.conn.waiting().len()
    }

    /// Whether the batch that was taken has left whole.
    pub(crate) fn is_flushed(&self) -> bool {
        self.at == self.batch_len()
    }

    /// Whether bytes came since this was last asked.
    pub(crate) fn take_heard(&mut self) -> bool {
        std::mem::replace(&mut self.heard, false)
    }

    fn batch_len(&self) -> usize {
        usize::try_from(self.batch.end - self.batch.base).unwrap_or(usize::MAX)
    }

    /// Takes what the queue has; only when everything before has left. False when there was nothing.
    pub(crate) fn take(&mut self, queue: &mut Queue) -> bool {
        self.batch.bytes.clear();
        self.batch.shared.clear();
        self.at = 0;
        self.batch.base = self.batch.end;
        if let Some(sentry) = &mut self.sentry {
            sentry.wrote(clock::now(), u32::try_from(queue.fresh()).unwrap_or(u32::MAX));
            // It travels with the commands that it asks about.
            if let Some(ping) = sentry.ask() {
                self.asked = Some(queue.append_own(&ping));
            }
        }
        queue.take_batch(&mut self.batch, self.conn.waiting_mut())
    }

    /// A question of the sentry's waits for the next write.
    pub(crate) fn has_question(&self) -> bool {
        self.sentry.as_ref().is_some_and(Sentry::is_due)
    }

    /// When the sentry wants the time.
    pub(crate) fn sentry_timeout(&self) -> Option<Instant> {
        self.sentry.as_ref().and_then(Sentry::poll_timeout)
    }

    /// Gives the sentry the time; true when it has a question.
    pub(crate) fn tell_sentry(&mut self, now: Instant) -> bool {
        if let Some(sentry) = &mut self.sentry {
            sentry.handle_timeout(now);
        }
        self.has_question()
    }

    /// Shows the sentry a reply while its answer is owed.
    fn check(&mut self, sent: Sent, reply: &Reply) -> Verdict {
        let own = self.asked == Some(sent);
        if own {
            self.asked = None;
        }
        self.sentry.as_mut().map_or(Verdict::InStep, |sentry| sentry.handle_reply(own, reply))
    }

    /// Replies that were taken and not handed out yet are owed again: whose they are is not certain any more.
    fn take_back(&mut self, replies: &mut Vec<(Sent, Reply)>) {
        for (sent, _) in replies.drain(..).rev() {
            self.conn.waiting_mut().push_front(sent);
        }
    }

    /// Writes what was taken, as far as the socket goes; ready when everything has left.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Ended>> {
        while !self.is_flushed() {
            let written = if self.batch.shared.is_empty() {
                let rest = self.batch.bytes.get(self.at..).unwrap_or_default();
                Pin::new(&mut self.stream).poll_write(cx, rest)
            } else {
                let slices = slices(&self.batch, self.at);
                Pin::new(&mut self.stream).poll_write_vectored(cx, &slices)
            };
            match written {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(Ended::Io(io::ErrorKind::WriteZero.into()))),
                Poll::Ready(Ok(count)) => self.at += count,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Ended::Io(error))),
                Poll::Pending => return Poll::Pending,
            }
        }
        // An encrypted stream keeps bytes until it is flushed; a socket does not care.
        match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(Ended::Io(error))),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Reads and delimits, into empty lists; pending when the socket is empty. Ready with `true` when there may be more at once.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        replies: &mut Vec<(Sent, Reply)>,
        pushes: &mut Vec<Reply>,
    ) -> Poll<Result<bool, Ended>> {
        let mut total = 0;
        loop {
            loop {
                let before = replies.len();
                match self.conn.next_to(&mut self.read, replies, pushes) {
                    Ok(false) => break,
                    Ok(true) => {
                        if self.asked.is_some()
                            && let Some((sent, reply)) = replies.get(before)
                            && self.check(*sent, reply) == Verdict::OutOfStep
                        {
                            self.take_back(replies);
                            return Poll::Ready(Err(Ended::OutOfStep(OutOfStep::Sentry)));
                        }
                    }
                    Err(Violation::Unasked) => {
                        self.take_back(replies);
                        return Poll::Ready(Err(Ended::OutOfStep(OutOfStep::Unasked)));
                    }
                    Err(_) => return Poll::Ready(Err(Ended::OutOfStep(OutOfStep::NotResp))),
                }
                if replies.len() + pushes.len() >= AT_ONCE {
                    return Poll::Ready(Ok(true));
                }
            }
            if total >= READ_BUDGET {
                return Poll::Ready(Ok(true));
            }
            self.make_room();
            let room = self.read.capacity() - self.read.len();
            match poll_read_buf(&mut self.stream, cx, &mut self.read) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(Ended::Closed)),
                Poll::Ready(Ok(count)) => {
                    self.heard = true;
                    total += count;
                    if count == room {
                        self.room = (self.room * 2).min(READ_ROOM.1);
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Ended::Io(error))),
                Poll::Pending => {
                    return if total > 0 { Poll::Ready(Ok(false)) } else { Poll::Pending };
                }
            }
        }
    }

    fn make_room(&mut self) {
        let known = self.conn.known_len();
        let room = self.read.capacity() - self.read.len();
        if known >= OWN_BUFFER {
            // Only when it is used up: room that is asked for at each read runs ahead of what arrives.
            let missing = known.saturating_sub(self.read.len());
            if room >= NEARLY_FULL.min(missing).max(1) {
                return;
            }
            // Grows to three times what has arrived, what waits in the socket included, which makes four while the old memory is
            // still there: a peer that announces much and sends little costs little. Each step may copy, so there are few.
            let arrived = self.read.len().saturating_add(self.stream.arrived());
            self.read.reserve(missing.min(arrived.saturating_mul(2).max(OWN_BUFFER_FIRST)).max(1));
        } else if room < self.room / 2 {
            let begun = self.read.len();
            if self.read.try_reclaim(self.room) || !self.spare.try_reclaim(self.room + begun) {
                self.read.reserve(self.room);
                return;
            }
            self.spare.extend_from_slice(&self.read);
            self.read.clear();
            std::mem::swap(&mut self.read, &mut self.spare);
        }
    }

    /// Tokens that are owed, oldest first.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = Sent> {
        self.conn.waiting().iter().copied()
    }

    /// Ends the wire: what is owed, how many bytes have left, and the last batch.
    pub(crate) fn into_remains(mut self) -> (VecDeque<Sent>, u64, Batch) {
        let written = self.batch.base + self.at as u64;
        (self.conn.take_waiting(), written, std::mem::take(&mut self.batch))
    }
}

/// Pieces of one `writev`; the system takes up to 1024, and more than a few gain nothing.
const MAX_SLICES: usize = 64;

/// The rest of a batch from byte `at` on.
fn slices(batch: &Batch, at: usize) -> Vec<IoSlice<'_>> {
    let mut pieces: Vec<&[u8]> = Vec::new();
    let mut from = 0;
    for (place, shared) in &batch.shared {
        pieces.push(batch.bytes.get(from..*place).unwrap_or_default());
        pieces.push(shared);
        from = *place;
    }
    pieces.push(batch.bytes.get(from..).unwrap_or_default());
    let mut skip = at;
    pieces
        .into_iter()
        .filter_map(|piece| {
            let taken = skip.min(piece.len());
            skip -= taken;
            piece.get(taken..).filter(|rest| !rest.is_empty()).map(IoSlice::new)
        })
        .take(MAX_SLICES)
        .collect()
}

/// Reads into the spare room of `buf`.
fn poll_read_buf(
    stream: &mut Box<dyn Stream>,
    cx: &mut Context<'_>,
    buf: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    use tokio::io::AsyncReadExt;
    let mut read = std::pin::pin!(stream.read_buf(buf));
    read.as_mut().poll(cx)
}
