//! Which core is whose.

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores that this process may use.
#[derive(Clone, Debug)]
pub(super) struct Cores {
    all: CpuSet,
    usable: Vec<usize>,
}

impl Cores {
    pub(super) fn of_this_process() -> Self {
        let all = sched_getaffinity(None).unwrap_or_else(|_unknown| {
            let mut one = CpuSet::new();
            one.set(0);
            one
        });
        let usable = (0..CpuSet::MAX_CPU).filter(|core| all.is_set(*core)).collect();
        Self { all, usable }
    }

    /// Nothing can be kept apart.
    pub(super) fn is_single(&self) -> bool {
        self.usable.len() < 2
    }

    /// The core of the server, and of the publisher.
    pub(super) fn server(&self) -> Option<usize> {
        self.usable.first().copied()
    }

    fn client(&self) -> Option<usize> {
        self.usable.last().copied()
    }

    /// Keeps a process on the server's core; or lets it go anywhere.
    pub(super) fn pin_server(&self, pid: u32, free: bool) {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        // Where it is refused the scheduler decides, for every client alike.
        let _refused = pid.map(|pid| sched_setaffinity(Some(pid), &self.set(self.server(), free)));
    }

    /// Runs `spawn` so that the process that it starts is kept on the client's core; or may go anywhere.
    pub(super) fn with_client<T>(&self, free: bool, spawn: impl FnOnce() -> T) -> T {
        // What is started inherits the cores of the thread that starts it.
        let _refused = sched_setaffinity(None, &self.set(self.client(), free));
        let started = spawn();
        let _refused = sched_setaffinity(None, &self.all);
        started
    }

    fn set(&self, core: Option<usize>, free: bool) -> CpuSet {
        match core {
            Some(core) if !free => {
                let mut one = CpuSet::new();
                one.set(core);
                one
            }
            _ => self.all,
        }
    }
}
