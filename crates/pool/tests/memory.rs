//! What a hostile peer can make a connection hold: 64 KiB and four times what it has sent, in the handshake and behind it.
#![expect(unsafe_code, reason = "an allocator that counts is an unsafe trait")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::Arc,
    time::Duration,
};

use bytes::BytesMut;
use evenkeel_pool::{
    Connected, Connecting, Connector, Deaf, DialConfig, DialError, Lane, LaneConfig, LaneId, Link,
    LinkConfig, LinkId, LinkObserver, driver::dial,
};
use evenkeel_protocol::{Endpoint, Push, conn::Violation};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
};

struct Counting;

thread_local! {
    /// Bytes held by this thread, and the most that were held at once.
    static HELD: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

fn count(grown: usize, shrunk: usize) {
    let _ending = HELD.try_with(|held| {
        let (now, most) = held.get();
        // While bytes move, both blocks may be held.
        held.set(((now + grown).saturating_sub(shrunk), most.max(now + grown)));
    });
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const PATIENCE: Duration = Duration::from_secs(30);

/// The pipe holds so much; what is in it has not arrived.
const PIPE: usize = 1024;

/// A peer that greets, or does not, and then says what it was told to.
#[derive(Debug)]
struct Hostile {
    greets: bool,
    wire: Vec<u8>,
    /// Told when all was said, or nobody reads any more; the pipe stays open until the test has looked.
    said: Mutex<Option<oneshot::Sender<usize>>>,
}

impl Connector for Hostile {
    fn connect(&self, _endpoint: &Endpoint) -> Connecting {
        let (greets, wire, said) = (self.greets, self.wire.clone(), self.said.lock().take());
        Box::pin(async move {
            let (near, mut far) = tokio::io::duplex(PIPE);
            drop(tokio::spawn(async move {
                let mut asked = BytesMut::with_capacity(1024);
                let _gone = far.read_buf(&mut asked).await;
                if greets {
                    let _gone = far.write_all(b"%1\r\n+proto\r\n:3\r\n").await;
                }
                let Some(said) = said else { return };
                // Everything that was made for the connection stands by now.
                HELD.with(|held| held.set((held.get().0, held.get().0)));
                let before = HELD.with(Cell::get).0;
                for piece in wire.chunks(PIPE) {
                    if far.write_all(piece).await.is_err() {
                        break;
                    }
                }
                let _nobody = said.send(HELD.with(Cell::get).1 - before);
                let _closed = far.read_buf(&mut asked).await;
            }));
            Ok(Connected::new(near, None))
        })
    }
}

fn hostile(greets: bool, wire: Vec<u8>) -> (DialConfig, oneshot::Receiver<usize>) {
    let (said, told) = oneshot::channel();
    let peer = Hostile { greets, wire, said: Mutex::new(Some(said)) };
    (DialConfig::default().connector(Arc::new(peer)), told)
}

fn endpoint() -> Endpoint {
    Endpoint::new("memory", 1)
}

fn wires() -> Vec<Vec<u8>> {
    vec![
        b">0\r\n".repeat(60_000),
        b">1\r\n+x\r\n".repeat(40_000),
        b">3\r\n+message\r\n+c\r\n$1\r\nm\r\n".repeat(10_000),
        [&b"$500000000\r\n"[..], &vec![b'x'; 3_000_000]].concat(),
        [&b">2\r\n+x\r\n$500000000\r\n"[..], &vec![b'x'; 200_000]].concat(),
        [&b"*16000000\r\n"[..], &b"*2\r\n$1\r\na\r\n:1\r\n".repeat(40_000)].concat(),
        [&b"|8000000\r\n"[..], &b"+a\r\n:1\r\n".repeat(40_000)].concat(),
        [&b"$?\r\n"[..], &b";1\r\na\r\n".repeat(40_000)].concat(),
        [&b"+"[..], &vec![b'x'; 500_000]].concat(),
        b"$500000000\r\n".to_vec(),
    ]
}

/// What a turn's lists of replies, pushes and events take, whatever has arrived.
const LISTS: usize = 512 * 1024;

fn check(name: &str, wire: &[u8], held: usize, lists: usize) {
    let most = 64 * 1024 + 4 * wire.len() + lists;
    let start = String::from_utf8_lossy(&wire[..wire.len().min(24)]).into_owned();
    assert!(held <= most, "{name} {start:?}: {held} bytes held for {} sent, {most} allowed", wire.len());
}

#[tokio::test]
async fn a_lane_holds_little_of_what_nobody_asked_for() {
    for wire in wires() {
        let (dial, told) = hostile(true, wire.clone());
        let lane = Lane::start(LaneId(1), endpoint(), LaneConfig::default().dial(dial), Arc::new(Deaf));
        let held = tokio::time::timeout(PATIENCE, told).await.unwrap().unwrap();
        check("lane", &wire, held, 0);
        drop(lane);
    }
}

struct DeafLink;

impl LinkObserver for DeafLink {
    fn message(&self, _link: LinkId, _message: Push) {}
}

#[tokio::test]
async fn a_link_holds_little_of_what_nobody_asked_for() {
    for wire in wires() {
        let (dial, told) = hostile(true, wire.clone());
        let link = Link::start(LinkId(1), endpoint(), LinkConfig::default().dial(dial), Arc::new(DeafLink));
        let held = tokio::time::timeout(PATIENCE, told).await.unwrap().unwrap();
        check("link", &wire, held, LISTS);
        drop(link);
    }
}

#[tokio::test]
async fn a_peer_that_does_not_greet_is_left_before_it_is_heard_out() {
    for wire in [b">0\r\n".repeat(100_000), b">1\r\n+x\r\n".repeat(100_000)] {
        let (dial, told) = hostile(false, wire);
        let error = dial::dial(&endpoint(), &dial).await.expect_err("it never greets");
        assert!(matches!(error, DialError::NotRedis { cause: Violation::Flood, .. }), "{error:?}");
        let held = tokio::time::timeout(PATIENCE, told).await.unwrap().unwrap();
        assert!(held <= 128 * 1024, "{held}");
    }
    let huge = [&b"$2000000\r\n"[..], &vec![b'x'; 2_000_000]].concat();
    let (dial, told) = hostile(false, huge);
    let error = dial::dial(&endpoint(), &dial).await.expect_err("no greeting is so long");
    assert!(matches!(error, DialError::NotRedis { cause: Violation::NotResp(_), .. }), "{error:?}");
    assert!(tokio::time::timeout(PATIENCE, told).await.unwrap().unwrap() <= 128 * 1024);
}
