//! One client through one row: prints operations, wall time and CPU time of this process, for a driver to compare.
//!
//! `evenkeel-benches CLIENT ROW RUNTIME URL SECONDS`: CLIENT is `evenkeel`, `redis` or `floor`; ROW is `get64-64` or
//! `get64-512`; RUNTIME is `mt1`, `mt2` or `ct`.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// User and system time of this process, in clock ticks of 10 ms.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux shows a process its own times");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

struct Meter {
    stop: AtomicBool,
    done: AtomicU64,
}

async fn measure<F, Fut>(tasks: usize, seconds: f64, work: F)
where
    F: Fn(Arc<Meter>) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let meter = Arc::new(Meter { stop: AtomicBool::new(false), done: AtomicU64::new(0) });
    let running: Vec<_> = (0..tasks).map(|_| tokio::spawn(work(Arc::clone(&meter)))).collect();
    tokio::time::sleep(Duration::from_millis(250)).await;
    let (cpu, start, before) = (cpu_seconds(), Instant::now(), meter.done.load(Ordering::Relaxed));
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    let (cpu, took) = (cpu_seconds() - cpu, start.elapsed().as_secs_f64());
    let done = meter.done.load(Ordering::Relaxed) - before;
    meter.stop.store(true, Ordering::Relaxed);
    for task in running {
        task.await.expect("a worker does not panic");
    }
    println!("{done} {took:.4} {cpu:.3}");
}

async fn evenkeel(url: &str, tasks: usize, seconds: f64) {
    let client = evenkeel_client::Client::connect(url.to_owned()).await.expect("the server listens");
    client.set("bench:key", "x".repeat(64)).await.expect("SET");
    measure(tasks, seconds, |meter| {
        let client = client.clone();
        async move {
            while !meter.stop.load(Ordering::Relaxed) {
                let value: Vec<u8> = client.get("bench:key").await.expect("GET");
                assert_eq!(value.len(), 64);
                meter.done.fetch_add(1, Ordering::Relaxed);
            }
        }
    })
    .await;
}

async fn redis(url: &str, tasks: usize, seconds: f64) {
    let client = redis::Client::open(url).expect("a URL");
    let conn = client.get_multiplexed_async_connection().await.expect("the server listens");
    let mut first = conn.clone();
    let _: () = redis::cmd("SET").arg("bench:key").arg("x".repeat(64)).query_async(&mut first).await.expect("SET");
    measure(tasks, seconds, |meter| {
        let mut conn = conn.clone();
        async move {
            while !meter.stop.load(Ordering::Relaxed) {
                let value: Vec<u8> = redis::cmd("GET").arg("bench:key").query_async(&mut conn).await.expect("GET");
                assert_eq!(value.len(), 64);
                meter.done.fetch_add(1, Ordering::Relaxed);
            }
        }
    })
    .await;
}

/// A raw socket with a window of commands encoded beforehand.
async fn floor(url: &str, tasks: usize, seconds: f64) {
    let address = url.trim_start_matches("redis://").to_owned();
    measure(1, seconds, |meter| {
        let address = address.clone();
        async move {
            let mut stream = tokio::net::TcpStream::connect(address).await.expect("the server listens");
            stream.set_nodelay(true).expect("a TCP socket");
            let set = format!("*3\r\n$3\r\nSET\r\n$9\r\nbench:key\r\n$64\r\n{}\r\n", "x".repeat(64));
            stream.write_all(set.as_bytes()).await.expect("SET");
            let mut ok = [0u8; 5];
            stream.read_exact(&mut ok).await.expect("OK");
            let window = b"*2\r\n$3\r\nGET\r\n$9\r\nbench:key\r\n".repeat(tasks);
            let mut replies = vec![0u8; tasks * (5 + 64 + 2)];
            while !meter.stop.load(Ordering::Relaxed) {
                stream.write_all(&window).await.expect("write");
                stream.read_exact(&mut replies).await.expect("read");
                meter.done.fetch_add(tasks as u64, Ordering::Relaxed);
            }
        }
    })
    .await;
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, client, row, runtime, url, seconds] = args.as_slice() else {
        eprintln!("usage: evenkeel-benches CLIENT ROW RUNTIME URL SECONDS");
        std::process::exit(2);
    };
    let tasks: usize = row.rsplit('-').next().and_then(|text| text.parse().ok()).unwrap_or(64);
    let seconds: f64 = seconds.parse().unwrap_or(0.8);
    let mut builder = match runtime.as_str() {
        "ct" => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if runtime != "ct" {
        builder.worker_threads(if runtime == "mt2" { 2 } else { 1 });
    }
    let runtime = builder.enable_all().build().expect("a runtime");
    runtime.block_on(async {
        match client.as_str() {
            "evenkeel" => evenkeel(url, tasks, seconds).await,
            "redis" => redis(url, tasks, seconds).await,
            "floor" => floor(url, tasks, seconds).await,
            other => {
                eprintln!("no client named {other}");
                std::process::exit(2);
            }
        }
    });
}
