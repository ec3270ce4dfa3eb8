//! `cargo xtask bench`: our figures beside those of others, in the same run.
//!
//! The programs that measure live in the workspace `benches/`, with the peers; here they are built and run.

mod codec;

use clap::Subcommand;

use crate::failure::Outcome;

/// Arguments of `bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// The codec beside redis-protocol, hiredis, rustis and a floor, without a network
    Codec(codec::Args),
}

pub(crate) fn run(args: &Args) -> Outcome {
    match &args.bench {
        Bench::Codec(args) => codec::run(args),
    }
}
