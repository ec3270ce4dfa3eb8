//! The load: replies that name their question, counters, a queue, transactions, messages, values of all sizes.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use evenkeel_client::{Client, Delivery, Error};
use tokio::task::JoinHandle;

use crate::{
    Failure,
    tally::{Said, Tally, count},
};

const ECHOES: u64 = 32;
const COUNTERS: u64 = 16;
const WATCHERS: u64 = 4;
/// Keys that are asked for by name.
const KEYS: u64 = 1000;
const QUEUE: &str = "soak:queue";
const CHANNEL: &str = "soak:news";
/// Between two messages, and between two elements of the queue.
const PACE: Duration = Duration::from_millis(5);
/// A write whose fate is unknown may run so late, on a connection that the server has not noticed to be gone.
const LATE: Duration = Duration::from_secs(10);
/// How long the last messages and elements may take.
const LAST: Duration = Duration::from_secs(3);

/// The tasks of the load.
pub(crate) struct Work {
    tasks: Vec<JoinHandle<()>>,
    counters: Vec<JoinHandle<Counter>>,
}

/// What was said of one counter.
struct Counter {
    key: String,
    done: u64,
    unknown: u64,
}

impl Work {
    /// Waits for what is under way, and holds the counters against the server.
    pub(crate) async fn finish(self, client: &Client, tally: &Tally) {
        for task in self.tasks {
            if task.await.is_err() {
                tally.wrong(format_args!("a task of the load panicked"));
            }
        }
        for counter in self.counters {
            let Ok(Counter { key, done, unknown }) = counter.await else {
                tally.wrong(format_args!("a task of the load panicked"));
                continue;
            };
            match client.get::<Option<u64>>(&key).await {
                Ok(stands) => {
                    let stands = stands.unwrap_or(0);
                    if stands < done {
                        tally.lost(format_args!("{key} stands at {stands}, {done} were acknowledged"));
                    }
                    if stands > done + unknown {
                        tally.doubled(format_args!(
                            "{key} stands at {stands}, at most {} ran",
                            done + unknown
                        ));
                    }
                }
                Err(error) => tally.wrong(format_args!("{key} cannot be read at the end: {error}")),
            }
        }
    }
}

pub(crate) async fn start(client: &Client, tally: &Arc<Tally>) -> Result<Work, Failure> {
    for key in 0..KEYS {
        client.set(own(key), own(key)).await?;
    }
    let all = || (client.clone(), Arc::clone(tally));
    let mut tasks = Vec::new();
    for seed in 0..ECHOES {
        let (client, tally) = all();
        tasks.push(tokio::spawn(async move { echo(&client, &tally, seed).await }));
    }
    for number in 0..WATCHERS {
        let (client, tally) = all();
        tasks.push(tokio::spawn(async move { watcher(&client, &tally, number).await }));
    }
    let (large, its) = all();
    tasks.push(tokio::spawn(async move { values(&large, &its).await }));
    let pushes = Arc::new(Doubts::default());
    let (pushing, its) = all();
    let doubts = Arc::clone(&pushes);
    tasks.push(tokio::spawn(async move { producer(&pushing, &its, &doubts).await }));
    let (popping, its) = all();
    tasks.push(tokio::spawn(async move { consumer(&popping, &its, &pushes).await }));
    let messages = Arc::new(Doubts::default());
    let subscription = client.subscribe([CHANNEL]).await?;
    let (doubts, its) = (Arc::clone(&messages), Arc::clone(tally));
    tasks.push(tokio::spawn(async move { subscriber(subscription, &its, &doubts).await }));
    let (publishing, its) = all();
    tasks.push(tokio::spawn(async move { publisher(&publishing, &its, &messages).await }));
    let counters = (0..COUNTERS)
        .map(|number| {
            let (client, tally) = all();
            tokio::spawn(async move { counter(&client, &tally, number).await })
        })
        .collect();
    Ok(Work { tasks, counters })
}

fn own(key: u64) -> String {
    format!("own:{key}")
}

