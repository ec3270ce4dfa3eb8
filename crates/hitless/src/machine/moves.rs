//! How handoffs are carried through: who is dialled when, what a result means, and when to give up.

use std::{collections::BTreeMap, time::Instant};

use evenkeel_protocol::Endpoint;

use super::{
    Conn, HandoffEngine,
    breaker::{Change, Permit},
    handoff::{Handoff, MAX_MOVES, Member, NameState, QUIET_PATIENCE, State, Timetable, backoff},
    jitter,
};
use crate::{
    Action, ConnId, Destination, Event, Family, HandoffId, Move, MoveError, MoveStyle, Origin, Scope,
};

/// A move in place that has not begun by three quarters of the grace gets its turn then.
const IN_PLACE_AFTER: (u32, u32) = (3, 4);

/// When moves in place begin.
fn in_place_at(at: &Timetable) -> Instant {
    let (n, d) = IN_PLACE_AFTER;
    at.announced + (at.close_at - at.announced) * n / d
}

/// What became of the wish to move one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    /// No further one of this handoff can start now.
    NoMore,
    /// Not this one now; another one may.
    Passed,
    Started,
}

impl HandoffEngine {
    pub(super) fn pump_all(&mut self, now: Instant) {
        let ids: Vec<_> = self.handoffs.keys().copied().collect();
        for id in ids {
            self.pump(now, id);
        }
    }

    /// Does what a handoff has to do by now.
    fn pump(&mut self, now: Instant, id: HandoffId) {
        let Some(handoff) = self.handoffs.get(&id) else { return };
        let at = handoff.at;
        if now < at.start_at {
            return;
        }
        self.give_overdue_up(now, id);
        if now < at.deadline || at.close_at <= now {
            self.attempt_due(now, id);
        } else {
            self.last_chance(now, id);
        }
        self.finish(now, id);
    }

    /// Starts every attempt that is due and allowed.
    fn attempt_due(&mut self, now: Instant, id: HandoffId) {
        // Asked at every word of every connection: who is under way is counted once, not for each member.
        let Some(handoff) = self.handoffs.get(&id) else { return };
        let due = handoff.due(now);
        if due.is_empty() {
            return;
        }
        let mut room = self.room(handoff);
        for conn in due {
            if room == 0 {
                break;
            }
            match self.attempt(now, id, conn) {
                Attempt::Started => room -= 1,
                Attempt::Passed => {}
                Attempt::NoMore => break,
            }
        }
    }

    /// How many more attempts of a handoff may be under way, with those of others for the same endpoint.
    fn room(&self, handoff: &Handoff) -> usize {
        let others = self
            .handoffs
            .values()
            .filter(|other| other.id != handoff.id && other.plan.endpoint == handoff.plan.endpoint);
        let moving = handoff.moving();
        let elsewhere: usize = others.map(Handoff::moving).sum();
        handoff.limit.saturating_sub(moving).min(self.sizes.workers.saturating_sub(elsewhere + moving))
    }

    /// Attempts that nobody answered in time are given up, and after the close whatever has no prospect.
    fn give_overdue_up(&mut self, now: Instant, id: HandoffId) {
        let Some(handoff) = self.handoffs.get_mut(&id) else { return };
        let hopeless = handoff.at.close_at <= now && !handoff.has_overtime();
        let mut given_up = Vec::new();
        for (conn, member) in &mut handoff.members {
            let cause = match member.state {
                State::Moving { overdue, .. } if overdue <= now => {
                    self.metrics.deadline_misses += 1;
                    MoveError::Deadline
                }
                State::Stuck | State::Waiting { .. } if hopeless => {
                    member.last_error.unwrap_or(MoveError::Deadline)
                }
                _ => continue,
            };
            member.state = State::Abandoned;
            given_up.push((*conn, cause));
        }
        for (conn, cause) in given_up {
            self.abandoned(id, conn, cause);
        }
    }

