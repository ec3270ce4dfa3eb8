//! HELLO, AUTH, CLIENT, tracking, scripts, records: what surrounds the data.

use bytes::Bytes;
use evenkeel_protocol::Frame;
use evenkeel_testkit::server::{EmbeddedServer, Script};

use super::peer::Peer;

#[tokio::test]
async fn a_password_is_needed_where_one_was_set() {
    let server = EmbeddedServer::builder().password("secret").user("app", "other").start().await.unwrap();
    let mut peer = Peer::connect(server.addr()).await;
    assert_eq!(peer.ask(&["GET", "k"]).await, "-NOAUTH Authentication required.\r\n");
    assert!(peer.ask(&["HELLO", "3"]).await.starts_with(b"-NOAUTH HELLO must be called with the client"));
    let wrong = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
    assert_eq!(peer.ask(&["AUTH", "wrong"]).await, wrong);
    assert_eq!(peer.ask(&["AUTH", "app", "secret"]).await, wrong);
    assert_eq!(peer.ask(&["HELLO", "3", "AUTH", "app", "wrong"]).await, wrong);
    assert_eq!(peer.ask(&["AUTH", "secret"]).await, "+OK\r\n");
    assert_eq!(peer.ask(&["GET", "k"]).await, "$-1\r\n");
    let mut other = Peer::connect(server.addr()).await;
    let hello = other.ask(&["HELLO", "3", "AUTH", "app", "other", "SETNAME", "me"]).await;
    assert!(hello.starts_with(b"%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n"), "{hello:?}");
    assert_eq!(server.connections()[1].name, "me");
    assert_eq!(other.ask(&["RESET"]).await, "+RESET\r\n");
    assert_eq!(other.ask(&["GET", "k"]).await, "-NOAUTH Authentication required.\r\n");
    // Neither the settings nor the record shows a password.
    let builder = EmbeddedServer::builder().password("secret");
    assert!(!format!("{builder:?} {:?}", server.handle()).contains("secret"));
    server.record(10);
    other.ask(&["AUTH", "secret"]).await;
    assert_eq!(server.recorded()[0].args, [Bytes::from("AUTH")]);
}

#[tokio::test]
async fn clients_are_listed_named_and_killed() {
    let server = EmbeddedServer::start().await.unwrap();
    let (mut one, mut two) = (Peer::resp3(server.addr()).await, Peer::connect(server.addr()).await);
    for args in [
        &["CLIENT", "SETINFO", "LIB-NAME", "evenkeel"][..],
        &["CLIENT", "SETINFO", "lib-ver", "0.1"],
        &["CLIENT", "SETNAME", "first"],
        &["SELECT", "3"],
    ] {
        assert_eq!(one.ask(args).await, "+OK\r\n");
    }
    assert_eq!(
        one.ask(&["CLIENT", "SETINFO", "LIB-NAME", "a b"]).await,
        "-ERR lib-name cannot contain spaces, newlines or special characters.\r\n"
    );
    two.send(&["CLIENT", "LIST"]).await;
    let list = two.next_frame().await;
    let line = list.as_str().unwrap().lines().next().unwrap();
    for part in ["id=1 ", " name=first ", " db=3 ", " resp=3 ", " lib-name=evenkeel lib-ver=0.1"] {
        assert!(line.contains(part), "{part} in {line}");
    }
    let info = &server.connections()[0];
    assert_eq!(
        (info.name.as_str(), info.library.as_str(), info.database, info.protocol),
        ("first", "evenkeel", 3, 3)
    );
    assert_eq!(two.ask(&["CLIENT", "KILL", "ID", "1"]).await, ":1\r\n");
    assert_eq!(one.try_next().await, None);
    // Who kills itself reads the answer first.
    assert_eq!(two.ask(&["CLIENT", "KILL", "ID", "2", "SKIPME", "no"]).await, ":1\r\n");
    assert_eq!(two.try_next().await, None);
    let mut three = Peer::connect(server.addr()).await;
    assert_eq!(three.ask(&["QUIT"]).await, "+OK\r\n");
    assert_eq!(three.try_next().await, None);
    assert_eq!(server.counters(0).closed_by_server, 1, "who ends itself is not counted");
}

