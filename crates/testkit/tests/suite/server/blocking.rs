//! Commands that wait.

use std::time::Duration;

use evenkeel_testkit::server::{Audience, EmbeddedServer};

use super::peer::{Peer, now};

async fn until_blocked(server: &EmbeddedServer, count: usize) {
    while server.connections().iter().filter(|conn| conn.blocked).count() < count {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_longest_waiting_is_served_first() {
    let server = EmbeddedServer::start().await.unwrap();
    let (mut first, mut second) = (Peer::connect(server.addr()).await, Peer::resp3(server.addr()).await);
    first.send(&["BLPOP", "other", "q", "0"]).await;
    until_blocked(&server, 1).await;
    second.send(&["BRPOP", "q", "0"]).await;
    until_blocked(&server, 2).await;
    let mut pusher = Peer::connect(server.addr()).await;
    assert_eq!(pusher.ask(&["RPUSH", "q", "a", "b", "c"]).await, ":3\r\n");
    assert_eq!(first.next().await, "*2\r\n$1\r\nq\r\n$1\r\na\r\n");
    assert_eq!(second.next().await, "*2\r\n$1\r\nq\r\n$1\r\nc\r\n");
    assert_eq!(pusher.ask(&["LLEN", "q"]).await, ":1\r\n");
}

#[tokio::test]
async fn what_is_pushed_in_a_transaction_is_given_out_at_its_end() {
    let server = EmbeddedServer::start().await.unwrap();
    let mut waiter = Peer::connect(server.addr()).await;
    waiter.send(&["BLPOP", "q", "0"]).await;
    until_blocked(&server, 1).await;
    let mut pusher = Peer::connect(server.addr()).await;
    for args in [&["MULTI"][..], &["LPUSH", "q", "a"], &["LPUSH", "q", "b"], &["LLEN", "q"]] {
        pusher.ask(args).await;
    }
    assert_eq!(pusher.ask(&["EXEC"]).await, "*3\r\n:1\r\n:2\r\n:2\r\n");
    assert_eq!(waiter.next().await, "*2\r\n$1\r\nq\r\n$1\r\nb\r\n");
}

#[tokio::test]
async fn waits_end_by_time_by_unblock_and_by_close() {
    let server = EmbeddedServer::start().await.unwrap();
    let mut waiter = Peer::resp3(server.addr()).await;
    let began = now();
    assert_eq!(waiter.ask(&["BLPOP", "q", "0.05"]).await, "_\r\n");
    assert!(began.elapsed() >= Duration::from_millis(50));
    let mut other = Peer::connect(server.addr()).await;
    let id = server.connections()[0].id.to_string();
    for (reason, reply) in
        [("TIMEOUT", "_\r\n"), ("ERROR", "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n")]
    {
        waiter.send(&["BLPOP", "q", "0"]).await;
        // A command behind it waits its turn.
        waiter.send(&["PING"]).await;
        until_blocked(&server, 1).await;
        assert_eq!(other.ask(&["CLIENT", "UNBLOCK", &id, reason]).await, ":1\r\n");
        assert_eq!(waiter.next().await, reply);
        assert_eq!(waiter.next().await, "+PONG\r\n");
    }
    waiter.send(&["BLPOP", "q", "0"]).await;
    until_blocked(&server, 1).await;
    drop(waiter);
    while server.connections().len() > 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(other.ask(&["RPUSH", "q", "a"]).await, ":1\r\n");
    assert_eq!(other.ask(&["LLEN", "q"]).await, ":1\r\n", "nobody takes it any more");
}

#[tokio::test]
async fn streams_wake_all_their_readers() {
    let server = EmbeddedServer::start().await.unwrap();
    let (mut new, mut old) = (Peer::resp3(server.addr()).await, Peer::connect(server.addr()).await);
    new.send(&["XREAD", "BLOCK", "0", "STREAMS", "s", "$"]).await;
    old.send(&["XREAD", "BLOCK", "0", "COUNT", "1", "STREAMS", "s", "0"]).await;
    until_blocked(&server, 2).await;
    let mut writer = Peer::connect(server.addr()).await;
    writer.ask(&["XADD", "s", "MAXLEN", "~", "10", "1-1", "f", "v"]).await;
    let entry = "*1\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n";
    assert_eq!(new.next().await, format!("%1\r\n$1\r\ns\r\n{entry}"));
    assert_eq!(old.next().await, format!("*1\r\n*2\r\n$1\r\ns\r\n{entry}"));
}

#[tokio::test]
async fn a_pause_holds_commands_and_a_hold_keeps_replies() {
    let server = EmbeddedServer::start().await.unwrap();
    let mut peer = Peer::connect(server.addr()).await;
    server.pause(Duration::from_secs(60), true);
    assert_eq!(peer.ask(&["GET", "n"]).await, "$-1\r\n");
    peer.send(&["INCR", "n"]).await;
    assert!(peer.is_silent(Duration::from_millis(50)).await);
    server.unpause();
    assert_eq!(peer.next().await, ":1\r\n");
    server.hold_replies(Some(0), Duration::from_millis(200));
    let began = now();
    peer.send(&["INCR", "n"]).await;
    while server.connections()[0].commands < 3 {
        tokio::task::yield_now().await;
    }
    assert!(began.elapsed() < Duration::from_millis(200), "it ran at once");
    assert_eq!(peer.next().await, ":2\r\n");
    assert!(began.elapsed() >= Duration::from_millis(200), "its reply came late");
    server.hold_replies(None, Duration::from_secs(60));
    peer.send(&["INCR", "n"]).await;
    assert!(peer.is_silent(Duration::from_millis(50)).await);
    server.release_replies(None);
    assert_eq!(peer.next().await, ":3\r\n");
    server.pause(Duration::from_millis(30), false);
    assert_eq!(peer.ask(&["PING"]).await, "+PONG\r\n");
    assert_eq!(server.close(Audience::All), 1);
}
