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
    step: Step<'a>,
    reply: PhantomData<fn() -> (T, K)>,
}

/// A command is put together where it stays until it is answered: its bytes are not moved about on the way.
///
/// ```text
/// Lease --first poll--> Leased --reply--> Done
/// Shared ----------------------- reply--> Done
/// ```
enum Step<'a> {
    Lease(&'a core::Lease, Command, CallOptions),
    Leased(CommandName, core::PendingLeased),
    /// Sends nothing before its first poll.
    Shared(core::Pending<'a>),
    Done,
}

impl<'a, T, K> Call<'a, T, K> {
    #[inline]
    pub(crate) fn new(target: Target<'a>, command: Command) -> Self {
        let step = match target {
            Target::Lease(lease) => Step::Lease(lease, command, CallOptions::default()),
            Target::Shared(core) => Step::Shared(core::Pending::new(core, command, CallOptions::default())),
        };
        Self { step, reply: PhantomData }
    }

    fn change(&mut self, change: impl FnOnce(&mut Command, &mut CallOptions)) {
        match &mut self.step {
            Step::Lease(_, command, options) => change(command, options),
            Step::Shared(pending) => pending.change(change),
            Step::Leased(..) | Step::Done => {}
        }
    }

    /// The command's time in all: waiting, sending, redirections and failovers included.
    ///
    /// Default: the configuration's `command_timeout`, 10 s. A command that blocks on the server has that wait on top.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.change(|_, options| options.timeout = Some(timeout));
        self
    }

    /// Says that twice is as good as once, so that the command may be sent again when its fate is unknown.
    ///
    /// Default: only commands that read are.
    pub fn idempotent(mut self) -> Self {
        self.change(|command, _| command.set_idempotent());
        self
    }

    /// Where this read goes. Default: as configured. A command that writes goes to the primary all the same.
    pub fn read_policy(mut self, policy: ReadPolicy) -> Self {
        self.change(|_, options| options.read_policy = Some(policy));
        self
    }

    /// The command as it will be sent; `None` once it is on its way.
    pub fn command(&self) -> Option<&Command> {
        match &self.step {
            Step::Lease(_, command, _) => Some(command),
            Step::Shared(pending) => pending.unsent(),
            Step::Leased(..) | Step::Done => None,
        }
    }

    /// Asks for the reply as another type.
    pub fn query<U: FromReply>(self) -> Call<'a, U> {
        self.typed()
    }

    pub(crate) fn amend(&mut self, arg: impl ToArg) {
        self.change(|command, _| arg.append_to(command));
    }

    pub(crate) fn typed<U, L>(self) -> Call<'a, U, L> {
        Call { step: self.step, reply: PhantomData }
    }
}

/// How it reads while it is put together.
impl<T, K> fmt::Debug for Call<'_, T, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Call");
        match &self.step {
            Step::Lease(_, command, options) => shown.field("command", command).field("options", options),
            Step::Shared(pending) => shown.field("pending", pending),
            Step::Leased(command, _) => shown.field("command", command),
            Step::Done => shown.field("done", &true),
        };
        shown.finish()
    }
}

/// It is sent when it is polled first, so commands run in the order of their first polls.
impl<T: FromReply, K> Future for Call<'_, T, K> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let result = match &mut self.step {
                Step::Shared(pending) => {
                    let reply = ready!(Pin::new(&mut *pending).poll(cx));
                    settle(|| pending.name(), reply)
                }
                Step::Leased(command, pending) => settle(|| *command, ready!(pending.as_mut().poll(cx))),
                Step::Lease(..) => {
                    if let Step::Lease(lease, command, options) =
                        std::mem::replace(&mut self.step, Step::Done)
                    {
                        self.step = Step::Leased(CommandName::of(&command), lease.send(command, options));
                    }
                    continue;
                }
                // Polled again after it was ready: a future may do what it likes then, and waiting harms nobody.
                Step::Done => return Poll::Pending,
            };
            self.step = Step::Done;
            return Poll::Ready(result);
        }
    }
}

/// Turns what came back into the caller's type, in the caller's task.
pub(crate) fn settle<T: FromReply>(
    command: impl Fn() -> CommandName,
    reply: Result<Reply, Error>,
) -> Result<T, Error> {
    checked(&command, reply)?.decode().map_err(|cause| Error::decode(cause, command()))
}

/// Turns an error reply into an error: a `Frame` would take it for a value.
pub(crate) fn checked(
    command: impl Fn() -> CommandName,
    reply: Result<Reply, Error>,
) -> Result<Reply, Error> {
    let reply = reply?;
    match reply.error() {
        Some(error) => Err(Error::decode(DecodeError::Server(error), command())),
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
        assert_eq!(&settle::<T>(|| name, Ok(Reply::new(wire.into()))).unwrap(), expected);
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
        for error in
            [settle::<Frame>(|| name, reply()).unwrap_err(), settle::<()>(|| name, reply()).unwrap_err()]
        {
            assert_eq!((error.kind(), error.executed()), (ErrorKind::Server, Executed::Yes));
            assert_eq!(error.to_string(), "the server answered LPUSH with WRONGTYPE no list");
        }
    }

    #[test]
    fn a_command_in_flight_costs_its_task_little() {
        // It is moved on its way into the task, and a hundred thousand of them at once are kept until they are answered.
        assert!(size_of::<Call<'_, Vec<u8>>>() <= 192, "{}", size_of::<Call<'_, Vec<u8>>>());
    }

    #[test]
    fn futures_can_be_spawned() {
        fn spawnable<T: Send + 'static>() {}
        fn sendable<T: Send>() {}
        spawnable::<Call<'static, Vec<String>>>();
        sendable::<Call<'_, i64>>();
    }
}