    /// Starts one attempt, where nothing speaks against it.
    fn attempt(&mut self, now: Instant, id: HandoffId, conn: ConnId) -> Attempt {
        if !self.conns.get(&conn).is_some_and(|known| self.is_free(now, known)) {
            return Attempt::Passed;
        }
        let Some(handoff) = self.handoffs.get_mut(&id) else { return Attempt::NoMore };
        let Some(member) = handoff.members.get(&conn) else { return Attempt::Passed };
        let (is_to_target, is_blind) = (handoff.goes_to_target(member), member.guesses());
        // Those before it may have gone ahead since it was found due.
        if is_to_target && handoff.waits_for_scout(now, conn) || is_blind && handoff.waits_for_name(now, conn)
        {
            return Attempt::Passed;
        }
        if is_blind {
            handoff.try_name(now, conn);
        }
        let Some(member) = handoff.members.get_mut(&conn) else { return Attempt::Passed };
        // An attempt before this one may have sent all others another way.
        if !matches!(member.state, State::Waiting { until } if until <= now) {
            return Attempt::Passed;
        }
        let target = handoff.plan.target.clone().filter(|_| member.to_target);
        if let Some(target) = &target {
            match self.breakers.permit(now, target) {
                Permit::Go => {}
                Permit::Wait => return Attempt::NoMore,
                Permit::Refuse => {
                    self.give_target_up(now, id);
                    return Attempt::Passed;
                }
            }
        }
        let at = handoff.at;
        let late = in_place_at(&at) <= now;
        let crowded = member.last_error == Some(MoveError::Full) && handoff.limit == 1 && late;
        let style = if crowded { MoveStyle::InPlace } else { MoveStyle::Beside };
        let (last, overdue) =
            if now < at.close_at { (at.deadline, at.quiet_at) } else { (at.forget_at, at.forget_at) };
        member.state = State::Moving { to_target: target.is_some(), quiet: false, overdue };
        let address = member.address.filter(|_| target.is_none());
        let one = Move {
            handoff: id,
            conn,
            to: Destination { endpoint: target.unwrap_or_else(|| handoff.plan.endpoint.clone()), address },
            style,
            deadline: last.min(now + self.settings.handoff_timeout()),
            drain_until: at.close_at.max(last),
        };
        if is_to_target {
            handoff.send_ahead(now, conn);
        }
        self.begin(one);
        Attempt::Started
    }

    fn begin(&mut self, one: Move) {
        if let Some(conn) = self.conns.get_mut(&one.conn) {
            conn.busy = Some(one.handoff);
        }
        self.metrics.attempts += 1;
        self.act(Action::Move(one));
    }

    /// Nobody moves it; an answer that is long overdue is not waited for.
    fn is_free(&self, now: Instant, known: &Conn) -> bool {
        let owed = known.busy.and_then(|id| self.handoffs.get(&id)).is_some_and(|by| now < by.at.settle_at);
        !owed && !known.draining
    }

    /// Too late for guesses: connections for which nothing better was found fall silent just before
    /// the server closes, so that no command is cut, and are made anew at the close.
    fn last_chance(&mut self, now: Instant, id: HandoffId) {
        let free: Vec<ConnId> =
            self.conns.iter().filter(|(_, known)| self.is_free(now, known)).map(|(conn, _)| *conn).collect();
        let Some(handoff) = self.handoffs.get_mut(&id) else { return };
        let at = handoff.at;
        let endpoint = match &handoff.plan.target {
            Some(target) if !handoff.may_use_name() => target.clone(),
            _ => handoff.plan.endpoint.clone(),
        };
        let mut moves = Vec::new();
        for (conn, member) in &mut handoff.members {
            let open = matches!(member.state, State::Stuck | State::Waiting { .. });
            if !open || free.binary_search(conn).is_err() {
                continue;
            }
            member.state = State::Moving { to_target: false, quiet: true, overdue: at.settle_at };
            moves.push(Move {
                handoff: id,
                conn: *conn,
                to: Destination { endpoint: endpoint.clone(), address: member.address },
                style: MoveStyle::Quiet { hush_at: at.quiet_at, dial_at: at.dial_at },
                deadline: at.close_at + QUIET_PATIENCE,
                drain_until: at.close_at + QUIET_PATIENCE,
            });
        }
        for one in moves {
            self.begin(one);
        }
    }

