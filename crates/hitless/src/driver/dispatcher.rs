//! `Dispatcher`: the thread that runs hooks, so that none of them is in a connection's way.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering},
    thread,
};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use evenkeel_protocol::Notice;

use crate::{
    Hooks, NotificationContext, Outcome,
    hooks::{Counts, List, Shared},
};

/// Announcements that wait for a slow hook; those beyond pass without hooks and are counted.
const QUEUE: usize = 1024;

/// What the hooks said about one announcement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    GoOn(Notice),
    HoldBack,
}

/// Work for the thread.
pub(super) enum Job {
    Post { ctx: NotificationContext, notice: Notice, outcome: Outcome },
    Pre { ctx: NotificationContext, notice: Notice, reply: Box<dyn FnOnce(Verdict) + Send> },
}

/// The engine's end of the thread.
pub(super) struct Dispatcher {
    jobs: Sender<Job>,
    shared: Arc<Shared>,
}

impl Dispatcher {
    /// Starts the thread; it ends when the dispatcher is dropped and what was queued is done.
    pub(super) fn start(hooks: &Hooks, at_end: impl FnOnce() + Send + 'static) -> std::io::Result<Self> {
        let (jobs, queue) = bounded(QUEUE);
        let shared = Arc::clone(&hooks.shared);
        thread::Builder::new().name("evenkeel-hooks".to_owned()).spawn(move || {
            run(&queue, &shared);
            at_end();
        })?;
        Ok(Self { jobs, shared: Arc::clone(&hooks.shared) })
    }

    /// Queues work; `false` when it cannot be done.
    pub(super) fn submit(&self, job: Job) -> bool {
        match self.jobs.try_send(job) {
            Ok(()) => true,
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.shared.counts.skipped.fetch_add(1, Ordering::Relaxed);
                false
            }
        }
    }
}

fn run(queue: &Receiver<Job>, shared: &Shared) {
    for job in queue {
        let list = Arc::clone(&shared.list.lock());
        match job {
            Job::Pre { ctx, notice, reply } => {
                let verdict = pre(&list, &ctx, notice, &shared.counts);
                reply(verdict);
            }
            Job::Post { ctx, notice, outcome } => {
                for hook in &*list {
                    guarded(&shared.counts, || hook.post(&ctx, &notice, &outcome));
                }
            }
        }
    }
}

fn pre(list: &List, ctx: &NotificationContext, notice: Notice, counts: &Counts) -> Verdict {
    let mut notice = notice;
    for hook in &**list {
        let given = notice.clone();
        match guarded(counts, || hook.pre(ctx, given)) {
            Some(Some(changed)) => notice = changed,
            Some(None) => return Verdict::HoldBack,
            None => {}
        }
    }
    Verdict::GoOn(notice)
}

/// Runs a hook; `None` when it panicked. The hook keeps its own state in order, so nothing of ours can be torn.
fn guarded<T>(counts: &Counts, hook: impl FnOnce() -> T) -> Option<T> {
    let result = catch_unwind(AssertUnwindSafe(hook));
    if result.is_err() {
        counts.panics.fetch_add(1, Ordering::Relaxed);
    }
    result.ok()
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use evenkeel_protocol::Endpoint;

    use super::*;
    use crate::{ConnId, NotificationHook};

    struct Panics;
    impl NotificationHook for Panics {
        fn pre(&self, _ctx: &NotificationContext, _notice: Notice) -> Option<Notice> {
            panic!("a hook's own fault")
        }
        fn post(&self, _ctx: &NotificationContext, _notice: &Notice, _outcome: &Outcome) {
            panic!("again")
        }
    }

    /// Adds to the sequence id.
    struct Adds(u64);
    impl NotificationHook for Adds {
        fn pre(&self, _ctx: &NotificationContext, notice: Notice) -> Option<Notice> {
            let Notice::Migrated { seq: Some(seq), shards } = notice else { return None };
            Some(Notice::Migrated { seq: Some(seq * 10 + self.0), shards })
        }
    }

    fn context() -> NotificationContext {
        #[expect(clippy::disallowed_methods, reason = "any moment will do")]
        let received_at = std::time::Instant::now();
        NotificationContext {
            conn: ConnId(1),
            endpoint: Endpoint::new("h", 1),
            peer: None,
            during_handshake: false,
            received_at,
            elapsed: Duration::ZERO,
        }
    }

    fn asked(hooks: &Hooks, notice: Notice) -> Verdict {
        let (end_tx, end) = mpsc::channel();
        let dispatcher = Dispatcher::start(hooks, move || end_tx.send(()).unwrap()).unwrap();
        let (tx, rx) = mpsc::channel();
        let reply = Box::new(move |verdict| tx.send(verdict).unwrap());
        assert!(dispatcher.submit(Job::Pre { ctx: context(), notice, reply }));
        let verdict = rx.recv_timeout(Duration::from_secs(10)).unwrap();
        let notice = Notice::Migrated { seq: None, shards: vec![] };
        dispatcher.submit(Job::Post { ctx: context(), notice, outcome: Outcome::Unmatched });
        drop(dispatcher);
        end.recv_timeout(Duration::from_secs(10)).unwrap();
        verdict
    }

    #[test]
    fn hooks_run_in_order_and_a_panic_voids_only_its_own_say() {
        let hooks = Hooks::new();
        hooks.add(Arc::new(Adds(2)));
        hooks.add(Arc::new(Panics));
        hooks.add(Arc::new(Adds(3)));
        let verdict = asked(&hooks, Notice::Migrated { seq: Some(1), shards: vec![] });
        assert_eq!(verdict, Verdict::GoOn(Notice::Migrated { seq: Some(123), shards: vec![] }));
        assert_eq!(hooks.metrics().panics, 2);
    }

    #[test]
    fn a_hook_holds_back() {
        let hooks = Hooks::new();
        hooks.add(Arc::new(Adds(1)));
        hooks.add(Arc::new(Panics));
        let verdict = asked(&hooks, Notice::FailedOver { seq: None, shards: vec![] });
        assert_eq!(verdict, Verdict::HoldBack);
    }
}
