//! The bounded queue of one session: frames by reference, written together.
//!
//! It knows no socket: [`Outbox::write`] is given the call that writes.

use bytes::Bytes;
use std::collections::VecDeque;
use std::io::{self, IoSlice};

/// Frames given to one vectored write.
const MAX_SLICES: usize = 64;
/// Bytes given to one vectored write; more would only fill the kernel's buffer past what one peer reads at once.
const MAX_WRITE: usize = 256 * 1024;
/// Queue places kept while a session is idle.
const KEPT_PLACES: usize = 8;

/// Bounds of every session's outbox.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) bytes: usize,
    pub(crate) messages: usize,
}

/// What became of a frame given to an outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// The session is closing; the frame was dropped.
    Closed,
    /// The bounds would be broken; the frame was dropped, and the session must be closed as slow.
    Overflow,
    Queued,
}

/// How far a write came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// The socket takes no more for now.
    Blocked,
    /// The queue is empty.
    Drained,
    /// The connection is gone.
    Failed,
}

/// What waits for one session's socket.
///
/// ```text
/// open --close()--> closing: the last frame is queued, nothing is taken any more --drained--> (the driver hangs up)
/// ```
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: VecDeque<Bytes>,
    /// Bytes in the queue, without those of the first frame that are written already.
    bytes: usize,
    /// Bytes of the first frame that are written already.
    written: usize,
    closing: bool,
    blocked: bool,
}

impl Outbox {
    /// Queues a frame.
    pub(crate) fn push(&mut self, frame: Bytes, bounds: Bounds) -> Pushed {
        if self.closing {
            return Pushed::Closed;
        }
        // A frame beyond the bound is taken when nothing else waits: a long recovery is no slow reader.
        let full = self.queue.len() >= bounds.messages || self.bytes + frame.len() > bounds.bytes;
        if full && !self.queue.is_empty() {
            return Pushed::Overflow;
        }
        self.bytes += frame.len();
        self.queue.push_back(frame);
        Pushed::Queued
    }

    /// Queues the last frame of the session; the first call wins.
    ///
    /// With `drop_queued` everything goes that is not on the wire in part, so that a slow reader comes to the
    /// end sooner.
    pub(crate) fn close(&mut self, last: Option<Bytes>, drop_queued: bool) {
        if self.closing {
            return;
        }
        self.closing = true;
        if drop_queued {
            self.queue.truncate(usize::from(self.written > 0));
        }
        self.queue.extend(last);
        self.bytes = self.queue.iter().map(Bytes::len).sum::<usize>() - self.written;
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing
    }

    /// Whether the last write stopped because the socket was full.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    #[cfg(test)]
    pub(crate) fn queued_bytes(&self) -> usize {
        self.bytes
    }

    /// Gives a frame straight to the socket when nothing waits before it; what does not fit is queued.
    pub(crate) fn write_now(
        &mut self,
        frame: &Bytes,
        bounds: Bounds,
        write: impl FnOnce(&[u8]) -> io::Result<usize>,
    ) -> (Pushed, Written) {
        if self.closing || !self.queue.is_empty() {
            return (self.push(frame.clone(), bounds), Written::Blocked);
        }
        let written = match write(frame) {
            Ok(written) if written == frame.len() => return (Pushed::Queued, Written::Drained),
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(_gone) => return (Pushed::Closed, Written::Failed),
        };
        self.blocked = true;
        let pushed = self.push(frame.clone(), bounds);
        self.written = written;
        self.bytes = self.bytes.saturating_sub(written);
        (pushed, Written::Blocked)
    }

    /// Writes what is queued, many frames a call, until nothing is left or the socket takes no more.
    pub(crate) fn write(&mut self, mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>) -> Written {
        while let Some(first) = self.queue.front() {
            if self.queue.len() == 1 {
                let piece = first.get(self.written..).unwrap_or_default();
                let offered = piece.len();
                let result = write(&[IoSlice::new(piece)]);
                if let Some(stop) = self.after(result, offered) {
                    return stop;
                }
                continue;
            }
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let mut count = 0;
            let mut offered = 0;
            for (slot, frame) in slices.iter_mut().zip(&self.queue) {
                let skip = if count == 0 { self.written } else { 0 };
                let piece = frame.get(skip..).unwrap_or_default();
                *slot = IoSlice::new(piece);
                count += 1;
                offered += piece.len();
                if offered >= MAX_WRITE {
                    break;
                }
            }
            let result = write(slices.get(..count).unwrap_or_default());
            if let Some(stop) = self.after(result, offered) {
                return stop;
            }
        }
        self.blocked = false;
        if self.queue.capacity() > KEPT_PLACES {
            self.queue.shrink_to(0);
        }
        Written::Drained
    }

