//! `cargo xtask test`: every test of the workspace, and what it ran on.
//!
//! The tests learn from `EVENKEEL_TEST_SERVERS` which servers exist, and say in the ledger what they ran on;
//! `evenkeel_testkit::launcher` has the contract.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use evenkeel_testkit::launcher::ServerKind;

use crate::failure::{Failure, Outcome};
use crate::process::{self, Stopwatch};
use crate::servers::{self, Skipped};

/// A killed process is gone within milliseconds.
const ROUND: Duration = Duration::from_millis(50);
const ROUNDS: u32 = 60;

/// Arguments of `test`.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Does without real servers: tests that need one are counted as skipped
    #[arg(long)]
    no_servers: bool,
    /// Passed to `cargo test`, such as `-p evenkeel-pool` or a test's name
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    cargo: Vec<String>,
}

impl Args {
    pub(crate) fn without_servers(no_servers: bool) -> Self {
        Self { no_servers, cargo: Vec::new() }
    }
}

pub(crate) fn run(args: &Args) -> Outcome {
    let skipped = if args.no_servers { Vec::new() } else { servers::ensure() };
    let kinds = if args.no_servers { Vec::new() } else { servers::found().kinds().to_vec() };
    if !args.no_servers && !kinds.iter().any(|kind| kind.name() == "redis") {
        let reason = skipped.iter().find(|skipped| skipped.server == "redis");
        let reason = reason.map_or("none was found", |skipped| skipped.reason.as_str());
        return Err(Failure::new(format!(
            "the tests need a real redis-server ({reason}); --no-servers does without"
        )));
    }
    for kind in &kinds {
        println!("testing on {kind}  {}", kind.program().display());
    }
    let folder = Folder::make()?;
    let ledger = folder.0.join("ledger");
    fs::write(&ledger, "").map_err(Failure::of("making the ledger"))?;
    let programs =
        env::join_paths(kinds.iter().map(ServerKind::program)).map_err(Failure::of("the servers' paths"))?;

    // Of the whole workspace examples are not built here: clippy looks at them, and linking them takes a minute.
    let whole = args.cargo.is_empty();
    let steps: &[&[&str]] =
        if whole { &[&["--workspace", "--tests"], &["--workspace", "--doc"]] } else { &[&[]] };
    let names_packages = |word: &String| word == "-p" || word.starts_with("--package");
    let watch = Stopwatch::start();
    let mut done = Ok(());
    for step in steps {
        let mut cargo = process::cargo(&["test", "--all-features", "--no-fail-fast"]);
        if !whole && !args.cargo.iter().any(names_packages) {
            cargo.arg("--workspace");
        }
        cargo
            .args(*step)
            .args(&args.cargo)
            .env("EVENKEEL_TEST_SERVERS", &programs)
            .env("EVENKEEL_TEST_LEDGER", &ledger)
            .env("EVENKEEL_TEST_DIR", &folder.0);
        // One failed step does not keep the other from running.
        let ended = process::run(&mut cargo);
        done = done.and(ended);
    }
    let lines = fs::read_to_string(&ledger).map_err(Failure::of("reading the ledger"))?;
    println!("\n{}", Tally::read(&lines).report(&kinds, &skipped, args.no_servers));
    println!("tests took {:.1} s", watch.elapsed().as_secs_f64());
    let left = folder.processes_left();
    if !left.is_empty() {
        return Err(Failure::new(format!("processes are left over by tests: {left:?}")));
    }
    done
}

/// The folder of one run: the ledger, and the servers' folders. Those that failed tests kept stay.
struct Folder(PathBuf);

impl Folder {
    fn make() -> Outcome<Self> {
        // Short, for Unix sockets below it: their names end after 107 bytes.
        let folder = env::temp_dir().join(format!("evenkeel-{}", std::process::id()));
        fs::create_dir_all(&folder).map_err(Failure::of("making a folder for the tests"))?;
        Ok(Self(folder))
    }

    /// Returns the processes that still work below the folder, once they had time to end.
    fn processes_left(&self) -> Vec<String> {
        let mut left = self.processes();
        for _ in 0..ROUNDS {
            if left.is_empty() {
                break;
            }
            thread::park_timeout(ROUND);
            left = self.processes();
        }
        left
    }

