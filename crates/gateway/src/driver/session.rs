//! The task of one WebSocket session: waits, reads, runs commands in their order.
//!
//! While it waits it holds one small future: reads go through a buffer of the thread, and everything bigger is
//! boxed for as long as it runs.

use super::conn::{Conn, Identity, Wake};
use super::shared::Shared;
use crate::broker::HistoryQuery;
use crate::error::BrokerError;
use crate::hub::Command;
use crate::hub::shard::Sink;
use crate::metrics::Metrics;
use crate::namespace::ChannelOptions;
use crate::publication::{Channel, Epoch, Position};
use crate::wire::centrifugo::command::{self, Command as Request};
use crate::wire::centrifugo::encode::Replies;
use crate::wire::centrifugo::session::{BAD_REQUEST, Effect, Outcome, Session, Step};
use crate::ws::close::CloseCode;
use crate::ws::decode::{Decoder, Event};
use crate::ws::{Opcode, encode};
use socket2::SockRef;
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use tokio::time::timeout;

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
    machine: Box<Session>,
    decoder: Decoder,
    shard: u32,
}

/// What one read gave.
#[derive(Default)]
struct Heard {
    commands: Vec<Request>,
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
    pub(crate) fn new(shared: Arc<Shared>, conn: Arc<Conn>, shard: usize) -> Self {
        let client = format!("{:032x}", fastrand::u128(..)).into_boxed_str();
        let machine = Box::new(Session::new(shared.rules.clone(), client));
        let decoder = Decoder::new(shared.config.limits.max_message);
        Self { shared, conn, machine, decoder, shard: shard as u32 }
    }

    /// Feeds bytes that came together with the request.
    pub(crate) async fn feed(&mut self, mut bytes: Vec<u8>) -> bool {
        let heard = decode(&mut self.decoder, &self.conn, &mut bytes);
        self.act(heard).await
    }

