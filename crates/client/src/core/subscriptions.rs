//! Which link carries which subscription: one link per node, made when somebody first wants it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use evenkeel_pool::{Link, LinkConfig, LinkId, LinkObserver, machine::ChannelKind};
use evenkeel_protocol::{Endpoint, Slot};
use parking_lot::Mutex;

use super::{Core, observe::Observer, route::Routes, spawn};
use crate::pubsub::{Changes, Family};

/// How long a subscription waits that a node could not take.
const PUT_OFF: Duration = Duration::from_millis(50);

/// A subscription by its kind and name.
type Wanted = (ChannelKind, Bytes);

/// Which names each link carries. It is shared with whoever hears the links: a gap is told in a link's own task, before
/// whatever comes behind it.
#[derive(Debug, Default)]
pub(crate) struct Names(Mutex<BTreeMap<LinkId, BTreeSet<Wanted>>>);

impl Names {
    pub(super) fn of(&self, link: LinkId) -> BTreeSet<Wanted> {
        self.0.lock().get(&link).cloned().unwrap_or_default()
    }

    pub(super) fn add(&self, link: LinkId, name: Wanted) {
        self.0.lock().entry(link).or_default().insert(name);
    }

    /// Gives whether the link carried it.
    fn remove(&self, link: LinkId, name: &Wanted) -> bool {
        self.0.lock().get_mut(&link).is_some_and(|names| names.remove(name))
    }

    fn carries(&self, link: LinkId, name: &Wanted) -> bool {
        self.0.lock().get(&link).is_some_and(|names| names.contains(name))
    }
}

/// The links of a client.
#[derive(Debug)]
pub(crate) struct Links {
    config: LinkConfig,
    observer: Arc<Observer>,
    next: AtomicU64,
    /// By the endpoint that each was started for.
    carried: Mutex<BTreeMap<Endpoint, Link>>,
}

impl Links {
    pub(crate) fn new(config: LinkConfig, observer: Arc<Observer>) -> Self {
        Self { config, observer, next: AtomicU64::new(1), carried: Mutex::default() }
    }

    pub(crate) fn all(&self) -> Vec<Link> {
        self.carried.lock().values().cloned().collect()
    }

    pub(crate) fn find(&self, id: LinkId) -> Option<Link> {
        self.carried.lock().values().find(|link| link.id() == id).cloned()
    }

    fn names(&self) -> &Names {
        self.observer.names()
    }

    fn start(&self, home: &Endpoint, at: &Endpoint) -> Link {
        let id = LinkId(self.next.fetch_add(1, Ordering::Relaxed));
        let observer: Arc<dyn LinkObserver> = Arc::<Observer>::clone(&self.observer);
        Link::start(id, at.clone(), self.config.clone().home(home.clone()), observer)
    }

    /// Wants a name on the link of `home`, which leads to `at` when it is made now.
    fn want(&self, home: &Endpoint, at: &Endpoint, name: Wanted) {
        let mut carried = self.carried.lock();
        let link = carried.entry(home.clone()).or_insert_with(|| self.start(home, at));
        self.names().add(link.id(), name.clone());
        link.subscribe(name.0, [name.1]);
    }

    /// Wants a name nowhere any more.
    fn leave(&self, name: &Wanted) {
        for link in self.carried.lock().values() {
            if self.names().remove(link.id(), name) {
                link.unsubscribe(name.0, [name.1.clone()]);
            }
        }
    }

    /// Where a name is carried.
    fn place_of(&self, name: &Wanted) -> Option<Endpoint> {
        let carried = self.carried.lock();
        carried.iter().find(|(_, link)| self.names().carries(link.id(), name)).map(|(home, _)| home.clone())
    }

    /// Gives whether the link carried it.
    fn forget(&self, id: LinkId, name: &Wanted) -> bool {
        self.names().remove(id, name)
    }

    pub(crate) fn close(&self) {
        let gone = std::mem::take(&mut *self.carried.lock());
        drop(gone);
    }
}

