//! The I/O task of a lane: one hand-written future that writes, reads, dials and keeps time.

use std::{
    io,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use evenkeel_protocol::{Endpoint, Machine, Reply};
use tokio::{
    sync::{mpsc, watch},
    time::Sleep,
};

use super::{LaneConfig, LaneObserver, Order, Readiness, Shared};
use crate::{
    driver::{
        clock,
        dial::{ConnInfo, DialError, Dialed, dial_at},
        wire::{Ended, Wire},
    },
    machine::{Action, DialId, Input, LaneMachine, Overlap, Report, Seed, Sentry},
    queue::Sent,
};

/// Deadlines and silence are looked at this often, and only while somebody waits.
const TICK: Duration = Duration::from_millis(50);

/// Replies handed out under one lock: callers on other threads want it too.
const HANDED_OUT: usize = 64;

type Dialing = Pin<Box<dyn Future<Output = Result<Dialed, DialError>> + Send>>;

pub(crate) struct LaneTask {
    shared: Arc<Shared>,
    config: LaneConfig,
    observer: Arc<dyn LaneObserver>,
    orders: mpsc::Receiver<Order>,
    machine: LaneMachine,
    dials: Vec<(DialId, Dialing)>,
    /// Whether a caller waits for them.
    wanted: watch::Sender<bool>,
    /// Connections that the machine has not taken yet.
    dialed: Vec<(DialId, Dialed)>,
    active: Option<Wire>,
    /// Connections that were left and still owe replies, with when they are closed.
    draining: Vec<(Wire, Instant)>,
    /// When the lane ends, if it is closing.
    closing: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    /// When the timer fires; `None` when it is not set.
    timer_at: Option<Instant>,
    silent_since: Option<Instant>,
    /// A wake came with something to write: other callers had their turn to append.
    yielded: bool,
    /// Nothing is written to the connection in use: it is about to be left.
    hushed: bool,
    /// The machine knows that the connection in use owes nothing.
    idle_told: bool,
    /// A connection that was lost while its successor was on the way; it is told as closed when that is decided.
    left: Option<(Arc<ConnInfo>, bool)>,
    /// A successor that waits until the caller's state on the connection in use is no more.
    parked: Option<DialId>,
    /// Something was decided that the last look at the connection did not know.
    look_again: bool,
    /// Commands in the last write.
    wave: usize,
    replies: Vec<(Sent, Reply)>,
    pushes: Vec<Reply>,
    wakers: Vec<Waker>,
    done: bool,
}

impl LaneTask {
    pub(super) fn new(
        shared: Arc<Shared>,
        endpoint: Endpoint,
        config: LaneConfig,
        observer: Arc<dyn LaneObserver>,
        orders: mpsc::Receiver<Order>,
        seed: Seed,
    ) -> Self {
        let machine = LaneMachine::new_at(endpoint, config.address, config.backoff, seed);
        Self {
            shared,
            config,
            observer,
            orders,
            machine,
            dials: Vec::new(),
            wanted: watch::Sender::new(false),
            dialed: Vec::new(),
            active: None,
            draining: Vec::new(),
            closing: None,
            timer: Box::pin(tokio::time::sleep(Duration::from_secs(3600))),
            timer_at: None,
            silent_since: None,
            yielded: false,
            hushed: false,
            idle_told: false,
            left: None,
            parked: None,
            look_again: false,
            wave: 0,
            replies: Vec::new(),
            pushes: Vec::new(),
            wakers: Vec::new(),
            done: false,
        }
    }

    fn input(&mut self, input: Input) {
        self.machine.handle_input(clock::now(), input);
        self.act();
    }

    /// Does what the machine says.
    fn act(&mut self) {
        for (shown, is) in
            [(&self.shared.suspect, self.machine.is_suspect()), (&self.shared.mute, self.machine.is_mute())]
        {
            // Callers on other cores read the line that it stands in.
            if shown.load(Ordering::Relaxed) != is {
                shown.store(is, Ordering::Relaxed);
            }
        }
        while let Some(action) = self.machine.poll_action() {
            match action {
                Action::Dial { dial: id, endpoint, address } => {
                    let mut config = self.config.dial.clone();
                    // Callers wait for it where nothing stands beside it; elsewhere few at a time leave the processor to them.
                    let leaves_first = self.machine.moving().is_some_and(|(dial, request)| {
                        dial == Some(id) && request.overlap != Overlap::Beside
                    });
                    if leaves_first {
                        self.wanted.send_replace(self.shared.queue.lock().has_work());
                        config = config.of_move(self.wanted.subscribe());
                    }
                    let dialing = async move { dial_at(&endpoint, address, &config).await };
                    self.dials.push((id, Box::pin(dialing)));
                    self.look_again = true;
                }
                Action::Hush | Action::Resume => {
                    self.hushed = action == Action::Hush;
                    self.idle_told = false;
                    self.look_again = true;
                }
                Action::Leave => {
                    if let Some(wire) = self.active.take() {
                        self.forget_left();
                        self.left = Some((Arc::clone(&wire.info), false));
                        self.shared.info.store(None);
                        self.give_back(wire);
                    }
                }
                Action::Discard(id) => {
                    if self.parked.take_if(|parked| *parked == id).is_some() {
                        self.shared.unparked();
                    }
                    self.dials.retain(|(known, _)| *known != id);
                    self.dialed.retain(|(known, _)| *known != id);
                }
                Action::Adopt { dial: id, drain_until, moved } => self.adopt(id, drain_until, moved),
                Action::Condemn => {
                    if let Some(wire) = self.active.take() {
                        self.bury(wire, false);
                        self.machine.handle_input(clock::now(), Input::Lost);
                    }
                }
                Action::Report(report) => self.report(report),
            }
        }
    }

    fn report(&mut self, report: Report) {
        if matches!(report, Report::MoveFailed(_)) {
            self.forget_left();
            // A lease's connection is not dialled again for nobody.
            if self.active.is_none() && self.machine.moving().is_none() && !self.config.reconnect {
                self.shared.retire();
            }
        }
        match &report {
            Report::Connected { .. } => {
                self.shared.last_error.store(None);
                self.shared.ready.send_replace(Readiness::Ready);
            }
            Report::Reconnecting { .. } => {
                self.shared.info.store(None);
                // A lane whose dials fail goes on failing, in between too.
                self.shared.ready.send_if_modified(|state| {
                    let was_ready = *state == Readiness::Ready;
                    if was_ready {
                        *state = Readiness::Connecting;
                    }
                    was_ready
                });
            }
            Report::Suspect(_) | Report::Mute(_) | Report::Moved(_) | Report::MoveFailed(_) => {}
        }
        self.observer.report(self.shared.id, report);
    }

    fn adopt(&mut self, id: DialId, drain_until: Instant, moved: bool) {
        self.hushed = false;
        let Some(index) = self.dialed.iter().position(|(known, _)| *known == id) else { return };
        let (_, dialed) = self.dialed.swap_remove(index);
        let seed = Seed::new(self.config.seed ^ dialed.info.number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let sentry = Sentry::new(self.config.sentry, seed);
        let (wire, pushes) = Wire::new(dialed, self.config.limits, sentry);
        let mut left = None;
        if let Some(old) = self.active.take() {
            // The switch: what the old connection owes makes its slots wait, and nothing else does.
            self.shared.queue.lock().leave(old.waiting());
            left = Some(Arc::clone(&old.info));
            self.draining.push((old, drain_until));
        }
        self.shared.info.store(Some(Arc::clone(&wire.info)));
        if moved && left.is_none() {
            left = self.left.as_ref().map(|(info, _)| Arc::clone(info));
        } else {
            self.forget_left();
        }
        self.observer.opened(self.shared.id, &wire.info, left.as_ref());
        self.forget_left();
        for push in pushes {
            self.observer.push(self.shared.id, &wire.info, push, true);
        }
        self.active = Some(wire);
        self.silent_since = None;
        self.yielded = true;
    }

    /// A connection has ended: tells who waited on it, keeps what never left.
    fn bury(&mut self, wire: Wire, by_peer: bool) {
        let info = Arc::clone(&wire.info);
        self.give_back(wire);
        self.observer.closed(self.shared.id, &info, by_peer);
    }

    fn give_back(&mut self, wire: Wire) {
        let (in_flight, written, mut batch) = wire.into_remains();
        self.shared.queue.lock().lose(in_flight.into_iter(), written, &mut batch, &mut self.wakers);
        self.wake();
    }

    /// Tells that a connection has gone which its successor did not come in time for.
    fn forget_left(&mut self) {
        if let Some((info, by_peer)) = self.left.take() {
            self.observer.closed(self.shared.id, &info, by_peer);
        }
    }

    fn wake(&mut self) {
        for waker in self.wakers.drain(..) {
            waker.wake();
        }
    }

    /// Replies fit their commands no more.
    fn tell_disorder(&self, wire: &Wire, ended: Option<&Ended>) {
        if let Some(Ended::OutOfStep(cause)) = ended {
            self.observer.out_of_step(self.shared.id, &wire.info, *cause);
        }
    }

    fn lost(&mut self, wire: Wire, ended: &Ended) {
        self.tell_disorder(&wire, Some(ended));
        let by_peer = matches!(ended, Ended::Closed)
            || matches!(ended, Ended::Io(error) if error.kind() == io::ErrorKind::ConnectionReset);
        // The state of a caller's on it has gone with it: what is bound to that state must not run elsewhere.
        let moving = self.machine.moving().is_some() && !self.shared.is_pinned();
        if moving {
            self.forget_left();
            self.left = Some((Arc::clone(&wire.info), by_peer));
            self.give_back(wire);
        } else {
            self.bury(wire, by_peer);
        }
        if self.config.reconnect || moving {
            self.input(Input::Lost);
        } else {
            self.end();
        }
    }

    fn end(&mut self) {
        self.done = true;
        self.input(Input::Close);
        self.dials.clear();
        self.dialed.clear();
        if let Some(wire) = self.active.take() {
            self.bury(wire, false);
        }
        for (wire, _) in std::mem::take(&mut self.draining) {
            self.bury(wire, false);
        }
        self.forget_left();
        self.shared.queue.lock().abandon(&mut self.wakers);
        self.wake();
        self.shared.info.store(None);
        self.shared.ready.send_replace(Readiness::Closed);
    }

    fn poll_orders(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(order)) = self.orders.poll_recv(cx) {
            match order {
                // A caller's state on the connection cannot be moved. Just before the server closes it may be silenced:
                // what is not written then provably did not run.
                Order::Move(request) if request.overlap == Overlap::InPlace && self.shared.is_pinned() => {
                    self.report(Report::MoveFailed(request.id));
                }
                Order::Move(request) => self.input(Input::Move(request)),
                Order::Close(deadline) => {
                    let mut wakers = Vec::new();
                    let offline = self.active.is_none();
                    // With a connection, what was accepted is still written; without one it never will be.
                    if offline {
                        self.shared.queue.lock().close(&mut wakers);
                    } else {
                        self.shared.queue.lock().finish_only(&mut wakers);
                    }
                    for waker in wakers {
                        waker.wake();
                    }
                    self.closing = Some(deadline);
                }
            }
        }
    }

    fn poll_dials(&mut self, cx: &mut Context<'_>) -> bool {
        if self.dials.is_empty() {
            return false;
        }
        if !*self.wanted.borrow() && self.shared.queue.lock().has_work() {
            self.wanted.send_replace(true);
        }
        let mut progress = false;
        let mut index = 0;
        while let Some((id, dialing)) = self.dials.get_mut(index) {
            let id = *id;
            match dialing.as_mut().poll(cx) {
                Poll::Pending => index += 1,
                Poll::Ready(result) => {
                    progress = true;
                    drop(self.dials.swap_remove(index));
                    match result {
                        Ok(dialed) => {
                            self.dialed.push((id, dialed));
                            let for_move = self.machine.moving().is_some_and(|(dial, _)| dial == Some(id));
                            if for_move && self.active.is_some() && self.shared.park() {
                                self.parked = Some(id);
                            } else {
                                self.input(Input::Dialed(id));
                            }
                        }
                        Err(error) => {
                            let refused = error.is_refused();
                            self.observer.dial_failed(self.shared.id, &error);
                            self.shared.last_error.store(Some(Arc::new(error)));
                            self.shared.ready.send_if_modified(|state| {
                                let connecting = *state == Readiness::Connecting;
                                if connecting {
                                    *state = Readiness::Failing;
                                }
                                connecting
                            });
                            let goes_on = self.active.is_some() || self.machine.moving().is_some();
                            if self.config.reconnect || goes_on {
                                self.input(Input::DialFailed { dial: id, refused });
                            } else {
                                self.end();
                                return true;
                            }
                        }
                    }
                    // Actions may have changed the list.
                    index = 0;
                }
            }
        }
        progress
    }

    /// Reads one wire; false when it has ended.
    fn read(&mut self, wire: &mut Wire, cx: &mut Context<'_>) -> (bool, Option<Ended>) {
        let result = wire.poll_read(cx, &mut self.replies, &mut self.pushes);
        let progress = !self.replies.is_empty() || !self.pushes.is_empty();
        let mut replies = self.replies.drain(..);
        while replies.len() > 0 {
            self.shared.queue.lock().complete(replies.by_ref().take(HANDED_OUT), &mut self.wakers);
            for waker in self.wakers.drain(..) {
                waker.wake();
            }
        }
        drop(replies);
        for push in self.pushes.drain(..) {
            self.observer.push(self.shared.id, &wire.info, push, false);
        }
        match result {
            Poll::Ready(Ok(more)) => (progress || more, None),
            Poll::Ready(Err(ended)) => (true, Some(ended)),
            Poll::Pending => (progress, None),
        }
    }

    fn poll_draining(&mut self, cx: &mut Context<'_>) {
        for (mut wire, until) in std::mem::take(&mut self.draining) {
            let written = wire.poll_write(cx);
            let (_, ended) = self.read(&mut wire, cx);
            let failed = ended.is_some() || matches!(written, Poll::Ready(Err(_)));
            if failed {
                self.tell_disorder(&wire, ended.as_ref());
                let by_peer = matches!(ended, Some(Ended::Closed));
                // A peer that closes a connection that owes nothing took nobody by surprise.
                let surprised = by_peer && wire.owed() > 0;
                self.bury(wire, surprised);
            } else if (wire.owed() == 0 && wire.is_flushed()) || clock::now() >= until {
                self.bury(wire, false);
            } else {
                self.draining.push((wire, until));
            }
        }
    }

    /// Moves bytes on the connection in use; gives true when the task should run again at once.
    fn poll_active(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(mut wire) = self.active.take() else { return false };
        let (more, ended) = self.read(&mut wire, cx);
        if let Some(ended) = ended {
            self.lost(wire, &ended);
            return true;
        }
        if more && self.machine.is_mute() {
            // What waited for it may go; the next tick would be late.
            self.silent_since = None;
            self.active = Some(wire);
            self.input(Input::Heard);
            return true;
        }
        let mut again = more;
        loop {
            match wire.poll_write(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(ended)) => {
                    self.lost(wire, &ended);
                    return true;
                }
                Poll::Pending => break,
            }
            let mut queue = self.shared.queue.lock();
            if self.hushed {
                queue.sleep_offline(cx.waker());
                drop(queue);
                self.yielded = false;
                if wire.owed() == 0 && !self.idle_told {
                    self.idle_told = true;
                    self.active = Some(wire);
                    self.input(Input::Idle);
                    return true;
                }
                break;
            }
            if self.machine.is_mute() {
                // Nobody hears it. What waits here can go elsewhere or later; what is written would be unknown.
                queue.sleep_offline(cx.waker());
                drop(queue);
                self.yielded = false;
                break;
            }
            if !wire.has_question() && queue.sleep(cx.waker()) {
                self.yielded = false;
                break;
            }
            if self.parked.is_some() && !self.shared.is_pinned() {
                // The successor comes first: what is queued may begin new state, which belongs there.
                again = true;
                break;
            }
            let owed = wire.owed();
            // A lone caller has nobody to wait for.
            if !self.yielded && (owed > 0 || self.wave > 1) {
                // Callers that are runnable append first, and share one write with whoever woke this task.
                self.yielded = true;
                again = true;
                break;
            }
            wire.take(&mut queue);
            drop(queue);
            self.yielded = false;
            self.wave = wire.owed() - owed;
        }
        self.active = Some(wire);
        again
    }

    fn on_tick(&mut self, now: Instant) {
        let floor = self.shared.floor();
        self.shared.queue.lock().expire(now, floor, &mut self.wakers);
        self.wake();
        self.watch_silence(now, floor.is_some());
        self.look_again |= self.active.as_mut().is_some_and(|wire| wire.tell_sentry(now));
        self.machine.handle_timeout(now);
        self.act();
        if self.closing.is_some_and(|deadline| now >= deadline) {
            self.end();
        }
    }

    /// A peer that owes replies and says nothing is suspect; inside a relaxed window it is expected to be slow.
    fn watch_silence(&mut self, now: Instant, relaxed: bool) {
        let Some(wire) = &mut self.active else { return };
        if wire.take_heard() || wire.owed() == 0 || relaxed {
            if self.silent_since.take().is_some() && self.machine.is_suspect() {
                self.input(Input::Heard);
                // What waited because it was mute may go.
                self.look_again = true;
            }
            if let Some(wire) = &self.active
                && wire.owed() > 0
            {
                self.silent_since = Some(now);
            }
            return;
        }
        let since = *self.silent_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= self.config.suspect_after {
            self.input(Input::Silent);
        }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) {
        loop {
            let now = clock::now();
            let has_work =
                self.shared.queue.lock().has_work() || !self.draining.is_empty() || self.closing.is_some();
            let tick = has_work.then(|| now + TICK);
            let sentry = self.active.as_ref().and_then(Wire::sentry_timeout);
            let wanted = [tick, self.machine.poll_timeout(), sentry].into_iter().flatten().min();
            let Some(wanted) = wanted else {
                self.timer_at = None;
                return;
            };
            // A timer that is set keeps its time: it would be put off for ever otherwise.
            if self.timer_at.is_none_or(|at| wanted < at) {
                self.timer_at = Some(wanted);
                self.timer.as_mut().reset(wanted.into());
            }
            match self.timer.as_mut().poll(cx) {
                Poll::Pending => return,
                Poll::Ready(()) => {
                    self.timer_at = None;
                    self.on_tick(clock::now());
                    if self.done {
                        return;
                    }
                }
            }
        }
    }
}

