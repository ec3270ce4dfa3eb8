//! The load: subscribers, one publisher, and what came of it, as one line of JSON.

use crate::Words;
use crate::board::Board;
use crate::process::{cpu_seconds, resident_kib};
use crate::publisher::{Publisher, Target};
use crate::socket::{Hello, listen, open};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Wait for stragglers.
const SETTLE: Duration = Duration::from_secs(5);
/// Until everybody hears the first publication.
const WARM: Duration = Duration::from_millis(500);
const WARM_TRIES: u32 = 40;
/// Connections opened at once.
const OPENING: usize = 32;

pub(crate) struct Settings {
    server: SocketAddr,
    target: Target,
    hello: Hello,
    pid: u32,
    subscribers: usize,
    scenario: String,
    seconds: f64,
}

impl Settings {
    pub(crate) fn read(words: &Words) -> Self {
        let hello = match words.value("--hello") {
            None | Some("centrifugo") => Hello::Centrifugo,
            Some("nchan") => Hello::Path("/sub/bench"),
            Some("plain") => Hello::Path("/ws/bench"),
            Some(_) => Hello::Path("/bench"),
        };
        Self {
            server: words.value("--server").and_then(|text| text.parse().ok()).expect("--server ADDRESS"),
            target: Target::read(words.value("--publish").expect("--publish redis:ADDRESS")),
            hello,
            pid: words.number("--pid", 0),
            subscribers: words.number("--subscribers", 1_000),
            scenario: words.value("--scenario").unwrap_or("alone").to_owned(),
            seconds: words.number("--seconds", 2.0),
        }
    }
}

pub(crate) fn run(settings: &Settings) -> Value {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, measure(settings))
}

async fn measure(settings: &Settings) -> Value {
    let origin = Instant::now();
    let board = Rc::new(Board::default());
    let memory = resident_kib(settings.pid);
    let cpu = cpu_seconds(settings.pid);
    let mut opened = 0;
    while opened < settings.subscribers {
        let batch = OPENING.min(settings.subscribers - opened);
        let streams = (0..batch).map(|_| open(settings.server, settings.hello, false));
        for stream in futures_util::future::join_all(streams).await {
            tokio::task::spawn_local(listen(stream, board.clone(), origin));
        }
        opened += batch;
    }
    let per = settings.subscribers as f64;
    let connecting = (cpu_seconds(settings.pid) - cpu) * 1e6 / per;
    let held = resident_kib(settings.pid).saturating_sub(memory) as f64 / per;
    let mut line = json!({ "subscribers": settings.subscribers });
    let mut publisher = Publisher::open(settings.target).await;
    match &*settings.scenario {
        "idle10k" => line["rss_kib_per_idle_connection"] = json!(held),
        "connect" => line["cpu_us_per_connect"] = json!(connecting),
        "alone" => window(settings, &board, &mut publisher, 1, origin, &mut line).await,
        "hot" => window(settings, &board, &mut publisher, 16, origin, &mut line).await,
        "latency" => {
            warm(settings, &board, &mut publisher, origin).await;
            rate(settings, &board, &mut publisher, 20, origin, &mut line).await;
        }
        "slow-reader" => {
            warm(settings, &board, &mut publisher, origin).await;
            let mut before = json!({});
            rate(settings, &board, &mut publisher, 5, origin, &mut before).await;
            let _slow = open(settings.server, settings.hello, true).await;
            rate(settings, &board, &mut publisher, 5, origin, &mut line).await;
            line["p99_ms_without"] = before["p99_ms"].clone();
        }
        other => panic!("{other} is no scenario of the load"),
    }
    assert_eq!(board.ended.get(), 0, "connections ended");
    line
}

/// Publishes until everybody hears it.
async fn warm(settings: &Settings, board: &Board, publisher: &mut Publisher, origin: Instant) {
    for _ in 0..WARM_TRIES {
        board.frames.set(0);
        publisher.publish(1, origin.elapsed().as_micros()).await;
        publisher.settle().await;
        if board.reach(settings.subscribers as u64, WARM).await {
            return;
        }
    }
    panic!("not everybody hears what is published");
}

/// At most `window` publications not yet delivered to everybody.
async fn window(
    settings: &Settings,
    board: &Rc<Board>,
    publisher: &mut Publisher,
    window: u64,
    origin: Instant,
    line: &mut Value,
) {
    warm(settings, board, publisher, origin).await;
    let subscribers = settings.subscribers as u64;
    // The first part warms up and is not counted.
    for part in [0.3, settings.seconds] {
        let (cpu, start) = (cpu_seconds(settings.pid), Instant::now());
        let mut sent = 0;
        board.frames.set(0);
        while start.elapsed().as_secs_f64() < part {
            // Refilled when half of it is delivered, and written as one: as a busy channel looks.
            let delivered = board.frames.get() / subscribers;
            let missing = (delivered + window).saturating_sub(sent);
            if missing > 0 {
                publisher.publish(missing, origin.elapsed().as_micros()).await;
                sent += missing;
            }
            if !board.reach((sent - window / 2) * subscribers, SETTLE).await {
                break;
            }
        }
        board.reach(sent * subscribers, SETTLE).await;
        finish(settings, board, (sent, start, cpu), line);
    }
}

/// So many publications a second.
async fn rate(
    settings: &Settings,
    board: &Rc<Board>,
    publisher: &mut Publisher,
    rate: u32,
    origin: Instant,
    line: &mut Value,
) {
    board.frames.set(0);
    board.timed.set(true);
    let (cpu, start) = (cpu_seconds(settings.pid), Instant::now());
    let count = (f64::from(rate) * settings.seconds) as u64;
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    for _ in 0..count {
        ticks.tick().await;
        publisher.publish(1, origin.elapsed().as_micros()).await;
    }
    board.reach(count * settings.subscribers as u64, SETTLE).await;
    board.timed.set(false);
    let (p50, p99) = board.latencies();
    line["p50_ms"] = json!(p50);
    line["p99_ms"] = json!(p99);
    finish(settings, board, (count, start, cpu), line);
}

fn finish(settings: &Settings, board: &Board, (sent, start, cpu): (u64, Instant, f64), line: &mut Value) {
    let elapsed = start.elapsed().as_secs_f64();
    let used = cpu_seconds(settings.pid) - cpu;
    let (expected, delivered) = (sent * settings.subscribers as u64, board.frames.get());
    line["cpu_us_per_delivery"] = json!(used * 1e6 / delivered.max(1) as f64);
    line["deliveries_per_s"] = json!(delivered as f64 / elapsed);
    line["missing"] = json!(expected.saturating_sub(delivered));
    line["doubled"] = json!(delivered.saturating_sub(expected));
}
