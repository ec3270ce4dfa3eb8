//! `Pending`: one command on its way; the short path without a detour, the long one for refusals and leases.

use std::{
    borrow::Borrow,
    fmt,
    ops::Deref,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use evenkeel_pool::{Failure, Lane, LaneCall, Outcome};
use evenkeel_protocol::{Command, Reply, Slot, command::LaneRefusal};
use tokio::time::Sleep;

use super::{CallOptions, Core, failure, fence::Stood, node::Node, reads, retry, route::Routes, spread};
use crate::{
    config::ReadPolicy,
    error::{CommandName, Error, Executed, Phase},
};

type Slow = Pin<Box<dyn Future<Output = Result<Reply, Error>> + Send>>;

/// The node that serves a command: the client's only one is borrowed, one of a cluster's may leave the map meanwhile.
enum NodeRef<'a> {
    Only(&'a Arc<Node>),
    Routed(Arc<Node>),
}

impl Deref for NodeRef<'_> {
    type Target = Arc<Node>;

    fn deref(&self) -> &Arc<Node> {
        match self {
            Self::Only(node) => node,
            Self::Routed(node) => node,
        }
    }
}

/// Where a command stands: its node, and which of the node's lanes.
struct Place<'a> {
    node: NodeRef<'a>,
    lane: u32,
}

impl Borrow<Lane> for Place<'_> {
    fn borrow(&self) -> &Lane {
        self.node.lane_at(self.lane)
    }
}

/// A duration in half of the room: it stands in the future of every command.
#[derive(Clone, Copy, Debug)]
struct Nanos(u64);

impl Nanos {
    /// More than 584 years are as good as 584.
    fn of(duration: Duration) -> Self {
        Self(
            duration
                .as_secs()
                .saturating_mul(1_000_000_000)
                .saturating_add(u64::from(duration.subsec_nanos())),
        )
    }

    fn get(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    fn millis(self) -> u64 {
        self.0 / 1_000_000
    }
}

/// ```text
/// Start --placed in a lane--> Lane --reply--> Done
///   |                           |  refusal, or the lane is closed
///   +--blocking, no owner-----> Slow --result--> Done
/// ```
enum State<'a> {
    Start,
    Lane(LaneCall<Place<'a>>),
    Slow(Slow),
    Done,
}

/// One command on its way. Nothing is sent before the first poll.
pub(crate) struct Pending<'a> {
    core: &'a Arc<Core>,
    /// What is left of it once it goes the long way is its name.
    command: Command,
    timeout: Nanos,
    /// The caller set the time: it is kept to the millisecond, not to the lane's tick.
    exact: bool,
    read_policy: Option<ReadPolicy>,
    state: State<'a>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl fmt::Debug for Pending<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("command", &self.command).finish_non_exhaustive()
    }
}

impl<'a> Pending<'a> {
    pub(crate) fn new(core: &'a Arc<Core>, command: Command, options: CallOptions) -> Self {
        let timeout = options.timeout.unwrap_or_else(|| core.config().command_timeout());
        Self {
            core,
            command,
            timeout: Nanos::of(timeout),
            exact: options.timeout.is_some(),
            read_policy: options.read_policy,
            state: State::Start,
            timer: None,
        }
    }

