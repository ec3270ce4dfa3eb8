//! Who waits so that order survives (P7): commands of a slot whose earlier commands are still owed elsewhere.

use std::collections::BTreeMap;

use bytes::BytesMut;

use super::{queue_state::Entry, unit::MANY_SLOTS};

/// A command that waits in wire form; large arguments are copied, since waiting is rare and short.
#[derive(Debug)]
pub(super) struct Deferred {
    pub(super) entry: Entry,
    pub(super) wire: BytesMut,
    /// It was sent once already, so nobody can say that it did not run.
    again: bool,
}

impl Deferred {
    pub(super) fn new(entry: Entry, wire: BytesMut) -> Self {
        Self { entry, wire, again: false }
    }
}

/// What stands in the way of one slot's commands.
#[derive(Debug, Default)]
struct Line {
    /// Replies owed by a connection that was moved away from.
    owed: usize,
    /// Commands by their place in the order; `None` for one that was given back, until its caller decides.
    waiting: BTreeMap<u64, Option<Deferred>>,
}

impl Line {
    fn is_clear(&self) -> bool {
        self.owed == 0 && self.waiting.is_empty()
    }

    fn first(&self) -> Option<u64> {
        self.waiting.first_key_value().map(|(place, _)| *place)
    }

    /// Whether everything before `place` is done.
    fn lets_pass(&self, place: u64) -> bool {
        self.owed == 0 && self.first().is_none_or(|first| first > place)
    }

    /// Takes the first one, when nothing is owed, it is decided and `may_go` agrees.
    fn take_first(&mut self, may_go: impl FnOnce(&Entry) -> bool) -> Option<Deferred> {
        let first = self.waiting.first_entry().filter(|_| self.owed == 0)?;
        let ready = first.get().as_ref().is_some_and(|deferred| may_go(&deferred.entry));
        if ready { first.remove() } else { None }
    }
}

/// The slots that are not free to go on. Empty outside handoffs, holds and retries, and asked about only by `is_empty` then.
#[derive(Debug, Default)]
pub(super) struct Order {
    lines: BTreeMap<u16, Line>,
    /// Units of several slots: what comes later waits for them, whatever its slot, and they wait for all that came before.
    many: Line,
    /// Writes are held back (a planned failover is under way).
    holding: bool,
}

impl Order {
    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty() && self.many.is_clear() && !self.holding
    }

    pub(super) fn is_holding(&self) -> bool {
        self.holding
    }

    /// Whether a new command must wait.
    pub(super) fn must_wait(&self, slot: u16, may_write: bool) -> bool {
        (self.holding && may_write)
            || self.lines.contains_key(&slot)
            || !self.many.is_clear()
            || (slot == MANY_SLOTS && !self.lines.is_empty())
    }

    fn line(&mut self, slot: u16) -> &mut Line {
        if slot == MANY_SLOTS { &mut self.many } else { self.lines.entry(slot).or_default() }
    }

    /// Puts a command where its place is: behind what came before it, and before what has come since.
    pub(super) fn wait(&mut self, deferred: Deferred) {
        self.line(deferred.entry.slot).waiting.insert(deferred.entry.seq, Some(deferred));
    }

    /// A reply of this slot is still owed by a connection that takes nothing new.
    pub(super) fn owe(&mut self, slot: u16) {
        self.line(slot).owed += 1;
    }

    /// A reply that was owed is in, or will never come.
    pub(super) fn settle(&mut self, slot: u16) {
        let line = self.line(slot);
        line.owed = line.owed.saturating_sub(1);
    }

    /// The command at this place may be sent again: later ones of its slot wait for the caller's decision.
    pub(super) fn expect_resend(&mut self, slot: u16, seq: u64) {
        self.line(slot).waiting.insert(seq, None);
    }

    /// Whether a caller's decision about this place is awaited.
    pub(super) fn expects(&self, slot: u16, seq: u64) -> bool {
        let line = if slot == MANY_SLOTS { Some(&self.many) } else { self.lines.get(&slot) };
        line.is_some_and(|line| matches!(line.waiting.get(&seq), Some(None)))
    }

    /// The caller sends it again.
    pub(super) fn resend(&mut self, deferred: Deferred) {
        self.wait(Deferred { again: true, ..deferred });
    }

    /// The caller does not send it again.
    pub(super) fn forget(&mut self, slot: u16, seq: u64) {
        self.line(slot).waiting.remove(&seq);
    }

    pub(super) fn hold(&mut self) {
        self.holding = true;
    }

    pub(super) fn release(&mut self) {
        self.holding = false;
    }

    /// Takes what may go now because something of `slot` is settled, in order.
    pub(super) fn take_ready(&mut self, slot: u16, out: &mut Vec<Deferred>) {
        if slot == MANY_SLOTS || !self.many.is_clear() {
            return self.take_all_ready(out);
        }
        self.take_line(slot, out);
    }

    fn take_line(&mut self, slot: u16, out: &mut Vec<Deferred>) {
        let Self { lines, many, holding } = self;
        let Some(line) = lines.get_mut(&slot) else { return };
        let may_go = |entry: &Entry| !(*holding && entry.may_write) && many.lets_pass(entry.seq);
        out.extend(std::iter::from_fn(|| line.take_first(may_go)));
        if line.is_clear() {
            lines.remove(&slot);
        }
    }

    /// Takes whatever may go now, in the order in which it came.
    pub(super) fn take_all_ready(&mut self, out: &mut Vec<Deferred>) {
        loop {
            let slots: Vec<u16> = self.lines.keys().copied().collect();
            for slot in slots {
                self.take_line(slot, out);
            }
            let Self { lines, many, holding } = self;
            let unit = many.take_first(|entry| {
                !(*holding && entry.may_write) && lines.values().all(|line| line.lets_pass(entry.seq))
            });
            match unit {
                Some(unit) => out.push(unit),
                None => break,
            }
        }
        out.sort_by_key(|deferred| deferred.entry.seq);
    }

    /// Takes out the commands that wait for the first time and that `gone` names.
    pub(super) fn remove_where(&mut self, mut gone: impl FnMut(&Entry) -> bool) {
        for line in self.lines.values_mut().chain([&mut self.many]) {
            line.waiting.retain(|_, waiting| {
                !waiting.as_ref().is_some_and(|deferred| !deferred.again && gone(&deferred.entry))
            });
        }
        self.lines.retain(|_, line| !line.is_clear());
    }

    /// Takes everything that waits, for a lane that closes.
    pub(super) fn drain(&mut self) -> Vec<Deferred> {
        let lines = std::mem::take(&mut self.lines).into_values().chain([std::mem::take(&mut self.many)]);
        let mut all: Vec<Deferred> = lines.flat_map(|line| line.waiting.into_values().flatten()).collect();
        all.sort_by_key(|deferred| deferred.entry.seq);
        all
    }
}
