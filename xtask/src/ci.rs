//! `cargo xtask ci`: all that must hold before a change lands, and the time that each step took.

use std::time::Duration;

use cargo_metadata::MetadataCommand;

use crate::failure::{Failure, Outcome};
use crate::process::{Stopwatch, cargo, is_installed, output, program, root, run as show_and_run};
use crate::{fuzz, test, tidy};

/// Crates whose pure half must build without tokio.
const PURE: [&str; 4] = ["evenkeel-protocol", "evenkeel-pool", "evenkeel-topology", "evenkeel-hitless"];
/// The oldest compiler that builds the workspace; `rust-version` in Cargo.toml says the same.
const OLDEST: &str = "1.88";

/// Arguments of `ci`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Adds each feature alone, the oldest compiler, tests without debug assertions, the fuzzers, licences and public API
    #[arg(long)]
    full: bool,
    /// Does without real servers
    #[arg(long)]
    no_servers: bool,
    /// Runs only the step of this name; may be given more than once
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,
}

enum Step {
    Done(Outcome),
    Skipped(String),
}

pub(crate) fn run(args: &Args) -> Outcome {
    let tests = test::Args::without_servers(args.no_servers);
    let mut report = Report { only: args.only.clone(), ..Report::default() };
    report.step("format", || Step::Done(show_and_run(&mut cargo(&["fmt", "--all", "--check"]))));
    report.step("clippy", || {
        let line =
            ["clippy", "--quiet", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"];
        Step::Done(show_and_run(&mut cargo(&line)))
    });
    report.step("pure build", || Step::Done(pure()));
    report.step("docs", || {
        let mut docs = cargo(&["doc", "--quiet", "--workspace", "--all-features", "--no-deps"]);
        Step::Done(show_and_run(docs.env("RUSTDOCFLAGS", "-D warnings")))
    });
    report.step("tidy", || Step::Done(tidy::run(&tidy::Args::default())));
    if args.full || !args.only.is_empty() {
        full(&mut report);
    }
    // Last, so that what it ran on stands at the end.
    report.step("test", || Step::Done(test::run(&tests)));
    report.close()
}

fn full(report: &mut Report) {
    report.step("each feature alone", || Step::Done(each_feature()));
    report.step("oldest compiler", || {
        let toolchain = format!("+{OLDEST}");
        if !is_installed("rustup")
            || output(program("rustup").args(["run", OLDEST, "rustc", "--version"])).is_err()
        {
            return Step::Skipped(format!("rustup has no toolchain {OLDEST}"));
        }
        let mut check = program("cargo");
        check
            .args([&toolchain, "check", "--workspace", "--all-features"])
            .env_remove("CARGO")
            .env_remove("RUSTUP_TOOLCHAIN");
        Step::Done(show_and_run(&mut check))
    });
    report.step("tests without debug assertions", || {
        let mut tests =
            cargo(&["test", "--profile", "testrelease", "--workspace", "--lib", "--all-features"]);
        Step::Done(show_and_run(tests.env("EVENKEEL_TEST_SERVERS", "")))
    });
    report.step("fuzz smoke", || Step::Done(fuzz::run(&fuzz::Args::smoke())));
    report.step("dependencies", || {
        needs("cargo-deny").unwrap_or_else(|| Step::Done(show_and_run(&mut cargo(&["deny", "check"]))))
    });
    report.step("public api", || {
        needs("cargo-semver-checks").unwrap_or_else(|| {
            Step::Done(show_and_run(&mut cargo(&["semver-checks", "--baseline-rev", "HEAD^"])))
        })
    });
}

fn needs(tool: &str) -> Option<Step> {
    (!is_installed(tool)).then(|| Step::Skipped(format!("{tool} is not installed")))
}

/// Builds the machine crates without their drivers, and looks for tokio in what that took.
fn pure() -> Outcome {
    for package in PURE {
        show_and_run(&mut cargo(&["check", "--quiet", "--package", package, "--no-default-features"]))?;
        let tree = output(&mut cargo(&[
            "tree",
            "--package",
            package,
            "--no-default-features",
            "--edges",
            "normal",
            "--prefix",
            "none",
        ]))?;
        if let Some(runtime) = tree.lines().find(|line| line.starts_with("tokio ")) {
            return Err(Failure::new(format!("{package} without features still needs {runtime}")));
        }
    }
    Ok(())
}

fn each_feature() -> Outcome {
    let metadata = MetadataCommand::new().current_dir(root()).no_deps().exec();
    let metadata = metadata.map_err(Failure::of("cargo metadata"))?;
    let mut failed = Vec::new();
    for package in &metadata.packages {
        for feature in package.features.keys() {
            let name = package.name.as_str();
            let line =
                ["check", "--quiet", "--package", name, "--no-default-features", "--features", feature];
            if show_and_run(&mut cargo(&line)).is_err() {
                failed.push(format!("{name} with {feature}"));
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::new(failed.join(", "))) }
}

#[derive(Default)]
struct Report {
    /// The steps wanted; none means all.
    only: Vec<String>,
    lines: Vec<String>,
    failed: Vec<&'static str>,
    took: Duration,
}

impl Report {
    /// Runs a step. A failed one does not keep the others from running: one run shows all that is wrong.
    fn step(&mut self, name: &'static str, step: impl FnOnce() -> Step) {
        if !self.only.is_empty() && !self.only.iter().any(|wanted| wanted == name) {
            return;
        }
        println!("\n== {name}");
        let watch = Stopwatch::start();
        let result = step();
        let took = watch.elapsed();
        self.took += took;
        let word = match result {
            Step::Done(Ok(())) => "ok".to_owned(),
            Step::Done(Err(failure)) => {
                println!("{name} failed: {failure}");
                self.failed.push(name);
                "FAILED".to_owned()
            }
            Step::Skipped(reason) => format!("skipped: {reason}"),
        };
        self.lines.push(format!("{:>7.1} s  {name}: {word}", took.as_secs_f64()));
    }

    fn close(self) -> Outcome {
        println!("\n{}", self.lines.join("\n"));
        println!("{:>7.1} s  in all", self.took.as_secs_f64());
        if self.lines.is_empty() {
            return Err(Failure::new(format!("no step is named {}", self.only.join(" or "))));
        }
        if self.failed.is_empty() {
            Ok(())
        } else {
            Err(Failure::new(format!("failed: {}", self.failed.join(", "))))
        }
    }
}
