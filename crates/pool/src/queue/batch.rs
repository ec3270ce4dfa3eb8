//! What the I/O task takes at once: bytes, and a token for each reply that they will have.

use bytes::{Bytes, BytesMut};

/// One reply that is owed: a command has a token, a unit one for each of its commands, side by side.
///
/// It only names the place, where everything else is known: bytes, slot, caller. So a token is small, and a place lives as
/// long as its tokens do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(super) index: u32,
    /// The end of the place's number in the order: a token of another command never fits by mistake.
    pub(super) mark: u32,
}

impl Sent {
    pub(super) fn new(index: u32, seq: u64) -> Self {
        Self { index, mark: seq as u32 }
    }
}

/// Bytes that the I/O task takes at once; the tokens go to its FIFO at the same time.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) bytes: BytesMut,
    /// Large arguments with the place in `bytes` where each belongs.
    pub(crate) shared: Vec<(usize, Bytes)>,
    /// Where the batch begins in the stream of bytes of its connection.
    pub(crate) base: u64,
    /// Where it ends.
    pub(crate) end: u64,
}

impl Batch {
    /// All bytes in one piece, large arguments copied in; for the rare cases in which commands are taken apart.
    pub(super) fn join(&mut self) -> BytesMut {
        let mut joined = BytesMut::new();
        let mut from = 0;
        for (at, shared) in self.shared.drain(..) {
            joined.extend_from_slice(self.bytes.get(from..at).unwrap_or_default());
            joined.extend_from_slice(&shared);
            from = at;
        }
        joined.extend_from_slice(self.bytes.get(from..).unwrap_or_default());
        self.bytes.clear();
        joined
    }
}
