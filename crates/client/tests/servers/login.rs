//! Credentials that change while the client lives, and connections through a connector of the user's.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use evenkeel_client::{
    Client, Config,
    transport::{Connecting, Connector, Direct, LiveCredentials, Login},
};
use evenkeel_testkit::launcher::{Single, SingleOptions, for_each_server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn living_connections_log_in_again_and_new_ones_with_the_new_password() {
    for_each_server("client::login::rotation", |kind| async move {
        let server = Single::start_with(&kind, SingleOptions::default().password("old")).await.unwrap();
        let live = LiveCredentials::new(Login::password("old"));
        let url = format!("redis://{}", server.addr());
        let config = Config::builder().url(&url).credentials_provider(live.clone()).build().unwrap();
        let client = Client::connect(config).await.unwrap();
        client.set("k", 1).await.unwrap();
        let id: i64 = client.cmd("CLIENT").arg("ID").query().await.unwrap();
        // A user who logs in and is not allowed what the old one was: the connection's own user tells who it is.
        client
            .cmd("ACL")
            .arg("SETUSER")
            .args(("next", "on", ">token", "~*", "+@all"))
            .query::<()>()
            .await
            .unwrap();
        live.set(Login::user("next", "token"));
        let logged_in = async {
            loop {
                let who: String = client.cmd("ACL").arg("WHOAMI").query().await.unwrap();
                if who == "next" {
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), logged_in).await.expect("the connection logs in again");
        // It is the same connection.
        assert_eq!(client.cmd("CLIENT").arg("ID").query::<i64>().await.unwrap(), id);
        // Leases and reconnections log in with the new ones too.
        let popped: Option<(String, String)> =
            client.cmd("BLPOP").arg("none").arg("0.01").query().await.unwrap();
        assert_eq!(popped, None);
        client.cmd("ACL").arg("SETUSER").args(("default", "off")).query::<()>().await.unwrap();
        drop(client.cmd("CLIENT").args(("KILL", "ID", id)).query::<()>().await);
        assert_eq!(client.get::<i64>("k").await.unwrap(), 1);
        // A refused login changes nothing for the connection that stands.
        live.set(Login::user("next", "wrong"));
        assert_eq!(client.get::<i64>("k").await.unwrap(), 1);
    })
    .await;
}

#[derive(Debug)]
struct Counting(Arc<AtomicUsize>);

impl Connector for Counting {
    fn connect(&self, endpoint: &evenkeel_client::Endpoint) -> Connecting {
        self.0.fetch_add(1, Ordering::Relaxed);
        Direct::default().connect(endpoint)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_connection_goes_through_the_connector() {
    for_each_server("client::login::connector", |kind| async move {
        let server = Single::start_with(&kind, SingleOptions::default()).await.unwrap();
        let dials = Arc::new(AtomicUsize::new(0));
        let config = Config::builder()
            .url(&format!("redis://{}", server.addr()))
            .connector(Counting(Arc::clone(&dials)))
            .build()
            .unwrap();
        let client = Client::connect(config).await.unwrap();
        assert_eq!(dials.load(Ordering::Relaxed), 1);
        client.cmd("BLPOP").arg("none").arg("0.01").query::<Option<(String, String)>>().await.unwrap();
        assert_eq!(dials.load(Ordering::Relaxed), 2);
    })
    .await;
}
