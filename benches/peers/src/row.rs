//! The rows: what is asked of a client, and how many tasks ask.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::meter::{Meter, Outcome};
use crate::publisher;

/// Warming up before a window opens.
const WARM_UP: Duration = Duration::from_millis(250);
/// Keys of one MGET and commands of one pipeline.
pub(crate) const MANY: usize = 100;
/// Tasks that send pipelines or MGET.
const CALLERS_OF_MANY: usize = 8;
/// Tasks that read the large value.
const READERS_OF_LARGE: usize = 4;
/// Fields of the hash.
pub(crate) const FIELDS: usize = 1000;
/// Bytes of the large value.
pub(crate) const LARGE: usize = 1 << 20;
/// Commands in flight at once in the burst.
pub(crate) const BURST: usize = 100_000;
/// Messages published.
const MESSAGES: u64 = 400_000;
/// With this many tasks every eighth command is timed; the clock would cost more than the queue otherwise.
const TIMED: u32 = 8;
/// A subscriber that hears nothing for so long has heard all that it will.
const SILENCE: Duration = Duration::from_secs(2);

pub(crate) const KEYS: &str = "bench:key:";
pub(crate) const LARGE_KEY: &str = "bench:large";
pub(crate) const HASH_KEY: &str = "bench:hash";

/// A row without its runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Row {
    /// `get64-N`
    Get(usize),
    /// `set1k-N`
    Set(usize),
    Pipeline,
    ManyKeys,
    Hash,
    Large,
    PubSub,
    Burst,
    /// The burst's tasks without any client: what they alone cost in memory.
    Tasks,
}

impl Row {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Some(match name.split_once('-') {
            Some(("get64", tasks)) => Self::Get(tasks.parse().ok()?),
            Some(("set1k", tasks)) => Self::Set(tasks.parse().ok()?),
            Some(_) => return None,
            None => match name {
                "pipe100" => Self::Pipeline,
                "mget100" => Self::ManyKeys,
                "hgetall1000" => Self::Hash,
                "get1m" => Self::Large,
                "pubsub" => Self::PubSub,
                "burst100k" => Self::Burst,
                "tasks100k" => Self::Tasks,
                _ => return None,
            },
        })
    }

    fn tasks(self) -> usize {
        match self {
            Self::Get(tasks) | Self::Set(tasks) => tasks,
            Self::Pipeline | Self::ManyKeys => CALLERS_OF_MANY,
            Self::Large => READERS_OF_LARGE,
            Self::Hash | Self::PubSub | Self::Burst | Self::Tasks => 1,
        }
    }
}

/// What came from a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Got {
    /// A message with this many bytes.
    Message(usize),
    /// The client says that it dropped messages.
    Lost(u64),
    /// Something else, such as a confirmation.
    Other,
    /// Nothing will follow.
    End,
}

/// A subscription of a client.
pub trait Feed: Send + 'static {
    /// The next thing that comes.
    fn next(&mut self) -> impl Future<Output = Got> + Send;
}

/// A client in its own idiom; cloned once for each task. Results are lengths, so that nothing is optimised away.
pub trait Peer: Clone + Send + Sync + 'static {
    /// A subscription.
    type Feed: Feed;

    /// Connects to `host:port`.
    fn connect(address: &str) -> impl Future<Output = Self> + Send;
    /// Reads a string into the client's cheapest owned value.
    fn get(&mut self, key: &str) -> impl Future<Output = usize> + Send;
    /// As `get`, for a value of 1 MiB.
    fn get_large(&mut self, key: &str) -> impl Future<Output = usize> + Send {
        self.get(key)
    }
    /// Writes a string.
    fn set(&mut self, key: &str, value: &Bytes) -> impl Future<Output = ()> + Send;
    /// Reads each key by a command of its own, all in one pipeline; gives the sum of the lengths.
    fn pipeline(&mut self, keys: &[String]) -> impl Future<Output = usize> + Send;
    /// Reads all keys by one MGET; gives the sum of the lengths.
    fn mget(&mut self, keys: &[String]) -> impl Future<Output = usize> + Send;
    /// Reads a hash into a `HashMap<String, String>`; gives the number of its fields.
    fn hgetall(&mut self, key: &str) -> impl Future<Output = usize> + Send;
    /// Subscribes to a channel.
    fn subscribe(&mut self, channel: &str) -> impl Future<Output = Self::Feed> + Send;
}

