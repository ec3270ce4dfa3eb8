//! `MetricsHook`: counts announcements, their processing times and their failures.

use std::collections::BTreeMap;

use evenkeel_protocol::Notice;
use parking_lot::Mutex;

use super::{NotificationContext, NotificationHook};
use crate::{Durations, Outcome};

/// A hook that counts.
///
/// ```
/// use evenkeel_hitless::{Hooks, MetricsHook};
/// use std::sync::Arc;
///
/// let hook = Arc::new(MetricsHook::new());
/// let hooks = Hooks::new();
/// hooks.add(hook.clone());
/// assert!(hook.metrics().notification_counts.is_empty());
/// ```
#[derive(Debug, Default)]
pub struct MetricsHook {
    metrics: Mutex<NotificationMetrics>,
}

/// What a [`MetricsHook`] has counted, by the names of announcements.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotificationMetrics {
    /// How many came.
    pub notification_counts: BTreeMap<&'static str, u64>,
    /// From their arrival until they were dealt with; for a handoff, until it was over.
    pub processing_times: BTreeMap<&'static str, Durations>,
    /// How many ended with connections left to the server's close.
    pub error_counts: BTreeMap<&'static str, u64>,
}

impl MetricsHook {
    /// A hook that has counted nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// What was counted so far.
    pub fn metrics(&self) -> NotificationMetrics {
        self.metrics.lock().clone()
    }
}

impl NotificationHook for MetricsHook {
    fn pre(&self, _ctx: &NotificationContext, notice: Notice) -> Option<Notice> {
        *self.metrics.lock().notification_counts.entry(notice.name()).or_default() += 1;
        Some(notice)
    }

    fn post(&self, ctx: &NotificationContext, notice: &Notice, outcome: &Outcome) {
        let mut metrics = self.metrics.lock();
        metrics.processing_times.entry(notice.name()).or_default().record(ctx.elapsed);
        if outcome.is_error() {
            *metrics.error_counts.entry(notice.name()).or_default() += 1;
        }
    }
}
