//! The measured window: operations, wall time, CPU time of this process, latencies.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::allocations;
use crate::latency::Latencies;

/// What one run of a row gave.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Operations in the window: commands, keys of MGET, or messages received.
    pub ops: u64,
    /// Operations since the process started.
    pub all_ops: u64,
    /// Messages that the client dropped.
    pub lost: u64,
    /// Length of the window.
    pub wall: Duration,
    /// User and system time of the process in the window.
    pub cpu: Duration,
    /// Allocations in the window, when they were counted.
    pub allocations: u64,
}

/// User and system time of this process.
pub(crate) fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// What the tasks of a row share.
pub struct Meter {
    stop: AtomicBool,
    open: AtomicBool,
    pub(crate) latencies: Latencies,
    /// One counter for each task, on a cache line of its own.
    done: Vec<Counter>,
}

#[repr(align(128))]
struct Counter(AtomicU64);

impl Meter {
    pub(crate) fn new(tasks: usize) -> Self {
        Self {
            stop: AtomicBool::new(false),
            open: AtomicBool::new(false),
            latencies: Latencies::new(),
            done: (0..tasks).map(|_| Counter(AtomicU64::new(0))).collect(),
        }
    }

    /// Whether the tasks are to go on.
    pub fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    /// Whether what is done counts.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed)
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Adds to what a task has done; each counter has one writer.
    pub(crate) fn add(&self, task: usize, count: u64) {
        if let Some(Counter(done)) = self.done.get(task) {
            done.store(done.load(Ordering::Relaxed) + count, Ordering::Relaxed);
        }
    }

    pub(crate) fn total(&self) -> u64 {
        self.done.iter().map(|counter| counter.0.load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn open(&self) -> Window {
        self.open.store(true, Ordering::Relaxed);
        Window { wall: Instant::now(), cpu: cpu(), ops: self.total(), allocations: allocations::counted() }
    }

    pub(crate) fn close(&self, window: &Window) -> Outcome {
        let (cpu, wall) = (cpu(), window.wall.elapsed());
        let total = self.total();
        self.open.store(false, Ordering::Relaxed);
        Outcome {
            ops: total - window.ops,
            all_ops: total,
            lost: 0,
            wall,
            cpu: cpu - window.cpu,
            allocations: allocations::counted() - window.allocations,
        }
    }
}

/// Where a window began.
pub(crate) struct Window {
    wall: Instant,
    cpu: Duration,
    ops: u64,
    allocations: u64,
}
