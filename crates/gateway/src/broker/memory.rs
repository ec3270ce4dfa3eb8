//! The broker of one process: history in rings, deliveries straight to the hub.

use super::{BoxFuture, Broker, BrokerHealth, History, HistoryQuery, Published};
use crate::driver::clock;
use crate::error::BrokerError;
use crate::hub::Deliveries;
use crate::namespace::ChannelOptions;
use crate::presence::{Member, Members};
use crate::publication::{Channel, Epoch, Position, Publication};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Channels with history; beyond it publications are refused.
const MAX_STREAMS: usize = 1 << 20;
/// How long a stream without publications keeps its epoch, so that a client that comes back learns the truth.
const STREAM_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Between two rounds of forgetting.
const SWEEP: Duration = Duration::from_secs(10);

/// A broker that lives in this process: nothing to install, nothing survives it.
///
/// Several gateways of one process can share it.
#[derive(Default)]
pub struct MemoryBroker {
    state: Mutex<Store>,
    gateways: Mutex<Vec<Deliveries>>,
    /// Who is on which channel, by client.
    members: Mutex<Members>,
    /// Keys that count once, with their ends.
    taken: Mutex<HashMap<String, Instant>>,
}

impl fmt::Debug for MemoryBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBroker").finish_non_exhaustive()
    }
}

impl MemoryBroker {
    /// Makes an empty broker.
    pub fn new() -> Self {
        Self::default()
    }

    fn gateways(&self) -> Vec<Deliveries> {
        self.gateways.lock().clone()
    }

    /// Changes who is on a channel with `change`, and tells every gateway of the one that it gives.
    ///
    /// Room is found before the lock is taken, so that what is told has the order of the changes.
    async fn change(
        &self,
        channel: &Channel,
        joined: bool,
        change: impl FnOnce(&mut Members) -> Option<Arc<Member>>,
    ) {
        let gateways = self.gateways();
        let mut rooms = Vec::with_capacity(gateways.len());
        for gateway in &gateways {
            rooms.extend(gateway.reserve().await);
        }
        let mut all = self.members.lock();
        let Some(member) = change(&mut all) else { return };
        let publication = Publication::presence(channel.clone(), Member::clone(&member), joined);
        for room in rooms {
            room.publication(&publication);
        }
    }
}

