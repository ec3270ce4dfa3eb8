//! Plays a hosted Redis that moves between two addresses for ever: `cargo run -p evenkeel-testkit --example hosted`.
//!
//! An argument gives the seconds between two moves, 0 for none. Ctrl-C ends it.

use std::time::Duration;

use evenkeel_testkit::server::{EmbeddedServer, Error, Move};

#[tokio::main]
#[expect(clippy::print_stdout, reason = "a program for the terminal")]
async fn main() -> Result<(), Error> {
    let pause = std::env::args().nth(1).and_then(|seconds| seconds.parse().ok()).unwrap_or(10);
    let server = EmbeddedServer::builder().addresses(2).start().await?;
    println!("{}", server.url());
    if pause == 0 {
        return std::future::pending().await;
    }
    let (mut from, mut to) = (0, 1);
    loop {
        tokio::time::sleep(Duration::from_secs(pause)).await;
        let moving = server.move_endpoint(Move::new(from, to, Duration::from_secs(3))).await?;
        println!("{:?}, from {} to {}", moving.announced(), server.address(from), server.address(to));
        println!("{:?}", moving.finished().await?);
        (from, to) = (to, from);
    }
}
