//! A gateway inside an axum application, with tokens and a broker of the application's own.
//!
//! ```sh
//! cargo run -p evenkeel-gateway --example axum
//! curl -X POST http://127.0.0.1:8000/say/news --data hello
//! ```

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::{get, post};
use evenkeel_gateway::broker::{BoxFuture, BrokerHealth, History, HistoryQuery};
use evenkeel_gateway::{
    Access, Authenticator, Broker, BrokerError, Channel, ChannelOptions, Deliveries, Error, Gateway,
    GatewayConfig, GatewayHandle, MemoryBroker, MountedGateway, Permission, Published, Rejected,
};
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Tokens of the application: `user:<name>`. A real one would look into its table of sessions.
#[derive(Debug)]
struct Users;

impl Authenticator for Users {
    fn verify(&self, token: &str, _now: u64) -> Result<Permission, Rejected> {
        token.strip_prefix("user:").map(Permission::user).ok_or(Rejected::Invalid)
    }
}

/// Counts what is published, and leaves the rest to the broker of one process.
#[derive(Debug, Default)]
struct Counting {
    broker: Arc<MemoryBroker>,
    published: AtomicUsize,
}

impl Broker for Counting {
    fn run(self: Arc<Self>, deliveries: Deliveries) -> BoxFuture<'static, ()> {
        self.broker.clone().run(deliveries)
    }

    fn want(&self, channel: &Channel, options: &Arc<ChannelOptions>) {
        self.broker.want(channel, options);
    }

    fn unwant(&self, channel: &Channel) {
        self.broker.unwant(channel);
    }

    fn ready<'a>(&'a self, channel: &'a Channel) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.broker.ready(channel)
    }

    fn publish<'a>(
        &'a self,
        channel: &'a Channel,
        data: axum::body::Bytes,
        options: &'a Arc<ChannelOptions>,
    ) -> BoxFuture<'a, Result<Published, BrokerError>> {
        self.published.fetch_add(1, Ordering::Relaxed);
        self.broker.publish(channel, data, options)
    }

    fn history<'a>(
        &'a self,
        channel: &'a Channel,
        options: &'a Arc<ChannelOptions>,
        query: HistoryQuery,
    ) -> BoxFuture<'a, Result<History, BrokerError>> {
        self.broker.history(channel, options, query)
    }

    fn health(&self) -> BrokerHealth {
        self.broker.health()
    }
}

/// The application: its own paths, and the gateway's below `/live`.
pub(crate) async fn app(config: GatewayConfig) -> Result<(Router, MountedGateway), Error> {
    let broker = Arc::new(Counting::default());
    let gateway = Gateway::builder()
        .config(config)
        .authenticator(Arc::new(Users))
        .broker(broker.clone())
        .mount()
        .await?;
    let router = Router::new()
        .route("/say/{channel}", post(say).with_state(gateway.handle()))
        .route("/said", get(said).with_state(broker))
        .nest_service("/live", gateway.service());
    Ok((router, gateway))
}

async fn say(State(gateway): State<GatewayHandle>, Path(channel): Path<String>, words: String) -> String {
    match gateway.publish(&channel, words).await {
        Ok(_) => "said".to_owned(),
        Err(error) => error.to_string(),
    }
}

async fn said(State(broker): State<Arc<Counting>>) -> String {
    broker.published.load(Ordering::Relaxed).to_string()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut config = GatewayConfig::default();
    config.channels.subscribe = Access::Users;
    let (router, gateway) = app(config).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:8000").await?;
    writeln!(std::io::stdout(), "ws://{}/live/connection/websocket", listener.local_addr()?)?;
    axum::serve(listener, router).await?;
    gateway.stop().await;
    Ok(())
}