    /// The connection is left to ordinary reconnection. Whoever still moves it may report what came of it.
    fn abandoned(&mut self, id: HandoffId, conn: ConnId, cause: MoveError) {
        if let Some(handoff) = self.handoffs.get_mut(&id) {
            handoff.abandoned += 1;
        }
        self.report(Event::ConnAbandoned { handoff: id, conn, cause });
    }

    /// Ends a handoff before its time.
    pub(super) fn abandon(&mut self, now: Instant, id: HandoffId) {
        let Some(handoff) = self.handoffs.get_mut(&id) else { return };
        handoff.at.close_at = handoff.at.close_at.min(now);
        let mut open = Vec::new();
        for (conn, member) in handoff.members.iter_mut().filter(|(_, member)| member.is_open()) {
            member.state = State::Abandoned;
            open.push((*conn, member.last_error.unwrap_or(MoveError::Deadline)));
        }
        for (conn, cause) in open {
            self.abandoned(id, conn, cause);
        }
        self.finish(now, id);
        self.handoffs.remove(&id);
    }

    pub(super) fn switched(&mut self, now: Instant, conn: ConnId, successor: &Origin) {
        let (mut busy, mut made) = (None, BTreeMap::new());
        if let Some(old) = self.conns.get_mut(&conn) {
            old.draining = true;
            busy = old.busy.take();
            made = std::mem::take(&mut old.made);
        }
        made.retain(|id, _| self.handoffs.contains_key(id));
        if let Some(id) = busy {
            *made.entry(id).or_insert(0) += 1;
        }
        let new = successor.conn;
        let site = successor.site();
        self.remember(now, successor.clone());
        if let Some(known) = self.conns.get_mut(&new) {
            known.made = made;
        }
        self.relax_after_move(now, new);
        let told_early = busy
            .and_then(|id| self.handoffs.get_mut(&id))
            .is_some_and(|handoff| handoff.told_early.remove(&new));
        let mut settled = None;
        if let Some(id) = busy
            && let Some(handoff) = self.handoffs.get_mut(&id)
            && let Some(member) = handoff.members.remove(&conn)
        {
            let to_target = matches!(member.state, State::Moving { to_target: true, .. });
            handoff.proven |= to_target;
            if matches!(handoff.name, NameState::Asked { scout, .. } if scout == conn) {
                if told_early { handoff.leads_back() } else { handoff.listen_there(now, new) }
            }
            let on_target = handoff.plan.target.as_ref() == Some(&successor.dialled);
            let still_there = !on_target && told_early || to_target && handoff.concerns(&site);
            let mut next = Member {
                state: State::Settled,
                moves: member.moves + 1,
                to_target: false,
                failures: 0,
                address: None,
                told: told_early,
                last_error: None,
            };
            if still_there && next.moves < MAX_MOVES {
                next.state = State::Stuck;
            }
            handoff.members.insert(new, next);
            handoff.moved += 1;
            // It was given up too early.
            handoff.abandoned -= u32::from(member.state == State::Abandoned);
            settled = Some((id, to_target, handoff.plan.target.clone(), now - handoff.at.announced));
        }
        if let Some((id, to_target, target, took)) = settled {
            if let (true, Some(target)) = (to_target, target) {
                self.judge_target(now, &target, true);
            }
            self.metrics.durations.record(took);
            self.report(Event::ConnMoved { handoff: id, conn, successor: new, took });
            self.ask_name(now, id);
        }
        self.rejoin_others(now, conn, new, successor, busy);
        self.pump_all(now);
    }

