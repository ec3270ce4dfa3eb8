//! The session machine of Centrifugo's protocol: commands in, effects and replies out.
//!
//! A client connects first, and may then subscribe, publish and read as its channels' options allow.
//!
//! ```text
//! opening --connect--> connected --violation--> (closed by the driver with the code given)
//! ```

use super::ReplyError;
use super::command::{self, Command, Connect, History as HistoryRequest, Publish, Subscribe};
use super::encode::Replies;
use crate::broker::HistoryQuery;
use crate::error::BrokerError;
use crate::hooks::{Asking, Headers, Hook, Question, Verdict};
use crate::hub::Order;
use crate::namespace::{Access, ChannelOptions};
use crate::presence::Member;
use crate::publication::{Channel, Epoch, Position, json_line};
use crate::token::{Claims, Rejected};
use crate::wire::machine::{Effect, Machine, Outcome, Rules, Step};
use crate::ws;
use crate::ws::close::CloseCode;
use bytes::Bytes;
use serde_json::value::RawValue;
use std::sync::Arc;

pub(crate) const BAD_REQUEST: CloseCode = CloseCode::new(3501, "bad request");
const INVALID_TOKEN: CloseCode = CloseCode::new(3500, "invalid token");
const EXPIRED: CloseCode = CloseCode::new(3005, "connection expired");
/// Seconds that a client stays whose hook gave no answer that can be used; then it is asked again.
const ASK_AGAIN: u64 = 60;

/// One session.
#[derive(Debug)]
pub(crate) struct Session {
    rules: Arc<Rules>,
    client: Box<str>,
    user: Box<str>,
    /// What the client's token says of it, for others to see.
    info: Option<Box<RawValue>>,
    identified: bool,
    connected: bool,
    channels: Vec<Subscription>,
    /// The number of the latest subscription.
    serial: u32,
    /// When the latest message came, in seconds since 1970.
    now: u64,
    /// When the client's token ends; 0 for never.
    expires: u64,
    pending: Option<Pending>,
    /// What follows from the last outcome.
    next: Option<Box<Step>>,
    /// Channels that the server API wants subscribed.
    enlisted: Vec<Channel>,
    /// Whether a hook let the client in, and is asked again at the end.
    hooked: bool,
    /// Whether what has ended is to be seen to.
    renews: bool,
    /// What goes to hooks.
    headers: Headers,
    /// Commands that were heard and not handled yet, the next one last.
    heard: Vec<Command>,
    replies: Replies,
}

/// A channel subscribed to, and which of the session's subscriptions this is: news of an older one on the same
/// channel must not end it.
#[derive(Debug)]
struct Subscription {
    channel: Channel,
    serial: u32,
    /// When the permission for it ends, in seconds since 1970; 0 for never.
    expires: u64,
}

/// The command whose effect is under way.
#[derive(Debug)]
enum Pending {
    /// A hook is asked: for the connection, or for what is done then.
    Ask {
        id: u32,
        then: Option<Box<(Self, Effect)>>,
    },
    /// A hook is asked whether the connection, or a subscription, goes on.
    AskOn {
        channel: Option<Channel>,
    },
    /// A subscription ends whose permission has.
    Expire {
        channel: Channel,
    },
    /// The server API subscribes the client.
    Enlist {
        channel: Channel,
        recoverable: bool,
    },
    History {
        id: u32,
        since: Option<Epoch>,
    },
    Presence {
        id: u32,
        count: bool,
    },
    Publish {
        id: u32,
    },
    Subscribe {
        id: u32,
        channel: Channel,
        recoverable: bool,
        since: Option<Position>,
        expires: u64,
    },
    Unsubscribe {
        id: u32,
    },
}

impl Session {
    pub(crate) fn new(rules: Arc<Rules>, client: Box<str>, headers: Headers) -> Self {
        Self {
            rules,
            client,
            user: Box::default(),
            info: None,
            identified: false,
            connected: false,
            channels: Vec::new(),
            serial: 0,
            now: 0,
            expires: 0,
            pending: None,
            next: None,
            enlisted: Vec::new(),
            hooked: false,
            renews: false,
            headers,
            heard: Vec::new(),
            replies: Replies::default(),
        }
    }

