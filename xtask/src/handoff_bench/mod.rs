//! `cargo xtask handoff-bench`: announced maintenance under load, scenario by scenario, and the marks that must be met.
//!
//! The load is an example of the client; the embedded server runs in a process of its own beside it.

mod figures;
mod marks;

use std::path::PathBuf;

use self::figures::Figures;
use crate::failure::{Failure, Outcome};
use crate::process;

/// Every scenario, in the order in which they run.
const SCENARIOS: [&str; 10] = ["a", "b", "b-late", "c", "d", "e-dup", "e-bad", "f", "g", "full"];

/// Connections of the pool.
const POOL: u32 = 100;

/// Arguments of `handoff-bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Prints one JSON object a line, and nothing else on standard output
    #[arg(long)]
    json: bool,
    /// Runs these scenarios only
    #[arg(long, value_name = "NAME", num_args = 1.., value_parser = SCENARIOS)]
    scenario: Vec<String>,
    /// Handoffs in a row, on each kind of client; each scenario has its own number otherwise
    #[arg(long, value_name = "N")]
    handoffs: Option<u32>,
    /// The announced grace in seconds; each scenario has its own otherwise
    #[arg(long, value_name = "SECONDS")]
    grace: Option<u32>,
    /// One lane, a pool of 100, or one after the other
    #[arg(long, default_value = "both", value_parser = ["lane", "pool", "both"])]
    on: String,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let program = build()?;
    let chosen = |name: &&str| args.scenario.is_empty() || args.scenario.iter().any(|wanted| wanted == name);
    let mut missed = Vec::new();
    if !args.json {
        println!("{}", figures::HEADER);
    }
    for scenario in SCENARIOS.into_iter().filter(chosen) {
        let mut both: Option<Figures> = None;
        for pool in [false, true] {
            if (pool && args.on == "lane") || (!pool && args.on == "pool") {
                continue;
            }
            eprintln!("{scenario} on {}", if pool { "a pool of 100" } else { "one lane" });
            let figures = measure(&program, scenario, pool, args)?;
            eprintln!("  {}", figures.aside());
            missed.extend(marks::missed(scenario, pool, &figures));
            both = Some(match both {
                None => figures,
                Some(lane) => lane.with(&figures),
            });
        }
        if let Some(both) = both {
            println!("{}", if args.json { both.json(scenario) } else { both.row(scenario) });
        }
    }
    if missed.is_empty() {
        return Ok(());
    }
    for mark in &missed {
        eprintln!("missed: {mark}");
    }
    Err(Failure::new(format!("{} marks missed", missed.len())))
}

fn build() -> Outcome<PathBuf> {
    eprintln!("building the load (the first time takes some minutes)");
    let mut command = process::cargo(&["build", "--release", "--quiet"]);
    command.args(["--package", "evenkeel-client", "--example", "handoffs"]);
    let status = command.status().map_err(Failure::of("building the load"))?;
    if !status.success() {
        return Err(Failure::new(format!("building the load ended with {status}")));
    }
    Ok(process::target_dir().join("release/examples/handoffs"))
}

fn measure(program: &PathBuf, scenario: &str, pool: bool, args: &Args) -> Outcome<Figures> {
    let mut command = process::program(program);
    command.args(["run", "--scenario", scenario, "--on"]);
    command.arg(if pool { POOL.to_string() } else { "lane".to_owned() });
    if let Some(handoffs) = args.handoffs {
        command.args(["--handoffs", &handoffs.to_string()]);
    }
    if let Some(grace) = args.grace {
        command.args(["--grace", &grace.to_string()]);
    }
    // What the load says beside its figures is for people.
    command.stderr(std::process::Stdio::inherit());
    let output = command.output().map_err(Failure::of("the load"))?;
    if !output.status.success() {
        return Err(Failure::new(format!("the load of {scenario} ended with {}", output.status)));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_default();
    Figures::read(line).ok_or_else(|| Failure::new(format!("the load of {scenario} said {line:?}")))
}
