//! `Handoff`: one endpoint on its way to another server, its timetable and its connections; the engine moves it on.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use evenkeel_protocol::Endpoint;

use super::names::is_name;
use crate::{ConnId, HandoffCause, HandoffId, MoveError, ids::Site};

/// A server that announces more than this has its units wrong.
pub(crate) const MAX_GRACE: Duration = Duration::from_secs(600);
/// The spread of those who were told that no time is left: that of the shortest grace there is, a second.
const SPENT_JITTER: Duration = Duration::from_millis(50);
/// The widest spread of clients over the start of one move.
const MAX_JITTER: Duration = Duration::from_millis(500);
/// Sockets were seen to be closed up to 4 s after the announced end (measured); told again until then, it is a repeat.
const FORGET_AFTER: Duration = Duration::from_secs(10);
/// What is owed on the old side is answered in this time before the close, and what is blocked there is ended.
const MIN_MARGIN: Duration = Duration::from_millis(100);
/// The same where the grace is long.
const MAX_MARGIN: Duration = Duration::from_millis(250);
/// Before a close to which nothing better is known, nothing is written for so long: a busy machine may be late by that much,
/// and callers wait that much longer than for the dial.
const MIN_LEAD: Duration = Duration::from_millis(10);
/// The same where the grace is long, so that clocks may differ by more.
const MAX_LEAD: Duration = Duration::from_millis(50);
/// A quiet move may look for the server this long after the announced close; then the old connection is used again.
pub(crate) const QUIET_PATIENCE: Duration = Duration::from_millis(250);
/// So long the first attempt at a target, or by a name of which nothing new is known, goes alone: a dead target is then
/// met by one connection and not by all, and a name that still leads to the retiring server costs one connection and not
/// all.
const SCOUT: Duration = Duration::from_millis(100);
/// So long the one that has arrived by the name listens whether it is told to leave again, before the others follow.
const LISTEN: Duration = Duration::from_millis(20);
/// How long DNS may take to name another address before a drain goes by the name as it is.
const DNS_PATIENCE: Duration = Duration::from_secs(1);
/// First pause between attempts; it doubles.
const BACKOFF: Duration = Duration::from_millis(50);
/// Longest pause between attempts.
const MAX_BACKOFF: Duration = Duration::from_secs(1);

/// What starts a handoff.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) cause: HandoffCause,
    pub(crate) endpoint: Endpoint,
    pub(crate) seq: Option<u64>,
    pub(crate) target: Option<Endpoint>,
    pub(crate) grace: Duration,
    pub(crate) known: Known,
}

/// How the grace of a plan is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// It was said.
    Said,
    /// Nobody said how long: it is a guess, until somebody does.
    Guessed,
    /// Those who came late were told that nothing is left of it: the close may come at any moment, so everything that can be
    /// done is done at once. When it comes is a guess, since servers round down and close late.
    Spent,
}

/// When what happens in a handoff.
///
/// ```text
///   announced   start_at            name_at                      deadline  quiet_at  close_at      forget_at
///   |--jitter---|--- the target ----|--- the configured name ----|- margin -|--------|-- overtime -|
///                  + retries          earlier, when DNS says so   give up    last     the server
///                                                                 on dials   chance   closes
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timetable {
    pub(crate) announced: Instant,
    pub(crate) start_at: Instant,
    pub(crate) name_at: Instant,
    pub(crate) deadline: Instant,
    pub(crate) quiet_at: Instant,
    pub(crate) close_at: Instant,
    /// Who has fallen silent and has seen no close by then dials all the same: sooner, the name may lead back still.
    pub(crate) dial_at: Instant,
    /// What is not answered by then never will be.
    pub(crate) settle_at: Instant,
    pub(crate) forget_at: Instant,
}

impl Timetable {
    /// `drawn` gives a number in `0..most`.
    pub(crate) fn new(now: Instant, plan: &Plan, drawn: impl Fn(Duration) -> Duration) -> Self {
        let grace = plan.grace.min(MAX_GRACE);
        let jitter = match plan.cause {
            _ if plan.known == Known::Spent => drawn(SPENT_JITTER),
            HandoffCause::Moving | HandoffCause::Vanished => drawn((grace / 20).min(MAX_JITTER)),
            HandoffCause::Drain | HandoffCause::Topology => Duration::ZERO,
        };
        let close_at = now + grace;
        let quiet_lead = (grace / 300).clamp(MIN_LEAD, MAX_LEAD).min(grace);
        let margin = (grace / 20).clamp(MIN_MARGIN, MAX_MARGIN).max(quiet_lead).min(grace / 4);
        let name_at = match (plan.cause, &plan.target) {
            _ if plan.known == Known::Spent => now + jitter,
            // The name is right by half of the grace at the earliest (measured); the jitter spreads the fleet before it.
            (HandoffCause::Moving, None) => now + (grace / 2).saturating_sub(jitter),
            // A target that is dead says nothing about the name: the later, the more likely it is right.
            (_, Some(_)) => now + grace * 3 / 4,
            (_, None) if is_name(&plan.endpoint) => now + jitter + (grace / 4).min(DNS_PATIENCE),
            (_, None) => now + jitter,
        };
        Self {
            announced: now,
            start_at: now + jitter,
            name_at,
            deadline: now + grace.saturating_sub(margin),
            quiet_at: now + grace.saturating_sub(quiet_lead),
            close_at,
            dial_at: close_at + quiet_lead,
            settle_at: close_at + QUIET_PATIENCE * 2,
            forget_at: close_at + FORGET_AFTER,
        }
    }

