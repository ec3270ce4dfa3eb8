//! Publications: on channels with history through the gateway to WebSocket subscribers, and on a raw channel.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use evenkeel::gateway::{BrokerError, GatewayHandle};
use evenkeel::{Client, Delivery, Subscription};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::board::Board;
use super::ledger::Ledger;
use super::websocket::WebSocket;

/// The channels with history: the gateway's namespace `demo`.
pub(super) const CHANNELS: [&str; 2] = ["demo:tides", "demo:winds"];
/// WebSocket subscribers, each of all channels.
pub(super) const SUBSCRIBERS: usize = 3;
/// The raw channel.
const RAW: &str = "demo-raw";
/// Between two publications on one channel.
const PACE: Duration = Duration::from_millis(10);
/// Before another try.
const RETRY: Duration = Duration::from_millis(100);
/// Raw ids that may be awaited; beyond it the oldest are given up as lost.
const MAX_AWAITED: usize = 50_000;

/// Publishes on one channel until `stop` says so.
pub(super) async fn publish(
    gateway: GatewayHandle,
    ledger: Arc<Ledger>,
    channel: usize,
    stop: watch::Receiver<bool>,
) {
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let Some(name) = CHANNELS.get(channel) else { return };
    let mut id = 0;
    while !*stop.borrow() {
        id += 1;
        if ledger.ask(channel, id) {
            match gateway.publish(name, format!("{{\"id\":{id}}}")).await {
                Ok(_) => ledger.published(channel, id),
                Err(BrokerError::Unknown) => ledger.unknown(channel, id),
                Err(_refused) => ledger.refused(channel, id),
            }
        }
        pace.tick().await;
    }
}

/// Where a subscriber is in a channel.
#[derive(Clone, Debug, Default)]
struct Place {
    epoch: String,
    offset: u64,
}

/// A WebSocket subscriber of all channels, which comes back to where it was.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) address: SocketAddr,
    pub(super) number: usize,
    pub(super) ledger: Arc<Ledger>,
    pub(super) board: Arc<Board>,
}

