//! The measurements behind the pool's choices: how callers hand commands to the task that writes, how they are told of
//! the reply, whose memory the reply is in, and, against a server, how large a write is, who writes for a lone caller, what
//! a lease costs, and what is left of the cost when a client knows nothing but GET. `decisions [HOST:PORT] [part ...]` prints
//! one table a line at a time; the parts are `hand`, `replies`, `waves`, `inline`, `leases` and `shape`, and without any all
//! are printed.

mod inline;
mod leases;
mod shape;
mod waves;

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};

const COMMAND: &[u8] = b"*2\r\n$3\r\nGET\r\n$14\r\nbench:key:0000\r\n";
const COMMANDS: u64 = 1_000_000;
const ROUNDS: usize = 5;
const SHARDS: usize = 8;

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// How producers hand commands over; the consumer takes all there are, in one order.
trait Hand: Send + Sync + 'static {
    fn new() -> Self;
    fn append(&self);
    /// Takes what is there; gives how many.
    fn take(&self) -> u64;
}

/// One buffer and one line of tokens, under one lock.
struct Locked(Mutex<(Vec<u8>, Vec<u64>)>, Mutex<(Vec<u8>, Vec<u64>)>);

impl Hand for Locked {
    fn new() -> Self {
        Self(Mutex::default(), Mutex::default())
    }

    fn append(&self) {
        let mut queue = self.0.lock();
        queue.0.extend_from_slice(COMMAND);
        let token = queue.1.len() as u64;
        queue.1.push(token);
    }

    fn take(&self) -> u64 {
        let mut spare = self.1.lock();
        spare.0.clear();
        spare.1.clear();
        std::mem::swap(&mut *self.0.lock(), &mut *spare);
        spare.1.len() as u64
    }
}

/// A buffer and a lock for each of eight shards; a counter keeps the order, by which the consumer sorts.
struct Sharded {
    next: AtomicU64,
    shards: Vec<Mutex<Vec<(u64, [u8; COMMAND.len()])>>>,
    out: Mutex<(Vec<(u64, [u8; COMMAND.len()])>, Vec<u8>)>,
}

impl Hand for Sharded {
    fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { next: AtomicU64::new(0), shards, out: Mutex::default() }
    }

    fn append(&self) {
        let seq = self.next.fetch_add(1, Ordering::Relaxed);
        let mut wire = [0; COMMAND.len()];
        wire.copy_from_slice(COMMAND);
        self.shards[seq as usize % SHARDS].lock().push((seq, wire));
    }

    fn take(&self) -> u64 {
        let mut out = self.out.lock();
        let (merged, bytes) = &mut *out;
        merged.clear();
        bytes.clear();
        for shard in &self.shards {
            merged.append(&mut shard.lock());
        }
        merged.sort_unstable_by_key(|(seq, _)| *seq);
        for (_, wire) in merged.iter() {
            bytes.extend_from_slice(wire);
        }
        merged.len() as u64
    }
}

/// A channel of encoded commands, which the consumer copies into its buffer.
struct Channel(
    tokio::sync::mpsc::UnboundedSender<Vec<u8>>,
    Mutex<(tokio::sync::mpsc::UnboundedReceiver<Vec<u8>>, Vec<u8>)>,
);

impl Hand for Channel {
    fn new() -> Self {
        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
        Self(sender, Mutex::new((receiver, Vec::new())))
    }

    fn append(&self) {
        let _gone = self.0.send(COMMAND.to_vec());
    }

    fn take(&self) -> u64 {
        let mut held = self.1.lock();
        let (receiver, bytes) = &mut *held;
        bytes.clear();
        let mut count = 0;
        while let Ok(command) = receiver.try_recv() {
            bytes.extend_from_slice(&command);
            count += 1;
        }
        count
    }
}

