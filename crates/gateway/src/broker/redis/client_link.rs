//! The link over the Evenkeel client: any topology, healed through everything, each gap reported.

use super::link::{LinkError, LinkEvent, LinkReply, RedisLink, RedisListener};
use crate::broker::BoxFuture;
use crate::publication::Channel;
use bytes::Bytes;
use evenkeel_client::{Client, Command, Delivery, Deployment, Error, Executed, Frame, Subscription};
use futures_util::FutureExt;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// Events taken in one go, so that the broker's other work gets its turn.
const MAX_EVENTS: usize = 256;

impl RedisLink for Client {
    fn command(&self, args: Vec<Bytes>) -> BoxFuture<'_, Result<LinkReply, LinkError>> {
        Box::pin(async move {
            let mut args = args.into_iter();
            let name = args.next().unwrap_or_default();
            let name = std::str::from_utf8(&name).map_err(|_no_text| refused("ERR"))?;
            let mut command = self.cmd(name);
            for arg in args {
                command = command.arg(arg);
            }
            match command.query::<Frame>().await {
                Ok(frame) => reply(&frame),
                Err(error) => Err(link_error(&error)),
            }
        })
    }

    fn command_and_wait(
        &self,
        args: Vec<Bytes>,
        replicas: u32,
        within: Duration,
    ) -> BoxFuture<'_, Result<(LinkReply, u32), LinkError>> {
        Box::pin(async move {
            let mut args = args.into_iter();
            let name = args.next().unwrap_or_default();
            let name = std::str::from_utf8(&name).map_err(|_no_text| refused("ERR"))?;
            let command = args.fold(Command::new(name), Command::arg);
            // Both go to a connection of their own: nobody else waits behind them.
            let unit = self.pipeline().push::<Frame>(command).wait(replicas, within);
            match unit.await {
                Ok((frame, copies)) => Ok((reply(&frame)?, u32::try_from(copies).unwrap_or(0))),
                Err(error) => Err(link_error(&error)),
            }
        })
    }

    fn listen(&self, sharded: bool) -> BoxFuture<'_, Result<Box<dyn RedisListener>, LinkError>> {
        Box::pin(async move {
            let none: [&str; 0] = [];
            let subscription = self.subscribe(none).await.map_err(|error| link_error(&error))?;
            let shards = if sharded {
                Some(self.ssubscribe(none).await.map_err(|error| link_error(&error))?)
            } else {
                None
            };
            let listener = ClientListener {
                client: self.clone(),
                subscription,
                shards,
                channels: HashMap::new(),
                unconfirmed: BTreeMap::new(),
                renewed: BTreeSet::new(),
            };
            Ok(Box::new(listener) as Box<dyn RedisListener>)
        })
    }

    fn is_cluster(&self) -> bool {
        matches!(self.config().deployment(), Deployment::Cluster { .. })
    }
}

/// One subscription of a client, or two, where channels are sharded.
#[derive(Debug)]
struct ClientListener {
    client: Client,
    subscription: Subscription,
    shards: Option<Subscription>,
    channels: HashMap<Bytes, Channel>,
    /// How many confirmations a channel still has to come before it is heard whole.
    unconfirmed: BTreeMap<Channel, usize>,
    /// Channels whose next confirmation ends a time without them.
    renewed: BTreeSet<Channel>,
}

impl ClientListener {
    fn ask(&mut self, names: Vec<Bytes>) {
        let each = 1 + usize::from(self.shards.is_some());
        for name in &names {
            if let Some(channel) = self.channels.get(name) {
                self.unconfirmed.insert(channel.clone(), each);
            }
        }
        // One poll makes the channels wanted; their confirmations come in-band, and refusals too.
        if let Some(shards) = &mut self.shards {
            drop(shards.ssubscribe(names.clone()).now_or_never());
        }
        drop(self.subscription.subscribe(names).now_or_never());
    }

    /// Takes a confirmation; true when the channel is heard in every way from here on.
    fn confirmed(&mut self, channel: &Channel) -> bool {
        let Some(left) = self.unconfirmed.get_mut(channel) else { return false };
        *left -= 1;
        let whole = *left == 0;
        if whole {
            self.unconfirmed.remove(channel);
        }
        whole
    }