    fn handle(&mut self, command: Command) -> Step {
        let id = command.id;
        if id == 0 && command.send.is_none() {
            return Step::Close(BAD_REQUEST);
        }
        if let Some(connect) = command.connect {
            if self.connected {
                return Step::Close(BAD_REQUEST);
            }
            return self.connect(id, &connect);
        }
        if !self.connected {
            return Step::Close(BAD_REQUEST);
        }
        let result = if let Some(subscribe) = command.subscribe {
            self.subscribe(id, subscribe)
        } else if let Some(unsubscribe) = command.unsubscribe {
            Ok(self.unsubscribe(id, &unsubscribe.channel))
        } else if let Some(publish) = command.publish {
            self.publish(id, publish)
        } else if let Some(history) = command.history {
            self.history(id, &history)
        } else if let Some(refresh) = command.refresh {
            return self.refresh(id, &refresh.token);
        } else if command.ping.is_some() {
            self.replies.empty(id, "ping");
            Ok(Step::Done)
        } else if command.send.is_some() {
            Ok(Step::Done)
        } else if let Some(presence) = command.presence {
            self.presence(id, presence.channel, false)
        } else if let Some(presence) = command.presence_stats {
            self.presence(id, presence.channel, true)
        } else if command.rpc.is_some() || command.sub_refresh.is_some() {
            Err(ReplyError::NOT_AVAILABLE)
        } else {
            Err(ReplyError::METHOD_NOT_FOUND)
        };
        result.unwrap_or_else(|error| {
            self.replies.error(id, error);
            Step::Done
        })
    }

    fn finish(&mut self, outcome: Outcome) {
        match (self.pending.take(), outcome) {
            (
                Some(Pending::Subscribe { id, channel, recoverable, since, expires }),
                Outcome::Subscribed(result),
            ) => match result {
                Ok(None) => {
                    self.channels.push(Subscription { channel, serial: self.serial, expires });
                    self.replies.subscribed(id);
                }
                Ok(Some(history)) => {
                    self.channels.push(Subscription { channel, serial: self.serial, expires });
                    let recovered = since.map(|since| history.continues(&since));
                    self.replies.subscribed_at(id, recoverable, &history, recovered);
                }
                Err(error) => self.replies.error(id, reply_error(error)),
            },
            (Some(Pending::Enlist { channel, recoverable }), Outcome::Subscribed(Ok(history))) => {
                self.replies.enlisted(&channel, recoverable, history.as_ref());
                self.channels.push(Subscription { channel, serial: self.serial, expires: 0 });
            }
            (Some(Pending::Ask { id, then }), Outcome::Asked(verdict)) => self.answered(id, then, verdict),
            (Some(Pending::AskOn { channel }), Outcome::Asked(verdict)) => self.goes_on(channel, verdict),
            (Some(Pending::Expire { channel }), Outcome::Unsubscribed) => self.replies.ended(&channel),
            (Some(Pending::Presence { id, count }), Outcome::Presence(result)) => match result {
                Ok(members) => self.replies.presence(id, &members, count),
                Err(error) => self.replies.error(id, reply_error(error)),
            },
            (Some(Pending::Publish { id }), Outcome::Published(result)) => match result {
                Ok(_) => self.replies.empty(id, "publish"),
                Err(error) => self.replies.error(id, reply_error(error)),
            },
            (Some(Pending::History { id, since }), Outcome::History(result)) => match result {
                Ok(history) if since.is_some_and(|epoch| epoch != history.top.epoch) => {
                    self.replies.error(id, ReplyError::UNRECOVERABLE);
                }
                Ok(history) => self.replies.history(id, &history),
                Err(error) => self.replies.error(id, reply_error(error)),
            },
            (Some(Pending::Unsubscribe { id }), Outcome::Unsubscribed) => {
                self.replies.empty(id, "unsubscribe");
            }
            // An outcome that nobody waits for changes nothing.
            _ => {}
        }
    }

    fn options(&self, channel: &str) -> Result<Arc<ChannelOptions>, ReplyError> {
        if channel.is_empty() {
            return Err(ReplyError::BAD_REQUEST);
        }
        if channel.len() > self.rules.limits.max_channel_name {
            return Err(ReplyError::BAD_REQUEST);
        }
        if self.rules.is_reserved(channel) {
            return Err(ReplyError::PERMISSION_DENIED);
        }
        self.rules.options(channel).ok_or(ReplyError::UNKNOWN_CHANNEL)
    }

