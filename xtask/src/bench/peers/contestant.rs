//! The clients, each a program of its own, and how one of them is run once.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::cores::Cores;
use super::row::Row;
use crate::failure::{Failure, Outcome};
use crate::process::{self, is_installed};

/// A client of the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contestant {
    Evenkeel,
    Redis,
    Fred,
    Rustis,
    Floor,
}

/// What one run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Times and memory; nothing is counted.
    Timed,
    /// Allocations in the measured window.
    Allocations,
    /// System calls of the whole process, its start included.
    SystemCalls,
}

/// What one run printed.
pub(super) type Printed = HashMap<String, f64>;

/// The clients that were asked for; all of them when none was named.
pub(super) fn choose(wanted: &[String]) -> Outcome<Vec<Contestant>> {
    if let Some(unknown) =
        wanted.iter().find(|word| !Contestant::ALL.iter().any(|client| client.name() == **word))
    {
        let known = Contestant::ALL.map(Contestant::name).join(", ");
        return Err(Failure::new(format!("no client is named {unknown}; there are {known}")));
    }
    let is_wanted =
        |client: &Contestant| wanted.is_empty() || wanted.iter().any(|word| word == client.name());
    Ok(Contestant::ALL.into_iter().filter(is_wanted).collect())
}

impl Contestant {
    pub(super) const ALL: [Self; 5] = [Self::Evenkeel, Self::Redis, Self::Fred, Self::Rustis, Self::Floor];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Evenkeel => "evenkeel",
            Self::Redis => "redis",
            Self::Fred => "fred",
            Self::Rustis => "rustis",
            Self::Floor => "floor",
        }
    }

    /// Whether it is somebody else's client.
    pub(super) fn is_peer(self) -> bool {
        matches!(self, Self::Redis | Self::Fred | Self::Rustis)
    }

    fn program(self) -> PathBuf {
        process::root().join("benches/target/release").join(self.name())
    }

    /// Runs a row once.
    pub(super) fn run(
        self,
        row: &Row,
        mode: Mode,
        seconds: f64,
        server: SocketAddr,
        cores: &Cores,
        free: bool,
    ) -> Outcome<Printed> {
        let mut arguments = vec![row.name().to_owned(), row.runtime().name().to_owned(), server.to_string()];
        arguments.push(if mode == Mode::Allocations { "allocations" } else { "timed" }.to_owned());
        arguments.push(seconds.to_string());
        let counter = if mode == Mode::SystemCalls { Some(Counter::find()?) } else { None };
        let report = process::target_dir().join(format!("bench-system-calls-{}", std::process::id()));
        let mut command = match counter {
            None => Command::new(self.program()),
            Some(counter) => counter.around(&self.program(), &report),
        };
        command.args(&arguments).stdin(Stdio::null());
        if let Some(core) = cores.server().filter(|_| !free) {
            command.env("EVENKEEL_BENCH_SERVER_CORE", core.to_string());
        }
        let mut printed = start(&mut command, cores, free)?;
        if let Some(counter) = counter {
            let text =
                std::fs::read_to_string(&report).map_err(Failure::of("reading the count of system calls"))?;
            let _gone = std::fs::remove_file(&report);
            let calls = counter
                .read(&text)
                .ok_or_else(|| Failure::new("the count of system calls is not readable"))?;
            printed.insert("system_calls".to_owned(), calls);
        }
        Ok(printed)
    }

    /// Runs the tasks of the burst without a client.
    pub(super) fn run_tasks(
        row: &Row,
        seconds: f64,
        server: SocketAddr,
        cores: &Cores,
        free: bool,
    ) -> Outcome<Printed> {
        let mut command = Command::new(Self::Floor.program());
        command.args(["tasks100k", row.runtime().name(), &server.to_string(), "timed", &seconds.to_string()]);
        start(command.stdin(Stdio::null()), cores, free)
    }
}

fn start(command: &mut Command, cores: &Cores, free: bool) -> Outcome<Printed> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = cores.with_client(free, || command.spawn()).map_err(Failure::of("starting a client"))?;
    let output = child.wait_with_output().map_err(Failure::of("waiting for a client"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        let last = complaint.lines().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
        return Err(Failure::new(format!("ended with {}: {last}", output.status)));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let pairs = text.split_whitespace().filter_map(|pair| pair.split_once('='));
    Ok(pairs.filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?))).collect())
}

/// What counts system calls here.
#[derive(Clone, Copy, Debug)]
enum Counter {
    /// `perf stat` on the tracepoint: next to no cost.
    Perf,
    /// `strace -c`: slows the client down, so its waves are other ones; better than nothing.
    Strace,
}

impl Counter {
    fn find() -> Outcome<Self> {
        static FOUND: OnceLock<Option<Counter>> = OnceLock::new();
        let found = FOUND.get_or_init(|| {
            let mut perf = Command::new("perf");
            perf.args(["stat", "-x,", "-e", "raw_syscalls:sys_enter", "true"]);
            let works = perf.output().is_ok_and(|output| {
                output.status.success() && Self::Perf.read(&String::from_utf8_lossy(&output.stderr)).is_some()
            });
            if works { Some(Self::Perf) } else { is_installed("strace").then_some(Self::Strace) }
        });
        found.ok_or_else(|| {
            Failure::new("neither perf (with tracepoints) nor strace is here to count system calls")
        })
    }

    fn around(self, program: &Path, report: &Path) -> Command {
        let mut command = match self {
            Self::Perf => {
                let mut command = Command::new("perf");
                command.args(["stat", "-x,", "-e", "raw_syscalls:sys_enter", "-o"]).arg(report).arg("--");
                command
            }
            Self::Strace => {
                let mut command = Command::new("strace");
                command.args(["-c", "-f", "-qq", "-U", "calls,name", "-o"]).arg(report).arg("--");
                command
            }
        };
        command.arg(program);
        command
    }

    fn read(self, text: &str) -> Option<f64> {
        match self {
            Self::Perf => {
                text.lines().find(|line| line.contains("raw_syscalls"))?.split(',').next()?.parse().ok()
            }
            Self::Strace => {
                let total = text.lines().rev().find(|line| line.trim_end().ends_with("total"))?;
                total.split_whitespace().next()?.parse().ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_system_calls_are_read_from_both_tools() {
        let perf = "# started on Mon\n\n4711,,raw_syscalls:sys_enter,1000,100.00,,\n";
        assert_eq!(Counter::Perf.read(perf), Some(4711.0));
        assert_eq!(Counter::Perf.read("<not supported>,,raw_syscalls:sys_enter,0,,,\n"), None);
        let strace = "    calls syscall\n--------- --------\n       12 read\n        3 write\n--------- --------\n       15 total\n";
        assert_eq!(Counter::Strace.read(strace), Some(15.0));
    }

    #[test]
    fn clients_are_chosen_by_name() {
        assert_eq!(choose(&[]).unwrap().len(), 5);
        assert_eq!(choose(&["fred".to_owned()]).unwrap(), [Contestant::Fred]);
        assert!(choose(&["nobody".to_owned()]).is_err());
    }
}