    fn take(&mut self, delivery: Delivery, events: &mut Vec<LinkEvent>) {
        match delivery {
            Delivery::Message { channel, payload, .. } => {
                if let Some(channel) = self.channels.get(&channel) {
                    events.push(LinkEvent::Message { channel: channel.clone(), payload });
                }
            }
            Delivery::Subscribed { channel } => {
                if let Some(channel) = self.channels.get(&channel).cloned()
                    && self.confirmed(&channel)
                {
                    events.push(LinkEvent::Subscribed(channel.clone()));
                    if self.renewed.remove(&channel) {
                        events.push(LinkEvent::Gap(Some(channel)));
                    }
                }
            }
            Delivery::Gap { channel, .. } => {
                if let Some(channel) = self.channels.get(&channel) {
                    events.push(LinkEvent::Gap(Some(channel.clone())));
                }
            }
            Delivery::Lagged { missed } => {
                tracing::warn!(missed, "the broker was slower than Redis; what it missed is read again");
                events.push(LinkEvent::Gap(None));
            }
            Delivery::Refused { channel, error } => {
                let channel = self.channels.get(&channel).map_or("?", |channel| &**channel);
                tracing::error!(channel, code = error.code(), "Redis refused a subscription");
            }
            // What was left, and what later versions of the client may add, changes nothing here.
            _ => {}
        }
    }
}

impl RedisListener for ClientListener {
    fn subscribe(&mut self, channels: Vec<Channel>) {
        let mut names = Vec::with_capacity(channels.len());
        for channel in channels {
            let name = Bytes::copy_from_slice(channel.as_bytes());
            self.channels.insert(name.clone(), channel);
            names.push(name);
        }
        self.ask(names);
    }

    fn unsubscribe(&mut self, channels: Vec<Channel>) {
        let names: Vec<Bytes> =
            channels.iter().map(|channel| Bytes::copy_from_slice(channel.as_bytes())).collect();
        for (name, channel) in names.iter().zip(&channels) {
            self.channels.remove(name);
            self.unconfirmed.remove(channel);
            self.renewed.remove(channel);
        }
        if let Some(shards) = &mut self.shards {
            shards.sunsubscribe(names.clone());
        }
        self.subscription.unsubscribe(names);
    }

    fn next<'a>(&'a mut self, events: &'a mut Vec<LinkEvent>) -> BoxFuture<'a, bool> {
        Box::pin(async move {
            let first = match &mut self.shards {
                Some(shards) => tokio::select! {
                    // Either is emptied below, so neither starves the other.
                    first = shards.recv() => first,
                    first = self.subscription.recv() => first,
                },
                None => self.subscription.recv().await,
            };
            let Some(first) = first else { return false };
            self.take(first, events);
            while events.len() < MAX_EVENTS {
                let sharded = self.shards.as_mut().and_then(Subscription::try_recv);
                let Some(more) = sharded.or_else(|| self.subscription.try_recv()) else { break };
                self.take(more, events);
            }
            true
        })
    }

    fn renew(&mut self) {
        // To leave and come back makes the link owe answers, which is what tells the client that it is dead.
        let none: [&str; 0] = [];
        let plain = self.client.subscribe(none).into_future().now_or_never();
        let sharded = self.client.ssubscribe(none).into_future().now_or_never();
        if let (Some(Ok(plain)), Some(Ok(sharded))) = (plain, sharded) {
            self.subscription = plain;
            self.shards = self.shards.take().map(|_old| sharded);
            let mut names: Vec<Bytes> = self.channels.keys().cloned().collect();
            names.sort();
            self.renewed = self.channels.values().cloned().collect();
            self.ask(names);
        }
    }
}

fn reply(frame: &Frame) -> Result<LinkReply, LinkError> {
    match frame {
        Frame::Array(items) => items.iter().map(reply).collect::<Result<_, _>>().map(LinkReply::Array),
        Frame::Blob(bytes) | Frame::Simple(bytes) => Ok(LinkReply::Bytes(bytes.clone())),
        Frame::Integer(number) => Ok(LinkReply::Integer(*number)),
        Frame::Null => Ok(LinkReply::Nil),
        // None of the broker's commands is answered with anything else.
        _ => Err(refused("ERR")),
    }
}

fn refused(code: &str) -> LinkError {
    LinkError::Refused { code: code.to_owned() }
}

fn link_error(error: &Error) -> LinkError {
    match error.server_code() {
        // The broker's scripts write before anything else, so a server that answers this ran nothing of them.
        Some(
            "READONLY" | "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "NOREPLICAS" | "TRYAGAIN" | "MOVED"
            | "ASK",
        ) => LinkError::NotRun,
        Some(code) => refused(code),
        None if error.executed() == Executed::No => LinkError::NotRun,
        None => LinkError::Unknown,
    }
}
