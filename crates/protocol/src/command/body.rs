//! `Body`: the bytes of a command on their way, without an allocation in steady state.
//!
//! A command of usual size lives inside itself. A longer one takes a buffer that an earlier one of this thread has left.

use std::{cell::RefCell, ops::Deref};

/// Bytes of arguments that need no buffer: a GET, INCR or small SET with its key.
const INLINE: usize = 78;

/// The smallest buffer: a command that does not fit inside itself is likely to grow on.
const FIRST: usize = 512;

/// Buffers that a thread keeps, and the largest that it keeps.
const SPARE: (usize, usize) = (8, 32 * 1024);

thread_local! {
    static BUFFERS: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// Takes a buffer with room for `room` bytes.
fn take_buffer(room: usize) -> Vec<u8> {
    let spare = BUFFERS.try_with(|buffers| buffers.borrow_mut().pop()).ok().flatten();
    let mut buffer = spare.unwrap_or_default();
    buffer.reserve(room.max(FIRST));
    buffer
}

/// Leaves a buffer for the next command of this thread.
fn leave_buffer(mut buffer: Vec<u8>) {
    if buffer.capacity() == 0 || buffer.capacity() > SPARE.1 {
        return;
    }
    buffer.clear();
    // A thread that ends keeps none.
    let _ending = BUFFERS.try_with(|buffers| {
        let mut buffers = buffers.borrow_mut();
        if buffers.len() < SPARE.0 {
            buffers.push(buffer);
        }
    });
}

#[derive(Debug)]
enum Store {
    Inline { len: u8, bytes: [u8; INLINE] },
    Heap(Vec<u8>),
}

/// Bytes that are appended to.
#[derive(Debug)]
pub(super) struct Body(Store);

impl Body {
    pub(super) const fn new() -> Self {
        Self(Store::Inline { len: 0, bytes: [0; INLINE] })
    }

    /// A body that begins with the bytes of a command's name.
    pub(super) const fn of(head: &[u8]) -> Self {
        assert!(head.len() <= INLINE, "no name of a command is as long as this");
        let mut bytes = [0; INLINE];
        let mut at = 0;
        while at < head.len() {
            bytes[at] = head[at];
            at += 1;
        }
        Self(Store::Inline { len: head.len() as u8, bytes })
    }

    /// Appends what `write` writes into the `len` bytes that it is given.
    fn put(&mut self, len: usize, write: impl FnOnce(&mut [u8])) {
        if let Store::Inline { len: used, bytes } = &mut self.0 {
            let from = usize::from(*used);
            if let Some(room) = bytes.get_mut(from..from + len) {
                write(room);
                *used = (from + len) as u8;
                return;
            }
            let mut buffer = take_buffer(from + len);
            buffer.extend_from_slice(bytes.get(..from).unwrap_or_default());
            self.0 = Store::Heap(buffer);
        }
        if let Store::Heap(buffer) = &mut self.0 {
            let from = buffer.len();
            buffer.resize(from + len, 0);
            write(buffer.get_mut(from..).unwrap_or_default());
        }
    }

    #[inline]
    pub(super) fn extend_from_slice(&mut self, bytes: &[u8]) {
        if let Store::Heap(buffer) = &mut self.0 {
            return buffer.extend_from_slice(bytes);
        }
        self.put(bytes.len(), |room| room.copy_from_slice(bytes));
    }

    /// Appends `$3\r\nkey\r\n`.
    #[inline]
    pub(super) fn put_string(&mut self, string: &[u8]) {
        let length = string.len();
        if length < 10 {
            self.put_short([b'$', b'0' | length as u8, b'\r', b'\n'], string);
        } else if length < 100 {
            let (tens, ones) = (b'0' | (length / 10) as u8, b'0' | (length % 10) as u8);
            self.put_short([b'$', tens, ones, b'\r', b'\n'], string);
        } else {
            self.put_length(length);
            self.extend_from_slice(string);
            self.extend_from_slice(b"\r\n");
        }
    }

    /// A head, a string and a line end under one look at the room.
    fn put_short<const HEAD: usize>(&mut self, head: [u8; HEAD], string: &[u8]) {
        let length = HEAD + string.len() + 2;
        if let Store::Heap(buffer) = &mut self.0 {
            buffer.reserve(length);
            buffer.extend_from_slice(&head);
            buffer.extend_from_slice(string);
            buffer.extend_from_slice(b"\r\n");
            return;
        }
        self.put(length, |room| {
            if let Some((first, rest)) = room.split_first_chunk_mut::<HEAD>()
                && let Some((middle, last)) = rest.split_last_chunk_mut::<2>()
            {
                *first = head;
                middle.copy_from_slice(string);
                *last = *b"\r\n";
            }
        });
    }

    /// Appends `$3\r\n`.
    pub(super) fn put_length(&mut self, length: usize) {
        if length < 10 {
            self.extend_from_slice(&[b'$', b'0' | length as u8, b'\r', b'\n']);
        } else if length < 100 {
            self.extend_from_slice(&[
                b'$',
                b'0' | (length / 10) as u8,
                b'0' | (length % 10) as u8,
                b'\r',
                b'\n',
            ]);
        } else {
            self.extend_from_slice(b"$");
            self.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            self.extend_from_slice(b"\r\n");
        }
    }
}

impl Deref for Body {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Store::Inline { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Store::Heap(buffer) => buffer,
        }
    }
}

impl Clone for Body {
    fn clone(&self) -> Self {
        Self(match &self.0 {
            Store::Inline { len, bytes } => Store::Inline { len: *len, bytes: *bytes },
            Store::Heap(buffer) => {
                let mut copy = take_buffer(buffer.len());
                copy.extend_from_slice(buffer);
                Store::Heap(copy)
            }
        })
    }
}

impl Drop for Body {
    #[inline]
    fn drop(&mut self) {
        if let Store::Heap(buffer) = &mut self.0 {
            leave_buffer(std::mem::take(buffer));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_stay_in_order_when_they_outgrow_the_command() {
        for step in [1, 7, 40, INLINE - 1, INLINE, INLINE + 1, 500] {
            let (mut body, mut expected) = (Body::new(), Vec::new());
            for round in 0..6u8 {
                let part = vec![b'a' + round; step];
                body.extend_from_slice(&part);
                body.put_length(step);
                expected.extend_from_slice(&part);
                expected.extend_from_slice(format!("${step}\r\n").as_bytes());
                assert_eq!(&body[..], &expected[..], "{step}");
            }
            assert_eq!(&body.clone()[..], &expected[..]);
        }
    }

    #[test]
    fn a_thread_keeps_few_buffers_and_none_that_is_large() {
        let kept = || BUFFERS.with(|buffers| buffers.borrow().iter().map(Vec::capacity).collect::<Vec<_>>());
        let long = |length: usize| {
            let mut body = Body::new();
            body.extend_from_slice(&vec![b'x'; length]);
            body
        };
        drop((0..20).map(|_| long(1000)).collect::<Vec<_>>());
        assert_eq!(kept().len(), SPARE.0);
        drop(long(SPARE.1 * 2));
        assert!(kept().iter().all(|&capacity| capacity <= SPARE.1));
    }
}
