//! What became of a command, and whether the server says that it did not run.

use evenkeel_protocol::{Refusal, Reply};

/// Why a command has no reply. Whether the server may have run it is part of each.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The lane was closed before the command was written whole: not executed.
    Closed,
    /// The connection ended, or the lane was closed, after the command was written: unknown.
    Lost,
    /// The deadline passed before the command was written whole: not executed.
    TimedOutUnsent,
    /// The deadline passed after the command was written: unknown.
    TimedOutSent,
    /// The queue was full for as long as the command might wait: not executed.
    Full,
}

/// What became of a command.
#[non_exhaustive]
#[derive(Debug)]
pub enum Outcome {
    /// The server's reply.
    Reply(Reply),
    /// The replies to a unit of several commands, in order.
    Replies(Vec<Reply>),
    /// None will come.
    Failed(Failure),
    /// The connection ended before the reply; the command may go again at its old place.
    MayResend,
}

impl Outcome {
    /// It says of a command that it did not run, or may say so of one of several.
    #[inline]
    pub(crate) fn may_be_refused(&self) -> bool {
        match self {
            Self::Reply(reply) => is_error(reply),
            Self::Replies(replies) => replies.iter().any(is_error),
            Self::Failed(failure) => *failure == Failure::Closed,
            Self::MayResend => false,
        }
    }

    /// The server says of it, or of a part of it, that it did not run because of the server's own state.
    pub(super) fn is_refused(&self) -> bool {
        match self {
            Self::Reply(reply) => is_refusal(reply),
            Self::Replies(replies) => replies.iter().any(is_refusal),
            Self::Failed(_) | Self::MayResend => false,
        }
    }
}

pub(super) fn is_error(reply: &Reply) -> bool {
    reply.as_bytes().first() == Some(&b'-')
}

/// Whether the server says that it did not run a command because of its own state. Every reply is asked, and nearly none is an
/// error.
#[inline]
fn is_refusal(reply: &Reply) -> bool {
    reply.as_bytes().first() == Some(&b'-') && says_so(reply)
}

#[cold]
fn says_so(reply: &Reply) -> bool {
    let refusal = reply.error().as_ref().and_then(Refusal::parse);
    matches!(
        refusal,
        Some(
            Refusal::Loading
                | Refusal::MasterDown
                | Refusal::NoReplicas
                | Refusal::ReadOnly
                | Refusal::Redirect { .. }
        )
    )
}
