//! The end of a run: every write looked up, every publication counted, one JSON object, and what broke.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::board::{Board, When, Window};
use super::deployment::{Deployment, Mode, Outcome, Trouble};
use super::ledger::Ledger;
use super::load::{self, Record, Said, WRITERS};
use super::pubsub::RawCounts;

/// Fewer commands show nothing.
const LEAST_COMMANDS: u64 = 1_000;

/// What a run came to: the last line of `--check`.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    mode: &'static str,
    commands: u64,
    /// Commands that failed in planned trouble alone, or in none.
    failed_planned: u64,
    failed_unplanned: u64,
    /// Of both: those of which nobody knows whether they ran.
    ambiguous: u64,
    lost_by_server: u64,
    published: u64,
    delivered: u64,
    lost_planned: u64,
    doubled: u64,
    raw_lost: u64,
    handoffs: u64,
    failovers: u64,
    troubles: BTreeMap<&'static str, u64>,
    longest_gap_ms_planned: u64,
    longest_gap_ms_unplanned: u64,
    p50_us: u32,
    p99_us: u32,
}

/// The writes of all writers, looked up.
#[derive(Debug, Default)]
struct Writes {
    failed_planned: u64,
    failed_unplanned: u64,
    ambiguous: u64,
    lost_by_server: u64,
    /// Said to have succeeded, and absent without a SIGKILL that explains it.
    lost: u64,
    /// Said not to have been executed, and there.
    ghosts: u64,
    doubled: u64,
}

/// Judges a run; the second part says what broke.
pub(super) async fn judge(
    mode: Mode,
    run: u64,
    board: &Board,
    deployment: &Deployment,
    records: &[Record],
    ledger: &Ledger,
    (raw, awaited): (RawCounts, usize),
) -> Outcome<(Report, Vec<String>)> {
    let mut lists = Vec::new();
    for writer in 0..WRITERS {
        lists.push(deployment.list(&load::key(run, writer)).await?);
    }
    let writes = look_up(records, &lists, board);
    let (lost, refused, doubled_planned) = ledger.outside_unplanned(board);
    let counts = ledger.counts(Duration::ZERO);
    let longest = |pick: fn(&(Duration, Duration)) -> Duration| {
        let longest = records.iter().map(|record| pick(&record.longest_gap)).max().unwrap_or_default();
        u64::try_from(longest.as_millis()).unwrap_or(u64::MAX)
    };
    let (p50_us, p99_us) = board.percentiles();
    let report = Report {
        mode: mode.name(),
        commands: board.commands.load(Ordering::Relaxed),
        failed_planned: writes.failed_planned,
        failed_unplanned: writes.failed_unplanned,
        ambiguous: writes.ambiguous,
        lost_by_server: writes.lost_by_server,
        published: counts.published,
        delivered: counts.delivered,
        lost_planned: lost + refused,
        doubled: counts.doubled,
        raw_lost: raw.lost,
        handoffs: board.handoffs.load(Ordering::Relaxed),
        failovers: board.failovers.load(Ordering::Relaxed),
        troubles: board.made(),
        longest_gap_ms_planned: longest(|gap| gap.0),
        longest_gap_ms_unplanned: longest(|gap| gap.1),
        p50_us,
        p99_us,
    };
    let mut broken = Vec::new();
    let mut must = |holds: bool, what: String| {
        if !holds {
            broken.push(what);
        }
    };
    let zero = |count: u64, what: &str| (count == 0, format!("{count} {what}"));
    for (holds, what) in [
        zero(report.failed_planned, "commands failed in planned trouble or in calm"),
        zero(writes.lost, "acknowledged writes are absent, and no SIGKILL explains it"),
        zero(writes.ghosts, "writes that were said not to have been executed stand in the data"),
        zero(writes.doubled, "writes stand more than once"),
        zero(lost, "publications with history were lost in planned trouble or in calm"),
        zero(refused, "publications with history were refused in planned trouble or in calm"),
        zero(doubled_planned, "publications with history came twice in planned trouble or in calm"),
        zero(raw.silent, "raw messages were lost without an announced gap"),
        zero(awaited as u64, "raw messages at the end were not delivered"),
    ] {
        must(holds, what);
    }
    must(report.commands >= LEAST_COMMANDS, format!("only {} commands ran", report.commands));
    must(counts.delivered > 0 && raw.delivered > 0, "nothing was delivered".to_owned());
    for trouble in mode.troubles() {
        let made = report.troubles.contains_key(trouble.name());
        must(made, format!("{} was not made", trouble.name()));
    }
    let moved = report.troubles.contains_key(Trouble::Moving.name());
    must(!moved || report.handoffs > 0, "no announced move led to a handoff".to_owned());
    Ok((report, broken))
}

fn look_up(records: &[Record], lists: &[Vec<u64>], board: &Board) -> Writes {
    let windows = board.windows();
    let mut writes = Writes::default();
    for record in records {
        for failed in &record.failed_reads {
            writes.fail(board, failed);
        }
    }
    for (record, list) in records.iter().zip(lists) {
        let mut stands: HashMap<u64, u64> = HashMap::new();
        for id in list {
            *stands.entry(*id).or_default() += 1;
        }
        for write in &record.writes {
            let times = stands.get(&write.id).copied().unwrap_or(0);
            match write.said {
                Said::Ok if times == 0 && explains(&windows, write.end) => writes.lost_by_server += 1,
                Said::Ok => writes.lost += u64::from(times == 0),
                Said::NotExecuted | Said::Unknown => writes.fail(board, write),
            }
            if write.said == Said::NotExecuted {
                writes.ghosts += u64::from(times > 0);
            } else {
                writes.doubled += u64::from(times > 1);
            }
        }
    }
    writes
}

impl Writes {
    fn fail(&mut self, board: &Board, write: &load::Write) {
        match board.when(write.start, write.end) {
            When::Unplanned => self.failed_unplanned += 1,
            When::Calm | When::Planned => self.failed_planned += 1,
        }
        self.ambiguous += u64::from(write.said == Said::Unknown);
    }
}

/// Whether a SIGKILL can have taken a write that was acknowledged at this time: a primary acknowledges before its replicas have it.
fn explains(windows: &[Window], acknowledged: Instant) -> bool {
    let sigkill = Trouble::Sigkill.name();
    windows
        .iter()
        .filter(|window| window.kind == sigkill)
        .any(|window| window.start <= acknowledged && window.end.is_none_or(|end| acknowledged <= end))
}

#[cfg(test)]
mod tests {
    use super::{Board, Record, Said, look_up};
    use crate::demo::{clock, load::Write};

    #[test]
    fn each_verdict_is_held_against_the_data() {
        let board = Board::default();
        let now = clock::now();
        let write = |id, said| Write { id, start: now, end: now, said };
        let mut record = Record::default();
        record.writes.extend([
            write(0, Said::Ok),
            write(1, Said::Ok),
            write(2, Said::Ok),
            write(3, Said::NotExecuted),
            write(4, Said::Unknown),
            write(5, Said::Unknown),
        ]);
        let writes = look_up(&[record], &[vec![0, 2, 2, 3, 4]], &board);
        assert_eq!((writes.lost, writes.doubled, writes.ghosts), (1, 1, 1));
        assert_eq!((writes.failed_planned, writes.ambiguous, writes.lost_by_server), (3, 2, 0));
    }
}
