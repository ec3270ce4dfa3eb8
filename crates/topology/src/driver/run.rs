//! The loop.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use evenkeel_protocol::{Endpoint, Machine, Slot};
use tokio::{
    sync::{mpsc, oneshot},
    task::{AbortHandle, Id, JoinHandle, JoinSet},
};

use super::{
    ask::{Ask, EventSink},
    clock,
    outbox::{Outbox, TopologyEvent},
    publish::{TopologyPublisher, TopologyReader, publisher},
    questions::Question,
};
use crate::{
    diff::diff,
    error::AskFailure,
    machine::{Action, Complaint, Input},
};

/// Observations that wait for the resolver. They are small, and a resolver needs microseconds for each.
const MAX_INPUTS: usize = 1024;
/// Events that wait for the client, beyond those in the outbox.
const MAX_EVENTS: usize = 64;

/// How a resolver is run.
#[derive(Clone, Debug)]
pub struct DriverConfig {
    name: String,
    tls: bool,
    ask_timeout: Duration,
}

impl Default for DriverConfig {
    fn default() -> Self {
        Self { name: String::new(), tls: false, ask_timeout: Duration::from_secs(1) }
    }
}

impl DriverConfig {
    /// The name under which sentinels know the primary. Default: empty, for resolvers without sentinels.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Whether data nodes are dialled with TLS: it decides which of a cluster node's ports is meant. Default: false.
    #[must_use]
    pub fn tls(mut self, tls: bool) -> Self {
        self.tls = tls;
        self
    }

    /// How long a question may take, dialling included. Default: 1 s.
    ///
    /// Nothing waits for one slow node as long as another answers, so it may be generous; much shorter than the network's round trip
    /// for dialling and TLS, and nobody is ever heard.
    #[must_use]
    pub fn ask_timeout(mut self, timeout: Duration) -> Self {
        self.ask_timeout = timeout;
        self
    }
}

/// A running resolver. It ends when this is dropped.
#[derive(Debug)]
pub struct ResolverHandle {
    reader: TopologyReader,
    reporter: Reporter,
    stop: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<()>>,
}

impl ResolverHandle {
    /// The snapshots.
    pub fn reader(&self) -> &TopologyReader {
        &self.reader
    }

    /// What to tell the resolver through; cheap to clone, and it keeps nothing alive.
    pub fn reporter(&self) -> &Reporter {
        &self.reporter
    }

    /// Ends the resolver and waits until its task, its questions and its watches are gone.
    ///
    /// # Cancel safety
    /// The resolver ends all the same.
    pub async fn shutdown(mut self) {
        self.stop.take();
        if let Some(task) = self.task.take()
            && let Err(error) = task.await
        {
            tracing::error!(target: "evenkeel::topology", %error, "the resolver's task ended by itself");
        }
    }
}

/// Tells a resolver what the client's connections see. It never waits.
///
/// When the resolver has many observations to read, further ones are left out: each of them comes again with the next command
/// that meets the same trouble.
#[derive(Clone, Debug)]
pub struct Reporter(mpsc::Sender<Input>);

impl Reporter {
    /// A connection to a data node was lost, or could not be made.
    pub fn connection_lost(&self, endpoint: Endpoint) {
        self.tell(Input::ConnectionLost { endpoint });
    }

    /// A data node refused a command.
    pub fn refused(&self, endpoint: Endpoint, complaint: Complaint) {
        self.tell(Input::Refused { endpoint, complaint });
    }

    /// A command was answered with `MOVED`; `target` is resolved against the node that answered.
    pub fn moved(&self, slot: Slot, target: Endpoint) {
        self.tell(Input::Moved { slot, target });
    }

    /// Runs of slots are announced to have moved (`SMIGRATED`): first slot, last slot, new owner.
    pub fn slots_moved(&self, moves: Vec<(u16, u16, Endpoint)>) {
        self.tell(Input::SlotsMoved { moves });
    }