    /// How often the name is asked: some fifteen times in the grace, between ten times a second and once.
    pub(crate) fn dns_interval(&self) -> Duration {
        ((self.close_at - self.announced) / 15).clamp(Duration::from_millis(100), Duration::from_secs(1))
    }
}

/// Where one connection stands in a handoff.
///
/// ```text
///                 due, worker free          Switched
///   Waiting{until} ---------------> Moving ---------> Settled (the successor) --told again--> Stuck
///      ^   ^                          |                                                        |  deadline
///      |   +------ retry, fallback ---+---- hopeless --> Stuck --------- deadline --------> Moving (quietly)
///      |                                                                                       |
///      +-- DNS names another address -- Stuck -- forget_at --> Abandoned <---------------------+ failed
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Left to the server's close and to ordinary reconnection.
    Abandoned,
    /// An attempt is under way.
    Moving {
        /// To the named target, under its breaker.
        to_target: bool,
        /// The last chance before the server closes.
        quiet: bool,
        /// Without an answer by then there will be none.
        overdue: Instant,
    },
    /// It needs nothing (any more).
    Settled,
    /// Nothing better than the retiring server is known; the last chance comes just before its close.
    Stuck,
    /// The next attempt comes at `until`, when a worker is free.
    Waiting {
        /// When.
        until: Instant,
    },
}

/// One connection of a handoff.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) state: State,
    /// Whether the named target is still the way to go.
    pub(crate) to_target: bool,
    /// Failed attempts on the present way.
    pub(crate) failures: u8,
    /// How often it was made anew in this handoff.
    pub(crate) moves: u8,
    /// What DNS names for it in place of its present peer.
    pub(crate) address: Option<IpAddr>,
    /// The server told this very connection.
    pub(crate) told: bool,
    pub(crate) last_error: Option<MoveError>,
}

impl Member {
    pub(crate) fn waiting(until: Instant, to_target: bool, told: bool) -> Self {
        Self {
            state: State::Waiting { until },
            to_target,
            failures: 0,
            moves: 0,
            address: None,
            told,
            last_error: None,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, State::Moving { .. } | State::Stuck | State::Waiting { .. })
    }

    /// It waits to go by the name, of which DNS has told nothing new.
    pub(crate) fn guesses(&self) -> bool {
        matches!(self.state, State::Waiting { .. }) && !self.to_target && self.address.is_none()
    }

    /// True while a better address from DNS would help.
    pub(crate) fn wants_name(&self) -> bool {
        !self.to_target
            && matches!(self.state, State::Stuck | State::Waiting { .. })
            && self.moves < MAX_MOVES
    }
}

/// A connection is made anew at most this often for one announcement: by the name at its time, quietly at the close, and
/// once because DNS named another address.
pub(crate) const MAX_MOVES: u8 = 3;

/// What attempts by the configured name have shown, where DNS names no address.
///
/// ```text
///   Unknown -- first attempt --> Asked -- arrived and told nothing, or time is over --> Open: everybody goes
///                                  |
///                                  +-- told by the retiring server again --> LeadsBack: nobody goes
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NameState {
    /// One connection goes ahead; the others wait for its answer until then.
    Asked { scout: ConnId, until: Instant },
    /// It leads to the retiring server still.
    LeadsBack,
    /// Nothing speaks against it.
    Open,
    /// Nobody has tried.
    Unknown,
}

