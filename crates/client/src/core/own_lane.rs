//! `OwnLane`: what a single server is asked about itself goes over the client's own connection, so that nobody needs a
//! second one. Only where that server sends us elsewhere, the other one is asked on a connection made for it.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use evenkeel_protocol::{Command, Endpoint, Reply};
use evenkeel_topology::{
    AskFailure,
    driver::{Ask, EventSink, NodeRole},
};

use super::{
    asker::{self, Asker},
    node::Node,
};

/// Asks the client's only node over its first lane, and others as [`Asker`] does.
pub(super) struct OwnLane {
    /// Not kept alive: the client ends its node when it goes.
    node: Weak<Node>,
    /// Whom the node's lanes are meant to lead to, whatever address a handoff gave them meanwhile.
    place: Arc<ArcSwapOption<Endpoint>>,
    others: Asker,
}

impl fmt::Debug for OwnLane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnLane").finish_non_exhaustive()
    }
}

impl OwnLane {
    pub(super) fn new(node: Weak<Node>, place: Arc<ArcSwapOption<Endpoint>>, others: Asker) -> Self {
        Self { node, place, others }
    }
}

impl Ask for OwnLane {
    async fn ask(
        &self,
        endpoint: Endpoint,
        role: NodeRole,
        commands: Vec<Command>,
        deadline: Duration,
    ) -> Result<Vec<Reply>, AskFailure> {
        let is_ours = self.place.load().as_ref().is_some_and(|place| **place == endpoint);
        let node = self.node.upgrade().filter(|_| is_ours);
        match node.and_then(|node| node.lanes().first().cloned()) {
            Some(lane) => asker::over(&lane, &commands, deadline).await,
            None => self.others.ask(endpoint, role, commands, deadline).await,
        }
    }

    async fn watch(&self, sentinel: Endpoint, events: EventSink) -> AskFailure {
        self.others.watch(sentinel, events).await
    }
}
