//! Evenkeel with its defaults.

use std::collections::HashMap;

use bytes::Bytes;
use evenkeel_bench_peers::{Feed, Got, Peer, run};
use evenkeel_client::{Client, Delivery, Subscription};

#[derive(Clone)]
struct Evenkeel(Client);

struct Messages(Subscription);

impl Feed for Messages {
    async fn next(&mut self) -> Got {
        match self.0.recv().await {
            Some(Delivery::Message { payload, .. }) => Got::Message(payload.len()),
            Some(Delivery::Lagged { missed }) => Got::Lost(missed),
            Some(_) => Got::Other,
            None => Got::End,
        }
    }
}

impl Peer for Evenkeel {
    type Feed = Messages;

    async fn connect(address: &str) -> Self {
        Self(Client::connect(format!("redis://{address}")).await.expect("the server listens"))
    }

    async fn get(&mut self, key: &str) -> usize {
        let value: Vec<u8> = self.0.get(key).await.expect("GET");
        value.len()
    }

    async fn get_large(&mut self, key: &str) -> usize {
        let value: Bytes = self.0.get(key).await.expect("GET");
        value.len()
    }

    async fn set(&mut self, key: &str, value: &Bytes) {
        self.0.set(key, value).await.expect("SET");
    }

    async fn pipeline(&mut self, keys: &[String]) -> usize {
        let mut batch = self.0.batch();
        for key in keys {
            batch.get(key);
        }
        let replies = batch.await.expect("a pipeline");
        replies
            .into_iter()
            .map(|reply| reply.expect("GET").decode::<Vec<u8>>().expect("a string").len())
            .sum()
    }

    async fn mget(&mut self, keys: &[String]) -> usize {
        let values: Vec<Vec<u8>> = self.0.mget(keys).await.expect("MGET");
        values.iter().map(Vec::len).sum()
    }

    async fn hgetall(&mut self, key: &str) -> usize {
        let map: HashMap<String, String> = self.0.hgetall(key).await.expect("HGETALL");
        map.len()
    }

    async fn subscribe(&mut self, channel: &str) -> Messages {
        Messages(self.0.subscribe([channel]).await.expect("SUBSCRIBE"))
    }
}

fn main() -> std::process::ExitCode {
    run::<Evenkeel>()
}