    fn names(&self) -> impl Iterator<Item = &Channel> {
        self.channels.iter().map(|subscription| &subscription.channel)
    }

    fn is_subscribed(&self, channel: &str) -> bool {
        self.names().any(|other| &**other == channel)
    }

    fn subscribe(&mut self, id: u32, request: Subscribe) -> Result<Step, ReplyError> {
        let options = self.options(&request.channel)?;
        if request.kind != 0 {
            return Err(ReplyError::NOT_AVAILABLE);
        }
        if self.is_subscribed(&request.channel) {
            return Err(ReplyError::ALREADY_SUBSCRIBED);
        }
        let by_token = self.rules.tokens.is_some() && !request.token.is_empty();
        let asks = options.subscribe == Access::Hook && !by_token;
        if !asks && !options.subscribe.allows(&self.user) {
            self.check_channel_token(&request)?;
        }
        if self.channels.len() >= self.rules.limits.max_channels {
            return Err(ReplyError::LIMIT_EXCEEDED);
        }
        let channel = Channel::from(request.channel);
        let since = (request.recover && options.recovery)
            .then(|| Position { epoch: request.epoch.into(), offset: request.offset });
        self.serial += 1;
        let recoverable = options.recovery;
        let pending = Pending::Subscribe {
            id,
            channel: channel.clone(),
            recoverable,
            since: since.clone(),
            expires: 0,
        };
        let member = self.member(&options);
        let effect = Effect::Subscribe {
            member,
            channel: channel.clone(),
            serial: self.serial,
            joining: options.keeps_history(),
            options,
            since,
        };
        if asks {
            let asking = Asking { channel: &channel, data: request.data.as_deref(), ..self.asking() };
            let question = asking.question(Hook::Subscribe, &self.headers);
            return Ok(self.ask(id, question, Some((pending, effect))));
        }
        self.pending = Some(pending);
        Ok(Step::Run(effect))
    }

    /// Subscribes the client as the server API wants it, if it is not yet and has room.
    fn enlist(&mut self, channel: Channel) -> Step {
        let full = self.channels.len() >= self.rules.limits.max_channels;
        let (Some(options), false) = (self.rules.options(&channel), full || self.is_subscribed(&channel))
        else {
            return Step::Done;
        };
        self.serial += 1;
        self.pending = Some(Pending::Enlist { channel: channel.clone(), recoverable: options.recovery });
        let member = self.member(&options);
        let joining = options.keeps_history();
        Step::Run(Effect::Subscribe { channel, serial: self.serial, options, joining, since: None, member })
    }

    fn member(&self, options: &ChannelOptions) -> Option<Arc<Member>> {
        let member = || Arc::new(Member::new(&self.client, &self.user, self.info.clone()));
        options.keeps_presence().then(member)
    }

