//! How handoffs begin and who takes part: announcements of a move, wishes from above, addresses that vanish.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use evenkeel_protocol::{Endpoint, Notice};

use super::{
    Conn, HandoffEngine,
    handoff::{Handoff, Known, MAX_GRACE, MAX_MOVES, Member, NameState, Plan, State, Timetable},
    jitter,
    names::is_name,
    windows::Extent,
};
use crate::{ConnId, Event, Family, HandoffCause, HandoffId, Origin, Outcome, ids::Site};

/// The old side of a move was seen to close up to 2 s late in most cases (measured).
const MOVING_TAIL: Duration = Duration::from_secs(2);
/// A server whose address is not advertised any more was seen to close its sockets 13 s later (measured).
const VANISHED_GRACE: Duration = Duration::from_secs(10);
/// Handoffs remembered at once.
const MAX_HANDOFFS: usize = 128;

/// An announcement that came a while ago: of its grace, what is left.
pub(super) fn left_after(late: Duration, notice: Notice) -> Notice {
    match notice {
        // Nothing left is not the same as nothing said.
        Notice::Moving { seq, grace: Some(grace), target } if !grace.is_zero() => {
            let left = grace.saturating_sub(late).max(Duration::from_millis(1));
            Notice::Moving { seq, grace: Some(left), target }
        }
        other => other,
    }
}

impl HandoffEngine {
    pub(super) fn moving(
        &mut self,
        now: Instant,
        origin: &Origin,
        seq: Option<u64>,
        grace: Option<Duration>,
        target: Option<Endpoint>,
    ) -> Outcome {
        // Told to go where it is: only the address behind that name can be what changes.
        let itself = target.as_ref() == Some(&origin.dialled)
            && !self.handoffs.values().any(|handoff| {
                handoff.plan.seq == seq && handoff.said == target && now < handoff.at.forget_at
            });
        let target = target.filter(|_| !itself);
        let known = self
            .handoffs
            .values()
            .rev()
            .find(|handoff| {
                handoff.plan.cause == HandoffCause::Moving
                    && handoff.plan.endpoint == origin.endpoint
                    && handoff.plan.seq == seq
                    && handoff.said == target
                    // After the close a whole grace is a further event, whatever its id; late joiners are told what is left.
                    && (now < handoff.at.close_at
                        || grace.is_none_or(|grace| grace.min(MAX_GRACE) <= handoff.plan.grace / 2))
            })
            .map(|handoff| handoff.id);
        // Late joiners may be told that nothing is left of it, which does not say how long it was.
        let said = grace.filter(|grace| !grace.is_zero());
        if let Some(id) = known {
            if let Some(grace) = said {
                self.grace_said(now, id, grace);
            }
            return self.told_again(now, id, origin);
        }
        let lasts = said.unwrap_or_else(|| self.settings.handoff_timeout());
        let plan = Plan {
            cause: HandoffCause::Moving,
            endpoint: origin.endpoint.clone(),
            seq,
            target,
            grace: lasts.min(MAX_GRACE),
            known: match (said, grace) {
                (Some(_), _) => Known::Said,
                (None, Some(_)) => Known::Spent,
                (None, None) => Known::Guessed,
            },
        };
        let until = now + plan.grace + MOVING_TAIL;
        self.open_window(origin.endpoint.clone(), Family::Moving, seq, Extent::Unknown, until);
        let id = self.start(now, plan, &[origin.site()].into(), Some(origin.conn));
        Outcome::HandoffStarted(id)
    }

    /// A handoff whose grace was guessed goes by the one that another connection was told.
    fn grace_said(&mut self, now: Instant, id: HandoffId, grace: Duration) {
        let seed = self.seed;
        let Some(handoff) = self.handoffs.get_mut(&id).filter(|handoff| handoff.plan.known != Known::Said)
        else {
            return;
        };
        handoff.plan.known = Known::Said;
        handoff.plan.grace = grace.min(MAX_GRACE);
        handoff.at = Timetable::new(now, &handoff.plan, |most| jitter::uniform(seed, id.0, most));
        let at = handoff.at;
        for member in handoff.members.values_mut() {
            if let State::Waiting { until } = &mut member.state {
                *until = (*until).min(if member.to_target { at.start_at } else { at.name_at });
            }
        }
        self.shorten_redirects_of(id, at.close_at);
    }

