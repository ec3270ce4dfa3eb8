//! `cargo xtask demo`: the demo of `evenkeel`, with the servers that it needs.

use crate::failure::Outcome;
use crate::{process, servers};

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Passed to `evenkeel demo` as they are: `--redis single|sentinel|cluster`, `--check`, `--seconds N`, ...
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    demo: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Outcome {
    if wants_real_server(&args.demo) {
        servers::need_redis()?;
    }
    let mut command = process::cargo(&["run", "--quiet", "--package", "evenkeel-cli", "--", "demo"]);
    command.args(&args.demo).env("EVENKEEL_SERVERS_DIR", servers::folder());
    eprintln!("building evenkeel (the first time takes some minutes)");
    // Not `process::run`: the demo's last line is for programs, so nothing of ours may come on standard output.
    let status = command.status().map_err(crate::failure::Failure::of("evenkeel demo"))?;
    if status.success() {
        Ok(())
    } else {
        Err(crate::failure::Failure::new(format!("evenkeel demo ended with {status}")))
    }
}

/// Without `--redis` the demo runs on the embedded server.
fn wants_real_server(arguments: &[String]) -> bool {
    let mode =
        arguments.iter().enumerate().find_map(|(n, argument)| match argument.strip_prefix("--redis") {
            Some("") => arguments.get(n + 1).map(String::as_str),
            Some(mode) => mode.strip_prefix('='),
            None => None,
        });
    matches!(mode, Some("single" | "sentinel" | "cluster"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_servers_are_wanted_for_real_modes_only() {
        let wants = |line: &str| wants_real_server(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert!(wants("--check --redis sentinel --seconds 20"));
        assert!(wants("--redis=cluster"));
        assert!(!wants("--check"));
        assert!(!wants("--redis embedded"));
        assert!(!wants("--redis"));
    }
}
