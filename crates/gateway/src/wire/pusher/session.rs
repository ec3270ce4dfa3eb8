//! The session machine of Pusher's protocol.
//!
//! ```text
//! open (connection_established is the first frame) --subscribe, client events--> open --violation--> closed
//! ```

use super::{auth, encode, is_signed};
use crate::config::PusherConfig;
use crate::error::BrokerError;
use crate::hooks::{Asking, Headers, Hook, Verdict};
use crate::namespace::Access;
use crate::presence::Member;
use crate::publication::{Channel, json_line};
use crate::wire::machine::{Effect, Machine, Outcome, Rules, Step};
use crate::ws;
use crate::ws::close::CloseCode;
use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;

/// What clients are told to wait in silence before they send a heartbeat.
const ACTIVITY_TIMEOUT: u64 = 120;
/// Codes from 4000 to 4099 keep a client from coming back.
const BAD_MESSAGE: CloseCode = CloseCode::new(4006, "invalid message");

#[derive(Deserialize)]
struct Heard {
    event: String,
    #[serde(default)]
    channel: String,
    #[serde(default)]
    data: Value,
}

/// One session.
#[derive(Debug)]
pub(crate) struct Session {
    rules: Arc<Rules>,
    app: Arc<PusherConfig>,
    socket: Box<str>,
    named: bool,
    subscriptions: Vec<(Channel, u32)>,
    serial: u32,
    heard: VecDeque<Box<Heard>>,
    pending: Option<Channel>,
    /// The channel just subscribed to whose members are to be told next.
    lists: Option<Channel>,
    frames: BytesMut,
    errors: usize,
    /// What goes to hooks.
    headers: Headers,
    /// What is done when the hook lets it.
    asked: Option<Box<Effect>>,
    /// What follows from the last outcome.
    next: Option<Box<Step>>,
}

/// Who a client is on a presence channel, as its server signed it.
#[derive(Deserialize)]
struct ChannelData {
    user_id: Value,
    user_info: Option<Box<RawValue>>,
}

impl ChannelData {
    fn member(self, socket: &str) -> Member {
        // Some servers sign numbers.
        let user = self.user_id.as_str().map_or_else(|| self.user_id.to_string(), str::to_owned);
        Member::new(socket, &user, self.user_info)
    }
}

