//! `Fences`: the order of a slot's commands while the slot changes hands (P7).
//!
//! A fence stands at a slot from the first refusal, or from the map that names another owner, until the lane that served the
//! slot owes nothing of it any more. Meanwhile new commands of the slot wait; then those that were refused go first, in the
//! order in which they had been sent, and the others behind them. One goes when the one before it has its place in a lane;
//! to another lane than that one's only when the one before it is answered, because they do not all choose by the same map.
//!
//! ```text
//! gathering --the lanes owe nothing of the slot--> letting go, one after the other --nobody waits--> gone
//!     ^------------------------------ refused again ----------------|
//! ```

use std::{
    collections::BTreeMap,
    fmt,
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use evenkeel_pool::{Lane, LaneCall};
use evenkeel_protocol::{Command, Slot};
use parking_lot::Mutex;

use super::{Core, clock, node::Node, route::Routes, spawn};

/// A lane that still owes something after so long holds nobody up any more. What it owes ends before: by its answers, by the
/// deadlines of those who wait for them, or with the node, when it is mute and the map has given all its slots away.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks at what lanes owe; the first ones follow at once.
const LOOK: Duration = Duration::from_millis(1);
const QUICK_LOOKS: u32 = 16;

/// A place in the order of one fence: refused ones first, as they had been sent; the others as they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    is_fresh: bool,
    lane: usize,
    place: u64,
    index: u32,
    fence: u64,
}

/// Where a refused command had stood: its lane, its place there, and its place in its unit.
#[derive(Debug)]
pub(super) struct Stood {
    pub(super) lane: Lane,
    pub(super) place: u64,
    pub(super) index: u32,
    /// Its call. In a cluster it counts as owed while it lives, so that nobody goes before this command has lined up; elsewhere
    /// it keeps the command's place in its lane.
    pub(super) call: Option<LaneCall>,
}

impl Stood {
    /// Where a command that was sent to this node by itself had stood; `None` when it never had a place there, and goes behind
    /// everybody.
    pub(super) fn at(
        node: &Node,
        command: &Command,
        place: Option<u64>,
        call: Option<LaneCall>,
    ) -> Option<Self> {
        let slot = if node.has_one_lane() { None } else { command.slot() };
        node.lane(slot).zip(place).map(|(lane, place)| Self { lane: lane.clone(), place, index: 0, call })
    }
}

#[derive(Debug, Default)]
struct Fence {
    number: u64,
    /// Every lane that refused something, for the order among them.
    lanes: Vec<Lane>,
    /// Those that may still owe something.
    sources: Vec<Source>,
    /// Where the last one went that had its turn.
    last: Option<Lane>,
    line: BTreeMap<Key, Option<Waker>>,
    next: u64,
    turn: Option<Key>,
}

/// A lane that may still owe something of a slot.
#[derive(Debug)]
struct Source {
    lane: Lane,
    since: Instant,
    /// Where it was seen last what is owed. Thousands ask when a node ends, and each look through all would be too many.
    seen_at: usize,
}

impl Source {
    fn is_settled(&mut self, slot: u16, now: Instant) -> bool {
        match self.lane.owed_at(slot, self.seen_at) {
            Some(at) => {
                self.seen_at = at;
                now.saturating_duration_since(self.since) >= PATIENCE
            }
            None => true,
        }
    }
}

impl Fence {
    fn watch(&mut self, lane: &Lane) -> usize {
        if !self.sources.iter().any(|known| known.lane.id() == lane.id()) {
            self.sources.push(Source { lane: lane.clone(), since: clock::now(), seen_at: 0 });
        }
        if let Some(known) = self.lanes.iter().position(|known| known.id() == lane.id()) {
            return known;
        }
        self.lanes.push(lane.clone());
        self.lanes.len() - 1
    }

    /// Gives the first in line its turn, if it can be had; gives whether the fence is needed no more.
    fn advance(&mut self, slot: u16) -> bool {
        if self.turn.is_some() {
            return false;
        }
        self.forget_settled(slot);
        let is_last = |lane: &Lane| self.last.as_ref().is_some_and(|last| last.id() == lane.id());
        if self.sources.iter().any(|source| self.line.is_empty() || !is_last(&source.lane)) {
            return false;
        }
        match self.line.first_entry() {
            Some(mut first) => {
                self.turn = Some(*first.key());
                if let Some(waker) = first.get_mut().take() {
                    waker.wake();
                }
                false
            }
            None => true,
        }
    }