/// Asks for values that are the names of their keys; gives up one in eight, at any moment.
async fn echo(client: &Client, tally: &Tally, seed: u64) {
    let mut draw = fastrand::Rng::with_seed(seed);
    while tally.goes_on() {
        let own = own(draw.u64(..KEYS));
        let get = client.get::<String>(own.as_str());
        let answer = if draw.u8(..8) == 0 {
            let patience = Duration::from_micros(draw.u64(..3_000));
            tokio::select! {
                biased;
                answer = get => answer,
                () = tokio::time::sleep(patience) => {
                    count(&tally.cancelled);
                    continue;
                }
            }
        } else {
            get.await
        };
        tally.note(&answer);
        if let Ok(text) = answer
            && text != own
        {
            tally.wrong(format_args!("{own} was answered with the value of {text}"));
        }
        tokio::time::sleep(Duration::from_micros(draw.u64(..2_000))).await;
    }
}

/// Counts up a key of its own; each answer is higher than the one before, and by no more than was tried since.
async fn counter(client: &Client, tally: &Tally, number: u64) -> Counter {
    let mut draw = fastrand::Rng::with_seed(1000 + number);
    let mut counter = Counter { key: format!("soak:count:{number}"), done: 0, unknown: 0 };
    let (mut last, mut tried) = (0, 0);
    while tally.goes_on() {
        tokio::time::sleep(Duration::from_micros(draw.u64(..3_000))).await;
        let incr = client.incr(&counter.key);
        let answer = if draw.u8(..16) == 0 {
            tokio::select! {
                biased;
                answer = incr => answer,
                () = tokio::time::sleep(Duration::from_micros(draw.u64(..2_000))) => {
                    count(&tally.cancelled);
                    counter.unknown += 1;
                    tried += 1;
                    continue;
                }
            }
        } else {
            incr.await
        };
        match tally.note(&answer) {
            Said::Done => counter.done += 1,
            Said::Unknown => {
                counter.unknown += 1;
                tried += 1;
            }
            Said::NotDone => {}
        }
        if let Ok(value) = answer {
            let value = u64::try_from(value).unwrap_or(0);
            if value <= last || value > last + tried + 1 {
                tally.wrong(format_args!("{} said {value} behind {last}, {tried} unknown", counter.key));
            }
            (last, tried) = (value, 0);
        }
    }
    counter
}

/// Read, decide, write under WATCH on a lease; nobody else writes the key.
async fn watcher(client: &Client, tally: &Tally, number: u64) {
    let key = format!("soak:watch:{number}");
    let (mut least, mut most) = (0i64, 0i64);
    let mut doubt = None::<Instant>;
    while tally.goes_on() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let mut lease = match client.lease().await {
            Ok(lease) => lease,
            Err(error) => {
                tally.note::<()>(&Err(error));
                doubt = Some(Instant::now());
                continue;
            }
        };
        let seen: Result<i64, Error> = async {
            lease.watch([&key]).await?;
            Ok(lease.get::<Option<i64>>(&key).await?.unwrap_or(0))
        }
        .await;
        tally.note(&seen);
        let Ok(seen) = seen else {
            // A server that loads its data touches what is watched meanwhile.
            doubt = Some(Instant::now());
            continue;
        };
        if seen < least || seen > most {
            tally.wrong(format_args!("{key} was {seen}, and must be from {least} to {most}"));
        }
        least = least.max(seen);
        let written: Result<Option<(bool,)>, Error> = lease.transaction().set(&key, seen + 1).await;
        match tally.note(&written) {
            Said::Done
                if matches!(written, Ok(None))
                    && doubt.is_none_or(|since| since.elapsed() > LATE)
                    && !tally.loads() =>
            {
                let stands = client.get::<Option<i64>>(&key).await;
                tally.wrong(format_args!(
                    "{key} changed, and nobody else writes it: it was {seen}, is {stands:?}, must be from {least} to {most}"
                ));
            }
            Said::Done if matches!(written, Ok(None)) => {}
            Said::Done => (least, most) = (seen + 1, seen + 1),
            Said::Unknown => (most, doubt) = (most.max(seen + 1), Some(Instant::now())),
            Said::NotDone => doubt = Some(Instant::now()),
        }
    }
}

/// Values from nothing to a mebibyte, written and read again.
async fn values(client: &Client, tally: &Tally) {
    let mut draw = fastrand::Rng::with_seed(7);
    let whole = Bytes::from((0..1 << 20).map(|at: u32| at.to_le_bytes()[0] ^ 0x5a).collect::<Vec<u8>>());
    while tally.goes_on() {
        tokio::time::sleep(Duration::from_millis(30)).await;
        let value = whole.slice(..1 << draw.u32(..=20));
        let set = client.set("soak:value", &value).await;
        if tally.note(&set) != Said::Done {
            continue;
        }
        let got = client.get::<Bytes>("soak:value").await;
        tally.note(&got);
        if got.is_ok_and(|got| got != value) {
            tally.wrong(format_args!("a value of {} bytes came back as another", value.len()));
        }
    }
}

