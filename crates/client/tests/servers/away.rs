//! A server that is away for a moment: what needs a connection of its own waits for it as other commands do.

use std::time::Duration;

use evenkeel_client::{Client, ConnectionState, EndpointHealth, ErrorKind, Executed};
use evenkeel_testkit::{proxy::Proxy, server::EmbeddedServer};

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
