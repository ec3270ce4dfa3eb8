//! A lease as the surface sees it: a connection of one caller's own.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use evenkeel_pool::{Failure, Lane, Lease as PoolLease, Outcome};
use evenkeel_protocol::{Command, Reply, ServerError, command::LaneRefusal};

use super::{CallOptions, Core, PendingAll, PendingExec, blocking, clock, failure, retry};
use crate::error::{Error, Executed};

/// The reply to one command of a lease.
pub(crate) type PendingLeased = std::pin::Pin<Box<dyn Future<Output = Result<Reply, Error>> + Send>>;

/// Whether commands may go again on the connection when a server that is not ready refused them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    /// Each for itself: when all were refused, none ran.
    Each,
    Never,
    /// MULTI, commands, EXEC: one that was refused aborts them all.
    Transaction,
}

impl Again {
    /// The refusal that shows that nothing of a unit ran.
    fn refused(self, core: &Core, commands: &[Command], replies: &[Reply]) -> Option<ServerError> {
        match self {
            Self::Never => None,
            Self::Each => retry::all_refused(core, commands, replies),
            Self::Transaction => {
                // Without MULTI they would have run one by one.
                let begun = replies.first().is_some_and(|multi| multi.error().is_none());
                let exec = replies.last().and_then(Reply::error).filter(|_| begun)?;
                let queued = replies.iter().take(commands.len() - 1).find_map(Reply::error);
                Some(queued.unwrap_or(exec)).filter(|error| retry::is_passing(core, error))
            }
        }
    }
}

/// A connection of one's own.
pub(crate) struct Lease {
    core: Arc<Core>,
    /// The connection goes back when the lease is dropped.
    held: PoolLease,
    /// State that nothing ends (`SELECT`, `SUBSCRIBE`, ...): the connection is never moved again.
    bound: AtomicBool,
    /// Commands are queued until EXEC: one that was refused has doomed them all, whatever comes behind it.
    queueing: AtomicBool,
    /// Keys are watched until EXEC.
    watching: AtomicBool,
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("lane", self.lane()).finish_non_exhaustive()
    }
}

impl Lease {
    pub(crate) fn new(core: Arc<Core>, lease: PoolLease) -> Self {
        let not_yet = || AtomicBool::new(false);
        Self { core, held: lease, bound: not_yet(), queueing: not_yet(), watching: not_yet() }
    }

    fn lane(&self) -> &Lane {
        self.held.lane()
    }

    fn patience(&self, commands: &[Command], options: CallOptions) -> Duration {
        let timeout = options.timeout.unwrap_or_else(|| self.core.config().command_timeout());
        // A command that blocks for ever is given a month, which is as good.
        let month = Duration::from_secs(30 * 24 * 3600);
        let waits = commands.iter().filter_map(Command::blocks_for).map(|waits| waits.unwrap_or(month));
        waits.fold(timeout, Duration::saturating_add)
    }

    fn again(&self) -> Again {
        if self.queueing.load(Ordering::Relaxed) { Again::Never } else { Again::Each }
    }

    /// Sends commands that belong together, again as a whole while the server refuses every one of them because it is
    /// not ready, if they may go again.
    async fn unit(
        core: Arc<Core>,
        lane: Lane,
        commands: Vec<Command>,
        patience: Duration,
        again: Again,
    ) -> Result<Vec<Reply>, Error> {
        let deadline = clock::now() + patience;
        let mut waits = 0;
        loop {
            let left = deadline.saturating_duration_since(clock::now());
            let replies = Self::unit_once(&core, &lane, &commands, left, patience).await?;
            let Some(error) = again.refused(&core, &commands, &replies) else { return Ok(replies) };
            if !retry::sit_out(&core, &lane.endpoint(), &error, deadline, &mut waits).await {
                return Ok(replies);
            }
        }
    }

    async fn unit_once(
        core: &Arc<Core>,
        lane: &Lane,
        commands: &[Command],
        left: Duration,
        patience: Duration,
    ) -> Result<Vec<Reply>, Error> {
        let outcome = match commands {
            [only] if only.is_blocking() => blocking::request(core, lane, only, left).await,
            _ => lane.request_unit(commands, left).await,
        };
        match outcome {
            Outcome::Reply(reply) => Ok(vec![reply]),
            Outcome::Replies(replies) => Ok(replies),
            // The connection had ended before: the client has not.
            Outcome::Failed(Failure::Closed) if !core.is_closed() => {
                Err(Error::lost(lane.endpoint(), Executed::No, None))
            }
            Outcome::Failed(failure) => Err(failure::command(failure, lane, patience, core.config())),
            // A connection that was lost is not the same connection any more: its state is gone.
            _ => Err(Error::lost(lane.endpoint(), Executed::Maybe, None)),
        }
    }

