//! What a driver needs of connections.

use std::time::Duration;

use bytes::Bytes;
use evenkeel_protocol::{Command, Endpoint, Reply};
use tokio::sync::mpsc;

use crate::{error::AskFailure, machine::Input};

/// Whether a node keeps data or watches those that do: it decides credentials and TLS.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NodeRole {
    /// A data node.
    Data,
    /// A sentinel.
    Sentinel,
}

/// Asks nodes and watches sentinels.
///
/// One connection is best kept for each endpoint between questions: while a promotion is imminent a node is asked every 5 ms. It
/// should be made for nothing else, so that a busy lane does not delay the answer, and made again at once after a reset: a
/// promoted replica resets its clients.
pub trait Ask: Send + Sync + 'static {
    /// Sends the commands in one go and gives their replies in order, server errors included.
    ///
    /// The driver ends the wait at the deadline by dropping the future; an answer that comes later must not become the answer to
    /// the next question.
    fn ask(
        &self,
        endpoint: Endpoint,
        role: NodeRole,
        commands: Vec<Command>,
        deadline: Duration,
    ) -> impl Future<Output = Result<Vec<Reply>, AskFailure>> + Send;

    /// Subscribes to all channels of a sentinel (`PSUBSCRIBE *`) and hands over what is published, until the link ends.
    ///
    /// A link that says nothing is to be probed: a sentinel may be gone without a word. The future is dropped when the link is no
    /// longer wanted.
    fn watch(&self, sentinel: Endpoint, events: EventSink) -> impl Future<Output = AskFailure> + Send;
}

/// Takes what a sentinel publishes.
#[derive(Clone, Debug)]
pub struct EventSink {
    pub(super) sentinel: Endpoint,
    pub(super) inputs: mpsc::Sender<Input>,
}

impl EventSink {
    /// Tells that the subscription is confirmed: from here on nothing is missed.
    ///
    /// # Cancel safety
    /// A cancelled call may not have told.
    pub async fn up(&self) {
        self.tell(Input::EventLinkUp { sentinel: self.sentinel.clone() }).await;
    }

    /// Hands over a message; waits while the resolver has many to read.
    ///
    /// # Cancel safety
    /// A cancelled call may not have handed it over.
    pub async fn message(&self, channel: Bytes, payload: Bytes) {
        self.tell(Input::SentinelEvent { sentinel: self.sentinel.clone(), channel, payload }).await;
    }

    async fn tell(&self, input: Input) {
        // A resolver that has ended wants to know nothing; its watches are about to be dropped.
        if self.inputs.send(input).await.is_err() {
            tracing::trace!(sentinel = %self.sentinel, "event for a resolver that has ended");
        }
    }
}
