//! Addresses that are not what they were given for: they work, or say precisely what stands there.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use evenkeel_client::{
    Client, Executed,
    topology::{Mode, Role},
    transport::{Direct, Resolver, Resolving},
};
use evenkeel_testkit::launcher::{Cluster, Feature, SentinelTrio, Single, for_each_server};
use parking_lot::Mutex;

use crate::load::now;

/// A port on which nobody listens.
const NOBODY: &str = "127.0.0.1:1";

/// Waits for a condition, at most 10 s.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begin: Instant = now();
    while !is_so().await {
        assert!(now().duration_since(begin) < Duration::from_secs(10), "{what}: not within 10 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What connecting says went wrong.
async fn refusal(url: &str) -> String {
    Client::connect(url.to_owned()).await.unwrap_err().to_string()
}

/// A sentinel's address where another is wanted, and seeds half of which are dead.
pub(crate) async fn of_a_trio(trio: &SentinelTrio) {
    let (sentinel, primary, name) = (trio.sentinels()[0], trio.primary().await.unwrap(), trio.name());
    let said = refusal(&format!("redis://{sentinel}")).await;
    assert!(said.starts_with(&format!("{sentinel} is a sentinel, expected a single server")), "{said}");
    let said = refusal(&format!("redis+cluster://{sentinel}")).await;
    assert!(said.starts_with(&format!("{sentinel} is a sentinel, expected a cluster node")), "{said}");
    let said = refusal(&format!("redis+sentinel://{primary}/{name}")).await;
    assert!(said.starts_with(&format!("{primary} is a data node, expected a sentinel")), "{said}");
    let said = refusal(&format!("redis+cluster://{primary}")).await;
    assert!(said.starts_with(&format!("{primary} is a data node, expected a cluster node")), "{said}");
    // One that takes connections and never says a word is as good as none.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = silent.local_addr().unwrap();
    let url = format!("redis+sentinel://{NOBODY},{silent},{sentinel}/{name}");
    let client = Client::connect(url).await.unwrap();
    assert_eq!(client.incr("half-of-the-seeds").await.unwrap(), 1);
    client.cmd("DEL").arg("half-of-the-seeds").query::<i64>().await.unwrap();
}

/// As [`of_a_trio`].
pub(crate) async fn of_a_cluster(cluster: &Cluster) {
    let node = cluster.addresses()[0];
    let (own, foreign) = {
        let view = cluster.owner(0).await.unwrap();
        let serves = |key: &String| view.serves(evenkeel_client::Slot::of(key.as_bytes()).number());
        let keys = || (0..).map(|n: u32| format!("key:{n}"));
        (keys().find(serves).unwrap(), keys().find(|key| !serves(key)).unwrap())
    };
    let owner = cluster.owner(0).await.unwrap().addr;
    // What the node serves works; the rest says where it would be, and which address follows there.
    let client = Client::connect(format!("redis://{owner}")).await.unwrap();
    client.set(&own, "1").await.unwrap();
    let error = client.set(&foreign, "1").await.unwrap_err();
    assert_eq!((error.server_code(), error.executed()), (Some("MOVED"), Executed::No), "{error}");
    assert!(error.to_string().contains("redis+cluster://"), "{error}");
    let client = Client::connect(format!("redis+cluster://{NOBODY},{node}")).await.unwrap();
    client.cmd("DEL").arg(&own).query::<i64>().await.unwrap();
}

pub(crate) async fn follow(kind_of: &Single, primary: &Single) {
    let port = primary.addr().port().to_string();
    kind_of.command(&["REPLICAOF", "127.0.0.1", &port]).await.unwrap();
    until("the replica follows", async || {
        let info = kind_of.command(&["INFO", "replication"]).await.unwrap();
        info.text().unwrap_or_default().contains("master_link_status:up")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_given_as_a_single_server() {
    for_each_server("client::seeds::replica", |kind| async move {
        let (primary, replica) = (Single::start(&kind).await.unwrap(), Single::start(&kind).await.unwrap());
        follow(&replica, &primary).await;
        let client = Client::connect(format!("redis://{}", replica.addr())).await.unwrap();
        let mut changes = client.topology_changes();
        let write = client.set("k", "v").timeout(Duration::from_secs(5)).await;
        if kind.has(Feature::ClientCapa) {
            // It says where its primary is, and that one takes the write.
            write.unwrap();
            assert_eq!(client.topology().primary_of(None).unwrap().port(), primary.addr().port());
            let update = changes.recv().await.unwrap();
            assert!(update.topology.generation() > 1, "{update:?}");
            // The roles change places, and no write is lost.
            let load = crate::load::Load::start(&client, "failover", 4);
            tokio::time::sleep(Duration::from_millis(100)).await;
            primary.command(&["FAILOVER"]).await.unwrap();
            until("the client follows", async || {
                client.topology().primary_of(None).unwrap().port() == replica.addr().port()
            })
            .await;
            let outcome = load.finish(&client).await;
            let bad = (outcome.failed, outcome.unknown, outcome.lost, outcome.doubled, outcome.disordered);
            assert_eq!(bad, (0, 0, 0, 0, 0), "{outcome:?}");
        } else {
            let error = write.unwrap_err();
            assert_eq!((error.server_code(), error.executed()), (Some("READONLY"), Executed::No), "{error}");
            assert!(error.to_string().contains(&replica.addr().to_string()), "{error}");
            assert_eq!(client.get::<Option<String>>("k").await.unwrap(), None);
            until("its role is known", async || client.topology().nodes()[0].role == Role::Replica).await;
        }
        assert_eq!(client.topology().mode(), Mode::Single);
        assert!(client.topology().to_string().contains(&format!("127.0.0.1:{}", replica.addr().port())));
    })
    .await;
}

/// Knows one name, which leads wherever it is told.
#[derive(Clone, Debug)]
struct OneName(Arc<Mutex<SocketAddr>>);

impl Resolver for OneName {
    fn resolve(&self, host: &str, _port: u16) -> Resolving {
        let found = (host == "db.test").then(|| *self.0.lock());
        Box::pin(
            async move { found.map(|addr| vec![addr]).ok_or_else(|| std::io::ErrorKind::NotFound.into()) },
        )
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_leads_elsewhere_is_followed_at_the_next_dial() {
    for_each_server("client::seeds::name", |kind| async move {
        let (one, other) = (Single::start(&kind).await.unwrap(), Single::start(&kind).await.unwrap());
        let name = OneName(Arc::new(Mutex::new(one.addr())));
        let connector = Direct::default().resolver(Arc::new(name.clone()));
        let builder = Client::builder().single("db.test:6379").connector(connector);
        let client = builder.connect().await.unwrap();
        client.set("place", "one").await.unwrap();
        other.command(&["SET", "place", "other"]).await.unwrap();
        *name.0.lock() = other.addr();
        // The connection stands, so nobody asks for the name.
        assert_eq!(client.get::<String>("place").await.unwrap(), "one");
        one.nodes().kill(one.addr()).await.unwrap();
        assert_eq!(client.get::<String>("place").await.unwrap(), "other");
    })
    .await;
}
