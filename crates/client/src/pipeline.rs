//! `Pipeline`: commands sent together, with a type for every reply.

use std::{
    fmt,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use evenkeel_protocol::{Command, FromReply, ToArg};

use crate::{
    call::Target,
    core::{CallOptions, PendingAll},
    error::{CommandName, Error},
    replies::{Append, Replies},
};

/// Commands sent together; each call appends one, and awaiting it gives their replies as one tuple.
///
/// ```no_run
/// # async fn run(client: &evenkeel_client::Client) -> Result<(), evenkeel_client::Error> {
/// let (a, b): (i64, Option<String>) = client.pipeline().incr("a").get("b").await?;
/// let (set, list) = client.pipeline().set("k", "v").ex(60).lpush("l", "x").each().await?;
/// assert!(set? && list.is_ok());
/// # let _ = (a, b);
/// # Ok(()) }
/// ```
///
/// Commands of one slot run in their order, without others between them being excluded: use a
/// [`Transaction`](crate::Transaction) for that. The first error is the pipeline's, with its
/// [`position`](Error::position); the commands behind it ran all the same. [`each`](Self::each) keeps them apart.
/// Up to 16 commands; [`Batch`](crate::Batch) takes any number.
///
/// # Cancel safety
/// As [`Call`](crate::Call): dropped before its first poll it sends nothing, later any of its commands may have run.
#[must_use = "a pipeline is sent when it is awaited"]
pub struct Pipeline<'a, R = (), K = ()> {
    target: Target<'a>,
    commands: Vec<Command>,
    options: CallOptions,
    replies: PhantomData<fn() -> (R, K)>,
}

impl<'a> Pipeline<'a> {
    pub(crate) fn new(target: Target<'a>) -> Self {
        Self { target, commands: Vec::new(), options: CallOptions::default(), replies: PhantomData }
    }
}

impl<'a, R, K> Pipeline<'a, R, K> {
    /// Appends a command made elsewhere.
    pub fn push<T: FromReply>(self, command: Command) -> Pipeline<'a, <R as Append<T>>::Out>
    where
        R: Append<T>,
    {
        self.then(command)
    }

    /// The pipeline's time in all. Default: the configuration's `command_timeout`, 10 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// Says that running all of it twice is as good as once. Default: only commands that read may be sent again.
    pub fn idempotent(mut self) -> Self {
        self.commands = self.commands.into_iter().map(Command::idempotent).collect();
        self
    }

    /// Keeps the results of the commands apart: awaiting it gives a tuple of `Result`s.
    pub fn each(self) -> EachPipeline<'a, R> {
        EachPipeline {
            target: self.target,
            commands: self.commands,
            options: self.options,
            replies: PhantomData,
        }
    }

    /// The commands as they will be sent.
    pub fn commands(&self) -> &[Command] {
        &self.commands
    }

    pub(crate) fn then<S, L>(mut self, command: Command) -> Pipeline<'a, S, L> {
        self.commands.push(command);
        self.typed()
    }

    pub(crate) fn amend(&mut self, arg: impl ToArg) {
        if let Some(command) = self.commands.last_mut() {
            arg.append_to(command);
        }
    }

    pub(crate) fn typed<S, L>(self) -> Pipeline<'a, S, L> {
        Pipeline { target: self.target, commands: self.commands, options: self.options, replies: PhantomData }
    }
}

impl<R, K> fmt::Debug for Pipeline<'_, R, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline").field("commands", &self.commands).finish_non_exhaustive()
    }
}

impl<'a, R: Replies, K> IntoFuture for Pipeline<'a, R, K> {
    type Output = Result<R, Error>;
    type IntoFuture = Piping<'a, Whole<R>>;

    fn into_future(self) -> Self::IntoFuture {
        Piping::new(self.target, self.commands, self.options)
    }
}

