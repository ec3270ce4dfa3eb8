//! The client in a race: a process of the benches' workspace, so that the peers are in nobody's build.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::failure::{Failure, Outcome};
use crate::process;

/// A client connects within seconds or never.
const CONNECT: Duration = Duration::from_secs(20);
/// The client's own patience with what is under way, and some more.
const FINISH: Duration = Duration::from_secs(30);

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Acknowledged,
    MayHaveRun,
    NotExecuted,
}

/// A write, as its client tells it; times in microseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    pub(crate) number: u64,
    pub(crate) key: usize,
    pub(crate) begin: u64,
    pub(crate) end: u64,
    pub(crate) verdict: Verdict,
}

/// Builds the clients.
pub(crate) fn build() -> Outcome {
    eprintln!("building the clients (the first time takes some minutes)");
    let manifest = process::root().join("benches/Cargo.toml");
    let mut build = process::cargo(&["build", "--quiet", "--profile", "race", "--package", "evenkeel-races"]);
    build.arg("--manifest-path").arg(manifest).stdout(Stdio::null());
    let status = build.status().map_err(Failure::of("cargo build"))?;
    if status.success() { Ok(()) } else { Err(Failure::new("the clients do not build")) }
}

fn program() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR");
    let target = target.map_or_else(|| process::root().join("benches/target"), PathBuf::from);
    target.join("race/evenkeel-races")
}

/// A client under load.
pub(crate) struct Racer {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Racer {
    /// Starts a client and its load; returns once it is connected.
    pub(crate) async fn start(
        client: &str,
        mode: &str,
        seeds: &str,
        name: &str,
        rate: u32,
        keys: &str,
    ) -> Outcome<Self> {
        let mut child = Command::new(program())
            .args([client, mode, seeds, name, &rate.to_string(), keys])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(Failure::of("evenkeel-races"))?;
        let out = child.stdout.take().ok_or_else(|| Failure::new("the client has no standard output"))?;
        let mut lines = BufReader::new(out).lines();
        let ready = timeout(CONNECT, lines.next_line()).await;
        match ready {
            Ok(Ok(Some(line))) if line == "ready" => Ok(Self { child, lines }),
            _ => Err(Failure::new(format!("{client} did not connect"))),
        }
    }

    /// Ends the load and returns what the client tells of each write.
    pub(crate) async fn finish(mut self) -> Outcome<Vec<Told>> {
        drop(self.child.stdin.take());
        let read = async {
            let mut told = Vec::new();
            while let Some(line) = self.lines.next_line().await.map_err(Failure::of("evenkeel-races"))? {
                told.push(parse(&line).ok_or_else(|| Failure::new(format!("the client said {line}")))?);
            }
            Ok(told)
        };
        timeout(FINISH, read).await.map_err(|_elapsed| Failure::new("the client did not end"))?
    }
}

fn parse(line: &str) -> Option<Told> {
    let mut words = line.split(' ');
    let number = words.next()?.parse().ok()?;
    let key = words.next()?.parse().ok()?;
    let begin = words.next()?.parse().ok()?;
    let end = words.next()?.parse().ok()?;
    let verdict = match words.next()? {
        "o" => Verdict::Acknowledged,
        "n" => Verdict::NotExecuted,
        // Nobody knows what became of one that never ended.
        "m" | "h" => Verdict::MayHaveRun,
        _ => return None,
    };
    Some(Told { number, key, begin, end, verdict })
}