/// One endpoint on its way.
#[derive(Debug)]
pub(crate) struct Handoff {
    pub(crate) id: HandoffId,
    pub(crate) plan: Plan,
    /// The target that was announced, by which the announcement is known again; later ones may have replaced it in the plan.
    pub(crate) said: Option<Endpoint>,
    pub(crate) at: Timetable,
    /// Where the retiring server was seen.
    pub(crate) sites: BTreeSet<Site>,
    pub(crate) members: BTreeMap<ConnId, Member>,
    /// Connections that were told before they were ready.
    pub(crate) told_early: BTreeSet<ConnId>,
    /// Where a connection that was made through the name, late enough to be right, was told all the same.
    pub(crate) still_there: BTreeSet<Site>,
    /// Attempts at once; fewer when the target is full.
    pub(crate) limit: usize,
    /// The target is out of question for the rest of this handoff.
    pub(crate) target_dead: bool,
    /// A connection has been moved to the target.
    pub(crate) proven: bool,
    /// Who went ahead to a target that is not proven, and how long the others wait for its answer.
    pub(crate) scout: Option<(ConnId, Instant)>,
    /// What is known of the configured name without DNS.
    pub(crate) name: NameState,
    /// Its end was reported, which is done once.
    pub(crate) finished: bool,
    pub(crate) moved: u32,
    pub(crate) abandoned: u32,
}

impl Handoff {
    pub(crate) fn new(id: HandoffId, plan: Plan, at: Timetable, limit: usize) -> Self {
        Self {
            id,
            said: plan.target.clone(),
            plan,
            at,
            sites: BTreeSet::new(),
            members: BTreeMap::new(),
            told_early: BTreeSet::new(),
            still_there: BTreeSet::new(),
            limit,
            target_dead: false,
            proven: false,
            scout: None,
            name: NameState::Unknown,
            finished: false,
            moved: 0,
            abandoned: 0,
        }
    }

    /// The way that a connection which joins now takes, and when.
    pub(crate) fn joining(&self, now: Instant, told: bool) -> Member {
        let to_target = self.plan.target.is_some() && !self.target_dead;
        let from = if to_target { self.at.start_at } else { self.at.name_at };
        let mut member = Member::waiting(now.max(from), to_target, told);
        // Too late for guesses, or one was enough.
        if !to_target && (self.at.deadline <= now || self.name == NameState::LeadsBack) {
            member.state = State::Stuck;
        }
        member
    }

    pub(crate) fn moving(&self) -> usize {
        self.members.values().filter(|member| matches!(member.state, State::Moving { .. })).count()
    }

    /// Those whose time to be moved has come, but for those who wait for one that went ahead.
    pub(crate) fn due(&self, now: Instant) -> Vec<ConnId> {
        let due = |member: &Member| matches!(member.state, State::Waiting { until } if until <= now);
        let waits = |conn: ConnId, member: &Member| {
            self.goes_to_target(member) && self.waits_for_scout(now, conn)
                || member.guesses() && self.waits_for_name(now, conn)
        };
        let members = self.members.iter().filter(|(conn, member)| due(member) && !waits(**conn, member));
        members.map(|(conn, _)| *conn).collect()
    }

    pub(crate) fn goes_to_target(&self, member: &Member) -> bool {
        member.to_target && self.plan.target.is_some()
    }

    /// Whether this connection must wait for the one that went ahead to a target that is not proven.
    pub(crate) fn waits_for_scout(&self, now: Instant, conn: ConnId) -> bool {
        let Some((scout, until)) = self.scout.filter(|(scout, _)| !self.proven && *scout != conn) else {
            return false;
        };
        self.members.get(&scout).is_some_and(|member| match member.state {
            State::Moving { to_target, .. } => to_target && now < until,
            State::Waiting { .. } => member.to_target,
            _ => false,
        })
    }

    /// Whether this connection, of which DNS says nothing, must not go by the name now; the first one may, alone.
    pub(crate) fn waits_for_name(&self, now: Instant, conn: ConnId) -> bool {
        // For other causes nobody would tell that the name leads back.
        self.plan.cause == HandoffCause::Moving
            && match self.name {
                NameState::Asked { scout, until } => now < until && scout != conn,
                NameState::LeadsBack => true,
                NameState::Open | NameState::Unknown => false,
            }
    }

    /// This connection goes by the name, of which DNS says nothing; the first one is the scout.
    pub(crate) fn try_name(&mut self, now: Instant, conn: ConnId) {
        if self.plan.cause != HandoffCause::Moving {
            return;
        }
        match self.name {
            NameState::Asked { until, .. } if until <= now => self.name = NameState::Open,
            NameState::Unknown => {
                self.name = NameState::Asked { scout: conn, until: now + self.alone() };
            }
            _ => {}
        }
    }

    /// The connection that went ahead by the name was told that it is on the retiring server again.
    pub(crate) fn leads_back(&mut self) {
        self.name = NameState::LeadsBack;
        for member in self.members.values_mut().filter(|member| member.guesses()) {
            member.state = State::Stuck;
        }
    }

