//! Makes trouble, one kind after the other, each in a window of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel::Client;
use tokio::sync::Mutex;

use super::board::Board;
use super::clock;
use super::deployment::{Deployment, Outcome, Trouble};
use super::ledger::Ledger;

/// Between two windows.
const APART: Duration = Duration::from_secs(2);
/// A window opens this long before its trouble, so that what had ended before is not its business.
const LEAD: Duration = Duration::from_millis(300);
/// A publication that is older than this and not delivered is late.
const LATE: Duration = Duration::from_millis(200);
/// How long the clients may take to be themselves again once the servers are.
const SETTLE_LIMIT: Duration = Duration::from_secs(30);
const SETTLE_STEP: Duration = Duration::from_millis(20);

/// Makes trouble on one deployment; one at a time.
#[derive(Debug)]
pub(super) struct Troublemaker {
    pub(super) board: Arc<Board>,
    pub(super) client: Client,
    pub(super) deployment: Arc<Deployment>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) last: Mutex<Option<Instant>>,
}

impl Troublemaker {
    /// Makes one kind of trouble, two seconds after the last one at the earliest, and waits until all is well again.
    pub(super) async fn make(&self, trouble: Trouble) -> Outcome<()> {
        let mut last = self.last.lock().await;
        if let Some(last) = *last {
            tokio::time::sleep(APART.saturating_sub(clock::now().saturating_duration_since(last))).await;
        }
        self.deployment.prepare(trouble).await?;
        let planned = if trouble.is_planned() { "planned" } else { "unplanned" };
        self.board.log(format!("trouble, {planned}: {} begins", trouble.name()));
        let window = self.board.open(trouble.name(), trouble.is_planned());
        tokio::time::sleep(LEAD).await;
        let made = self.deployment.make(trouble).await;
        let settled = self.settle().await;
        self.board.close(window, made.is_ok());
        *last = Some(clock::now());
        let done = made.map_err(|error| format!("{} could not be made: {error}", trouble.name()))?;
        self.board.log(format!("trouble over: {done}"));
        settled.map_err(|error| format!("after {}: {error}", trouble.name()).into())
    }

    /// Waits until a command is answered and nothing published is late.
    async fn settle(&self) -> Result<(), String> {
        let settling = async {
            while self.client.cmd("PING").query::<String>().await.is_err() {
                tokio::time::sleep(SETTLE_STEP).await;
            }
            tokio::time::sleep(LATE).await;
            while !self.ledger.is_settled(LATE) {
                tokio::time::sleep(SETTLE_STEP).await;
            }
        };
        let limit = tokio::time::timeout(SETTLE_LIMIT, settling).await;
        limit.map_err(|_elapsed| format!("commands and publications did not recover within {SETTLE_LIMIT:?}"))
    }
}
