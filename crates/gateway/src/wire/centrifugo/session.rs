//! The session machine of Centrifugo's protocol: commands in, effects and replies out.
//!
//! It decides what a client may do and says what is to be done; it never does it. After each
//! [`Effect`] the driver hands back its outcome before the next command, so replies keep the order of commands.
//!
//! ```text
//! opening --connect--> connected --violation--> (closed by the driver with the code given)
//! ```

use super::ReplyError;
use super::command::{Command, History as HistoryRequest, Publish, Subscribe};
use super::encode::Replies;
use crate::broker::{History, HistoryQuery, Published};
use crate::config::LimitsConfig;
use crate::error::BrokerError;
use crate::namespace::{ChannelOptions, Namespaces};
use crate::publication::{Channel, Epoch, Position, json_line};
use crate::ws::close::CloseCode;
use bytes::Bytes;
use std::sync::Arc;

pub(crate) const BAD_REQUEST: CloseCode = CloseCode::new(3501, "bad request");
const INVALID_TOKEN: CloseCode = CloseCode::new(3500, "invalid token");

/// What every session of a gateway shares.
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) namespaces: Namespaces,
    pub(crate) limits: LimitsConfig,
    pub(crate) ping_seconds: u64,
}

/// One session.
#[derive(Debug)]
pub(crate) struct Session {
    rules: Arc<Rules>,
    client: Box<str>,
    user: Box<str>,
    connected: bool,
    channels: Vec<Subscription>,
    /// The number of the latest subscription.
    serial: u32,
    pending: Option<Pending>,
}

/// A channel subscribed to, and which of the session's subscriptions this is: news of an older one on the same
/// channel must not end it.
#[derive(Debug)]
struct Subscription {
    channel: Channel,
    serial: u32,
}

/// What the driver is to do before it goes on.
#[derive(Debug)]
pub(crate) enum Effect {
    History {
        channel: Channel,
        options: Arc<ChannelOptions>,
        query: HistoryQuery,
    },
    Publish {
        channel: Channel,
        options: Arc<ChannelOptions>,
        data: Bytes,
    },
    /// Subscribe; `since` is what the client saw last.
    Subscribe {
        channel: Channel,
        serial: u32,
        options: Arc<ChannelOptions>,
        since: Option<Position>,
    },
    Unsubscribe {
        channel: Channel,
    },
}

/// What came of an [`Effect`].
#[derive(Debug)]
pub(crate) enum Outcome {
    History(Result<History, BrokerError>),
    Published(Result<Published, BrokerError>),
    /// With the history for channels that keep one.
    Subscribed(Result<Option<History>, BrokerError>),
    Unsubscribed,
}

/// What follows from a command.
#[derive(Debug)]
pub(crate) enum Step {
    Close(CloseCode),
    Done,
    Run(Effect),
}

/// The command whose effect is under way.
#[derive(Debug)]
enum Pending {
    History { id: u32, since: Option<Epoch> },
    Publish { id: u32 },
    Subscribe { id: u32, channel: Channel, recoverable: bool, since: Option<Position> },
    Unsubscribe { id: u32 },
}

