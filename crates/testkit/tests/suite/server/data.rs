//! Data beyond single replies: cursors, expiry, watches, databases.

use std::collections::BTreeSet;

use evenkeel_protocol::{FromReply, Reply};
use evenkeel_testkit::server::EmbeddedServer;

use super::peer::Peer;

async fn decoded<T: FromReply>(peer: &mut Peer, args: &[&str]) -> T {
    Reply::new(peer.ask(args).await).decode().unwrap()
}

#[tokio::test]
async fn a_scan_meets_what_stays_although_others_come_and_go() {
    let server = EmbeddedServer::start().await.unwrap();
    let mut peer = Peer::resp3(server.addr()).await;
    for number in 0..100 {
        peer.ask(&["SET", &format!("stays:{number}"), "1"]).await;
        peer.ask(&["SET", &format!("goes:{number}"), "1"]).await;
    }
    let (mut cursor, mut met) = ("0".to_owned(), BTreeSet::new());
    loop {
        let (next, keys): (String, Vec<String>) =
            decoded(&mut peer, &["SCAN", &cursor, "COUNT", "7", "MATCH", "stays:*", "TYPE", "string"]).await;
        met.extend(keys);
        peer.ask(&["DEL", &format!("goes:{}", met.len())]).await;
        peer.ask(&["SET", &format!("comes:{}", met.len()), "1"]).await;
        cursor = next;
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(met.len(), 100);
}

#[tokio::test(start_paused = true)]
async fn time_moves_expiry() {
    let server = EmbeddedServer::start().await.unwrap();
    let mut peer = Peer::connect(server.addr()).await;
    peer.ask(&["SET", "k", "v", "EX", "100"]).await;
    peer.ask(&["SET", "stays", "v"]).await;
    tokio::time::advance(std::time::Duration::from_secs(99)).await;
    assert_eq!(peer.ask(&["TTL", "k"]).await, ":1\r\n");
    tokio::time::advance(std::time::Duration::from_secs(2)).await;
    assert_eq!(peer.ask(&["GET", "k"]).await, "$-1\r\n");
    assert_eq!(peer.ask(&["DBSIZE"]).await, ":1\r\n");
}

#[tokio::test]
async fn a_watch_breaks_by_the_hand_of_others_only_when_something_changed() {
    let server = EmbeddedServer::start().await.unwrap();
    let (mut mine, mut others) = (Peer::connect(server.addr()).await, Peer::connect(server.addr()).await);
    let attempts = [
        (&["SET", "k", "x"][..], false),
        (&["GET", "k"], true),
        (&["DEL", "none"], true),
        (&["FLUSHALL"], false),
        (&["FLUSHALL"], true),
        (&["SELECT", "1"], true),
        (&["SET", "k", "in another database"], true),
    ];
    mine.ask(&["SET", "k", "0"]).await;
    for (interference, stands) in attempts {
        mine.ask(&["WATCH", "k"]).await;
        others.ask(interference).await;
        mine.ask(&["MULTI"]).await;
        mine.ask(&["ECHO", "done"]).await;
        let reply = mine.ask(&["EXEC"]).await;
        assert_eq!(reply == "*1\r\n$4\r\ndone\r\n", stands, "{interference:?} {reply:?}");
    }
}

#[tokio::test]
async fn large_values_and_deep_pipelines_pass() {
    let server = EmbeddedServer::start().await.unwrap();
    let mut peer = Peer::connect(server.addr()).await;
    let big = "x".repeat(5 << 20);
    assert_eq!(peer.ask(&["SET", "big", &big]).await, "+OK\r\n");
    assert_eq!(peer.ask(&["STRLEN", "big"]).await, format!(":{}\r\n", big.len()));
    assert_eq!(peer.ask(&["GET", "big"]).await.len(), big.len() + "$5242880\r\n\r\n".len());
    // Far more than one batch, sent before a single reply is read.
    peer.send_raw(&b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n".repeat(20_000)).await;
    for number in 1..=20_000 {
        assert_eq!(peer.next().await, format!(":{number}\r\n"));
    }
}
