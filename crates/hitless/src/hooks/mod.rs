//! Hooks: the user's code around announcements, on a thread of its own, never in a connection's way.

mod list;
#[cfg(feature = "tokio")]
mod logging;
mod metrics_hook;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use evenkeel_protocol::{Endpoint, Notice};

#[cfg(feature = "tokio")]
pub(crate) use self::list::{Counts, List, Shared};
#[cfg(feature = "tokio")]
pub use self::logging::LoggingHook;
#[cfg(feature = "tokio")]
pub(crate) use self::logging::log;
pub use self::{
    list::{HookMetrics, Hooks},
    metrics_hook::{MetricsHook, NotificationMetrics},
};
use crate::{ConnId, Outcome};

/// Looks at announcements, and may change or hold them back.
///
/// Hooks run in the order in which they were added, on one thread that belongs to the engine. The engine waits at most
/// 50 ms for all of them together and then goes on with the announcement as it came. A panic is caught and counted;
/// the hook's say is void then.
///
/// ```
/// use evenkeel_hitless::{NotificationContext, NotificationHook};
/// use evenkeel_protocol::Notice;
///
/// /// Leaves failovers alone.
/// struct NoFailovers;
///
/// impl NotificationHook for NoFailovers {
///     fn pre(&self, _ctx: &NotificationContext, notice: Notice) -> Option<Notice> {
///         (!matches!(notice, Notice::FailingOver { .. })).then_some(notice)
///     }
/// }
/// ```
pub trait NotificationHook: Send + Sync {
    /// Comes before the engine acts: gives the announcement on, changed or not, or holds it back with `None`.
    fn pre(&self, ctx: &NotificationContext, notice: Notice) -> Option<Notice>;

    /// Comes when the announcement is dealt with; for one that starts a handoff, when the handoff is over.
    #[expect(unused_variables, reason = "names for implementors")]
    fn post(&self, ctx: &NotificationContext, notice: &Notice, outcome: &Outcome) {}
}

/// Where an announcement comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotificationContext {
    /// The connection that it came on.
    pub conn: ConnId,
    /// The configured endpoint of that connection.
    pub endpoint: Endpoint,
    /// The address at its other end, if it has one.
    pub peer: Option<SocketAddr>,
    /// Whether the connection was still being made.
    pub during_handshake: bool,
    /// When it came.
    pub received_at: Instant,
    /// Since it came; zero in `pre`.
    pub elapsed: Duration,
}
