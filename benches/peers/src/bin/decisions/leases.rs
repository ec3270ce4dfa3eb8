//! What it costs to take an idle connection and to give it back, beside a lock and unlock in the same turn.

use std::hint::black_box;
use std::time::Instant;

use evenkeel_client::Client;
use parking_lot::Mutex;

use super::{ROUNDS, median};

/// Checkouts of a round.
const CHECKOUTS: u64 = 100_000;

/// Medians of the rounds, and what all rounds asked of the server and of the system.
pub(crate) struct Checkout {
    /// Nanoseconds to take a connection of one's own and give it back.
    pub(crate) lease: f64,
    /// Nanoseconds for an uncontended lock and unlock.
    pub(crate) lock: f64,
    /// Nanoseconds for a look at the clock.
    pub(crate) clock: f64,
    /// Commands that the server ran meanwhile, those that ask it for the number apart.
    pub(crate) commands: i64,
    /// Reads and writes of this process meanwhile, those that ask the server apart.
    pub(crate) calls: u64,
}

pub(crate) async fn checkout(address: &str) -> Checkout {
    let client = Client::connect(format!("redis://{address}")).await.expect("the server listens");
    drop(client.lease().await.expect("a lease"));
    let before = (processed(&client).await, reads_and_writes());
    let (mut leases, mut locks, mut clocks) = (Vec::new(), Vec::new(), Vec::new());
    let lock = Mutex::new(0u64);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..CHECKOUTS {
            drop(black_box(client.lease().await.expect("a lease")));
        }
        leases.push(start.elapsed().as_nanos() as f64 / CHECKOUTS as f64);
        let start = Instant::now();
        for _ in 0..CHECKOUTS {
            *black_box(&lock).lock() += 1;
        }
        locks.push(start.elapsed().as_nanos() as f64 / CHECKOUTS as f64);
        let start = Instant::now();
        for _ in 0..CHECKOUTS {
            black_box(Instant::now());
        }
        clocks.push(start.elapsed().as_nanos() as f64 / CHECKOUTS as f64);
    }
    let calls = reads_and_writes() - before.1;
    let commands = processed(&client).await - before.0 - 1;
    Checkout { lease: median(leases), lock: median(locks), clock: median(clocks), commands, calls }
}

/// Commands that the server has run.
async fn processed(client: &Client) -> i64 {
    let stats = client.cmd("INFO").arg("stats").query::<String>().await.expect("the server tells");
    let line = stats.lines().find_map(|line| line.strip_prefix("total_commands_processed:"));
    line.and_then(|count| count.trim().parse().ok()).expect("the server counts")
}

/// System calls of this process that read or write.
fn reads_and_writes() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").expect("the kernel counts");
    let count = |name: &str| {
        io.lines().find_map(|line| line.strip_prefix(name)).and_then(|count| count.trim().parse::<u64>().ok())
    };
    count("syscr:").unwrap_or(0) + count("syscw:").unwrap_or(0)
}
