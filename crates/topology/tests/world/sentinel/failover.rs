//! The sentinels: what they see, what they do about it, and what they announce.

use super::{Event, Failover, Kind, MS, NODES, SECOND, Step, TROUBLE, World, data};

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
        self.begin(leader, Kind::Crash);
        let rival = (leader + 1) % 3;
        if self.sentinels[rival].up && self.rival.is_none() && self.rng.chance(30) {
            self.begin(rival, Kind::Rival);
        }
    }

    /// A sentinel leads one failover at a time.
    pub(super) fn begin(&mut self, leader: usize, kind: Kind) {
        if self.rival == Some(leader) {
            return;
        }
        if kind == Kind::Rival {
            self.rival = Some(leader);
        } else {
            self.failover = Some((leader, kind));
            self.last_failover = self.now;
        }
        self.failovers += 1;
        let epoch = self.sentinels.iter().map(|s| s.current_epoch).max().unwrap() + 1;
        self.sentinels[leader].current_epoch = epoch;
        let failover = Failover { leader, epoch, old: self.truth, chosen: None, kind };
        self.publish(leader, "+new-epoch", epoch.to_string());
        self.about(&failover, "+try-failover", None);
        if kind == Kind::Rival && self.rng.chance(50) {
            return self.after(SECOND, 2 * SECOND, Event::Step(failover, Step::GiveUp));
        }
        self.after(5 * MS, 100 * MS, Event::Step(failover, Step::Select));
    }

    /// It has heard of a newer configuration, and forgot what it was about.
    fn is_void(&self, failover: &Failover) -> bool {
        let leader = &self.sentinels[failover.leader];
        leader.primary != failover.old || (failover.kind == Kind::Rival && !leader.up)
    }

    fn is_over(&mut self, failover: &Failover) {
        self.failover.take_if(|(leader, _)| *leader == failover.leader);
        self.rival.take_if(|leader| *leader == failover.leader);
        self.nodes[failover.old].paused = false;
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
        if self.is_void(&failover) && !matches!(step, Step::Tell(_) | Step::Notice | Step::End) {
            return self.is_over(&failover);
        }
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
                let next = if failover.kind == Kind::HandsOver { Step::Stop } else { Step::Promote };
                self.after(60 * MS, 150 * MS, Event::Step(failover, next));
            }
            Step::Stop => {
                self.about(&failover, "+failover-state-wait-promotion", failover.chosen);
                if !self.nodes[failover.old].up {
                    return self.after(SECOND, 2 * SECOND, Event::Step(failover, Step::GiveUp));
                }
                self.nodes[failover.old].paused = true;
                if self.rng.chance(20) {
                    self.after(10 * MS, 4 * SECOND, Event::Step(failover, Step::Resume));
                } else {
                    self.after(MS, 900 * MS, Event::Step(failover, Step::Promote));
                }
            }
            Step::Resume => {
                self.nodes[failover.old].paused = false;
                self.after(SECOND, 2 * SECOND, Event::Step(failover, Step::GiveUp));
            }
            Step::Promote => {
                let chosen = failover.chosen.unwrap();
                let (hands_over, old_is_up) = (failover.kind == Kind::HandsOver, self.nodes[failover.old].up);
                let node = &mut self.nodes[chosen];
                if !node.up || node.stopped || (hands_over && !old_is_up) {
                    return self.after(SECOND, 2 * SECOND, Event::Step(failover, Step::GiveUp));
                }
                node.says_primary = true;
                node.rogue = false;
                node.promoted_at = self.now;
                if failover.epoch > self.truth_epoch {
                    (self.truth, self.truth_epoch) = (chosen, failover.epoch);
                } else {
                    // The newer configuration wins over it.
                    let (node, to) = (chosen, self.truth);
                    self.is_over(&failover);
                    return self.after(MS, 2 * SECOND, Event::Demote { node, to });
                }
                if hands_over {
                    let old = &mut self.nodes[failover.old];
                    (old.says_primary, old.of, old.paused) = (false, chosen, false);
                } else if self.nodes[failover.old].up {
                    let (node, to) = (failover.old, chosen);
                    self.after(3 * SECOND, 11 * SECOND, Event::Demote { node, to });
                }
                for node in 0..NODES {
                    if !self.nodes[node].says_primary {
                        self.nodes[node].of = chosen;
                    }
                }
                if failover.kind == Kind::Rival {
                    // Heard of the other one between promotion and notice, it would forget its own: nobody can tell then.
                    return self.step(failover, Step::Notice);
                }
                self.after(MS, SECOND, Event::Step(failover, Step::Notice));
            }
            Step::Notice => {
                let chosen = failover.chosen.unwrap();
                let leader = &mut self.sentinels[failover.leader];
                if leader.epoch > failover.epoch {
                    return self.is_over(&failover);
                }
                (leader.primary, leader.epoch) = (chosen, failover.epoch);
                self.about(&failover, "+promoted-slave", Some(chosen));
                for sentinel in (0..3).filter(|s| *s != failover.leader) {
                    self.after(MS, 100 * MS, Event::Step(failover.clone(), Step::Tell(sentinel)));
                }
                let is_planned = failover.kind == Kind::Planned;
                let end = if is_planned { (5 * SECOND, 6 * SECOND) } else { (SECOND, SECOND + 1) };
                self.after(end.0, end.1, Event::Step(failover.clone(), Step::End));
                self.is_over(&failover);
                // One in ten promoted primaries is taken for down at once, though it is sound.
                if self.rng.chance(10) && self.now < TROUBLE && self.failover.is_none() {
                    let other = (failover.leader + 1) % 3;
                    if self.sentinels[other].up && self.nodes[chosen].up && self.truth == chosen {
                        self.begin(other, Kind::Crash);
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
                self.is_over(&failover);
                let reason = match (failover.kind, failover.chosen) {
                    (Kind::Rival, None) => "-failover-abort-not-elected",
                    (_, Some(_)) => "-failover-abort-slave-timeout",
                    (_, None) => "-failover-abort-no-good-slave",
                };
                self.about(&failover, reason, None);
                // What could not be handed over is forced.
                if failover.kind == Kind::HandsOver
                    && self.failover.is_none()
                    && self.truth == failover.old
                    && self.now < TROUBLE
                    && self.rng.chance(50)
                {
                    self.begin(failover.leader, Kind::Planned);
                }
            }
        }
    }

    pub(super) fn switch(&mut self, sentinel: usize, failover: &Failover) {
        let (old, new) = (data(failover.old), data(failover.chosen.unwrap()));
        let payload = format!("m {} {} {} {}", old.host(), old.port(), new.host(), new.port());
        self.publish(sentinel, "+switch-master", payload);
    }
}