    /// Whether one may be placed in this lane next: nothing is owed elsewhere.
    fn is_free_for(&mut self, slot: u16, lane: &Lane) -> bool {
        if let Some(last) = self.last.take_if(|last| last.id() != lane.id()) {
            self.watch(&last);
        }
        self.forget_settled(slot);
        self.sources.iter().all(|source| source.lane.id() == lane.id() && self.last.is_some())
    }

    /// Lanes that owe nothing of the slot any more hold nobody up.
    fn forget_settled(&mut self, slot: u16) {
        let now = clock::now();
        self.sources.retain_mut(|source| !source.is_settled(slot, now));
    }
}

#[derive(Default)]
struct Inner {
    slots: BTreeMap<u16, Fence>,
    next: u64,
    /// Slots that get another node at this moment, and the node before.
    moving: Vec<(RangeInclusive<u16>, Arc<Node>)>,
}

impl Inner {
    /// The fence at a slot; with whether it is new.
    fn fence(&mut self, slot: u16) -> (&mut Fence, bool) {
        let is_new = !self.slots.contains_key(&slot);
        let number = self.next;
        self.next += u64::from(is_new);
        (self.slots.entry(slot).or_insert_with(|| Fence { number, ..Fence::default() }), is_new)
    }

    fn leaves(&self, slot: u16) -> Option<&Lane> {
        let (_, node) = self.moving.iter().find(|(slots, _)| slots.contains(&slot))?;
        node.lane(Slot::new(slot))
    }
}

/// The slots that are changing hands.
#[derive(Default)]
pub(crate) struct Fences {
    /// How many there are; asked by every command.
    active: AtomicUsize,
    inner: Mutex<Inner>,
}

impl fmt::Debug for Fences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fences").field("active", &self.active).finish_non_exhaustive()
    }
}

impl Fences {
    /// Whether commands of this slot must wait.
    pub(super) fn stands(&self, slot: impl FnOnce() -> Option<u16>) -> bool {
        if self.active.load(Ordering::Acquire) == 0 {
            return false;
        }
        let Some(slot) = slot() else { return false };
        let inner = self.inner.lock();
        inner.slots.contains_key(&slot) || inner.leaves(slot).is_some()
    }

    /// A place behind everybody, where a fence stands.
    pub(super) fn enter(self: &Arc<Self>, slot: u16) -> Option<Turn> {
        if self.active.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut inner = self.inner.lock();
        let left = inner.leaves(slot).cloned();
        if left.is_none() && !inner.slots.contains_key(&slot) {
            return None;
        }
        let (fence, is_new) = inner.fence(slot);
        if let Some(lane) = left {
            fence.watch(&lane);
        }
        let key = Key { is_fresh: true, lane: 0, place: fence.next, index: 0, fence: fence.number };
        fence.next += 1;
        fence.line.insert(key, None);
        drop(inner);
        if is_new {
            self.started(slot);
        }
        Some(Turn { fences: Arc::clone(self), slot, key })
    }

    /// A place for a command that was refused; `before` is the one that it had when it was sent.
    pub(super) fn enter_refused(self: &Arc<Self>, slot: u16, stood: &Stood, before: Option<Key>) -> Turn {
        let mut inner = self.inner.lock();
        let (fence, is_new) = inner.fence(slot);
        let lane = fence.watch(&stood.lane);
        // Whoever follows waits until all that it refused have lined up.
        fence.last.take_if(|last| last.id() == stood.lane.id());
        let key = before.filter(|key| key.fence == fence.number).unwrap_or(Key {
            is_fresh: false,
            lane,
            place: stood.place,
            index: stood.index,
            fence: fence.number,
        });
        fence.line.insert(key, None);
        drop(inner);
        if is_new {
            self.started(slot);
        }
        Turn { fences: Arc::clone(self), slot, key }
    }

    /// The slot belongs to another node than this lane's, which owes replies of it.
    pub(super) fn watch(self: &Arc<Self>, slot: u16, lane: &Lane) {
        let mut inner = self.inner.lock();
        let (fence, is_new) = inner.fence(slot);
        fence.watch(lane);
        drop(inner);
        if is_new {
            self.started(slot);
        }
    }

    /// These slots are about to get another node than the one named; [`moved`](Self::moved) follows when they have it.
    pub(super) fn moving(&self, slots: Vec<(RangeInclusive<u16>, Arc<Node>)>) {
        self.inner.lock().moving = slots;
        self.active.fetch_add(1, Ordering::AcqRel);
    }