impl LaneTask {
    /// A task that comes late must not write to a connection that is to be silent by now: the peer is about to close it.
    fn hush_in_time(&mut self) {
        if self.machine.moving().is_some() && !self.done {
            let now = clock::now();
            if self.machine.poll_timeout().is_some_and(|at| at <= now) {
                self.machine.handle_timeout(now);
                self.act();
            }
        }
    }

    /// Takes the successor that waited for the caller's state to go.
    fn unpark(&mut self) {
        if let Some(id) = self.parked.take_if(|_| !self.shared.is_pinned()) {
            self.input(Input::Dialed(id));
            self.shared.unparked();
        }
    }
}

impl Future for LaneTask {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let task = self.get_mut();
        task.look_again = false;
        task.act();
        task.poll_orders(cx);
        task.unpark();
        let mut again = false;
        while !task.done && task.poll_dials(cx) {}
        if !task.draining.is_empty() {
            task.poll_draining(cx);
        }
        task.hush_in_time();
        if !task.done {
            again = task.poll_active(cx);
        }
        if !task.done && task.active.is_none() {
            // Dials that a loss has started must be polled once to be under way.
            while !task.done && task.poll_dials(cx) {
                again = true;
            }
            task.shared.queue.lock().sleep_offline(cx.waker());
        }
        if !task.done {
            let queue = task.shared.queue.lock();
            let (closed, idle) = (queue.is_closed(), !queue.has_owed());
            drop(queue);
            let nothing_owed = idle && task.draining.is_empty();
            // Closed by its last handle: nobody waits. Closed with a deadline: what is owed may still come.
            if closed && (task.closing.is_none() || nothing_owed) {
                task.end();
            }
        }
        if !task.done {
            task.poll_timer(cx);
        }
        if task.done {
            return Poll::Ready(());
        }
        if again || task.look_again {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Drop for LaneTask {
    /// The runtime went first: whoever still waits is told.
    fn drop(&mut self) {
        if !self.done {
            self.shared.queue.lock().abandon(&mut self.wakers);
            self.wake();
            self.shared.info.store(None);
            self.shared.ready.send_replace(Readiness::Closed);
        }
    }
}
