//! `run`: a client, its load, the trouble, and what came of it.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use evenkeel_client::{Client, Event};
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    Failure, consumers,
    ledger::{Ledger, add},
    measure::{Watch, resident},
    plan::{Load, Plan, Trouble},
    server::Server,
    workers::{self, Shared, Times},
};

/// Writers, one slot each.
const WRITERS: usize = 50;
/// Between two rounds of a paced writer.
const PACE: Duration = Duration::from_millis(20);
/// Before the first trouble: connections settle, and memory with them.
const WARM_UP: Duration = Duration::from_secs(2);
/// Nothing to be moved takes longer than this after the close.
const PATIENCE: Duration = Duration::from_secs(3);

/// What the client said about its handoffs.
#[derive(Debug, Default)]
struct Handed {
    count: u64,
    /// The longest from the end of a jitter to the last connection.
    pool_moved: Duration,
    moved: u64,
    abandoned: u64,
}

pub(crate) async fn run(plan: &Plan) -> Result<String, Failure> {
    let mut server = Server::start().await?;
    let url = plan.url(server.url());
    let dial = dial_time(server.url()).await?;
    let client = Client::connect(url.as_str()).await?;
    let shared = Arc::new(Shared {
        client: client.clone(),
        ledger: Ledger::default(),
        watch: Watch::new(),
        stop: AtomicBool::new(false),
    });
    let (handed, finished) = listen(&shared);
    if plan.load == Load::Idle {
        return idle(plan, &shared, &mut server, &handed, dial).await;
    }
    let tasks = Tasks::start(&shared, plan).await?;
    tokio::time::sleep(WARM_UP).await;
    let memory = Memory::start();
    let before = server.counters().await?;
    let mut closed = 0;
    let mut in_use = 0;
    for _ in 0..plan.handoffs {
        closed += one(plan, &shared, &mut server, in_use, &finished).await?;
        if matches!(plan.trouble, Trouble::Move { .. }) {
            in_use = 1 - in_use;
        }
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let peak_rss_ratio = memory.ratio();
    let after = server.counters().await?;
    let times = tasks.finish(&shared).await?;
    let connections = after.open;
    let results = Results { plan, shared: &shared, times: &times, dial, peak_rss_ratio };
    Ok(results.line(
        &handed,
        &[
            ("connects", (after.accepted - before.accepted) as f64),
            ("closed_by_server", closed as f64),
            ("connections", connections as f64),
        ],
    ))
}

/// One trouble from its beginning to its end.
async fn one(
    plan: &Plan,
    shared: &Shared,
    server: &mut Server,
    in_use: usize,
    finished: &watch::Receiver<u64>,
) -> Result<u64, Failure> {
    let mut finished = finished.clone();
    finished.mark_unchanged();
    shared.watch.begin();
    let started = Instant::now();
    server.begin(plan, in_use).await?;
    let moves = matches!(plan.trouble, Trouble::Move { .. });
    let closed = if moves {
        // The handoff is over when its last connection has moved, or at the close when some never do.
        tokio::select! {
            biased;
            _ = finished.changed() => {
                shared.watch.end();
                server.end().await?
            }
            closed = server.end() => {
                let closed = closed?;
                let _late = tokio::time::timeout(PATIENCE, finished.changed()).await;
                shared.watch.end();
                closed
            }
        }
    } else {
        let closed = server.end().await?;
        shared.watch.end();
        closed
    };
    let took = started.elapsed();
    show_progress(plan, took, closed);
    tokio::time::sleep(Duration::from_millis(200)).await;
    Ok(closed)
}

/// A long run shows that it is alive, and where it did not go as it should.
fn show_progress(plan: &Plan, took: Duration, closed: u64) {
    if plan.handoffs > 100 {
        static DONE: AtomicU64 = AtomicU64::new(0);
        let done = DONE.fetch_add(1, Ordering::Relaxed) + 1;
        if closed > 0 {
            eprintln!("{}: at the end of {done} the server closed {closed} connections", plan.scenario);
        }
        if done.is_multiple_of(50) {
            eprintln!("{}: {done} of {} ({took:?} for the last)", plan.scenario, plan.handoffs);
        }
    }
}

/// Connections that nobody uses, through one move.
async fn idle(
    plan: &Plan,
    shared: &Arc<Shared>,
    server: &mut Server,
    handed: &Arc<Mutex<Handed>>,
    dial: f64,
) -> Result<String, Failure> {
    let client = &shared.client;
    let size = plan.pool.unwrap_or(20);
    let mut leases = Vec::new();
    for _ in 0..size {
        let mut lease = client.lease().await?;
        lease.cmd("PING").query::<String>().await?;
        leases.push(lease);
    }
    drop(leases);
    let memory = Memory::start();
    let before = server.counters().await?;
    server.begin(plan, 0).await?;
    let closed = server.end().await?;
    tokio::time::sleep(PATIENCE).await;
    let peak_rss_ratio = memory.ratio();
    let mut times = Times::default();
    for number in 0..size {
        let from = Instant::now();
        let result = client.incr(format!("first:{number}")).await;
        times.longest = times.longest.max(from.elapsed());
        shared.ledger.note("first", &result);
        let mut lease = client.lease().await?;
        let result = lease.cmd("PING").query::<String>().await;
        shared.ledger.note("first", &result);
    }
    let after = server.counters().await?;
    let results = Results { plan, shared, times: &times, dial, peak_rss_ratio };
    Ok(results.line(
        handed,
        &[
            ("connects", (after.accepted - before.accepted) as f64),
            ("closed_by_server", closed as f64),
            ("connections", after.open as f64),
        ],
    ))
}

/// Hears what the client says of its handoffs.
fn listen(shared: &Arc<Shared>) -> (Arc<Mutex<Handed>>, watch::Receiver<u64>) {
    let handed = Arc::new(Mutex::new(Handed::default()));
    let (tx, rx) = watch::channel(0);
    let mut events = shared.client.events();
    let into = Arc::clone(&handed);
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            if let Event::HandedOff { took, waited, moved, abandoned, .. } = event {
                let mut handed = into.lock().unwrap_or_else(PoisonError::into_inner);
                handed.count += 1;
                handed.pool_moved = handed.pool_moved.max(took.saturating_sub(waited));
                handed.moved += u64::from(moved);
                handed.abandoned += u64::from(abandoned);
                drop(handed);
                tx.send_modify(|count| *count += 1);
            }
        }
    });
    (handed, rx)
}

