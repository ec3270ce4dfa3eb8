//! `Transaction`: commands that run together or not at all, with a type for every reply.

use std::{
    fmt,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use evenkeel_protocol::{Command, DecodeError, FromReply, Reader, Reply, ToArg};

use crate::{
    call::Target,
    core::{CallOptions, PendingExec},
    error::{CommandName, Error},
    replies::{Append, Replies},
};

/// Commands that run together (`MULTI`, `EXEC`); each call appends one, and awaiting it gives their replies as one tuple.
///
/// ```no_run
/// # async fn run(client: &evenkeel_client::Client) -> Result<(), evenkeel_client::Error> {
/// let (count, _) = client.transaction().incr("{job}:count").set("{job}:state", "running").await?;
/// # let _ = count;
/// # Ok(()) }
/// ```
///
/// In a cluster all keys share one slot. The transaction of a [`Lease`](crate::Lease) gives `None` when a watched key
/// has changed. An error of one command does not undo the others: it is the transaction's error, with its
/// [`position`](Error::position). A connection lost before the reply to `EXEC` leaves the fate of the whole unknown, and
/// it is never sent again by itself.
///
/// # Cancel safety
/// Dropped before its first poll it sends nothing; later all of it may have run, or nothing.
#[must_use = "a transaction is sent when it is awaited"]
pub struct Transaction<'a, R = (), K = (), W = Unwatched> {
    target: Target<'a>,
    commands: Vec<Command>,
    options: CallOptions,
    replies: PhantomData<fn() -> (R, K)>,
    watched: PhantomData<fn() -> W>,
}

/// A transaction that always runs.
#[derive(Debug)]
pub struct Unwatched(());

/// A transaction that does not run when a watched key has changed.
#[derive(Debug)]
pub struct Watched(());

impl<'a, W> Transaction<'a, (), (), W> {
    pub(crate) fn new(target: Target<'a>) -> Self {
        Self {
            target,
            commands: Vec::new(),
            options: CallOptions::default(),
            replies: PhantomData,
            watched: PhantomData,
        }
    }
}

impl<'a, R, K, W> Transaction<'a, R, K, W> {
    /// Appends a command made elsewhere.
    pub fn push<T: FromReply>(self, command: Command) -> Transaction<'a, <R as Append<T>>::Out, (), W>
    where
        R: Append<T>,
    {
        self.then(command)
    }

    /// The transaction's time in all. Default: the configuration's `command_timeout`, 10 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// The commands as they will be sent, between `MULTI` and `EXEC`.
    pub fn commands(&self) -> &[Command] {
        &self.commands
    }

    pub(crate) fn then<S, L>(mut self, command: Command) -> Transaction<'a, S, L, W> {
        self.commands.push(command);
        self.typed()
    }

    pub(crate) fn amend(&mut self, arg: impl ToArg) {
        if let Some(command) = self.commands.last_mut() {
            arg.append_to(command);
        }
    }

    pub(crate) fn typed<S, L>(self) -> Transaction<'a, S, L, W> {
        Transaction {
            target: self.target,
            commands: self.commands,
            options: self.options,
            replies: PhantomData,
            watched: PhantomData,
        }
    }

    fn start(self) -> Executing<'a, R, W> {
        let names = self.commands.iter().map(|command| CommandName::of(command).as_str()).collect();
        let step = Step::Ready(self.target, self.commands, self.options);
        Executing { step, names, replies: PhantomData }
    }
}

impl<R, K, W> fmt::Debug for Transaction<'_, R, K, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").field("commands", &self.commands).finish_non_exhaustive()
    }
}

impl<'a, R: Replies, K> IntoFuture for Transaction<'a, R, K, Unwatched> {
    type Output = Result<R, Error>;
    type IntoFuture = Executing<'a, R, Unwatched>;

    fn into_future(self) -> Self::IntoFuture {
        self.start()
    }
}

impl<'a, R: Replies, K> IntoFuture for Transaction<'a, R, K, Watched> {
    type Output = Result<Option<R>, Error>;
    type IntoFuture = Executing<'a, R, Watched>;

    fn into_future(self) -> Self::IntoFuture {
        self.start()
    }
}

