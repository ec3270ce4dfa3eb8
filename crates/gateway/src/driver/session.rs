//! The task of one WebSocket session: waits, reads, runs commands in their order.
//!
//! While it waits it holds one small future: reads go through a buffer of the thread, and everything bigger is
//! boxed for as long as it runs.

use super::clock;
use super::conn::{Conn, Identity, Wake};
use super::shared::Shared;
use crate::broker::{History, HistoryQuery};
use crate::error::BrokerError;
use crate::hub::Command;
use crate::hub::shard::Sink;
use crate::metrics::Metrics;
use crate::namespace::ChannelOptions;
use crate::presence::Member;
use crate::publication::{Channel, Epoch, Position};
use crate::telemetry::Doing;
use crate::wire::centrifugo::session::BAD_REQUEST;
use crate::wire::machine::{Effect, Machine, Outcome, Step};
use crate::wire::{Farewell, Protocol};
use crate::ws::close::CloseCode;
use crate::ws::decode::{Decoder, Event};
use crate::ws::{Opcode, encode};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout, timeout_at};

/// Bytes of the buffer that all sessions of one thread read through.
const SCRATCH: usize = 16 * 1024;

thread_local! {
    static READ_BUFFER: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

/// One session and all that its task needs.
#[derive(Debug)]
pub(crate) struct Task {
    shared: Arc<Shared>,
    conn: Arc<Conn>,
    machine: Box<dyn Machine>,
    decoder: Decoder,
    shard: u32,
}

/// What one read gave.
#[derive(Default)]
struct Heard {
    asked: bool,
    last: Option<Last>,
}

/// How a session ends after what came before.
enum Last {
    /// The client hung up.
    Gone,
    /// The client said goodbye; the answer carries its code.
    Goodbye(Option<u16>),
    Violation(CloseCode),
}

/// A subscription that becomes live once the replies are queued.
struct Activation {
    channel: Channel,
    serial: u32,
    at: Option<(Epoch, u64)>,
}

impl Task {
    pub(crate) fn new(shared: Arc<Shared>, conn: Arc<Conn>, machine: Box<dyn Machine>, shard: usize) -> Self {
        let decoder = Decoder::new(shared.config.limits.max_message).deflating(conn.deflate().is_some());
        Self { shared, conn, machine, decoder, shard: shard as u32 }
    }

    /// Does what the session begins with, and takes the bytes that came together with the request.
    pub(crate) async fn begin(&mut self, mut bytes: Vec<u8>) -> bool {
        let mut heard = decode(&mut self.decoder, &self.conn, &mut *self.machine, &mut bytes);
        heard.asked = true;
        self.act(heard).await
    }

    /// Runs until the client has connected; false when it is over before, or has not in time.
    pub(crate) async fn run_until_connected(&mut self, limit: Duration) -> bool {
        let deadline = Instant::from_std(clock::now() + limit);
        while !self.machine.is_connected() {
            // Only the wait has the deadline: what was asked is done to its end.
            let conn = self.conn.clone();
            let Ok(wake) = timeout_at(deadline, poll_fn(|cx| conn.poll_wake(cx))).await else {
                self.conn.say_farewell(Farewell::Stale, false);
                self.conn.flush();
                return false;
            };
            if !self.wake(wake).await {
                return false;
            }
        }
        true
    }

    /// Runs until the session is over.
    pub(crate) async fn run(&mut self) {
        while self.turn().await {}
    }

    /// Waits for one thing and does it; false when the session is over.
    async fn turn(&mut self) -> bool {
        let wake = poll_fn(|cx| self.conn.poll_wake(cx)).await;
        self.wake(wake).await
    }

    async fn wake(&mut self, wake: Wake) -> bool {
        match wake {
            Wake::Closing | Wake::Gone => false,
            Wake::Notices(notices) => {
                Box::pin(self.forget(notices)).await;
                true
            }
            Wake::Orders(orders) => {
                for order in orders {
                    self.machine.obey(order, clock::unix_seconds());
                }
                Box::pin(self.act(Heard { asked: true, last: None })).await
            }
            Wake::Readable => {
                let heard = self.read();
                if !heard.asked && heard.last.is_none() {
                    return true;
                }
                Box::pin(self.act(heard)).await
            }
        }
    }

    /// Ends the session: leaves the hub, says what is left to say and hangs up.
    pub(crate) async fn finish(self) {
        self.shared.hub.tell(self.shard as usize, Command::Detach(self.conn.clone())).await;
        for channel in self.machine.channels() {
            self.leave(&channel).await;
            self.shared.hub.release(&channel);
        }
        let limit = self.shared.config.session.close_timeout;
        // Whether the client took the last frame in time changes nothing any more.
        drop(timeout(limit, self.say_goodbye()).await);
    }

    async fn say_goodbye(&self) {
        if !poll_fn(|cx| self.conn.poll_drained(cx)).await {
            return;
        }
        if poll_fn(|cx| self.conn.socket().poll_shutdown(cx)).await.is_err() {
            return;
        }
        // Hanging up with bytes unread would reset the connection, and the close frame with it.
        loop {
            if poll_fn(|cx| self.conn.socket().poll_read_ready(cx)).await.is_err() {
                return;
            }
            let mut rest = [0; 1024];
            match self.conn.socket().try_read(&mut rest) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_gone) => return,
            }
        }
    }

    fn read(&mut self) -> Heard {
        READ_BUFFER.with_borrow_mut(|buffer| match self.conn.socket().try_read(buffer) {
            Ok(0) => Heard { asked: false, last: Some(Last::Gone) },
            Ok(read) => {
                self.conn.heard();
                decode(
                    &mut self.decoder,
                    &self.conn,
                    &mut *self.machine,
                    buffer.get_mut(..read).unwrap_or_default(),
                )
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Heard::default(),
            Err(_gone) => Heard { asked: false, last: Some(Last::Gone) },
        })
    }

    /// Does what was heard; false when the session is over.
    async fn act(&mut self, heard: Heard) -> bool {
        if heard.asked && !self.run_requests().await {
            return false;
        }
        let code = match heard.last {
            None => return true,
            Some(Last::Gone) => return false,
            Some(Last::Goodbye(code)) => code.map(|code| CloseCode::new(code, "")),
            Some(Last::Violation(code)) => {
                Metrics::count(&self.shared.metrics.violations);
                Some(code)
            }
        };
        self.conn.end(Some(encode::close(code)), false);
        self.conn.flush();
        false
    }

    /// Runs what was asked, in its order; false when the session is over.
    async fn run_requests(&mut self) -> bool {
        let mut activations = Vec::new();
        let mut closed = None;
        // One for all of them: while the broker is away they fail together, and the session is heard again.
        let deadline = Instant::from_std(clock::now() + self.shared.config.outage.subscribe_timeout);
        loop {
            let ended = self.conn.notices();
            Box::pin(self.forget(ended)).await;
            match self.machine.step() {
                None => break,
                Some(Step::Close(code)) => {
                    Metrics::count(&self.shared.metrics.violations);
                    closed = Some(self.conn.protocol().close(code));
                    break;
                }
                Some(Step::Done) => {}
                Some(Step::End(last)) => {
                    closed = Some(last);
                    break;
                }
                Some(Step::Run(effect)) => {
                    let outcome = self.execute(effect, deadline, &mut activations).await;
                    self.machine.complete(outcome);
                }
            }
        }
        Metrics::add(&self.shared.metrics.request_errors, self.machine.take_errors());
        if let Some(frame) = self.machine.take_frames() {
            self.conn.push(frame);
        }
        let goes_on = closed.is_none();
        if let Some(last) = closed {
            self.conn.end(Some(last), false);
        } else {
            if let Some(identity) = self.machine.take_identity() {
                let (client, user) = identity;
                self.conn.identify(Identity { client, user });
            }
            self.conn.set_expires(self.machine.expires());
            self.conn.set_due(self.machine.due());
            // After the replies and before the flush: publications queue behind the reply that announces them.
            for Activation { channel, serial, at } in activations {
                let conn = self.conn.clone();
                self.tell(Command::Activate { conn, channel, serial, at }).await;
            }
        }
        self.conn.flush();
        goes_on
    }

    async fn execute(&self, effect: Effect, deadline: Instant, activations: &mut Vec<Activation>) -> Outcome {
        let broker = self.shared.hub.broker();
        match effect {
            Effect::Ask(question) => Outcome::Asked(self.shared.hooks.ask(question).await),
            Effect::History { channel, options, query } => {
                Outcome::History(in_time(deadline, broker.history(&channel, &options, query)).await)
            }
            Effect::Presence { channel } => {
                Outcome::Presence(in_time(deadline, broker.members(&channel)).await)
            }
            Effect::Publish { channel, options, data } => {
                Outcome::Published(self.shared.publish(&channel, data, &options).await)
            }
            Effect::Subscribe { channel, serial, options, joining, since, member } => {
                self.shared.hub.acquire(&channel, &options);
                let result = match in_time(deadline, broker.ready(&channel)).await {
                    Ok(()) if joining => {
                        let joined = self.join(deadline, &channel, serial, &options, since.as_ref());
                        joined.await.map(Some)
                    }
                    Ok(()) => {
                        if member.is_some() {
                            // Before the members are read: who comes or goes until it is live is held for it.
                            let conn = self.conn.clone();
                            self.tell(Command::Subscribe { conn, channel: channel.clone(), serial }).await;
                        }
                        Ok(None)
                    }
                    Err(error) => Err(error),
                };
                match &result {
                    Ok(history) => {
                        if let Some(member) = member {
                            self.enter(deadline, &channel, &options, member).await;
                        }
                        let at =
                            history.as_ref().map(|history| (history.top.epoch.clone(), history.top.offset));
                        activations.push(Activation { channel, serial, at });
                    }
                    Err(_) => self.shared.hub.release(&channel),
                }
                Outcome::Subscribed(result)
            }
            Effect::Unsubscribe { channel } => {
                // One that was subscribed in the same frame is not live yet, and must not become so.
                activations.retain(|activation| activation.channel != channel);
                self.tell(Command::Unsubscribe { conn: self.conn.clone(), channel: channel.clone() }).await;
                self.leave(&channel).await;
                self.shared.hub.release(&channel);
                Outcome::Unsubscribed
            }
        }
    }

    /// Says that the session is on a channel. When that fails it is said again with the next round of all.
    async fn enter(
        &self,
        deadline: Instant,
        channel: &Channel,
        options: &Arc<ChannelOptions>,
        member: Arc<Member>,
    ) {
        self.shared.members.add(channel, member.clone());
        let _later = in_time(deadline, self.shared.hub.broker().enter(channel, options, &[member])).await;
    }

    /// Says that the session has left a channel. When that fails the broker forgets it in time.
    async fn leave(&self, channel: &Channel) {
        let Some(client) = self.conn.client() else { return };
        if self.shared.members.remove(channel, client).is_none() {
            return;
        }
        let Some(options) = self.shared.rules.options(channel) else { return };
        let deadline = Instant::from_std(clock::now() + self.shared.config.session.close_timeout);
        let leave = async {
            self.shared.members.told(channel).await;
            self.shared.hub.broker().leave(channel, &options, client).await
        };
        let _later = in_time(deadline, leave).await;
    }

    /// Waits for the channel, and reads what the client may have missed while the shard holds what comes.
    async fn join(
        &self,
        deadline: Instant,
        channel: &Channel,
        serial: u32,
        options: &Arc<ChannelOptions>,
        since: Option<&Position>,
    ) -> Result<History, BrokerError> {
        let conn = self.conn.clone();
        self.tell(Command::Subscribe { conn, channel: channel.clone(), serial }).await;
        let query = HistoryQuery {
            since: since.map(|since| since.offset),
            limit: if since.is_some() { self.shared.config.limits.max_recovered } else { 0 },
            reverse: false,
        };
        let span = since.map(|_| self.shared.telemetry.begin(Doing::Recover { channel }));
        let history = in_time(deadline, self.shared.hub.broker().history(channel, options, query)).await;
        if history.is_err() {
            self.tell(Command::Unsubscribe { conn: self.conn.clone(), channel: channel.clone() }).await;
        }
        if let (Some(since), Ok(history)) = (since, &history) {
            let metrics = &self.shared.metrics;
            let recovered = history.continues(since);
            Metrics::count(if recovered { &metrics.recovered } else { &metrics.unrecovered });
        }
        if let (Some(span), Some(since)) = (span, since) {
            span.recovered(history.as_ref(), since);
        }
        history
    }

    async fn tell(&self, command: Command) {
        self.shared.hub.tell(self.shard as usize, command).await;
    }

    async fn forget(&mut self, ended: Vec<(Channel, u32)>) {
        for (channel, serial) in ended {
            if self.machine.unsubscribed(&channel, serial) {
                self.leave(&channel).await;
                self.shared.hub.release(&channel);
            }
        }
    }
}

