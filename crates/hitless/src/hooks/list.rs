//! `Hooks`: the list of hooks, and what became of their work; who runs them is not known here.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;

use super::NotificationHook;

/// What became of hooks' work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HookMetrics {
    /// Announcements held back.
    pub held_back: u64,
    /// Hooks that panicked.
    pub panics: u64,
    /// Announcements that passed without hooks, because the queue was full.
    pub skipped: u64,
    /// Announcements that went on after 50 ms, because the hooks were not done.
    pub timeouts: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) held_back: AtomicU64,
    pub(crate) panics: AtomicU64,
    pub(crate) skipped: AtomicU64,
    pub(crate) timeouts: AtomicU64,
}

pub(crate) type List = Arc<[Arc<dyn NotificationHook>]>;

/// The hooks of one engine; clones share them.
#[derive(Clone, Default)]
pub struct Hooks {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) list: Mutex<List>,
    pub(crate) counts: Counts,
}

impl Hooks {
    /// No hooks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a hook behind those that are there; it sees what is announced from now on.
    pub fn add(&self, hook: Arc<dyn NotificationHook>) {
        let mut list = self.shared.list.lock();
        *list = list.iter().cloned().chain([hook]).collect();
    }

    /// What was counted so far.
    pub fn metrics(&self) -> HookMetrics {
        let counts = &self.shared.counts;
        HookMetrics {
            held_back: counts.held_back.load(Ordering::Relaxed),
            panics: counts.panics.load(Ordering::Relaxed),
            skipped: counts.skipped.load(Ordering::Relaxed),
            timeouts: counts.timeouts.load(Ordering::Relaxed),
        }
    }

    /// True when there is none, so that nothing has to wait.
    pub fn is_empty(&self) -> bool {
        self.shared.list.lock().is_empty()
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hooks").field("count", &self.shared.list.lock().len()).finish_non_exhaustive()
    }
}