    /// Other handoffs waited for the old connection, or their server told the new one while it was being made; the
    /// successor takes part where it leads to their server.
    fn rejoin_others(
        &mut self,
        now: Instant,
        old: ConnId,
        new: ConnId,
        successor: &Origin,
        busy: Option<HandoffId>,
    ) {
        let site = successor.site();
        let mut join = Vec::new();
        for handoff in self.handoffs.values_mut().filter(|handoff| Some(handoff.id) != busy) {
            let waited = handoff.members.remove(&old).is_some() && handoff.concerns(&site);
            let told = handoff.told_early.remove(&new);
            let in_time = now < handoff.at.deadline || told && handoff.helps_latecomers(now);
            if (waited || told) && handoff.plan.target.as_ref() != Some(&successor.dialled) && in_time {
                join.push(handoff.id);
            }
        }
        for id in join {
            self.join(now, id, new, true);
        }
    }

    fn relax_after_move(&mut self, now: Instant, id: ConnId) {
        let key = self.key();
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if conn.tail.is_some() {
            return;
        }
        let until = now + self.settings.post_handoff_relaxed_duration();
        conn.tail = Some((until, key));
        self.tails_from = Some(self.tails_from.map_or(until, |from| from.min(until)));
        self.metrics.relaxed(Family::Handoff);
        let floor = self.settings.relaxed_timeout();
        if let Some(action) = self.ledger.acquire(&Scope::Conn(id), key, floor, Family::Handoff) {
            self.act(action);
        }
    }

    pub(super) fn move_failed(&mut self, now: Instant, conn: ConnId, cause: MoveError) {
        let Some(id) = self.conns.get_mut(&conn).and_then(|known| known.busy.take()) else { return };
        self.report(Event::MoveFailed { handoff: id, conn, cause });
        let Some(handoff) = self.handoffs.get_mut(&id) else { return };
        let seed = self.seed;
        let pause = |failures: u8| {
            backoff(failures, |most| jitter::uniform(seed, conn.0 ^ u64::from(failures) << 32, most))
        };
        let may_use_name = handoff.may_use_name();
        let target_dead = handoff.target_dead;
        let Some(member) = handoff.members.get_mut(&conn) else { return };
        let State::Moving { to_target, quiet, .. } = member.state else { return };
        let target = handoff.plan.target.clone().filter(|_| to_target);
        let by_name = to_target && may_use_name;
        member.last_error = Some(cause);
        member.failures = member.failures.saturating_add(1);
        match cause {
            _ if quiet => {
                member.state = State::Abandoned;
                self.abandoned(id, conn, cause);
            }
            MoveError::Closed => {
                handoff.members.remove(&conn);
            }
            // Nothing will change about it before the close.
            MoveError::Unsupported => {
                member.state = State::Abandoned;
                self.abandoned(id, conn, cause);
            }
            _ if by_name && target_dead => to_name(handoff, now, conn),
            // The target lives; what it refuses is one more at this time, which is no failed attempt.
            MoveError::Full => {
                member.failures = member.failures.saturating_sub(1);
                // The turn of those who leave first is not slept through: the end of the grace may be too near then.
                let again = now + pause(3);
                let in_place = Some(in_place_at(&handoff.at)).filter(|at| now < *at);
                member.state = State::Waiting { until: in_place.map_or(again, |at| again.min(at)) };
                handoff.proven |= to_target;
                handoff.limit = (handoff.limit / 2).max(1);
            }
            MoveError::Auth | MoveError::Forbidden => {
                member.state = State::Stuck;
                if by_name {
                    self.give_target_up(now, id);
                }
            }
            MoveError::Deadline | MoveError::Handshake | MoveError::NotReady | MoveError::Unreachable => {
                if member.failures <= self.settings.max_handoff_retries() {
                    member.state = State::Waiting { until: now + pause(member.failures) };
                } else if by_name {
                    let proven = handoff.proven;
                    to_name(handoff, now, conn);
                    if !proven {
                        self.give_target_up(now, id);
                    }
                } else {
                    member.state = State::Stuck;
                }
            }
        }
        if let Some(target) = target {
            match cause {
                // What the server answers shows that it lives; what we lost ourselves shows nothing.
                MoveError::Closed
                | MoveError::Full
                | MoveError::Unsupported
                | MoveError::NotReady
                | MoveError::Auth
                | MoveError::Forbidden => self.breakers.cancel(&target),
                MoveError::Deadline | MoveError::Handshake | MoveError::Unreachable => {
                    self.judge_target(now, &target, false);
                }
            }
        }
        self.unless_target_used(now, id);
        self.ask_name(now, id);
        self.pump_all(now);
    }