    /// State of the caller's stays on the connection: it is closed afterwards, and while the state is there it is not
    /// moved. Gives true when these commands end what only a transaction needs.
    fn mark(&self, commands: &[Command]) -> bool {
        let mut ends = false;
        for command in commands {
            let Some(refusal) = LaneRefusal::of(command) else { continue };
            self.held.mark_dirty();
            match refusal.command {
                name @ ("DISCARD" | "EXEC" | "UNWATCH") => {
                    ends = true;
                    self.watching.store(false, Ordering::Relaxed);
                    if name != "UNWATCH" {
                        self.queueing.store(false, Ordering::Relaxed);
                    }
                }
                name @ ("MULTI" | "WATCH") => {
                    ends = false;
                    let begun = if name == "MULTI" { &self.queueing } else { &self.watching };
                    begun.store(true, Ordering::Relaxed);
                    self.lane().pin(true);
                }
                _ => {
                    self.bound.store(true, Ordering::Relaxed);
                    self.lane().pin(true);
                }
            }
        }
        ends && !self.bound.load(Ordering::Relaxed)
    }

    pub(crate) fn send(&self, command: Command, options: CallOptions) -> PendingLeased {
        let ends = command.name().eq_ignore_ascii_case("UNWATCH") && !self.bound.load(Ordering::Relaxed);
        let commands = vec![command];
        let again = self.again();
        let ends = self.mark(&commands) || ends;
        let patience = self.patience(&commands, options);
        let (core, lane) = (Arc::clone(&self.core), self.lane().clone());
        Box::pin(async move {
            let first = commands.first().cloned();
            let replies = Self::unit(core, lane.clone(), commands, patience, again).await?;
            if ends {
                lane.pin(false);
            }
            let reply = replies.into_iter().next().ok_or_else(|| Error::closed(Executed::Maybe))?;
            match (reply.error(), first) {
                (Some(error), Some(command)) => Err(Error::server(error, &command, Some(lane.endpoint()))),
                _ => Ok(reply),
            }
        })
    }

    pub(crate) fn send_all(&self, commands: Vec<Command>, options: CallOptions) -> PendingAll {
        let again = self.again();
        let ends = self.mark(&commands);
        let patience = self.patience(&commands, options);
        let (core, lane) = (Arc::clone(&self.core), self.lane().clone());
        Box::pin(async move {
            if commands.is_empty() {
                return Ok(Vec::new());
            }
            let replies = Self::unit(core, lane.clone(), commands.clone(), patience, again).await?;
            if ends {
                lane.pin(false);
            }
            Ok(commands
                .iter()
                .zip(replies)
                .map(|(command, reply)| match reply.error() {
                    None => Ok(reply),
                    Some(error) => Err(Error::server(error, command, Some(lane.endpoint()))),
                })
                .collect())
        })
    }

    pub(crate) fn transaction(&self, commands: Vec<Command>, options: CallOptions) -> PendingExec {
        let patience = self.patience(&commands, options);
        let (core, lane) = (Arc::clone(&self.core), self.lane().clone());
        let bound = self.bound.load(Ordering::Relaxed);
        // An EXEC that was aborted has ended WATCH as well: the same commands would run unwatched.
        let watched = self.watching.swap(false, Ordering::Relaxed);
        let again = if watched { Again::Never } else { Again::Transaction };
        // EXEC ends WATCH and MULTI alike: nothing of the caller's is left by it.
        Box::pin(async move {
            let mut unit = Vec::with_capacity(commands.len() + 2);
            unit.push(Command::new("MULTI"));
            unit.extend(commands);
            unit.push(Command::new("EXEC"));
            let replies = Self::unit(core, lane.clone(), unit.clone(), patience, again).await?;
            lane.pin(bound);
            let mut queued = unit.iter().zip(&replies).enumerate().take(unit.len() - 1);
            let refused = queued
                .find_map(|(place, (command, reply))| reply.error().map(|error| (place, command, error)));
            let exec = replies.last().cloned().ok_or_else(|| Error::closed(Executed::Maybe))?;
            match (exec.error(), refused) {
                (None, _) => Ok(exec),
                (Some(_), Some((place, command, error))) => {
                    // MULTI stands before the caller's first command.
                    Err(Error::not_queued(error, command, place.saturating_sub(1), Some(lane.endpoint())))
                }
                (Some(error), None) => {
                    Err(Error::server(error, &Command::new("EXEC"), Some(lane.endpoint())))
                }
            }
        })
    }
}
