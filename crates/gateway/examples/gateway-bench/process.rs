//! What the system says of a process, and processes that end with us.

use std::fs;
use std::process::{Child, Command};

/// Ticks of the CPU time in `/proc`, on every Linux that we run on.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time used so far, in seconds. Reads the scheduler's own account, as ticks are too coarse for short runs.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let mut nanos = 0_u64;
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0.0 };
    for task in tasks.flatten() {
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        nanos += text.split(' ').next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    }
    if nanos > 0 {
        return nanos as f64 / 1e9;
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(12) + ticks(13)) / TICKS_PER_SECOND
}

/// Resident memory in KiB.
pub(crate) fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// A process that is killed when this is dropped.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended already needs no end.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Puts this process, and with it what it starts, on the last processor, so that servers can have the first alone.
pub(crate) fn pin_self() -> bool {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    if cores < 2 {
        return false;
    }
    let (last, pid) = ((cores - 1).to_string(), std::process::id().to_string());
    let done = Command::new("taskset").args(["-cp", &last, &pid]).output();
    done.is_ok_and(|output| output.status.success())
}

/// A command that runs on the first processor when `pinned`.
pub(crate) fn on_first(program: &str, pinned: bool) -> Command {
    if !pinned {
        return Command::new(program);
    }
    let mut command = Command::new("taskset");
    command.args(["-c", "0", program]);
    command
}
