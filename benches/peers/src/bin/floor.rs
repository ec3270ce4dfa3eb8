//! The floor, and the tasks of the burst without a client.

use std::convert::Infallible;

use bytes::Bytes;
use evenkeel_bench_peers::{Feed, Floor, Got, Peer, run};

/// Asks nothing of anybody: what is left is the cost of the tasks.
#[derive(Clone)]
struct Nobody;

struct Silence(Infallible);

impl Feed for Silence {
    async fn next(&mut self) -> Got {
        match self.0 {}
    }
}

impl Peer for Nobody {
    type Feed = Silence;

    async fn connect(_address: &str) -> Self {
        Self
    }

    async fn get(&mut self, _key: &str) -> usize {
        64
    }

    async fn set(&mut self, _key: &str, _value: &Bytes) {}

    async fn pipeline(&mut self, keys: &[String]) -> usize {
        keys.len() * 64
    }

    async fn mget(&mut self, keys: &[String]) -> usize {
        keys.len() * 64
    }

    async fn hgetall(&mut self, _key: &str) -> usize {
        0
    }

    async fn subscribe(&mut self, _channel: &str) -> Silence {
        std::future::pending().await
    }
}

fn main() -> std::process::ExitCode {
    if std::env::args().nth(1).is_some_and(|row| row == "tasks100k") { run::<Nobody>() } else { Floor::run() }
}
