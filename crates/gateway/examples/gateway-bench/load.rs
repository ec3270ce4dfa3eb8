//! The load: subscribers, one publisher, and what came of it.

use crate::process::{cpu_seconds, resident_kib};
use serde_json::json;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// Bytes of each publication's data.
const DATA: usize = 128;
/// Wait for stragglers at the end.
const SETTLE: Duration = Duration::from_secs(5);

pub(crate) struct Settings {
    pub(crate) system: String,
    pub(crate) server: SocketAddr,
    pub(crate) pid: u32,
    pub(crate) subscribers: usize,
    pub(crate) scenario: Scenario,
    pub(crate) seconds: u64,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Scenario {
    /// Connect, hold, and look at the memory.
    Idle,
    /// So many publications a second.
    Rate(u32),
    /// At most so many publications not yet delivered to everybody.
    Window(u64),
}

impl Scenario {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text.split_once(':') {
            None if text == "idle" => Some(Self::Idle),
            Some(("rate", rate)) => rate.parse().ok().map(Self::Rate),
            Some(("window", window)) => window.parse().ok().map(Self::Window),
            _ => None,
        }
    }

    fn name(self) -> String {
        match self {
            Self::Idle => "idle".to_owned(),
            Self::Rate(rate) => format!("rate:{rate}"),
            Self::Window(window) => format!("window:{window}"),
        }
    }
}

#[derive(Default)]
struct Board {
    frames: Cell<u64>,
    target: Cell<u64>,
    reached: Notify,
    latencies: RefCell<Vec<u32>>,
    timed: Cell<bool>,
}

fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "a bench measures")]
    Instant::now()
}

pub(crate) fn run(settings: Settings) -> serde_json::Value {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, measure(settings))
}

async fn measure(settings: Settings) -> serde_json::Value {
    let origin = now();
    let board = Rc::new(Board::default());
    let memory_before = resident_kib(settings.pid);
    let cpu_before = cpu_seconds(settings.pid);
    let connecting = now();
    for _ in 0..settings.subscribers {
        let subscribe = "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"bench\"}}    ";
        let stream = open(settings.server, subscribe).await;
        tokio::task::spawn_local(listen(stream, board.clone(), origin));
    }
    let connect_time = connecting.elapsed();
    let cpu_connected = cpu_seconds(settings.pid);
    let memory = resident_kib(settings.pid);
    let subscribers = settings.subscribers as u64;
    board.frames.set(0);
    let mut line = json!({
        "system": settings.system,
        "scenario": settings.scenario.name(),
        "subscribers": subscribers,
        "connects_per_s": (subscribers as f64 / connect_time.as_secs_f64()).round(),
        "cpu_us_per_connect": round((cpu_connected - cpu_before) * 1e6 / subscribers as f64),
        "rss_kib_per_idle_connection": round(memory.saturating_sub(memory_before) as f64 / subscribers as f64),
    });
    let published = match settings.scenario {
        Scenario::Idle => return line,
        Scenario::Rate(rate) => at_rate(&settings, &board, rate, origin).await,
        Scenario::Window(window) => in_window(&settings, &board, window, origin).await,
    };
    let (published, elapsed, cpu) = published;
    let expected = published * subscribers;
    let delivered = board.frames.get();
    let mut latencies = board.latencies.take();
    latencies.sort_unstable();
    let quantile = |part: f64| {
        let at = (latencies.len() as f64 * part) as usize;
        latencies.get(at.min(latencies.len().saturating_sub(1))).map(|micros| round(f64::from(*micros) / 1e3))
    };
    line["cpu_us_per_delivery"] = json!(round3(cpu * 1e6 / delivered.max(1) as f64));
    line["deliveries_per_s"] = json!((delivered as f64 / elapsed.as_secs_f64()).round());
    line["published"] = json!(published);
    line["missing"] = json!(expected.saturating_sub(delivered));
    line["doubled"] = json!(delivered.saturating_sub(expected));
    line["p50_ms"] = json!(quantile(0.5));
    line["p99_ms"] = json!(quantile(0.99));
    line
}

async fn in_window(
    settings: &Settings,
    board: &Rc<Board>,
    window: u64,
    origin: Instant,
) -> (u64, Duration, f64) {
    let mut publisher = open(settings.server, "{\"id\":1,\"connect\":{}}").await;
    let subscribers = settings.subscribers as u64;
    let mut sent = 0_u64;
    let mut begun = None;
    let mut base = 0;
    // The first part warms up and is not counted.
    for part in [Duration::from_millis(500), Duration::from_secs(settings.seconds)] {
        let cpu = cpu_seconds(settings.pid);
        let start = now();
        begun = Some((start, cpu));
        base = sent;
        board.frames.set(0);
        while start.elapsed() < part {
            // Refilled when half of it is delivered, and written as one: as a busy channel looks.
            let delivered = base + board.frames.get() / subscribers;
            let mut frames = Vec::new();
            while sent < delivered + window {
                frames.extend(frame(&publish(origin)));
                sent += 1;
            }
            publisher.write_all(&frames).await.expect("published");
            drain(&mut publisher);
            board.target.set((sent - base).saturating_sub(window / 2) * subscribers);
            if window == 1 {
                board.target.set((sent - base) * subscribers);
            }
            wait(board, SETTLE).await;
        }
        board.target.set((sent - base) * subscribers);
        wait(board, SETTLE).await;
    }
    let (start, cpu) = begun.expect("two parts");
    (sent - base, start.elapsed(), cpu_seconds(settings.pid) - cpu)
}

