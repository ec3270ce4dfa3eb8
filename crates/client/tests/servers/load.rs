//! A steady load whose every write is looked up afterwards: what was said of it must be what happened.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use evenkeel_client::{Client, Executed};

/// What the client said of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Ok,
    NotExecuted,
    Unknown,
}

/// A write by a script.
const APPEND: &str = "return redis.call('RPUSH', KEYS[1], ARGV[1])";

/// What a load found.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) commands: usize,
    pub(crate) failed: usize,
    pub(crate) unknown: usize,
    /// Said to have succeeded, and absent.
    pub(crate) lost: usize,
    /// More than once, or although it was said not to have been executed.
    pub(crate) doubled: usize,
    /// In another order than they were sent.
    pub(crate) disordered: usize,
    pub(crate) longest_gap: Duration,
    pub(crate) errors: Vec<String>,
}

/// One write: what was said of it, when, and in which words.
type Said = (Verdict, Instant, Option<String>);

pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<Vec<Said>>>,
    /// Writes of which something was said.
    told: Arc<AtomicUsize>,
    key: String,
}

#[expect(clippy::disallowed_methods, reason = "a load measures real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

impl Load {
    /// Starts writers, each appending increasing numbers to a list of its own, one at a time.
    pub(crate) fn start(client: &Client, key: &str, writers: usize) -> Self {
        Self::start_as(client, key, writers, false)
    }

    /// As [`start`](Self::start), each write made by a script.
    pub(crate) fn start_scripts(client: &Client, key: &str, writers: usize) -> Self {
        Self::start_as(client, key, writers, true)
    }

    fn start_as(client: &Client, key: &str, writers: usize, scripts: bool) -> Self {
        let (stop, told) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let tasks = (0..writers)
            .map(|writer| {
                let (client, key) = (client.clone(), format!("{key}:{writer}"));
                let (stop, told) = (Arc::clone(&stop), Arc::clone(&told));
                tokio::spawn(async move {
                    let mut verdicts = Vec::new();
                    let mut pace = tokio::time::interval(Duration::from_millis(2));
                    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                    while !stop.load(Ordering::Relaxed) {
                        let number = verdicts.len();
                        let command = if scripts {
                            client.cmd("EVAL").arg(APPEND).arg(1).arg(&key).arg(number)
                        } else {
                            client.cmd("RPUSH").arg(&key).arg(number)
                        };
                        let result = command.query::<i64>().await;
                        verdicts.push(match result {
                            Ok(_) => (Verdict::Ok, now(), None),
                            Err(error) => {
                                let verdict = match error.executed() {
                                    Executed::No => Verdict::NotExecuted,
                                    _ => Verdict::Unknown,
                                };
                                (verdict, now(), Some(error.to_string()))
                            }
                        });
                        told.fetch_add(1, Ordering::Relaxed);
                        pace.tick().await;
                    }
                    verdicts
                })
            })
            .collect();
        Self { stop, tasks, told, key: key.to_owned() }
    }

    /// Waits until each writer, as a mean, has been told of ten writes more.
    pub(crate) async fn goes_on(&self) {
        let wanted = self.told.load(Ordering::Relaxed) + 10 * self.tasks.len();
        let told = async {
            while self.told.load(Ordering::Relaxed) < wanted {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(60), told).await.is_ok();
        assert!(in_time, "the load stands still");
    }

    /// Stops the writers and looks every write up.
    pub(crate) async fn finish(self, client: &Client) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        let mut outcome = Outcome::default();
        for (writer, task) in self.tasks.into_iter().enumerate() {
            let verdicts = task.await.unwrap();
            let key = format!("{}:{writer}", self.key);
            let stands: Vec<usize> = client.cmd("LRANGE").arg(&key).arg(0).arg(-1).query().await.unwrap();
            outcome.disordered += stands.windows(2).filter(|pair| pair[0] > pair[1]).count();
            let mut last: Option<Instant> = None;
            for (number, (verdict, at, error)) in verdicts.iter().enumerate() {
                let times = stands.iter().filter(|stood| **stood == number).count();
                outcome.commands += 1;
                match verdict {
                    Verdict::Ok => {
                        outcome.lost += usize::from(times == 0);
                        if let Some(last) = last {
                            outcome.longest_gap = outcome.longest_gap.max(at.duration_since(last));
                        }
                        last = Some(*at);
                    }
                    Verdict::NotExecuted => outcome.failed += 1,
                    Verdict::Unknown => outcome.unknown += 1,
                }
                let allowed = usize::from(*verdict != Verdict::NotExecuted);
                outcome.doubled += times.saturating_sub(allowed);
                outcome.errors.extend(error.clone());
            }
        }
        outcome.errors.sort();
        outcome.errors.dedup();
        outcome
    }
}
