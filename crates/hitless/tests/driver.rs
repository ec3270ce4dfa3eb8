//! The driver: inputs to actions over time, hooks that are slow, panic or hold back, and an end that leaves nothing.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use evenkeel_hitless::{
    Action, Config, ConnId, Event, Hooks, Input, Maintenance, MetricsHook, MoveError, NotificationContext,
    NotificationHook, Origin, Outcome, Protocol, TellError,
};
use evenkeel_protocol::{Endpoint, Notice};
use tokio::{
    sync::mpsc as async_mpsc,
    time::{Instant, timeout},
};

const SOON: Duration = Duration::from_secs(60);

#[expect(clippy::disallowed_methods, reason = "tests measure with the runtime's clock")]
fn now() -> Instant {
    Instant::now()
}

fn origin(conn: u64) -> Origin {
    Origin::new(ConnId(conn), Endpoint::new("cache.test", 6379), Some("10.0.0.1:6379".parse().unwrap()))
}

fn successor(conn: u64) -> Origin {
    Origin {
        dialled: Endpoint::new("10.0.0.2", 6379),
        peer: Some("10.0.0.2:6379".parse().unwrap()),
        ..origin(conn)
    }
}

fn moving(seq: u64, grace: u64) -> Notice {
    Notice::Moving {
        seq: Some(seq),
        grace: Some(Duration::from_secs(grace)),
        target: Some(Endpoint::new("10.0.0.2", 6379)),
    }
}

fn migrating(seq: u64) -> Notice {
    Notice::Migrating { seq: Some(seq), within: None, shards: vec![seq.to_string()] }
}

fn announce(maintenance: &Maintenance, notice: Notice) {
    let (origin, during_handshake, received_at) = (origin(1), false, None);
    maintenance.tell(Input::Notice { origin, during_handshake, received_at, notice }).unwrap();
}

/// An engine with one connection, and its actions.
fn start(hooks: Hooks) -> (Maintenance, async_mpsc::Receiver<Action>) {
    let (tx, actions) = async_mpsc::channel(10_000);
    let settings = Config::new().build(Protocol::Resp3).unwrap();
    let sizes = settings.sizes(17, 0);
    let apply = move |action| tx.try_send(action).unwrap();
    let maintenance = Maintenance::start(settings, sizes, 1, hooks, apply);
    maintenance.tell(Input::Opened { origin: origin(1) }).unwrap();
    (maintenance, actions)
}

/// The next action that fits, within a minute.
async fn next<T>(actions: &mut async_mpsc::Receiver<Action>, fits: impl Fn(&Action) -> Option<T>) -> T {
    timeout(SOON, async {
        loop {
            if let Some(found) = fits(&actions.recv().await.expect("the engine runs")) {
                return found;
            }
        }
    })
    .await
    .expect("the action comes")
}

fn is_move(action: &Action) -> Option<ConnId> {
    if let Action::Move(one) = action { Some(one.conn) } else { None }
}

fn outcome_of(action: &Action) -> Option<Outcome> {
    if let Action::Report(Event::Noticed { outcome, .. }) = action { Some(*outcome) } else { None }
}

#[tokio::test(start_paused = true)]
async fn the_timer_moves_the_engine_and_metrics_follow() {
    let (maintenance, mut actions) = start(Hooks::new());
    let begun = now();
    announce(&maintenance, moving(1, 2));
    assert_eq!(next(&mut actions, is_move).await, ConnId(1));
    assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
    maintenance.tell(Input::MoveFailed { conn: ConnId(1), cause: MoveError::NotReady }).unwrap();
    assert_eq!(next(&mut actions, is_move).await, ConnId(1));
    maintenance.tell(Input::Switched { conn: ConnId(1), successor: successor(2) }).unwrap();
    let is_restore = |action: &Action| matches!(action, Action::Restore { .. }).then_some(());
    next(&mut actions, is_restore).await;
    next(&mut actions, is_restore).await;
    assert!(begun.elapsed() >= Duration::from_secs(20));
    let metrics = maintenance.metrics();
    assert_eq!((metrics.handoffs, metrics.moved, metrics.attempts), (1, 1, 2));
    assert!(maintenance.close(Duration::from_secs(1)).await);
}

