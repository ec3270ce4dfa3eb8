//! Clients that mean harm: each is told so in its protocol's own words, is counted, and a bystander notices nothing.

use crate::peer::{Frame, Peer, encode, read_head, request};
use crate::start::{DEADLINE, config, until, with};
use evenkeel_gateway::{Gateway, GatewayConfig, TokenConfig};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A gateway with somebody on the channel `news` who must not be harmed.
struct Scene {
    gateway: Gateway,
    bystander: Peer,
    published: u64,
}

impl Scene {
    async fn with(change: impl FnOnce(&mut GatewayConfig)) -> Self {
        let mut config = config();
        change(&mut config);
        let gateway = with(config).await;
        let mut bystander = Peer::connect(gateway.local_addr()).await;
        assert!(bystander.subscribe("news").await["subscribe"].is_object());
        Self { gateway, bystander, published: 0 }
    }

    fn address(&self) -> SocketAddr {
        self.gateway.local_addr()
    }

    /// Shows that the bystander is served.
    async fn goes_on(&mut self) {
        self.published += 1;
        self.gateway.handle().publish("news", self.published.to_string()).await.unwrap();
        assert_eq!(self.bystander.json().await["push"]["pub"]["data"], self.published);
    }

    async fn counted(&self, counter: &str, count: u64) {
        let line = format!("evenkeel_gateway_{counter} {count}");
        let handle = self.gateway.handle();
        until(&line, || handle.metrics().lines().any(|other| other == line)).await;
    }

    /// Only the bystander is left.
    async fn ends(self) {
        let handle = self.gateway.handle();
        until("the others gone", || handle.sessions() == 1).await;
        self.gateway.stop().await;
    }
}

#[tokio::test]
async fn a_flood_of_pings_whose_answers_nobody_reads_ends_its_own_session() {
    let mut scene = Scene::with(|config| config.limits.outbox_messages = 256).await;
    let mut flood = Peer::connect(scene.address()).await;
    let ping = encode(0x89, &[b'x'; 125]).repeat(512);
    // Until nothing more is taken: it was cut off.
    let floods = async { while flood.stream.write_all(&ping).await.is_ok() {} };
    timeout(DEADLINE, floods).await.expect("never cut");
    scene.counted("closed_slow_total", 1).await;
    scene.goes_on().await;
    scene.ends().await;
}

#[tokio::test]
async fn as_many_pings_as_one_likes_are_answered_to_who_reads() {
    let mut scene = Scene::with(|_| {}).await;
    let mut peer = Peer::connect(scene.address()).await;
    for n in 0..2_000_u32 {
        peer.frame(0x89, &n.to_be_bytes()).await;
        let mut answer = peer.next().await;
        // The server asks too.
        while answer == Frame::Text("{}".to_owned()) {
            peer.say("{}").await;
            answer = peer.next().await;
        }
        assert_eq!(answer, Frame::Pong(n.to_be_bytes().to_vec()));
    }
    scene.goes_on().await;
    drop(peer);
    scene.ends().await;
}

#[tokio::test]
async fn subscriptions_by_the_thousand_stop_at_each_limit() {
    let mut scene = Scene::with(|config| config.limits.max_message = 1 << 20).await;
    let batch = |count: usize| {
        let line = |n| json!({"id":n + 2,"subscribe":{"channel":format!("c{n}")}}).to_string();
        (0..count).map(line).collect::<Vec<_>>().join("\n")
    };
    // More commands than one frame may have: nothing of it is done.
    let mut peer = Peer::connect(scene.address()).await;
    peer.say(&batch(10_000)).await;
    assert_eq!(peer.closed().await, 3_501);
    scene.counted("violations_total", 1).await;
    drop(peer);
    // As many as it may have, and more than a client may have channels.
    let mut peer = Peer::connect(scene.address()).await;
    peer.say(&batch(1_000)).await;
    let (mut subscribed, mut refused) = (0, 0);
    for n in 0..1_000 {
        let reply = peer.json().await;
        assert_eq!(reply["id"], n + 2, "in order");
        if reply["subscribe"].is_object() {
            subscribed += 1;
        } else {
            assert_eq!(reply["error"]["code"], 106, "{reply}");
            refused += 1;
        }
    }
    assert_eq!((subscribed, refused), (128, 872));
    scene.counted("request_errors_total", refused).await;
    drop(peer);
    // A frame above the limit of bytes.
    let mut peer = Peer::connect(scene.address()).await;
    peer.say(&" ".repeat((1 << 20) + 1)).await;
    assert_eq!(peer.closed().await, 1_009);
    scene.goes_on().await;
    drop(peer);
    scene.ends().await;
}

