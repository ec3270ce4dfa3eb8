use std::time::Duration;

use evenkeel_client::{Client, Command, ErrorKind, Executed};
use evenkeel_protocol::command::LaneRefusal;
use evenkeel_testkit::launcher::for_each_server;

use super::{eventually, single};

#[tokio::test]
async fn pipelines_give_each_reply_its_type() {
    for_each_server("client::pipelines_give_each_reply_its_type", |kind| async move {
        let (_server, client) = single(&kind).await;
        let (a, b): (i64, Option<String>) = client.pipeline().incr("a").get("b").await.unwrap();
        assert_eq!((a, b), (1, None));
        let (set, n, list, text) = client
            .pipeline()
            .set("b", "x")
            .ex(60)
            .incr("a")
            .push::<Vec<i64>>(Command::new("LRANGE").key("none").arg(0).arg(-1))
            .get::<String>("b")
            .await
            .unwrap();
        assert_eq!((set, n, list, text.as_str()), (true, 2, vec![], "x"));
        let error = client.pipeline().incr("a").incr("b").incr("a").await.unwrap_err();
        assert_eq!((error.position(), error.server_code()), (Some(1), Some("ERR")));
        let (first, second, third) = client.pipeline().incr("a").incr("b").incr("a").each().await.unwrap();
        assert_eq!((first.unwrap(), third.unwrap()), (5, 6), "the commands around the error ran");
        assert_eq!(second.unwrap_err().position(), Some(1));
        client.pipeline().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn batches_hold_any_number() {
    for_each_server("client::batches_hold_any_number", |kind| async move {
        let (_server, client) = single(&kind).await;
        let mut batch = client.batch();
        for _ in 0..1000 {
            batch.incr("n");
        }
        batch.lpush("n", "x");
        let replies = batch.await.unwrap();
        assert_eq!(replies.len(), 1001);
        for (at, reply) in replies.iter().take(1000).enumerate() {
            assert_eq!(reply.as_ref().unwrap().decode::<usize>().unwrap(), at + 1);
        }
        let error = replies.last().unwrap().as_ref().unwrap_err();
        assert_eq!((error.server_code(), error.position()), (Some("WRONGTYPE"), Some(1000)));
        assert!(client.batch().await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn transactions_run_whole_or_not_at_all() {
    for_each_server("client::transactions_run_whole", |kind| async move {
        let (_server, client) = single(&kind).await;
        let (n, set) = client.transaction().incr("n").set("state", "on").await.unwrap();
        assert_eq!((n, set), (1, true));
        let error = client.transaction().incr("n").push::<()>(Command::new("NOSUCH")).await.unwrap_err();
        assert_eq!((error.kind(), error.executed()), (ErrorKind::Server, Executed::No), "{error}");
        assert_eq!(error.position(), Some(1));
        assert_eq!(client.get::<i64>("n").await.unwrap(), 1);
        let error = client.transaction().incr("n").lpush("state", "x").await.unwrap_err();
        assert_eq!((error.position(), error.server_code()), (Some(1), Some("WRONGTYPE")));
        assert_eq!(client.get::<i64>("n").await.unwrap(), 2, "an error inside does not undo the others");
    })
    .await;
}

#[tokio::test]
async fn a_lease_watches_keys() {
    for_each_server("client::a_lease_watches_keys", |kind| async move {
        let (_server, client) = single(&kind).await;
        let mut lease = client.lease().await.unwrap();
        lease.watch("stock").await.unwrap();
        client.set("stock", 1).await.unwrap();
        let sold: Option<(bool,)> = lease.transaction().set("stock", 0).await.unwrap();
        assert!(sold.is_none(), "somebody else changed it");
        lease.watch("stock").await.unwrap();
        let stock: i64 = lease.get("stock").await.unwrap();
        let sold = lease.transaction().set("stock", stock - 1).await.unwrap();
        assert_eq!(sold, Some((true,)));
        assert_eq!(client.get::<i64>("stock").await.unwrap(), 0);
    })
    .await;
}

#[tokio::test]
async fn commands_that_wait_hold_nobody_up() {
    for_each_server("client::commands_that_wait_hold_nobody_up", |kind| async move {
        let (_server, client) = single(&kind).await;
        let waiter = client.clone();
        let job = tokio::spawn(async move {
            waiter.blpop::<Option<(String, String)>>("jobs", Duration::from_secs(10)).await
        });
        eventually("the server says that somebody waits", async || {
            let list: String = client.cmd("CLIENT").arg("LIST").query().await.unwrap();
            list.contains("cmd=blpop")
        })
        .await;
        assert_eq!(client.incr("n").await.unwrap(), 1);
        client.rpush("jobs", "one").await.unwrap();
        let job = job.await.unwrap().unwrap();
        assert_eq!(job, Some(("jobs".to_owned(), "one".to_owned())));
        let none: Option<(String, String)> = client.blpop("jobs", Duration::from_millis(20)).await.unwrap();
        assert_eq!(none, None);
    })
    .await;
}

#[tokio::test]
async fn what_a_shared_connection_must_not_carry_is_refused() {
    for_each_server("client::what_a_shared_connection_must_not_carry", |kind| async move {
        let (_server, client) = single(&kind).await;
        for refused in LaneRefusal::all() {
            let mut words = refused.command.split(' ');
            let mut command = client.cmd(&words.next().unwrap().to_lowercase());
            for word in words {
                command = command.arg(word);
            }
            let error = command.arg("x").query::<()>().await.unwrap_err();
            assert_eq!((error.kind(), error.executed()), (ErrorKind::Misused, Executed::No), "{error}");
            assert!(error.to_string().contains(refused.instead), "{error}");
        }
        client.ping().await.unwrap();
        let (_, copies) = client.pipeline().set("k", "v").wait(0, Duration::from_millis(10)).await.unwrap();
        assert_eq!(copies, 0);
    })
    .await;
}

#[tokio::test]
async fn a_call_has_its_own_time() {
    for_each_server("client::a_call_has_its_own_time", |kind| async move {
        let (server, client) = single(&kind).await;
        client.set("k", "v").await.unwrap();
        server.nodes().stop(server.addr()).unwrap();
        let error = client.get::<String>("k").timeout(Duration::from_millis(50)).await.unwrap_err();
        server.nodes().cont(server.addr()).unwrap();
        assert!(error.is_timeout(), "{error}");
        assert_eq!(error.executed(), Executed::Maybe);
        // The late reply is nobody else's.
        assert_eq!(client.incr("n").await.unwrap(), 1);
        assert_eq!(client.get::<String>("k").await.unwrap(), "v");
    })
    .await;
}

#[tokio::test]
async fn a_closed_client_says_so() {
    for_each_server("client::a_closed_client_says_so", |kind| async move {
        let (_server, client) = single(&kind).await;
        assert!(client.is_healthy().await);
        client.close(Duration::from_secs(1)).await;
        let error = client.incr("n").await.unwrap_err();
        assert_eq!((error.kind(), error.executed()), (ErrorKind::Closed, Executed::No));
    })
    .await;
}

#[tokio::test]
async fn a_database_and_a_name_are_every_connections() {
    for_each_server("client::a_database_and_a_name", |kind| async move {
        let (server, client) = single(&kind).await;
        let url = format!("redis://{}/3?client_name=app", server.addr());
        let other = Client::connect(url).await.unwrap();
        other.set("k", "third").await.unwrap();
        assert_eq!(client.get::<Option<String>>("k").await.unwrap(), None);
        assert_eq!(other.cmd("CLIENT").arg("GETNAME").query::<String>().await.unwrap(), "app");
        let mut lease = other.lease().await.unwrap();
        assert_eq!(lease.get::<String>("k").await.unwrap(), "third");
        assert_eq!(lease.cmd("CLIENT").arg("GETNAME").query::<String>().await.unwrap(), "app");
    })
    .await;
}