/// CPU time of all threads for one command.
fn handed<H: Hand>(producers: usize) -> f64 {
    let rounds = (0..ROUNDS).map(|_| {
        let (hand, done) = (Arc::new(H::new()), Arc::new(AtomicBool::new(false)));
        let before = cpu();
        let consumer = {
            let (hand, done) = (Arc::clone(&hand), Arc::clone(&done));
            thread::spawn(move || {
                let mut taken = 0;
                loop {
                    let last = done.load(Ordering::Acquire);
                    let count = hand.take();
                    taken += count;
                    if count == 0 {
                        if last {
                            return taken;
                        }
                        // As a task that sleeps until the server answers.
                        thread::sleep(Duration::from_micros(50));
                    }
                }
            })
        };
        let each = COMMANDS / producers as u64;
        let running: Vec<_> = (0..producers)
            .map(|_| {
                let hand = Arc::clone(&hand);
                thread::spawn(move || (0..each).for_each(|_| hand.append()))
            })
            .collect();
        for producer in running {
            producer.join().expect("a producer does not panic");
        }
        done.store(true, Ordering::Release);
        let taken = consumer.join().expect("the consumer does not panic");
        assert_eq!(taken, each * producers as u64);
        (cpu() - before).as_nanos() as f64 / taken as f64
    });
    median(rounds.collect())
}

/// Nanoseconds for one call.
fn timed(count: u32, mut what: impl FnMut()) -> f64 {
    let rounds = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        (0..count).for_each(|_| what());
        start.elapsed().as_nanos() as f64 / f64::from(count)
    });
    median(rounds.collect())
}

enum Slot {
    Free,
    Waiting(Waker),
    Done(u64),
}

/// A place in a slab under the lock that the append takes anyway, against a channel for each command.
fn completions() -> (f64, f64) {
    let cx = &mut Context::from_waker(Waker::noop());
    let slots: Mutex<(Vec<Slot>, VecDeque<usize>)> =
        Mutex::new(((0..64).map(|_| Slot::Free).collect(), (0..64).collect()));
    let slot = timed(1_000_000, || {
        let index = {
            let mut held = slots.lock();
            let index = held.1.pop_front().unwrap_or(0);
            held.0[index] = Slot::Waiting(cx.waker().clone());
            index
        };
        if let Slot::Waiting(waker) = std::mem::replace(&mut slots.lock().0[index], Slot::Done(7)) {
            waker.wake();
        }
        let mut held = slots.lock();
        if let Slot::Done(value) = std::mem::replace(&mut held.0[index], Slot::Free) {
            black_box(value);
        }
        held.1.push_back(index);
    });
    let channel = timed(1_000_000, || {
        let (sender, receiver) = tokio::sync::oneshot::channel::<u64>();
        let mut receiver = std::pin::pin!(receiver);
        assert!(receiver.as_mut().poll(cx).is_pending());
        let _gone = sender.send(7);
        if let Poll::Ready(Ok(value)) = receiver.as_mut().poll(cx) {
            black_box(value);
        }
    });
    (slot, channel)
}

/// One reply of `size` bytes out of a read buffer: a slice of it, or memory of its own.
fn replies(size: usize) -> (f64, f64) {
    let count = (4_000_000 / (size as u32 + 64)).max(64);
    let body = vec![b'x'; size];
    let mut buffer = BytesMut::with_capacity(64 * 1024 + size);
    let slice = timed(count, || {
        buffer.reserve(size);
        buffer.extend_from_slice(&body);
        let reply: Bytes = buffer.split_to(size).freeze();
        black_box(&reply);
    });
    let mut buffer = BytesMut::with_capacity(64 * 1024 + size);
    let own = timed(count, || {
        buffer.extend_from_slice(&body);
        let reply: Vec<u8> = buffer.to_vec();
        buffer.clear();
        black_box(&reply);
    });
    (slice, own)
}

fn hand() {
    println!("CPU ns to hand a command over, producers and consumer together");
    println!("{:>10} {:>12} {:>12} {:>12}", "producers", "one lock", "8 shards", "channel");
    for producers in [1, 4, 16, 64] {
        let (lock, shards, channel) =
            (handed::<Locked>(producers), handed::<Sharded>(producers), handed::<Channel>(producers));
        println!("{producers:>10} {lock:>12.1} {shards:>12.1} {channel:>12.1}");
    }
}

