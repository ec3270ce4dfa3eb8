//! `LoggingHook`: writes announcements and what came of them to the log.

use evenkeel_protocol::Notice;
use tracing::{debug, error, info, warn};

use super::{NotificationContext, NotificationHook};
use crate::{LogLevel, Outcome};

/// A hook that logs under the target `evenkeel::hitless`.
#[derive(Clone, Copy, Debug)]
pub struct LoggingHook {
    level: LogLevel,
}

impl LoggingHook {
    /// Logs announcements at this level; what left connections behind is always an error.
    pub fn new(level: LogLevel) -> Self {
        Self { level }
    }
}

impl NotificationHook for LoggingHook {
    fn pre(&self, ctx: &NotificationContext, notice: Notice) -> Option<Notice> {
        log(self.level, format_args!("{} on {} of {}", notice.name(), ctx.conn, ctx.endpoint));
        Some(notice)
    }

    fn post(&self, ctx: &NotificationContext, notice: &Notice, outcome: &Outcome) {
        let level = if outcome.is_error() { LogLevel::Error } else { self.level };
        let (name, elapsed) = (notice.name(), ctx.elapsed);
        log(level, format_args!("{name} of {} dealt with in {elapsed:?}: {outcome:?}", ctx.endpoint));
    }
}

pub(crate) fn log(level: LogLevel, text: std::fmt::Arguments<'_>) {
    match level {
        LogLevel::Error => error!(target: "evenkeel::hitless", "{text}"),
        LogLevel::Warn => warn!(target: "evenkeel::hitless", "{text}"),
        LogLevel::Info => info!(target: "evenkeel::hitless", "{text}"),
        LogLevel::Debug => debug!(target: "evenkeel::hitless", "{text}"),
    }
}