    /// Changes what is to be sent and how, before the first poll.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Command, &mut CallOptions)) {
        if !matches!(self.state, State::Start) {
            return;
        }
        let mut options =
            CallOptions { timeout: self.exact.then_some(self.timeout.get()), read_policy: self.read_policy };
        change(&mut self.command, &mut options);
        self.read_policy = options.read_policy;
        if let Some(timeout) = options.timeout {
            (self.timeout, self.exact) = (Nanos::of(timeout), true);
        }
    }

    /// The command, as long as nothing of it is on its way.
    pub(crate) fn unsent(&self) -> Option<&Command> {
        matches!(self.state, State::Start).then_some(&self.command)
    }

    pub(crate) fn name(&self) -> CommandName {
        CommandName::of(&self.command)
    }

    /// Chooses the way, and the routes of a cluster by which that was done; `Err` ends the command before a byte is written.
    #[cold]
    #[inline(never)]
    fn start(&mut self) -> Result<(State<'a>, Option<Arc<Routes>>), Error> {
        let command = &self.command;
        if let Some(refusal) = LaneRefusal::of(command) {
            return Err(Error::misused(refusal));
        }
        let spread = match self.core.only() {
            Some(_) => None,
            None => spread::spread(&self.core.routes(), command)?,
        };
        if let Some(spread) = spread {
            let timeout = self.exact.then_some(self.timeout.get());
            let options = CallOptions { timeout, read_policy: self.read_policy };
            let way = self.slow(move |core, command, _timeout| spread::send(core, command, options, spread));
            return Ok((way, None));
        }
        if command.is_blocking() {
            return Ok((self.slow(retry::waiting), None));
        }
        if let Some(plan) = reads::policy(self.core, command, self.read_policy) {
            let way = self.slow(move |core, command, timeout| reads::send(core, command, timeout, plan));
            return Ok((way, None));
        }
        if let Some(node) = self.core.only() {
            let lane = if node.has_one_lane() { 0 } else { node.lane_for(command.slot()) };
            let place = Place { node: NodeRef::Only(node), lane };
            return Ok((State::Lane(LaneCall::of_millis(place, self.timeout.millis())), None));
        }
        let routes = self.core.routes();
        let slot = || command.slot().map(Slot::number);
        if routes.is_cluster() && (command.is_script() || self.core.fences.stands(slot)) {
            drop(routes);
            return Ok((self.slow(retry::unrouted), None));
        }
        let Some(node) = routes.node(command) else {
            drop(routes);
            return Ok((self.slow(retry::unrouted), None));
        };
        let lane = if node.has_one_lane() { 0 } else { node.lane_for(command.slot()) };
        let place = Place { node: NodeRef::Routed(Arc::clone(node)), lane };
        let chosen_by = routes.is_cluster().then(|| Arc::clone(&routes));
        Ok((State::Lane(LaneCall::of_millis(place, self.timeout.millis())), chosen_by))
    }

    fn slow<F>(&mut self, way: impl FnOnce(Arc<Core>, Command, Duration) -> F) -> State<'a>
    where
        F: Future<Output = Result<Reply, Error>> + Send + 'static,
    {
        State::Slow(Box::pin(way(Arc::clone(self.core), self.command.take(), self.timeout.get())))
    }

    fn settle(&mut self, node: &Arc<Node>, outcome: Outcome) -> Option<Result<Reply, Error>> {
        let command = &self.command;
        match outcome {
            Outcome::Reply(reply) => {
                let Some(error) = reply.error() else { return Some(Ok(reply)) };
                let at = node.endpoint();
                if !retry::is_worth_it(self.core, command, &error) {
                    return Some(Err(Error::server(error, command, at)));
                }
                let node = Arc::clone(node);
                let stood = self.stood(&node);
                self.state = self.slow(move |core, command, timeout| {
                    retry::refused(core, command, timeout, &node, error, stood)
                });
                None
            }
            Outcome::Failed(failure) => {
                let State::Lane(call) = &self.state else { return Some(Err(Error::closed(Executed::No))) };
                let lane = node.lane_at(call.lane().lane);
                if retry::is_rerouted(self.core, node, failure) {
                    let stood = self.stood(node);
                    self.state = self
                        .slow(move |core, command, timeout| retry::given_back(core, command, timeout, stood));
                    return None;
                }
                Some(Err(failure::command(failure, lane, self.timeout.get(), self.core.config())))
            }
            _ => Some(Err(Error::closed(Executed::Maybe))),
        }
    }

    /// Where the command had stood; until it has lined up anew, nobody of its slot passes it.
    fn stood(&mut self, node: &Node) -> Option<Stood> {
        let State::Lane(call) = &mut self.state else { return None };
        Stood::at(node, &self.command, call.place(), call.keep())
    }

    /// Keeps the caller's time, and the time in the line for room, which no lane keeps.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Option<Error> {
        let State::Lane(call) = &mut self.state else { return None };
        if !self.exact && !call.waits_for_room() {
            return None;
        }
        let node = Arc::clone(&call.lane().node);
        let timeout = self.timeout.get();
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        if timer.as_mut().poll(cx).is_pending() {
            return None;
        }
        let at = node.endpoint();
        if call.waits_for_room() {
            return Some(Error::overloaded("the queue of the connection", None));
        }
        // Inside a window of announced maintenance a timeout has a floor.
        let floor = node.lanes().iter().filter_map(Lane::floor).max();
        if let Some(floor) = floor.filter(|floor| *floor > timeout) {
            let longer = floor.saturating_sub(timeout);
            self.timeout = Nanos::of(floor);
            let mut timer = Box::pin(tokio::time::sleep(longer));
            let pending = timer.as_mut().poll(cx).is_pending();
            self.timer = Some(timer);
            if pending {
                return None;
            }
        }
        // What can be taken back was never written whole: the truth is better than a doubt.
        if call.withdraw() {
            let lane = call.lane().borrow();
            let unsent = Failure::TimedOutUnsent;
            return Some(failure::command(unsent, lane, self.timeout.get(), self.core.config()));
        }
        let error = Error::timeout(Phase::Reply, self.timeout.get(), at, Executed::Maybe);
        Some(error.during(node.maintenance()))
    }
}

