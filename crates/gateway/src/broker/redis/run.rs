//! The broker's tasks: one that hears, checks and delivers, and one for each lane of publications.

use super::envelope::{self, Mark};
use super::fence;
use super::link::{LinkError, LinkEvent, LinkReply, RedisListener};
use super::queue::{Item, Lane};
use super::tracker::{Action, Checked, Tracker, Verdict};
use super::{Published, RedisBroker, bytes_of, fresh_epoch, position, scripts};
use crate::broker::{BoxFuture, HistoryQuery};
use crate::driver::clock;
use crate::error::BrokerError;
use crate::hub::Deliveries;
use crate::presence::Member;
use crate::publication::{Channel, Publication};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Checks under way at once; the others wait, in their order.
const MAX_CHECKS: usize = 64;
/// Entries that one check reads.
const CHECK_ENTRIES: &[u8] = b"512";
/// How long one check may take before it is asked again.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);
/// Wait before a failed check or publication is tried again, doubled each time.
const RETRY_FIRST: Duration = Duration::from_millis(20);
pub(super) const RETRY_MOST: Duration = Duration::from_millis(320);
/// So many probes in a row that Redis took and nobody heard: the subscription is made anew.
const PROBES_MISSED: u32 = 2;

type CheckDone = (Channel, u64, Option<Checked>);

/// Runs the broker for one gateway.
pub(super) async fn run(broker: Arc<RedisBroker>, deliveries: Deliveries) {
    let mut lanes = JoinSet::new();
    for at in 0..broker.lanes.len() {
        lanes.spawn(publish_lane(broker.clone(), at));
    }
    let sharded = broker.is_sharded().await;
    let listener = loop {
        match broker.link.listen(sharded).await {
            Ok(listener) => break listener,
            Err(error) => {
                tracing::warn!(%error, "no subscription to Redis yet");
                tokio::time::sleep(RETRY_MOST).await;
            }
        }
    };
    Ear {
        listener,
        tracker: Tracker::default(),
        checks: FuturesUnordered::new(),
        waiting: VecDeque::new(),
        probes: FuturesUnordered::new(),
        probe_sent: None,
        probes_stand: 0,
        missed: 0,
        words: VecDeque::new(),
        news: VecDeque::new(),
        broker,
        deliveries,
    }
    .run()
    .await;
}

/// A round of probes on its way.
struct Probe {
    number: u64,
    sent: Instant,
    /// Those that were not heard yet.
    left: usize,
}

/// The task that hears.
struct Ear {
    broker: Arc<RedisBroker>,
    deliveries: Deliveries,
    listener: Box<dyn RedisListener>,
    tracker: Tracker,
    checks: FuturesUnordered<BoxFuture<'static, CheckDone>>,
    waiting: VecDeque<(Channel, u64, Option<Mark>, bool)>,
    probes: FuturesUnordered<BoxFuture<'static, bool>>,
    probe_sent: Option<Probe>,
    /// How many of their channels were confirmed.
    probes_stand: usize,
    missed: u32,
    /// Words of the server API, and news of who came and left, from the events just heard.
    words: VecDeque<Bytes>,
    news: VecDeque<(Channel, (Member, bool))>,
}

impl Ear {
    async fn run(mut self) {
        let own = self.broker.probes.iter().cloned().chain([Channel::from(fence::CHANNEL)]);
        self.listener.subscribe(own.collect());
        let mut events = Vec::new();
        let mut probes = interval(self.broker.outage.probe_interval);
        probes.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut probe_number = 0;
        loop {
            let broker = self.broker.clone();
            tokio::select! {
                // Probes and wishes are rare; what was heard goes before the answers of checks, whose held
                // messages it belongs to.
                biased;
                _ = probes.tick() => {
                    probe_number += 1;
                    self.probe(probe_number);
                }
                () = broker.wished.notified() => self.take_wishes(),
                more = self.listener.next(&mut events) => {
                    for event in events.drain(..) {
                        self.hear(event);
                    }
                    if !more {
                        return;
                    }
                }
                Some((channel, ticket, answer)) = self.checks.next() => {
                    self.tracker.checked(&channel, ticket, answer);
                }
                Some(taken) = self.probes.next() => {
                    if !taken {
                        // What Redis did not take says nothing about the subscription.
                        self.probe_sent = None;
                    }
                }
            }
            if !self.act().await {
                return;
            }
        }
    }

