//! What connections decide: pure structs that take the time and what was observed.

mod backoff;
mod lane;
mod link;
mod sentry;

pub use backoff::{Backoff, Growth, Seed};
pub use lane::{Action, DialId, Input, LaneMachine, LaneState, MoveId, MoveRequest, Overlap, Report};
pub use link::{
    CUT_CHANNEL, ChannelKind, EndCause, GapInfo, LinkAction, LinkInput, LinkMachine, LinkSettings, Peer,
};
pub use sentry::{OutOfStep, Sentry, SentryConfig, Verdict};