pub(crate) fn kind_of(family: Family) -> ChannelKind {
    match family {
        Family::Channel => ChannelKind::Channel,
        Family::Pattern => ChannelKind::Pattern,
        Family::Shard => ChannelKind::Shard,
    }
}

pub(crate) fn family_of(kind: ChannelKind) -> Family {
    match kind {
        ChannelKind::Pattern => Family::Pattern,
        ChannelKind::Shard => Family::Shard,
        _ => Family::Channel,
    }
}

impl Core {
    /// Where a subscription belongs: the key of its link, and where that link leads now.
    fn place_for(&self, name: &Wanted) -> Option<(Endpoint, Endpoint)> {
        match &**self.routes() {
            Routes::One(node) => Some((node.home().clone(), node.endpoint()?)),
            Routes::Cluster(cluster) => {
                let slot = (name.0 == ChannelKind::Shard).then(|| Slot::of(&name.1));
                let owner = match slot {
                    Some(slot) => cluster.owner_endpoint(slot)?.clone(),
                    // Every node of a cluster hears every channel: a link that stands is kept.
                    None => {
                        match self.links().place_of(name).filter(|place| cluster.nodes().contains_key(place))
                        {
                            Some(place) => place,
                            None => cluster.nodes().keys().next()?.clone(),
                        }
                    }
                };
                Some((owner.clone(), owner))
            }
        }
    }

    /// Says to the links what subscribers want and do not want any more.
    pub(crate) fn change_subscriptions(&self, changes: Changes) {
        for (family, name) in changes.unsubscribe {
            self.links().leave(&(kind_of(family), name));
        }
        for (family, name) in changes.subscribe {
            self.place(&(kind_of(family), name));
        }
    }

    fn place(&self, name: &Wanted) {
        if let Some((home, at)) = self.place_for(name) {
            self.links().want(&home, &at, name.clone());
        }
    }

    /// Puts subscriptions where they belong by the routes in force; those that stand right are not touched.
    pub(crate) fn replace_subscriptions(&self) {
        for (family, name) in self.pubsub().wanted() {
            let wanted = (kind_of(family), name);
            let Some((home, at)) = self.place_for(&wanted) else { continue };
            match self.links().place_of(&wanted) {
                Some(place) if place == home => {}
                Some(_) => {
                    // Before the link is asked, whose answer tells the gap.
                    self.pubsub().moved(family, &wanted.1);
                    self.links().leave(&wanted);
                    self.links().want(&home, &at, wanted);
                }
                None => self.links().want(&home, &at, wanted),
            }
        }
    }

    /// A link lost a shard channel to a slot move: it is wanted at the new owner.
    pub(crate) fn shard_ended(&self, link: LinkId, channel: &Bytes) {
        let name = (ChannelKind::Shard, channel.clone());
        if !self.links().forget(link, &name) {
            // The map was faster: it is wanted at the new owner already, and its subscribers know of the gap.
            return;
        }
        if self.pubsub().is_wanted(Family::Shard, channel) {
            self.pubsub().moved(Family::Shard, channel);
            self.place(&name);
        }
    }

    /// A node cannot take subscriptions at the moment, as while a cluster elects: they are asked for again until one can.
    pub(crate) fn subscriptions_put_off(self: &Arc<Self>, link: LinkId, kind: ChannelKind, names: &[Bytes]) {
        let family = family_of(kind);
        let mut put_off = Vec::new();
        for name in names {
            let name = (kind, name.clone());
            if self.links().forget(link, &name) && self.pubsub().is_wanted(family, &name.1) {
                self.pubsub().moved(family, &name.1);
                put_off.push(name);
            }
        }
        let core = Arc::downgrade(self);
        spawn(async move {
            tokio::time::sleep(PUT_OFF).await;
            let Some(core) = core.upgrade() else { return };
            for name in put_off {
                // A map that came meanwhile may have placed it.
                if core.links().place_of(&name).is_none() && core.pubsub().is_wanted(family, &name.1) {
                    core.place(&name);
                }
            }
        });
    }
}
