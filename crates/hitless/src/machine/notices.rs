//! What the engine makes of announcements: windows of relaxed timeouts and slot changes here, moves in `starts`.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::{Duration, Instant},
};

use evenkeel_protocol::{Endpoint, Notice, maintenance::SlotMove};

use super::{
    HandoffEngine,
    sequence::Identity,
    slot_set::SlotSet,
    windows::{Extent, Window},
};
use crate::{Action, Event, Family, Mode, Origin, Outcome, Scope};

/// Caps of windows whose end is lost; the ceilings of hosted servers for such an operation.
const MIGRATION_CAP: Duration = Duration::from_secs(600);
const FAILOVER_CAP: Duration = Duration::from_secs(60);
const SLOTS_CAP: Duration = Duration::from_secs(30);
/// An operation that starts later than this has its units wrong.
const LONGEST_LEAD: Duration = Duration::from_secs(60);
/// How long an end is known as told.
const END_MEMORY: Duration = Duration::from_secs(120);
/// Without a sequence id a repeat cannot be told from a second event, except by coming at once.
const UNNUMBERED_MEMORY: Duration = Duration::from_secs(1);
/// Servers repeat the last end to a new connection within milliseconds.
const REPLAY_WITHIN: Duration = Duration::from_secs(1);

impl HandoffEngine {
    pub(super) fn notice(&mut self, now: Instant, origin: &Origin, during_handshake: bool, notice: Notice) {
        let (name, seq) = (notice.name(), notice.seq());
        let outcome = if self.settings.mode() == Mode::Disabled {
            Outcome::Disabled
        } else {
            self.outcome(now, origin, during_handshake, notice)
        };
        self.report(Event::Noticed {
            conn: origin.conn,
            endpoint: origin.endpoint.clone(),
            name,
            seq,
            outcome,
        });
    }

    fn outcome(&mut self, now: Instant, origin: &Origin, during_handshake: bool, notice: Notice) -> Outcome {
        match notice {
            Notice::Moving { seq, grace, target } => self.moving(now, origin, seq, grace, target),
            Notice::Migrating { seq, within, shards } => {
                let extent = Extent::shards(&shards);
                self.window_starts(now, origin, Family::Migration, seq, within, extent)
            }
            Notice::FailingOver { seq, within, shards } => {
                let extent = Extent::shards(&shards);
                self.window_starts(now, origin, Family::Failover, seq, within, extent)
            }
            Notice::SlotsMigrating { seq, slots } => {
                let extent = Extent::slots(&slots);
                self.window_starts(now, origin, Family::Slots, seq, None, extent)
            }
            Notice::Migrated { seq, shards } => {
                let extent = Extent::shards(&shards);
                let outcome =
                    self.window_ends(now, origin, during_handshake, Family::Migration, seq, &extent);
                if matches!(outcome, Outcome::Restored | Outcome::Unmatched) {
                    // A proxy that is taken out is not announced: its address just leaves DNS.
                    self.names.watch(now, &origin.endpoint);
                }
                outcome
            }
            Notice::FailedOver { seq, shards } => {
                let extent = Extent::shards(&shards);
                self.window_ends(now, origin, during_handshake, Family::Failover, seq, &extent)
            }
            Notice::SlotsMigrated { seq, moves } => self.slots_migrated(now, origin, seq, &moves),
            // A kind that this version does not know.
            _ => Outcome::Unmatched,
        }
    }

    fn window_starts(
        &mut self,
        now: Instant,
        origin: &Origin,
        family: Family,
        seq: Option<u64>,
        within: Option<Duration>,
        extent: Extent,
    ) -> Outcome {
        let cap = match family {
            Family::Failover => FAILOVER_CAP,
            Family::Slots => SLOTS_CAP,
            _ => MIGRATION_CAP,
        };
        let until = now + within.unwrap_or_default().min(LONGEST_LEAD) + cap;
        if self.windows.has_ended(now, &origin.endpoint, family, seq, &extent) {
            return Outcome::Stale;
        }
        let identity = Identity {
            endpoint: Some(origin.endpoint.clone()),
            name: family.word(),
            seq,
            content: extent.digest(),
        };
        let known_until = if seq.is_some() { until } else { now + UNNUMBERED_MEMORY };
        if !self.seen.is_new(now, identity, known_until) {
            return Outcome::Repeated;
        }
        self.open_window(origin.endpoint.clone(), family, seq, extent, until);
        Outcome::Relaxed
    }

