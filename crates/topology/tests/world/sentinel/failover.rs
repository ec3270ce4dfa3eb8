//! The sentinels: what they see, what they do about it, and what they announce.

use super::{Event, Failover, MS, NODES, SECOND, Step, TROUBLE, World, data};

impl World {
    /// What sentinels see of the primary, and what they do about it.
    pub(super) fn watchdog(&mut self) {
        let primary = &self.nodes[self.truth];
        let is_down = !primary.up || primary.stopped;
        let links = self.sentinels.iter().all(|s| s.up && !s.cut && !s.link.is_multiple_of(2));
        let cut = self.nodes.iter().any(|node| node.cut || node.stopped || node.rogue);
        if is_down || self.failover.is_some() || !links || cut {
            self.sound_since = self.now;
        }
        if !is_down {
            self.down_since = None;
            if std::mem::take(&mut self.odown) {
                let at = data(self.truth);
                for sentinel in 0..3 {
                    self.publish(sentinel, "-odown", format!("master m {} {}", at.host(), at.port()));
                }
            }
            return;
        }
        let since = *self.down_since.get_or_insert(self.now);
        let alive: Vec<usize> = (0..3).filter(|s| self.sentinels[*s].up).collect();
        if self.failover.is_some()
            || self.now - since < 500 * MS
            || alive.len() < 2
            || self.now - self.last_failover < 2 * SECOND
        {
            return;
        }
        let at = data(self.truth);
        self.odown = true;
        for sentinel in alive.clone() {
            let text = format!("master m {} {}", at.host(), at.port());
            self.publish(sentinel, "+sdown", text.clone());
            self.publish(sentinel, "+odown", format!("{text} #quorum 2/2"));
        }
        let leader = self.rng.pick(&alive).unwrap();
        self.begin(leader, false);
    }

    pub(super) fn begin(&mut self, leader: usize, planned: bool) {
        self.failover = Some(leader);
        self.last_failover = self.now;
        self.failovers += 1;
        let epoch = self.sentinels.iter().map(|s| s.current_epoch).max().unwrap() + 1;
        self.sentinels[leader].current_epoch = epoch;
        let failover = Failover { leader, epoch, old: self.truth, chosen: None, planned };
        self.publish(leader, "+new-epoch", epoch.to_string());
        self.about(&failover, "+try-failover", None);
        self.after(5 * MS, 100 * MS, Event::Step(failover, Step::Select));
    }

    pub(super) fn about(&mut self, failover: &Failover, channel: &'static str, node: Option<usize>) {
        let old = data(failover.old);
        let master = format!("m {} {}", old.host(), old.port());
        let payload = match node {
            None => format!("master {master}"),
            Some(node) => {
                let at = data(node);
                format!("slave {at} {} {} @ {master}", at.host(), at.port())
            }
        };
        self.publish(failover.leader, channel, payload);
    }

    pub(super) fn step(&mut self, mut failover: Failover, step: Step) {
        self.show((&failover, step));
        match step {
            Step::Select => {
                let fit = |node: &usize| {
                    let state = &self.nodes[*node];
                    *node != failover.old && state.up && !state.stopped && !state.says_primary
                };
                let fit: Vec<usize> = (0..NODES).filter(fit).collect();
                failover.chosen = self.rng.pick(&fit);
                self.about(&failover, "+elected-leader", None);
                let Some(chosen) = failover.chosen.filter(|_| !self.rng.chance(10)) else {
                    return self.step(failover, Step::GiveUp);
                };
                self.about(&failover, "+selected-slave", Some(chosen));
                self.after(60 * MS, 150 * MS, Event::Step(failover, Step::Promote));
            }
            Step::Promote => {
                let chosen = failover.chosen.unwrap();
                let node = &mut self.nodes[chosen];
                if !node.up || node.stopped {
                    return self.after(SECOND, 2 * SECOND, Event::Step(failover, Step::GiveUp));
                }
                node.says_primary = true;
                node.rogue = false;
                node.promoted_at = self.now;
                self.truth = chosen;
                if self.nodes[failover.old].up {
                    let (node, to) = (failover.old, chosen);
                    self.after(3 * SECOND, 11 * SECOND, Event::Demote { node, to });
                }
                for node in 0..NODES {
                    if !self.nodes[node].says_primary {
                        self.nodes[node].of = chosen;
                    }
                }
                self.after(MS, SECOND, Event::Step(failover, Step::Notice));
            }
            Step::Notice => {
                let chosen = failover.chosen.unwrap();
                let leader = &mut self.sentinels[failover.leader];
                (leader.primary, leader.epoch) = (chosen, failover.epoch);
                self.about(&failover, "+promoted-slave", Some(chosen));
                for sentinel in (0..3).filter(|s| *s != failover.leader) {
                    self.after(MS, 100 * MS, Event::Step(failover.clone(), Step::Tell(sentinel)));
                }
                let end = if failover.planned { (5 * SECOND, 6 * SECOND) } else { (SECOND, SECOND + 1) };
                self.after(end.0, end.1, Event::Step(failover.clone(), Step::End));
                self.failover = None;
                // One in ten promoted primaries is taken for down at once, though it is sound.
                if self.rng.chance(10) && self.now < TROUBLE {
                    let other = (failover.leader + 1) % 3;
                    if self.sentinels[other].up && self.nodes[chosen].up {
                        self.begin(other, false);
                    }
                }
            }
            Step::Tell(sentinel) => {
                let state = &mut self.sentinels[sentinel];
                if !state.up || state.epoch >= failover.epoch {
                    return;
                }
                state.current_epoch = state.current_epoch.max(failover.epoch);
                (state.primary, state.epoch) = (failover.chosen.unwrap(), failover.epoch);
                self.publish(sentinel, "+new-epoch", failover.epoch.to_string());
                self.switch(sentinel, &failover);
            }
            Step::End => {
                self.about(&failover, "+failover-end", None);
                let leader = failover.leader;
                self.switch(leader, &failover);
            }
            Step::GiveUp => {
                self.failover = None;
                let reason = if failover.chosen.is_some() {
                    "-failover-abort-slave-timeout"
                } else {
                    "-failover-abort-no-good-slave"
                };
                self.about(&failover, reason, None);
            }
        }
    }

    pub(super) fn switch(&mut self, sentinel: usize, failover: &Failover) {
        let (old, new) = (data(failover.old), data(failover.chosen.unwrap()));
        let payload = format!("m {} {} {} {}", old.host(), old.port(), new.host(), new.port());
        self.publish(sentinel, "+switch-master", payload);
    }
}