    /// What older handoffs of the endpoint were about is over where the newest word says so: a target that retires itself is
    /// replaced by where it sends everybody, and a server that is a target now does not retire any more.
    fn supersede(&mut self, now: Instant, id: HandoffId) {
        let Some(newest) = self.handoffs.get(&id) else { return };
        let (plan, sites) = (newest.plan.clone(), newest.sites.clone());
        let older: Vec<HandoffId> = self
            .handoffs
            .values()
            .filter(|older| older.id < id && older.plan.endpoint == plan.endpoint)
            .map(|older| older.id)
            .collect();
        for older in older {
            let Some(handoff) = self.handoffs.get(&older) else { continue };
            // Heard last is not said last: who joins late is told what was announced before.
            let was_said_before = matches!((plan.seq, handoff.plan.seq), (Some(new), Some(old)) if new < old);
            let back = !was_said_before
                && plan.target.as_ref().is_some_and(|target| {
                    handoff.sites.iter().any(|site| self.leads_to(target, &plan.endpoint, site))
                });
            let retires =
                handoff.plan.target.as_ref().is_some_and(|target| {
                    sites.iter().any(|site| self.leads_to(target, &plan.endpoint, site))
                });
            let Some(handoff) = self.handoffs.get_mut(&older) else { continue };
            if back {
                handoff.sites.clear();
                handoff
                    .members
                    .retain(|_, member| !matches!(member.state, State::Waiting { .. } | State::Stuck));
            } else if retires && plan.target.is_some() {
                handoff.plan.target.clone_from(&plan.target);
            } else if retires {
                self.give_target_up(now, older);
            }
        }
    }

    /// The announcement of a known handoff, on one more connection or once more on one that knows.
    fn told_again(&mut self, now: Instant, id: HandoffId, origin: &Origin) -> Outcome {
        let Some(handoff) = self.handoffs.get_mut(&id) else { return Outcome::Repeated };
        if handoff.plan.target.as_ref() == Some(&origin.dialled) {
            return Outcome::Repeated;
        }
        let conn = origin.conn;
        let new_site = handoff.sites.insert(origin.site());
        let ready = self.conns.get(&conn).is_some_and(|conn| !conn.draining);
        let outcome = match handoff.members.get_mut(&conn) {
            Some(member) => {
                member.told = true;
                if member.state == State::Settled {
                    // Made anew, and the server says that this is still its retiring self.
                    if member.moves < MAX_MOVES && now < handoff.at.forget_at {
                        member.state = State::Stuck;
                        member.to_target = false;
                    }
                    if matches!(handoff.name, NameState::Asked { scout, .. } if scout == conn) {
                        handoff.leads_back();
                    }
                    Outcome::Joined(id)
                } else {
                    Outcome::Repeated
                }
            }
            None if ready => {
                self.join(now, id, conn, true);
                Outcome::Joined(id)
            }
            None => {
                // Bounded, because only connections in their handshake get here; each is taken out when it is told as closed.
                if handoff.told_early.len() < self.sizes.queue {
                    handoff.told_early.insert(conn);
                }
                Outcome::Joined(id)
            }
        };
        if new_site {
            self.redirect(id, &origin.site());
        }
        self.tell_neighbours(now, id, origin);
        self.ask_name(now, id);
        outcome
    }