#[tokio::test(start_paused = true)]
async fn the_end_closes_what_is_open_and_nothing_runs_on() {
    let (maintenance, mut actions) = start(Hooks::new());
    announce(&maintenance, migrating(1));
    next(&mut actions, |action| matches!(action, Action::Relax { .. }).then_some(())).await;
    assert!(maintenance.close(Duration::from_secs(1)).await);
    let mut left = Vec::new();
    while let Some(action) = actions.recv().await {
        left.push(action);
    }
    // The channel has ended, so the task is gone; the window was closed first.
    assert!(left.iter().any(|action| matches!(action, Action::Restore { .. })), "{left:?}");
    assert_eq!(maintenance.tell(Input::Opened { origin: origin(9) }), Err(TellError::Ended));
    assert!(maintenance.close(Duration::from_secs(1)).await, "closing twice is nothing");
}

#[tokio::test]
async fn dropping_the_last_handle_ends_the_task_and_the_hook_thread() {
    /// Says when the last reference to it is gone.
    struct Gone(mpsc::Sender<()>);
    impl NotificationHook for Gone {
        fn pre(&self, _ctx: &NotificationContext, notice: Notice) -> Option<Notice> {
            Some(notice)
        }
    }
    impl Drop for Gone {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
        }
    }
    let (tx, gone) = mpsc::channel();
    let hooks = Hooks::new();
    hooks.add(Arc::new(Gone(tx)));
    let (maintenance, mut actions) = start(hooks);
    announce(&maintenance, migrating(1));
    assert_eq!(next(&mut actions, outcome_of).await, Outcome::Relaxed);
    drop(maintenance.clone());
    assert!(gone.try_recv().is_err());
    drop(maintenance);
    timeout(SOON, async { while actions.recv().await.is_some() {} }).await.expect("the task ends");
    gone.recv_timeout(SOON).expect("the thread has let go of the hook");
}

#[tokio::test]
async fn hooks_see_change_and_hold_back_announcements() {
    struct Editor;
    impl NotificationHook for Editor {
        fn pre(&self, ctx: &NotificationContext, notice: Notice) -> Option<Notice> {
            assert_eq!(ctx.conn, ConnId(1));
            match notice {
                Notice::Migrating { .. } => None,
                Notice::FailingOver { .. } => Some(migrating(99)),
                other => Some(other),
            }
        }
    }
    let (maintenance, mut actions) = start(Hooks::new());
    // Added live.
    maintenance.add_hook(Arc::new(Editor));
    announce(&maintenance, migrating(1));
    assert_eq!(next(&mut actions, outcome_of).await, Outcome::HeldBack);
    announce(&maintenance, Notice::FailingOver { seq: Some(2), within: None, shards: vec![] });
    let name = next(&mut actions, |action| match action {
        Action::Report(Event::Noticed { name, .. }) => Some(*name),
        _ => None,
    });
    assert_eq!(name.await, "MIGRATING");
    assert_eq!(maintenance.hook_metrics().held_back, 1);
    assert!(maintenance.close(SOON).await);
}

