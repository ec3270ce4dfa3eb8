//! The task of a link: one hand-written future that reads, writes, dials and keeps time.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use evenkeel_protocol::{Endpoint, Limits, Machine};
use tokio::time::Sleep;

use super::{
    LinkConfig, LinkObserver, Mailbox, Readiness, Shared,
    socket::{Arrived, Ended, Socket},
};
use crate::{
    driver::{
        clock,
        dial::{ConnInfo, DialConfig, DialError, Dialed, dial_at},
    },
    machine::{ChannelKind, DialId, LinkAction, LinkInput, LinkMachine, Report, Seed},
};

type Dialing = Pin<Box<dyn Future<Output = Result<Dialed, DialError>> + Send>>;

pub(super) struct LinkTask {
    shared: Arc<Shared>,
    dial: DialConfig,
    limits: Limits,
    observer: Arc<dyn LinkObserver>,
    machine: LinkMachine,
    dials: Vec<(DialId, Dialing)>,
    sockets: Vec<Socket>,
    arrived: Vec<Arrived>,
    timer: Pin<Box<Sleep>>,
    /// When the timer fires; `None` when it is not set.
    timer_at: Option<Instant>,
    done: bool,
}

impl LinkTask {
    pub(super) fn new(
        shared: Arc<Shared>,
        endpoint: Endpoint,
        config: LinkConfig,
        observer: Arc<dyn LinkObserver>,
        jitter: Seed,
        nonces: Seed,
    ) -> Self {
        Self {
            shared,
            machine: LinkMachine::new(endpoint, config.backoff, config.settings, jitter, nonces),
            dial: config.dial,
            limits: config.limits,
            observer,
            dials: Vec::new(),
            sockets: Vec::new(),
            arrived: Vec::new(),
            timer: Box::pin(tokio::time::sleep(Duration::from_secs(3600))),
            timer_at: None,
            done: false,
        }
    }

    fn input(&mut self, input: LinkInput) {
        self.machine.handle_input(clock::now(), input);
        self.act();
    }

    fn socket(&mut self, dial: DialId) -> Option<&mut Socket> {
        self.sockets.iter_mut().find(|socket| socket.dial == dial)
    }

    /// Does what the machine says.
    fn act(&mut self) {
        let link = self.shared.id;
        while let Some(action) = self.machine.poll_action() {
            match action {
                LinkAction::Deliver(message) => self.observer.message(link, message),
                LinkAction::Confirmed(kind, channel) => self.observer.confirmed(link, kind, channel),
                LinkAction::Ended(kind, channel, cause) => self.observer.ended(link, kind, channel, cause),
                LinkAction::Refused(kind, channels, error) => {
                    self.observer.refused(link, kind, channels, error);
                }
                LinkAction::Gap(gap) => self.observer.gap(link, gap),
                LinkAction::Dial { dial: id, endpoint, address } => {
                    let config = self.dial.clone();
                    let dialing = async move { dial_at(&endpoint, address, &config).await };
                    self.dials.push((id, Box::pin(dialing)));
                }
                LinkAction::Discard(id) => {
                    self.dials.retain(|(known, _)| *known != id);
                    self.close(id, false);
                }
                LinkAction::Use(id) => self.take_into_use(id),
                LinkAction::Write(id, command) => {
                    if let Some(socket) = self.socket(id) {
                        socket.write(&command);
                    }
                }
                LinkAction::Report(report) => self.report(report),
            }
        }
    }

    fn report(&self, report: Report) {
        match &report {
            Report::Connected { .. } => {
                self.shared.last_error.store(None);
                self.shared.ready.send_replace(Readiness::Ready);
            }
            Report::Reconnecting { attempt, .. } => {
                self.shared.info.store(None);
                let state = if *attempt == 0 { Readiness::Connecting } else { Readiness::Failing };
                self.shared.ready.send_replace(state);
            }
            Report::Suspect(_) | Report::Mute(_) | Report::Moved(_) | Report::MoveFailed(_) => {}
        }
        self.observer.report(self.shared.id, report);
    }

    fn take_into_use(&mut self, id: DialId) {
        let link = self.shared.id;
        let Some(socket) = self.sockets.iter_mut().find(|socket| socket.dial == id) else { return };
        socket.used = true;
        let early = std::mem::take(&mut socket.early);
        let info = Arc::clone(&socket.info);
        let instead_of: Option<Arc<ConnInfo>> = self.shared.info.swap(Some(Arc::clone(&info)));
        self.observer.opened(link, &info, instead_of.as_ref());
        for push in early {
            self.observer.push(link, &info, push, true);
        }
    }

    /// Lets go of a connection.
    fn close(&mut self, id: DialId, by_peer: bool) {
        let Some(index) = self.sockets.iter().position(|socket| socket.dial == id) else { return };
        let socket = self.sockets.swap_remove(index);
        if socket.used {
            self.observer.closed(self.shared.id, &socket.info, by_peer);
        }
    }

    fn end(&mut self) {
        self.input(LinkInput::Close);
        self.dials.clear();
        while let Some(id) = self.sockets.first().map(|socket| socket.dial) {
            self.close(id, false);
        }
        self.finish();
    }

    fn finish(&mut self) {
        self.done = true;
        // Nothing that is left from here on is ever read.
        *self.shared.mailbox.lock() = Mailbox { closed: true, ..Mailbox::default() };
        self.shared.info.store(None);
        self.shared.ready.send_replace(Readiness::Closed);
    }

