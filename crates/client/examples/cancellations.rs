//! Every reply goes to its caller, whoever gives up: commands through a proxy with random delays, one in six of them given up.
//!
//! `cargo run --release -p evenkeel-client --example cancellations -- [commands] [tasks]`: each task asks for keys whose
//! values are their own names. It starts a redis-server of its own and prints one JSON object at the end.

#![expect(clippy::print_stdout, clippy::disallowed_methods, reason = "a program that measures and tells")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use evenkeel_client::Client;
use evenkeel_testkit::{
    launcher::{Servers, Single, SingleOptions},
    proxy::{Direction, Proxy, Rules},
};

/// Keys that are asked for.
const KEYS: u64 = 1000;

#[derive(Debug, Default)]
struct Count {
    started: AtomicU64,
    cancelled: AtomicU64,
    answered: AtomicU64,
    wrong: AtomicU64,
    failed: AtomicU64,
}

async fn ask(client: Client, count: Arc<Count>, commands: u64, seed: u64) {
    let mut draw = fastrand::Rng::with_seed(seed);
    while count.started.fetch_add(1, Ordering::Relaxed) < commands {
        let own = format!("own:{}", draw.u64(..KEYS));
        let get = async { client.get::<String>(own.as_str()).await };
        let answer = if draw.u8(..6) == 0 {
            // Given up at once, in the queue, on the wire, or just as the reply comes in.
            let patience = Duration::from_micros(draw.u64(..10_000));
            tokio::select! {
                biased;
                answer = get => Some(answer),
                () = tokio::time::sleep(patience) => None,
            }
        } else {
            Some(get.await)
        };
        let counter = match answer {
            None => &count.cancelled,
            Some(Ok(text)) if text == own => &count.answered,
            Some(Ok(_)) => &count.wrong,
            Some(Err(_)) => &count.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1).filter_map(|word| word.parse::<u64>().ok());
    let (commands, tasks) = (args.next().unwrap_or(1_000_000), args.next().unwrap_or(512));
    let servers = Servers::discover();
    let kind = servers.preferred().ok_or("there is no redis-server here")?;
    let server = Single::start_with(kind, SingleOptions::default()).await?;
    let proxy = Proxy::start(server.addr()).await?;
    let client = Client::connect(format!("redis://{}", proxy.addr())).await?;
    for key in 0..KEYS {
        client.set(format!("own:{key}"), format!("own:{key}")).await?;
    }
    for direction in [Direction::ToServer, Direction::ToClient] {
        proxy.handle().set(direction, Rules::new().jitter(Duration::from_millis(5)));
    }
    let (count, start) = (Arc::new(Count::default()), Instant::now());
    let running: Vec<_> = (0..tasks)
        .map(|seed| tokio::spawn(ask(client.clone(), Arc::clone(&count), commands, seed)))
        .collect();
    for task in running {
        task.await?;
    }
    let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        r#"{{"commands":{commands},"cancelled":{},"answered":{},"wrong":{},"failed":{},"connections":{},"seconds":{:.1}}}"#,
        of(&count.cancelled),
        of(&count.answered),
        of(&count.wrong),
        of(&count.failed),
        proxy.handle().accepted(),
        start.elapsed().as_secs_f64(),
    );
    client.close(Duration::from_secs(5)).await;
    if of(&count.wrong) + of(&count.failed) > 0 {
        return Err("a caller did not get what it asked for".into());
    }
    Ok(())
}