/// The time of one more connection from nothing to its first reply, as a median.
async fn dial_time(server: &str) -> Result<f64, Failure> {
    let mut times = Vec::new();
    for _ in 0..15 {
        let from = Instant::now();
        let client = Client::connect(server).await?;
        times.push(from.elapsed().as_secs_f64() * 1000.0);
        client.close(Duration::from_secs(1)).await;
    }
    times.sort_by(f64::total_cmp);
    Ok(times.get(times.len() / 2).copied().unwrap_or_default())
}

/// Resident memory: steady first, then its peak.
struct Memory {
    steady: u64,
    peak: Arc<AtomicU64>,
    sampler: JoinHandle<()>,
}

impl Memory {
    fn start() -> Self {
        let steady = resident().unwrap_or(1);
        let peak = Arc::new(AtomicU64::new(steady));
        let into = Arc::clone(&peak);
        let sampler = tokio::spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(10));
            loop {
                pace.tick().await;
                into.fetch_max(resident().unwrap_or(0), Ordering::Relaxed);
            }
        });
        Self { steady, peak, sampler }
    }

    fn ratio(self) -> f64 {
        self.sampler.abort();
        self.peak.load(Ordering::Relaxed) as f64 / self.steady as f64
    }
}

type Items = (JoinHandle<Vec<crate::ledger::Said>>, Vec<JoinHandle<Vec<usize>>>, Vec<String>);

/// The tasks of a load.
struct Tasks {
    writers: Vec<JoinHandle<Times>>,
    others: Vec<JoinHandle<()>>,
    items: Vec<Items>,
    publisher: JoinHandle<Vec<crate::ledger::Said>>,
    subscriber: JoinHandle<Result<std::collections::BTreeMap<usize, usize>, evenkeel_client::Error>>,
}