    /// It has arrived and was told nothing so far: the word may be right behind.
    pub(crate) fn listen_there(&mut self, now: Instant, successor: ConnId) {
        self.name = NameState::Asked { scout: successor, until: now + LISTEN };
    }

    fn alone(&self) -> Duration {
        SCOUT.min((self.at.close_at - self.at.announced) / 10)
    }

    /// This connection tries the target; the first one is the scout.
    pub(crate) fn send_ahead(&mut self, now: Instant, conn: ConnId) {
        let alive =
            self.scout.is_some_and(|(scout, _)| self.members.get(&scout).is_some_and(Member::is_open));
        if !alive || self.scout.is_some_and(|(scout, _)| scout == conn) {
            self.scout = Some((conn, now + self.alone()));
        }
    }

    pub(crate) fn waiting(&self) -> usize {
        self.members.values().filter(|member| matches!(member.state, State::Waiting { .. })).count()
    }

    pub(crate) fn is_settled(&self) -> bool {
        !self.members.values().any(Member::is_open)
    }

    /// Whether a connection that leads to `site` is one of those that the server retires.
    pub(crate) fn concerns(&self, site: &Site) -> bool {
        self.sites.contains(site)
    }

    /// Whether it may still help after the announced close: servers close late, and DNS may be later still.
    pub(crate) fn has_overtime(&self) -> bool {
        matches!(self.plan.cause, HandoffCause::Moving | HandoffCause::Vanished)
            && is_name(&self.plan.endpoint)
    }

    /// Whether it does something for a connection that the server itself tells too late for an attempt: silence before the
    /// close, and what DNS says behind it.
    pub(crate) fn helps_latecomers(&self, now: Instant) -> bool {
        now < self.at.close_at || self.has_overtime() && now < self.at.forget_at
    }

    /// Whether the configured name is a way out when the target is none.
    pub(crate) fn may_use_name(&self) -> bool {
        self.plan.cause != HandoffCause::Topology
    }

    /// When the engine must look at it again, if nothing happens before.
    pub(crate) fn next_timeout(&self, now: Instant) -> Instant {
        let later = |at: Instant| (now < at).then_some(at);
        let members = self.members.values().filter_map(|member| match member.state {
            State::Moving { overdue, .. } => later(overdue),
            State::Waiting { until } => later(until),
            _ => None,
        });
        members
            .chain(self.scout.and_then(|(_, until)| later(until)))
            .chain(match self.name {
                NameState::Asked { until, .. } => later(until),
                NameState::LeadsBack | NameState::Open | NameState::Unknown => None,
            })
            .chain(later(self.at.start_at))
            .chain(later(self.at.name_at))
            .chain(later(self.at.deadline))
            .chain(later(self.at.quiet_at))
            .chain(later(self.at.close_at))
            .chain(later(self.at.settle_at))
            .min()
            .unwrap_or(self.at.forget_at)
    }
}

/// The pause after so many failures in a row; `spread` gives a number in `0..most`.
pub(crate) fn backoff(failures: u8, spread: impl Fn(Duration) -> Duration) -> Duration {
    let doubled = BACKOFF.saturating_mul(1 << u32::from(failures.saturating_sub(1)).min(6));
    let pause = doubled.min(MAX_BACKOFF);
    pause + spread(pause / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "origin of virtual time")]
    fn origin() -> Instant {
        Instant::now()
    }

    fn table(grace_ms: u64, target: bool, drawn: Duration) -> (u128, u128, u128, u128, u128) {
        let now = origin();
        let plan = Plan {
            cause: HandoffCause::Moving,
            endpoint: Endpoint::new("h", 1),
            seq: Some(1),
            target: target.then(|| Endpoint::new("t", 1)),
            grace: Duration::from_millis(grace_ms),
            known: Known::Said,
        };
        let at = Timetable::new(now, &plan, |most| drawn.min(most));
        let ms = |instant: Instant| (instant - now).as_millis();
        (ms(at.start_at), ms(at.name_at), ms(at.deadline), ms(at.quiet_at), ms(at.close_at))
    }

    #[test]
    fn the_timetable_follows_the_grace() {
        let all = Duration::MAX;
        assert_eq!(table(15_000, false, Duration::ZERO), (0, 7_500, 14_750, 14_950, 15_000));
        assert_eq!(table(15_000, true, all), (500, 11_250, 14_750, 14_950, 15_000));
        assert_eq!(table(3_000, false, all), (150, 1_350, 2_850, 2_990, 3_000));
        // A second is no rounding to zero.
        assert_eq!(table(1_000, false, Duration::ZERO), (0, 500, 900, 990, 1_000));
        assert_eq!(table(u64::MAX, true, all).4, MAX_GRACE.as_millis());
    }
}
