//! The gateway, with one open channel.

use evenkeel_gateway::{Access, Gateway, GatewayConfig};

pub(crate) fn run(shards: usize) {
    let runtime = if shards == 1 {
        tokio::runtime::Builder::new_current_thread().enable_all().build()
    } else {
        tokio::runtime::Builder::new_multi_thread().worker_threads(shards).enable_all().build()
    };
    runtime.expect("a runtime").block_on(async {
        let mut config = GatewayConfig::default();
        config.listen = "127.0.0.1:0".parse().expect("an address");
        config.channels.subscribe = Access::Anyone;
        config.channels.publish = Access::Anyone;
        let gateway = Gateway::builder().config(config).shards(shards).start().await.expect("a gateway");
        println!("{}", gateway.local_addr());
        std::future::pending::<()>().await;
    });
}