impl std::fmt::Debug for Heard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Heard").field("event", &self.event).finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) fn new(rules: Arc<Rules>, app: Arc<PusherConfig>, socket: Box<str>, headers: Headers) -> Self {
        let mut session = Self {
            rules,
            app,
            socket,
            named: false,
            subscriptions: Vec::new(),
            serial: 0,
            heard: VecDeque::new(),
            pending: None,
            lists: None,
            frames: BytesMut::new(),
            errors: 0,
            headers,
            asked: None,
            next: None,
        };
        let hello = json!({ "socket_id": &*session.socket, "activity_timeout": ACTIVITY_TIMEOUT });
        session.say(&json!({ "event": "pusher:connection_established", "data": hello.to_string() }));
        session
    }

    fn say(&mut self, event: &Value) {
        let is_error = matches!(event["event"].as_str(), Some("pusher:error" | "pusher:subscription_error"));
        self.errors += usize::from(is_error);
        self.frames.extend_from_slice(&encode::frame(event));
    }

    fn fail(&mut self, channel: &str, kind: &str, error: &str, status: u16) -> Step {
        self.say(&json!({
            "event": "pusher:subscription_error",
            "channel": channel,
            "data": { "type": kind, "error": error, "status": status },
        }));
        Step::Done
    }

    fn handle(&mut self, heard: &Heard) -> Step {
        match &*heard.event {
            "pusher:ping" => {
                self.say(&json!({ "event": "pusher:pong", "data": {} }));
                Step::Done
            }
            "pusher:pong" => Step::Done,
            "pusher:subscribe" => self.subscribe(&heard.data),
            "pusher:unsubscribe" => {
                let name = text(&heard.data, "channel");
                let Some(at) = self.subscriptions.iter().position(|(channel, _)| **channel == *name) else {
                    return Step::Done;
                };
                let (channel, _) = self.subscriptions.swap_remove(at);
                Step::Run(Effect::Unsubscribe { channel })
            }
            event if event.starts_with("client-") => self.relay(heard),
            _ => {
                self.say(&json!({ "event": "pusher:error",
                    "data": { "code": null, "message": "this event is not known here" } }));
                Step::Done
            }
        }
    }

    fn subscribe(&mut self, data: &Value) -> Step {
        let name = text(data, "channel");
        if name.is_empty() || name.len() > self.rules.limits.max_channel_name {
            return self.fail(name, "InvalidChannel", "the channel's name is missing or too long", 400);
        }
        if self.subscriptions.iter().any(|(channel, _)| **channel == *name) {
            return Step::Done;
        }
        if self.subscriptions.len() >= self.rules.limits.max_channels {
            return self.fail(name, "LimitExceeded", "too many channels", 403);
        }
        let Some(options) = self.rules.options(name) else {
            return self.fail(name, "UnknownChannel", "the namespace is not known here", 404);
        };
        let user = text(data, "channel_data");
        let presents = name.starts_with("presence-");
        let allowed = if is_signed(name) {
            let parts: &[&str] = if presents { &[&self.socket, name, user] } else { &[&self.socket, name] };
            auth::signs(&self.app.key, &self.app.secret, text(data, "auth"), parts)
        } else {
            options.subscribe.allows("") || options.subscribe == Access::Hook
        };
        if !allowed {
            return self.fail(name, "AuthError", "the subscription is not authorized", 401);
        }
        let member = match (presents, serde_json::from_str::<ChannelData>(user)) {
            (true, Ok(data)) => Some(Arc::new(data.member(&self.socket))),
            (true, Err(_bad)) => {
                return self.fail(name, "InvalidData", "channel_data needs a user_id", 400);
            }
            (false, _) => None,
        };
        let channel = Channel::from(name);
        self.serial += 1;
        self.pending = Some(channel.clone());
        let asks = options.subscribe == Access::Hook && !is_signed(name);
        let serial = self.serial;
        let effect = Effect::Subscribe { channel, serial, options, joining: false, since: None, member };
        if asks { self.ask(Hook::Subscribe, name, None, effect) } else { Step::Run(effect) }
    }

    /// Asks a hook before something is done.
    fn ask(&mut self, hook: Hook, channel: &str, data: Option<&Bytes>, then: Effect) -> Step {
        let data = data.and_then(|data| serde_json::from_slice::<&RawValue>(data).ok());
        let asking = Asking {
            client: &self.socket,
            transport: "websocket",
            protocol: "pusher",
            encoding: "json",
            channel,
            data,
            ..Asking::default()
        };
        self.asked = Some(Box::new(then));
        Step::Run(Effect::Ask(asking.question(hook, &self.headers)))
    }

    fn answered(&mut self, verdict: Verdict) {
        let Some(mut effect) = self.asked.take() else { return };
        let (error, kind, status) = match verdict {
            Verdict::Allowed(allowed) => {
                if let (Effect::Publish { data, .. }, Some(fresh)) = (&mut *effect, allowed.data) {
                    *data = json_line(Bytes::from(fresh.get().to_owned()));
                }
                self.next = Some(Box::new(Step::Run(*effect)));
                return;
            }
            Verdict::Disconnect { code, reason } => {
                self.next = Some(Box::new(Step::End(ws::encode::close_with(code, &reason))));
                return;
            }
            Verdict::Refused(refused) => (refused.message, "AuthError", 403),
            Verdict::Failed => ("the application cannot be asked now".to_owned(), "Unavailable", 503),
        };
        match self.pending.take() {
            Some(channel) => drop(self.fail(&channel, kind, &error, status)),
            None => self.say(&json!({ "event": "pusher:error", "data": { "code": 4301, "message": error } })),
        }
    }

    /// Gives a client's own event to the others on the channel.
    fn relay(&mut self, heard: &Heard) -> Step {
        let refused = if !self.app.client_events {
            "client events are not switched on"
        } else if !is_signed(&heard.channel) {
            "client events are for private channels"
        } else if !self.subscriptions.iter().any(|(channel, _)| **channel == *heard.channel) {
            "the channel is not subscribed to"
        } else {
            ""
        };
        let options = self.rules.namespaces.options(&heard.channel).cloned();
        let (true, Some(options)) = (refused.is_empty(), options) else {
            self.say(&json!({ "event": "pusher:error", "data": { "code": 4301, "message": refused } }));
            return Step::Done;
        };
        let data = json!({ "event": heard.event, "data": heard.data, "socket": &*self.socket });
        let data = json_line(Bytes::from(data.to_string()));
        let asks = options.publish == Access::Hook;
        let effect = Effect::Publish { channel: heard.channel.as_str().into(), options, data: data.clone() };
        if asks { self.ask(Hook::Publish, &heard.channel, Some(&data), effect) } else { Step::Run(effect) }
    }
}

