//! Who waits so that order survives (P7): commands of a slot whose earlier commands are still owed elsewhere.

use std::collections::{BTreeMap, VecDeque};

use bytes::BytesMut;

use super::queue_state::{Entry, MANY_SLOTS};

/// A command that waits in wire form; large arguments are copied, since waiting is rare and short.
#[derive(Debug)]
pub(super) struct Deferred {
    pub(super) entry: Entry,
    pub(super) wire: BytesMut,
}

/// What stands in the way of one slot's commands.
#[derive(Debug, Default)]
struct Blocked {
    /// Replies owed by a connection that was moved away from.
    owed: usize,
    /// Commands that may be sent again, by their place in the order; `Some` once the caller has handed them in.
    resend: BTreeMap<u64, Option<Deferred>>,
    /// Commands that came later.
    waiting: VecDeque<Deferred>,
}

/// The slots that are not free to go on. Empty outside handoffs, holds and retries, and asked about only by `is_empty` then.
#[derive(Debug, Default)]
pub(super) struct Order {
    blocked: BTreeMap<u16, Blocked>,
    /// Writes are held back (a planned failover is under way).
    holding: bool,
    /// Bytes that wait here.
    bytes: usize,
}

impl Order {
    pub(super) fn is_empty(&self) -> bool {
        self.blocked.is_empty() && !self.holding
    }

    pub(super) fn is_holding(&self) -> bool {
        self.holding
    }

    /// Whether a new command must wait.
    pub(super) fn must_wait(&self, slot: u16, may_write: bool) -> bool {
        (self.holding && may_write)
            || self.blocked.contains_key(&slot)
            || self.blocked.contains_key(&MANY_SLOTS)
            || (slot == MANY_SLOTS && !self.blocked.is_empty())
    }

    /// Puts a command behind what blocks its slot.
    pub(super) fn wait(&mut self, deferred: Deferred) {
        self.bytes += deferred.wire.len();
        // Behind a unit of many slots everything waits in one line, whatever its own slot.
        let line = if self.blocked.contains_key(&MANY_SLOTS) { MANY_SLOTS } else { deferred.entry.slot };
        self.blocked.entry(line).or_default().waiting.push_back(deferred);
    }

    /// A reply of this slot is still owed by a connection that takes nothing new.
    pub(super) fn owe(&mut self, slot: u16) {
        self.blocked.entry(slot).or_default().owed += 1;
    }

    /// A reply that was owed is in, or will never come.
    pub(super) fn settle(&mut self, slot: u16) {
        if let Some(blocked) = self.blocked.get_mut(&slot) {
            blocked.owed = blocked.owed.saturating_sub(1);
        }
    }

    /// The command at this place may be sent again: later ones of its slot wait for the caller's decision.
    pub(super) fn expect_resend(&mut self, slot: u16, seq: u64) {
        self.blocked.entry(slot).or_default().resend.insert(seq, None);
    }

    /// The caller sends it again.
    pub(super) fn resend(&mut self, seq: u64, deferred: Deferred) {
        self.bytes += deferred.wire.len();
        self.blocked.entry(deferred.entry.slot).or_default().resend.insert(seq, Some(deferred));
    }

    /// The caller does not send it again.
    pub(super) fn forget(&mut self, slot: u16, seq: u64) {
        if let Some(blocked) = self.blocked.get_mut(&slot)
            && let Some(Some(deferred)) = blocked.resend.remove(&seq)
        {
            self.bytes = self.bytes.saturating_sub(deferred.wire.len());
        }
    }

    pub(super) fn hold(&mut self) {
        self.holding = true;
    }

    pub(super) fn release(&mut self) {
        self.holding = false;
    }

    /// Takes the commands of `slot` that may go now, in order.
    pub(super) fn take_ready(&mut self, slot: u16, out: &mut Vec<Deferred>) {
        self.take_line(slot, out);
        if slot != MANY_SLOTS && self.blocked.len() == 1 {
            self.take_line(MANY_SLOTS, out);
        }
    }

    fn take_line(&mut self, slot: u16, out: &mut Vec<Deferred>) {
        if slot == MANY_SLOTS && self.blocked.len() > 1 {
            return;
        }
        let Some(blocked) = self.blocked.get_mut(&slot) else { return };
        if blocked.owed > 0 {
            return;
        }
        let from = out.len();
        while let Some(first) = blocked.resend.first_entry() {
            if first.get().is_none() {
                break;
            }
            if let Some(deferred) = first.remove() {
                out.push(deferred);
            }
        }
        if blocked.resend.is_empty() {
            while let Some(front) = blocked.waiting.front() {
                if self.holding && front.entry.may_write {
                    break;
                }
                out.extend(blocked.waiting.pop_front());
            }
            if blocked.waiting.is_empty() {
                self.blocked.remove(&slot);
            }
        }
        let taken: usize =
            out.get(from..).unwrap_or_default().iter().map(|deferred| deferred.wire.len()).sum();
        self.bytes = self.bytes.saturating_sub(taken);
    }

    /// Takes whatever may go now, in the order in which it came.
    pub(super) fn take_all_ready(&mut self, out: &mut Vec<Deferred>) {
        let slots: Vec<u16> = self.blocked.keys().copied().collect();
        for slot in slots {
            self.take_ready(slot, out);
        }
        out.sort_by_key(|deferred| deferred.entry.seq);
    }

    /// Takes out the waiting commands that `gone` names.
    pub(super) fn remove_where(&mut self, mut gone: impl FnMut(&Entry) -> bool) {
        let mut bytes = 0;
        for blocked in self.blocked.values_mut() {
            blocked.waiting.retain(|deferred| {
                let remove = gone(&deferred.entry);
                if remove {
                    bytes += deferred.wire.len();
                }
                !remove
            });
        }
        self.bytes = self.bytes.saturating_sub(bytes);
        self.blocked.retain(|_, blocked| {
            blocked.owed > 0 || !blocked.resend.is_empty() || !blocked.waiting.is_empty()
        });
    }

    /// Takes everything that waits, for a lane that closes.
    pub(super) fn drain(&mut self) -> Vec<Deferred> {
        self.bytes = 0;
        let mut all: Vec<Deferred> = std::mem::take(&mut self.blocked)
            .into_values()
            .flat_map(|blocked| blocked.resend.into_values().flatten().chain(blocked.waiting))
            .collect();
        all.sort_by_key(|deferred| deferred.entry.seq);
        all
    }
}