    fn window_ends(
        &mut self,
        now: Instant,
        origin: &Origin,
        during_handshake: bool,
        family: Family,
        seq: Option<u64>,
        extent: &Extent,
    ) -> Outcome {
        let young = self
            .conns
            .get(&origin.conn)
            .is_none_or(|conn| now.saturating_duration_since(conn.opened_at) < REPLAY_WITHIN);
        // Without an id, what a new connection hears cannot be told from what is long over.
        if seq.is_none() && during_handshake {
            return Outcome::Replayed;
        }
        let name = if family == Family::Failover { "FAILED_OVER" } else { "MIGRATED" };
        let identity =
            Identity { endpoint: Some(origin.endpoint.clone()), name, seq, content: extent.digest() };
        let memory = if seq.is_some() { END_MEMORY } else { UNNUMBERED_MEMORY };
        if !self.seen.is_new(now, identity, now + memory) {
            return Outcome::Repeated;
        }
        self.windows.remember_end(&origin.endpoint, family, seq, extent, now + FAILOVER_CAP);
        let closed = self.windows.end(&origin.endpoint, family, seq, extent);
        if closed.is_empty() {
            return if during_handshake || young { Outcome::Replayed } else { Outcome::Unmatched };
        }
        for window in closed {
            self.close_window(window, false);
        }
        Outcome::Restored
    }

    fn slots_migrated(
        &mut self,
        now: Instant,
        origin: &Origin,
        seq: Option<u64>,
        moves: &[SlotMove],
    ) -> Outcome {
        let mut hasher = DefaultHasher::new();
        let mut slots = SlotSet::default();
        for one in moves {
            (&one.target, one.slots.ranges()).hash(&mut hasher);
            slots.add(&one.slots);
        }
        // Every node tells of every change, so the endpoint is no part of what it is known by.
        let identity = Identity { endpoint: None, name: "SMIGRATED", seq, content: hasher.finish() };
        let memory = if seq.is_some() { END_MEMORY } else { UNNUMBERED_MEMORY };
        if !self.seen.is_new(now, identity, now + memory) {
            return Outcome::Repeated;
        }
        let extent = Extent::Slots(slots);
        self.windows.remember_end(&origin.endpoint, Family::Slots, seq, &extent, now + FAILOVER_CAP);
        for window in self.windows.end(&origin.endpoint, Family::Slots, seq, &extent) {
            self.close_window(window, false);
        }
        let news = self.slot_log.apply(now, seq, moves);
        self.verify_topology(now);
        if news.is_empty() {
            return Outcome::Stale;
        }
        self.act(Action::MoveSlots { moves: news });
        Outcome::SlotsMoved
    }

    pub(super) fn open_window(
        &mut self,
        endpoint: Endpoint,
        family: Family,
        seq: Option<u64>,
        extent: Extent,
        until: Instant,
    ) {
        let key = self.key();
        let scope = Scope::Endpoint(endpoint.clone());
        self.metrics.relaxed(family);
        if let Some(action) = self.ledger.acquire(&scope, key, self.settings.relaxed_timeout(), family) {
            self.act(action);
        }
        self.report(Event::WindowOpened { endpoint: endpoint.clone(), family, seq, until });
        let window = Window { key, endpoint, family, seq, extent, until };
        if let Some(evicted) = self.windows.open(window) {
            self.close_window(evicted, true);
        }
    }

    pub(super) fn close_window(&mut self, window: Window, expired: bool) {
        let Window { key, endpoint, family, seq, .. } = window;
        self.metrics.unrelaxed(family);
        if let Some(action) = self.ledger.release(&Scope::Endpoint(endpoint.clone()), key) {
            self.act(action);
        }
        self.report(Event::WindowClosed { endpoint, family, seq, expired });
    }
}