    fn take_wishes(&mut self) {
        let mut wishes = self.broker.wishes.lock();
        for channel in std::mem::take(&mut wishes.changed) {
            match wishes.channels.get(&channel) {
                Some(wish) => self.tracker.want(&channel, wish.options.keeps_history()),
                None => self.tracker.unwant(&channel),
            }
        }
    }

    fn hear(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Gap(Some(channel)) if *channel == *fence::CHANNEL => self.broker.fence.gap(),
            LinkEvent::Gap(channel) => {
                if channel.as_ref().is_none_or(|channel| self.broker.probes.contains(channel)) {
                    // The probes on their way may have been published before the subscription stood again.
                    (self.missed, self.probe_sent) = (0, None);
                }
                self.tracker.gap(channel.as_ref());
            }
            LinkEvent::Message { channel, payload } if *channel == *fence::CHANNEL => {
                if !self.broker.fence.message(&payload) {
                    self.words.push_back(payload);
                }
            }
            LinkEvent::Message { channel, payload } if envelope::read_presence(&payload).is_some() => {
                self.news.extend(envelope::read_presence(&payload).map(|news| (channel, news)));
            }
            LinkEvent::Message { channel, payload } if self.broker.probes.contains(&channel) => {
                let number = std::str::from_utf8(&payload).ok().and_then(|text| text.parse::<u64>().ok());
                if let Some(probe) = self.probe_sent.as_mut().filter(|probe| number == Some(probe.number)) {
                    probe.left = probe.left.saturating_sub(1);
                    if probe.left == 0 {
                        *self.broker.probed.lock() = Some(probe.sent);
                        self.missed = 0;
                        self.probe_sent = None;
                    }
                }
            }
            LinkEvent::Message { channel, payload } => self.tracker.message(&channel, payload),
            LinkEvent::Subscribed(channel) => {
                if self.broker.probes.contains(&channel) {
                    self.probes_stand += 1;
                    if self.probes_stand == self.broker.probes.len() {
                        // The first probes were sent before anybody heard them.
                        self.probe(0);
                    }
                }
                self.tracker.confirmed(&channel);
            }
        }
    }

    /// Sends probes the way of every publication. When they are taken but not heard the subscription is dead, whatever
    /// its connection says.
    fn probe(&mut self, number: u64) {
        if !self.probes.is_empty() {
            return;
        }
        if self.probe_sent.is_some() {
            self.missed += 1;
        }
        if self.missed >= PROBES_MISSED {
            tracing::warn!("the subscription to Redis delivers nothing; it is made anew");
            self.missed = 0;
            self.listener.renew();
        }
        self.probe_sent = Some(Probe { number, sent: clock::now(), left: self.broker.probes.len() });
        let broker = self.broker.clone();
        self.probes.push(Box::pin(async move {
            let send = async |channel: &Channel| {
                let publishes = broker.publishes(channel).await;
                let args = vec![publishes, bytes_of(channel), Bytes::from(number.to_string())];
                broker.link.command(args).await.is_ok()
            };
            join_all(broker.probes.iter().map(send)).await.into_iter().all(|taken| taken)
        }));
    }

    /// Does what the tracker asks for; false when the gateway is gone.
    async fn act(&mut self) -> bool {
        while let Some(word) = self.words.pop_front() {
            let Some(room) = self.deliveries.reserve().await else { return false };
            room.word(&word);
        }
        while let Some((channel, (member, joined))) = self.news.pop_front() {
            let Some(room) = self.deliveries.reserve().await else { return false };
            room.publication(&Publication::presence(channel, member, joined));
        }
        let mut wanted = Vec::new();
        let mut unwanted = Vec::new();
        while let Some(action) = self.tracker.poll_action() {
            match action {
                Action::Check { channel, ticket, at, retry } => {
                    self.waiting.push_back((channel, ticket, at, retry));
                }
                Action::Deliver { channel, data, at } => {
                    let Some(room) = self.deliveries.reserve().await else { return false };
                    room.publication(&Publication::new(channel, data, at));
                }
                Action::Gap(channel) => {
                    let Some(room) = self.deliveries.reserve().await else { return false };
                    room.gap(&channel);
                }
                Action::NewEpoch(channel, epoch) => {
                    let Some(room) = self.deliveries.reserve().await else { return false };
                    room.new_epoch(&channel, &epoch);
                }
                Action::Ready(channel) => self.broker.mark_ready(&channel),
                Action::Subscribe(channel) => wanted.push(channel),
                Action::Unsubscribe(channel) => {
                    // One that is wanted again in the same wave must be asked for after it was left.
                    if !wanted.is_empty() {
                        self.listener.subscribe(std::mem::take(&mut wanted));
                    }
                    unwanted.push(channel);
                }
            }
            if !unwanted.is_empty() && !wanted.is_empty() {
                self.listener.unsubscribe(std::mem::take(&mut unwanted));
            }
        }
        if !unwanted.is_empty() {
            self.listener.unsubscribe(unwanted);
        }
        if !wanted.is_empty() {
            self.listener.subscribe(wanted);
        }
        while self.checks.len() < MAX_CHECKS {
            let Some((channel, ticket, at, retry)) = self.waiting.pop_front() else { break };
            self.checks.push(Box::pin(check(self.broker.clone(), channel, ticket, at, retry)));
        }
        true
    }
}

