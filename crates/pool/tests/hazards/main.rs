//! Lanes against servers in memory that are cut, delayed and stuffed: nobody gets another's reply, and nobody is told wrongly.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests report by panicking, in their own functions too"
)]

mod sentry;
mod server;

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use evenkeel_pool::{
    Deaf, DialConfig, DialError, Failure, Lane, LaneConfig, LaneId, Outcome, Phase, driver::dial,
};
use evenkeel_protocol::{
    Command, Endpoint,
    conn::{Credentials, HandshakeConfig, Step},
};
use server::{Memory, Trouble};

const PATIENCE: Duration = Duration::from_secs(30);

fn endpoint() -> Endpoint {
    Endpoint::new("memory", 1)
}

fn lane(memory: &Arc<Memory>, config: LaneConfig) -> Lane {
    let dial = DialConfig::default().connector(Arc::<Memory>::clone(memory));
    Lane::start(LaneId(1), endpoint(), config.dial(dial), Arc::new(Deaf))
}

/// A pipeline of commands that each count themselves, with what each caller was told.
async fn pipeline(lane: &Lane, commands: usize) -> Vec<Outcome> {
    let asked: Vec<_> = (0..commands)
        .map(|number| {
            let lane = lane.clone();
            tokio::spawn(async move {
                lane.request(&Command::new("COUNT").arg(format!("{number:04}")), PATIENCE).await
            })
        })
        .collect();
    let mut outcomes = Vec::new();
    for one in asked {
        outcomes.push(one.await.unwrap());
    }
    outcomes
}

/// Compares what each caller was told with what the server did.
fn judge(name: &str, outcomes: Vec<Outcome>, ran: &BTreeMap<String, usize>) -> (usize, usize) {
    let (mut answered, mut unknown) = (0, 0);
    for (number, outcome) in outcomes.into_iter().enumerate() {
        let own = format!("{number:04}");
        let times = ran.get(&own).copied().unwrap_or(0);
        match outcome {
            Outcome::Reply(reply) => {
                assert_eq!(reply.decode::<String>().unwrap(), own, "{name}: another's reply");
                assert_eq!(times, 1, "{name}: {own} is answered and ran {times} times");
                answered += 1;
            }
            Outcome::Failed(Failure::Lost | Failure::TimedOutSent) => {
                assert!(times <= 1, "{name}: {own} ran {times} times");
                unknown += 1;
            }
            Outcome::Failed(Failure::Closed | Failure::TimedOutUnsent | Failure::Full) => {
                assert_eq!(times, 0, "{name}: {own} ran and is said not to have");
            }
            other => panic!("{name}: {own} ended as {other:?}"),
        }
    }
    (answered, unknown)
}

#[tokio::test(start_paused = true)]
async fn a_cut_after_every_byte_of_a_pipeline_tells_each_command_its_fate() {
    const COMMANDS: usize = 64;
    let whole = "*2\r\n$5\r\nCOUNT\r\n$4\r\n0000\r\n".len() * COMMANDS;
    let replies = "$4\r\n0000\r\n".len() * COMMANDS;
    let (mut answered, mut unknown) = (0, 0);
    let cuts = (0..=whole).map(Trouble::CutReading).chain((0..=replies).map(Trouble::CutWriting));
    for trouble in cuts {
        let memory = Arc::new(Memory::default());
        memory.next(trouble);
        let lane = lane(&memory, LaneConfig::default());
        assert!(lane.ready().await);
        let outcomes = pipeline(&lane, COMMANDS).await;
        let (ok, lost) = judge(&format!("{trouble:?}"), outcomes, &memory.ran.lock());
        answered += ok;
        unknown += lost;
    }
    assert!(answered > 64 * 500 && unknown > 64 * 500, "{answered} answered, {unknown} unknown");
}

#[tokio::test(start_paused = true)]
async fn a_handshake_whose_reply_is_late_is_thrown_away_whichever_reply_it_is() {
    let handshake = HandshakeConfig::default()
        .credentials(Some(Credentials::password("secret")))
        .client_name(Some("app".into()))
        .database(2)
        .library("evenkeel", "0");
    let memory = Arc::new(Memory::default());
    let config = DialConfig::default().handshake(handshake).connector(Arc::<Memory>::clone(&memory));
    let whole = dial::dial(&endpoint(), &config).await.unwrap();
    drop(whole);
    let steps = memory.handshake_replies.load(Ordering::Relaxed);
    assert!(steps >= 3, "the handshake has {steps} replies");
    let mut named = BTreeMap::new();
    for late in 0..steps {
        for _ in 0..1000 {
            memory.next(Trouble::Late(late));
            let error = dial::dial(&endpoint(), &config).await.expect_err("a late reply fails the dial");
            let DialError::TimedOut { phase: Phase::Handshake(Some(step)), .. } = error else {
                panic!("reply {late}: {error:?}");
            };
            *named.entry(format!("{step:?}")).or_insert(0) += 1;
        }
        // The next connection is another one, and in step.
        let lane = {
            let dial = config.clone();
            Lane::start(LaneId(2), endpoint(), LaneConfig::default().dial(dial), Arc::new(Deaf))
        };
        memory.ran.lock().clear();
        let outcomes = pipeline(&lane, 16).await;
        assert_eq!(judge("after a late reply", outcomes, &memory.ran.lock()), (16, 0));
    }
    let discarded = named.values().sum::<i32>();
    println!(
        "{steps} replies of the handshake, each late 1000 times: {discarded} connections thrown away, 0 wrong replies"
    );
    assert_eq!(discarded, 1000 * i32::try_from(steps).unwrap());
    assert_eq!(named.get(&format!("{:?}", Step::Hello)), Some(&1000), "{named:?}");
}

#[tokio::test]
async fn pushes_at_every_boundary_shift_nobody_and_a_reply_too_many_ends_the_connection() {
    for trouble in [Trouble::PushBefore, Trouble::PushBehind] {
        let memory = Arc::new(Memory::default());
        memory.next(trouble);
        let lane = lane(&memory, LaneConfig::default());
        for round in 0..20 {
            memory.ran.lock().clear();
            let outcomes = pipeline(&lane, 50).await;
            assert_eq!(judge("pushes", outcomes, &memory.ran.lock()), (50, 0), "{trouble:?} {round}");
        }
        assert_eq!(memory.dialed.load(Ordering::Relaxed), 1, "{trouble:?}");
    }
    let memory = Arc::new(Memory::default());
    memory.next(Trouble::OneTooMany);
    let lane = lane(&memory, LaneConfig::default());
    for _ in 0..20 {
        memory.ran.lock().clear();
        let outcomes = pipeline(&lane, 8).await;
        judge("a reply too many", outcomes, &memory.ran.lock());
    }
    assert_eq!(memory.dialed.load(Ordering::Relaxed), 2);
}
