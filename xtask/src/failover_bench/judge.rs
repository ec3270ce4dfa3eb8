//! From what was told and what stands in the servers to the figures.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::Serialize;

use super::probe::Taken;
use super::racer::{Told, Verdict};

/// The figures of one fault, with the names of `--json`. Times are in milliseconds; `None` where nothing was to be measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) mode: String,
    pub(crate) fault: String,
    pub(crate) server: String,
    pub(crate) client: String,
    pub(crate) run: u32,
    pub(crate) commands: u64,
    pub(crate) failed: u64,
    pub(crate) ambiguous: u64,
    pub(crate) lost_acknowledged: u64,
    pub(crate) doubled: u64,
    pub(crate) server_ready_to_first_success_ms: Option<f64>,
    pub(crate) longest_gap_ms: f64,
    pub(crate) server_pause_ms: f64,
    /// Of the other shards: 99th percentile of latency before and during, failed, and longest gap. For people.
    #[serde(skip)]
    pub(crate) others: Option<Others>,
}

/// The other shards in the same race.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Others {
    pub(crate) p99_before: f64,
    pub(crate) p99_after: f64,
    pub(crate) failed: u64,
}

/// One fault in the time of a race.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) from: u64,
    pub(crate) fault: u64,
    pub(crate) to: u64,
    /// The server that is to lose its role or its slots.
    pub(crate) old: Option<SocketAddr>,
}

/// What a race gave to judge.
pub(crate) struct Evidence {
    pub(crate) told: Vec<Told>,
    pub(crate) taken: Vec<Taken>,
    /// How often each number stands in the servers.
    pub(crate) stands: BTreeMap<u64, u64>,
    /// Keys before this place are counted, those from it on belong to other shards.
    pub(crate) counted: usize,
}

/// Fills in the figures of one window.
pub(crate) fn judge(evidence: &Evidence, window: Window, mut line: Line) -> Line {
    let within = |told: &&Told| (window.from..window.to).contains(&told.begin);
    let counted: Vec<&Told> =
        evidence.told.iter().filter(within).filter(|told| told.key < evidence.counted).collect();
    let stands = |told: &Told| evidence.stands.get(&told.number).copied().unwrap_or(0);
    for told in &counted {
        line.commands += 1;
        match told.verdict {
            Verdict::Acknowledged => line.lost_acknowledged += u64::from(stands(told) == 0),
            Verdict::MayHaveRun => line.ambiguous += 1,
            Verdict::NotExecuted => line.failed += 1,
        }
        let allowed = u64::from(told.verdict != Verdict::NotExecuted);
        line.doubled += stands(told).saturating_sub(allowed);
    }
    let acknowledged = |told: &&&Told| told.verdict == Verdict::Acknowledged;
    let successes = counted.iter().filter(acknowledged).map(|told| told.end).collect();
    line.longest_gap_ms = longest_gap(successes, window);
    let taken = evidence.taken.iter().map(|taken| taken.at).filter(|at| *at < window.to).collect();
    line.server_pause_ms = longest_gap(taken, window);
    let ready = window.old.and_then(|old| {
        evidence.taken.iter().find(|taken| taken.by != old && taken.at >= window.fault).map(|taken| taken.at)
    });
    // A write that an old primary took, and that is gone, is no success.
    line.server_ready_to_first_success_ms = ready.and_then(|ready| {
        let survived = |told: &&&Told| acknowledged(told) && stands(told) > 0 && told.end >= ready;
        counted.iter().filter(survived).map(|told| told.end).min().map(|first| millis(first - ready))
    });
    line.others = others(evidence, window);
    let unclear: Vec<&&Told> = counted.iter().filter(|told| told.verdict == Verdict::MayHaveRun).collect();
    let since = |at: u64| millis(at) - millis(window.fault);
    let times = |of: fn(&Told) -> u64| {
        let first = unclear.iter().map(|told| of(told)).min()?;
        let last = unclear.iter().map(|told| of(told)).max()?;
        Some(format!("{:.1} to {:.1} ms", since(first), since(last)))
    };
    if let (Some(begun), Some(ended)) = (times(|told| told.begin), times(|told| told.end)) {
        let run = unclear.iter().filter(|told| stands(told) > 0).count();
        let ready = ready.map_or(0.0, since);
        eprintln!(
            "  {} unclear, begun {begun} after the fault, ended {ended}, {run} had run; new primary at {ready:.1} ms",
            unclear.len()
        );
    }
    line
}

fn others(evidence: &Evidence, window: Window) -> Option<Others> {
    let of = |from: u64, to: u64| {
        let mut latencies: Vec<u64> = evidence
            .told
            .iter()
            .filter(|told| told.key >= evidence.counted && (from..to).contains(&told.begin))
            .map(|told| told.end - told.begin)
            .collect();
        latencies.sort_unstable();
        latencies.get(latencies.len() * 99 / 100).copied().map(millis)
    };
    let during = |told: &&Told| {
        told.key >= evidence.counted
            && (window.from..window.to).contains(&told.begin)
            && told.verdict != Verdict::Acknowledged
    };
    Some(Others {
        p99_before: of(window.from, window.fault)?,
        p99_after: of(window.fault, window.to)?,
        failed: evidence.told.iter().filter(during).count() as u64,
    })
}

/// The longest time without a success in a window, its ends included.
fn longest_gap(mut ends: Vec<u64>, window: Window) -> f64 {
    ends.retain(|end| *end >= window.from);
    ends.push(window.from);
    ends.push(window.to);
    ends.sort_unstable();
    millis(ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0))
}

#[expect(clippy::cast_precision_loss, reason = "times of a few minutes")]
fn millis(micros: u64) -> f64 {
    micros as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(number: u64, end: u64, verdict: Verdict) -> Told {
        Told { number, key: 0, begin: end - 1000, end, verdict }
    }

    #[test]
    fn losses_doubles_and_the_first_success_that_lasts() {
        let (old, new): (SocketAddr, SocketAddr) =
            ("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
        let evidence = Evidence {
            told: vec![
                told(0, 10_000, Verdict::Acknowledged),
                // On the old primary after the promotion.
                told(1, 31_000, Verdict::Acknowledged),
                told(2, 42_000, Verdict::Acknowledged),
                told(3, 43_000, Verdict::NotExecuted),
                told(4, 44_000, Verdict::MayHaveRun),
            ],
            taken: vec![Taken { at: 9_000, by: old }, Taken { at: 30_000, by: new }],
            stands: [(0, 1), (2, 2), (3, 1)].into(),
            counted: 1,
        };
        let window = Window { from: 5_000, fault: 20_000, to: 50_000, old: Some(old) };
        let line = judge(&evidence, window, super::super::show::blank());
        assert_eq!((line.commands, line.failed, line.ambiguous), (5, 1, 1));
        assert_eq!((line.lost_acknowledged, line.doubled), (1, 2));
        assert_eq!(line.server_ready_to_first_success_ms, Some(12.0));
        assert_eq!((line.longest_gap_ms, line.server_pause_ms), (21.0, 21.0));
    }
}
