//! `Call`: one command between the method that makes it and the `.await` that sends it.

use std::{
    fmt,
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use evenkeel_protocol::{Command, DecodeError, FromReply, Reply, ToArg};

use crate::{
    config::ReadPolicy,
    core::{self, CallOptions, Core, PendingAll, PendingExec},
    error::{CommandName, Error},
};

/// Where commands go: the shared connections, or one of one's own.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target<'a> {
    Lease(&'a core::Lease),
    Shared(&'a Arc<Core>),
}

impl Target<'_> {
    pub(crate) fn send_all(self, commands: Vec<Command>, options: CallOptions) -> PendingAll {
        match self {
            Self::Lease(lease) => lease.send_all(commands, options),
            Self::Shared(core) => core.send_all(commands, options),
        }
    }

    pub(crate) fn transaction(self, commands: Vec<Command>, options: CallOptions) -> PendingExec {
        match self {
            Self::Lease(lease) => lease.transaction(commands, options),
            Self::Shared(core) => core.transaction(commands, options),
        }
    }
}

/// A command that is sent when it is awaited; its options stand between the call and the `.await`.
///
/// ```no_run
/// # async fn run(client: &evenkeel_client::Client) -> Result<(), evenkeel_client::Error> {
/// use std::time::Duration;
///
/// let greeting: Option<String> = client.get("greeting").timeout(Duration::from_millis(50)).await?;
/// let visits = client.incr("visits").idempotent().await?;
/// # Ok(()) }
/// ```
///
/// `T` is what the reply becomes; `K` carries the options that only some commands have, such as those of `SET`.
///
/// # Cancel safety
/// Dropping the future before its first poll sends nothing. Dropping it later leaves open whether the command ran; the
/// reply is thrown away in its place and can never reach another caller.
#[must_use = "a command is sent when it is awaited"]
pub struct Call<'a, T, K = ()> {
    target: Target<'a>,
    command: Command,
    options: CallOptions,
    reply: PhantomData<fn() -> (T, K)>,
}

impl<'a, T, K> Call<'a, T, K> {
    pub(crate) fn new(target: Target<'a>, command: Command) -> Self {
        Self { target, command, options: CallOptions::default(), reply: PhantomData }
    }

    /// The command's time in all: waiting, sending, redirections and failovers included.
    ///
    /// Default: the configuration's `command_timeout`, 10 s. A command that blocks on the server has that wait on top.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// Says that twice is as good as once, so that the command may be sent again when its fate is unknown.
    ///
    /// Default: only commands that read are.
    pub fn idempotent(mut self) -> Self {
        self.command = self.command.idempotent();
        self
    }

    /// Where this read goes. Default: as configured. A command that writes goes to the primary all the same.
    pub fn read_policy(mut self, policy: ReadPolicy) -> Self {
        self.options.read_policy = Some(policy);
        self
    }

    /// The command as it will be sent.
    pub fn command(&self) -> &Command {
        &self.command
    }

    /// Asks for the reply as another type.
    pub fn query<U: FromReply>(self) -> Call<'a, U> {
        Call { target: self.target, command: self.command, options: self.options, reply: PhantomData }
    }

    pub(crate) fn amend(&mut self, arg: impl ToArg) {
        arg.append_to(&mut self.command);
    }

    pub(crate) fn typed<U, L>(self) -> Call<'a, U, L> {
        Call { target: self.target, command: self.command, options: self.options, reply: PhantomData }
    }
}

/// How it reads while it is put together.
impl<T, K> fmt::Debug for Call<'_, T, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("command", &self.command).field("options", &self.options).finish()
    }
}

impl<'a, T: FromReply, K> IntoFuture for Call<'a, T, K> {
    type Output = Result<T, Error>;
    type IntoFuture = Calling<'a, T>;

    fn into_future(self) -> Calling<'a, T> {
        let command = CommandName::of(&self.command);
        let step = match self.target {
            Target::Lease(lease) => Step::Lease(lease, self.command, self.options),
            // Sends nothing before its first poll.
            Target::Shared(core) => Step::Shared(core.send(self.command, self.options)),
        };
        Calling { step, command, reply: PhantomData }
    }
}