    fn judge_target(&mut self, now: Instant, target: &Endpoint, success: bool) {
        match self.breakers.record(now, target, success) {
            Some(Change::Closed) => self.report(Event::BreakerClosed { target: target.clone() }),
            Some(Change::Opened) => self.report(Event::BreakerOpened { target: target.clone() }),
            None => {}
        }
    }

    /// The target is out of question: everybody who waits for it goes by the configured name, if that is a way.
    pub(super) fn give_target_up(&mut self, now: Instant, id: HandoffId) {
        let Some(handoff) = self.handoffs.get_mut(&id) else { return };
        handoff.target_dead = true;
        let waiting: Vec<ConnId> = handoff
            .members
            .iter()
            .filter(|(_, member)| {
                member.to_target && matches!(member.state, State::Waiting { .. } | State::Stuck)
            })
            .map(|(conn, _)| *conn)
            .collect();
        for conn in waiting {
            to_name(handoff, now, conn);
        }
        self.end_redirects_of(id);
        self.ask_name(now, id);
    }

    /// Ordinary dials must not be sent to a target that nobody reached and nobody tries any more.
    fn unless_target_used(&mut self, now: Instant, id: HandoffId) {
        let Some(handoff) = self.handoffs.get(&id) else { return };
        let hopeless = handoff.plan.target.is_some()
            && !handoff.target_dead
            && handoff.moved == 0
            && handoff.may_use_name()
            && !handoff.members.values().any(|member| member.to_target && member.is_open())
            && handoff.members.values().any(Member::is_open);
        if hopeless {
            self.give_target_up(now, id);
        }
    }

    /// Reports a handoff once, when none of its connections is open any more.
    fn finish(&mut self, now: Instant, id: HandoffId) {
        let Some(handoff) = self.handoffs.get_mut(&id) else { return };
        let begun = handoff.moved + handoff.abandoned > 0 || handoff.at.close_at <= now;
        if handoff.finished || !begun || !handoff.is_settled() {
            return;
        }
        handoff.finished = true;
        let event = Event::HandoffFinished {
            handoff: id,
            endpoint: handoff.plan.endpoint.clone(),
            moved: handoff.moved,
            abandoned: handoff.abandoned,
            waited: handoff.at.start_at - handoff.at.announced,
            took: now.saturating_duration_since(handoff.at.announced),
        };
        self.report(event);
    }
}

/// Sends a connection by the configured name from here on.
fn to_name(handoff: &mut Handoff, now: Instant, conn: ConnId) {
    let (way_out, name_at) = (handoff.may_use_name(), handoff.at.name_at);
    let Some(member) = handoff.members.get_mut(&conn) else { return };
    member.to_target = false;
    member.failures = 0;
    // Made anew for this one before, it waits for what DNS says: no second guess.
    let may_guess = way_out && member.moves == 0;
    member.state = if may_guess { State::Waiting { until: now.max(name_at) } } else { State::Stuck };
}