    /// One that was made through the name late enough to be right has been told: so the name still leads back, for those
    /// that were made beside it and not told.
    fn tell_neighbours(&mut self, now: Instant, id: HandoffId, origin: &Origin) {
        let Some(handoff) = self.handoffs.get_mut(&id) else { return };
        let (name_at, site) = (handoff.at.name_at, origin.site());
        let is_late = |conn: &Conn| conn.opened_at >= name_at;
        let told_late = now >= name_at && self.conns.get(&origin.conn).is_none_or(is_late);
        if handoff.plan.target.is_some() || !told_late || !handoff.still_there.insert(site.clone()) {
            return;
        }
        let beside: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(_, conn)| is_late(conn) && !conn.draining && conn.origin.site() == site)
            .map(|(id, _)| *id)
            .collect();
        for conn in beside {
            self.join(now, id, conn, false);
        }
    }

    pub(super) fn drain(&mut self, now: Instant, endpoint: &Endpoint, deadline: Instant) {
        self.start_from_above(now, HandoffCause::Drain, endpoint, None, deadline);
    }

    pub(super) fn topology_handoff(
        &mut self,
        now: Instant,
        from: &Endpoint,
        to: Endpoint,
        deadline: Instant,
    ) {
        if *from != to {
            self.start_from_above(now, HandoffCause::Topology, from, Some(to), deadline);
        }
    }

    fn start_from_above(
        &mut self,
        now: Instant,
        cause: HandoffCause,
        endpoint: &Endpoint,
        target: Option<Endpoint>,
        deadline: Instant,
    ) {
        let known = self.handoffs.values().any(|handoff| {
            handoff.plan.cause == cause
                && handoff.plan.endpoint == *endpoint
                && handoff.plan.target == target
                && now < handoff.at.close_at
        });
        let grace = deadline.saturating_duration_since(now).min(MAX_GRACE);
        if known || grace.is_zero() {
            return;
        }
        let sites = self
            .conns
            .values()
            .filter(|conn| conn.origin.endpoint == *endpoint && !conn.draining)
            .map(|conn| conn.origin.site())
            .collect();
        let plan = Plan { cause, endpoint: endpoint.clone(), seq: None, target, grace, known: Known::Said };
        self.start(now, plan, &sites, None);
    }

    pub(super) fn dns_answer(&mut self, now: Instant, name: &str, addresses: &[IpAddr]) {
        let gone = self.names.answer(now, name, addresses);
        let (conns, seed) = (&self.conns, self.seed);
        let addresses_of = |handoff: &Handoff| -> Vec<IpAddr> {
            handoff.sites.iter().filter_map(Site::peer).map(|peer| peer.ip()).collect()
        };
        // Two servers that retire would send connections to each other for as long as DNS knows no third.
        let closing: Vec<IpAddr> = self
            .handoffs
            .values()
            .filter(|handoff| handoff.plan.endpoint.host() == name && now < handoff.at.close_at)
            .flat_map(|handoff| {
                // What had left DNS and is named again has not vanished.
                let vanished = handoff.plan.cause == HandoffCause::Vanished;
                let is_back = move |address: &IpAddr| vanished && addresses.contains(address);
                addresses_of(handoff).into_iter().filter(move |address| !is_back(address))
            })
            .collect();
        for handoff in self.handoffs.values_mut().filter(|handoff| handoff.plan.endpoint.host() == name) {
            let mut retiring = addresses_of(handoff);
            retiring.extend(&closing);
            for (id, member) in handoff.members.iter_mut().filter(|(_, member)| member.wants_name()) {
                let peer = conns.get(id).and_then(|conn| conn.origin.peer).map(|peer| peer.ip());
                let Some(peer) = peer else { continue };
                // Any sibling will do, but for those that retire as well.
                let better: Vec<_> = addresses
                    .iter()
                    .filter(|address| **address != peer && !retiring.contains(address))
                    .collect();
                let drawn = jitter::mix(seed, id.0) as usize;
                let Some(address) = drawn.checked_rem(better.len()).and_then(|index| better.get(index))
                else {
                    continue;
                };
                // An address that was tried in vain is no news.
                if member.failures > 0 && member.address == Some(**address) {
                    continue;
                }
                member.address = Some(**address);
                member.state = State::Waiting { until: now.max(handoff.at.start_at) };
                member.failures = 0;
            }
        }
        for (endpoint, lost) in gone {
            let sites: BTreeSet<_> = self
                .conns
                .values()
                .filter(|conn| {
                    conn.origin.endpoint == endpoint
                        && !conn.draining
                        && conn.origin.peer.is_some_and(|peer| lost.contains(&peer.ip()))
                })
                .map(|conn| conn.origin.site())
                .collect();
            let handled = self
                .handoffs
                .values()
                .any(|handoff| now < handoff.at.close_at && sites.iter().any(|site| handoff.concerns(site)));
            if sites.is_empty() || handled {
                continue;
            }
            let plan = Plan {
                cause: HandoffCause::Vanished,
                endpoint,
                seq: None,
                target: None,
                grace: VANISHED_GRACE,
                known: Known::Said,
            };
            self.start(now, plan, &sites, None);
        }
    }

    /// Starts a handoff of every connection of the plan's endpoint that leads to one of `sites`.
    fn start(&mut self, now: Instant, plan: Plan, sites: &BTreeSet<Site>, told: Option<ConnId>) -> HandoffId {
        let id = HandoffId(self.key());
        let seed = self.seed;
        let at = Timetable::new(now, &plan, |most| jitter::uniform(seed, id.0, most));
        self.make_room(now);
        let mut handoff = Handoff::new(id, plan.clone(), at, self.sizes.workers);
        handoff.sites.clone_from(sites);
        let wanted: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(conn, known)| {
                known.origin.endpoint == plan.endpoint
                    && !known.draining
                    && plan.target.as_ref() != Some(&known.origin.dialled)
                    && (told == Some(**conn) || sites.contains(&known.origin.site()))
            })
            .map(|(conn, _)| *conn)
            .collect();
        if let Some(told) = told
            && !self.conns.contains_key(&told)
        {
            handoff.told_early.insert(told);
        }
        self.handoffs.insert(id, handoff);
        self.supersede(now, id);
        let left_out = wanted.len().saturating_sub(self.sizes.queue.saturating_add(self.sizes.workers));
        // Those that the server itself spoke to are never the ones left out.
        let first = wanted.iter().filter(|conn| told == Some(**conn));
        let rest = wanted.iter().filter(|conn| told != Some(**conn));
        for conn in first.chain(rest).take(wanted.len() - left_out) {
            self.claim(now, id, *conn, told == Some(*conn));
        }
        let connections = self.handoffs.get(&id).map_or(0, |handoff| handoff.members.len() as u32);
        self.report(Event::HandoffStarted {
            handoff: id,
            cause: plan.cause,
            endpoint: plan.endpoint,
            seq: plan.seq,
            target: plan.target,
            connections,
            closes_at: at.close_at,
        });
        if left_out > 0 {
            self.report(Event::QueueFull { handoff: id, left_out: left_out as u32 });
        }
        for site in sites {
            self.redirect(id, site);
        }
        self.ask_name(now, id);
        id
    }

    /// Makes a connection part of a handoff that began before.
    pub(super) fn join(&mut self, now: Instant, id: HandoffId, conn: ConnId, told: bool) {
        let full = self
            .handoffs
            .get(&id)
            .is_some_and(|handoff| handoff.waiting() >= self.sizes.queue.saturating_add(self.sizes.workers));
        if full {
            self.report(Event::QueueFull { handoff: id, left_out: 1 });
            return;
        }
        self.claim(now, id, conn, told);
        self.ask_name(now, id);
    }

    /// Takes a connection over from older handoffs; what the server told the connection itself outweighs what was
    /// concluded from its address.
    fn claim(&mut self, now: Instant, id: HandoffId, conn: ConnId, told: bool) {
        for (_, older) in self.handoffs.range_mut(..id) {
            if let Some(member) = older.members.get(&conn)
                && !matches!(member.state, State::Moving { .. })
            {
                older.members.remove(&conn);
            }
        }
        let mut newer_word = false;
        for (_, newer) in self.handoffs.range_mut(id..).skip(1) {
            let Some(member) = newer.members.get(&conn) else { continue };
            if !told || member.told {
                newer_word = true;
            } else if !matches!(member.state, State::Moving { .. }) {
                newer.members.remove(&conn);
            }
        }
        let Some(handoff) = self.handoffs.get_mut(&id) else { return };
        handoff.told_early.remove(&conn);
        if newer_word || handoff.members.contains_key(&conn) {
            return;
        }
        let mut member = handoff.joining(now, told);
        // It was made anew for this one before, and another one has sent it back: no second guess.
        member.moves = self.conns.get(&conn).and_then(|known| known.made.get(&id)).copied().unwrap_or(0);
        if member.moves >= MAX_MOVES {
            member.state = State::Settled;
        } else if member.moves > 0 && !member.to_target {
            member.state = State::Stuck;
        }
        handoff.members.insert(conn, member);
    }

    /// Asks for the configured name while a connection of this handoff may need it.
    pub(super) fn ask_name(&mut self, now: Instant, id: HandoffId) {
        let Some(handoff) = self.handoffs.get(&id) else { return };
        let endpoint = &handoff.plan.endpoint;
        if !is_name(endpoint) || !handoff.members.values().any(Member::wants_name) {
            return;
        }
        let (interval, until) = (handoff.at.dns_interval(), handoff.at.forget_at);
        self.names.ask(now, endpoint.host(), interval, until);
    }

    fn make_room(&mut self, now: Instant) {
        if self.handoffs.len() < MAX_HANDOFFS {
            return;
        }
        let oldest = self
            .handoffs
            .values()
            .find(|handoff| handoff.is_settled())
            .or_else(|| self.handoffs.values().next())
            .map(|handoff| handoff.id);
        if let Some(oldest) = oldest {
            self.abandon(now, oldest);
        }
    }
}
