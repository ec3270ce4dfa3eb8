//! `cargo xtask soak`: a load for as long as one likes, calm or with trouble every five seconds; nothing may be wrong, and
//! memory and descriptors must stay flat.

use crate::failure::{Failure, Outcome};
use crate::process;

/// Arguments of `soak`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Without trouble: nothing at all may fail then
    #[arg(long)]
    calm: bool,
    /// How long
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=10_080))]
    minutes: u64,
}

pub(crate) fn run(args: &Args) -> Outcome {
    eprintln!("building the load (the first time takes some minutes)");
    let mut command = process::cargo(&["build", "--release", "--quiet"]);
    command.args(["--package", "evenkeel-client", "--example", "soak"]);
    let status = command.status().map_err(Failure::of("building the load"))?;
    if !status.success() {
        return Err(Failure::new(format!("building the load ended with {status}")));
    }
    let mut command = process::program(process::target_dir().join("release/examples/soak"));
    command.arg(if args.calm { "calm" } else { "chaos" });
    command.arg((args.minutes * 60).to_string());
    let status = command.status().map_err(Failure::of("the load"))?;
    if status.success() { Ok(()) } else { Err(Failure::new(format!("the load ended with {status}"))) }
}
