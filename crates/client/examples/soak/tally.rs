//! `Tally`: what the load counts; none of it grows with time.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use evenkeel_client::{Error, Executed};

/// Messages are printed for the first few of each kind.
const SHOWN: u64 = 5;

/// A killed server has loaded its data by then.
const LOADS: Duration = Duration::from_secs(5);

/// What the client said of one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    Done,
    NotDone,
    Unknown,
}

#[derive(Debug, Default)]
pub(crate) struct Tally {
    stop: AtomicBool,
    pub(crate) commands: AtomicU64,
    pub(crate) cancelled: AtomicU64,
    /// Said not to have been executed.
    pub(crate) failed: AtomicU64,
    /// Said to be unknown.
    pub(crate) unknown: AtomicU64,
    /// Replies of somebody else, or that contradict earlier ones.
    wrong: AtomicU64,
    /// There more often than was said.
    doubled: AtomicU64,
    /// Said to be done, and absent.
    lost: AtomicU64,
    pub(crate) messages: AtomicU64,
    pub(crate) gaps: AtomicU64,
    /// Messages that are missing without a word.
    silent: AtomicU64,
    /// How often each kind was made.
    troubles: Mutex<std::collections::BTreeMap<&'static str, u64>>,
    /// The one that began last.
    latest: Mutex<Option<(&'static str, Instant)>>,
}

fn of(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Tally {
    pub(crate) fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Counts a command and what was said of it.
    pub(crate) fn note<T>(&self, result: &Result<T, Error>) -> Said {
        count(&self.commands);
        match result {
            Ok(_) => Said::Done,
            Err(error) if error.executed() == Executed::No => {
                self.show(&self.failed, "failed", format_args!("{error}"));
                Said::NotDone
            }
            Err(_) => {
                count(&self.unknown);
                Said::Unknown
            }
        }
    }

    pub(crate) fn wrong(&self, what: std::fmt::Arguments<'_>) {
        self.show(&self.wrong, "wrong", what);
    }

    pub(crate) fn doubled(&self, what: std::fmt::Arguments<'_>) {
        self.show(&self.doubled, "doubled", what);
    }

    pub(crate) fn lost(&self, what: std::fmt::Arguments<'_>) {
        self.show(&self.lost, "lost", what);
    }

    pub(crate) fn silent(&self, what: std::fmt::Arguments<'_>) {
        self.show(&self.silent, "missing without a word", what);
    }

    pub(crate) fn begins(&self, trouble: &'static str) {
        *self.latest.lock().unwrap_or_else(PoisonError::into_inner) = Some((trouble, Instant::now()));
    }

    /// Whether the server was killed a moment ago: it touches what is watched while it loads its data.
    pub(crate) fn loads(&self) -> bool {
        let latest = *self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        latest.is_some_and(|(trouble, at)| trouble == "sigkill" && at.elapsed() < LOADS)
    }

    fn show(&self, counter: &AtomicU64, kind: &str, what: std::fmt::Arguments<'_>) {
        if counter.fetch_add(1, Ordering::Relaxed) >= SHOWN {
            return;
        }
        match *self.latest.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((trouble, at)) => eprintln!("{kind}: {what}, {:.1?} after {trouble} began", at.elapsed()),
            None => eprintln!("{kind}: {what}"),
        }
    }

    pub(crate) fn made(&self, trouble: &'static str) {
        *self.troubles.lock().unwrap_or_else(PoisonError::into_inner).entry(trouble).or_default() += 1;
    }

    /// Every count by its name.
    fn counts(&self) -> [(&'static str, u64); 10] {
        [
            ("commands", &self.commands),
            ("cancelled", &self.cancelled),
            ("failed", &self.failed),
            ("unknown", &self.unknown),
            ("wrong", &self.wrong),
            ("doubled", &self.doubled),
            ("lost", &self.lost),
            ("messages", &self.messages),
            ("gaps", &self.gaps),
            ("silent_gaps", &self.silent),
        ]
        .map(|(name, counter)| (name, of(counter)))
    }

    pub(crate) fn line(&self) -> String {
        self.counts().map(|(name, count)| format!("{name} {count}")).join(", ")
    }

    /// Whether every promise held; in calm nothing may fail either.
    pub(crate) fn held(&self, chaos: bool) -> bool {
        let never = [&self.wrong, &self.doubled, &self.lost, &self.silent];
        let calm = [&self.failed, &self.unknown, &self.gaps];
        let ran = of(&self.commands) > 0 && of(&self.messages) > 0;
        ran && never.iter().all(|counter| of(counter) == 0)
            && (chaos || calm.iter().all(|counter| of(counter) == 0))
    }

    pub(crate) fn json(&self) -> String {
        let troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        let troubles: Vec<String> =
            troubles.iter().map(|(name, count)| format!(r#""{name}":{count}"#)).collect();
        let counts = self.counts().map(|(name, count)| format!(r#""{name}":{count}"#)).join(",");
        format!(r#"{counts},"troubles":{{{}}}"#, troubles.join(","))
    }
}
