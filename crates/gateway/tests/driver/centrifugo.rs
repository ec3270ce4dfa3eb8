//! Centrifugo's protocol, frame by frame.

use crate::peer::{Frame, Peer};
use crate::start::{config, gateway, over, until, with};
use evenkeel_gateway::MemoryBroker;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

#[tokio::test]
async fn a_pipelined_first_frame_is_answered_in_one_frame_and_in_order() {
    let gateway = gateway().await;
    let mut peer = Peer::open(gateway.local_addr(), "/connection/websocket").await;
    peer.say(
        "{\"connect\":{\"name\":\"js\"},\"id\":1}\n{\"subscribe\":{\"channel\":\"news\",\"flag\":1},\"id\":2}\n\
         {\"subscribe\":{\"channel\":\"closed:a\"},\"id\":3}\n{\"subscribe\":{\"channel\":\"kept:a\"},\"id\":4}",
    )
    .await;
    let Frame::Text(text) = peer.next().await else { panic!("no text") };
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|line| line["id"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(lines[0]["connect"]["ping"], 25);
    assert_eq!(lines[1]["subscribe"], json!({}));
    assert_eq!(lines[2]["error"]["code"], 103);
    assert_eq!(lines[3]["subscribe"]["recoverable"], true);
    gateway.stop().await;
}

#[tokio::test]
async fn what_one_publishes_all_subscribers_hear_in_order() {
    let gateway = gateway().await;
    let mut peers = Vec::new();
    for _ in 0..5 {
        let mut peer = Peer::connect(gateway.local_addr()).await;
        peer.subscribe("news").await;
        peers.push(peer);
    }
    let mut publisher = Peer::connect(gateway.local_addr()).await;
    for n in 0..50 {
        publisher.say(&json!({"id":3,"publish":{"channel":"news","data":{"n":n}}}).to_string()).await;
        assert_eq!(publisher.json().await, json!({"id":3,"publish":{}}));
    }
    for peer in &mut peers {
        for n in 0..50 {
            assert_eq!(peer.json().await, json!({"push":{"channel":"news","pub":{"data":{"n":n}}}}));
        }
    }
    peers[0].say("{\"id\":9,\"unsubscribe\":{\"channel\":\"news\"}}").await;
    assert_eq!(peers[0].json().await, json!({"id":9,"unsubscribe":{}}));
    gateway.handle().publish("news", "plain words").await.unwrap();
    assert_eq!(peers[1].json().await["push"]["pub"]["data"], "plain words");
    peers[0].say("{\"id\":10,\"ping\":{}}").await;
    assert_eq!(peers[0].json().await, json!({"id":10,"ping":{}}), "nothing came before it");
    gateway.stop().await;
}

#[tokio::test]
async fn a_client_that_comes_back_gets_what_it_missed() {
    let broker = Arc::new(MemoryBroker::new());
    let first = over(config(), broker.clone()).await;
    let mut peer = Peer::connect(first.local_addr()).await;
    let reply = peer.subscribe("kept:a").await;
    let epoch = reply["subscribe"]["epoch"].as_str().unwrap().to_owned();
    first.handle().publish("kept:a", "1").await.unwrap();
    assert_eq!(peer.json().await["push"]["pub"], json!({"data":1,"offset":1}));
    first.stop().await;
    let second = over(config(), broker).await;
    for n in ["2", "3"] {
        second.handle().publish("kept:a", n).await.unwrap();
    }
    let mut peer = Peer::connect(second.local_addr()).await;
    let request = json!({"id":2,"subscribe":{"channel":"kept:a","recover":true,"epoch":epoch,"offset":1}});
    peer.say(&request.to_string()).await;
    let reply = peer.json().await;
    assert_eq!(reply["subscribe"]["recovered"], true);
    assert_eq!(reply["subscribe"]["publications"], json!([{"data":2,"offset":2},{"data":3,"offset":3}]));
    second.handle().publish("kept:a", "4").await.unwrap();
    assert_eq!(peer.json().await["push"]["pub"], json!({"data":4,"offset":4}));
    let mut stranger = Peer::connect(second.local_addr()).await;
    let request = json!({"id":2,"subscribe":{"channel":"kept:a","recover":true,"epoch":"other","offset":1}});
    stranger.say(&request.to_string()).await;
    let reply = stranger.json().await;
    assert_eq!(reply["subscribe"]["was_recovering"], true);
    assert!(reply["subscribe"].get("recovered").is_none());
    stranger.say("{\"id\":3,\"history\":{\"channel\":\"kept:a\",\"limit\":2,\"reverse\":true}}").await;
    let reply = stranger.json().await;
    assert_eq!(reply["history"]["publications"], json!([{"data":4,"offset":4},{"data":3,"offset":3}]));
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_that_join_in_a_storm_miss_and_repeat_nothing() {
    let gateway = gateway().await;
    let address = gateway.local_addr();
    let handle = gateway.handle();
    let publisher = tokio::spawn(async move {
        for n in 1..=2_000 {
            handle.publish("kept:storm", n.to_string()).await.unwrap();
            if n % 20 == 0 {
                tokio::task::yield_now().await;
            }
        }
    });
    let mut joiners = Vec::new();
    for _ in 0..20 {
        joiners.push(tokio::spawn(async move {
            let mut peer = Peer::connect(address).await;
            let reply = peer.subscribe("kept:storm").await;
            let mut seen = reply["subscribe"]["offset"].as_u64().unwrap();
            while seen < 2_000 {
                let push = peer.json().await;
                assert_eq!(push["push"]["pub"]["offset"], seen + 1, "{push}");
                assert_eq!(push["push"]["pub"]["data"], seen + 1);
                seen += 1;
            }
        }));
    }
    publisher.await.unwrap();
    for joiner in joiners {
        joiner.await.unwrap();
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_heartbeat_that_is_not_answered_ends_the_session() {
    let mut config = config();
    config.session.ping_interval = Duration::from_secs(2);
    config.session.pong_timeout = Duration::from_secs(1);
    let gateway = with(config).await;
    let mut alive = Peer::connect(gateway.local_addr()).await;
    let mut dead = Peer::connect(gateway.local_addr()).await;
    let answering = async {
        for _ in 0..3 {
            assert_eq!(alive.next().await, Frame::Text("{}".to_owned()));
            alive.say("{}").await;
        }
    };
    let (code, ()) = tokio::join!(dead.closed(), answering);
    assert_eq!(code, 3012);
    alive.say("{\"id\":10,\"ping\":{}}").await;
    assert_eq!(alive.json().await, json!({"id":10,"ping":{}}));
    gateway.stop().await;
}

#[tokio::test]
async fn a_client_that_never_connects_is_stale() {
    let mut config = config();
    config.session.connect_timeout = Duration::from_millis(50);
    let gateway = with(config).await;
    let mut peer = Peer::open(gateway.local_addr(), "/connection/websocket").await;
    assert_eq!(peer.closed().await, 3502);
    gateway.stop().await;
}

#[tokio::test]
async fn a_slow_reader_is_closed_and_harms_nobody() {
    let mut config = config();
    config.limits.outbox_bytes = 100_000;
    let gateway = with(config).await;
    let mut slow = Peer::connect(gateway.local_addr()).await;
    slow.subscribe("kept:big").await;
    let mut quick = Peer::connect(gateway.local_addr()).await;
    quick.subscribe("kept:big").await;
    let big = format!("\"{}\"", "x".repeat(50_000));
    let handle = gateway.handle();
    let mut sent = 0;
    // Until the kernel's buffers and the outbox of the slow one are full.
    while !handle.metrics().contains("closed_slow_total 1") {
        sent += 1;
        assert!(sent < 2_000, "the slow reader was never closed");
        handle.publish("kept:big", big.clone()).await.unwrap();
        assert_eq!(quick.json().await["push"]["pub"]["offset"], sent);
    }
    let mut last = 0;
    loop {
        match slow.next().await {
            Frame::Text(text) => {
                let push: serde_json::Value = serde_json::from_str(&text).unwrap();
                last += 1;
                assert_eq!(push["push"]["pub"]["offset"], last, "in order up to the end");
            }
            Frame::Close(Some((code, reason))) => {
                assert_eq!((code, &*reason), (3008, "slow"));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    until("one session left", || handle.sessions() == 1).await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_stop_says_goodbye_with_a_code_that_brings_clients_back() {
    let gateway = gateway().await;
    let mut peer = Peer::connect(gateway.local_addr()).await;
    peer.subscribe("news").await;
    let stopping = tokio::spawn(gateway.stop());
    assert_eq!(peer.closed().await, 3001);
    drop(peer);
    stopping.await.unwrap();
}

#[tokio::test]
async fn a_dropped_gateway_leaves_no_session_behind() {
    let gateway = gateway().await;
    let mut peer = Peer::connect(gateway.local_addr()).await;
    drop(gateway);
    assert_eq!(peer.closed().await, 3001);
}
