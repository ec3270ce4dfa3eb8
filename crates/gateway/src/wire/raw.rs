//! Plain WebSocket at `/ws/<channel>`: every publication is one text frame, every text frame a publication.
//!
//! A publication that is a JSON string goes out as its text, any other as its JSON. There is no way to tell
//! such a client of a gap but to close its session (code 4000), so that it comes again.

use crate::hooks::{Asking, Headers, Hook, Verdict};
use crate::namespace::{Access, ChannelOptions};
use crate::publication::{Channel, Position, Publication, json_line};
use crate::wire::machine::{Effect, Machine, Outcome, Rules, Step};
use crate::ws;
use crate::ws::close::CloseCode;
use bytes::Bytes;
use serde_json::value::RawValue;
use std::collections::VecDeque;
use std::sync::Arc;

/// Publications may be missing.
pub(crate) const GAP: CloseCode = CloseCode::new(4000, "gap");
const UNAVAILABLE: CloseCode = CloseCode::new(1013, "try again later");
const FORBIDDEN: CloseCode = CloseCode::new(1008, "not allowed here");
const TOO_BIG: CloseCode = CloseCode::new(1009, "message too big");

/// Encodes a publication.
pub(super) fn publication(publication: &Publication) -> Bytes {
    match serde_json::from_slice::<String>(publication.data()) {
        Ok(text) => ws::encode::text(text.as_bytes()),
        Err(_other) => ws::encode::text(publication.data()),
    }
}

/// One session, of a plain WebSocket or of server-sent events: subscribed to one channel from its beginning.
#[derive(Debug)]
pub(crate) struct Session {
    rules: Arc<Rules>,
    channel: Channel,
    options: Arc<ChannelOptions>,
    /// What the client saw last.
    since: Option<Position>,
    /// Whether a client of a channel with history gets what it missed.
    joining: bool,
    /// Whether it is one of server-sent events.
    events: bool,
    begun: bool,
    subscribed: bool,
    heard: VecDeque<Bytes>,
    /// What is to be sent before anything live.
    frames: Vec<u8>,
    /// What goes to hooks.
    headers: Headers,
    /// Whether the hook was asked for the subscription.
    asked: bool,
    /// The publication that the hook is asked for.
    pending: Option<Bytes>,
    /// What follows from the last outcome.
    next: Option<Box<Step>>,
}

impl Session {
    pub(crate) fn new(
        rules: Arc<Rules>,
        channel: Channel,
        options: Arc<ChannelOptions>,
        headers: Headers,
    ) -> Self {
        Self {
            rules,
            channel,
            options,
            since: None,
            joining: false,
            events: false,
            begun: false,
            subscribed: false,
            heard: VecDeque::new(),
            frames: Vec::new(),
            headers,
            asked: false,
            pending: None,
            next: None,
        }
    }

    fn ask(&self, hook: Hook, data: Option<&Bytes>) -> Step {
        let data = data.and_then(|data| serde_json::from_slice::<&RawValue>(data).ok());
        let asking = Asking {
            transport: if self.events { "sse" } else { "websocket" },
            protocol: "raw",
            encoding: "json",
            channel: &self.channel,
            data,
            ..Asking::default()
        };
        Step::Run(Effect::Ask(asking.question(hook, &self.headers)))
    }

    fn publish(&self, data: Bytes) -> Step {
        Step::Run(Effect::Publish { channel: self.channel.clone(), options: self.options.clone(), data })
    }

    fn asked(&mut self, verdict: Verdict) {
        let data = self.pending.take();
        let next = match (verdict, data) {
            // The subscription is what comes next by itself.
            (Verdict::Allowed(_), None) => return,
            (Verdict::Allowed(allowed), Some(data)) => {
                let data = allowed.data.map_or(data, |data| json_line(Bytes::from(data.get().to_owned())));
                if data.len() > self.rules.limits.max_publication {
                    Step::Close(TOO_BIG)
                } else {
                    self.publish(data)
                }
            }
            (Verdict::Disconnect { code, reason }, _) if !self.events => {
                Step::End(ws::encode::close_with(code, &reason))
            }
            (Verdict::Disconnect { .. } | Verdict::Refused(_), _) => Step::Close(FORBIDDEN),
            (Verdict::Failed, _) => Step::Close(UNAVAILABLE),
        };
        self.next = Some(Box::new(next));
    }

    /// Makes it a session of server-sent events that goes on after `since`.
    pub(crate) fn events(mut self, since: Option<Position>) -> Self {
        self.events = true;
        self.joining = self.options.keeps_history();
        self.since = since.filter(|_| self.options.recovery);
        self
    }
}

impl Machine for Session {
    fn hear(&mut self, text: &str, _now: u64) -> Result<(), CloseCode> {
        if !self.options.publish.allows("") && self.options.publish != Access::Hook {
            return Err(FORBIDDEN);
        }
        let data = json_line(Bytes::copy_from_slice(text.as_bytes()));
        if data.len() > self.rules.limits.max_publication {
            return Err(TOO_BIG);
        }
        self.heard.push_back(data);
        Ok(())
    }

    fn step(&mut self) -> Option<Step> {
        if let Some(next) = self.next.take() {
            return Some(*next);
        }
        let (channel, options) = (self.channel.clone(), self.options.clone());
        if !self.begun {
            if options.subscribe == Access::Hook && !self.asked {
                self.asked = true;
                return Some(self.ask(Hook::Subscribe, None));
            }
            self.begun = true;
            let (joining, since) = (self.joining, self.since.clone());
            return Some(Step::Run(Effect::Subscribe {
                channel,
                serial: 1,
                options,
                joining,
                since,
                member: None,
            }));
        }
        let data = self.heard.pop_front()?;
        if options.publish == Access::Hook {
            let step = self.ask(Hook::Publish, Some(&data));
            self.pending = Some(data);
            return Some(step);
        }
        Some(self.publish(data))
    }

    fn complete(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Subscribed(Ok(history)) => {
                self.subscribed = true;
                let Some(history) = history else { return };
                if self.since.as_ref().is_some_and(|since| !history.continues(since)) {
                    self.frames.extend_from_slice(&super::sse::gap());
                } else {
                    for publication in &history.publications {
                        self.frames.extend_from_slice(&super::sse::publication(publication));
                    }
                }
            }
            Outcome::Subscribed(Err(_)) => self.next = Some(Box::new(Step::Close(UNAVAILABLE))),
            Outcome::Asked(verdict) => self.asked(verdict),
            // A plain socket has no answers; what was not published shows in the metrics.
            Outcome::History(_) | Outcome::Presence(_) | Outcome::Published(_) | Outcome::Unsubscribed => {}
        }
    }

    fn take_frames(&mut self) -> Option<Bytes> {
        (!self.frames.is_empty()).then(|| Bytes::from(std::mem::take(&mut self.frames)))
    }

    fn is_connected(&self) -> bool {
        self.begun
    }

    fn take_identity(&mut self) -> Option<(Box<str>, Box<str>)> {
        None
    }

    fn channels(&self) -> Vec<Channel> {
        if self.subscribed { vec![self.channel.clone()] } else { Vec::new() }
    }

    fn unsubscribed(&mut self, channel: &Channel, _serial: u32) -> bool {
        self.subscribed && *channel == self.channel && {
            self.subscribed = false;
            true
        }
    }
}