impl Broker for MemoryBroker {
    fn run(self: Arc<Self>, deliveries: Deliveries) -> BoxFuture<'static, ()> {
        {
            let mut gateways = self.gateways.lock();
            gateways.retain(|gateway| !gateway.is_closed());
            gateways.push(deliveries);
        }
        Box::pin(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                let now = clock::now();
                self.state.lock().sweep(now);
                self.taken.lock().retain(|_, end| *end > now);
                self.gateways.lock().retain(|gateway| !gateway.is_closed());
            }
        })
    }

    fn want(&self, _channel: &Channel, _options: &Arc<ChannelOptions>) {}

    fn unwant(&self, _channel: &Channel) {}

    fn ready<'a>(&'a self, _channel: &'a Channel) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn publish<'a>(
        &'a self,
        channel: &'a Channel,
        data: Bytes,
        options: &'a Arc<ChannelOptions>,
    ) -> BoxFuture<'a, Result<Published, BrokerError>> {
        Box::pin(async move {
            let gateways = self.gateways();
            let mut reservations = Vec::with_capacity(gateways.len());
            for gateway in &gateways {
                reservations.extend(gateway.reserve().await);
            }
            if !options.keeps_history() {
                let publication = Publication::new(channel.clone(), data, None);
                for reservation in reservations {
                    reservation.publication(&publication);
                }
                return Ok(Published::Delivered(None));
            }
            // Room was found before the lock is taken, so that offsets are delivered in the order of the lock.
            let mut state = self.state.lock();
            let publication = state.append(channel, data, options, clock::now())?;
            for reservation in reservations {
                reservation.publication(&publication);
            }
            Ok(Published::Delivered(publication.position().cloned()))
        })
    }

    fn history<'a>(
        &'a self,
        channel: &'a Channel,
        options: &'a Arc<ChannelOptions>,
        query: HistoryQuery,
    ) -> BoxFuture<'a, Result<History, BrokerError>> {
        Box::pin(std::future::ready(self.state.lock().read(channel, options, query, clock::now())))
    }

    fn enter<'a>(
        &'a self,
        channel: &'a Channel,
        options: &'a Arc<ChannelOptions>,
        members: &'a [Arc<Member>],
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async move {
            for member in members {
                let enter = |all: &mut Members| {
                    let there = all.entry(channel.clone()).or_default();
                    let user = there.values().any(|other| other.user == member.user);
                    let fresh = there.insert(member.client.clone(), member.clone()).is_none();
                    (fresh && options.tells(channel, user)).then(|| member.clone())
                };
                self.change(channel, true, enter).await;
            }
            Ok(())
        })
    }

    fn leave<'a>(
        &'a self,
        channel: &'a Channel,
        options: &'a Arc<ChannelOptions>,
        client: &'a str,
    ) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async move {
            let leave = |all: &mut Members| {
                let there = all.get_mut(channel)?;
                let gone = there.remove(client);
                let user = |gone: &Arc<Member>| there.values().any(|other| other.user == gone.user);
                let told = gone.filter(|gone| options.tells(channel, user(gone)));
                if there.is_empty() {
                    all.remove(channel);
                }
                told
            };
            self.change(channel, false, leave).await;
            Ok(())
        })
    }

    fn members<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<Vec<Member>, BrokerError>> {
        let there = self.members.lock().get(channel).cloned().unwrap_or_default();
        Box::pin(std::future::ready(Ok(there.values().map(|member| Member::clone(member)).collect())))
    }

    fn forget<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.state.lock().streams.remove(channel);
        Box::pin(std::future::ready(Ok(())))
    }

    fn once<'a>(&'a self, key: &'a str, life: Duration) -> BoxFuture<'a, Result<bool, BrokerError>> {
        let now = clock::now();
        let mut taken = self.taken.lock();
        let fresh = taken.get(key).is_none_or(|end| *end <= now);
        let full = taken.len() >= MAX_STREAMS;
        if fresh && !full {
            taken.insert(key.to_owned(), now + life);
        }
        drop(taken);
        let answer = if fresh && full { Err(BrokerError::Full) } else { Ok(fresh) };
        Box::pin(std::future::ready(answer))
    }

    fn tell(&self, word: Bytes) -> BoxFuture<'_, Result<(), BrokerError>> {
        Box::pin(async move {
            for gateway in self.gateways() {
                if let Some(room) = gateway.reserve().await {
                    room.word(&word);
                }
            }
            Ok(())
        })
    }

    fn health(&self) -> BrokerHealth {
        BrokerHealth { probe_age: Some(Duration::ZERO), waiting: 0 }
    }
}

/// All streams.
#[derive(Default)]
struct Store {
    streams: HashMap<Channel, Stream>,
}

/// The history of one channel.
struct Stream {
    epoch: Epoch,
    top: u64,
    kept: VecDeque<Arc<Publication>>,
    /// When `kept` is forgotten.
    expires: Instant,
    /// When the stream itself is forgotten.
    ends: Instant,
}

impl Store {
    fn stream(
        &mut self,
        channel: &Channel,
        options: &ChannelOptions,
        now: Instant,
    ) -> Result<&mut Stream, BrokerError> {
        if !self.streams.contains_key(channel) {
            if self.streams.len() >= MAX_STREAMS {
                return Err(BrokerError::Full);
            }
            let epoch = Epoch::from(format!("{:016x}", fastrand::u64(..)));
            let expires = now + options.history_ttl;
            let ends = expires.max(now + STREAM_LIFE);
            self.streams
                .insert(channel.clone(), Stream { epoch, top: 0, kept: VecDeque::new(), expires, ends });
        }
        let stream = self.streams.get_mut(channel).ok_or(BrokerError::Full)?;
        if stream.expires <= now {
            stream.kept = VecDeque::new();
        }
        Ok(stream)
    }

