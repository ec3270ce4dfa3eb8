//! The loop: inputs and time in, actions out, announcements held for their hooks on the way.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use evenkeel_protocol::{Machine, Notice};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use super::{
    Apply, clock,
    dispatcher::{Dispatcher, Job, Verdict},
};
use crate::{
    Action, Event, HandoffEngine, HandoffId, Hooks, Input, Metrics, NotificationContext, Origin, Outcome,
    hooks::log,
};

/// How long all hooks together may hold an announcement.
const HOOKS_TIMEOUT: Duration = Duration::from_millis(50);
/// How long the end waits for a hook that is still at work.
const HOOKS_END: Duration = Duration::from_secs(1);
/// Inputs that are taken before the time is looked at and the counts are published.
const AT_ONCE: usize = 64;
/// Announcements that wait for hooks; those beyond pass without.
const MAX_PENDING: usize = 1024;
/// Handoffs whose end hooks are still to be told.
const MAX_UNTOLD: usize = 256;

/// An announcement on its way through the hooks.
struct Pending {
    ticket: u64,
    origin: Origin,
    ctx: NotificationContext,
    notice: Notice,
    verdict: Option<Verdict>,
    deadline: Instant,
}

/// The thread of the hooks and the way back from it.
struct Thread {
    dispatcher: Dispatcher,
    ended: oneshot::Receiver<()>,
}

pub(super) struct Run<A> {
    engine: HandoffEngine,
    apply: A,
    hooks: Hooks,
    thread: Option<Thread>,
    verdicts: mpsc::Receiver<(u64, Verdict)>,
    verdicts_tx: mpsc::Sender<(u64, Verdict)>,
    pending: VecDeque<Pending>,
    untold: BTreeMap<HandoffId, (NotificationContext, Notice)>,
    next_ticket: u64,
    published: watch::Sender<Metrics>,
}

impl<A: Apply> Run<A> {
    pub(super) fn new(
        engine: HandoffEngine,
        hooks: Hooks,
        published: watch::Sender<Metrics>,
        apply: A,
    ) -> Self {
        let (verdicts_tx, verdicts) = mpsc::channel(MAX_PENDING);
        Self {
            engine,
            apply,
            hooks,
            thread: None,
            verdicts,
            verdicts_tx,
            pending: VecDeque::new(),
            untold: BTreeMap::new(),
            next_ticket: 0,
            published,
        }
    }

