//! One client under a steady load of counted writes, for `cargo xtask failover-bench`: each client is a process of its own.
//!
//! `evenkeel-races CLIENT MODE SEEDS NAME RATE KEYS`: CLIENT is `evenkeel`, `redis` or `fred`; MODE is `sentinel` or
//! `cluster`; SEEDS are `host:port,...`; NAME is the primary's name at the sentinels (`-` in a cluster); RATE is writes a
//! second; KEYS are the keys to write to, in turn.
//!
//! Prints `ready` when connected, then writes `RPUSH key number` with a number of its own each until standard input ends.
//! Then it waits for what is under way and prints a line for each write: number, key's place, begin and end in
//! microseconds since 1970, and `o` (acknowledged), `n` (failed, not executed), `m` (failed, may have been executed) or
//! `h` (no end within the patience). The loads of all clients are alike: a task for each write, none waits for another.

mod clients;

use std::{
    collections::BTreeMap,
    io::Write,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::io::AsyncReadExt;

use crate::clients::{AnyClient, Verdict};

/// Longer than any client's deadline for a command.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Clone, Copy)]
struct Write1 {
    key: usize,
    begin: u64,
    end: Option<(u64, Verdict)>,
}

#[derive(Default)]
struct Log {
    writes: Vec<Write1>,
    errors: BTreeMap<String, u64>,
}

fn micros() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock stands after 1970");
    u64::try_from(now.as_micros()).expect("some thousand years are left")
}

async fn load(client: &AnyClient, keys: &[String], rate: u64, log: &Arc<Mutex<Log>>) {
    let mut input = tokio::io::stdin();
    let mut byte = [0u8; 1];
    let mut pace = tokio::time::interval(Duration::from_millis(1));
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
    let (mut owed, mut number) = (0, 0usize);
    loop {
        tokio::select! {
            biased;
            read = input.read(&mut byte) => if matches!(read, Ok(0) | Err(_)) { return },
            _ = pace.tick() => {}
        }
        owed += rate;
        while owed >= 1000 {
            owed -= 1000;
            let key = number % keys.len();
            log.lock().expect("no task panics").writes.push(Write1 { key, begin: micros(), end: None });
            let (client, name, log, at) = (client.clone(), keys[key].clone(), Arc::clone(log), number);
            tokio::spawn(async move {
                let outcome = client.push(&name, at).await;
                let end = micros();
                let mut log = log.lock().expect("no task panics");
                let verdict = match outcome {
                    Ok(()) => Verdict::Acknowledged,
                    Err((verdict, words)) => {
                        *log.errors.entry(words).or_default() += 1;
                        verdict
                    }
                };
                if let Some(write) = log.writes.get_mut(at) {
                    write.end = Some((end, verdict));
                }
            });
            number += 1;
        }
    }
}

async fn run(arguments: &[String]) -> Result<(), String> {
    let [client, mode, seeds, name, rate, keys] = arguments else {
        return Err("usage: evenkeel-races CLIENT MODE SEEDS NAME RATE KEYS".into());
    };
    let seeds: Vec<&str> = seeds.split(',').collect();
    let keys: Vec<String> = keys.split(',').map(str::to_owned).collect();
    let rate: u64 = rate.parse().map_err(|_not_a_number| "RATE is a number".to_owned())?;
    let client = AnyClient::connect(client, mode, &seeds, name).await?;
    println!("ready");
    let log = Arc::new(Mutex::new(Log::default()));
    load(&client, &keys, rate, &log).await;
    let until = tokio::time::Instant::now() + PATIENCE;
    while log.lock().expect("no task panics").writes.iter().any(|write| write.end.is_none())
        && tokio::time::Instant::now() < until
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let log = log.lock().expect("no task panics");
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for (number, write) in log.writes.iter().enumerate() {
        let (end, verdict) = write.end.unwrap_or((micros(), Verdict::Hung));
        writeln!(out, "{number} {} {} {end} {}", write.key, write.begin, verdict.letter())
            .map_err(|error| error.to_string())?;
    }
    out.flush().map_err(|error| error.to_string())?;
    for (words, times) in &log.errors {
        eprintln!("  {times} x {words}");
    }
    Ok(())
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let outcome = runtime.block_on(async { tokio::spawn(async move { run(&arguments).await }).await });
    // A client that hangs keeps its runtime: the process ends all the same.
    match outcome {
        Ok(Ok(())) => std::process::exit(0),
        Ok(Err(words)) => eprintln!("evenkeel-races: {words}"),
        Err(error) => eprintln!("evenkeel-races: {error}"),
    }
    std::process::exit(1);
}
