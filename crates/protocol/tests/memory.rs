//! What a hostile peer can make us reserve: 64 KiB and four times what it has sent, whatever its headers say.
#![expect(unsafe_code, reason = "an allocator that counts is an unsafe trait")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use bytes::{Bytes, BytesMut};
use evenkeel_protocol::{
    Frame, Limits, Reply,
    conn::{Connection, Incoming},
};

struct Counting;

thread_local! {
    /// Bytes held by this thread, and the most that were held at once.
    static HELD: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

fn grow(size: usize) {
    let _ending = HELD.try_with(|held| {
        let (now, most) = held.get();
        held.set((now + size, most.max(now + size)));
    });
}

fn shrink(size: usize) {
    let _ending = HELD.try_with(|held| {
        let (now, most) = held.get();
        held.set((now.saturating_sub(size), most));
    });
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // While bytes move, both blocks may be held.
        grow(size);
        shrink(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        shrink(layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that `work` held at once beyond what was held before.
fn peak<T>(work: impl FnOnce() -> T) -> usize {
    let before = HELD.with(|held| {
        let (now, _) = held.get();
        held.set((now, now));
        now
    });
    let result = work();
    let most = HELD.with(Cell::get).1;
    drop(result);
    most - before
}

/// What the result of `work` holds.
fn kept<T>(work: impl FnOnce() -> T) -> usize {
    let before = HELD.with(Cell::get).0;
    let result = work();
    let after = HELD.with(Cell::get).0;
    drop(result);
    after - before
}

const FREE: usize = 64 * 1024;

/// Feeds `wire` in pieces to a connection, and holds what comes of it.
fn receive(wire: &[u8], piece: usize) -> Vec<Reply> {
    let mut conn = Connection::new(Limits::default());
    let (mut read, mut replies) = (BytesMut::new(), Vec::new());
    for bytes in wire.chunks(piece) {
        conn.sent(());
        read.extend_from_slice(bytes);
        loop {
            match conn.next(&mut read) {
                Ok(Some(Incoming::Reply((), reply) | Incoming::Push(reply))) => replies.push(reply),
                Ok(Some(_) | None) => break,
                Err(_) => return replies,
            }
        }
    }
    replies
}

#[test]
fn headers_that_promise_much_reserve_nothing() {
    let mut deep = Vec::new();
    for _ in 0..128 {
        deep.extend_from_slice(b"*100000\r\n");
    }
    let mut wires: Vec<Vec<u8>> = [
        "*16777215\r\n",
        "%8388607\r\n",
        "~16777215\r\n",
        ">16777215\r\n",
        "|8388607\r\n",
        "$536870912\r\n",
        "=536870912\r\n",
        "!536870911\r\n",
        "*4294967295\r\n",
        "*18446744073709551615\r\n",
        "$18446744073709551615\r\n",
        "$?\r\n;536870912\r\n",
        "*?\r\n",
        "*1\r\n$?\r\n;1\r\n",
        "+",
    ]
    .map(|header| header.as_bytes().to_vec())
    .into();
    wires.extend([
        // Attributes: of attributes, in a row, empty, and announced in streamed aggregates.
        [&b"|8000000\r\n+k\r\n"[..], &b"|1\r\n+k\r\n".repeat(100)].concat(),
        b"|1\r\n+k\r\n:1\r\n".repeat(20_000),
        b"|0\r\n".repeat(50_000),
        [&b"*?\r\n"[..], &b"|1\r\n+k\r\n:1\r\n_\r\n".repeat(10_000)].concat(),
        // Pushes: announced, in attributes, and one behind the other.
        b">8000000\r\n+message\r\n".to_vec(),
        b"|1\r\n+k\r\n>2\r\n".to_vec(),
        // Streamed strings: of small chunks, of a large one that does not come, and many without a chunk.
        [&b"$?\r\n"[..], &b";1\r\na\r\n".repeat(40_000)].concat(),
        [&b"$?\r\n;1\r\na\r\n"[..], b";500000000\r\n", &vec![b'x'; 100_000]].concat(),
        [&b"*?\r\n"[..], &b"$?\r\n;0\r\n".repeat(20_000)].concat(),
        // Streamed aggregates that go on and on, flat and in each other.
        [&b"*?\r\n"[..], &b"_\r\n".repeat(60_000)].concat(),
        [&b"%?\r\n+k\r\n".repeat(127)[..], b"*16000000\r\n"].concat(),
        // Lines that do not end: numbers, a length with zeros in front, an error, a double.
        [&b"("[..], &vec![b'9'; 200_000]].concat(),
        [&b":"[..], &vec![b'0'; 200_000]].concat(),
        [&b"$"[..], &vec![b'0'; 200_000]].concat(),
        [&b"-ERR "[..], &vec![b'x'; 200_000]].concat(),
        [&b",1."[..], &vec![b'0'; 200_000]].concat(),
        // Strings with a head of their own.
        b"=500000000\r\ntxt:".to_vec(),
        b"=8\r\nnocolon!\r\n".repeat(5_000),
        b"!500000000\r\nERR ".to_vec(),
        // What RESP2 servers send.
        b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$500000000\r\n".to_vec(),
        b"*-1\r\n$-1\r\n".repeat(5_000),
    ]);
    wires.push(deep);
    wires.push("*1\r\n".repeat(100_000).into_bytes());
    wires.push(b"*16777215\r\n".iter().copied().chain(b":1\r\n".repeat(50_000)).collect());
    wires.push(b"$536870912\r\n".iter().copied().chain(vec![b'x'; 300_000]).collect());
    for wire in &wires {
        for piece in [1, 7, 4096, usize::MAX] {
            if piece < 4096 && wire.len() > 100_000 {
                continue;
            }
            let mut replies = 0;
            let held = peak(|| {
                let received = receive(wire, piece.min(wire.len().max(1)));
                replies = received.len();
                received
            });
            let name = String::from_utf8_lossy(&wire[..wire.len().min(24)]);
            // The test's own line of tokens is not the connection's reading.
            let tokens =
                64 + wire.len().div_ceil(piece) * 4 + replies.next_power_of_two() * 2 * size_of::<Reply>();
            assert!(held <= FREE + 4 * wire.len() + tokens, "{name:?} in pieces of {piece}: {held} bytes");
        }
    }
}

#[test]
fn lazy_replies_cost_their_bytes() {
    for wire in [
        b"*100000\r\n".iter().copied().chain(b"_\r\n".repeat(100_000)).collect::<Vec<u8>>(),
        b":1\r\n".repeat(20_000),
        b"$4\r\nabcd\r\n".repeat(20_000),
    ] {
        let mut held = 0;
        let peak = peak(|| {
            let replies = receive(&wire, 16 * 1024);
            held = replies.len();
            replies
        });
        // The test holds the replies in a list of its own.
        let list = held.next_power_of_two() * 2 * size_of::<Reply>();
        assert!(peak <= FREE + 4 * wire.len() + list, "{held} replies of {} bytes: {peak}", wire.len());
    }
}

#[test]
fn a_tree_costs_one_elements_size_for_each_that_has_arrived() {
    let flat = [&b"*50000\r\n"[..], &b":1\r\n".repeat(50_000)].concat();
    let lists = [&b"*20000\r\n"[..], &b"*1\r\n_\r\n".repeat(20_000)].concat();
    let maps = [&b"~20000\r\n"[..], &b"%1\r\n_\r\n#t\r\n".repeat(20_000)].concat();
    let described = [&b"*20000\r\n"[..], &b"|1\r\n+k\r\n:1\r\n_\r\n".repeat(20_000)].concat();
    let in_a_row = [&b"|1\r\n+k\r\n:1\r\n".repeat(20_000)[..], b"_\r\n"].concat();
    let empty_ones = [&b"|0\r\n".repeat(50_000)[..], b"_\r\n"].concat();
    let streamed = [&b"*?\r\n"[..], &b"_\r\n".repeat(50_000), b".\r\n"].concat();
    let streamed_lists = [&b"*20000\r\n"[..], &b"*?\r\n_\r\n.\r\n".repeat(20_000)].concat();
    let streamed_both = [&b"*?\r\n"[..], &b"%?\r\n_\r\n_\r\n.\r\n".repeat(20_000), b".\r\n"].concat();
    for (wire, elements, times) in [
        (flat, 50_001, 1),
        (lists, 40_001, 1),
        (maps, 60_001, 1),
        (described, 80_001, 1),
        (empty_ones, 50_001, 1),
        (streamed_lists, 40_001, 1),
        // What announces no number grows while it is put together; nothing of that is kept.
        (in_a_row, 60_001, 3),
        (streamed, 50_001, 3),
        (streamed_both, 60_001, 3),
    ] {
        let name = String::from_utf8_lossy(&wire[..24]).into_owned();
        let reply = Reply::new(Bytes::from(wire));
        let held = peak(|| reply.frame().unwrap());
        let one_each = elements * size_of::<Frame>();
        let most = FREE + times * one_each;
        assert!(held <= most, "{name:?}: {elements} elements: {held} bytes, {most} allowed");
        let kept = kept(|| reply.frame().unwrap());
        assert!(kept <= one_each, "{name:?}: {elements} elements keep {kept} bytes, {one_each} allowed");
    }
    // What is announced and has not arrived is an error before it is a reservation.
    let cut = Bytes::from_static(b"*16777215\r\n:1\r\n");
    assert!(peak(|| Frame::parse(&cut, &Limits::default()).is_err()) <= FREE);
    assert!(peak(|| Reply::new(cut.clone()).frame().is_err()) <= FREE);
    assert!(peak(|| Reply::new(cut.clone()).decode::<Vec<i64>>().is_err()) <= FREE);
    assert!(peak(|| Reply::new(cut.clone()).decode::<Vec<Vec<Bytes>>>().is_err()) <= FREE);
}

#[test]
fn a_command_allocates_nothing_once_its_thread_has_sent_one() {
    use evenkeel_protocol::Command;
    let value = vec![b'x'; 1024];
    let mut wire = BytesMut::with_capacity(4096);
    let mut send = || {
        wire.clear();
        Command::new("SET").key("key").arg(&value).encode(&mut wire);
        wire.clear();
        Command::new("GET").key("key").encode(&mut wire);
    };
    send();
    assert_eq!(peak(&mut send), 0);
}
