//! The crate `rustis` with its defaults, its memory budgets lifted.

use std::collections::HashMap;
use std::str::FromStr;

use bytes::Bytes;
use evenkeel_bench_peers::{Feed, Got, Peer, run};
use futures_util::StreamExt;
use rustis::client::{BatchPreparedCommand, Client, Config, PubSubStream};
use rustis::commands::{HashCommands, PubSubCommands, StringCommands};
use rustis::resp::{BulkString, RefBulkString};

#[derive(Clone)]
struct Rustis(Client);

struct Messages(PubSubStream);

impl Feed for Messages {
    async fn next(&mut self) -> Got {
        match self.0.next().await {
            Some(Ok(message)) => Got::Message(message.payload().len()),
            Some(Err(_)) => Got::Other,
            None => Got::End,
        }
    }
}

impl Peer for Rustis {
    type Feed = Messages;

    async fn connect(address: &str) -> Self {
        let mut config = Config::from_str(&format!("redis://{address}")).expect("a URL");
        // At its default of 16 MiB the burst is refused, and at 8 MiB messages are dropped: neither could be compared.
        config.backpressure.max_queued_bytes = 0;
        config.backpressure.max_pubsub_bytes = 0;
        Self(Client::connect(config).await.expect("the server listens"))
    }

    async fn get(&mut self, key: &str) -> usize {
        let value: BulkString = self.0.get(key).await.expect("GET");
        value.len()
    }

    async fn set(&mut self, key: &str, value: &Bytes) {
        self.0.set(key, RefBulkString::new(value)).await.expect("SET");
    }

    async fn pipeline(&mut self, keys: &[String]) -> usize {
        let mut pipeline = self.0.create_pipeline();
        pipeline.reserve(keys.len());
        for key in keys {
            pipeline.get::<()>(key.as_str()).queue();
        }
        let values: Vec<BulkString> = pipeline.execute().await.expect("a pipeline");
        values.iter().map(|value| value.len()).sum()
    }

    async fn mget(&mut self, keys: &[String]) -> usize {
        let values: Vec<BulkString> = self.0.mget(keys).await.expect("MGET");
        values.iter().map(|value| value.len()).sum()
    }

    async fn hgetall(&mut self, key: &str) -> usize {
        let map: HashMap<String, String> = self.0.hgetall(key).await.expect("HGETALL");
        map.len()
    }

    async fn subscribe(&mut self, channel: &str) -> Messages {
        Messages(self.0.subscribe(channel).await.expect("SUBSCRIBE"))
    }
}

fn main() -> std::process::ExitCode {
    run::<Rustis>()
}
