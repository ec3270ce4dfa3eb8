//! `Shared`: what handles, listeners and sessions have in common, and the tasks that end with the server.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    task::{JoinHandle, JoinSet},
};

use super::engine::Engine;

/// Tasks of one server.
#[derive(Debug, Default)]
struct Tasks {
    /// No task may begin.
    ended: bool,
    running: JoinSet<()>,
    /// One accept loop an address, the front door's last.
    listeners: Vec<Option<JoinHandle<()>>>,
}

pub(super) struct Shared {
    pub(super) engine: Mutex<Engine>,
    tasks: Mutex<Tasks>,
    runtime: Handle,
    pub(super) front: Option<SocketAddr>,
    front_target: AtomicUsize,
}

impl Shared {
    pub(super) fn new(engine: Engine, front: Option<SocketAddr>) -> Self {
        Self {
            engine: Mutex::new(engine),
            tasks: Mutex::default(),
            runtime: Handle::current(),
            front,
            front_target: AtomicUsize::new(0),
        }
    }

    pub(super) fn front_target(&self) -> usize {
        self.front_target.load(Ordering::Relaxed)
    }

    pub(super) fn set_front_target(&self, address: usize) {
        self.front_target.store(address, Ordering::Relaxed);
    }

    /// Starts a task that ends with the server. False when the server has ended.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> bool {
        let mut tasks = self.tasks.lock();
        if tasks.ended {
            return false;
        }
        while tasks.running.try_join_next().is_some() {}
        tasks.running.spawn_on(task, &self.runtime);
        true
    }

    /// Starts the accept loop of an address; the one before it has ended.
    pub(super) fn spawn_listener(
        &self,
        index: usize,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> bool {
        let mut tasks = self.tasks.lock();
        if tasks.ended {
            return false;
        }
        let task = self.runtime.spawn(task);
        if tasks.listeners.len() <= index {
            tasks.listeners.resize_with(index + 1, || None);
        }
        if let Some(place) = tasks.listeners.get_mut(index)
            && let Some(old) = place.replace(task)
        {
            old.abort();
        }
        true
    }

    /// The accept loop of an address, to be awaited after its abort.
    pub(super) fn stop_listener(&self, index: usize) -> Option<JoinHandle<()>> {
        let task = self.tasks.lock().listeners.get_mut(index)?.take()?;
        task.abort();
        Some(task)
    }

    /// Ends every task; gives those that still have to be awaited.
    pub(super) fn end(&self) -> (JoinSet<()>, Vec<JoinHandle<()>>) {
        let mut tasks = self.tasks.lock();
        tasks.ended = true;
        tasks.running.abort_all();
        let listeners: Vec<_> = tasks.listeners.drain(..).flatten().collect();
        listeners.iter().for_each(JoinHandle::abort);
        (std::mem::take(&mut tasks.running), listeners)
    }
}
