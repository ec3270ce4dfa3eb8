//! Messages between connections, on both protocols.

use evenkeel_testkit::server::EmbeddedServer;

use super::peer::Peer;

#[tokio::test]
async fn messages_reach_channels_patterns_and_shard_channels() {
    let server = EmbeddedServer::start().await.unwrap();
    let mut new = Peer::resp3(server.addr()).await;
    let mut old = Peer::connect(server.addr()).await;
    let mut publisher = Peer::connect(server.addr()).await;
    assert_eq!(new.ask(&["SUBSCRIBE", "news"]).await, ">3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    assert_eq!(old.ask(&["PSUBSCRIBE", "n*"]).await, "*3\r\n$10\r\npsubscribe\r\n$2\r\nn*\r\n:1\r\n");
    assert_eq!(new.ask(&["SSUBSCRIBE", "shard"]).await, ">3\r\n$10\r\nssubscribe\r\n$5\r\nshard\r\n:1\r\n");
    assert_eq!(publisher.ask(&["PUBLISH", "news", "hi"]).await, ":2\r\n");
    assert_eq!(new.next().await, ">3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$2\r\nhi\r\n");
    assert_eq!(old.next().await, "*4\r\n$8\r\npmessage\r\n$2\r\nn*\r\n$4\r\nnews\r\n$2\r\nhi\r\n");
    assert_eq!(publisher.ask(&["SPUBLISH", "shard", "s"]).await, ":1\r\n");
    assert_eq!(new.next().await, ">3\r\n$8\r\nsmessage\r\n$5\r\nshard\r\n$1\r\ns\r\n");
    assert_eq!(
        publisher.ask(&["PUBSUB", "NUMSUB", "news", "none"]).await,
        "*4\r\n$4\r\nnews\r\n:1\r\n$4\r\nnone\r\n:0\r\n"
    );
    assert_eq!(publisher.ask(&["PUBSUB", "CHANNELS"]).await, "*1\r\n$4\r\nnews\r\n");
    // A RESP3 subscriber goes on with other commands, and reads its own message behind the reply.
    assert_eq!(new.ask(&["PUBLISH", "news", "own"]).await, ":2\r\n");
    assert_eq!(new.next().await, ">3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$3\r\nown\r\n");
    assert_eq!(server.publish(b"news", b"embedded"), 2);
    assert_eq!(new.next().await, ">3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$8\r\nembedded\r\n");
    drop(new);
    drop(old);
    while publisher.ask(&["PUBLISH", "news", "x"]).await != ":0\r\n" {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn ten_thousand_messages_arrive_in_order() {
    let server = EmbeddedServer::start().await.unwrap();
    let mut subscriber = Peer::resp3(server.addr()).await;
    subscriber.ask(&["SUBSCRIBE", "c"]).await;
    let mut publisher = Peer::connect(server.addr()).await;
    let reader = tokio::spawn(async move {
        for expected in 0..10_000 {
            let frame = subscriber.next_frame().await;
            assert_eq!(frame.elements().unwrap()[2].as_str(), Some(expected.to_string().as_str()));
        }
    });
    for batch in 0..100 {
        let wire: Vec<String> =
            (batch * 100..batch * 100 + 100).map(|number| format!("PUBLISH c {number}\r\n")).collect();
        publisher.send_raw(wire.concat().as_bytes()).await;
        for _ in 0..100 {
            assert_eq!(publisher.next().await, ":1\r\n");
        }
    }
    reader.await.unwrap();
}
