//! `Socket`: one connection of a link: bytes in, whole frames out, and what is still to be written.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Buf, BytesMut};
use evenkeel_protocol::{Command, Limits, Push, Reply, Scanner, ServerError};
use tokio::io::AsyncWrite;

use super::quick::{self, Found};
use crate::{
    driver::dial::{ConnInfo, Dialed, Stream},
    machine::{DialId, Peer},
};

/// Room that a read has at least, and the most that is made for messages that come thick.
const READ_ROOM: (usize, usize) = (8 * 1024, 64 * 1024);

/// A frame as large as this is read into memory that grows with it.
const GROW_FROM: usize = 64 * 1024;

/// Bytes read in one turn, so that neither writing nor other tasks starve.
const READ_BUDGET: usize = 256 * 1024;

/// Frames taken in one turn: a list of the smallest ones would be many times as large as their bytes.
const AT_ONCE: usize = 4096;

/// A frame that arrived, read.
pub(super) enum Arrived {
    /// A message or a confirmation.
    PubSub(Push),
    /// Any other push.
    Push(Reply),
    /// A plain reply, as far as a link cares.
    Reply { error: Option<ServerError>, number: Option<i64> },
}

/// Why a socket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The peer closed or reset it.
    ByPeer,
    /// The system said no, or what came is not RESP.
    Failed,
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::ConnectionReset { Self::ByPeer } else { Self::Failed }
    }
}

pub(super) struct Socket {
    pub(super) dial: DialId,
    pub(super) info: Arc<ConnInfo>,
    /// Pushes that came during the handshake and were not handed over yet.
    pub(super) early: Vec<Reply>,
    /// It carries the subscriptions, or did.
    pub(super) used: bool,
    stream: Box<dyn Stream>,
    read: BytesMut,
    room: usize,
    scanner: Scanner,
    /// The scanner stands inside a frame.
    partial: bool,
    /// Messages at the front of the buffer, with where each begins.
    found: Vec<(usize, Found)>,
    out: BytesMut,
    /// Written bytes may still lie in the encryption layer.
    flushed: bool,
}

impl Socket {
    pub(super) fn new(dial: DialId, dialed: Dialed, limits: Limits) -> Self {
        Self {
            dial,
            info: Arc::new(dialed.info),
            early: dialed.pushes,
            used: false,
            stream: dialed.stream,
            read: dialed.read,
            room: READ_ROOM.0,
            scanner: Scanner::new(limits),
            partial: false,
            found: Vec::new(),
            out: BytesMut::new(),
            flushed: true,
        }
    }

    pub(super) fn peer(&self) -> Peer {
        let server = &self.info.established.server;
        Peer { resp3: server.resp3, cluster: server.mode == "cluster" }
    }

    pub(super) fn write(&mut self, command: &Command) {
        command.encode(&mut self.out);
    }

    /// Writes what there is, as far as the socket goes.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<(), Ended> {
        while !self.out.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.out) {
                Poll::Ready(Ok(0)) => return Err(Ended::Failed),
                Poll::Ready(Ok(count)) => {
                    self.out.advance(count);
                    self.flushed = false;
                }
                Poll::Ready(Err(error)) => return Err(error.into()),
                Poll::Pending => return Ok(()),
            }
        }
        if !self.flushed {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Ready(result) => {
                    result?;
                    self.flushed = true;
                }
                Poll::Pending => {}
            }
        }
        Ok(())
    }

    /// Reads and delimits, up to the budget; true when there may be more at once.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        arrived: &mut Vec<Arrived>,
    ) -> Result<bool, Ended> {
        let mut total = 0;
        loop {
            self.delimit(arrived)?;
            if total >= READ_BUDGET || arrived.len() >= AT_ONCE {
                return Ok(true);
            }
            self.make_room();
            let room = self.read.capacity() - self.read.len();
            match poll_read_buf(&mut self.stream, cx, &mut self.read) {
                Poll::Ready(Ok(0)) => return Err(Ended::ByPeer),
                Poll::Ready(Ok(count)) => {
                    total += count;
                    if count == room {
                        self.room = (self.room * 2).min(READ_ROOM.1);
                    }
                }
                Poll::Ready(Err(error)) => return Err(error.into()),
                Poll::Pending => return Ok(false),
            }
        }
    }

    fn make_room(&mut self) {
        let known = self.scanner.known_len();
        if known >= GROW_FROM {
            // Grows with what has arrived, never far ahead of it: a peer that announces much and sends little costs little.
            let (room, missing) =
                (self.read.capacity() - self.read.len(), known.saturating_sub(self.read.len()));
            if room == 0 || room < missing.min(READ_ROOM.0 / 2) {
                self.read.reserve(missing.min(self.read.len().max(GROW_FROM / 2)).max(1));
            }
        } else if self.read.capacity() - self.read.len() < self.room / 2 {
            self.read.reserve(self.room);
        }
    }

    /// Takes every whole frame off the buffer.
    fn delimit(&mut self, arrived: &mut Vec<Arrived>) -> Result<(), Ended> {
        let resp3 = self.info.established.server.resp3;
        while arrived.len() < AT_ONCE {
            if !self.partial {
                let mut at = 0;
                while let Some(found) = self.read.get(at..).and_then(|rest| quick::find(rest, resp3)) {
                    let begins = at;
                    at += found.len;
                    self.found.push((begins, found));
                }
                if at > 0 {
                    // One count of references for all of them, instead of one for each.
                    let chunk = self.read.split_to(at).freeze();
                    let messages = self.found.drain(..).map(|(begins, found)| found.message(&chunk, begins));
                    arrived.extend(messages.map(Arrived::PubSub));
                }
            }
            let Some(found) = self.scanner.scan(&self.read).map_err(|_not_resp| Ended::Failed)? else {
                self.partial = !self.read.is_empty();
                return Ok(());
            };
            self.partial = false;
            let reply = Reply::new(self.read.split_to(found.len).freeze());
            arrived.push(self.understand(found.marker, reply)?);
        }
        Ok(())
    }

    fn understand(&self, marker: u8, reply: Reply) -> Result<Arrived, Ended> {
        // RESP2 sends pub/sub as arrays; so it answers PING there too, which is no pub/sub.
        let resp2_array = marker == b'*' && !self.info.established.server.resp3;
        if marker == b'>' || resp2_array {
            match Push::of(&reply).map_err(|_malformed| Ended::Failed)? {
                Some(
                    push @ (Push::Message { .. } | Push::PatternMessage { .. } | Push::Subscription { .. }),
                ) => return Ok(Arrived::PubSub(push)),
                _ if marker == b'>' => return Ok(Arrived::Push(reply)),
                _ => {}
            }
        }
        let number = if marker == b':' { reply.decode().ok() } else { None };
        Ok(Arrived::Reply { error: reply.error(), number })
    }
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
