//! The client as its users see it, on every real server found.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests report by panicking, in their own functions too"
)]

mod bad_input;
mod cancellation;
mod commands;
mod handles;
mod proxies;
mod pubsub;

use std::time::Duration;

use evenkeel_client::Client;
use evenkeel_testkit::launcher::{ServerKind, Single};

/// A server and a client of it.
async fn single(kind: &ServerKind) -> (Single, Client) {
    let server = Single::start(kind).await.unwrap();
    let client = Client::connect(format!("redis://{}", server.addr())).await.unwrap();
    (server, client)
}

/// Asks again and again until the answer is yes, for five seconds at most.
async fn eventually(what: &str, mut ask: impl AsyncFnMut() -> bool) {
    let asking = async {
        while !ask().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), asking).await.expect(what);
}
