//! A server that is away for a moment: what needs a connection of its own waits for it as other commands do.

use std::{sync::Arc, time::Duration};

use evenkeel_client::{Client, ConnectionState, EndpointHealth, ErrorKind, Executed};
use evenkeel_testkit::{
    launcher::{Single, SingleOptions, for_each_server},
    proxy::Proxy,
    server::EmbeddedServer,
};

const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_and_blocking_commands_wait_for_a_server_that_comes_back() {
    let server = EmbeddedServer::start().await.unwrap();
    let proxy = Proxy::start(server.addr()).await.unwrap();
    let client = Client::connect(format!("redis://{}", proxy.addr())).await.unwrap();
    proxy.handle().refuse().await.unwrap();
    proxy.handle().reset_all();
    let blocked = {
        let client = client.clone();
        tokio::spawn(async move { client.blpop::<Option<(String, u64)>>(["queue"], PATIENCE).await })
    };
    let leased = {
        let client = client.clone();
        tokio::spawn(async move {
            let mut lease = client.lease().await?;
            lease.cmd("PING").query::<String>().await
        })
    };
    // The lane knows that its connection is gone.
    let met = async {
        let is_ready = |endpoint: &EndpointHealth| endpoint.state == ConnectionState::Ready;
        while client.health().endpoints.iter().any(is_ready) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, met).await.unwrap();
    assert!(!blocked.is_finished() && !leased.is_finished());
    proxy.handle().accept().await.unwrap();
    client.rpush("queue", 7).await.unwrap();
    assert_eq!(blocked.await.unwrap().unwrap(), Some(("queue".to_owned(), 7)));
    assert_eq!(leased.await.unwrap().unwrap(), "PONG");
}

#[tokio::test]
async fn a_lease_of_a_server_that_stays_away_ends_in_time_and_says_why() {
    let server = EmbeddedServer::start().await.unwrap();
    let proxy = Proxy::start(server.addr()).await.unwrap();
    let client = Client::connect(format!("redis://{}?lease_timeout=200ms", proxy.addr())).await.unwrap();
    proxy.handle().refuse().await.unwrap();
    proxy.handle().reset_all();
    let error = tokio::time::timeout(PATIENCE, client.lease()).await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.executed()), (ErrorKind::Connect, Executed::No), "{error}");
}

#[tokio::test]
async fn a_lease_whose_connection_has_gone_says_so_and_not_that_the_client_is_closed() {
    let server = EmbeddedServer::start().await.unwrap();
    let proxy = Proxy::start(server.addr()).await.unwrap();
    let client = Client::connect(format!("redis://{}", proxy.addr())).await.unwrap();
    let mut lease = client.lease().await.unwrap();
    proxy.handle().reset_all();
    // The first one may be on its way when the connection goes; the next finds it gone.
    let first = lease.cmd("PING").query::<String>().await.unwrap_err();
    let next = lease.cmd("PING").query::<String>().await.unwrap_err();
    assert_eq!((first.kind(), next.kind()), (ErrorKind::Lost, ErrorKind::Lost), "{first}; {next}");
    assert_eq!(next.executed(), Executed::No, "{next}");
}

/// A server that reads its data set again, for as long as `keys` keys of a kilobyte take, and says `LOADING` meanwhile.
async fn load_again(server: &Arc<Single>) -> tokio::task::JoinHandle<()> {
    let reloading = {
        let server = Arc::clone(server);
        tokio::spawn(async move {
            let done = server.command(&["DEBUG", "RELOAD"]).await.unwrap();
            assert_eq!(done.text(), Some("OK"));
        })
    };
    let loads = async {
        loop {
            let info = server.command(&["INFO", "persistence"]).await.unwrap();
            if info.text().unwrap().contains("\r\nloading:1\r\n") {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, loads).await.unwrap();
    reloading
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_a_connection_of_its_own_waits_while_the_server_loads() {
    for_each_server("client::away::loading", |kind| async move {
        // Each key takes 5 ms, and clients are answered behind each few of them.
        let options = SingleOptions::default()
            .config("key-load-delay 5000")
            .config("loading-process-events-interval-bytes 1024")
            .config("rdbcompression no");
        let server = Arc::new(Single::start_with(&kind, options).await.unwrap());
        let client = Client::connect(format!("redis://{}", server.addr())).await.unwrap();
        let filler = "x".repeat(1024);
        for key in 0..100 {
            client.set(format!("filler:{key}"), &filler).await.unwrap();
        }
        let mut lease = client.lease().await.unwrap();
        let mut watching = client.lease().await.unwrap();
        let mut queueing = client.lease().await.unwrap();
        watching.watch(["count"]).await.unwrap();
        queueing.cmd("MULTI").query::<String>().await.unwrap();
        let refusals = || async {
            let info = server.command(&["INFO", "errorstats"]).await.unwrap();
            info.text()
                .unwrap()
                .lines()
                .find_map(|line| line.strip_prefix("errorstat_LOADING:count=")?.trim().parse::<u64>().ok())
                .unwrap_or(0)
        };
        for round in 1..=3u64 {
            let reloading = load_again(&server).await;
            let before = refusals().await;
            match round {
                1 => {
                    assert_eq!(lease.cmd("INCR").arg("count").query::<u64>().await.unwrap(), 1);
                    let (raised, size): (i64, i64) =
                        lease.pipeline().incr("count").strlen("filler:1").await.unwrap();
                    assert_eq!((raised, size), (2, 1024));
                }
                2 => {
                    let (raised,): (i64,) = lease.transaction().incr("count").await.unwrap().unwrap();
                    assert_eq!(raised, 3);
                }
                _ => {
                    let feeding = client.rpush("queue", [1, 2, 3]);
                    let blocked = client.blpop::<Option<(String, u64)>>(["queue"], PATIENCE);
                    let (fed, popped) = tokio::join!(feeding, blocked);
                    assert_eq!((fed.unwrap(), popped.unwrap()), (3, Some(("queue".to_owned(), 1))));
                }
            }
            assert!(refusals().await > before, "the server was loading: {kind:?}");
            reloading.await.unwrap();
        }
        // Behind a refusal nothing of a transaction may go again by itself: it would run unwatched, or without the rest.
        let reloading = load_again(&server).await;
        let unwatched = watching.transaction().incr("count").await.unwrap_err();
        let doomed = queueing.cmd("INCR").arg("count").query::<String>().await.unwrap_err();
        reloading.await.unwrap();
        for error in [unwatched, doomed] {
            assert_eq!((error.server_code(), error.executed()), (Some("LOADING"), Executed::No), "{error}");
        }
        assert_eq!(client.get::<u64>("count").await.unwrap(), 3);
        // In a pipeline that blocks as well.
        let reloading = load_again(&server).await;
        let before = refusals().await;
        let (raised, popped): (i64, Option<(String, u64)>) =
            client.pipeline().incr("count").blpop(["queue"], PATIENCE).await.unwrap();
        assert_eq!((raised, popped), (4, Some(("queue".to_owned(), 2))));
        assert!(refusals().await > before);
        reloading.await.unwrap();
    })
    .await;
}
