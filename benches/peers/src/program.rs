//! A contestant's `main`: reads the arguments, runs one row, prints one line.

use std::process::ExitCode;
use std::time::Duration;

use crate::meter::{Meter, Outcome};
use crate::row::{self, Peer, Row, Run};
use crate::{Floor, allocations, publisher};

/// Runs the program of a client.
pub fn run<P: Peer>() -> ExitCode {
    start(|run| Box::pin(async move { row::run::<P>(&run).await }))
}

impl Floor {
    /// Runs the program of the floor.
    pub fn run() -> ExitCode {
        start(|run| Box::pin(async move { crate::floor::run(&run).await }))
    }
}

type Running = std::pin::Pin<Box<dyn Future<Output = (Outcome, std::sync::Arc<Meter>)> + Send>>;

fn start(way: impl FnOnce(Run) -> Running) -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    if let ["publish", address, channel, messages] = words.as_slice() {
        let messages = messages.parse().unwrap_or(0);
        return match publisher::run(address, channel, messages) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&format!("the publisher: {error}")),
        };
    }
    let [row, runtime, address, mode, seconds] = words.as_slice() else {
        return fail("usage: CLIENT ROW RUNTIME HOST:PORT timed|allocations SECONDS");
    };
    let (Some(row), Ok(seconds)) = (Row::parse(row), seconds.parse::<f64>()) else {
        return fail("no such row");
    };
    let Some(runtime) = runtime_of(runtime) else { return fail("the runtime is mt1, mt2 or ct") };
    if *mode == "allocations" {
        allocations::start();
    }
    let run = Run { row, address: (*address).to_owned(), window: Duration::from_secs_f64(seconds) };
    // On a worker, where a program's own work is: `block_on` itself would be a thread more.
    let running = way(run);
    let (outcome, meter) =
        runtime.block_on(async { tokio::spawn(running).await.expect("a row does not panic") });
    let quantile =
        |part| meter.latencies.quantile(part).map_or_else(|| "-".to_owned(), |us| format!("{us:.2}"));
    println!(
        "ops={} all_ops={} lost={} wall_us={} cpu_us={:.3} allocations={} p50_us={} p99_us={} p999_us={} peak_kib={}",
        outcome.ops,
        outcome.all_ops,
        outcome.lost,
        outcome.wall.as_micros(),
        outcome.cpu.as_nanos() as f64 / 1000.0,
        outcome.allocations,
        quantile(0.5),
        quantile(0.99),
        quantile(0.999),
        peak_kib(),
    );
    // Clients keep tasks that end with the runtime; the figures are out, so nobody waits for them.
    runtime.shutdown_background();
    ExitCode::SUCCESS
}

fn runtime_of(name: &str) -> Option<tokio::runtime::Runtime> {
    let mut builder = match name {
        "ct" => tokio::runtime::Builder::new_current_thread(),
        "mt1" | "mt2" => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(if name == "mt2" { 2 } else { 1 });
            builder
        }
        _ => return None,
    };
    builder.enable_all().build().ok()
}

/// The most memory that this process ever held at once.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn fail(words: &str) -> ExitCode {
    eprintln!("{words}");
    ExitCode::from(2)
}
