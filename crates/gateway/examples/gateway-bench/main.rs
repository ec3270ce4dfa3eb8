//! The gateway's bench: a real Redis, one server after the other, and a load, each a process of its own.
//!
//! `gateway-bench run [--json] [--systems A,B] [--scenario A,B] [--rounds N] [--evenkeel PROGRAM] [--nginx PROGRAM]
//! [--node FOLDER]` starts everything and prints what came of it; `cargo xtask gateway-bench` builds, installs and
//! calls it. The processes that it starts are `gateway-bench load ...`, which connects subscribers and publishes, and
//! `gateway-bench floor [--coalesce] --redis ADDRESS`, the least that a server can do for the same clients.

#![expect(
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a program for measurements, run by hand and by xtask; counts are far below 2^52"
)]

mod board;
mod deployment;
mod floor;
mod load;
mod process;
mod publisher;
mod run;
mod socket;
mod systems;
mod trouble;

use std::env;

/// The words of a command line: `--name value` and bare flags.
pub(crate) struct Words(Vec<String>);

impl Words {
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|word| word == name)
    }

    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        let at = self.0.iter().position(|word| word == name)?;
        self.0.get(at + 1).map(String::as_str)
    }

    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str, default: T) -> T {
        self.value(name).and_then(|text| text.parse().ok()).unwrap_or(default)
    }

    pub(crate) fn list(&self, name: &str) -> Option<Vec<String>> {
        Some(self.value(name)?.split(',').map(str::to_owned).collect())
    }
}

fn main() {
    let words = Words(env::args().skip(1).collect());
    match words.0.first().map(String::as_str) {
        Some("run") => {
            if !run::run(&words) {
                std::process::exit(1);
            }
        }
        Some("load") => println!("{}", load::run(&load::Settings::read(&words))),
        Some("floor") => {
            floor::run(words.value("--redis").expect("--redis ADDRESS"), words.has("--coalesce"));
        }
        _ => println!("usage: gateway-bench run|load|floor (see the top of its source)"),
    }
}