impl Session {
    pub(crate) fn new(rules: Arc<Rules>, client: Box<str>) -> Self {
        Self {
            rules,
            client,
            user: Box::default(),
            connected: false,
            channels: Vec::new(),
            serial: 0,
            pending: None,
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connected
    }

    /// The client's id and user, once, after it has connected.
    pub(crate) fn take_identity(&mut self) -> Option<(Box<str>, Box<str>)> {
        if !self.connected || self.client.is_empty() {
            return None;
        }
        Some((std::mem::take(&mut self.client), self.user.clone()))
    }

    /// The channels subscribed to.
    pub(crate) fn channels(&self) -> impl Iterator<Item = &Channel> {
        self.channels.iter().map(|subscription| &subscription.channel)
    }

    /// Forgets a subscription that the server ended; false when it had ended already.
    pub(crate) fn unsubscribed(&mut self, channel: &Channel, serial: u32) -> bool {
        let before = self.channels.len();
        self.channels.retain(|other| other.serial != serial || other.channel != *channel);
        self.channels.len() < before
    }

    /// Takes one command.
    pub(crate) fn handle(&mut self, command: Command, replies: &mut Replies) -> Step {
        let id = command.id;
        if id == 0 && command.send.is_none() {
            return Step::Close(BAD_REQUEST);
        }
        if let Some(connect) = command.connect {
            if self.connected {
                return Step::Close(BAD_REQUEST);
            }
            if !connect.token.is_empty() {
                // Without a key no token can be true, and an untrue one must not pass for anonymous.
                return Step::Close(INVALID_TOKEN);
            }
            self.connected = true;
            replies.connected(id, &self.client, self.rules.ping_seconds);
            return Step::Done;
        }
        if !self.connected {
            return Step::Close(BAD_REQUEST);
        }
        let result = if let Some(subscribe) = command.subscribe {
            self.subscribe(id, subscribe)
        } else if let Some(unsubscribe) = command.unsubscribe {
            Ok(self.unsubscribe(id, &unsubscribe.channel, replies))
        } else if let Some(publish) = command.publish {
            self.publish(id, publish)
        } else if let Some(history) = command.history {
            self.history(id, &history)
        } else if command.ping.is_some() {
            replies.empty(id, "ping");
            Ok(Step::Done)
        } else if command.send.is_some() {
            Ok(Step::Done)
        } else if command.presence.is_some()
            || command.presence_stats.is_some()
            || command.rpc.is_some()
            || command.refresh.is_some()
            || command.sub_refresh.is_some()
        {
            Err(ReplyError::NOT_AVAILABLE)
        } else {
            Err(ReplyError::METHOD_NOT_FOUND)
        };
        result.unwrap_or_else(|error| {
            replies.error(id, error);
            Step::Done
        })
    }

    /// Takes the outcome of the effect that [`Self::handle`] asked for.
    pub(crate) fn complete(&mut self, outcome: Outcome, replies: &mut Replies) {
        match (self.pending.take(), outcome) {
            (Some(Pending::Subscribe { id, channel, recoverable, since }), Outcome::Subscribed(result)) => {
                match result {
                    Ok(None) => {
                        self.channels.push(Subscription { channel, serial: self.serial });
                        replies.subscribed(id);
                    }
                    Ok(Some(history)) => {
                        self.channels.push(Subscription { channel, serial: self.serial });
                        let recovered = since.map(|since| history.continues(&since));
                        replies.subscribed_at(id, recoverable, &history, recovered);
                    }
                    Err(error) => replies.error(id, reply_error(error)),
                }
            }
            (Some(Pending::Publish { id }), Outcome::Published(result)) => match result {
                Ok(_) => replies.empty(id, "publish"),
                Err(error) => replies.error(id, reply_error(error)),
            },
            (Some(Pending::History { id, since }), Outcome::History(result)) => match result {
                Ok(history) if since.is_some_and(|epoch| epoch != history.top.epoch) => {
                    replies.error(id, ReplyError::UNRECOVERABLE);
                }
                Ok(history) => replies.history(id, &history),
                Err(error) => replies.error(id, reply_error(error)),
            },
            (Some(Pending::Unsubscribe { id }), Outcome::Unsubscribed) => replies.empty(id, "unsubscribe"),
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
        self.rules.namespaces.options(channel).cloned().ok_or(ReplyError::UNKNOWN_CHANNEL)
    }

    fn is_subscribed(&self, channel: &str) -> bool {
        self.channels().any(|other| &**other == channel)
    }

    fn subscribe(&mut self, id: u32, request: Subscribe) -> Result<Step, ReplyError> {
        let options = self.options(&request.channel)?;
        if request.kind != 0 {
            return Err(ReplyError::NOT_AVAILABLE);
        }
        if self.is_subscribed(&request.channel) {
            return Err(ReplyError::ALREADY_SUBSCRIBED);
        }
        if !options.subscribe.allows(&self.user) {
            return Err(ReplyError::PERMISSION_DENIED);
        }
        if self.channels.len() >= self.rules.limits.max_channels {
            return Err(ReplyError::LIMIT_EXCEEDED);
        }
        let channel = Channel::from(request.channel);
        let since = (request.recover && options.recovery)
            .then(|| Position { epoch: request.epoch.into(), offset: request.offset });
        self.serial += 1;
        self.pending = Some(Pending::Subscribe {
            id,
            channel: channel.clone(),
            recoverable: options.recovery,
            since: since.clone(),
        });
        Ok(Step::Run(Effect::Subscribe { channel, serial: self.serial, options, since }))
    }

    fn unsubscribe(&mut self, id: u32, channel: &str, replies: &mut Replies) -> Step {
        let Some(at) = self.channels().position(|other| &**other == channel) else {
            replies.empty(id, "unsubscribe");
            return Step::Done;
        };
        let channel = self.channels.swap_remove(at).channel;
        self.pending = Some(Pending::Unsubscribe { id });
        Step::Run(Effect::Unsubscribe { channel })
    }

    fn publish(&mut self, id: u32, request: Publish) -> Result<Step, ReplyError> {
        let options = self.options(&request.channel)?;
        let data = request.data.ok_or(ReplyError::BAD_REQUEST)?;
        if !options.publish.allows(&self.user) {
            return Err(ReplyError::PERMISSION_DENIED);
        }
        let data = json_line(Bytes::from(String::from(Box::<str>::from(data))));
        if data.len() > self.rules.limits.max_publication {
            return Err(ReplyError::LIMIT_EXCEEDED);
        }
        self.pending = Some(Pending::Publish { id });
        Ok(Step::Run(Effect::Publish { channel: request.channel.into(), options, data }))
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

fn reply_error(error: BrokerError) -> ReplyError {
    match error {
        BrokerError::Unsupported => ReplyError::NOT_AVAILABLE,
        BrokerError::Full | BrokerError::Unavailable | BrokerError::Unknown => ReplyError::INTERNAL,
    }
}

#[cfg(test)]
mod tests;
