//! Health, metrics and the server API.

use crate::peer::Peer;
use crate::start::{DEADLINE, gateway, over};
use evenkeel_gateway::MemoryBroker;
use md5::{Digest, Md5};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

async fn send(address: SocketAddr, request: String) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    send(address, format!("GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")).await
}

pub(crate) async fn post(address: SocketAddr, path: &str, key: &str, body: &str) -> (u16, String) {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\nX-API-Key: {key}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    send(address, head + body).await
}

pub(crate) async fn api(address: SocketAddr, method: &str, body: Value) -> Value {
    let (status, body) = post(address, &format!("/api/{method}"), "hush", &body.to_string()).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

#[tokio::test]
async fn health_readiness_and_metrics_answer() {
    let gateway = gateway().await;
    let address = gateway.local_addr();
    assert_eq!(get(address, "/healthz").await, (200, "alive".to_owned()));
    assert_eq!(get(address, "/readyz").await, (200, "ready".to_owned()));
    let (status, metrics) = get(address, "/metrics").await;
    assert_eq!(status, 200);
    assert!(metrics.contains("evenkeel_gateway_ready 1"), "{metrics}");
    assert_eq!(get(address, "/elsewhere").await.0, 404);
    assert_eq!(post(address, "/healthz", "", "").await.0, 405);
    gateway.stop().await;
}

#[tokio::test]
async fn the_server_api_needs_its_key() {
    let gateway = gateway().await;
    let address = gateway.local_addr();
    assert_eq!(post(address, "/api/info", "", "{}").await.0, 401);
    assert_eq!(post(address, "/api/info", "hus", "{}").await.0, 401);
    assert_eq!(post(address, "/api/info", "hush", "{}").await.0, 200);
    assert_eq!(post(address, "/api/dance", "hush", "{}").await.0, 404);
    assert_eq!(get(address, "/api/info").await.0, 401);
    gateway.stop().await;
    let mut closed = crate::start::config();
    closed.api.key = None;
    let gateway = over(closed, Arc::new(MemoryBroker::new())).await;
    assert_eq!(post(gateway.local_addr(), "/api/info", "", "{}").await.0, 404);
    gateway.stop().await;
}

#[tokio::test]
async fn the_server_api_publishes_and_looks() {
    let gateway = gateway().await;
    let address = gateway.local_addr();
    let mut peer = Peer::connect(address).await;
    let epoch = peer.subscribe("kept:a").await["subscribe"]["epoch"].clone();
    let answer = api(address, "publish", json!({"channel":"kept:a","data":{"n":1}})).await;
    assert_eq!(answer, json!({"result":{"offset":1,"epoch":epoch}}));
    assert_eq!(peer.json().await["push"]["pub"], json!({"data":{"n":1},"offset":1}));
    let answer = api(address, "broadcast", json!({"channels":["kept:a","kept:b","no:c"],"data":2})).await;
    assert_eq!(answer["result"]["responses"][0]["result"]["offset"], 2);
    assert_eq!(answer["result"]["responses"][1]["result"]["offset"], 1);
    assert_eq!(answer["result"]["responses"][2]["error"]["code"], 102);
    let answer = api(address, "history", json!({"channel":"kept:a","limit":-1})).await;
    assert_eq!(answer["result"]["publications"], json!([{"data":{"n":1},"offset":1},{"data":2,"offset":2}]));
    let answer = api(address, "channels", json!({"pattern":"kept:*"})).await;
    assert_eq!(answer["result"]["channels"], json!({"kept:a":{"num_clients":1}}));
    assert_eq!(api(address, "info", json!({})).await["result"]["nodes"][0]["num_clients"], 1);
    for (method, body, code) in [
        ("publish", json!({"channel":"kept:a"}), 107),
        ("publish", json!({"channel":"","data":1}), 107),
        ("publish", json!({"channel":"no:a","data":1}), 102),
        ("publish", json!([1]), 107),
        ("history", json!({"channel":"news"}), 108),
        ("history", json!({"channel":"kept:a","since":{"offset":1,"epoch":"old"}}), 112),
        ("presence", json!({"channel":"news"}), 108),
        ("disconnect", json!({}), 107),
    ] {
        assert_eq!(api(address, method, body).await["error"]["code"], code, "{method}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn the_server_api_ends_subscriptions_and_sessions() {
    let gateway = gateway().await;
    let address = gateway.local_addr();
    let mut peer = Peer::open(address, "/connection/websocket").await;
    peer.say("{\"id\":1,\"connect\":{}}").await;
    let client = peer.json().await["connect"]["client"].as_str().unwrap().to_owned();
    peer.subscribe("news").await;
    api(address, "unsubscribe", json!({"channel":"news","client":client})).await;
    assert_eq!(peer.json().await["push"]["unsubscribe"]["code"], 2000);
    assert_eq!(peer.subscribe("news").await["subscribe"], json!({}), "and may come again");
    api(address, "disconnect", json!({"client":client})).await;
    assert_eq!(peer.closed().await, 3503);
    gateway.stop().await;
}

#[tokio::test]
async fn durability_that_cannot_be_had_is_refused_before_anything_is_published() {
    let gateway = gateway().await;
    let address = gateway.local_addr();
    let mut peer = Peer::connect(address).await;
    peer.subscribe("kept:1").await;
    // The memory of one process has no replicas.
    for (durability, code) in [("replicas(1)", 108), ("replicas(0)", 107), ("twice", 107)] {
        let request = json!({"channel":"kept:1","data":1,"durability":durability});
        assert_eq!(api(address, "publish", request).await["error"]["code"], code, "{durability}");
    }
    let many = json!({"channels":["kept:1"],"data":1,"durability":"replicas(1)"});
    assert_eq!(api(address, "broadcast", many).await["result"]["responses"][0]["error"]["code"], 108);
    api(address, "publish", json!({"channel":"kept:1","data":2})).await;
    assert_eq!(peer.json().await["push"]["pub"]["data"], 2);
    gateway.stop().await;
}

#[tokio::test]
async fn the_server_api_subscribes_and_refreshes() {
    let gateway = gateway().await;
    let address = gateway.local_addr();
    let mut peer = Peer::open(address, "/connection/websocket").await;
    peer.say("{\"id\":1,\"connect\":{}}").await;
    let client = peer.json().await["connect"]["client"].as_str().unwrap().to_owned();
    let epoch = {
        let mut other = Peer::connect(address).await;
        other.subscribe("kept:a").await["subscribe"]["epoch"].clone()
    };
    gateway.handle().publish("kept:a", "1").await.unwrap();
    // What clients may not ask for themselves servers may.
    for (channel, subscribe) in [
        ("kept:a", json!({"recoverable":true,"positioned":true,"epoch":epoch,"offset":1})),
        ("closed:a", json!({})),
    ] {
        let answer = api(address, "subscribe", json!({"channel":channel,"client":client})).await;
        assert_eq!(answer, json!({"result":{}}));
        assert_eq!(peer.json().await, json!({"push":{"channel":channel,"subscribe":subscribe}}));
    }
    api(address, "subscribe", json!({"channel":"kept:a","client":client})).await;
    gateway.handle().publish("kept:a", "2").await.unwrap();
    gateway.handle().publish("closed:a", "3").await.unwrap();
    assert_eq!(peer.json().await["push"]["pub"], json!({"data":2,"offset":2}), "and once only");
    assert_eq!(peer.json().await["push"]["pub"]["data"], 3);
    api(address, "unsubscribe", json!({"channel":"closed:a","client":client})).await;
    assert_eq!(peer.json().await["push"]["unsubscribe"]["code"], 2000);
    #[expect(clippy::disallowed_methods, reason = "permissions end by the wall clock")]
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    api(address, "refresh", json!({"client":client,"expire_at":now + 3_600})).await;
    let refresh = peer.json().await["push"]["refresh"].clone();
    assert_eq!(refresh["expires"], true);
    assert!((3_590..=3_600).contains(&refresh["ttl"].as_u64().unwrap()), "{refresh}");
    api(address, "refresh", json!({"client":client})).await;
    assert_eq!(peer.json().await, json!({"push":{"refresh":{}}}), "no end any more");
    for (method, body, code) in [
        ("subscribe", json!({"channel":"kept:a"}), 107),
        ("subscribe", json!({"channel":"no:a","client":"c"}), 102),
        ("refresh", json!({"expired":true}), 107),
    ] {
        assert_eq!(api(address, method, body).await["error"]["code"], code, "{method}");
    }
    api(address, "refresh", json!({"client":client,"expired":true})).await;
    assert_eq!(peer.closed().await, 3005);
    gateway.stop().await;
}

#[tokio::test]
async fn pushers_rest_api_publishes_what_is_signed() {
    let gateway = gateway().await;
    let address = gateway.local_addr();
    let mut peer = Peer::open(address, "/app/app-key?protocol=7").await;
    peer.json().await;
    peer.say(r#"{"event":"pusher:subscribe","data":{"channel":"room"}}"#).await;
    peer.json().await;
    let body = r#"{"name":"tick","channels":["room"],"data":"{\"n\":1}"}"#;
    #[expect(clippy::disallowed_methods, reason = "signatures carry the time")]
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let sum = crate::pusher::hex(&Md5::digest(body));
    let query = format!("auth_key=app-key&auth_timestamp={now}&auth_version=1.0&body_md5={sum}");
    let signature = crate::pusher::mac(&format!("POST\n/apps/3/events\n{query}"));
    let path = format!("/apps/3/events?{query}&auth_signature={signature}");
    assert_eq!(post(address, &path, "", body).await, (200, "{}".to_owned()));
    assert_eq!(peer.json().await, json!({"event":"tick","channel":"room","data":"{\"n\":1}"}));
    assert_eq!(post(address, &path.replace("room", "x"), "", &body.replace("tick", "tock")).await.0, 401);
    assert_eq!(post(address, &path.replace("/3/", "/4/"), "", body).await.0, 404);
    assert_eq!(get(address, "/apps/3/channels").await.0, 401);
    gateway.stop().await;
}