/// Whether a look inside is needed: an error, or attributes in front of what may be one.
fn may_be_error(reply: &Reply) -> bool {
    matches!(reply.as_bytes().first(), Some(b'-' | b'!' | b'|'))
}

impl Pending<'_> {
    /// The way of nearly every command: known, to the only node there is, and of no interest to a replica.
    #[inline]
    fn begin(&mut self) -> Result<Option<Arc<Routes>>, Error> {
        let (state, chosen_by) = match self.core.only() {
            Some(node) if self.command.is_plain() && reads::to_primary(self.core, self.read_policy) => {
                let lane = if node.has_one_lane() { 0 } else { node.lane_for(self.command.slot()) };
                let place = Place { node: NodeRef::Only(node), lane };
                (State::Lane(LaneCall::of_millis(place, self.timeout.millis())), None)
            }
            _ => self.start().inspect_err(|_error| self.state = State::Done)?,
        };
        // Nothing stands there whose end would have to be called.
        match std::mem::replace(&mut self.state, state) {
            State::Start => {}
            other => drop(other),
        }
        Ok(chosen_by)
    }

    /// From wherever it stands; `told` is what the lane has just said, and `chosen_by` the routes that led there in this
    /// very poll.
    #[cold]
    #[inline(never)]
    fn go_on(
        &mut self,
        mut told: Option<Poll<Outcome>>,
        mut chosen_by: Option<Arc<Routes>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Reply, Error>> {
        loop {
            match &mut self.state {
                State::Start => chosen_by = self.begin()?,
                State::Lane(call) => {
                    let command = &self.command;
                    match told.take().unwrap_or_else(|| call.poll(command, cx)) {
                        Poll::Pending => {
                            if let Some(routes) = chosen_by {
                                self.core.check_order(command, &call.lane().node, &routes);
                            }
                            if let Some(error) = self.poll_timer(cx) {
                                self.state = State::Done;
                                return Poll::Ready(Err(error));
                            }
                            return Poll::Pending;
                        }
                        // It goes again at its old place: the next poll does that.
                        Poll::Ready(Outcome::MayResend) => {}
                        Poll::Ready(Outcome::Reply(reply)) if !may_be_error(&reply) => {
                            self.state = State::Done;
                            return Poll::Ready(Ok(reply));
                        }
                        Poll::Ready(outcome) => {
                            let node = Arc::clone(&call.lane().node);
                            if let Some(result) = self.settle(&node, outcome) {
                                self.state = State::Done;
                                return Poll::Ready(result);
                            }
                        }
                    }
                }
                State::Slow(slow) => {
                    let result = std::task::ready!(slow.as_mut().poll(cx));
                    self.state = State::Done;
                    return Poll::Ready(result);
                }
                State::Done => return Poll::Ready(Err(Error::closed(Executed::No))),
            }
        }
    }
}

impl Future for Pending<'_> {
    type Output = Result<Reply, Error>;

    /// Only what every command does; the rest stands apart, so that it costs those nothing which do not need it.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let State::Lane(call) = &mut this.state {
            return match call.take_reply() {
                Some(reply) if !may_be_error(&reply) => {
                    if let State::Lane(spent) = std::mem::replace(&mut this.state, State::Done) {
                        drop(spent);
                    }
                    Poll::Ready(Ok(reply))
                }
                Some(reply) => this.go_on(Some(Poll::Ready(Outcome::Reply(reply))), None, cx),
                None => this.go_on(None, None, cx),
            };
        }
        let chosen_by = if matches!(this.state, State::Start) { this.begin()? } else { None };
        let State::Lane(call) = &mut this.state else { return this.go_on(None, chosen_by, cx) };
        match call.poll(&this.command, cx) {
            Poll::Pending if !this.exact && chosen_by.is_none() && !call.waits_for_room() => Poll::Pending,
            told => this.go_on(Some(told), chosen_by, cx),
        }
    }
}
