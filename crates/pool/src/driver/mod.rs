//! Sockets, timers and tasks: they do what the machines decide. The only place of this crate that spawns.

pub(crate) mod clock;
pub mod connect;
pub mod credentials;
pub mod dial;
mod gate;
pub mod lane;
pub mod lease;
pub mod link;
pub mod proxy;
#[cfg(feature = "tls")]
pub mod tls;
mod wire;

use tokio::task::JoinHandle;

/// Starts a task whose end is bound to a handle that the caller keeps.
pub(crate) fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    tokio::spawn(future)
}
