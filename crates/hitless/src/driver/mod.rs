//! The driver: one task per client that runs the engine, its timer and the hooks.
//!
//! It decides nothing. What the engine wants done goes to the client's [`Apply`], what happens comes back through
//! [`Maintenance::tell`].

mod clock;
mod dispatcher;
mod run;

use std::{fmt, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::timeout,
};

use self::run::Run;
use crate::{Action, HandoffEngine, HookMetrics, Hooks, Input, Metrics, NotificationHook, Settings, Sizes};

/// Observations that wait for the engine. It needs microseconds for each, so a full queue means a stopped runtime.
const INPUTS: usize = 4096;

/// Does what the engine wants.
pub trait Apply: Send + Sync + 'static {
    /// Starts one thing and returns at once; what comes of it is told by [`Maintenance::tell`].
    fn apply(&self, action: Action);
}

impl<F: Fn(Action) + Send + Sync + 'static> Apply for F {
    fn apply(&self, action: Action) {
        self(action);
    }
}

/// The engine of one client while it runs; clones share it, and it ends with the last of them.
#[derive(Clone)]
pub struct Maintenance {
    inputs: mpsc::Sender<Input>,
    hooks: Hooks,
    metrics: watch::Receiver<Metrics>,
    task: Arc<Mutex<Option<JoinHandle<()>>>>,
}

impl Maintenance {
    /// Starts the engine on the current runtime; `seed` decides every jitter.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(settings: Settings, sizes: Sizes, seed: u64, hooks: Hooks, apply: impl Apply) -> Self {
        let (inputs, queue) = mpsc::channel(INPUTS);
        let (published, metrics) = watch::channel(Metrics::default());
        let engine = HandoffEngine::new(settings, sizes, seed);
        let run = Run::new(engine, hooks.clone(), published, apply);
        let task = tokio::spawn(run.run(queue));
        Self { inputs, hooks, metrics, task: Arc::new(Mutex::new(Some(task))) }
    }

    /// Tells the engine what happened, without waiting.
    ///
    /// # Errors
    /// The engine has ended, or does not keep up.
    pub fn tell(&self, input: Input) -> Result<(), TellError> {
        self.inputs.try_send(input).map_err(|error| match error {
            mpsc::error::TrySendError::Closed(_) => TellError::Ended,
            mpsc::error::TrySendError::Full(_) => TellError::Overloaded,
        })
    }

    /// Adds a hook behind those that are there; it sees what is announced from now on.
    pub fn add_hook(&self, hook: Arc<dyn NotificationHook>) {
        self.hooks.add(hook);
    }

    /// What the engine has counted.
    pub fn metrics(&self) -> Metrics {
        self.metrics.borrow().clone()
    }

    /// What became of the hooks' work.
    pub fn hook_metrics(&self) -> HookMetrics {
        self.hooks.metrics()
    }

    /// Ends the engine: windows and handoffs are closed, its task and the thread of the hooks end.
    ///
    /// `false` when that took longer than `deadline`; the task is stopped then, and a hook that never returns keeps
    /// its thread.
    ///
    /// # Cancel safety
    /// Once polled the engine ends, whether or not the future is polled to its end.
    pub async fn close(&self, deadline: Duration) -> bool {
        let Some(mut task) = self.task.lock().take() else { return true };
        // Full of other things or ended: the task is stopped below.
        let told = self.inputs.try_send(Input::Shutdown).is_ok();
        if told && let Ok(ended) = timeout(deadline, &mut task).await {
            return ended.is_ok();
        }
        task.abort();
        false
    }
}

impl fmt::Debug for Maintenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Maintenance").field("hooks", &self.hooks).finish_non_exhaustive()
    }
}

/// Why an observation did not reach the engine.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TellError {
    /// The engine has ended.
    #[error("the handoff engine has ended")]
    Ended,
    /// The engine does not keep up.
    #[error("the handoff engine does not keep up")]
    Overloaded,
}