    /// What every question says of the client.
    fn asking(&self) -> Asking<'_> {
        let (client, user) = (&*self.client, &*self.user);
        Asking {
            client,
            user,
            transport: "websocket",
            protocol: "json",
            encoding: "json",
            ..Asking::default()
        }
    }

    fn ask(&mut self, id: u32, question: Question, then: Option<(Pending, Effect)>) -> Step {
        self.pending = Some(Pending::Ask { id, then: then.map(Box::new) });
        Step::Run(Effect::Ask(question))
    }

    fn answered(&mut self, id: u32, then: Option<Box<(Pending, Effect)>>, verdict: Verdict) {
        if then.is_none() && !matches!(verdict, Verdict::Allowed(_)) {
            // What came with the connect command has nobody to come from.
            self.heard = Vec::new();
        }
        match (verdict, then) {
            (Verdict::Allowed(allowed), None) => {
                self.hooked = true;
                self.user = allowed.user.into();
                self.info = allowed.info;
                self.expires = allowed.expire_at;
                self.connected = true;
                // A client that has no token is told of no end: it comes again, and the hook is asked again.
                let data = allowed.data.as_deref();
                self.replies.connected(id, &self.client, self.rules.ping_seconds, None, data);
            }
            (Verdict::Allowed(allowed), Some(then)) => {
                let (mut pending, mut effect) = *then;
                if let Pending::Subscribe { expires, .. } = &mut pending {
                    *expires = allowed.expire_at;
                }
                match (&mut effect, allowed.data, allowed.info) {
                    (Effect::Publish { data, .. }, Some(fresh), _) => {
                        *data = json_line(Bytes::from(String::from(Box::<str>::from(fresh))));
                        if data.len() > self.rules.limits.max_publication {
                            return self.replies.error(id, ReplyError::LIMIT_EXCEEDED);
                        }
                    }
                    (Effect::Subscribe { member: Some(member), .. }, _, Some(info)) => {
                        *member = Arc::new(Member::new(&self.client, &self.user, Some(info)));
                    }
                    _ => {}
                }
                self.pending = Some(pending);
                self.next = Some(Box::new(Step::Run(effect)));
            }
            (Verdict::Disconnect { code, reason }, _) => {
                self.next = Some(Box::new(Step::End(ws::encode::close_with(code, &reason))));
            }
            (Verdict::Failed, _) => self.replies.error(id, ReplyError::INTERNAL),
            (Verdict::Refused(refused), _) => self.replies.refused(id, &refused),
        }
    }

    /// Sees to the next permission that has ended.
    fn renew(&mut self) -> Option<Step> {
        if self.hooked && self.rules.asks_refresh && has_ended(self.expires, self.now) {
            self.pending = Some(Pending::AskOn { channel: None });
            let question = self.asking().question(Hook::Refresh, &self.headers);
            return Some(Step::Run(Effect::Ask(question)));
        }
        let ended = self.channels.iter().find(|subscription| has_ended(subscription.expires, self.now))?;
        let channel = ended.channel.clone();
        if !self.rules.asks_sub_refresh {
            return self.expire(&channel);
        }
        let asking = Asking { channel: &channel, ..self.asking() };
        let question = asking.question(Hook::SubRefresh, &self.headers);
        self.pending = Some(Pending::AskOn { channel: Some(channel) });
        Some(Step::Run(Effect::Ask(question)))
    }

    /// Ends a subscription whose permission has ended; its client may subscribe again.
    fn expire(&mut self, channel: &Channel) -> Option<Step> {
        let at = self.names().position(|other| other == channel)?;
        let channel = self.channels.swap_remove(at).channel;
        self.pending = Some(Pending::Expire { channel: channel.clone() });
        Some(Step::Run(Effect::Unsubscribe { channel }))
    }

    /// Takes the answer of a hook that was asked whether something goes on. One that cannot be asked now throws
    /// nobody out: who is in was let in by it.
    fn goes_on(&mut self, channel: Option<Channel>, verdict: Verdict) {
        let until = match verdict {
            Verdict::Allowed(allowed) if allowed.expired || has_ended(allowed.expire_at, self.now) => None,
            Verdict::Allowed(allowed) => {
                if let (None, Some(info)) = (&channel, allowed.info) {
                    self.info = Some(info);
                }
                Some(allowed.expire_at)
            }
            Verdict::Failed => Some(self.now + ASK_AGAIN),
            Verdict::Refused(_) => None,
            Verdict::Disconnect { code, reason } => {
                self.next = Some(Box::new(Step::End(ws::encode::close_with(code, &reason))));
                return;
            }
        };
        match (channel, until) {
            (None, Some(until)) => self.expires = until,
            (None, None) => self.next = Some(Box::new(Step::End(ws::encode::close(Some(EXPIRED))))),
            (Some(channel), Some(until)) => {
                if let Some(subscription) = self.channels.iter_mut().find(|other| other.channel == channel) {
                    subscription.expires = until;
                }
            }
            (Some(channel), None) => self.next = self.expire(&channel).map(Box::new),
        }
    }

    fn connect(&mut self, id: u32, connect: &Connect) -> Step {
        if connect.token.is_empty() && self.rules.asks_connect {
            let (name, version) = (&*connect.name, &*connect.version);
            let asking = Asking { name, version, data: connect.data.as_deref(), ..self.asking() };
            let question = asking.question(Hook::Connect, &self.headers);
            return self.ask(id, question, None);
        }
        match self.claims(&connect.token) {
            Ok(claims) => {
                self.user = claims.sub.into();
                self.info = claims.info;
                self.expires = claims.exp.unwrap_or(0);
                self.connected = true;
                let ttl = claims.exp.map(|end| end.saturating_sub(self.now));
                self.replies.connected(id, &self.client, self.rules.ping_seconds, ttl, None);
                Step::Done
            }
            // The client library fetches a fresh token and comes again.
            Err(Rejected::Expired) => {
                self.replies.error(id, ReplyError::TOKEN_EXPIRED);
                Step::Done
            }
            Err(Rejected::Invalid) => Step::Close(INVALID_TOKEN),
        }
    }

    /// What a client's token says; nobody in particular without one where that is allowed.
    fn claims(&self, token: &str) -> Result<Claims, Rejected> {
        match &self.rules.tokens {
            // Without a key no token can be true, and an untrue one must not pass for anonymous.
            None if token.is_empty() => Ok(Claims::default()),
            None => Err(Rejected::Invalid),
            Some(tokens) if token.is_empty() && tokens.anonymous => Ok(Claims::default()),
            Some(tokens) => tokens.verify(token, self.now),
        }
    }

    fn refresh(&mut self, id: u32, token: &str) -> Step {
        match self.claims(token) {
            Ok(claims) if *claims.sub == *self.user && !token.is_empty() => {
                self.expires = claims.exp.unwrap_or(0);
                let ttl = claims.exp.map(|end| end.saturating_sub(self.now));
                self.replies.refreshed(id, &self.client, ttl);
                Step::Done
            }
            Err(Rejected::Expired) => {
                self.replies.error(id, ReplyError::TOKEN_EXPIRED);
                Step::Done
            }
            Ok(_) | Err(Rejected::Invalid) => Step::Close(INVALID_TOKEN),
        }
    }

    /// Lets a client subscribe to a channel that its token is for.
    fn check_channel_token(&self, request: &Subscribe) -> Result<(), ReplyError> {
        let Some(tokens) = self.rules.tokens.as_ref().filter(|_| !request.token.is_empty()) else {
            return Err(ReplyError::PERMISSION_DENIED);
        };
        match tokens.verify(&request.token, self.now) {
            Ok(claims) if claims.channel == request.channel && *claims.sub == *self.user => Ok(()),
            Err(Rejected::Expired) => Err(ReplyError::TOKEN_EXPIRED),
            Ok(_) | Err(Rejected::Invalid) => Err(ReplyError::PERMISSION_DENIED),
        }
    }

    fn unsubscribe(&mut self, id: u32, channel: &str) -> Step {
        let Some(at) = self.names().position(|other| &**other == channel) else {
            self.replies.empty(id, "unsubscribe");
            return Step::Done;
        };
        let channel = self.channels.swap_remove(at).channel;
        self.pending = Some(Pending::Unsubscribe { id });
        Step::Run(Effect::Unsubscribe { channel })
    }

    fn publish(&mut self, id: u32, request: Publish) -> Result<Step, ReplyError> {
        let options = self.options(&request.channel)?;
        let said = request.data.ok_or(ReplyError::BAD_REQUEST)?;
        let asks = options.publish == Access::Hook;
        if !asks && !options.publish.allows(&self.user) {
            return Err(ReplyError::PERMISSION_DENIED);
        }
        let question = asks.then(|| {
            let asking = Asking { channel: &request.channel, data: Some(&said), ..self.asking() };
            asking.question(Hook::Publish, &self.headers)
        });
        let data = json_line(Bytes::from(String::from(Box::<str>::from(said))));
        if data.len() > self.rules.limits.max_publication {
            return Err(ReplyError::LIMIT_EXCEEDED);
        }
        let (pending, effect) =
            (Pending::Publish { id }, Effect::Publish { channel: request.channel.into(), options, data });
        if let Some(question) = question {
            return Ok(self.ask(id, question, Some((pending, effect))));
        }
        self.pending = Some(pending);
        Ok(Step::Run(effect))
    }

    fn presence(&mut self, id: u32, channel: String, count: bool) -> Result<Step, ReplyError> {
        let options = self.options(&channel)?;
        if !options.keeps_presence() {
            return Err(ReplyError::NOT_AVAILABLE);
        }
        if !self.is_subscribed(&channel) || !options.presence.allows(&self.user) {
            return Err(ReplyError::PERMISSION_DENIED);
        }
        self.pending = Some(Pending::Presence { id, count });
        Ok(Step::Run(Effect::Presence { channel: channel.into() }))
    }

    fn history(&mut self, id: u32, request: &HistoryRequest) -> Result<Step, ReplyError> {
        let options = self.options(&request.channel)?;
        if !self.is_subscribed(&request.channel) || !options.history.allows(&self.user) {
            return Err(ReplyError::PERMISSION_DENIED);
        }
        if !options.keeps_history() {
            return Err(ReplyError::NOT_AVAILABLE);
        }
        let most = self.rules.limits.max_recovered;
        let query = HistoryQuery {
            since: request.since.as_ref().map(|since| since.offset),
            limit: usize::try_from(request.limit).map_or(most, |limit| limit.min(most)),
            reverse: request.reverse,
        };
        let since = request.since.as_ref().filter(|since| !since.epoch.is_empty());
        self.pending = Some(Pending::History { id, since: since.map(|since| since.epoch.as_str().into()) });
        Ok(Step::Run(Effect::History { channel: request.channel.as_str().into(), options, query }))
    }
}

