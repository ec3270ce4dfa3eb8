//! Those who write: every slot's commands overlap on the wire, and every effect is looked up.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use evenkeel_client::{Client, Error};
use futures_util::future::join;

use crate::{
    ledger::{Ledger, Said, add},
    measure::{Histogram, Watch},
};

/// What every task of a load shares.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) ledger: Ledger,
    pub(crate) watch: Watch,
    pub(crate) stop: AtomicBool,
}

impl Shared {
    pub(crate) fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

/// What a worker measured.
#[derive(Debug, Default)]
pub(crate) struct Times {
    pub(crate) inside: Histogram,
    pub(crate) outside: Histogram,
    /// The longest that a command waited while a handoff was under way: the gap of its slot.
    pub(crate) longest: Duration,
    pub(crate) longest_outside: Duration,
}

impl Times {
    pub(crate) fn add(&mut self, other: &Self) {
        self.inside.add(&other.inside);
        self.outside.add(&other.outside);
        self.longest = self.longest.max(other.longest);
        self.longest_outside = self.longest_outside.max(other.longest_outside);
    }

    fn record(&mut self, shared: &Shared, from: Instant, to: Instant) {
        let took = to.duration_since(from);
        if shared.watch.overlapped(from, to) {
            self.inside.record(took);
            self.longest = self.longest.max(took);
        } else {
            self.outside.record(took);
            self.longest_outside = self.longest_outside.max(took);
        }
    }
}

/// Appends between two looks at the log.
const LOG: usize = 400;

/// One slot's writer: two APPENDs, an INCR and a GET on the wire at once, in that order.
pub(crate) async fn writer(shared: Arc<Shared>, number: usize, pace: Option<Duration>) -> Times {
    let (log, count) = (format!("{{w{number}}}:log"), format!("{{w{number}}}:count"));
    let mut times = Times::default();
    let mut pace = pace.map(|every| {
        let offset = every.mul_f64(number as f64 / 64.0 % 1.0);
        let mut pace = tokio::time::interval_at(tokio::time::Instant::now() + offset, every);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        pace
    });
    let (mut next, mut first, mut said) = (0u64, 0u64, Vec::new());
    let (mut counted, mut uncertain) = (0i64, 0i64);
    let client = &shared.client;
    while shared.goes_on() {
        if let Some(pace) = &mut pace {
            pace.tick().await;
        }
        let from = Instant::now();
        let (one, two) = (format!("{next},"), format!("{},", next + 1));
        let both = join(timed(client.append(&log, &one)), timed(client.append(&log, &two)));
        let rest = join(timed(client.incr(&count)), timed(client.strlen(&log)));
        let (((one, one_at), (two, two_at)), ((incr, incr_at), (len, len_at))) = join(both, rest).await;
        for to in [one_at, two_at, incr_at, len_at] {
            times.record(&shared, from, to);
        }
        if one.is_ok() || len.is_ok() {
            shared.watch.success(one_at.max(len_at));
        }
        next += 2;
        said.extend([Said::of(&one), Said::of(&two)]);
        if let (Ok(one), Ok(two), Ok(len)) = (&one, &two, &len)
            && !(one < two && two <= len)
        {
            shared.ledger.disorder(format_args!("APPENDs gave {one} and {two}, STRLEN {len}"));
        }
        match Said::of(&incr) {
            Said::Done => counted += 1,
            Said::Unknown => uncertain += 1,
            Said::NotDone => {}
        }
        for result in [&one, &two, &incr, &len] {
            shared.ledger.note("write", result);
        }
        if said.len() >= LOG {
            check_log(&shared, &log, &mut first, &mut said).await;
        }
    }
    check_log(&shared, &log, &mut first, &mut said).await;
    let stands = client.get::<Option<i64>>(&count).await.ok().flatten().unwrap_or(0);
    add(&shared.ledger.doubled, usize::try_from(stands - counted - uncertain).unwrap_or(0));
    add(&shared.ledger.vanished, usize::try_from(counted - stands).unwrap_or(0));
    times
}

async fn timed<F: IntoFuture>(call: F) -> (F::Output, Instant) {
    let output = call.await;
    (output, Instant::now())
}

async fn check_log(shared: &Shared, log: &str, first: &mut u64, said: &mut Vec<Said>) {
    // Only a look that certainly took the log away starts a new one.
    let text = match shared.client.getdel::<Option<String>>(log).await {
        Ok(text) => text.unwrap_or_default(),
        Err(error) => return shared.ledger.note::<()>("look or lease", &Err(error)),
    };
    shared.ledger.note::<()>("look", &Ok(()));
    let stands: Vec<u64> = text.split(',').filter_map(|number| number.parse().ok()).collect();
    shared.ledger.compare(&stands, *first, said);
    *first += said.len() as u64;
    said.clear();
}

/// Transactions on the lanes: all of one or nothing.
pub(crate) async fn transactions(shared: Arc<Shared>, number: usize) {
    let (left, right) = (format!("{{t{number}}}:left"), format!("{{t{number}}}:right"));
    let (mut done, mut uncertain) = (0i64, 0i64);
    let mut pace = tokio::time::interval(Duration::from_millis(2));
    while shared.goes_on() {
        pace.tick().await;
        let result = shared.client.transaction().incr(&left).incr(&right).await;
        match (&result, Said::of(&result)) {
            (Ok((one, two)), _) if one != two => add(&shared.ledger.doubled, 1),
            (_, Said::Unknown) => uncertain += 1,
            (_, Said::Done) => done += 1,
            (_, Said::NotDone) => {}
        }
        shared.ledger.note("transaction", &result);
    }
    let stands = shared.client.get::<Option<i64>>(&left).await.ok().flatten().unwrap_or(0);
    add(&shared.ledger.doubled, usize::try_from(stands - done - uncertain).unwrap_or(0));
    add(&shared.ledger.vanished, usize::try_from(done - stands).unwrap_or(0));
}

/// Read, decide, write under WATCH, on a lease that is kept for a while.
pub(crate) async fn watchers(shared: Arc<Shared>, number: usize) {
    let key = format!("{{l{number}}}:stock");
    let (mut done, mut uncertain) = (0i64, 0i64);
    while shared.goes_on() {
        let mut lease = match shared.client.lease().await {
            Ok(lease) => lease,
            Err(error) => {
                shared.ledger.note::<()>("look or lease", &Err(error));
                continue;
            }
        };
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let sold: Result<Option<(bool,)>, Error> = async {
                lease.watch([&key]).await?;
                let stock = lease.get::<Option<i64>>(&key).await?.unwrap_or(0);
                lease.transaction().set(&key, stock + 1).await
            }
            .await;
            shared.ledger.note("WATCH", &sold);
            match (Said::of(&sold), &sold) {
                (_, Ok(Some(_))) => done += 1,
                // Nobody else writes this key.
                (_, Ok(None)) => {
                    shared.ledger.disorder(format_args!("the watched {key}, which nobody else writes"));
                }
                (Said::Unknown, _) => uncertain += 1,
                _ => {}
            }
            if sold.is_err() {
                break;
            }
        }
    }
    let stands = shared.client.get::<Option<i64>>(&key).await.ok().flatten().unwrap_or(0);
    add(&shared.ledger.doubled, usize::try_from(stands - done - uncertain).unwrap_or(0));
    add(&shared.ledger.vanished, usize::try_from(done - stands).unwrap_or(0));
}