/// What a run is told.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) row: Row,
    pub(crate) address: String,
    pub(crate) window: Duration,
}

pub(crate) async fn run<P: Peer>(run: &Run) -> (Outcome, Arc<Meter>) {
    let tasks = run.row.tasks();
    let meter = Arc::new(Meter::new(tasks));
    let peer = P::connect(&run.address).await;
    let outcome = match run.row {
        Row::PubSub => subscribe(peer, run, &meter).await,
        Row::Burst | Row::Tasks => burst(peer, run, &meter).await,
        row => {
            let running: Vec<_> = (0..tasks)
                .map(|task| tokio::spawn(work(peer.clone(), row, task, Arc::clone(&meter))))
                .collect();
            tokio::time::sleep(WARM_UP).await;
            let window = meter.open();
            tokio::time::sleep(run.window).await;
            let outcome = meter.close(&window);
            meter.stop();
            for task in running {
                task.await.expect("a worker does not panic");
            }
            outcome
        }
    };
    (outcome, meter)
}

async fn work<P: Peer>(peer: P, row: Row, task: usize, meter: Arc<Meter>) {
    match row {
        Row::Get(tasks) => small(peer, task, tasks, &meter).await,
        Row::Set(tasks) => write(peer, task, tasks, &meter).await,
        Row::Pipeline | Row::ManyKeys => many(peer, row, task, &meter).await,
        Row::Hash => hash(peer, task, &meter).await,
        Row::Large => large(peer, task, &meter).await,
        Row::PubSub | Row::Burst | Row::Tasks => {}
    }
}

/// Whether this round of a task is timed.
fn is_timed(tasks: usize, round: u32) -> bool {
    tasks == 1 || round.is_multiple_of(TIMED)
}

async fn small<P: Peer>(mut peer: P, task: usize, tasks: usize, meter: &Meter) {
    let key = format!("{KEYS}{task:04}");
    let mut round = task as u32;
    while meter.goes_on() {
        round = round.wrapping_add(1);
        if is_timed(tasks, round) && meter.is_open() {
            let start = Instant::now();
            assert_eq!(peer.get(&key).await, 64);
            meter.latencies.note(start.elapsed());
        } else {
            assert_eq!(peer.get(&key).await, 64);
        }
        meter.add(task, 1);
    }
}

async fn write<P: Peer>(mut peer: P, task: usize, tasks: usize, meter: &Meter) {
    let key = format!("bench:set:{task:04}");
    let value = Bytes::from(vec![b'x'; 1024]);
    let mut round = task as u32;
    while meter.goes_on() {
        round = round.wrapping_add(1);
        if is_timed(tasks, round) && meter.is_open() {
            let start = Instant::now();
            peer.set(&key, &value).await;
            meter.latencies.note(start.elapsed());
        } else {
            peer.set(&key, &value).await;
        }
        meter.add(task, 1);
    }
}

async fn many<P: Peer>(mut peer: P, row: Row, task: usize, meter: &Meter) {
    let keys: Vec<String> = (0..MANY).map(|key| format!("{KEYS}{key:04}")).collect();
    while meter.goes_on() {
        let start = Instant::now();
        let length = if row == Row::Pipeline { peer.pipeline(&keys).await } else { peer.mget(&keys).await };
        assert_eq!(length, MANY * 64);
        note(meter, start);
        meter.add(task, MANY as u64);
    }
}

async fn hash<P: Peer>(mut peer: P, task: usize, meter: &Meter) {
    while meter.goes_on() {
        let start = Instant::now();
        assert_eq!(peer.hgetall(HASH_KEY).await, FIELDS);
        note(meter, start);
        meter.add(task, 1);
    }
}

