//! What goes wrong, and the repair of all of it.

use evenkeel_topology::Input;

use super::{Event, Kind, MS, NODES, SECOND, Trouble, World, data};

impl World {
    pub(super) fn fault(&mut self) {
        let kinds = if self.trouble == Trouble::Clean { 4 } else { 10 };
        match self.rng.range(0, kinds) {
            0 | 1 => {
                let alive: Vec<usize> = (0..3).filter(|s| self.sentinels[*s].up).collect();
                let primary = &self.nodes[self.truth];
                if self.failover.is_none()
                    && primary.up
                    && !primary.stopped
                    && let Some(leader) = self.rng.pick(&alive)
                {
                    let kind = if self.rng.chance(40) { Kind::HandsOver } else { Kind::Planned };
                    self.begin(leader, kind);
                }
            }
            2 => self.kill(self.truth),
            3 => {
                let node = self.rng.range(0, NODES as u64) as usize;
                self.kill(node);
            }
            4 => {
                let node = self.rng.range(0, NODES as u64) as usize;
                self.nodes[node].cut = true;
                self.after(100 * MS, 6 * SECOND, Event::Reconnect(node));
            }
            5 => {
                self.nodes[self.truth].stopped = true;
                self.after(100 * MS, 4 * SECOND, Event::Reconnect(self.truth));
            }
            6 => {
                let sentinel = self.rng.range(0, 3) as usize;
                self.cut_link(sentinel, 0);
            }
            7 => {
                let sentinel = self.rng.range(0, 3) as usize;
                let notice = self.rng.range(0, 3 * SECOND);
                self.sentinels[sentinel].cut = true;
                self.cut_link(sentinel, notice);
            }
            8 => {
                let sentinel = self.rng.range(0, 3) as usize;
                let others = (0..3).filter(|s| *s != sentinel && self.sentinels[*s].up).count();
                if others == 2 && self.failover.is_none() {
                    self.sentinels[sentinel].up = false;
                    self.cut_link(sentinel, MS);
                }
            }
            _ => {
                let node = self.rng.range(0, NODES as u64) as usize;
                self.happen(Event::Rogue { node, on: true });
            }
        }
        // What was cut is repaired after a while, dead sentinels come back.
        for sentinel in 0..3 {
            if self.rng.chance(20) {
                self.sentinels[sentinel].cut = false;
                self.revive(sentinel);
            }
        }
    }

    pub(super) fn kill(&mut self, node: usize) {
        if !self.nodes[node].up {
            return;
        }
        self.show(format!("kill {node}"));
        self.nodes[node].up = false;
        self.nodes[node].rogue = false;
        self.after(50 * MS, 6 * SECOND, Event::Restart(node));
        if self.nodes[node].says_primary {
            // It comes back as it was, until a sentinel tells it otherwise.
            let to = self.truth;
            self.after(7 * SECOND, 10 * SECOND, Event::Demote { node, to });
        }
        if self.followed == Some(node) {
            self.after(50, MS, Event::Deliver(Input::ConnectionLost { endpoint: data(node) }));
        }
    }

    pub(super) fn revive(&mut self, sentinel: usize) {
        if !self.sentinels[sentinel].up {
            let newest = self.sentinels.iter().filter(|s| s.up).max_by_key(|s| s.epoch).cloned();
            let state = &mut self.sentinels[sentinel];
            state.up = true;
            if let Some(newest) = newest {
                state.epoch = newest.epoch;
                state.primary = newest.primary;
                state.current_epoch = state.current_epoch.max(newest.current_epoch);
            }
        }
    }

    pub(super) fn heal(&mut self) {
        for sentinel in 0..3 {
            self.sentinels[sentinel].cut = false;
            self.revive(sentinel);
        }
        for node in 0..NODES {
            self.nodes[node].up = true;
            self.nodes[node].cut = false;
            self.nodes[node].stopped = false;
            self.nodes[node].paused = false;
            self.happen(Event::Rogue { node, on: false });
            if node != self.truth && self.failover.is_none() {
                let to = self.truth;
                self.after(MS, 3 * SECOND, Event::Demote { node, to });
            }
        }
    }
}