/// A transaction that is awaited; it is sent when it is polled first.
#[must_use = "a transaction is sent when it is awaited"]
pub struct Executing<'a, R, W> {
    step: Step<'a>,
    names: Vec<&'static str>,
    replies: PhantomData<fn() -> (R, W)>,
}

/// ```text
/// Ready --first poll--> Sent --reply to EXEC--> Done
/// ```
enum Step<'a> {
    Ready(Target<'a>, Vec<Command>, CallOptions),
    Sent(PendingExec),
    Done,
}

impl<R, W> fmt::Debug for Executing<'_, R, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executing").field("commands", &self.names).finish_non_exhaustive()
    }
}

impl<R: Replies, W> Executing<'_, R, W> {
    fn poll_replies(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<R>, Error>> {
        if let Step::Ready(_, commands, _) = &self.step {
            if commands.is_empty() {
                self.step = Step::Done;
                return Poll::Ready(R::whole(&[], Vec::new()).map(Some));
            }
            if let Step::Ready(target, commands, options) = std::mem::replace(&mut self.step, Step::Done) {
                self.step = Step::Sent(target.transaction(commands, options));
            }
        }
        let reply = match &mut self.step {
            Step::Sent(pending) => ready!(pending.as_mut().poll(cx)),
            // Polled again after it was ready.
            Step::Ready(..) | Step::Done => return Poll::Pending,
        };
        self.step = Step::Done;
        Poll::Ready(reply.and_then(|reply| executed(&self.names, reply)))
    }
}

impl<R: Replies> Future for Executing<'_, R, Unwatched> {
    type Output = Result<R, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let replies = ready!(self.poll_replies(cx))?;
        // Without WATCH the server never answers null.
        let missing = || {
            let found = evenkeel_protocol::Kind::Null;
            Error::decode(DecodeError::Kind { expected: "list", found }, CommandName::TRANSACTION)
        };
        Poll::Ready(replies.ok_or_else(missing))
    }
}

impl<R: Replies> Future for Executing<'_, R, Watched> {
    type Output = Result<Option<R>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_replies(cx)
    }
}

/// One element of the reply to `EXEC`, not yet looked into; an error in it stays in its place.
struct Element(Bytes);

impl FromReply for Element {
    fn from_reply(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.take_value().map(Self)
    }
}

/// Reads the reply to `EXEC`.
fn executed<R: Replies>(names: &[&'static str], reply: Reply) -> Result<Option<R>, Error> {
    let name = CommandName::TRANSACTION;
    let elements: Option<Vec<Element>> = crate::call::settle(|| name, Ok(reply))?;
    let Some(elements) = elements else { return Ok(None) };
    if elements.len() != names.len() {
        let (expected, found) = (names.len(), elements.len());
        return Err(Error::decode(DecodeError::Count { expected, found }, name));
    }
    let replies = elements.into_iter().map(|element| Ok(Reply::new(element.0))).collect();
    R::whole(names, replies).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{ErrorKind, Executed};

    fn check(wire: &'static [u8]) -> Result<Option<(i64, Option<String>)>, Error> {
        let names = ["INCR", "GET"];
        executed(&names, Reply::new(wire.into()))
    }

    #[test]
    fn the_reply_to_exec_is_taken_apart() {
        assert_eq!(check(b"*2\r\n:1\r\n$1\r\nx\r\n").unwrap(), Some((1, Some("x".to_owned()))));
        assert_eq!(check(b"*2\r\n:1\r\n_\r\n").unwrap(), Some((1, None)));
    }

    #[test]
    fn a_watched_key_that_changed_is_none() {
        assert_eq!(check(b"*-1\r\n").unwrap(), None);
        assert_eq!(check(b"_\r\n").unwrap(), None);
    }

    #[test]
    fn errors_inside_and_outside_are_told_apart() {
        let inside = check(b"*2\r\n-WRONGTYPE x\r\n$1\r\nx\r\n").unwrap_err();
        assert_eq!((inside.position(), inside.executed()), (Some(0), Executed::Yes));
        let outside = check(b"-EXECABORT Transaction discarded\r\n").unwrap_err();
        assert_eq!((outside.position(), outside.executed()), (None, Executed::No));
        let short = check(b"*1\r\n:1\r\n").unwrap_err();
        assert_eq!(short.kind(), ErrorKind::Decode);
    }
}
