//! `cargo xtask bench codec`: builds the codec's bench with its peers, and runs it.
//!
//! hiredis comes from the system's package `libhiredis-dev`, installed when we may; without it its lines are missing
//! and the reason is told. With `--json` only the figures go to stdout, one object a line.

use std::path::Path;

use crate::failure::{Failure, Outcome};
use crate::process::{cargo, is_installed, program, root};
use crate::servers::system;

/// Arguments of `bench codec`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Prints one JSON object a line: row, codec, ns_per_op, mib_per_s, allocs_per_op
    #[arg(long)]
    json: bool,
    /// Measures these rows only, separated by commas
    #[arg(long)]
    rows: Option<String>,
    /// Rounds in which the codecs take turns; the median counts
    #[arg(long, default_value_t = 7)]
    rounds: usize,
}

const HEADER: &str = "/usr/include/hiredis/hiredis.h";
const PACKAGE: &str = "libhiredis-dev";

pub(crate) fn run(args: &Args) -> Outcome {
    if let Err(reason) = ensure_hiredis() {
        eprintln!("hiredis is skipped: {reason}");
    }
    eprintln!("building the bench and its peers (minutes, the first time)");
    let build = ["build", "--release", "--manifest-path", "benches/Cargo.toml", "-p", "evenkeel-bench-codec"];
    // In a place of its own, wherever the caller builds.
    let mut build = cargo(&build);
    build.args(["--target-dir", "benches/target"]);
    let status = build.status().map_err(Failure::of("building the bench"))?;
    if !status.success() {
        return Err(Failure::new(format!("the bench does not build: {status}")));
    }
    let mut bench = program(root().join("benches/target/release/evenkeel-bench-codec"));
    bench.arg("--rounds").arg(args.rounds.to_string());
    if args.json {
        bench.arg("--json");
    }
    if let Some(rows) = &args.rows {
        bench.arg("--rows").arg(rows);
    }
    let status = bench.status().map_err(Failure::of("running the bench"))?;
    if status.success() { Ok(()) } else { Err(Failure::new(format!("the bench ended with {status}"))) }
}

fn ensure_hiredis() -> Outcome {
    if Path::new(HEADER).exists() {
        return Ok(());
    }
    if !system::is_root() {
        return Err(Failure::new(format!("{PACKAGE} is not installed, and installing it needs root")));
    }
    if !is_installed("apt-get") {
        return Err(Failure::new(format!("there is no apt-get here: install {PACKAGE}")));
    }
    system::install(&[PACKAGE])
}