/// A [`Call`] that is awaited. It is sent when it is polled first, so commands run in the order of their first polls.
#[must_use = "a command is sent when it is awaited"]
pub struct Calling<'a, T> {
    step: Step<'a>,
    command: CommandName,
    reply: PhantomData<fn() -> T>,
}

/// ```text
/// Lease --first poll--> Leased --reply--> Done
/// Shared ----------------------- reply--> Done
/// ```
enum Step<'a> {
    Lease(&'a core::Lease, Command, CallOptions),
    Leased(core::PendingLeased),
    Shared(core::Pending<'a>),
    Done,
}

impl<T> fmt::Debug for Calling<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calling").field("command", &self.command).finish_non_exhaustive()
    }
}

impl<T: FromReply> Future for Calling<'_, T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if matches!(self.step, Step::Lease(..))
            && let Step::Lease(lease, command, options) = std::mem::replace(&mut self.step, Step::Done)
        {
            self.step = Step::Leased(lease.send(command, options));
        }
        let reply = match &mut self.step {
            Step::Shared(pending) => ready!(Pin::new(pending).poll(cx)),
            Step::Leased(pending) => ready!(pending.as_mut().poll(cx)),
            // Polled again after it was ready: a future may do what it likes then, and waiting harms nobody.
            Step::Lease(..) | Step::Done => return Poll::Pending,
        };
        self.step = Step::Done;
        Poll::Ready(settle(self.command, reply))
    }
}

/// Turns what came back into the caller's type, in the caller's task.
pub(crate) fn settle<T: FromReply>(command: CommandName, reply: Result<Reply, Error>) -> Result<T, Error> {
    checked(command, reply)?.decode().map_err(|cause| Error::decode(cause, command))
}

/// Turns an error reply into an error: a `Frame` would take it for a value.
pub(crate) fn checked(command: CommandName, reply: Result<Reply, Error>) -> Result<Reply, Error> {
    let reply = reply?;
    match reply.error() {
        Some(error) => Err(Error::decode(DecodeError::Server(error), command)),
        None => Ok(reply),
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_protocol::Frame;

    use super::*;
    use crate::error::{ErrorKind, Executed};

    fn check<T: FromReply + PartialEq + fmt::Debug>(command: &str, wire: &'static [u8], expected: &T) {
        let name = CommandName::of(&Command::new(command));
        assert_eq!(&settle::<T>(name, Ok(Reply::new(wire.into()))).unwrap(), expected);
    }

    #[test]
    fn replies_become_what_was_asked_for() {
        check("GET", b"$5\r\nhello\r\n", &Some("hello".to_owned()));
        check("GET", b"_\r\n", &None::<String>);
        check("INCR", b":7\r\n", &7i64);
        check("SET", b"+OK\r\n", &true);
        check("SET", b"_\r\n", &false);
    }

    #[test]
    fn an_error_reply_is_an_error_whatever_was_asked_for() {
        let name = CommandName::of(&Command::new("LPUSH"));
        let reply = || Ok(Reply::new((&b"-WRONGTYPE no list\r\n"[..]).into()));
        for error in [settle::<Frame>(name, reply()).unwrap_err(), settle::<()>(name, reply()).unwrap_err()] {
            assert_eq!((error.kind(), error.executed()), (ErrorKind::Server, Executed::Yes));
            assert_eq!(error.to_string(), "the server answered LPUSH with WRONGTYPE no list");
        }
    }

    #[test]
    fn a_command_in_flight_costs_its_task_little() {
        // It is moved on its way into the task, and a hundred thousand of them at once are kept until they are answered.
        assert!(size_of::<Calling<'_, Vec<u8>>>() <= 232, "{}", size_of::<Calling<'_, Vec<u8>>>());
    }

    #[test]
    fn futures_can_be_spawned() {
        fn spawnable<T: Send + 'static>() {}
        fn sendable<T: Send>() {}
        spawnable::<Calling<'static, Vec<String>>>();
        sendable::<Call<'_, i64>>();
    }
}