    fn tell(&self, input: Input) {
        if let Err(error) = self.0.try_send(input) {
            tracing::trace!(target: "evenkeel::topology", %error, "an observation was left out");
        }
    }
}

/// Starts a task that runs the machine which `start` makes of the present moment.
///
/// Gives the handle and what the client is to be told. A client that does not read its events loses the oldest reports, never
/// the last hold or release.
///
/// # Panics
/// Outside a tokio runtime.
pub fn spawn<M, A>(
    start: impl FnOnce(Instant) -> M,
    asker: A,
    config: DriverConfig,
) -> (ResolverHandle, mpsc::Receiver<TopologyEvent>)
where
    M: Machine<Input = Input, Action = Action> + Send + 'static,
    A: Ask,
{
    let (publisher, reader) = publisher();
    let (reports_tx, reports) = mpsc::channel(MAX_INPUTS);
    let (inputs_tx, inputs) = mpsc::channel(MAX_INPUTS);
    let (events_tx, events) = mpsc::channel(MAX_EVENTS);
    let (stop_tx, stop) = oneshot::channel();
    let driver = Driver {
        machine: start(clock::now()),
        asker: Arc::new(asker),
        config,
        publisher,
        outbox: Outbox::default(),
        inputs_tx,
        questions: JoinSet::new(),
        asked: HashMap::new(),
        watches: JoinSet::new(),
        watched: BTreeMap::new(),
    };
    let task = tokio::spawn(driver.run(reports, inputs, events_tx, stop));
    let handle =
        ResolverHandle { reader, reporter: Reporter(reports_tx), stop: Some(stop_tx), task: Some(task) };
    (handle, events)
}

struct Driver<M, A> {
    machine: M,
    asker: Arc<A>,
    config: DriverConfig,
    publisher: TopologyPublisher,
    outbox: Outbox,
    inputs_tx: mpsc::Sender<Input>,
    questions: JoinSet<Input>,
    /// The questions that are being asked, for the case that a task panics: no question goes without an answer.
    asked: HashMap<Id, Question>,
    watches: JoinSet<Endpoint>,
    watched: BTreeMap<Endpoint, AbortHandle>,
}