    fn poll_mailbox(&mut self, cx: &mut Context<'_>) {
        let mut mailbox = self.shared.mailbox.lock();
        let changes = std::mem::take(&mut mailbox.changes);
        let moves = std::mem::take(&mut mailbox.moves);
        let relaxed = std::mem::take(&mut mailbox.relaxed_changed);
        let floor = mailbox.relaxed.iter().map(|(_, floor)| *floor).max();
        let closed = mailbox.closed;
        mailbox.waker = Some(cx.waker().clone());
        drop(mailbox);
        if closed {
            return self.end();
        }
        if relaxed {
            self.input(LinkInput::Relax(floor));
        }
        let mut run: Option<(ChannelKind, bool, Vec<Bytes>)> = None;
        for ((kind, name), wanted) in changes {
            match &mut run {
                Some((known, same, names)) if (*known, *same) == (kind, wanted) => names.push(name),
                _ => {
                    let full = run.replace((kind, wanted, vec![name]));
                    self.change(full);
                }
            }
        }
        self.change(run);
        for request in moves {
            self.input(LinkInput::Move(request));
        }
    }

    fn change(&mut self, run: Option<(ChannelKind, bool, Vec<Bytes>)>) {
        match run {
            Some((kind, true, names)) => self.input(LinkInput::Subscribe(kind, names)),
            Some((kind, false, names)) => self.input(LinkInput::Unsubscribe(kind, names)),
            None => {}
        }
    }

    fn poll_dials(&mut self, cx: &mut Context<'_>) -> bool {
        let mut progress = false;
        let mut index = 0;
        while let Some((id, dialing)) = self.dials.get_mut(index) {
            let id = *id;
            let Poll::Ready(result) = dialing.as_mut().poll(cx) else {
                index += 1;
                continue;
            };
            progress = true;
            drop(self.dials.swap_remove(index));
            match result {
                Ok(dialed) => {
                    let socket = Socket::new(id, dialed, self.limits);
                    let peer = socket.peer();
                    self.sockets.push(socket);
                    self.input(LinkInput::Dialed(id, peer));
                }
                Err(error) => {
                    let refused = error.is_refused();
                    self.observer.dial_failed(self.shared.id, &error);
                    self.shared.last_error.store(Some(Arc::new(error)));
                    self.input(LinkInput::DialFailed { dial: id, refused });
                }
            }
            // Actions may have changed the list.
            index = 0;
        }
        progress
    }

    fn lost(&mut self, id: DialId, ended: Ended) {
        self.close(id, ended == Ended::ByPeer);
        self.input(LinkInput::Lost(id));
    }

    /// Reads one socket and tells the machine; true when there may be more.
    fn poll_read(&mut self, id: DialId, cx: &mut Context<'_>) -> bool {
        let mut arrived = std::mem::take(&mut self.arrived);
        let Some(socket) = self.socket(id) else { return false };
        let info = Arc::clone(&socket.info);
        let result = socket.poll_read(cx, &mut arrived);
        // One look at the clock for all that came together.
        let now = clock::now();
        if !arrived.is_empty() {
            self.input(LinkInput::Heard(id));
        }
        for one in arrived.drain(..) {
            match one {
                Arrived::PubSub(push) => {
                    if let Some(message) = self.machine.pass(now, id, push) {
                        self.observer.message(self.shared.id, message);
                    } else {
                        self.act();
                    }
                }
                Arrived::Reply { error, number } => {
                    self.input(LinkInput::Reply { dial: id, error, number });
                }
                Arrived::Push(push) => self.observer.push(self.shared.id, &info, push, false),
            }
        }
        self.arrived = arrived;
        match result {
            Ok(more) => more,
            Err(ended) => {
                self.lost(id, ended);
                true
            }
        }
    }

    /// Moves bytes on every socket; true when the task should run again at once.
    fn poll_sockets(&mut self, cx: &mut Context<'_>) -> bool {
        let mut again = false;
        let ids: Vec<DialId> = self.sockets.iter().map(|socket| socket.dial).collect();
        for id in ids {
            again |= self.poll_read(id, cx);
        }
        // What reading made the machine say leaves in the same turn, on sockets that a dial has brought too.
        let mut failed = Vec::new();
        for socket in &mut self.sockets {
            if let Err(ended) = socket.poll_write(cx) {
                failed.push((socket.dial, ended));
            }
        }
        for (id, ended) in failed {
            self.lost(id, ended);
            again = true;
        }
        again
    }

    /// Keeps time; true when a deadline has passed, which may have left something to write.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let mut passed = false;
        loop {
            let Some(wanted) = self.machine.poll_timeout() else {
                self.timer_at = None;
                return passed;
            };
            // A timer that is too early finds nothing to do; putting it off with each message would cost more.
            if self.timer_at.is_none_or(|at| wanted < at) {
                self.timer_at = Some(wanted);
                self.timer.as_mut().reset(wanted.into());
            }
            match self.timer.as_mut().poll(cx) {
                Poll::Pending => return passed,
                Poll::Ready(()) => {
                    passed = true;
                    self.timer_at = None;
                    self.machine.handle_timeout(clock::now());
                    self.act();
                }
            }
        }
    }
}

impl Future for LinkTask {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let task = self.get_mut();
        task.act();
        task.poll_mailbox(cx);
        let mut again = false;
        if !task.done {
            while task.poll_dials(cx) {}
            again = task.poll_sockets(cx);
            // Dials that a loss has started must be polled once to be under way, and deadlines may have changed.
            while task.poll_dials(cx) {
                again = true;
            }
            again |= task.poll_timer(cx);
        }
        if task.done {
            return Poll::Ready(());
        }
        if again {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl Drop for LinkTask {
    /// The runtime went first: whoever still waits is told.
    fn drop(&mut self) {
        if !self.done {
            self.finish();
        }
    }
}
