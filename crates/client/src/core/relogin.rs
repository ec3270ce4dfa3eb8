//! Logs living connections in again when the credentials have changed.

use std::sync::{Arc, Weak};

use evenkeel_pool::{CredentialsProvider, Lane, Outcome};
use tokio::task::JoinSet;

use super::Core;

/// Waits for credentials newer than `seen` until the client has gone.
pub(super) async fn follow(core: Weak<Core>, provider: Arc<dyn CredentialsProvider>, mut seen: u64) {
    let Some(gone) = core.upgrade().map(|core| core.gone()) else { return };
    tokio::pin!(gone);
    loop {
        tokio::select! {
            biased;
            () = &mut gone => return,
            () = provider.newer_than(seen) => {}
        }
        let (generation, credentials) = provider.current();
        seen = generation;
        let Some(core) = core.upgrade() else { return };
        let Some(credentials) = credentials else { continue };
        let patience = core.config().answer_timeout();
        let mut asked = JoinSet::new();
        for node in core.routes().all() {
            // State and transactions may stand on a lease: it ends as it is, and the next one logs in anew.
            node.leases().renew();
            for lane in node.lanes() {
                let (lane, login) = (lane.clone(), credentials.login());
                asked.spawn(async move {
                    let answer = lane.request(&login, patience).await;
                    report(&lane, &answer);
                });
            }
        }
        drop(core);
        while asked.join_next().await.is_some() {}
    }
}

/// A refusal leaves the connection logged in as it was, so it is told and nothing is closed.
fn report(lane: &Lane, answer: &Outcome) {
    if let Outcome::Reply(reply) = answer
        && let Some(error) = reply.error()
    {
        let (endpoint, code) = (lane.endpoint(), error.code().to_owned());
        tracing::warn!(target: "evenkeel::config", %endpoint, code, "the new credentials are refused");
    }
}
