//! The sentry against servers that lose count of their replies, and against one that does not.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use evenkeel_pool::{
    ConnInfo, DialConfig, Lane, LaneConfig, LaneId, LaneObserver, Outcome,
    machine::{OutOfStep, SentryConfig},
};
use parking_lot::Mutex;

use super::{
    PATIENCE, endpoint, judge, pipeline,
    server::{Memory, Trouble},
};

/// Keeps why connections were closed.
#[derive(Default)]
struct Ear(Mutex<Vec<OutOfStep>>);

impl LaneObserver for Ear {
    fn out_of_step(&self, _lane: LaneId, _info: &Arc<ConnInfo>, cause: OutOfStep) {
        self.0.lock().push(cause);
    }
}

fn lane(memory: &Arc<Memory>, sentry: SentryConfig) -> (Lane, Arc<Ear>) {
    let ear = Arc::new(Ear::default());
    let config = LaneConfig::default()
        .dial(DialConfig::default().connector(Arc::<Memory>::clone(memory)))
        .sentry(sentry);
    (Lane::start(LaneId(1), endpoint(), config, Arc::<Ear>::clone(&ear)), ear)
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let reached = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, reached).await.unwrap_or_else(|_late| panic!("{what}"));
}

/// How many callers got a reply that is not theirs.
fn wrong(outcomes: &[Outcome]) -> usize {
    let is_wrong = |(number, outcome): (usize, &Outcome)| match outcome {
        Outcome::Reply(reply) => reply.decode::<String>().unwrap() != format!("{number:04}"),
        _ => false,
    };
    outcomes.iter().enumerate().filter(|pair| is_wrong(*pair)).count()
}

#[tokio::test(start_paused = true)]
async fn a_server_that_loses_count_is_found_out_and_nobody_is_told_wrongly_afterwards() {
    // In the middle of a pipeline whose replies hide it: nothing is left over, and nobody waits longer.
    for trouble in [Trouble::Doubled(20), Trouble::Swallowed(20)] {
        let memory = Arc::new(Memory::default());
        memory.next(trouble);
        let (lane, ear) = lane(&memory, SentryConfig::default().every(16));
        let outcomes = pipeline(&lane, 64).await;
        // All of them came in one read, with the sentry's answer behind them: none had been handed out.
        assert_eq!(wrong(&outcomes), 0, "{trouble:?}");
        assert_eq!(*ear.0.lock(), [OutOfStep::Sentry], "{trouble:?}");
        for _ in 0..5 {
            memory.ran.lock().clear();
            let outcomes = pipeline(&lane, 64).await;
            assert_eq!(judge("afterwards", outcomes, &memory.ran.lock()), (64, 0), "{trouble:?}");
        }
        assert_eq!(memory.dialed.load(Ordering::Relaxed), 2, "{trouble:?}");
        assert_eq!(ear.0.lock().len(), 1, "{trouble:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_nobody_asked_for_is_told_apart() {
    let memory = Arc::new(Memory::default());
    memory.next(Trouble::OneTooMany);
    let (lane, ear) = lane(&memory, SentryConfig::default());
    let outcomes = pipeline(&lane, 8).await;
    assert_eq!(wrong(&outcomes), 0);
    until("the connection is given up", || !ear.0.lock().is_empty()).await;
    assert_eq!(*ear.0.lock(), [OutOfStep::Unasked]);
}

#[tokio::test(start_paused = true)]
async fn a_sentry_in_step_costs_a_ping_for_so_many_commands_and_one_after_silence() {
    let memory = Arc::new(Memory::default());
    let idle = Duration::from_secs(5);
    let (lane, ear) = lane(&memory, SentryConfig::default().every(100).idle(Some(idle)));
    assert!(lane.ready().await);
    for _ in 0..50 {
        memory.ran.lock().clear();
        let outcomes = pipeline(&lane, 10).await;
        assert_eq!(judge("in step", outcomes, &memory.ran.lock()), (10, 0));
    }
    until("five questions", || memory.pings.load(Ordering::Relaxed) == 5).await;
    // Every hundred were asked about: silence has nothing to add, until there is something new.
    tokio::time::sleep(3 * idle).await;
    assert_eq!(memory.pings.load(Ordering::Relaxed), 5);
    assert_eq!(pipeline(&lane, 1).await.len(), 1);
    tokio::time::sleep(10 * idle).await;
    assert_eq!(memory.pings.load(Ordering::Relaxed), 6);
    until("nothing is owed", || (lane.bytes(), lane.in_flight()) == (0, 0)).await;
    assert!(ear.0.lock().is_empty());
    assert_eq!(memory.dialed.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_cut_with_a_question_in_flight_leaves_nothing_behind() {
    let whole = "*2\r\n$5\r\nCOUNT\r\n$4\r\n0000\r\n".len() * 16;
    let question = "*2\r\n$4\r\nPING\r\n$25\r\nevenkeel:0123456789abcdef\r\n".len();
    for cut in whole - 40..=whole + question {
        let memory = Arc::new(Memory::default());
        memory.next(Trouble::CutReading(cut));
        let (lane, ear) = lane(&memory, SentryConfig::default().every(16));
        let outcomes = pipeline(&lane, 16).await;
        judge(&format!("cut at {cut}"), outcomes, &memory.ran.lock());
        memory.ran.lock().clear();
        let outcomes = pipeline(&lane, 20).await;
        let (answered, unknown) = judge(&format!("behind a cut at {cut}"), outcomes, &memory.ran.lock());
        assert_eq!(answered + unknown, 20, "{cut}");
        until("nothing is owed", || (lane.bytes(), lane.in_flight()) == (0, 0)).await;
        assert!(ear.0.lock().is_empty(), "a lost connection is no disorder");
    }
}
