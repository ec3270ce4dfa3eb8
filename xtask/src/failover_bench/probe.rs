//! The prober: a raw connection to each node that writes every 3 ms, to see when the servers themselves take writes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use evenkeel_testkit::launcher::{Control, LaunchError};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// Between two writes to a node, and between two tries to connect.
const STEP: Duration = Duration::from_millis(3);

/// Returns microseconds since 1970: the one clock that processes share.
#[expect(clippy::disallowed_methods, reason = "takes the time of servers and of other processes")]
pub(crate) fn micros() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| u64::try_from(now.as_micros()).unwrap_or(u64::MAX))
}

/// A write that a node took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) at: u64,
    pub(crate) by: SocketAddr,
}

/// Probes until it is dropped.
pub(crate) struct Prober {
    taken: Arc<Mutex<Vec<Taken>>>,
    _tasks: JoinSet<()>,
}

impl Prober {
    pub(crate) fn start(nodes: &[SocketAddr], key: &str) -> Self {
        let taken = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        for node in nodes {
            tasks.spawn(probe(*node, key.to_owned(), Arc::clone(&taken)));
        }
        Self { taken, _tasks: tasks }
    }

    pub(crate) async fn taken(&self) -> Vec<Taken> {
        let mut taken = self.taken.lock().await.clone();
        taken.sort_by_key(|taken| taken.at);
        taken
    }

    /// Waits for a write that another node than `old` took after `since`.
    pub(crate) async fn elsewhere(&self, old: SocketAddr, since: u64) {
        while !self.taken.lock().await.iter().any(|taken| taken.by != old && taken.at > since) {
            tokio::time::sleep(STEP).await;
        }
    }
}

async fn probe(node: SocketAddr, key: String, taken: Arc<Mutex<Vec<Taken>>>) {
    loop {
        tokio::time::sleep(STEP).await;
        let Ok(mut control) = Control::connect(node, None).await else { continue };
        loop {
            match control.command(&["SET", &key, "1"]).await {
                Ok(_) => taken.lock().await.push(Taken { at: micros(), by: node }),
                Err(LaunchError::Refused { answer, .. }) => {
                    if let Some(target) = asked(&answer)
                        && let Ok(mut target_control) = Control::connect(target, None).await
                        && target_control.command(&["ASKING"]).await.is_ok()
                        && target_control.command(&["SET", &key, "1"]).await.is_ok()
                    {
                        taken.lock().await.push(Taken { at: micros(), by: target });
                    }
                }
                Err(_) => break,
            }
            tokio::time::sleep(STEP).await;
        }
    }
}

fn asked(refusal: &str) -> Option<SocketAddr> {
    refusal.trim_start_matches('-').strip_prefix("ASK ")?.split(' ').nth(1)?.parse().ok()
}