#[tokio::test]
async fn replies_can_be_switched_off_and_skipped() {
    let server = EmbeddedServer::start().await.unwrap();
    let mut peer = Peer::connect(server.addr()).await;
    peer.send(&["CLIENT", "REPLY", "OFF"]).await;
    peer.send(&["SET", "k", "1"]).await;
    assert_eq!(peer.ask(&["CLIENT", "REPLY", "ON"]).await, "+OK\r\n");
    peer.send(&["CLIENT", "REPLY", "SKIP"]).await;
    peer.send(&["INCR", "k"]).await;
    assert_eq!(peer.ask(&["INCR", "k"]).await, ":3\r\n");
}

#[tokio::test]
async fn a_reader_is_told_when_what_it_read_has_changed() {
    let server = EmbeddedServer::start().await.unwrap();
    let mut reader = Peer::resp3(server.addr()).await;
    let mut writer = Peer::connect(server.addr()).await;
    assert_eq!(reader.ask(&["CLIENT", "TRACKING", "ON"]).await, "+OK\r\n");
    assert_eq!(reader.ask(&["MGET", "a", "b"]).await, "*2\r\n_\r\n_\r\n");
    writer.ask(&["SET", "b", "1"]).await;
    assert_eq!(reader.next().await, ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nb\r\n");
    // Told once: what is not read again is not told again.
    writer.ask(&["SET", "b", "2"]).await;
    // Its own change is told behind the reply.
    assert_eq!(reader.ask(&["SET", "a", "1"]).await, "+OK\r\n");
    assert_eq!(reader.next().await, ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n");
    reader.ask(&["GET", "a"]).await;
    writer.ask(&["PEXPIRE", "a", "20"]).await;
    assert_eq!(reader.next().await, ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n");
    reader.ask(&["GET", "a"]).await;
    assert_eq!(reader.next().await, ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n", "its time is over");
    writer.ask(&["FLUSHALL"]).await;
    assert_eq!(reader.next().await, ">2\r\n$10\r\ninvalidate\r\n_\r\n");
    assert_eq!(reader.ask(&["CLIENT", "TRACKING", "OFF"]).await, "+OK\r\n");
    let broadcast = ["CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "user:", "NOLOOP"];
    assert_eq!(reader.ask(&broadcast).await, "+OK\r\n");
    writer.ask(&["SET", "other", "1"]).await;
    assert_eq!(reader.ask(&["SET", "user:0", "1"]).await, "+OK\r\n");
    writer.ask(&["SET", "user:1", "1"]).await;
    assert_eq!(reader.next().await, ">2\r\n$10\r\ninvalidate\r\n*1\r\n$6\r\nuser:1\r\n");
}

/// What a gateway does in one step: count, append, publish.
fn publish_with_history(script: &mut Script<'_>) -> Result<Frame, String> {
    let (keys, args) = (script.keys().to_vec(), script.args().to_vec());
    let offset = script.call([&b"HINCRBY"[..], &keys[0], b"offset", b"1"]);
    let Frame::Integer(offset) = offset else { return Err("ERR no offset".to_owned()) };
    script.call([&b"XADD"[..], &keys[1], b"MAXLEN", b"~", b"10", b"*", b"d", &args[0]]);
    script.call([&b"PUBLISH"[..], &args[1], &args[0]]);
    Ok(Frame::Integer(offset))
}

#[tokio::test]
async fn registered_scripts_run_as_one_step() {
    let server = EmbeddedServer::start().await.unwrap();
    let source = "-- count, append, publish";
    let sha = server.register_script(source, publish_with_history);
    let mut listener = Peer::resp3(server.addr()).await;
    listener.ask(&["SUBSCRIBE", "c"]).await;
    let mut peer = Peer::resp3(server.addr()).await;
    let by_sha = ["EVALSHA", &sha, "2", "meta", "log", "hi", "c"];
    assert_eq!(peer.ask(&by_sha).await, "-NOSCRIPT No matching script. Please use EVAL.\r\n");
    assert_eq!(peer.ask(&["SCRIPT", "LOAD", source]).await, format!("$40\r\n{sha}\r\n"));
    assert_eq!(peer.ask(&by_sha).await, ":1\r\n");
    assert_eq!(listener.next().await, ">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n");
    assert_eq!(peer.ask(&["EVAL", source, "2", "meta", "log", "ho", "c"]).await, ":2\r\n");
    assert_eq!(peer.ask(&["XLEN", "log"]).await, ":2\r\n");
    assert_eq!(peer.ask(&["SCRIPT", "FLUSH"]).await, "+OK\r\n");
    assert_eq!(peer.ask(&["SCRIPT", "EXISTS", &sha]).await, "*1\r\n:0\r\n");
    let unknown = peer.ask(&["EVAL", "return 1", "0"]).await;
    assert!(unknown.starts_with(b"-ERR the embedded server runs registered scripts only"), "{unknown:?}");
    // An error inside is a value for the script, as with pcall.
    let failing = server.register_script("fail", |script| match script.call(["INCR", "log"]) {
        Frame::Error(error) => Err(error.to_string()),
        other => Ok(other),
    });
    assert_eq!(failing.len(), 40);
    assert!(peer.ask(&["EVAL", "fail", "0"]).await.starts_with(b"-WRONGTYPE"));
}

#[tokio::test]
async fn the_record_keeps_each_connections_order_and_its_bound() {
    let server = EmbeddedServer::start().await.unwrap();
    let (mut one, mut two) = (Peer::connect(server.addr()).await, Peer::connect(server.addr()).await);
    one.ask(&["PING"]).await;
    server.record(4);
    for number in ["1", "2", "3"] {
        one.ask(&["ECHO", number]).await;
        two.ask(&["ECHO", number]).await;
    }
    let recorded = server.recorded();
    let seen: Vec<_> = recorded.iter().map(|r| (r.connection, r.order, &r.args[1][..])).collect();
    assert_eq!(seen, [(1, 3, &b"2"[..]), (2, 2, b"2"), (1, 4, b"3"), (2, 3, b"3")]);
    assert_eq!(
        format!("{:?}", recorded[0]),
        "Recorded { connection: 1, address: 0, order: 3, name: Some(\"ECHO\"), args: 2 }"
    );
}

#[tokio::test]
async fn what_is_no_command_is_answered_and_closed() {
    let server = EmbeddedServer::start().await.unwrap();
    let mut peer = Peer::connect(server.addr()).await;
    peer.send_raw(b"*1\r\n$4\r\nPING\r\n*1\r\n+x\r\n*1\r\n$4\r\nPING\r\n").await;
    assert_eq!(peer.next().await, "+PONG\r\n");
    assert_eq!(peer.next().await, "-ERR Protocol error: expected '$', got '+'\r\n");
    assert_eq!(peer.try_next().await, None);
}

#[tokio::test]
async fn a_subscriber_of_resp2_may_do_little_else() {
    let server = EmbeddedServer::start().await.unwrap();
    let mut peer = Peer::connect(server.addr()).await;
    peer.ask(&["SUBSCRIBE", "c"]).await;
    assert_eq!(
        peer.ask(&["GET", "k"]).await,
        "-ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this \
         context\r\n"
    );
    assert_eq!(peer.ask(&["PING"]).await, "*2\r\n$4\r\npong\r\n$0\r\n\r\n");
    peer.ask(&["UNSUBSCRIBE"]).await;
    assert_eq!(peer.ask(&["GET", "k"]).await, "$-1\r\n");
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_closed() {
    let server = EmbeddedServer::builder().max_output(100_000).start().await.unwrap();
    let mut slow = Peer::resp3(server.addr()).await;
    slow.ask(&["SUBSCRIBE", "c"]).await;
    let payload = vec![b'x'; 50_000];
    let mut sent = 0;
    while server.publish(b"c", &payload) > 0 {
        sent += 1;
        assert!(sent < 10_000, "it reads on and on");
        tokio::task::yield_now().await;
    }
    assert_eq!(server.counters(0).closed_by_server, 1);
}