fn told() {
    let (slot, channel) = completions();
    println!("ns to be told of a reply: slot and waker {slot:.1}, oneshot {channel:.1}");
    println!("ns for a reply's memory, the copy into the read buffer included");
    println!("{:>10} {:>12} {:>12}", "bytes", "slice", "own");
    for size in [16, 64, 256, 1024, 4096, 16 * 1024, 64 * 1024, 1024 * 1024] {
        let (slice, own) = replies(size);
        println!("{size:>10} {slice:>12.1} {own:>12.1}");
    }
}

fn writes(address: &str) {
    let mut stream = std::net::TcpStream::connect(address).expect("the server listens");
    stream.set_nodelay(true).expect("a socket");
    println!("ns for a command of a wave that is written in pieces: CPU of the client, and wall");
    println!("{:>10} {:>12} {:>12} {:>12}", "wave", "per write", "cpu", "wall");
    for wave in [64, 512, 4096, 32_768] {
        for cap in [32, 128, 512, 2048, 8192, 32_768] {
            // Larger caps than the wave are no caps.
            if cap < 2 * wave {
                let cost = waves::capped(&mut stream, wave, cap);
                println!("{wave:>10} {:>12} {:>12.1} {:>12.1}", cap.min(wave), cost.cpu, cost.wall);
            }
        }
    }
}

/// The runtimes that answers differ by.
fn runtimes() -> impl Iterator<Item = (String, tokio::runtime::Runtime)> {
    [0, 1, 2].into_iter().map(|workers: usize| {
        let (name, mut builder) = if workers == 0 {
            ("current thread".to_owned(), tokio::runtime::Builder::new_current_thread())
        } else {
            (format!("{workers} worker(s)"), tokio::runtime::Builder::new_multi_thread())
        };
        (name, builder.worker_threads(workers.max(1)).enable_all().build().expect("a runtime"))
    })
}

fn lone(address: &str) {
    println!("us for a command of a lone caller: CPU of the client, and wall");
    println!("{:>16} {:>10} {:>12} {:>12}", "runtime", "writer", "cpu", "wall");
    for (name, runtime) in runtimes() {
        for (writer, by_caller) in [("task", false), ("caller", true)] {
            let (cpu, wall) = runtime.block_on(inline::lone_caller(address, by_caller));
            println!("{name:>16} {writer:>10} {cpu:>12.2} {wall:>12.2}");
        }
    }
}

fn bare(address: &str) {
    println!("us of CPU for a GET of 64 bytes: a multiplexer that knows GET alone, and Evenkeel");
    println!("{:>16} {:>10} {:>12} {:>12}", "runtime", "tasks", "GET alone", "Evenkeel");
    for (name, runtime) in runtimes() {
        for tasks in [64, 512] {
            let (sketch, evenkeel) = runtime.block_on(shape::costs(address, tasks));
            println!("{name:>16} {tasks:>10} {sketch:>12.2} {evenkeel:>12.2}");
        }
    }
}

fn lent(address: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let found = runtime.block_on(leases::checkout(address));
    println!(
        "ns to take and give back a lease: {:.1}, {:.2} times the {:.1} of a lock and unlock",
        found.lease,
        found.lease / found.lock,
        found.lock
    );
    println!("ns for a look at the clock, of which each way has one: {:.1}", found.clock);
    println!("commands to the server meanwhile: {}; reads and writes: {}", found.commands, found.calls);
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (addresses, parts): (Vec<_>, Vec<_>) = words.iter().partition(|word| word.contains(':'));
    let wanted = |part: &str| parts.is_empty() || parts.iter().any(|word| *word == part);
    if wanted("hand") {
        hand();
    }
    if wanted("replies") {
        told();
    }
    let Some(address) = addresses.first() else { return };
    if wanted("waves") {
        writes(address);
    }
    if wanted("inline") {
        lone(address);
    }
    if wanted("leases") {
        lent(address);
    }
    if wanted("shape") {
        bare(address);
    }
}