    /// The slots have their new nodes: those of which the old ones still owe something are fenced.
    pub(super) fn moved(self: &Arc<Self>) {
        let moving = self.inner.lock().moving.clone();
        for (slots, node) in &moving {
            for lane in node.lanes() {
                for slot in lane.owed_slots().into_iter().filter(|slot| slots.contains(slot)) {
                    self.watch(slot, lane);
                }
            }
        }
        self.inner.lock().moving.clear();
        self.active.fetch_sub(1, Ordering::AcqRel);
    }

    fn started(self: &Arc<Self>, slot: u16) {
        self.active.fetch_add(1, Ordering::AcqRel);
        let fences = Arc::downgrade(self);
        // Whether a lane still owes something is nobody's news: somebody has to look.
        spawn(async move {
            let mut looks = 0u32;
            loop {
                match fences.upgrade() {
                    Some(fences) if !fences.advance(slot) => {}
                    _ => return,
                }
                looks = looks.saturating_add(1);
                if looks < QUICK_LOOKS {
                    tokio::task::yield_now().await;
                } else {
                    tokio::time::sleep(LOOK).await;
                }
            }
        });
    }

    /// Gives whether the fence is gone.
    fn advance(&self, slot: u16) -> bool {
        let mut inner = self.inner.lock();
        let Some(fence) = inner.slots.get_mut(&slot) else { return true };
        if fence.advance(slot) {
            inner.slots.remove(&slot);
            self.active.fetch_sub(1, Ordering::AcqRel);
            return true;
        }
        false
    }
}

impl Core {
    /// A command was placed on a node that was chosen by these routes. If others are in force by now, later commands of its
    /// slot may go elsewhere, and wait for it.
    pub(super) fn check_order(&self, command: &Command, node: &Arc<Node>, chosen_by: &Arc<Routes>) {
        if !Arc::ptr_eq(&self.routes(), chosen_by) {
            self.check_owner(command, node);
        }
    }

    /// A command was placed on a node: where that is not the one that later commands of its slot will go to, they wait for it.
    pub(super) fn check_owner(&self, command: &Command, node: &Arc<Node>) {
        let moved = self.routes().node(command).is_none_or(|owner| !Arc::ptr_eq(owner, node));
        if let Some(slot) = command.slot().filter(|_| moved)
            && let Some(lane) = node.lane(Some(slot))
        {
            self.fences.watch(slot.number(), lane);
        }
    }
}

/// A place in line. Dropping it, when the command has its place in a lane or goes nowhere, lets the next one go.
#[derive(Debug)]
pub(super) struct Turn {
    fences: Arc<Fences>,
    slot: u16,
    key: Key,
}

impl Turn {
    pub(super) fn key(&self) -> Key {
        self.key
    }

    /// Waits until everybody before it has gone.
    pub(super) async fn comes(&self) {
        std::future::poll_fn(|cx| self.poll(cx)).await;
    }

    /// Whether the turn still stands, once a lane was chosen: the slot may have moved on meanwhile, and another lane owe
    /// something of it. If not, it is given back, and [`comes`](Self::comes) waits for the next one.
    pub(super) fn confirm(&self, lane: &Lane) -> bool {
        let mut inner = self.fences.inner.lock();
        let left = inner.leaves(self.slot).cloned();
        let Some(fence) = inner.slots.get_mut(&self.slot) else { return true };
        if let Some(left) = left {
            fence.watch(&left);
        }
        if fence.is_free_for(self.slot, lane) {
            return true;
        }
        fence.turn.take_if(|turn| *turn == self.key);
        false
    }

    /// Ends the turn of a command that has its place in this lane.
    pub(super) fn placed(self, lane: &Lane) {
        let mut inner = self.fences.inner.lock();
        if let Some(fence) = inner.slots.get_mut(&self.slot).filter(|fence| fence.number == self.key.fence) {
            fence.last = Some(lane.clone());
        }
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let mut inner = self.fences.inner.lock();
        let Some(fence) = inner.slots.get_mut(&self.slot) else { return Poll::Ready(()) };
        let _needed = !fence.advance(self.slot);
        if fence.turn == Some(self.key) {
            return Poll::Ready(());
        }
        match fence.line.get_mut(&self.key) {
            Some(waker) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
            None => Poll::Ready(()),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut inner = self.fences.inner.lock();
        if let Some(fence) = inner.slots.get_mut(&self.slot).filter(|fence| fence.number == self.key.fence) {
            fence.line.remove(&self.key);
            fence.turn.take_if(|turn| *turn == self.key);
        }
        drop(inner);
        self.fences.advance(self.slot);
    }
}