#[tokio::test]
async fn names_of_channels_are_names_whatever_they_hold() {
    let mut scene = Scene::with(|_| {}).await;
    let mut peer = Peer::connect(scene.address()).await;
    for (name, code) in [
        ("x".repeat(4_096), 107),
        ("x".repeat(256), 107),
        (String::new(), 107),
        ("private-x".to_owned(), 103),
        ("nowhere:x".to_owned(), 102),
    ] {
        assert_eq!(peer.subscribe(&name).await["error"]["code"], code, "{name:.20}");
    }
    for name in
        ["\0", "news\0", "news\n", "n\"ews", "\u{2028}", "*", "{}", "__keyspace@0__", &"x".repeat(255)]
    {
        assert!(peer.subscribe(name).await["subscribe"].is_object(), "{name:?}");
        scene.gateway.handle().publish(name, "7").await.unwrap();
        assert_eq!(
            peer.json().await,
            json!({"push":{"channel":name,"pub":{"data":7}}}),
            "and what is published there comes from there"
        );
    }
    // None of them was another's.
    scene.goes_on().await;
    drop(peer);
    scene.ends().await;
}

#[tokio::test]
async fn publications_are_taken_up_to_the_limit_and_not_a_byte_beyond() {
    let mut scene = Scene::with(|config| config.limits.max_publication = 1_000).await;
    let mut peer = Peer::connect(scene.address()).await;
    let publish = |len: usize| json!({"id":5,"publish":{"channel":"other","data":"x".repeat(len - 2)}});
    for (len, code) in [(1_000, None), (1_001, Some(106))] {
        peer.say(&publish(len).to_string()).await;
        assert_eq!(peer.json().await["error"]["code"].as_u64(), code, "{len}");
        let body = json!({"channel":"other","data":"x".repeat(len - 2)});
        let reply = crate::http::api(scene.address(), "publish", body).await;
        assert_eq!(reply["error"]["code"].as_u64(), code, "{len}");
    }
    scene.goes_on().await;
    drop(peer);
    scene.ends().await;
}