async fn at_rate(settings: &Settings, board: &Rc<Board>, rate: u32, origin: Instant) -> (u64, Duration, f64) {
    let mut publisher = open(settings.server, "{\"id\":1,\"connect\":{}}").await;
    board.timed.set(true);
    let cpu = cpu_seconds(settings.pid);
    let start = now();
    let count = u64::from(rate) * settings.seconds;
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    for _ in 0..count {
        ticks.tick().await;
        publisher.write_all(&frame(&publish(origin))).await.expect("published");
        drain(&mut publisher);
    }
    board.target.set(count * settings.subscribers as u64);
    wait(board, SETTLE).await;
    (count, start.elapsed(), cpu_seconds(settings.pid) - cpu)
}

async fn wait(board: &Board, most: Duration) {
    if board.frames.get() < board.target.get() {
        // What is missing at the end is reported as such.
        drop(tokio::time::timeout(most, board.reached.notified()).await);
    }
}

/// Reads the replies to publications away.
fn drain(publisher: &mut TcpStream) {
    let mut scratch = [0; 4096];
    while matches!(publisher.try_read(&mut scratch), Ok(read) if read > 0) {}
}

fn publish(origin: Instant) -> String {
    let stamp = format!("{:012}", origin.elapsed().as_micros());
    let filler = "x".repeat(DATA - stamp.len() - 2);
    format!("{{\"id\":3,\"publish\":{{\"channel\":\"bench\",\"data\":\"{stamp}{filler}\"}}}}")
}

/// A masked text frame with an empty mask, in the form with two bytes of length.
fn frame(text: &str) -> Vec<u8> {
    let text = if text.len() < 126 { format!("{text:<126}") } else { text.to_owned() };
    let mut out = vec![0x81, 0xFE];
    out.extend((text.len() as u16).to_be_bytes());
    out.extend([0; 4]);
    out.extend(text.as_bytes());
    out
}

async fn open(server: SocketAddr, first: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server).await.expect("a connection");
    stream.set_nodelay(true).expect("a socket");
    let request = "GET /connection/websocket HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut buffer = [0; 1024];
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let read = stream.read(&mut buffer).await.expect("a head");
        assert!(read > 0, "refused");
        head.extend_from_slice(buffer.get(..read).unwrap_or_default());
    }
    let mut out = vec![0x81, 0x80 | first.len() as u8];
    assert!(first.len() < 126, "a short frame");
    out.extend([0; 4]);
    out.extend(first.as_bytes());
    stream.write_all(&out).await.expect("sent");
    let read = stream.read(&mut buffer).await.expect("a reply");
    assert!(read > 0, "closed");
    stream
}

/// Counts frames, whatever the pieces they come in.
async fn listen(stream: TcpStream, board: Rc<Board>, origin: Instant) {
    thread_local! {
        static BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; 256 * 1024]);
    }
    let mut cut: Vec<u8> = Vec::new();
    let mut skip = 0;
    while stream.readable().await.is_ok() {
        let alive = BUFFER.with_borrow_mut(|buffer| {
            let Ok(read) = stream.try_read(buffer) else { return true };
            if read == 0 {
                return false;
            }
            let mut bytes = buffer.get(..read).unwrap_or_default();
            loop {
                let jump = bytes.len().min(skip);
                bytes = bytes.get(jump..).unwrap_or_default();
                skip -= jump;
                if bytes.is_empty() {
                    break;
                }
                // A header that was cut is put together from its pieces.
                let mut head = cut.clone();
                head.extend_from_slice(bytes.get(..bytes.len().min(4)).unwrap_or_default());
                let (size, len) = match head.as_slice() {
                    [_, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([*high, *low]))),
                    [_, 126, ..] | [_] => {
                        cut.extend_from_slice(bytes);
                        break;
                    }
                    [_, short, ..] => (2, usize::from(*short)),
                    [] => break,
                };
                bytes = bytes.get(size - cut.len()..).unwrap_or_default();
                cut.clear();
                skip = len;
                if len > 2 {
                    board.frames.set(board.frames.get() + 1);
                    if board.timed.get() {
                        time(&board, bytes, origin);
                    }
                }
            }
            if board.target.get() > 0 && board.frames.get() >= board.target.get() {
                board.target.set(u64::MAX);
                board.reached.notify_one();
            }
            true
        });
        if !alive {
            return;
        }
    }
}

/// Takes the time out of a publication's data, its first digits.
fn time(board: &Board, payload: &[u8], origin: Instant) {
    let Some(at) = payload.windows(2).position(|pair| pair == b"\"0") else { return };
    let digits = payload.get(at + 1..at + 13).unwrap_or_default();
    let stamp = std::str::from_utf8(digits).ok().and_then(|text| text.parse::<u128>().ok());
    if let Some(stamp) = stamp {
        let micros = origin.elapsed().as_micros().saturating_sub(stamp);
        board.latencies.borrow_mut().push(u32::try_from(micros).unwrap_or(u32::MAX));
    }
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn round3(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}
