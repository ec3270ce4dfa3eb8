//! The crate `fred` with its defaults.

use std::collections::HashMap;

use bytes::Bytes;
use evenkeel_bench_peers::{Feed, Got, Peer, run};
use fred::prelude::*;
use tokio::sync::broadcast::error::RecvError;

#[derive(Clone)]
struct Fred(Client);

struct Messages {
    receiver: tokio::sync::broadcast::Receiver<fred::types::Message>,
    _client: Client,
}

impl Feed for Messages {
    async fn next(&mut self) -> Got {
        match self.receiver.recv().await {
            Ok(message) => Got::Message(message.value.as_bytes().map_or(0, <[u8]>::len)),
            Err(RecvError::Lagged(count)) => Got::Lost(count),
            Err(RecvError::Closed) => Got::End,
        }
    }
}

impl Peer for Fred {
    type Feed = Messages;

    async fn connect(address: &str) -> Self {
        let config = Config::from_url(&format!("redis://{address}")).expect("a URL");
        let client = Builder::from_config(config).build().expect("a configuration");
        client.init().await.expect("the server listens");
        Self(client)
    }

    async fn get(&mut self, key: &str) -> usize {
        let value: Bytes = self.0.get(key).await.expect("GET");
        value.len()
    }

    async fn set(&mut self, key: &str, value: &Bytes) {
        let () = self.0.set(key, value.clone(), None, None, false).await.expect("SET");
    }

    async fn pipeline(&mut self, keys: &[String]) -> usize {
        let pipeline = self.0.pipeline();
        for key in keys {
            let () = pipeline.get(key.as_str()).await.expect("queued");
        }
        let values: Vec<Bytes> = pipeline.all().await.expect("a pipeline");
        values.iter().map(Bytes::len).sum()
    }

    async fn mget(&mut self, keys: &[String]) -> usize {
        let values: Vec<Bytes> = self.0.mget(keys.to_vec()).await.expect("MGET");
        values.iter().map(Bytes::len).sum()
    }

    async fn hgetall(&mut self, key: &str) -> usize {
        let map: HashMap<String, String> = self.0.hgetall(key).await.expect("HGETALL");
        map.len()
    }

    async fn subscribe(&mut self, channel: &str) -> Messages {
        let receiver = self.0.message_rx();
        let () = self.0.subscribe(channel).await.expect("SUBSCRIBE");
        Messages { receiver, _client: self.0.clone() }
    }
}

fn main() -> std::process::ExitCode {
    run::<Fred>()
}
