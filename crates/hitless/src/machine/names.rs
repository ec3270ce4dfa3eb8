//! `Names`: which host names are being asked for, how often, and which advertised addresses have vanished.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use evenkeel_protocol::Endpoint;

/// A question without an answer is asked again after this long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// After `MIGRATED` an address was seen to leave DNS within 5 s and its sockets to close within 18 s (measured).
const VANISH_WATCH: Duration = Duration::from_secs(30);
/// How often the name is asked meanwhile.
const VANISH_INTERVAL: Duration = Duration::from_secs(2);
/// Answers in a row that lack an address before it counts as gone: servers hand out changing subsets.
const VANISH_PROOF: u8 = 2;
/// Names asked at once.
const MAX_NAMES: usize = 64;

#[derive(Debug)]
struct Question {
    next_at: Instant,
    interval: Duration,
    until: Instant,
}

#[derive(Debug)]
struct Vanish {
    until: Instant,
    advertised: BTreeSet<IpAddr>,
    missing: BTreeMap<IpAddr, u8>,
}

#[derive(Debug, Default)]
pub(crate) struct Names {
    questions: BTreeMap<Arc<str>, Question>,
    vanish: BTreeMap<Endpoint, Vanish>,
}

/// True when looking up the host of `endpoint` can give news.
pub(crate) fn is_name(endpoint: &Endpoint) -> bool {
    !endpoint.is_unix() && endpoint.host().parse::<IpAddr>().is_err()
}

impl Names {
    /// Asks for a name from now on, every `interval`, until `until`.
    pub(crate) fn ask(&mut self, now: Instant, host: &str, interval: Duration, until: Instant) {
        if let Some(question) = self.questions.get_mut(host) {
            question.interval = question.interval.min(interval);
            question.next_at = question.next_at.min(now + interval);
            question.until = question.until.max(until);
        } else if self.questions.len() < MAX_NAMES {
            self.questions.insert(host.into(), Question { next_at: now, interval, until });
        }
    }

    /// Watches whether an address of this endpoint stops being advertised.
    pub(crate) fn watch(&mut self, now: Instant, endpoint: &Endpoint) {
        if !is_name(endpoint) || (self.vanish.len() >= MAX_NAMES && !self.vanish.contains_key(endpoint)) {
            return;
        }
        let until = now + VANISH_WATCH;
        self.vanish
            .entry(endpoint.clone())
            .and_modify(|watch| watch.until = until)
            .or_insert_with(|| Vanish { until, advertised: BTreeSet::new(), missing: BTreeMap::new() });
        self.ask(now, endpoint.host(), VANISH_INTERVAL, until);
    }

    /// The names to ask now; `wanted` tells whether anybody still cares.
    pub(crate) fn due(&mut self, now: Instant, wanted: impl Fn(&str) -> bool) -> Vec<Arc<str>> {
        self.vanish.retain(|_, watch| now < watch.until);
        let watched: BTreeSet<&str> = self.vanish.keys().map(Endpoint::host).collect();
        let mut due = Vec::new();
        self.questions.retain(|name, question| {
            if now < question.next_at {
                return true;
            }
            if now >= question.until || !(watched.contains(&**name) || wanted(name)) {
                return false;
            }
            question.next_at = now + ANSWER_TIMEOUT;
            due.push(Arc::clone(name));
            true
        });
        due
    }

    /// Takes an answer; gives the addresses that were advertised for an endpoint and are not any more.
    pub(crate) fn answer(
        &mut self,
        now: Instant,
        name: &str,
        addresses: &[IpAddr],
    ) -> Vec<(Endpoint, BTreeSet<IpAddr>)> {
        if let Some(question) = self.questions.get_mut(name) {
            question.next_at = now + question.interval;
        }
        // A failed question says nothing about who is advertised.
        if addresses.is_empty() {
            return Vec::new();
        }
        let mut gone = Vec::new();
        for (endpoint, watch) in self.vanish.iter_mut().filter(|(endpoint, _)| endpoint.host() == name) {
            for address in addresses {
                watch.advertised.insert(*address);
                watch.missing.remove(address);
            }
            let mut lost = BTreeSet::new();
            for address in watch.advertised.iter().filter(|known| !addresses.contains(known)) {
                let count = watch.missing.entry(*address).or_default();
                *count = count.saturating_add(1);
                if *count == VANISH_PROOF {
                    lost.insert(*address);
                }
            }
            if !lost.is_empty() {
                gone.push((endpoint.clone(), lost));
            }
        }
        gone
    }

    pub(crate) fn clear(&mut self) {
        self.questions.clear();
        self.vanish.clear();
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.questions.values().map(|question| question.next_at).min()
    }
}