impl Subscriber {
    /// Subscribes and listens until dropped; `ready` hears when all subscriptions stand for the first time.
    pub(super) async fn run(self, ready: Arc<AtomicU64>) {
        let mut places: [Option<Place>; CHANNELS.len()] = Default::default();
        loop {
            if let Err(error) = self.session(&mut places, &ready).await {
                self.board.log(format!("subscriber {}: connection ended: {error}", self.number));
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn session(
        &self,
        places: &mut [Option<Place>; CHANNELS.len()],
        ready: &AtomicU64,
    ) -> io::Result<()> {
        let mut socket = WebSocket::open(self.address, "/connection/websocket").await?;
        socket.say("{\"id\":1,\"connect\":{\"name\":\"demo\"}}").await?;
        for (channel, place) in places.iter().enumerate() {
            socket.say(&subscribe(channel, place.as_ref())).await?;
        }
        while let Some(text) = socket.hear().await? {
            for line in text.lines() {
                let line: Value = serde_json::from_str(line).map_err(io::Error::other)?;
                if line.as_object().is_some_and(serde_json::Map::is_empty) {
                    socket.say("{}").await?;
                    continue;
                }
                if let Some(again) = self.hear(&line, places, ready) {
                    tokio::time::sleep(RETRY).await;
                    let place = places.get(again).and_then(Option::as_ref);
                    socket.say(&subscribe(again, place)).await?;
                }
            }
        }
        Ok(())
    }

    /// Takes one message; returns the channel that must be subscribed to again.
    fn hear(
        &self,
        line: &Value,
        places: &mut [Option<Place>; CHANNELS.len()],
        ready: &AtomicU64,
    ) -> Option<usize> {
        if let Some(push) = line.get("push") {
            let name = push.get("channel").and_then(Value::as_str)?;
            let channel = CHANNELS.iter().position(|channel| *channel == name)?;
            if let Some(publication) = push.get("pub") {
                self.publication(channel, publication, places);
                return None;
            }
            // Codes from 2500 on ask the client to come again.
            let code = push.pointer("/unsubscribe/code").and_then(Value::as_u64)?;
            return (code >= 2500).then_some(channel);
        }
        let channel = usize::try_from(line.get("id")?.as_u64()?).ok()?.checked_sub(FIRST_ID)?;
        let Some(reply) = line.get("subscribe") else {
            self.board.log(format!("subscriber {}: not subscribed yet", self.number));
            return Some(channel);
        };
        let place = places.get_mut(channel)?;
        let text = |key| reply.get(key).and_then(Value::as_str).unwrap_or_default();
        let recovered = reply.get("recovered").and_then(Value::as_bool).unwrap_or(false);
        let offset = reply.get("offset").and_then(Value::as_u64).unwrap_or(0);
        match place {
            None => {
                ready.fetch_add(1, Ordering::Relaxed);
                *place = Some(Place { epoch: text("epoch").to_owned(), offset });
            }
            Some(_) if recovered => {}
            Some(place) => {
                self.board.log(format!("subscriber {}: the history does not continue", self.number));
                *place = Place { epoch: text("epoch").to_owned(), offset };
            }
        }
        for publication in reply.get("publications").and_then(Value::as_array).into_iter().flatten() {
            self.publication(channel, publication, places);
        }
        None
    }

    fn publication(&self, channel: usize, publication: &Value, places: &mut [Option<Place>; CHANNELS.len()]) {
        if let Some(offset) = publication.get("offset").and_then(Value::as_u64)
            && let Some(Some(place)) = places.get_mut(channel)
        {
            place.offset = offset;
        }
        if let Some(id) = publication.pointer("/data/id").and_then(Value::as_u64)
            && !self.ledger.delivered(channel, id, self.number)
        {
            self.board.log(format!("subscriber {}: publication {id} came twice", self.number));
        }
    }
}

const FIRST_ID: usize = 10;

fn subscribe(channel: usize, place: Option<&Place>) -> String {
    let name = CHANNELS.get(channel).copied().unwrap_or_default();
    let mut request = json!({"id": FIRST_ID + channel, "subscribe": {"channel": name}});
    if let (Some(place), Some(body)) = (place, request.get_mut("subscribe").and_then(Value::as_object_mut)) {
        body.insert("recover".into(), true.into());
        body.insert("epoch".into(), place.epoch.clone().into());
        body.insert("offset".into(), place.offset.into());
    }
    request.to_string()
}

/// What came of the raw channel.
#[derive(Debug, Default)]
pub(super) struct RawCounts {
    pub(super) published: u64,
    pub(super) delivered: u64,
    pub(super) gaps: u64,
    /// Lost, each within an announced gap.
    pub(super) lost: u64,
    /// Lost without an announced gap: a broken promise.
    pub(super) silent: u64,
}

/// Raw publications: those that were acknowledged and not yet heard.
#[derive(Debug, Default)]
pub(super) struct Raw {
    inner: Mutex<RawInner>,
}

#[derive(Debug, Default)]
struct RawInner {
    awaited: BTreeSet<u64>,
    /// Heard before the acknowledgement was read.
    early: BTreeSet<u64>,
    /// Not heard when a later one was: in a cluster two publications may overtake each other on their way.
    overtaken: BTreeSet<u64>,
    /// Whether a gap was announced since the last message.
    gap: bool,
    counts: RawCounts,
}

impl Raw {
    fn published(&self, id: u64) {
        let mut inner = self.inner.lock();
        inner.counts.published += 1;
        if !inner.early.remove(&id) {
            inner.awaited.insert(id);
            if inner.awaited.len() > MAX_AWAITED {
                inner.awaited.pop_first();
                inner.counts.silent += 1;
            }
        }
    }

    fn heard(&self, id: u64) {
        let mut inner = self.inner.lock();
        inner.counts.delivered += 1;
        if inner.overtaken.remove(&id) {
            // Late, and not lost.
            inner.counts.silent = inner.counts.silent.saturating_sub(1);
            return;
        }
        if !inner.awaited.remove(&id) {
            inner.early.insert(id);
            while inner.early.len() > MAX_AWAITED {
                inner.early.pop_first();
            }
        }
        // One publisher publishes in order: what came before this one and was not heard is lost.
        let later = inner.awaited.split_off(&id);
        let missing = std::mem::replace(&mut inner.awaited, later);
        let lost = missing.len() as u64;
        if std::mem::take(&mut inner.gap) {
            inner.counts.lost += lost;
        } else {
            inner.counts.silent += lost;
            inner.overtaken.extend(missing);
            while inner.overtaken.len() > MAX_AWAITED {
                inner.overtaken.pop_first();
            }
        }
    }

    fn gap(&self) {
        let mut inner = self.inner.lock();
        inner.gap = true;
        inner.counts.gaps += 1;
    }

    /// What has been counted so far, and how many are awaited.
    pub(super) fn counts(&self) -> (RawCounts, usize) {
        let inner = self.inner.lock();
        let RawCounts { published, delivered, gaps, lost, silent } = inner.counts;
        (RawCounts { published, delivered, gaps, lost, silent }, inner.awaited.len())
    }
}

/// Publishes on the raw channel until `stop` says so, then until one of its messages was heard.
pub(super) async fn publish_raw(client: Client, raw: Arc<Raw>, stop: watch::Receiver<bool>) {
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut id = 0;
    while !*stop.borrow() {
        id += 1;
        if client.publish(RAW, id).await.is_ok() {
            raw.published(id);
        }
        pace.tick().await;
    }
}

/// Subscribes to the raw channel.
pub(super) async fn subscribe_raw(client: &Client) -> Result<Subscription, evenkeel::Error> {
    client.subscribe([RAW]).await
}

/// Listens to the raw channel until dropped.
pub(super) async fn hear_raw(mut subscription: Subscription, raw: Arc<Raw>, board: Arc<Board>) {
    while let Some(delivery) = subscription.recv().await {
        match delivery {
            Delivery::Message { payload, .. } => {
                if let Some(id) = std::str::from_utf8(&payload).ok().and_then(|text| text.parse().ok()) {
                    raw.heard(id);
                }
            }
            Delivery::Gap { .. } => {
                raw.gap();
                board.log("raw channel: gap announced");
            }
            Delivery::Lagged { .. } => raw.gap(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Raw;

    #[test]
    fn a_raw_loss_needs_a_gap() {
        let raw = Raw::default();
        (1..=5).for_each(|id| raw.published(id));
        raw.heard(1);
        raw.gap();
        raw.heard(3);
        raw.heard(5);
        raw.heard(6);
        raw.published(6);
        let (counts, awaited) = raw.counts();
        assert_eq!((counts.lost, counts.silent, counts.gaps, awaited), (1, 1, 1, 0));
    }
}