/// A [`Pipeline`] whose results are kept apart; awaiting it gives a tuple of `Result`s.
#[must_use = "a pipeline is sent when it is awaited"]
pub struct EachPipeline<'a, R> {
    target: Target<'a>,
    commands: Vec<Command>,
    options: CallOptions,
    replies: PhantomData<fn() -> R>,
}

impl<R> fmt::Debug for EachPipeline<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EachPipeline").field("commands", &self.commands).finish_non_exhaustive()
    }
}

impl<'a, R: Replies> IntoFuture for EachPipeline<'a, R> {
    type Output = Result<R::Each, Error>;
    type IntoFuture = Piping<'a, Each<R>>;

    fn into_future(self) -> Self::IntoFuture {
        Piping::new(self.target, self.commands, self.options)
    }
}

/// How the replies of a pipeline become its result.
pub trait Outcome: sealed::Outcome {}

pub(crate) mod sealed {
    use evenkeel_protocol::Reply;

    use crate::error::Error;

    #[expect(unnameable_types, reason = "sealed")]
    pub trait Outcome {
        type Output;

        fn of(names: &[&'static str], replies: Vec<Result<Reply, Error>>) -> Result<Self::Output, Error>;
    }
}

/// The first error is the pipeline's.
#[derive(Debug)]
pub struct Whole<R>(PhantomData<R>);

/// Each result for itself.
#[derive(Debug)]
pub struct Each<R>(PhantomData<R>);

impl<R: Replies> Outcome for Whole<R> {}

impl<R: Replies> sealed::Outcome for Whole<R> {
    type Output = R;

    fn of(names: &[&'static str], replies: Vec<Result<evenkeel_protocol::Reply, Error>>) -> Result<R, Error> {
        R::whole(names, replies)
    }
}

impl<R: Replies> Outcome for Each<R> {}

impl<R: Replies> sealed::Outcome for Each<R> {
    type Output = R::Each;

    fn of(
        names: &[&'static str],
        replies: Vec<Result<evenkeel_protocol::Reply, Error>>,
    ) -> Result<R::Each, Error> {
        Ok(R::each(names, replies))
    }
}

/// A pipeline that is awaited; it is sent when it is polled first.
#[must_use = "a pipeline is sent when it is awaited"]
pub struct Piping<'a, O> {
    step: Step<'a>,
    names: Vec<&'static str>,
    outcome: PhantomData<fn() -> O>,
}

/// ```text
/// Ready --first poll--> Sent --replies--> Done
/// ```
enum Step<'a> {
    Ready(Target<'a>, Vec<Command>, CallOptions),
    Sent(PendingAll),
    Done,
}

impl<'a, O> Piping<'a, O> {
    fn new(target: Target<'a>, commands: Vec<Command>, options: CallOptions) -> Self {
        let names = commands.iter().map(|command| CommandName::of(command).as_str()).collect();
        Self { step: Step::Ready(target, commands, options), names, outcome: PhantomData }
    }
}

impl<O> fmt::Debug for Piping<'_, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Piping").field("commands", &self.names).finish_non_exhaustive()
    }
}

impl<O: Outcome> Future for Piping<'_, O> {
    type Output = Result<<O as sealed::Outcome>::Output, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Step::Ready(_, commands, _) = &self.step {
            if commands.is_empty() {
                self.step = Step::Done;
                return Poll::Ready(O::of(&[], Vec::new()));
            }
            if let Step::Ready(target, commands, options) = std::mem::replace(&mut self.step, Step::Done) {
                self.step = Step::Sent(target.send_all(commands, options));
            }
        }
        let replies = match &mut self.step {
            Step::Sent(pending) => ready!(pending.as_mut().poll(cx)),
            // Polled again after it was ready.
            Step::Ready(..) | Step::Done => return Poll::Pending,
        };
        self.step = Step::Done;
        Poll::Ready(replies.and_then(|replies| O::of(&self.names, replies)))
    }
}