    pub(super) async fn run(mut self, mut inputs: mpsc::Receiver<Input>) {
        'run: loop {
            let held = self.pending.front().map(|pending| pending.deadline);
            let wake = held.into_iter().chain(self.engine.poll_timeout()).min();
            tokio::select! {
                // What hooks said beats the deadline for saying it; a flood of inputs cannot starve the timer, because
                // whatever is due is done after each of them.
                biased;
                Some((ticket, verdict)) = self.verdicts.recv() => self.judged(ticket, verdict),
                input = inputs.recv() => match input {
                    None | Some(Input::Shutdown) => break,
                    Some(input) => {
                        self.take(input);
                        // An announcement comes on every connection of an endpoint at once.
                        for _ in 1..AT_ONCE {
                            // What came first goes first, unless hooks hold it.
                            self.release();
                            match inputs.try_recv() {
                                Ok(Input::Shutdown) => break 'run,
                                Ok(input) => self.take(input),
                                Err(_empty_or_closed) => break,
                            }
                        }
                    }
                },
                () = clock::sleep_until(wake) => {}
            }
            self.release();
            let now = clock::now();
            if self.engine.poll_timeout().is_some_and(|at| at <= now) {
                self.engine.handle_timeout(now);
                self.drain(None);
            }
            self.publish();
        }
        self.engine.handle_input(clock::now(), Input::Shutdown);
        self.drain(None);
        self.publish();
        if let Some(Thread { dispatcher, ended }) = self.thread.take() {
            drop(dispatcher);
            // A hook that never returns keeps its thread, but not the client's shutdown.
            let _gone_or_stuck = timeout(HOOKS_END, ended).await;
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Notice { origin, during_handshake, received_at, notice } => {
                let received_at = received_at.unwrap_or_else(clock::now);
                self.announced(origin, during_handshake, received_at, notice);
            }
            other => {
                self.engine.handle_input(clock::now(), other);
                self.drain(None);
            }
        }
    }

    fn announced(&mut self, origin: Origin, during_handshake: bool, received_at: Instant, notice: Notice) {
        let ctx = NotificationContext {
            conn: origin.conn,
            endpoint: origin.endpoint.clone(),
            peer: origin.peer,
            during_handshake,
            received_at,
            elapsed: Duration::ZERO,
        };
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        let asked = self.pending.len() < MAX_PENDING && self.ask_hooks(ticket, &ctx, &notice);
        let verdict = (!asked).then(|| Verdict::GoOn(notice.clone()));
        let deadline = clock::now() + HOOKS_TIMEOUT;
        self.pending.push_back(Pending { ticket, origin, ctx, notice, verdict, deadline });
    }

    /// Gives an announcement to the hooks; `false` when it need not or cannot wait for them.
    fn ask_hooks(&mut self, ticket: u64, ctx: &NotificationContext, notice: &Notice) -> bool {
        if self.hooks.is_empty() {
            return false;
        }
        if self.thread.is_none() {
            let (tx, ended) = oneshot::channel();
            // A machine without a free thread has other worries; the hooks are passed by until there is one.
            self.thread = Dispatcher::start(&self.hooks, move || drop(tx))
                .ok()
                .map(|dispatcher| Thread { dispatcher, ended });
        }
        let Some(thread) = &self.thread else { return false };
        let verdicts = self.verdicts_tx.clone();
        let reply = Box::new(move |verdict| {
            // Nobody listens any more, or so many wait that this one is overdue anyway.
            let _late = verdicts.try_send((ticket, verdict));
        });
        thread.dispatcher.submit(Job::Pre { ctx: ctx.clone(), notice: notice.clone(), reply })
    }

    fn judged(&mut self, ticket: u64, verdict: Verdict) {
        if let Some(pending) = self.pending.iter_mut().find(|pending| pending.ticket == ticket) {
            pending.verdict = Some(verdict);
        }
    }

    /// Lets announcements go in the order in which they came.
    fn release(&mut self) {
        while let Some(pending) = self.pending.front() {
            let overdue = pending.deadline <= clock::now();
            if pending.verdict.is_none() && !overdue {
                return;
            }
            let Some(Pending { origin, ctx, notice, verdict, .. }) = self.pending.pop_front() else { return };
            match verdict {
                Some(Verdict::GoOn(notice)) => self.go_on(origin, ctx, notice),
                Some(Verdict::HoldBack) => self.hold_back(&origin, ctx, notice),
                None => {
                    self.hooks.shared.counts.timeouts.fetch_add(1, Ordering::Relaxed);
                    self.go_on(origin, ctx, notice);
                }
            }
        }
    }

    fn go_on(&mut self, origin: Origin, ctx: NotificationContext, notice: Notice) {
        let (during_handshake, received_at) = (ctx.during_handshake, Some(ctx.received_at));
        let input = Input::Notice { origin, during_handshake, received_at, notice: notice.clone() };
        self.engine.handle_input(clock::now(), input);
        self.drain(Some((ctx, notice)));
    }

    fn hold_back(&mut self, origin: &Origin, ctx: NotificationContext, notice: Notice) {
        self.hooks.shared.counts.held_back.fetch_add(1, Ordering::Relaxed);
        let event = Event::Noticed {
            conn: origin.conn,
            endpoint: origin.endpoint.clone(),
            name: notice.name(),
            seq: notice.seq(),
            outcome: Outcome::HeldBack,
        };
        self.log(&event);
        self.apply.apply(Action::Report(event));
        self.tell_hooks(ctx, notice, Outcome::HeldBack);
    }

    /// Hands every action over; `heard` is the announcement behind them.
    fn drain(&mut self, mut heard: Option<(NotificationContext, Notice)>) {
        while let Some(action) = self.engine.poll_action() {
            if let Action::Report(event) = &action {
                self.log(event);
                match event {
                    Event::Noticed { outcome, .. } => {
                        if let Some((ctx, notice)) = heard.take() {
                            self.noticed(ctx, notice, *outcome);
                        }
                    }
                    Event::HandoffFinished { handoff, moved, abandoned, .. } => {
                        // Whoever hears of the end finds it counted.
                        self.publish();
                        if let Some((ctx, notice)) = self.untold.remove(handoff) {
                            let (moved, abandoned) = (*moved, *abandoned);
                            let outcome = Outcome::HandoffEnded { handoff: *handoff, moved, abandoned };
                            self.tell_hooks(ctx, notice, outcome);
                        }
                    }
                    _ => {}
                }
            }
            self.apply.apply(action);
        }
    }

    fn publish(&self) {
        let now = self.engine.metrics();
        self.published.send_if_modified(|metrics| {
            let changed = *metrics != now;
            if changed {
                *metrics = now;
            }
            changed
        });
    }

    fn noticed(&mut self, ctx: NotificationContext, notice: Notice, outcome: Outcome) {
        match outcome {
            Outcome::HandoffStarted(id) if !self.hooks.is_empty() => {
                if self.untold.len() >= MAX_UNTOLD {
                    self.untold.pop_first();
                }
                self.untold.insert(id, (ctx, notice));
            }
            outcome => self.tell_hooks(ctx, notice, outcome),
        }
    }

    fn tell_hooks(&self, ctx: NotificationContext, notice: Notice, outcome: Outcome) {
        if let Some(thread) = &self.thread {
            let elapsed = clock::now().saturating_duration_since(ctx.received_at);
            let ctx = NotificationContext { elapsed, ..ctx };
            // Counted as skipped where it cannot be queued.
            let _queued = thread.dispatcher.submit(Job::Post { ctx, notice, outcome });
        }
    }

    fn log(&self, event: &Event) {
        let level = event.level();
        if level <= self.engine.settings().log_level() {
            log(level, format_args!("{event}"));
        }
    }
}
