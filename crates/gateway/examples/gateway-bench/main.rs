//! One process of the gateway's bench: a server to be measured, or the load.
//!
//! `gateway-bench serve [--shards N]` runs the gateway with the memory broker, `gateway-bench floor [--coalesce]`
//! the least that a server can do for the same clients: one thread, one write for each socket and message (or
//! for all messages that one read brought). Both print the address that they listen on.
//! `gateway-bench load --server ADDR --pid PID --subscribers N --scenario window:W|rate:R|idle|connect
//! [--seconds S]` connects subscribers, publishes, and prints one JSON line.

#![expect(
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a program for measurements, run by hand and by xtask; counts are far below 2^52"
)]

mod floor;
mod load;
mod process;
mod serve;

use std::env;

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let has = |name: &str| args.iter().any(|arg| arg == name);
    let value = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        args.get(at + 1).cloned()
    };
    match args.first().map(String::as_str) {
        Some("serve") => serve::run(value("--shards").and_then(|shards| shards.parse().ok()).unwrap_or(1)),
        Some("floor") => floor::run(has("--coalesce")),
        Some("load") => {
            let settings = load::Settings {
                system: value("--system").unwrap_or_else(|| "evenkeel".to_owned()),
                server: value("--server").and_then(|text| text.parse().ok()).expect("--server ADDR"),
                pid: value("--pid").and_then(|text| text.parse().ok()).expect("--pid PID"),
                subscribers: value("--subscribers").and_then(|text| text.parse().ok()).unwrap_or(1_000),
                scenario: value("--scenario")
                    .and_then(|text| load::Scenario::parse(&text))
                    .expect("--scenario"),
                seconds: value("--seconds").and_then(|text| text.parse().ok()).unwrap_or(5),
            };
            println!("{}", load::run(settings));
        }
        _ => println!("usage: gateway-bench serve|floor|load (see the top of its source)"),
    }
}