fn text<'a>(data: &'a Value, field: &str) -> &'a str {
    data.get(field).and_then(Value::as_str).unwrap_or_default()
}

impl Machine for Session {
    fn hear(&mut self, text: &str, _now: u64) -> Result<(), CloseCode> {
        let heard = serde_json::from_str(text).map_err(|_bad| BAD_MESSAGE)?;
        self.heard.push_back(Box::new(heard));
        Ok(())
    }

    fn step(&mut self) -> Option<Step> {
        if let Some(next) = self.next.take() {
            return Some(*next);
        }
        if let Some(channel) = self.lists.take() {
            self.pending = Some(channel.clone());
            return Some(Step::Run(Effect::Presence { channel }));
        }
        let Some(heard) = self.heard.pop_front() else {
            self.heard = VecDeque::new();
            return None;
        };
        Some(self.handle(&heard))
    }

    fn complete(&mut self, outcome: Outcome) {
        let failed = "Redis is away";
        match outcome {
            Outcome::Subscribed(result) => {
                let Some(channel) = self.pending.take() else { return };
                match result {
                    Ok(_) if channel.starts_with("presence-") => {
                        self.subscriptions.push((channel.clone(), self.serial));
                        self.lists = Some(channel);
                    }
                    Ok(_) => {
                        self.say(&json!({ "event": "pusher_internal:subscription_succeeded",
                            "channel": &*channel, "data": "{}" }));
                        self.subscriptions.push((channel, self.serial));
                    }
                    Err(_) => drop(self.fail(&channel, "Unavailable", failed, 503)),
                }
            }
            Outcome::Presence(members) => {
                let Some(channel) = self.pending.take() else { return };
                let data = encode::members(&members.unwrap_or_default());
                self.say(&json!({ "event": "pusher_internal:subscription_succeeded",
                    "channel": &*channel, "data": data }));
            }
            Outcome::Published(Err(error)) if error != BrokerError::Unsupported => {
                self.say(&json!({ "event": "pusher:error", "data": { "code": 4301, "message": failed } }));
            }
            Outcome::Asked(verdict) => self.answered(verdict),
            Outcome::History(_) | Outcome::Published(_) | Outcome::Unsubscribed => {}
        }
    }

    fn take_frames(&mut self) -> Option<Bytes> {
        (!self.frames.is_empty()).then(|| std::mem::take(&mut self.frames).freeze())
    }

    fn take_errors(&mut self) -> usize {
        std::mem::take(&mut self.errors)
    }

    fn is_connected(&self) -> bool {
        true
    }

    fn take_identity(&mut self) -> Option<(Box<str>, Box<str>)> {
        (!std::mem::replace(&mut self.named, true)).then(|| (self.socket.clone(), Box::default()))
    }

    fn channels(&self) -> Vec<Channel> {
        self.subscriptions.iter().map(|(channel, _)| channel.clone()).collect()
    }

    fn unsubscribed(&mut self, channel: &Channel, serial: u32) -> bool {
        let before = self.subscriptions.len();
        self.subscriptions.retain(|(other, number)| other != channel || *number != serial);
        self.subscriptions.len() < before
    }
}