async fn check(
    broker: Arc<RedisBroker>,
    channel: Channel,
    ticket: u64,
    at: Option<Mark>,
    retry: bool,
) -> CheckDone {
    if retry {
        tokio::time::sleep(RETRY_FIRST).await;
    }
    let options = broker.wishes.lock().channels.get(&channel).map(|wish| wish.options.clone());
    let Some(options) = options else { return (channel, ticket, None) };
    let answer = timeout(CHECK_TIMEOUT, async {
        let Some(at) = at else {
            let query = HistoryQuery { since: None, limit: 0, reverse: false };
            let (top, _) = broker.read(&channel, &options, query).await.ok()?;
            return Some(Checked { top, verdict: Verdict::Stands, entries: Vec::new() });
        };
        let args = vec![
            fresh_epoch(),
            scripts::meta_life(options.history_ttl),
            Bytes::copy_from_slice(at.epoch.as_bytes()),
            Bytes::from(at.offset.to_string()),
            Bytes::from(at.nonce.to_string()),
            Bytes::from_static(CHECK_ENTRIES),
        ];
        let keys = scripts::keys(&broker.prefix, &channel);
        scripts::checked(&broker.eval(&scripts::CHECK, &keys, args).await.ok()?)
    });
    let answer = answer.await.ok().flatten();
    (channel, ticket, answer)
}

/// Sends what waits in one lane, batch after batch, until the gateway is gone.
async fn publish_lane(broker: Arc<RedisBroker>, at: usize) {
    let Some(lane) = broker.lanes.get(at) else { return };
    loop {
        let batch = lane.take().await;
        let result = send(&broker, &batch).await;
        Lane::done(&batch, &broker.budget);
        answer(batch, &result);
    }
}

/// What became of a batch: the positions on a channel with history.
type Sent = Result<Option<(String, Vec<u64>)>, BrokerError>;

