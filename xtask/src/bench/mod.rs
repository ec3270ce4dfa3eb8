//! `cargo xtask bench`: our figures beside those of others, in the same run.
//!
//! The programs that measure live in the workspace `benches/`, with the peers; here they are built and run.

mod codec;
mod peers;

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
    /// The client beside the crates redis, fred and rustis, and a raw socket: CPU, latency, allocations, memory
    #[command(after_long_help = peers::ROWS_EXPLAINED)]
    Peers(peers::Args),
}

pub(crate) fn run(args: &Args) -> Outcome {
    match &args.bench {
        Bench::Codec(args) => codec::run(args),
        Bench::Peers(args) => peers::run(args),
    }
}