async fn large<P: Peer>(mut peer: P, task: usize, meter: &Meter) {
    while meter.goes_on() {
        let start = Instant::now();
        assert_eq!(peer.get_large(LARGE_KEY).await, LARGE);
        note(meter, start);
        meter.add(task, 1);
    }
}

fn note(meter: &Meter, start: Instant) {
    if meter.is_open() {
        meter.latencies.note(start.elapsed());
    }
}

async fn subscribe<P: Peer>(mut peer: P, run: &Run, meter: &Meter) -> Outcome {
    let channel = "bench:channel";
    let mut feed = peer.subscribe(channel).await;
    let mut publisher = publisher::start(&run.address, channel, MESSAGES);
    let (mut got, mut lost) = (0u64, 0u64);
    let mut window = None;
    let mut last = None;
    while got + lost < MESSAGES {
        // The time that is waited for in vain is taken off below; a timer for each message would be the client's cost.
        let next = match tokio::time::timeout(SILENCE, receive(&mut feed, meter, MESSAGES - got - lost)).await
        {
            Ok(next) => next,
            Err(_silence) => break,
        };
        let Some((messages, missed)) = next else { break };
        got += messages;
        lost += missed;
        if window.is_none() {
            window = Some(meter.open());
        } else if got + lost >= MESSAGES {
            break;
        }
        last = Some(Instant::now());
    }
    let _ended = publisher.wait();
    let Some(window) = window else { return Outcome { lost: MESSAGES, ..Outcome::default() } };
    let mut outcome = meter.close(&window);
    let idle = last.map(|last| last.elapsed()).filter(|idle| *idle >= SILENCE).unwrap_or_default();
    outcome.wall = outcome.wall.saturating_sub(idle);
    outcome.lost = lost.max(MESSAGES - got.min(MESSAGES));
    outcome
}

/// Receives up to 1000 messages: how many, and how many the client says it dropped; `None` at the end.
async fn receive(feed: &mut impl Feed, meter: &Meter, left: u64) -> Option<(u64, u64)> {
    // The first one opens the window.
    let wanted = if meter.is_open() { left.min(1000) } else { 1 };
    let (mut got, mut lost) = (0, 0);
    while got + lost < wanted {
        match feed.next().await {
            Got::Message(length) => {
                assert_eq!(length, 64);
                got += 1;
                meter.add(0, 1);
            }
            Got::Lost(count) => lost += count,
            Got::Other => {}
            Got::End => return None,
        }
    }
    Some((got, lost))
}

async fn burst<P: Peer>(peer: P, run: &Run, meter: &Arc<Meter>) -> Outcome {
    one_burst(&peer, run, meter).await;
    meter.add(0, BURST as u64);
    let window = meter.open();
    let start = Instant::now();
    loop {
        one_burst(&peer, run, meter).await;
        meter.add(0, BURST as u64);
        if start.elapsed() >= run.window {
            return meter.close(&window);
        }
    }
}

async fn one_burst<P: Peer>(peer: &P, run: &Run, meter: &Arc<Meter>) {
    let mut running = Vec::with_capacity(BURST);
    for task in 0..BURST {
        let mut peer = peer.clone();
        let meter = Arc::clone(meter);
        if run.row == Row::Tasks {
            running.push(tokio::spawn(async move {
                let start = Instant::now();
                let key = key_of(task);
                tokio::task::yield_now().await;
                assert!(!key.is_empty());
                note(&meter, start);
                drop(peer);
            }));
        } else {
            running.push(tokio::spawn(async move {
                let start = Instant::now();
                assert_eq!(peer.get(key_of(task)).await, 64);
                note(&meter, start);
            }));
        }
    }
    for task in running {
        task.await.expect("a task of the burst does not panic");
    }
}

fn key_of(task: usize) -> &'static str {
    ["bench:key:0000", "bench:key:0001", "bench:key:0002", "bench:key:0003"][task % 4]
}