    /// Takes what one write did; says whether that was the last for now.
    fn after(&mut self, result: io::Result<usize>, offered: usize) -> Option<Written> {
        match result {
            Ok(0) => Some(Written::Failed),
            Ok(written) => {
                self.advance(written);
                // A short write means a full socket: asking again would only cost a call.
                self.blocked = written < offered;
                self.blocked.then_some(Written::Blocked)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.blocked = true;
                Some(Written::Blocked)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => None,
            Err(_gone) => Some(Written::Failed),
        }
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes -= written;
        while let Some(first) = self.queue.front() {
            let left = first.len() - self.written;
            if written < left {
                self.written += written;
                return;
            }
            written -= left;
            self.written = 0;
            self.queue.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Bounds, Outbox, Pushed, Written};
    use bytes::Bytes;
    use proptest::prelude::*;
    use std::io;

    const BOUNDS: Bounds = Bounds { bytes: 1_000, messages: 100 };

    fn would_block() -> io::Error {
        io::ErrorKind::WouldBlock.into()
    }

    #[test]
    fn queued_frames_go_out_in_one_call() {
        let mut outbox = Outbox::default();
        for frame in ["ab", "cd", "ef"] {
            assert_eq!(outbox.push(Bytes::from_static(frame.as_bytes()), BOUNDS), Pushed::Queued);
        }
        let mut calls = Vec::new();
        let written = outbox.write(|slices| {
            calls.push(slices.len());
            Ok(slices.iter().map(|slice| slice.len()).sum())
        });
        assert_eq!((written, calls), (Written::Drained, vec![3]));
        assert_eq!(outbox.queued_bytes(), 0);
    }

    #[test]
    fn both_bounds_hold() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.push(Bytes::from(vec![0; 1_000]), BOUNDS), Pushed::Queued);
        assert_eq!(outbox.push(Bytes::from_static(b"x"), BOUNDS), Pushed::Overflow);
        let mut outbox = Outbox::default();
        for _ in 0..100 {
            assert_eq!(outbox.push(Bytes::new(), BOUNDS), Pushed::Queued);
        }
        assert_eq!(outbox.push(Bytes::new(), BOUNDS), Pushed::Overflow);
    }

    #[test]
    fn a_slow_session_ends_its_open_frame_and_then_the_last_one() {
        let mut outbox = Outbox::default();
        outbox.push(Bytes::from_static(b"first"), BOUNDS);
        outbox.push(Bytes::from_static(b"second"), BOUNDS);
        let mut out = Vec::new();
        let mut budget = 2;
        assert_eq!(outbox.write(|slices| take(slices, &mut budget, &mut out)), Written::Blocked);
        outbox.close(Some(Bytes::from_static(b"LAST")), true);
        assert_eq!(outbox.push(Bytes::from_static(b"late"), BOUNDS), Pushed::Closed);
        outbox.close(Some(Bytes::from_static(b"AGAIN")), true);
        budget = 100;
        assert_eq!(outbox.write(|slices| take(slices, &mut budget, &mut out)), Written::Drained);
        assert_eq!(out, b"firstLAST");
    }

    #[test]
    fn a_frame_goes_straight_out_or_waits_behind_others() {
        let mut outbox = Outbox::default();
        let frame = Bytes::from_static(b"abcdef");
        let whole = outbox.write_now(&frame, BOUNDS, |bytes| Ok(bytes.len()));
        assert_eq!((whole, outbox.is_empty()), ((Pushed::Queued, Written::Drained), true));
        let part = outbox.write_now(&frame, BOUNDS, |_| Ok(2));
        assert_eq!((part, outbox.queued_bytes()), ((Pushed::Queued, Written::Blocked), 4));
        let behind = outbox.write_now(&frame, BOUNDS, |_| panic!("written past a waiting frame"));
        assert_eq!(behind, (Pushed::Queued, Written::Blocked));
        let mut out = Vec::new();
        let mut budget = 100;
        assert_eq!(outbox.write(|slices| take(slices, &mut budget, &mut out)), Written::Drained);
        assert_eq!(out, b"cdefabcdef");
        let full = outbox.write_now(&frame, BOUNDS, |_| Err(would_block()));
        assert_eq!((full, outbox.queued_bytes()), ((Pushed::Queued, Written::Blocked), 6));
        let gone = Outbox::default().write_now(&frame, BOUNDS, |_| Err(io::ErrorKind::BrokenPipe.into()));
        assert_eq!(gone.1, Written::Failed);
    }

    fn take(slices: &[io::IoSlice<'_>], budget: &mut usize, out: &mut Vec<u8>) -> io::Result<usize> {
        if *budget == 0 {
            return Err(would_block());
        }
        let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        let taken = all.len().min(*budget);
        *budget -= taken;
        out.extend_from_slice(&all[..taken]);
        Ok(taken)
    }

    proptest! {
        #[test]
        fn any_split_of_writes_gives_the_same_bytes(
            frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 1..90),
            budgets in proptest::collection::vec(1_usize..60, 1..200),
        ) {
            let bounds = Bounds { bytes: usize::MAX, messages: usize::MAX };
            let mut outbox = Outbox::default();
            for frame in &frames {
                prop_assert_eq!(outbox.push(Bytes::from(frame.clone()), bounds), Pushed::Queued);
            }
            let mut out = Vec::new();
            for mut budget in budgets.into_iter().chain([usize::MAX]) {
                outbox.write(|slices| take(slices, &mut budget, &mut out));
            }
            prop_assert!(outbox.is_empty());
            prop_assert_eq!(outbox.queued_bytes(), 0);
            prop_assert_eq!(out, frames.concat());
        }
    }
}