#[tokio::test]
async fn the_server_api_refuses_nonsense_and_excess() {
    const BODY: usize = 200_000;
    let mut scene = Scene::with(|config| config.api.max_body = Some(BODY)).await;
    let address = scene.address();
    for key in ["", "hus", "hush ush", "hushhush", &"h".repeat(4_000)] {
        assert_eq!(crate::http::post(address, "/api/publish", key, "{}").await.0, 401, "{key:.20}");
    }
    let publish = async |body: &str| crate::http::post(address, "/api/publish", "hush", body).await;
    for body in ["", "{", "null", "[]", "nonsense", r#"{"channel":1,"data":1}"#, &"[".repeat(BODY)] {
        let (status, answer) = publish(body).await;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!((status, &answer["error"]["code"]), (200, &json!(107)), "{body:.20}");
    }
    let body = r#"{"channel":"other","data":1}"#;
    let padded = |len: usize| format!("{body}{}", " ".repeat(len - body.len()));
    assert_eq!(publish(&padded(BODY)).await, (200, r#"{"result":{}}"#.to_owned()));
    assert_eq!(publish(&padded(BODY + 1)).await.0, 413);
    for (count, code) in [(1_000, None), (1_001, Some(106))] {
        for parallel in [false, true] {
            let commands = vec![json!({"info":{}}); count];
            let body = json!({"commands":commands,"parallel":parallel});
            let answer = crate::http::api(address, "batch", body).await;
            assert_eq!(answer["error"]["code"].as_u64(), code);
            assert_eq!(answer["replies"].as_array().map(Vec::len), code.is_none().then_some(count));
        }
    }
    let many = json!({"channels":vec!["other"; 10_001],"data":1});
    assert_eq!(crate::http::api(address, "broadcast", many).await["error"]["code"], 106);
    let nested = json!({"commands":[{"batch":{"commands":[{"info":{}}]}}]});
    assert_eq!(crate::http::api(address, "batch", nested).await["replies"][0]["error"]["code"], 104);
    // Five keys, seven bodies that say nothing, one too long, two batches, a broadcast, and a batch in a batch.
    scene.counted("api_refused_total", 17).await;
    scene.goes_on().await;
    scene.ends().await;
}

#[tokio::test]
async fn tokens_that_prove_nothing_let_nobody_in() {
    let mut scene = Scene::with(|config| {
        let secret = "a secret of servers".to_owned();
        let token = TokenConfig { hmac_secret: secret, anonymous: true, ..TokenConfig::default() };
        config.token = Some(token);
    })
    .await;
    // HS256 with another secret; `none`; a `kid` of nobody; one that is too long; and no token at all.
    let forged = [
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c".to_owned(),
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9.".to_owned(),
        "eyJhbGciOiJIUzI1NiIsImtpZCI6Ii4uLy4uL2Rldi9udWxsIn0.eyJzdWIiOiJhZG1pbiJ9.AAAA".to_owned(),
        "x".repeat(60_000),
        "..".to_owned(),
    ];
    for (at, token) in forged.iter().enumerate() {
        let mut peer = Peer::open(scene.address(), "/connection/websocket").await;
        peer.say(&json!({"id":1,"connect":{"token":token}}).to_string()).await;
        assert_eq!(peer.closed().await, 3_500, "{token:.60}");
        scene.counted("violations_total", at as u64 + 1).await;
    }
    scene.goes_on().await;
    scene.ends().await;
}

#[tokio::test]
async fn a_last_event_id_that_is_none_is_told_of_the_gap_or_begins_anew() {
    let mut scene = Scene::with(|_| {}).await;
    scene.gateway.handle().publish("kept:a", "1").await.unwrap();
    for id in ["", "x", ":", "1", "a:b", "a:-1", "a:99999999999999999999", "::1", &"9".repeat(4_000)] {
        let mut stream = TcpStream::connect(scene.address()).await.unwrap();
        stream
            .write_all(
                format!("GET /sse/kept:a HTTP/1.1\r\nHost: here\r\nLast-Event-ID: {id}\r\n\r\n").as_bytes(),
            )
            .await
            .unwrap();
        let head = read_head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{id:.20} -> {head}");
        // Again and again, as the answer begins before the subscription does.
        let mut text = String::new();
        let heard = timeout(DEADLINE, async {
            while !text.contains("data: \"mark\"") && !text.contains("event: gap") {
                scene.gateway.handle().publish("kept:a", "\"mark\"").await.unwrap();
                let mut some = [0; 512];
                let read = timeout(Duration::from_millis(100), stream.read(&mut some)).await;
                if let Ok(read) = read {
                    let read = read.unwrap();
                    assert!(read > 0, "{id:.20}: it was closed after {text}");
                    text.push_str(&String::from_utf8_lossy(&some[..read]));
                }
            }
        });
        assert!(heard.await.is_ok(), "{id:.20}: nothing came but {text}");
        assert!(!text.contains("data: 1\n"), "nothing that it has not asked for: {text}");
    }
    scene.goes_on().await;
    scene.ends().await;
}

/// Opens twenty connections that say a part of a head and no more.
async fn trickle(address: SocketAddr) -> Vec<TcpStream> {
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /conn").await.unwrap();
        slow.push(stream);
    }
    slow
}

#[tokio::test]
async fn slow_heads_count_as_connections_and_are_cut_in_time() {
    let mut scene = Scene::with(|config| {
        config.limits.max_connections = 21;
        // Nobody is cut before all have been counted.
        config.session.handshake_timeout = Duration::from_secs(600);
    })
    .await;
    let slow = trickle(scene.address()).await;
    scene.counted("connections", 21).await;
    let mut late = TcpStream::connect(scene.address()).await.unwrap();
    late.write_all(request("/connection/websocket", "").as_bytes()).await.unwrap();
    assert!(read_head(&mut late).await.starts_with("HTTP/1.1 503 "));
    scene.goes_on().await;
    drop(slow);
    scene.counted("connections", 1).await;
    scene.ends().await;
    let mut scene = Scene::with(|config| config.session.handshake_timeout = Duration::from_secs(2)).await;
    for mut stream in trickle(scene.address()).await {
        // With a word or without one, it is over.
        drop(timeout(DEADLINE, stream.read_to_end(&mut Vec::new())).await.expect("still open"));
    }
    scene.counted("connections", 1).await;
    scene.goes_on().await;
    scene.ends().await;
}

#[tokio::test]
async fn a_pusher_signature_is_good_for_its_own_socket_and_words_alone() {
    let mut scene = Scene::with(|_| {}).await;
    let (first, socket) = crate::pusher::open(scene.address()).await;
    let (mut thief, other) = crate::pusher::open(scene.address()).await;
    let sign = |text: String| format!("app-key:{}", crate::pusher::mac(&text));
    let user = r#"{"user_id":"a"}"#;
    for (channel, auth, data) in [
        // Replayed for another socket, another channel, another user, without its user, by another key.
        ("private-a", sign(format!("{socket}:private-a")), ""),
        ("private-a", sign(format!("{other}:private-b")), ""),
        ("presence-a", sign(format!("{other}:presence-a:{{\"user_id\":\"b\"}}")), user),
        ("presence-a", sign(format!("{other}:presence-a")), user),
        ("private-a", sign(format!("{other}:private-a")).replace("app-key", "app-kez"), ""),
        ("private-a", sign(format!("{other}:private-a")).to_uppercase(), ""),
        ("private-a", String::new(), ""),
        ("private-a", "x".repeat(10_000), ""),
    ] {
        let wish =
            json!({"event":"pusher:subscribe","data":{"channel":channel,"auth":auth,"channel_data":data}});
        thief.say(&wish.to_string()).await;
        let reply: Value = thief.json().await;
        assert_eq!(
            (&reply["event"], &reply["data"]["status"]),
            (&json!("pusher:subscription_error"), &json!(401)),
            "{reply}"
        );
    }
    let wish = json!({"event":"pusher:subscribe",
        "data":{"channel":"private-a","auth":sign(format!("{other}:private-a"))}});
    thief.say(&wish.to_string()).await;
    assert_eq!(thief.json().await["event"], "pusher_internal:subscription_succeeded");
    scene.goes_on().await;
    drop((thief, first));
    scene.ends().await;
}