/// Tries until the batch is published, or certainly refused, or nobody can know.
async fn send(broker: &RedisBroker, batch: &[Item]) -> Sent {
    let Some(first) = batch.first() else { return Ok(None) };
    let mut pause = RETRY_FIRST;
    let mut repeat = false;
    loop {
        let attempt = if first.options.keeps_history() {
            append(broker, first, batch, repeat).await
        } else {
            publish(broker, first, batch).await.map(|()| None)
        };
        match attempt {
            Ok(done) => return Ok(done),
            Err(LinkError::Refused { code }) => {
                tracing::error!(channel = %first.channel, %code, "Redis refused a publication");
                return Err(BrokerError::Unavailable);
            }
            // A script that ran before knows its entries again by their nonces; a plain publication could only
            // be doubled, unless its publisher was promised that it will come.
            Err(LinkError::Unknown) if !first.options.keeps_history() && !promised(batch) => {
                return Err(BrokerError::Unknown);
            }
            Err(_again) => repeat = true,
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_MOST);
    }
}

/// Whether somebody was told that his publication waits.
fn promised(batch: &[Item]) -> bool {
    batch.iter().any(|item| item.answer.is_closed())
}

async fn append(
    broker: &RedisBroker,
    first: &Item,
    batch: &[Item],
    repeat: bool,
) -> Result<Option<(String, Vec<u64>)>, LinkError> {
    let mut args = vec![
        bytes_of(&first.channel),
        Bytes::from(first.options.history_size.to_string()),
        scripts::millis(first.options.history_ttl),
        scripts::meta_life(first.options.history_ttl),
        fresh_epoch(),
        Bytes::from_static(if repeat { b"1" } else { b"0" }),
        broker.publishes(&first.channel).await,
    ];
    for item in batch {
        args.push(Bytes::from(item.nonce.to_string()));
        args.push(item.data.clone());
    }
    let keys = scripts::keys(&broker.prefix, &first.channel);
    let reply = broker.eval(&scripts::APPEND, &keys, args).await?;
    Ok(scripts::appended(&reply))
}

async fn publish(broker: &RedisBroker, first: &Item, batch: &[Item]) -> Result<(), LinkError> {
    let channel = bytes_of(&first.channel);
    let publishes = broker.publishes(&first.channel).await;
    let fenced = !broker.link.is_cluster();
    if let ([only], false) = (batch, fenced) {
        return broker.link.command(vec![publishes, channel, only.data.clone()]).await.map(drop);
    }
    // A key of the channel leads a cluster's client to the node that may publish on it.
    let keys = if fenced { Vec::new() } else { scripts::keys(&broker.prefix, &first.channel).to_vec() };
    let common = if fenced { fence::CHANNEL } else { "" };
    let mut missed_since = None;
    loop {
        let expected = Bytes::from(broker.fence.expected().to_string());
        let head = [Bytes::from_static(common.as_bytes()), expected, channel.clone(), publishes.clone()];
        let args = head.into_iter().chain(batch.iter().map(|item| item.data.clone())).collect();
        match broker.eval(&scripts::PUBLISH_ALL, &keys, args).await? {
            LinkReply::Integer(missed) if missed < 0 => {
                let since = *missed_since.get_or_insert_with(clock::now);
                fence::wait(broker, -1 - missed, since).await;
            }
            LinkReply::Integer(count) => {
                broker.fence.counted(count);
                return Ok(());
            }
            _ => return Ok(()),
        }
    }
}

fn answer(batch: Vec<Item>, result: &Sent) {
    for (at, item) in batch.into_iter().enumerate() {
        let answer = match result {
            Ok(Some((epoch, offsets))) => match offsets.get(at) {
                Some(offset) => Ok(position(epoch, *offset)),
                None => Err(BrokerError::Unknown),
            },
            Ok(None) => Ok(Published::Delivered(None)),
            Err(error) => Err(*error),
        };
        // A publisher that was told to expect it waits no more.
        drop(item.answer.send(answer));
    }
}
