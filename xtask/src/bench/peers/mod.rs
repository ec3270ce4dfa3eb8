//! `cargo xtask bench peers`: every row for every client in turn, medians, a table, a chart.

mod chart;
mod contestant;
mod cores;
mod figures;
mod row;
mod server;
mod table;

use std::path::PathBuf;

use crate::failure::{Failure, Outcome};
use crate::process;

use contestant::{Contestant, Mode};
use cores::Cores;
use figures::{Figures, Line};
use row::{Row, Runtime};
use server::Server;

/// What stands below the flags in `--help`.
pub(super) const ROWS_EXPLAINED: &str = "\
Rows, each followed by its runtime (-mt1, -mt2, -ct):
  get64-1, get64-64, get64-512  GET of 64 bytes, by so many tasks on one handle
  set1k-64                      SET of 1 KiB by 64 tasks
  pipe100                       pipelines of 100 GETs by 8 tasks; per GET, latencies per pipeline
  mget100                       MGET of 100 keys by 8 tasks; per key, latencies per MGET
  hgetall1000                   HGETALL of 1000 fields into a HashMap<String, String>, one task; per HGETALL
  get1m                         GET of 1 MiB by 4 tasks
  pubsub                        400 000 messages of 64 bytes; per message received, no latencies
  burst100k                     100 000 tasks, each with one GET, all at once; per GET, spawning included
Runtimes: mt1 and mt2 are tokio's multi-thread runtime with one and two workers, ct its current-thread runtime.
With mt1 and ct the server has one core and the client another; with mt2 nothing is pinned.
Clients: evenkeel, redis, fred, rustis with their defaults (limits that would refuse a row are lifted), and floor: a raw
socket with commands encoded beforehand. The floor's latencies are those of a whole window of commands; its memory in
burst100k is that of the 100 000 tasks without any client.
GET reads into Vec<u8> (evenkeel, redis, rustis) or Bytes (fred; evenkeel for get1m).
cpu_us_per_op is user and system time of the client's process, ops_per_s wall time, peak_rss_mib the whole process;
allocs_per_op and syscalls_per_op come from a run of their own each. All are medians over the rounds.
A figure that cannot be had is null (- in the table), and the reason is printed on standard error.";

/// Arguments of `bench peers`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Prints one JSON object a line for each row and client on standard output, and nothing else there
    #[arg(long)]
    json: bool,
    /// Rows to run, joined by commas, with a runtime (get64-64-mt1) or without (all three). Default: all
    #[arg(long, value_delimiter = ',', value_name = "ROW")]
    rows: Vec<String>,
    /// Timed rounds; figures are their medians
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Clients to run, joined by commas. Default: all
    #[arg(long, value_delimiter = ',', value_name = "CLIENT")]
    clients: Vec<String>,
    /// Length of the measured window of each round
    #[arg(long, default_value_t = 0.8, value_parser = seconds)]
    seconds: f64,
    /// Where the chart goes. Default: docs/peers.svg when all rows and clients run, else target/bench/peers.svg
    #[arg(long, value_name = "FILE")]
    chart: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.05..=600.0).contains(&seconds) { Ok(seconds) } else { Err("from 0.05 to 600 seconds".to_owned()) }
}

pub(crate) fn run(args: &Args) -> Outcome {
    let rows = row::choose(&args.rows)?;
    let clients = contestant::choose(&args.clients)?;
    build(&clients)?;
    let cores = Cores::of_this_process();
    if cores.is_single() {
        eprintln!("one core only: server and clients share it, and nothing is pinned");
    }
    let server = Server::start(&cores)?;
    let mut lines = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        eprintln!("{}/{} {row}: {} rounds", number + 1, rows.len(), args.rounds);
        let measured = measure(args, row, &clients, &cores, &server);
        for line in &measured {
            if args.json {
                println!("{}", line.json());
            }
        }
        if !args.json {
            print!("{}", table::render(&measured, lines.is_empty()));
        }
        lines.extend(measured);
    }
    let whole = args.rows.is_empty() && args.clients.is_empty();
    let chart = match &args.chart {
        Some(chart) => chart.clone(),
        None if whole => process::root().join("docs/peers.svg"),
        None => process::target_dir().join("bench/peers.svg"),
    };
    if let Some(folder) = chart.parent() {
        std::fs::create_dir_all(folder).map_err(Failure::of("making the chart's folder"))?;
    }
    std::fs::write(&chart, chart::draw(&lines)).map_err(Failure::of("writing the chart"))?;
    eprintln!("chart: {}", chart.display());
    Ok(())
}

/// Builds the contestants, in their own workspace; cargo shows its progress.
fn build(clients: &[Contestant]) -> Outcome {
    eprintln!("building the contestants (the first time takes some minutes)");
    let mut command = process::cargo(&["build", "--release", "--manifest-path", "benches/Cargo.toml"]);
    command.args(["--package", "evenkeel-bench-peers", "--target-dir", "benches/target"]);
    for client in clients {
        command.args(["--bin", client.name()]);
    }
    // The tasks alone are a mode of the floor's program.
    command.args(["--bin", "floor"]).stdout(std::process::Stdio::null());
    let status = command.status().map_err(Failure::of("building the contestants"))?;
    if status.success() { Ok(()) } else { Err(Failure::new("the contestants do not build")) }
}

fn measure(args: &Args, row: &Row, clients: &[Contestant], cores: &Cores, server: &Server) -> Vec<Line> {
    let free = row.runtime() == Runtime::Two;
    server.pin(cores, free);
    let mut figures: Vec<Figures> = clients.iter().map(|_| Figures::default()).collect();
    let attempt = |client: &Contestant, mode: Mode, seconds: f64| {
        client.run(row, mode, seconds, server.address(), cores, free)
    };
    for round in 0..args.rounds {
        for (client, figures) in clients.iter().zip(&mut figures) {
            if round == 0 || !figures.has_failed() {
                figures.timed(attempt(client, Mode::Timed, args.seconds));
            }
        }
    }
    let short = args.seconds.min(0.3);
    for (client, figures) in clients.iter().zip(&mut figures) {
        if !figures.has_failed() {
            figures.allocations(attempt(client, Mode::Allocations, short));
            figures.system_calls(attempt(client, Mode::SystemCalls, short));
        }
    }
    let mut lines = Vec::new();
    for (client, mut figures) in clients.iter().zip(figures) {
        if row.is_burst() && *client == Contestant::Floor {
            figures.memory_of(Contestant::run_tasks(row, args.seconds, server.address(), cores, free));
        }
        let line = figures.into_line(row, *client);
        if let Some(reason) = line.reason() {
            eprintln!("{row} {}: {reason}", client.name());
        }
        lines.push(line);
    }
    lines
}