    /// Runs until the client has connected; false when it is over before.
    pub(crate) async fn run_until_connected(&mut self) -> bool {
        while !self.machine.is_connected() {
            if !self.turn().await {
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
        match poll_fn(|cx| self.conn.poll_wake(cx)).await {
            Wake::Closing | Wake::Gone => false,
            Wake::Notices(notices) => {
                self.forget(notices);
                true
            }
            Wake::Readable => {
                let heard = self.read();
                if heard.commands.is_empty() && heard.last.is_none() {
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
            self.shared.hub.release(channel);
        }
        let limit = self.shared.config.session.close_timeout;
        // Whether the client took the last frame in time changes nothing any more.
        drop(timeout(limit, self.say_goodbye()).await);
    }

    async fn say_goodbye(&self) {
        if !poll_fn(|cx| self.conn.poll_drained(cx)).await {
            return;
        }
        if SockRef::from(self.conn.stream()).shutdown(Shutdown::Write).is_err() {
            return;
        }
        // Hanging up with bytes unread would reset the connection, and the close frame with it.
        loop {
            if self.conn.stream().readable().await.is_err() {
                return;
            }
            let mut rest = [0; 1024];
            match self.conn.stream().try_read(&mut rest) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_gone) => return,
            }
        }
    }

    fn read(&mut self) -> Heard {
        READ_BUFFER.with_borrow_mut(|buffer| match self.conn.stream().try_read(buffer) {
            Ok(0) => Heard { commands: Vec::new(), last: Some(Last::Gone) },
            Ok(read) => {
                self.conn.heard();
                decode(&mut self.decoder, &self.conn, buffer.get_mut(..read).unwrap_or_default())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Heard::default(),
            Err(_gone) => Heard { commands: Vec::new(), last: Some(Last::Gone) },
        })
    }

    /// Does what was heard; false when the session is over.
    async fn act(&mut self, heard: Heard) -> bool {
        if !heard.commands.is_empty() && !self.run_commands(heard.commands).await {
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

    async fn run_commands(&mut self, commands: Vec<Request>) -> bool {
        let mut replies = Replies::default();
        let mut activations = Vec::new();
        let mut closed = None;
        for command in commands {
            let ended = self.conn.notices();
            self.forget(ended);
            match self.machine.handle(command, &mut replies) {
                Step::Close(code) => {
                    closed = Some(code);
                    break;
                }
                Step::Done => {}
                Step::Run(effect) => {
                    let outcome = self.execute(effect, &mut activations).await;
                    self.machine.complete(outcome, &mut replies);
                }
            }
        }
        if let Some(frame) = replies.into_frame() {
            self.conn.push(frame);
        }
        if let Some(code) = closed {
            Metrics::count(&self.shared.metrics.violations);
            self.conn.close(code, false);
        } else {
            if let Some(identity) = self.machine.take_identity() {
                let (client, user) = identity;
                self.conn.identify(Identity { client, user });
            }
            // After the replies and before the flush: publications queue behind the reply that announces them.
            for Activation { channel, serial, at } in activations {
                let conn = self.conn.clone();
                self.tell(Command::Activate { conn, channel, serial, at }).await;
            }
        }
        self.conn.flush();
        closed.is_none()
    }

    async fn execute(&self, effect: Effect, activations: &mut Vec<Activation>) -> Outcome {
        let broker = self.shared.hub.broker();
        match effect {
            Effect::History { channel, options, query } => {
                Outcome::History(self.in_time(broker.history(&channel, &options, query)).await)
            }
            Effect::Publish { channel, options, data } => {
                let published = broker.publish(&channel, data, &options).await;
                let counter = match &published {
                    Ok(_) => &self.shared.metrics.published,
                    Err(_) => &self.shared.metrics.publish_failed,
                };
                Metrics::count(counter);
                Outcome::Published(published)
            }
            Effect::Subscribe { channel, serial, options, since } => {
                self.shared.hub.acquire(&channel, &options);
                let result = self.join(&channel, serial, &options, since.as_ref()).await;
                match &result {
                    Ok(history) => {
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
                self.shared.hub.release(&channel);
                Outcome::Unsubscribed
            }
        }
    }

    /// Waits for the channel, and reads what the client may have missed while the shard holds what comes.
    async fn join(
        &self,
        channel: &Channel,
        serial: u32,
        options: &Arc<ChannelOptions>,
        since: Option<&Position>,
    ) -> Result<Option<crate::broker::History>, BrokerError> {
        let broker = self.shared.hub.broker();
        self.in_time(broker.ready(channel)).await?;
        if !options.keeps_history() {
            return Ok(None);
        }
        let conn = self.conn.clone();
        self.tell(Command::Subscribe { conn, channel: channel.clone(), serial }).await;
        let query = HistoryQuery {
            since: since.map(|since| since.offset),
            limit: if since.is_some() { self.shared.config.limits.max_recovered } else { 0 },
            reverse: false,
        };
        let history = self.in_time(broker.history(channel, options, query)).await;
        if history.is_err() {
            self.tell(Command::Unsubscribe { conn: self.conn.clone(), channel: channel.clone() }).await;
        }
        if let (Some(since), Ok(history)) = (since, &history) {
            let metrics = &self.shared.metrics;
            let recovered = history.continues(since);
            Metrics::count(if recovered { &metrics.recovered } else { &metrics.unrecovered });
        }
        history.map(Some)
    }

    async fn in_time<T>(&self, call: impl Future<Output = Result<T, BrokerError>>) -> Result<T, BrokerError> {
        match timeout(self.shared.config.outage.subscribe_timeout, call).await {
            Ok(result) => result,
            Err(_elapsed) => Err(BrokerError::Unavailable),
        }
    }

    async fn tell(&self, command: Command) {
        self.shared.hub.tell(self.shard as usize, command).await;
    }

    fn forget(&mut self, ended: Vec<(Channel, u32)>) {
        for (channel, serial) in ended {
            if self.machine.unsubscribed(&channel, serial) {
                self.shared.hub.release(&channel);
            }
        }
    }
}

/// Turns bytes into commands; answers pings in passing.
fn decode(decoder: &mut Decoder, conn: &Conn, mut bytes: &mut [u8]) -> Heard {
    let mut heard = Heard::default();
    let mut ponged = false;
    while heard.last.is_none() {
        match decoder.decode(&mut bytes) {
            Ok(None) => break,
            Ok(Some(Event::Text(text))) => match command::parse(&text) {
                Ok(more) if heard.commands.is_empty() => heard.commands = more,
                Ok(more) => heard.commands.extend(more),
                Err(_bad) => heard.last = Some(Last::Violation(BAD_REQUEST)),
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
