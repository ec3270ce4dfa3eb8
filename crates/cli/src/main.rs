//! The program `evenkeel`.

mod demo;
mod gateway;
mod interrupt;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Keeps programs talking to Redis while Redis changes underneath.
#[derive(Debug, Parser)]
#[command(name = "evenkeel", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows everything at work: servers, a load, the gateway, trouble, and a page to look at.
    Demo(demo::Args),
    /// Broadcasts what is published to WebSocket clients.
    Gateway(gateway::Args),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let usual = match arguments.command {
        // The demo has a page and lines of its own.
        Command::Demo(_) => "error",
        Command::Gateway(_) => "warn,evenkeel::events=info,evenkeel_gateway=info",
    };
    let filter = EnvFilter::try_from_env("EVENKEEL_LOG").unwrap_or_else(|_unset| EnvFilter::new(usual));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let outcome =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Into::into).and_then(
            |runtime| {
                runtime.block_on(async {
                    match arguments.command {
                        Command::Demo(args) => demo::run(args).await,
                        Command::Gateway(args) => gateway::run(args).await,
                    }
                })
            },
        );
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let mut text = error.to_string();
            let mut cause = error.source();
            while let Some(inner) = cause {
                text = format!("{text}: {inner}");
                cause = inner.source();
            }
            // Nobody is left to be told when this fails.
            let _unheard = writeln!(std::io::stderr(), "evenkeel: {text}");
            ExitCode::FAILURE
        }
    }
}