impl<M, A> Driver<M, A>
where
    M: Machine<Input = Input, Action = Action> + Send + 'static,
    A: Ask,
{
    async fn run(
        mut self,
        mut reports: mpsc::Receiver<Input>,
        mut inputs: mpsc::Receiver<Input>,
        events: mpsc::Sender<TopologyEvent>,
        mut stop: oneshot::Receiver<()>,
    ) {
        loop {
            while let Some(action) = self.machine.poll_action() {
                self.perform(action);
            }
            let deadline = self.machine.poll_timeout();
            if deadline.is_some_and(|deadline| deadline <= clock::now()) {
                // Checked here and not only below, so that a stream of observations cannot keep a timer waiting.
                self.machine.handle_timeout(clock::now());
                continue;
            }
            let input = tokio::select! {
                // The end first; then answers and events, which are few; then what many connections report.
                biased;
                _ = &mut stop => return,
                permit = events.reserve(), if !self.outbox.is_empty() => {
                    match (permit, self.outbox.pop()) {
                        (Ok(permit), Some(event)) => permit.send(event),
                        // Nobody listens; snapshots are published all the same.
                        (Err(_), _) => self.outbox = Outbox::default(),
                        (Ok(_), None) => {}
                    }
                    None
                }
                Some(answer) = self.questions.join_next_with_id(), if !self.questions.is_empty() => self.answer(answer),
                Some(input) = inputs.recv() => Some(input),
                Some(ended) = self.watches.join_next(), if !self.watches.is_empty() => self.unwatched(ended),
                Some(report) = reports.recv() => Some(report),
                () = clock::sleep_until(deadline) => None,
            };
            if let Some(input) = input {
                self.machine.handle_input(clock::now(), input);
            }
        }
    }

    fn perform(&mut self, action: Action) {
        let action = match Question::of(action) {
            Ok(question) => return self.ask(question),
            Err(action) => action,
        };
        let event = match action {
            Action::WatchSentinel { sentinel } => return self.watch(sentinel),
            Action::UnwatchSentinel { sentinel } => {
                if let Some(watch) = self.watched.remove(&sentinel) {
                    watch.abort();
                }
                return;
            }
            Action::Publish(next) => {
                let changes = diff(&self.publisher.load(), &next);
                self.publisher.publish(next);
                if changes.is_empty() {
                    return;
                }
                TopologyEvent::Changed(changes)
            }
            Action::HoldWrites { until } => TopologyEvent::HoldWrites { until },
            Action::PrimaryChanged { from, to, epoch, from_is_down } => {
                TopologyEvent::PrimaryChanged { from, to, epoch, from_is_down }
            }
            Action::Release { primary } => TopologyEvent::Release { primary },
            Action::Report(report) => {
                tracing::debug!(target: "evenkeel::topology", ?report);
                TopologyEvent::Report(report)
            }
            Action::Unresolved(error) => {
                tracing::debug!(target: "evenkeel::topology", %error, "nothing usable found");
                TopologyEvent::Unresolved(error)
            }
            Action::AskKind { .. }
            | Action::AskRole { .. }
            | Action::AskSentinel { .. }
            | Action::AskView { .. } => return,
        };
        self.outbox.push(event);
    }

    fn ask(&mut self, question: Question) {
        let (asker, timeout, tls) = (Arc::clone(&self.asker), self.config.ask_timeout, self.config.tls);
        let commands = question.commands(&self.config.name);
        let asked = question.clone();
        let name = self.config.name.clone();
        let task = self.questions.spawn(async move {
            let replies = tokio::time::timeout(timeout, async {
                let (endpoint, role) = (question.endpoint().clone(), question.role());
                let replies = asker.ask(endpoint.clone(), role, commands, timeout).await?;
                match question.instead(&replies) {
                    Some(other) => {
                        Ok((asker.ask(endpoint, role, other.commands(&name), timeout).await?, other))
                    }
                    None => Ok((replies, question.clone())),
                }
            });
            match replies.await {
                Ok(Ok((replies, question))) => question.answered(&replies, tls),
                Ok(Err(failure)) => question.failed(failure),
                Err(_elapsed) => question.failed(AskFailure::TimedOut),
            }
        });
        self.asked.insert(task.id(), asked);
    }

    fn answer(&mut self, answer: Result<(Id, Input), tokio::task::JoinError>) -> Option<Input> {
        match answer {
            Ok((id, input)) => {
                self.asked.remove(&id);
                Some(input)
            }
            Err(error) => {
                tracing::error!(target: "evenkeel::topology", %error, "a question ended by itself");
                self.asked.remove(&error.id()).map(|question| question.failed(AskFailure::Unreachable))
            }
        }
    }

    fn watch(&mut self, sentinel: Endpoint) {
        let asker = Arc::clone(&self.asker);
        let events = EventSink { sentinel: sentinel.clone(), inputs: self.inputs_tx.clone() };
        let ended = sentinel.clone();
        let watch = self.watches.spawn(async move {
            let failure = asker.watch(ended.clone(), events).await;
            tracing::debug!(target: "evenkeel::topology", sentinel = %ended, %failure, "event link ended");
            ended
        });
        self.watched.insert(sentinel, watch);
    }

    fn unwatched(&mut self, ended: Result<Endpoint, tokio::task::JoinError>) -> Option<Input> {
        let sentinel = match ended {
            Ok(sentinel) => sentinel,
            Err(error) => {
                if error.is_panic() {
                    tracing::error!(target: "evenkeel::topology", %error, "a watch ended by itself");
                }
                let ended = |(_, watch): &(&Endpoint, &AbortHandle)| watch.id() == error.id();
                self.watched.iter().find(ended).map(|(sentinel, _)| sentinel.clone())?
            }
        };
        self.watched.remove(&sentinel);
        Some(Input::EventLinkDown { sentinel })
    }
}