/// Numbers whose fate nobody knows, until they lie behind.
#[derive(Debug, Default)]
struct Doubts(Mutex<BTreeSet<u64>>);

impl Doubts {
    fn all(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, number: u64) {
        self.all().insert(number);
    }

    /// How many numbers between two that came are missing and beyond doubt; what lies behind is forgotten.
    fn missing(&self, last: u64, number: u64) -> u64 {
        let mut doubts = self.all();
        let doubted = doubts.range(last + 1..number).count() as u64;
        *doubts = doubts.split_off(&number);
        (number - last - 1).saturating_sub(doubted)
    }
}

/// Sends numbers until the end, each as often as it certainly did not run.
async fn numbers<F, T>(tally: &Tally, doubts: &Doubts, send: impl Fn(u64) -> F)
where
    F: Future<Output = Result<T, Error>>,
{
    let mut pace = tokio::time::interval(PACE);
    let mut next = 1;
    while tally.goes_on() {
        pace.tick().await;
        // Before it is sent: its receiver may be faster than the answer.
        doubts.add(next);
        match tally.note(&send(next).await) {
            Said::Done => {
                doubts.all().remove(&next);
                next += 1;
            }
            Said::Unknown => next += 1,
            Said::NotDone => {}
        }
    }
}

async fn producer(client: &Client, tally: &Tally, doubts: &Doubts) {
    numbers(tally, doubts, |number| async move { client.rpush(QUEUE, number).await }).await;
}

/// Takes what the one producer pushes: in order, each once.
async fn consumer(client: &Client, tally: &Tally, doubts: &Doubts) {
    let wait = Duration::from_secs(1);
    let (mut last, mut doubted) = (0, 0u64);
    loop {
        let popped = client.blpop::<Option<(String, u64)>>([QUEUE], wait).await;
        // A pop whose reply was lost may have taken one.
        doubted += u64::from(tally.note(&popped) == Said::Unknown);
        match popped {
            Ok(Some((_, number))) => {
                if number <= last {
                    tally.doubled(format_args!("{number} was popped behind {last}"));
                    continue;
                }
                let missing = doubts.missing(last, number);
                if missing > doubted {
                    tally.lost(format_args!("{missing} elements between {last} and {number}"));
                }
                (last, doubted) = (number, 0);
            }
            Ok(None) if !tally.goes_on() => return,
            _ => {}
        }
    }
}

async fn publisher(client: &Client, tally: &Tally, doubts: &Doubts) {
    numbers(tally, doubts, |number| async move { client.publish(CHANNEL, number).await }).await;
}

/// Hears what the one publisher says: in order, each once, and told where something may be missing.
async fn subscriber(mut subscription: evenkeel_client::Subscription, tally: &Tally, doubts: &Doubts) {
    let (mut last, mut told) = (0, false);
    loop {
        let wait = if tally.goes_on() { Duration::from_secs(1) } else { LAST };
        match tokio::time::timeout(wait, subscription.recv()).await {
            Ok(Some(Delivery::Message { payload, .. })) => {
                count(&tally.messages);
                let Some(number) = std::str::from_utf8(&payload).ok().and_then(|text| text.parse().ok())
                else {
                    tally.wrong(format_args!("a message that nobody published"));
                    continue;
                };
                if number <= last {
                    tally.doubled(format_args!("message {number} came behind {last}"));
                    continue;
                }
                let missing = doubts.missing(last, number);
                if missing > 0 && !told {
                    tally.silent(format_args!("{missing} messages between {last} and {number}"));
                }
                (last, told) = (number, false);
            }
            Ok(Some(Delivery::Gap { .. } | Delivery::Lagged { .. })) => {
                tally.gaps.fetch_add(1, Ordering::Relaxed);
                told = true;
            }
            Ok(Some(_)) => {}
            Ok(None) => return tally.wrong(format_args!("the subscription ended")),
            Err(_silence) if !tally.goes_on() => return,
            Err(_silence) => {}
        }
    }
}