impl Tasks {
    async fn start(shared: &Arc<Shared>, plan: &Plan) -> Result<Self, Failure> {
        let full = plan.load == Load::Full;
        let (heard, ready) = tokio::sync::oneshot::channel();
        let subscriber = tokio::spawn(consumers::subscriber(Arc::clone(shared), "news", heard));
        ready.await?;
        let publisher =
            tokio::spawn(consumers::publisher(Arc::clone(shared), "news", Duration::from_millis(10)));
        let pace = if full { None } else { Some(PACE) };
        let writers = (0..WRITERS)
            .map(|number| tokio::spawn(workers::writer(Arc::clone(shared), number, pace)))
            .collect();
        let mut others = Vec::new();
        let mut items = Vec::new();
        let list = "jobs".to_owned();
        // Blocked for longer than a grace, so that every move meets it waiting now and then.
        let consumer = consumers::consumer(Arc::clone(shared), list.clone(), Duration::from_secs(5));
        let producer = consumers::producer(Arc::clone(shared), list.clone(), Duration::from_millis(20));
        items.push((tokio::spawn(producer), vec![tokio::spawn(consumer)], vec![list]));
        if full {
            for number in 0..2 {
                others.push(tokio::spawn(workers::transactions(Arc::clone(shared), number)));
                others.push(tokio::spawn(workers::watchers(Arc::clone(shared), number)));
            }
            // A consumer that hardly ever gets anything: it waits through whole handoffs.
            let (from, to) = ("{m}:from".to_owned(), "{m}:to".to_owned());
            let mover =
                consumers::mover(Arc::clone(shared), from.clone(), to.clone(), Duration::from_secs(5));
            others.push(tokio::spawn(mover));
            let producer = consumers::producer(Arc::clone(shared), from.clone(), Duration::from_millis(700));
            items.push((tokio::spawn(producer), Vec::new(), vec![from, to]));
        }
        Ok(Self { writers, others, items, publisher, subscriber })
    }

    async fn finish(self, shared: &Arc<Shared>) -> Result<Times, Failure> {
        shared.stop.store(true, Ordering::Relaxed);
        consumers::end_lists(&shared.client, &["jobs", "{m}:from"]).await;
        let mut times = Times::default();
        for writer in self.writers {
            times.add(&writer.await?);
        }
        for other in self.others {
            other.await?;
        }
        for (producer, consumers, lists) in self.items {
            let said = producer.await?;
            let mut seen = Vec::new();
            for consumer in consumers {
                seen.extend(consumer.await?);
            }
            seen.retain(|number| *number != consumers::LAST);
            consumers::compare_items(shared, &said, seen, &lists).await;
        }
        let said = self.publisher.await?;
        match self.subscriber.await? {
            Ok(heard) => consumers::compare_messages(shared, &said, &heard),
            Err(error) => {
                eprintln!("the subscriber: {error}");
                add(&shared.ledger.lost, said.len());
            }
        }
        Ok(times)
    }
}

struct Results<'a> {
    plan: &'a Plan,
    shared: &'a Shared,
    times: &'a Times,
    dial: f64,
    peak_rss_ratio: f64,
}

impl Results<'_> {
    fn line(&self, handed: &Mutex<Handed>, more: &[(&str, f64)]) -> String {
        let handed = handed.lock().unwrap_or_else(PoisonError::into_inner);
        let ledger = &self.shared.ledger;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        let millis = |time: Duration| time.as_secs_f64() * 1000.0;
        let (inside, outside) = (self.times.inside.quantile(0.999), self.times.outside.quantile(0.999));
        let ratio = if outside > 0.0 && self.times.inside.len() > 0 { inside / outside } else { 0.0 };
        let mut pairs = vec![
            ("handoffs", self.plan.handoffs as f64),
            ("commands", count(&ledger.commands)),
            ("failed", count(&ledger.failed)),
            ("unknown", count(&ledger.unknown)),
            ("vanished", count(&ledger.vanished)),
            ("doubled", count(&ledger.doubled)),
            ("out_of_order", count(&ledger.out_of_order)),
            ("published", count(&ledger.published)),
            ("lost", count(&ledger.lost)),
            ("duplicated", count(&ledger.duplicated)),
            ("gaps", count(&ledger.gaps)),
            ("items", count(&ledger.items)),
            ("items_lost", count(&ledger.items_lost)),
            ("items_doubled", count(&ledger.items_doubled)),
            ("p999_ratio", ratio),
            ("p999_inside_ms", inside),
            ("p999_outside_ms", outside),
            ("overlapping", self.times.inside.len() as f64),
            ("longest_gap_ms", millis(self.times.longest)),
            ("longest_outside_ms", millis(self.times.longest_outside)),
            ("longest_silence_ms", millis(self.shared.watch.gap())),
            ("dial_ms", self.dial),
            ("pool_moved_ms", millis(handed.pool_moved)),
            ("peak_rss_ratio", self.peak_rss_ratio),
            ("engine_handoffs", handed.count as f64),
            ("moved", handed.moved as f64),
            ("abandoned", handed.abandoned as f64),
        ];
        pairs.extend_from_slice(more);
        let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join(" ")
    }
}
