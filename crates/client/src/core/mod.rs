//! What the surface asks of the machinery behind it: send, lease, subscribe, close.
#![allow(clippy::unused_self, reason = "the signatures stand before the machinery does")]

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use evenkeel_protocol::{Command, Reply};

use crate::{
    config::{Config, ReadPolicy},
    error::{Error, Executed},
    events::Events,
    health::Health,
    pubsub::PubSub,
};

/// What a caller may say about one call.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CallOptions {
    /// The call's time in all; the configuration's command timeout when `None`.
    pub(crate) timeout: Option<Duration>,
    /// Where the read goes; as configured when `None`.
    pub(crate) read_policy: Option<ReadPolicy>,
}

/// The replies of a pipeline in order, or why there are none.
pub(crate) type PendingAll = Pin<Box<dyn Future<Output = Result<Vec<Result<Reply, Error>>, Error>> + Send>>;

/// The reply to a command on a connection of one's own.
pub(crate) type PendingLeased = Pin<Box<dyn Future<Output = Result<Reply, Error>> + Send>>;

/// The reply to `EXEC` itself; null when a watched key had changed.
pub(crate) type PendingExec = Pin<Box<dyn Future<Output = Result<Reply, Error>> + Send>>;

/// One client's machinery.
#[derive(Debug)]
pub(crate) struct Core {
    config: Config,
    events: Events,
    pubsub: Arc<PubSub>,
}

impl Core {
    pub(crate) async fn connect(config: Config) -> Result<Arc<Self>, Error> {
        std::future::ready(()).await;
        let pubsub = Arc::new(PubSub::new(config.subscriber_bytes(), config.subscriber_messages()));
        Ok(Arc::new(Self { config, events: Events::default(), pubsub }))
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn events(&self) -> &Events {
        &self.events
    }

    pub(crate) fn pubsub(&self) -> &Arc<PubSub> {
        &self.pubsub
    }

    pub(crate) fn send(self: &Arc<Self>, command: Command, options: CallOptions) -> Pending {
        Pending { command: Some(command), options }
    }

    pub(crate) fn send_all(self: &Arc<Self>, commands: Vec<Command>, _options: CallOptions) -> PendingAll {
        Box::pin(
            async move { Ok(commands.iter().map(|_command| Err(Error::closed(Executed::No))).collect()) },
        )
    }

    pub(crate) fn transaction(
        self: &Arc<Self>,
        _commands: Vec<Command>,
        _options: CallOptions,
    ) -> PendingExec {
        Box::pin(async { Err(Error::closed(Executed::No)) })
    }

    pub(crate) async fn lease(self: &Arc<Self>) -> Result<Lease, Error> {
        std::future::ready(Err(Error::closed(Executed::No))).await
    }

    pub(crate) fn health(&self) -> Health {
        Health::default()
    }

    pub(crate) async fn is_healthy(&self) -> bool {
        std::future::ready(false).await
    }

    pub(crate) async fn close(&self, _deadline: Duration) {
        std::future::ready(()).await;
    }
}

/// One command on its way. Nothing is sent before the first poll.
#[derive(Debug)]
pub(crate) struct Pending {
    command: Option<Command>,
    options: CallOptions,
}

impl Future for Pending {
    type Output = Result<Reply, Error>;

    fn poll(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Self::Output> {
        let _sent = (self.command.take(), self.options);
        Poll::Ready(Err(Error::closed(Executed::No)))
    }
}

/// A connection of one's own.
#[derive(Debug)]
pub(crate) struct Lease {
    core: Arc<Core>,
}

impl Lease {
    pub(crate) fn send(&self, command: Command, options: CallOptions) -> PendingLeased {
        Box::pin(self.core.send(command, options))
    }

    pub(crate) fn send_all(&self, commands: Vec<Command>, options: CallOptions) -> PendingAll {
        self.core.send_all(commands, options)
    }

    pub(crate) fn transaction(&self, commands: Vec<Command>, options: CallOptions) -> PendingExec {
        self.core.transaction(commands, options)
    }
}