async fn in_time<T>(
    deadline: Instant,
    call: impl Future<Output = Result<T, BrokerError>>,
) -> Result<T, BrokerError> {
    match timeout_at(deadline, call).await {
        Ok(result) => result,
        Err(_elapsed) => Err(BrokerError::Unavailable),
    }
}

/// Gives the machine what was said; answers pings in passing.
fn decode(decoder: &mut Decoder, conn: &Conn, machine: &mut dyn Machine, mut bytes: &mut [u8]) -> Heard {
    let mut heard = Heard::default();
    if conn.protocol() == Protocol::Sse {
        // A reader of events has nothing to say.
        return heard;
    }
    let mut ponged = false;
    while heard.last.is_none() {
        match decoder.decode(&mut bytes) {
            Ok(None) => break,
            Ok(Some(Event::Text(text))) => match machine.hear(&text, clock::unix_seconds()) {
                Ok(()) => heard.asked = true,
                Err(code) => heard.last = Some(Last::Violation(code)),
            },
            Ok(Some(Event::Binary(_))) => heard.last = Some(Last::Violation(BAD_REQUEST)),
            Ok(Some(Event::Ping(payload))) => {
                conn.push(encode::frame(Opcode::Pong, &payload));
                ponged = true;
            }
            Ok(Some(Event::Pong)) => {}
            Ok(Some(Event::Close(code))) => heard.last = Some(Last::Goodbye(code)),
            Err(violation) => heard.last = Some(Last::Violation(violation.close_code())),
        }
    }
    if ponged {
        conn.flush();
    }
    heard
}
