//! Gateways for tests, on ports of the system's choice.

use evenkeel_gateway::{
    Access, Broker, ChannelOptions, Gateway, GatewayConfig, MemoryBroker, Namespace, PusherConfig,
};
use std::sync::Arc;
use std::time::Duration;

/// How long any one step of a test may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Plain channels open to all, `kept:*` with history and recovery, `closed:*` to nobody, the API key `hush`.
pub(crate) fn config() -> GatewayConfig {
    let mut config = GatewayConfig::default();
    config.listen = "127.0.0.1:0".parse().unwrap();
    config.channels.subscribe = Access::Anyone;
    config.channels.publish = Access::Anyone;
    let mut kept = config.channels.clone();
    kept.history = Access::Anyone;
    kept.history_size = 100;
    kept.recovery = true;
    config.namespaces =
        vec![Namespace::new("kept", kept), Namespace::new("closed", ChannelOptions::default())];
    config.session.drain = Duration::from_millis(100);
    config.session.close_timeout = Duration::from_millis(200);
    config.api.key = Some("hush".to_owned());
    config.pusher = Some(PusherConfig {
        app_id: "3".to_owned(),
        key: "app-key".to_owned(),
        secret: "app-secret".to_owned(),
        client_events: true,
    });
    config
}

pub(crate) async fn gateway() -> Gateway {
    with(config()).await
}

pub(crate) async fn with(config: GatewayConfig) -> Gateway {
    over(config, Arc::new(MemoryBroker::new())).await
}

pub(crate) async fn over(config: GatewayConfig, broker: Arc<dyn Broker>) -> Gateway {
    Gateway::builder().config(config).broker(broker).shards(2).start().await.unwrap()
}

/// Waits until `holds` does.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let waited = tokio::time::timeout(DEADLINE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "never came: {what}");
}
