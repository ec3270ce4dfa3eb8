//! How connections come about and log in, where that is more than a setting: a connector, and credentials that change.

use std::{fmt, sync::Arc};

use evenkeel_pool::{Connector, CredentialsProvider};

use super::{Config, ConfigBuilder};

/// What the program has brought along. Compared by identity, and shown by name only.
#[derive(Clone, Default)]
pub(crate) struct Transport {
    connector: Option<Arc<dyn Connector>>,
    credentials: Option<Arc<dyn CredentialsProvider>>,
}

impl PartialEq for Transport {
    fn eq(&self, other: &Self) -> bool {
        let connector = match (&self.connector, &other.connector) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        let credentials = match (&self.credentials, &other.credentials) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (a, b) => a.is_none() && b.is_none(),
        };
        connector && credentials
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport")
            .field("connector", &self.connector.is_some())
            .field("credentials", &self.credentials.is_some())
            .finish()
    }
}

impl ConfigBuilder {
    /// Opens every connection, to data nodes and sentinels, in its own way: through [`Socks5`](crate::transport::Socks5)
    /// or [`HttpConnect`](crate::transport::HttpConnect), with a resolver of yours in [`Direct`](crate::transport::Direct),
    /// or by whatever else you implement. TLS is spoken over what it opens. Default: TCP and Unix sockets, directly.
    pub fn connector(mut self, connector: impl Connector + 'static) -> Self {
        self.config.transport.connector = Some(Arc::new(connector));
        self
    }

    /// Logs in to data nodes with what the provider says, in place of the username and password that are set otherwise.
    /// When it says something else, shared connections are logged in again at once, in order with their commands; leases
    /// are not used again; subscriptions keep the login with which they connected until they reconnect. Default: none.
    ///
    /// ```no_run
    /// use evenkeel_client::{Client, Config, transport::{Login, LiveCredentials}};
    /// # async fn run() -> Result<(), evenkeel_client::Error> {
    /// let live = LiveCredentials::new(Login::user("app", "first token"));
    /// let config = Config::builder().url("rediss://redis.example").credentials_provider(live.clone()).build()?;
    /// let client = Client::connect(config).await?;
    /// // Ahead of the first one's end:
    /// live.set(Login::user("app", "second token"));
    /// # Ok(()) }
    /// ```
    pub fn credentials_provider(mut self, provider: impl CredentialsProvider + 'static) -> Self {
        self.config.transport.credentials = Some(Arc::new(provider));
        self
    }
}

impl Config {
    pub(crate) fn connector(&self) -> Option<Arc<dyn Connector>> {
        self.transport.connector.clone()
    }

    pub(crate) fn credentials_provider(&self) -> Option<Arc<dyn CredentialsProvider>> {
        self.transport.credentials.clone()
    }
}
