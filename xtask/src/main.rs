//! The automation of this workspace: `cargo xtask <command>`.
//!
//! A command is a module with an `Args` struct and a `run` function, and one line in [`Command`].

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program at a terminal")]

mod autobahn;
mod bench;
mod ci;
mod commands;
mod debian;
mod demo;
mod failover_bench;
mod failure;
mod fuzz;
mod gateway_bench;
mod handoff_bench;
mod process;
mod servers;
mod soak;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "The automation of the Evenkeel workspace")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The Autobahn suite against the gateway's WebSockets, where a Python 2.7 can be had
    Autobahn(autobahn::Args),
    /// Our figures beside those of others, in the same run
    Bench(bench::Args),
    /// Everything that must hold before a change lands: format, lints, the pure build, docs, tidy, tests
    Ci(ci::Args),
    /// The command table of the codec, from what servers say of themselves
    Commands(commands::Args),
    /// The demo: a load, trouble, and a page that shows what it does to the load
    Demo(demo::Args),
    /// Races of the client, and of its peers, through failovers and reshards on real servers
    FailoverBench(failover_bench::Args),
    /// Any bytes, for a time: scanner, parser, connection and handshake
    Fuzz(fuzz::Args),
    /// Announced maintenance under load, and the marks that must be met
    HandoffBench(handoff_bench::Args),
    /// The gateway against a floor and its peers, under the same load
    GatewayBench(gateway_bench::Args),
    /// Gets the servers that the tests run on
    Servers(servers::Args),
    /// A load for an hour, calm or with trouble every five seconds: nothing wrong, memory and descriptors flat
    Soak(soak::Args),
    /// All tests, on every server found
    Test(test::Args),
    /// The rules of the house that a program can check
    Tidy(tidy::Args),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Autobahn(args) => autobahn::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Ci(args) => ci::run(&args),
        Command::Commands(args) => commands::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::FailoverBench(args) => failover_bench::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::HandoffBench(args) => handoff_bench::run(&args),
        Command::GatewayBench(args) => gateway_bench::run(&args),
        Command::Servers(args) => servers::run(&args),
        Command::Soak(args) => soak::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Tidy(args) => tidy::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}