    fn processes(&self) -> Vec<String> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let works_here = |entry: &fs::DirEntry| {
            fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&self.0))
        };
        let name = |entry: fs::DirEntry| {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            format!("{} {}", entry.file_name().to_string_lossy(), name.trim())
        };
        entries.filter(works_here).map(name).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The ledger has been read. The folder itself goes only when no test has kept one in it.
        let _gone = fs::remove_file(self.0.join("ledger"));
        let _kept = fs::remove_dir(&self.0);
        if Path::new(&self.0).exists() {
            println!("logs of servers are kept in {}", self.0.display());
        }
    }
}

/// What the ledger says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    /// Tests that ran, by server and version.
    ran: BTreeMap<(String, String), usize>,
    /// Tests skipped and why, by server and version.
    skipped: BTreeMap<(String, String), Vec<(String, String)>>,
}

impl Tally {
    /// Reads lines of: what, server, version, test, reason, separated by tabs.
    fn read(ledger: &str) -> Self {
        let mut tally = Self::default();
        for line in ledger.lines() {
            let mut fields = line.split('\t').map(str::to_owned);
            let (Some(what), Some(name), Some(version), Some(test)) =
                (fields.next(), fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let server = (name, version);
            if what == "ran" {
                *tally.ran.entry(server).or_default() += 1;
            } else {
                let reason = fields.next().unwrap_or_default();
                tally.skipped.entry(server).or_default().push((test, reason));
            }
        }
        tally
    }

    fn report(&self, kinds: &[ServerKind], missing: &[Skipped], no_servers: bool) -> String {
        let mut lines = vec!["tests on real servers:".to_owned()];
        for kind in kinds {
            let server = (kind.name().to_owned(), kind.version().to_owned());
            let ran = self.ran.get(&server).copied().unwrap_or(0);
            let skipped = self.skipped.get(&server).map_or(0, Vec::len);
            lines.push(format!("  {kind}: {ran} ran, {skipped} skipped"));
        }
        for Skipped { server, reason } in missing {
            lines.push(format!("  {server}: all skipped: {reason}"));
        }
        if no_servers {
            let skipped: usize = self.skipped.values().map(Vec::len).sum();
            lines.push(format!("  none, as --no-servers asks for: {skipped} skipped"));
        }
        for ((name, version), tests) in self.skipped.iter().filter(|_| !no_servers) {
            let server = if name == "-" { "every server".to_owned() } else { format!("{name} {version}") };
            for (test, reason) in tests {
                lines.push(format!("  skipped on {server}: {test}: {reason}"));
            }
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_in_the_folder_is_found() {
        let folder = Folder(env::temp_dir().join(format!("evenkeel-xtask-test-{}", std::process::id())));
        fs::create_dir_all(folder.0.join("in")).unwrap();
        let mut sleep = std::process::Command::new("sleep");
        let mut sleep = sleep.arg("60").current_dir(folder.0.join("in")).spawn().unwrap();
        assert_eq!(folder.processes(), [format!("{} sleep", sleep.id())]);
        sleep.kill().unwrap();
        sleep.wait().unwrap();
        assert_eq!(folder.processes_left(), [""; 0]);
        fs::remove_dir_all(&folder.0).unwrap();
    }

    #[test]
    fn tests_are_counted_by_server_and_skips_keep_their_reason() {
        let tally = Tally::read(
            "ran\tredis\t7.0.15\ta\t\nran\tvalkey\t9.1.2\ta\t\nran\tredis\t7.0.15\tb\t\nskipped\tredis\t7.0.15\tc\tno such command\n",
        );
        let redis = ("redis".to_owned(), "7.0.15".to_owned());
        assert_eq!(tally.ran[&redis], 2);
        assert_eq!(tally.skipped[&redis], [("c".to_owned(), "no such command".to_owned())]);
        let report =
            tally.report(&[], &[Skipped { server: "valkey-9".into(), reason: "no pip".into() }], false);
        assert!(report.contains("valkey-9: all skipped: no pip"), "{report}");
        assert!(report.contains("skipped on redis 7.0.15: c: no such command"), "{report}");
    }
}
