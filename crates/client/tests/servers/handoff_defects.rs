//! Defects that other clients fixed or still have, where they concern sockets and replies; `docs/handoffs.md` has them all.

use std::time::Duration;

use evenkeel_client::{Client, Delivery};
use evenkeel_protocol::maintenance::SlotRanges;
use evenkeel_testkit::server::{Audience, EmbeddedServer, Move};

use crate::load::Load;

const PATIENCE: Duration = Duration::from_secs(5);

/// Announcements and other pushes, well formed and not, to be thrown between replies.
const PUSHES: [&str; 6] = [
    ">4\r\n+MIGRATING\r\n:1\r\n:1\r\n*1\r\n+1\r\n",
    ">3\r\n+MIGRATED\r\n:2\r\n*1\r\n+1\r\n",
    ">1\r\n+X\r\n",
    ">2\r\n%1\r\n+a\r\n:1\r\n~1\r\n_\r\n",
    ">4\r\n+MOVING\r\n+abc\r\n+xyz\r\n:5\r\n",
    ">0\r\n",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn defect_11_pushes_between_the_replies_of_pipelines_and_transactions_shift_nothing() {
    let server = EmbeddedServer::start().await.unwrap();
    let client = Client::connect(server.url()).await.unwrap();
    let noise = {
        let server = server.handle();
        tokio::spawn(async move {
            loop {
                for push in PUSHES {
                    server.send_raw(push.as_bytes(), Audience::All);
                    tokio::task::yield_now().await;
                }
            }
        })
    };
    for round in 0..500i64 {
        client.set("k", round).await.unwrap();
        let read: (i64, i64, i64) = client.pipeline().get("k").incrby("k", 1).get("k").await.unwrap();
        assert_eq!(read, (round, round + 1, round + 1));
        let counted = client.transaction().incrby("k", 1).incrby("k", 1).await.unwrap();
        assert_eq!(counted, (round + 2, round + 3));
    }
    noise.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn defect_12_and_13_short_and_endless_pushes_on_an_idle_connection_block_nobody() {
    let server = EmbeddedServer::start().await.unwrap();
    let client = Client::connect(server.url()).await.unwrap();
    let long = format!(">2\r\n${}\r\n{}\r\n:1\r\n", 100_000, "M".repeat(100_000));
    for push in [">1\r\n+X\r\n", long.as_str(), ">0\r\n"] {
        server.send_raw(push.as_bytes(), Audience::All);
        assert_eq!(client.incr("n").timeout(PATIENCE).await.unwrap(), 1);
        client.del(["n"]).await.unwrap();
    }
    assert_eq!(server.counters(0).accepted, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn defect_07_switched_off_means_that_nothing_is_asked_and_nothing_moves() {
    let server = EmbeddedServer::builder().addresses(2).start().await.unwrap();
    let client = Client::connect(format!("{}?maint_mode=disabled", server.url())).await.unwrap();
    assert!(server.connections().iter().all(|conn| conn.maintenance.is_none()));
    let plan = Move::new(0, 1, Duration::from_millis(300));
    let report = server.move_endpoint(plan).await.unwrap().finished().await.unwrap();
    assert_eq!((report.announced.connections, report.closed), (0, 1));
    // An unannounced close may cut what is written before it is seen.
    let back = async {
        while server.counters(1).open == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, back).await.unwrap();
    assert_eq!(client.incr("n").await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn defect_19_a_client_that_is_closed_in_the_middle_of_a_move_leaves_nothing() {
    let server = EmbeddedServer::builder().addresses(2).start().await.unwrap();
    let client = Client::connect(server.url()).await.unwrap();
    let news = client.subscribe(["news"]).await.unwrap();
    drop(client.lease().await.unwrap());
    let moving = server.move_endpoint(Move::new(0, 1, Duration::from_secs(1))).await.unwrap();
    client.close(Duration::from_secs(1)).await;
    drop((client, news));
    let gone = async {
        while server.connections().iter().any(|conn| !conn.name.is_empty() || conn.commands > 0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
    assert_eq!(moving.finished().await.unwrap().closed, 0);
}

fn cluster_url(server: &EmbeddedServer) -> String {
    server.url().replacen("redis://", "redis+cluster://", 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn defect_26_slots_that_move_under_load_and_transactions_fail_nobody_and_are_looked_up_once() {
    let server = EmbeddedServer::builder().addresses(2).cluster().start().await.unwrap();
    let client = Client::connect(cluster_url(&server)).await.unwrap();
    let load = Load::start(&client, "load", 8);
    let transactions = {
        let client = client.clone();
        tokio::spawn(async move {
            for round in 1..200i64 {
                let (left, right) = client.transaction().incr("{t}:a").incr("{t}:b").await.unwrap();
                assert_eq!((left, right), (round, round));
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.record(100_000);
    let slots = SlotRanges::parse("0-4000").unwrap();
    server.reshard(&slots, 1, Duration::from_millis(100)).await.unwrap();
    transactions.await.unwrap();
    let outcome = load.finish(&client).await;
    let counted = (outcome.failed, outcome.unknown, outcome.lost, outcome.doubled, outcome.disordered);
    assert_eq!(counted, (0, 0, 0, 0, 0), "{outcome:?}");
    let recorded = server.recorded();
    let is_look = |args: &[bytes::Bytes]| {
        let is = |at: usize, word: &[u8]| args.get(at).is_some_and(|arg| arg.eq_ignore_ascii_case(word));
        is(0, b"CLUSTER") && (is(1, b"SHARDS") || is(1, b"SLOTS"))
    };
    let looks = recorded.iter().filter(|command| is_look(&command.args)).count();
    assert!(looks <= 2, "the map was read {looks} times");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn defect_40_a_sharded_subscription_follows_its_slot_once() {
    let server = EmbeddedServer::builder().addresses(2).cluster().start().await.unwrap();
    let client = Client::connect(cluster_url(&server)).await.unwrap();
    let mut news = client.ssubscribe(["{a}news"]).await.unwrap();
    server.record(100_000);
    let slot = evenkeel_protocol::Slot::of(b"{a}news");
    let (from, number) = (server.slot_owner(slot), slot.number());
    let slots = SlotRanges::parse(&number.to_string()).unwrap();
    server.reshard(&slots, 1 - from, Duration::from_millis(50)).await.unwrap();
    let mut gaps = 0;
    let heard = async {
        loop {
            // Whoever has subscribed twice is counted twice.
            let receivers = client.cmd("SPUBLISH").arg("{a}news").arg("x").query::<i64>().await.unwrap();
            assert!(receivers <= 1, "{receivers} receivers");
            match tokio::time::timeout(Duration::from_millis(50), news.recv()).await {
                Ok(Some(Delivery::Message { .. })) => break,
                Ok(Some(Delivery::Gap { .. })) => gaps += 1,
                Ok(Some(_)) | Err(_) => {}
                Ok(None) => panic!("the subscription has ended"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.unwrap();
    assert!(gaps > 0, "what was published between the two must not be missed in silence");
}