#[tokio::test]
async fn a_slow_hook_costs_fifty_milliseconds_and_a_panicking_one_nothing() {
    struct Slow(Arc<AtomicBool>);
    impl NotificationHook for Slow {
        fn pre(&self, _ctx: &NotificationContext, _notice: Notice) -> Option<Notice> {
            while !self.0.load(Ordering::Relaxed) {
                std::thread::park_timeout(Duration::from_millis(1));
            }
            panic!("after all")
        }
    }
    let release = Arc::new(AtomicBool::new(false));
    let hooks = Hooks::new();
    hooks.add(Arc::new(Slow(Arc::clone(&release))));
    let (maintenance, mut actions) = start(hooks);
    let begun = now();
    for seq in 0..20 {
        announce(&maintenance, migrating(seq));
    }
    for _ in 0..20 {
        assert_eq!(next(&mut actions, outcome_of).await, Outcome::Relaxed);
    }
    // Together, not one after the other: twenty times 50 ms would be a second.
    let took = begun.elapsed();
    assert!((Duration::from_millis(50)..Duration::from_millis(900)).contains(&took), "{took:?}");
    assert_eq!(maintenance.hook_metrics().timeouts, 20);
    release.store(true, Ordering::Relaxed);
    timeout(SOON, async {
        while maintenance.hook_metrics().panics < 20 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("each panic is counted");
    // The thread has survived them.
    announce(&maintenance, migrating(100));
    assert_eq!(next(&mut actions, outcome_of).await, Outcome::Relaxed);
    assert!(maintenance.close(SOON).await);
}

#[tokio::test]
async fn announcements_keep_their_order_through_the_hooks() {
    struct Uneven(AtomicUsize);
    impl NotificationHook for Uneven {
        fn pre(&self, _ctx: &NotificationContext, notice: Notice) -> Option<Notice> {
            if self.0.fetch_add(1, Ordering::Relaxed).is_multiple_of(7) {
                std::thread::park_timeout(Duration::from_millis(3));
            }
            Some(notice)
        }
    }
    let hooks = Hooks::new();
    hooks.add(Arc::new(Uneven(AtomicUsize::new(0))));
    let (maintenance, mut actions) = start(hooks);
    for seq in 0..100 {
        announce(&maintenance, migrating(seq));
    }
    for expected in 0..100 {
        let seq = next(&mut actions, |action| match action {
            Action::Report(Event::Noticed { seq, .. }) => Some(*seq),
            _ => None,
        });
        assert_eq!(seq.await, Some(expected));
    }
    assert!(maintenance.close(SOON).await);
}

#[tokio::test]
async fn the_metrics_hook_counts_announcements_times_and_errors() {
    let hook = Arc::new(MetricsHook::new());
    let hooks = Hooks::new();
    hooks.add(Arc::clone(&hook) as Arc<dyn NotificationHook>);
    let (maintenance, mut actions) = start(hooks);
    announce(&maintenance, migrating(1));
    assert_eq!(next(&mut actions, outcome_of).await, Outcome::Relaxed);
    // A handoff is dealt with when it is over; this one fails in a way that no retry helps.
    announce(&maintenance, moving(2, 1));
    next(&mut actions, is_move).await;
    assert!(!hook.metrics().processing_times.contains_key("MOVING"));
    maintenance.tell(Input::MoveFailed { conn: ConnId(1), cause: MoveError::Unsupported }).unwrap();
    next(&mut actions, |action| {
        matches!(action, Action::Report(Event::HandoffFinished { .. })).then_some(())
    })
    .await;
    timeout(SOON, async {
        while hook.metrics().error_counts.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the hook is told the end");
    let metrics = hook.metrics();
    assert_eq!(
        metrics.notification_counts.into_iter().collect::<Vec<_>>(),
        [("MIGRATING", 1), ("MOVING", 1)]
    );
    assert_eq!(metrics.processing_times["MOVING"].count(), 1);
    assert_eq!(metrics.error_counts.into_iter().collect::<Vec<_>>(), [("MOVING", 1)]);
    assert!(maintenance.close(SOON).await);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_is_said_and_never_waited_for() {
    let settings = Config::new().build(Protocol::Resp3).unwrap();
    let sizes = settings.sizes(1, 0);
    let maintenance = Maintenance::start(settings, sizes, 1, Hooks::new(), |_action| {});
    // The task has not run yet: nothing is taken from the queue.
    let mut taken = 0;
    let full = loop {
        match maintenance.tell(Input::Closed { conn: ConnId(1) }) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
    };
    assert_eq!((full, taken), (TellError::Overloaded, 4096));
    tokio::task::yield_now().await;
    maintenance.tell(Input::Closed { conn: ConnId(1) }).unwrap();
    assert!(maintenance.close(Duration::from_secs(1)).await);
}
