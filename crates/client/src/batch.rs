//! `Batch`: commands sent together whose number is known at run time only.

use std::{pin::Pin, time::Duration};

use evenkeel_protocol::{Command, Reply};

use crate::{
    call::Target,
    core::CallOptions,
    error::{CommandName, Error},
};

/// Commands sent together; awaiting it gives a result for each, in order.
///
/// ```no_run
/// # async fn run(client: &evenkeel_client::Client) -> Result<(), evenkeel_client::Error> {
/// let mut batch = client.batch();
/// for user in 0..1000 {
///     batch.incr(format!("visits:{user}"));
/// }
/// for reply in batch.await? {
///     let visits: i64 = reply?.decode().unwrap_or(0);
/// #   let _ = visits;
/// }
/// # Ok(()) }
/// ```
///
/// # Cancel safety
/// As [`Pipeline`](crate::Pipeline).
#[derive(Debug)]
#[must_use = "a batch is sent when it is awaited"]
pub struct Batch<'a> {
    target: Target<'a>,
    commands: Vec<Command>,
    options: CallOptions,
}

impl<'a> Batch<'a> {
    pub(crate) fn new(target: Target<'a>) -> Self {
        Self { target, commands: Vec::new(), options: CallOptions::default() }
    }

    /// Appends a command made elsewhere.
    pub fn push(&mut self, command: Command) -> &mut Self {
        self.commands.push(command);
        self
    }

    /// The batch's time in all. Default: the configuration's `command_timeout`, 10 s.
    pub fn timeout(&mut self, timeout: Duration) -> &mut Self {
        self.options.timeout = Some(timeout);
        self
    }

    /// How many commands it holds.
    pub fn len(&self) -> usize {
        self.commands.len()
    }

    /// True when it holds none.
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// The commands as they will be sent.
    pub fn commands(&self) -> &[Command] {
        &self.commands
    }
}

impl<'a> IntoFuture for Batch<'a> {
    type Output = Result<Vec<Result<Reply, Error>>, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move {
            if self.commands.is_empty() {
                return Ok(Vec::new());
            }
            let names: Vec<CommandName> = self.commands.iter().map(CommandName::of).collect();
            let replies = self.target.send_all(self.commands, self.options).await?;
            let settled = replies.into_iter().enumerate().map(|(position, reply)| {
                let name = names.get(position).copied().unwrap_or(CommandName::UNKNOWN);
                crate::call::checked(|| name, reply).map_err(|error| error.in_pipeline(position))
            });
            Ok(settled.collect())
        })
    }
}
