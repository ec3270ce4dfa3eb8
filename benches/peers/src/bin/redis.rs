//! The crate `redis`: a multiplexed connection with its defaults.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use evenkeel_bench_peers::{Feed, Got, Peer, run};
use futures_util::StreamExt;
use redis::aio::{MultiplexedConnection, PubSubStream};

#[derive(Clone)]
struct Redis {
    conn: MultiplexedConnection,
    client: redis::Client,
}

struct Messages(PubSubStream);

impl Feed for Messages {
    async fn next(&mut self) -> Got {
        match self.0.next().await {
            Some(message) => Got::Message(message.get_payload_bytes().len()),
            None => Got::End,
        }
    }
}

impl Peer for Redis {
    type Feed = Messages;

    async fn connect(address: &str) -> Self {
        let client = redis::Client::open(format!("redis://{address}")).expect("a URL");
        // Its default limit of 500 ms counts the time in its own queue, which the burst outlasts.
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(10)));
        let conn = client.get_multiplexed_async_connection_with_config(&config).await;
        Self { conn: conn.expect("the server listens"), client }
    }

    async fn get(&mut self, key: &str) -> usize {
        let value: Vec<u8> = redis::cmd("GET").arg(key).query_async(&mut self.conn).await.expect("GET");
        value.len()
    }

    async fn set(&mut self, key: &str, value: &Bytes) {
        let () = redis::cmd("SET").arg(key).arg(&value[..]).query_async(&mut self.conn).await.expect("SET");
    }

    async fn pipeline(&mut self, keys: &[String]) -> usize {
        let mut pipeline = redis::Pipeline::with_capacity(keys.len());
        for key in keys {
            pipeline.cmd("GET").arg(key);
        }
        let values: Vec<Vec<u8>> = pipeline.query_async(&mut self.conn).await.expect("a pipeline");
        values.iter().map(Vec::len).sum()
    }

    async fn mget(&mut self, keys: &[String]) -> usize {
        let values: Vec<Vec<u8>> =
            redis::cmd("MGET").arg(keys).query_async(&mut self.conn).await.expect("MGET");
        values.iter().map(Vec::len).sum()
    }

    async fn hgetall(&mut self, key: &str) -> usize {
        let map: HashMap<String, String> =
            redis::cmd("HGETALL").arg(key).query_async(&mut self.conn).await.expect("HGETALL");
        map.len()
    }

    async fn subscribe(&mut self, channel: &str) -> Messages {
        let mut pubsub = self.client.get_async_pubsub().await.expect("the server listens");
        pubsub.subscribe(channel).await.expect("SUBSCRIBE");
        Messages(pubsub.into_on_message())
    }
}

fn main() -> std::process::ExitCode {
    run::<Redis>()
}
