//! A steady load of commands, each write with a fresh id that is looked up afterwards.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel::{Client, Executed};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::board::{Board, When};
use super::clock;

/// Tasks that write, each to a list of its own.
pub(super) const WRITERS: usize = 8;
/// Tasks that read.
const READERS: usize = 2;
/// Between two commands of one task.
const PACE: Duration = Duration::from_millis(8);
/// Writes that one writer remembers; older ones are not looked up. Twelve minutes of the load.
const REMEMBERED: usize = 90_000;
/// Where the list is cut, from its end: twice what is remembered.
const KEPT_FROM: i64 = -180_000;
/// After so many writes the list is cut to what the writer remembers.
const TRIM_EVERY: u64 = 10_000;

/// What the client said of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Ok,
    NotExecuted,
    Unknown,
}

/// One write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Write {
    pub(super) id: u64,
    pub(super) start: Instant,
    pub(super) end: Instant,
    pub(super) said: Said,
}

/// What became of a writer's or reader's commands.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) writes: VecDeque<Write>,
    /// Reads that failed: when, and whether the server may have run them.
    pub(super) failed_reads: Vec<Write>,
    /// The longest time between two answers, in planned trouble and in unplanned trouble.
    pub(super) longest_gap: (Duration, Duration),
    pub(super) errors: BTreeMap<String, u64>,
}

/// The running load.
#[derive(Debug)]
pub(super) struct Load {
    tasks: Vec<JoinHandle<Record>>,
}

/// The key of a writer's list.
pub(super) fn key(run: u64, writer: usize) -> String {
    format!("demo:{run:x}:{writer}")
}

impl Load {
    /// Starts all tasks; they end when `stop` says so.
    pub(super) fn start(client: &Client, board: &Arc<Board>, run: u64, stop: &watch::Receiver<bool>) -> Self {
        let mut tasks = Vec::new();
        for writer in 0..WRITERS {
            tasks.push(tokio::spawn(write(
                client.clone(),
                Arc::clone(board),
                key(run, writer),
                stop.clone(),
            )));
        }
        for reader in 0..READERS {
            tasks.push(tokio::spawn(read(client.clone(), Arc::clone(board), key(run, reader), stop.clone())));
        }
        Self { tasks }
    }

    /// Waits for all tasks; the writers' records come first, in the order of the writers.
    pub(super) async fn finish(self) -> Result<Vec<Record>, tokio::task::JoinError> {
        let mut records = Vec::new();
        for task in self.tasks {
            records.push(task.await?);
        }
        Ok(records)
    }
}

fn pace() -> tokio::time::Interval {
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}

/// Keeps the longest time between answers.
struct Gaps {
    last: Option<Instant>,
}

impl Gaps {
    fn answered(&mut self, board: &Board, record: &mut Record, at: Instant) {
        if let Some(last) = self.last.replace(at) {
            let gap = at.saturating_duration_since(last);
            let (planned, unplanned) = &mut record.longest_gap;
            if gap > (*planned).min(*unplanned) {
                match board.when(last, at) {
                    When::Calm => {}
                    When::Planned => *planned = gap.max(*planned),
                    When::Unplanned => *unplanned = gap.max(*unplanned),
                }
            }
        }
    }
}

fn fail(board: &Board, record: &mut Record, error: &evenkeel::Error) -> Said {
    board.failed();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    let count = record.errors.entry(text.clone()).or_default();
    *count += 1;
    if *count == 1 {
        board.log(format!("command failed ({:?}): {text}", error.executed()));
    }
    match error.executed() {
        Executed::No => Said::NotExecuted,
        _ => Said::Unknown,
    }
}

async fn write(client: Client, board: Arc<Board>, key: String, stop: watch::Receiver<bool>) -> Record {
    let (mut record, mut gaps, mut pace) = (Record::default(), Gaps { last: None }, pace());
    let mut id = 0;
    while !*stop.borrow() {
        let start = clock::now();
        let result = client.cmd("RPUSH").arg(&key).arg(id).query::<i64>().await;
        let end = clock::now();
        let said = match result {
            Ok(_length) => {
                board.answered(end.saturating_duration_since(start));
                gaps.answered(&board, &mut record, end);
                Said::Ok
            }
            Err(error) => fail(&board, &mut record, &error),
        };
        record.writes.push_back(Write { id, start, end, said });
        if record.writes.len() > REMEMBERED {
            record.writes.pop_front();
        }
        id += 1;
        if id % TRIM_EVERY == 0 {
            // It is housekeeping; the next one will do.
            let _later = client.cmd("LTRIM").arg(&key).arg(KEPT_FROM).arg(-1).query::<()>().await;
        }
        pace.tick().await;
    }
    record
}

async fn read(client: Client, board: Arc<Board>, key: String, stop: watch::Receiver<bool>) -> Record {
    let (mut record, mut gaps, mut pace) = (Record::default(), Gaps { last: None }, pace());
    let mut id = 0;
    while !*stop.borrow() {
        let start = clock::now();
        let result = client.cmd("LLEN").arg(&key).query::<i64>().await;
        let end = clock::now();
        match result {
            Ok(_length) => {
                board.answered(end.saturating_duration_since(start));
                gaps.answered(&board, &mut record, end);
            }
            Err(error) => {
                let said = fail(&board, &mut record, &error);
                if record.failed_reads.len() < REMEMBERED {
                    record.failed_reads.push(Write { id, start, end, said });
                }
            }
        }
        id += 1;
        pace.tick().await;
    }
    record
}