    fn append(
        &mut self,
        channel: &Channel,
        data: Bytes,
        options: &ChannelOptions,
        now: Instant,
    ) -> Result<Arc<Publication>, BrokerError> {
        let stream = self.stream(channel, options, now)?;
        stream.top += 1;
        stream.expires = now + options.history_ttl;
        stream.ends = stream.expires.max(now + STREAM_LIFE);
        let position = Position { epoch: stream.epoch.clone(), offset: stream.top };
        let publication = Publication::new(channel.clone(), data, Some(position));
        while stream.kept.len() >= options.history_size as usize {
            stream.kept.pop_front();
        }
        stream.kept.push_back(publication.clone());
        Ok(publication)
    }

    fn read(
        &mut self,
        channel: &Channel,
        options: &ChannelOptions,
        query: HistoryQuery,
        now: Instant,
    ) -> Result<History, BrokerError> {
        let stream = self.stream(channel, options, now)?;
        let top = Position { epoch: stream.epoch.clone(), offset: stream.top };
        let offset = |publication: &Arc<Publication>| publication.offset().unwrap_or(0);
        let publications: Vec<_> = if query.reverse {
            let before = query.since.unwrap_or(u64::MAX);
            stream.kept.iter().rev().filter(|kept| offset(kept) < before).take(query.limit).cloned().collect()
        } else {
            let after = query.since.unwrap_or(0);
            stream.kept.iter().filter(|kept| offset(kept) > after).take(query.limit).cloned().collect()
        };
        let missed = stream.top.saturating_sub(query.since.unwrap_or(0));
        Ok(History { top, complete: publications.len() as u64 == missed, publications })
    }

    fn sweep(&mut self, now: Instant) {
        self.streams.retain(|_, stream| {
            if stream.expires <= now {
                stream.kept = VecDeque::new();
            }
            stream.ends > now
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{STREAM_LIFE, Store};
    use crate::broker::{History, HistoryQuery};
    use crate::namespace::ChannelOptions;
    use crate::publication::{Channel, Position};
    use bytes::Bytes;
    use std::time::{Duration, Instant};

    fn origin() -> Instant {
        crate::driver::clock::now()
    }

    fn options() -> ChannelOptions {
        ChannelOptions {
            history_size: 3,
            history_ttl: Duration::from_secs(10),
            recovery: true,
            ..ChannelOptions::default()
        }
    }

    fn read(store: &mut Store, now: Instant, since: Option<u64>, limit: usize) -> (Vec<u64>, History) {
        let query = HistoryQuery { since, limit, reverse: false };
        let history = store.read(&Channel::from("a"), &options(), query, now).unwrap();
        (history.publications.iter().filter_map(|kept| kept.offset()).collect(), history)
    }

    #[test]
    fn a_ring_keeps_the_newest_and_knows_what_it_lost() {
        let now = origin();
        let mut store = Store::default();
        for _ in 0..5 {
            store.append(&Channel::from("a"), Bytes::from_static(b"1"), &options(), now).unwrap();
        }
        let (offsets, history) = read(&mut store, now, Some(2), 300);
        assert_eq!((offsets, history.complete, history.top.offset), (vec![3, 4, 5], true, 5));
        assert!(history.continues(&Position { epoch: history.top.epoch.clone(), offset: 2 }));
        assert!(!history.continues(&Position { epoch: "other".into(), offset: 2 }));
        assert!(!read(&mut store, now, Some(1), 300).1.complete, "offset 2 is gone");
        assert!(!read(&mut store, now, Some(2), 2).1.complete, "more than may be told");
        let (offsets, history) = read(&mut store, now, Some(9), 300);
        assert!(offsets.is_empty());
        assert!(
            !history.continues(&Position { epoch: history.top.epoch.clone(), offset: 9 }),
            "from the future"
        );
    }

    #[test]
    fn publications_expire_before_the_epoch_does() {
        let now = origin();
        let mut store = Store::default();
        store.append(&Channel::from("a"), Bytes::from_static(b"1"), &options(), now).unwrap();
        let before = read(&mut store, now, None, 300).1.top.epoch;
        let later = now + Duration::from_secs(10);
        let (offsets, history) = read(&mut store, later, Some(0), 300);
        assert!(offsets.is_empty() && !history.complete);
        assert_eq!((history.top.epoch.clone(), history.top.offset), (before.clone(), 1));
        store.sweep(now + STREAM_LIFE);
        assert_ne!(read(&mut store, later, Some(0), 300).1.top.epoch, before);
    }
}