impl Machine for Session {
    fn hear(&mut self, text: &str, now: u64) -> Result<(), CloseCode> {
        self.now = now;
        let commands = command::parse(text).map_err(|_bad| BAD_REQUEST)?;
        if !commands.is_empty() {
            self.heard.splice(0..0, commands.into_iter().rev());
        }
        Ok(())
    }

    fn step(&mut self) -> Option<Step> {
        if let Some(next) = self.next.take() {
            return Some(*next);
        }
        let Some(command) = self.heard.pop() else {
            if let Some(channel) = self.enlisted.pop() {
                return Some(self.enlist(channel));
            }
            if self.renews {
                if let Some(step) = self.renew() {
                    return Some(step);
                }
                self.renews = false;
            }
            // An idle session holds no room for commands.
            self.heard = Vec::new();
            return None;
        };
        Some(self.handle(command))
    }

    fn obey(&mut self, order: Order, now: u64) {
        match order {
            Order::Refresh { expires } => {
                self.expires = expires;
                self.replies.expires((expires != 0).then(|| expires.saturating_sub(now)));
            }
            Order::Renew => {
                self.now = now;
                self.renews = true;
            }
            Order::Subscribe { channel } => self.enlisted.insert(0, channel),
        }
    }

    fn complete(&mut self, outcome: Outcome) {
        self.finish(outcome);
    }

