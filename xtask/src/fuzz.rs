//! `cargo xtask fuzz`: builds the fuzz targets and runs each for a time, on any toolchain.
//!
//! The flags are those of cargo-fuzz without a sanitizer: the codec has no unsafe code for one to look at. What breaks a
//! target lies in `fuzz/artifacts`, and becomes a test; inputs that reach new code are kept in `fuzz/corpus`.

use std::fs;

use crate::failure::{Failure, Outcome};
use crate::process::{cargo, output, program, root, run as show_and_run};

/// Arguments of `fuzz`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Runs these targets only; without any, all of them
    targets: Vec<String>,
    /// Seconds for each target
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Runs each target for 30 seconds
    #[arg(long, conflicts_with = "seconds")]
    smoke: bool,
    /// Longest input in bytes
    #[arg(long, default_value_t = 4096)]
    max_len: usize,
}

/// Seconds of a smoke test.
const SMOKE: u64 = 30;

/// Counters of edges and compared values for libFuzzer, and a branch of their own for what only a fuzzer may see.
const FLAGS: [&str; 8] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "-Cdebug-assertions",
    "--cfg=fuzzing",
];

impl Args {
    /// Every target, briefly.
    pub(crate) fn smoke() -> Self {
        Self { targets: Vec::new(), seconds: SMOKE, smoke: true, max_len: 4096 }
    }
}

pub(crate) fn run(args: &Args) -> Outcome {
    let known = targets()?;
    if let Some(unknown) = args.targets.iter().find(|name| !known.contains(name)) {
        return Err(Failure::new(format!("no target is named {unknown}; there are {}", known.join(", "))));
    }
    let host = host()?;
    // With a target named, build scripts and macros go without the counters, which they could not be linked with.
    let mut build = cargo(&["build", "--release", "--manifest-path", "fuzz/Cargo.toml", "--target", &host]);
    build.args(["--target-dir", "fuzz/target"]).env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"));
    show_and_run(&mut build)?;
    let seconds = if args.smoke { SMOKE } else { args.seconds };
    let mut found = Vec::new();
    for name in known.iter().filter(|name| args.targets.is_empty() || args.targets.contains(name)) {
        let (corpus, artifacts) = (format!("fuzz/corpus/{name}"), format!("fuzz/artifacts/{name}/"));
        for folder in [&corpus, &artifacts] {
            fs::create_dir_all(root().join(folder)).map_err(Failure::of(folder))?;
        }
        let mut fuzz = program(root().join(format!("fuzz/target/{host}/release/{name}")));
        fuzz.arg(&corpus).arg(format!("fuzz/seeds/{name}"));
        fuzz.arg(format!("-artifact_prefix={artifacts}"));
        fuzz.arg(format!("-max_total_time={seconds}")).arg(format!("-max_len={}", args.max_len));
        fuzz.args(["-dict=fuzz/resp.dict", "-print_final_stats=1", "-timeout=10", "-rss_limit_mb=1024"]);
        if show_and_run(&mut fuzz).is_err() {
            found.push(name.as_str());
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("findings in {}: the inputs lie in fuzz/artifacts", found.join(", "))))
}

/// The names of all targets, in order.
fn targets() -> Outcome<Vec<String>> {
    let files =
        fs::read_dir(root().join("fuzz/fuzz_targets")).map_err(Failure::of("reading the fuzz targets"))?;
    let mut names: Vec<_> =
        files.flatten().filter_map(|file| Some(file.path().file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    Ok(names)
}

/// The target triple that this machine builds for.
fn host() -> Outcome<String> {
    let told = output(program("rustc").arg("-vV"))?;
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| Failure::new("rustc does not tell its host"))
}