    fn take_frames(&mut self) -> Option<Bytes> {
        std::mem::take(&mut self.replies).into_frame()
    }

    fn take_errors(&mut self) -> usize {
        std::mem::take(&mut self.replies.errors)
    }

    fn is_connected(&self) -> bool {
        self.connected
    }

    fn take_identity(&mut self) -> Option<(Box<str>, Box<str>)> {
        if !self.connected || std::mem::replace(&mut self.identified, true) {
            return None;
        }
        Some((self.client.clone(), self.user.clone()))
    }

    fn expires(&self) -> u64 {
        // Whoever is asked about is not sent away before the answer.
        if self.hooked && self.rules.asks_refresh { 0 } else { self.expires }
    }

    fn due(&self) -> u64 {
        let own = if self.hooked && self.rules.asks_refresh { self.expires } else { 0 };
        let all = self.channels.iter().map(|subscription| subscription.expires).chain([own]);
        all.filter(|end| *end != 0).min().unwrap_or(0)
    }

    fn channels(&self) -> Vec<Channel> {
        self.names().cloned().collect()
    }

    fn unsubscribed(&mut self, channel: &Channel, serial: u32) -> bool {
        let before = self.channels.len();
        self.channels.retain(|other| other.serial != serial || other.channel != *channel);
        self.channels.len() < before
    }
}

/// Whether an end in seconds since 1970 is reached; 0 never is.
const fn has_ended(end: u64, now: u64) -> bool {
    end != 0 && end <= now
}

fn reply_error(error: BrokerError) -> ReplyError {
    match error {
        BrokerError::Unsupported => ReplyError::NOT_AVAILABLE,
        BrokerError::Full | BrokerError::Unavailable | BrokerError::Unknown => ReplyError::INTERNAL,
    }
}

#[cfg(test)]
mod tests;
