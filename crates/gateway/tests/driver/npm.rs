//! The npm clients `centrifuge` and `pusher-js`, unmodified, against the gateway.
//!
//! Skipped, with the reason printed, where npm or its registry cannot be reached.

use crate::start::{DEADLINE, config, over};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use evenkeel_gateway::{Access, Gateway, MemoryBroker};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;
use tokio::time::timeout;

const SECRET: &str = "a secret of servers";
const INSTALL_DEADLINE: Duration = Duration::from_secs(120);

/// One installation serves all tests of this binary.
static INSTALL: Mutex<Option<Result<PathBuf, String>>> = Mutex::const_new(None);

/// The folder of the packages and of everything in `tests/npm`; in words why there is none.
pub(crate) async fn install() -> Result<PathBuf, String> {
    let mut done = INSTALL.lock().await;
    if let Some(result) = &*done {
        return result.clone();
    }
    let result = install_once().await;
    *done = Some(result.clone());
    result
}

async fn install_once() -> Result<PathBuf, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/npm");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("npm");
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    for entry in std::fs::read_dir(&source).map_err(|error| error.to_string())? {
        let entry = entry.map_err(|error| error.to_string())?;
        // Whoever ran npm there by hand left its folder.
        if entry.path().is_file() {
            std::fs::copy(entry.path(), folder.join(entry.file_name())).map_err(|error| error.to_string())?;
        }
    }
    let npm = Command::new("npm")
        .args(["install", "--no-audit", "--no-fund", "--prefer-offline", "--loglevel=error"])
        .current_dir(&folder)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    match timeout(INSTALL_DEADLINE, npm).await {
        Err(_) => Err("npm install did not end in time".to_owned()),
        Ok(Err(error)) => Err(format!("npm cannot be run: {error}")),
        Ok(Ok(output)) if output.status.success() => Ok(folder),
        Ok(Ok(output)) => Err(format!("npm install failed: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// The client library in its own process.
struct Browser {
    _child: Child,
    orders: ChildStdin,
    events: Lines<BufReader<ChildStdout>>,
    seen: Vec<Value>,
}

impl Browser {
    /// `None` when the library cannot be had here.
    async fn start(gateway: &Gateway) -> Option<Self> {
        Self::run(gateway, "centrifuge.mjs").await
    }

    async fn run(gateway: &Gateway, program: &str) -> Option<Self> {
        Self::with(gateway, program, &[]).await
    }

    /// With tokens that the library is given, one each time that it asks.
    async fn with(gateway: &Gateway, program: &str, tokens: &[String]) -> Option<Self> {
        let folder = match install().await {
            Ok(folder) => folder,
            Err(reason) => {
                println!("skipped: the npm client cannot be had: {reason}");
                return None;
            }
        };
        let mut child = Command::new("node")
            .arg(program)
            .arg(format!("ws://{}/connection/websocket", gateway.local_addr()))
            .arg(json!(tokens).to_string())
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let orders = child.stdin.take().unwrap();
        let events = BufReader::new(child.stdout.take().unwrap()).lines();
        Some(Self { _child: child, orders, events, seen: Vec::new() })
    }

    async fn order(&mut self, order: Value) {
        self.orders.write_all(format!("{order}\n").as_bytes()).await.unwrap();
    }

    /// Waits for an event of this name that has these fields; keeps what came before for [`Self::seen`].
    async fn expect(&mut self, name: &str, fields: Value) -> Value {
        loop {
            let line = timeout(DEADLINE, self.events.next_line()).await;
            let Ok(Ok(Some(line))) = line else { panic!("no {name} {fields}; before it: {:?}", self.seen) };
            let event: Value = serde_json::from_str(&line).unwrap();
            self.seen.push(event.clone());
            let fits = fields.as_object().unwrap().iter().all(|(key, value)| event[key] == *value);
            if event["event"] == name && fits {
                return event;
            }
        }
    }

    fn data(&self) -> Vec<Value> {
        let publications = self.seen.iter().filter(|event| event["event"] == "publication");
        publications.map(|event| event["data"].clone()).collect()
    }
}

#[tokio::test]
async fn centrifuge_connects_subscribes_publishes_and_reads_history() {
    let mut config = config();
    config.session.ping_interval = Duration::from_secs(2);
    config.session.pong_timeout = Duration::from_secs(1);
    let gateway = over(config, Arc::new(MemoryBroker::new())).await;
    let Some(mut browser) = Browser::start(&gateway).await else { return };
    for channel in ["news", "kept:a", "closed:a", "nowhere:a"] {
        browser.order(json!({"do":"subscribe","channel":channel})).await;
    }
    browser.order(json!({"do":"connect"})).await;
    browser.expect("connected", json!({})).await;
    browser.expect("unsubscribed", json!({"channel":"closed:a","code":103})).await;
    browser.expect("unsubscribed", json!({"channel":"nowhere:a","code":102})).await;
    gateway.handle().publish("news", r#"{"text":"hello"}"#).await.unwrap();
    browser.expect("publication", json!({"channel":"news","data":{"text":"hello"}})).await;
    browser.order(json!({"do":"publish","channel":"kept:a","data":{"n":1}})).await;
    browser.expect("publication", json!({"channel":"kept:a","data":{"n":1},"offset":1})).await;
    browser.order(json!({"do":"publish","channel":"closed:a","data":1})).await;
    browser.expect("refused", json!({"code":103})).await;
    browser.order(json!({"do":"history","channel":"kept:a","limit":10})).await;
    browser.expect("history", json!({"offset":1,"data":[{"n":1}]})).await;
    // Longer than a heartbeat and its answer may take: the session lives on what the library answers.
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    browser.order(json!({"do":"unsubscribe","channel":"news"})).await;
    browser.expect("unsubscribed", json!({"channel":"news","code":0})).await;
    gateway.handle().publish("news", "1").await.unwrap();
    gateway.handle().publish("kept:a", "2").await.unwrap();
    browser.expect("publication", json!({"channel":"kept:a","data":2})).await;
    assert_eq!(browser.data(), [json!({"text":"hello"}), json!({"n":1}), json!(2)]);
    assert!(!browser.seen.iter().any(|event| event["event"] == "disconnected"), "{:?}", browser.seen);
    let connecting = browser.seen.iter().filter(|event| event["event"] == "connecting").count();
    assert_eq!(connecting, 1, "the heartbeat kept the session");
    gateway.stop().await;
}

#[tokio::test]
async fn centrifuge_recovers_through_a_gateway_restart() {
    let broker = Arc::new(MemoryBroker::new());
    let first = over(config(), broker.clone()).await;
    let address = first.local_addr();
    let Some(mut browser) = Browser::start(&first).await else { return };
    browser.order(json!({"do":"subscribe","channel":"kept:a"})).await;
    browser.order(json!({"do":"connect"})).await;
    browser.expect("subscribed", json!({"channel":"kept:a"})).await;
    first.handle().publish("kept:a", "1").await.unwrap();
    browser.expect("publication", json!({"data":1})).await;
    first.stop().await;
    let mut away = config();
    away.listen = "127.0.0.1:0".parse().unwrap();
    let elsewhere = over(away, broker.clone()).await;
    for n in 2..=20 {
        elsewhere.handle().publish("kept:a", n.to_string()).await.unwrap();
    }
    let mut same = config();
    same.listen = address;
    let second = over(same, broker.clone()).await;
    browser.expect("subscribed", json!({"channel":"kept:a","wasRecovering":true,"recovered":true})).await;
    second.handle().publish("kept:a", "21").await.unwrap();
    browser.expect("publication", json!({"data":21})).await;
    assert_eq!(browser.data(), (1..=21).map(|n| json!(n)).collect::<Vec<_>>(), "each once, in order");
    assert!(!browser.seen.iter().any(|event| event["event"] == "disconnected"));
    second.stop().await;
    elsewhere.stop().await;
}

/// A token of `u1` that ends after so many seconds.
fn token(seconds: u64) -> String {
    #[expect(clippy::disallowed_methods, reason = "tokens end by the wall clock")]
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let encode = |text: &[u8]| URL_SAFE_NO_PAD.encode(text);
    let claims = json!({"sub":"u1","exp":now + seconds}).to_string();
    let signed = format!("{}.{}", encode(br#"{"alg":"HS256"}"#), encode(claims.as_bytes()));
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(signed.as_bytes());
    format!("{signed}.{}", encode(&mac.finalize().into_bytes()))
}

#[tokio::test]
async fn centrifuge_renews_its_token_and_its_session_goes_on() {
    let mut config = config();
    config.token = Some(serde_json::from_value(json!({"hmac_secret":SECRET})).unwrap());
    config.channels.subscribe = Access::Users;
    let gateway = over(config, Arc::new(MemoryBroker::new())).await;
    // The first is over already: it is refused, and the library asks for another one.
    let tokens = [token(0), token(3), token(3_600)];
    let Some(mut browser) = Browser::with(&gateway, "centrifuge.mjs", &tokens).await else { return };
    browser.order(json!({"do":"subscribe","channel":"news"})).await;
    browser.order(json!({"do":"subscribe","channel":"closed:a"})).await;
    browser.order(json!({"do":"connect"})).await;
    browser.expect("token", json!({"left":2})).await;
    browser.expect("token", json!({"left":1})).await;
    let client = browser.expect("connected", json!({})).await["client"].clone();
    browser.expect("unsubscribed", json!({"channel":"closed:a","code":103})).await;
    // When the second ends the library brings the third, on the connection that it has.
    browser.expect("token", json!({"left":0})).await;
    browser.order(json!({"do":"publish","channel":"news","data":1})).await;
    browser.expect("publication", json!({"channel":"news","data":1})).await;
    let connected: Vec<_> = browser.seen.iter().filter(|event| event["event"] == "connected").collect();
    assert!(connected.iter().all(|event| event["client"] == client), "{:?}", browser.seen);
    assert!(!browser.seen.iter().any(|event| event["event"] == "disconnected"), "{:?}", browser.seen);
    // Its permission is the third token's now.
    let order = json!({"user":"u1","expired":true});
    assert_eq!(crate::http::api(gateway.local_addr(), "refresh", order).await, json!({"result":{}}));
    browser.expect("connecting", json!({"code":3005})).await;
    gateway.stop().await;
}

#[tokio::test]
async fn centrifuge_is_subscribed_by_the_server() {
    let gateway = over(config(), Arc::new(MemoryBroker::new())).await;
    let Some(mut browser) = Browser::start(&gateway).await else { return };
    browser.order(json!({"do":"connect"})).await;
    let client = browser.expect("connected", json!({})).await["client"].clone();
    let order = json!({"channel":"closed:a","client":client});
    crate::http::api(gateway.local_addr(), "subscribe", order.clone()).await;
    browser.expect("server subscribed", json!({"channel":"closed:a"})).await;
    gateway.handle().publish("closed:a", "1").await.unwrap();
    browser.expect("server publication", json!({"channel":"closed:a","data":1})).await;
    crate::http::api(gateway.local_addr(), "unsubscribe", order).await;
    browser.expect("server unsubscribed", json!({"channel":"closed:a"})).await;
    gateway.stop().await;
}

#[cfg(feature = "redis")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn centrifuge_recovers_through_a_redis_failover_and_a_gateway_restart() {
    use evenkeel_testkit::launcher::{SentinelFailover, SentinelOptions, SentinelTrio, Servers};
    let servers = Servers::discover();
    if servers.are_switched_off() {
        println!("skipped: servers are switched off");
        return;
    }
    let trio = SentinelTrio::start(servers.preferred().unwrap(), SentinelOptions::default()).await.unwrap();
    let sentinels: Vec<String> = trio.sentinels().iter().map(ToString::to_string).collect();
    let start = async |listen: &str| {
        let mut config = config();
        config.listen = listen.parse().unwrap();
        config.namespaces[0].options.history_size = 10_000;
        config.limits.max_recovered = 10_000;
        config.redis.url = Some(format!("redis+sentinel://{}/{}", sentinels.join(","), trio.name()));
        Gateway::builder().config(config).shards(2).start().await.unwrap()
    };
    let (first, elsewhere) = (start("127.0.0.1:0").await, start("127.0.0.1:0").await);
    let address = first.local_addr();
    let Some(mut browser) = Browser::start(&first).await else { return };
    browser.order(json!({"do":"subscribe","channel":"kept:a"})).await;
    browser.order(json!({"do":"connect"})).await;
    browser.expect("subscribed", json!({"channel":"kept:a"})).await;
    let handle = elsewhere.handle();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let published = Arc::new(AtomicU64::new(0));
    let counts = published.clone();
    let publisher = tokio::spawn(async move {
        let mut n = 0;
        while !*stopped.borrow() {
            n += 1;
            handle.publish("kept:a", n.to_string()).await.unwrap();
            counts.store(n, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        n
    });
    browser.expect("publication", json!({"data":50})).await;
    let old = trio.primary().await.unwrap();
    trio.failover(SentinelFailover::Plain).await.unwrap();
    trio.wait_for_new_primary(old).await.unwrap();
    let later = published.load(Ordering::Relaxed) + 20;
    browser.expect("publication", json!({"data":later})).await;
    first.stop().await;
    let second = start(&address.to_string()).await;
    browser.expect("subscribed", json!({"channel":"kept:a","wasRecovering":true,"recovered":true})).await;
    stop.send_replace(true);
    let last = publisher.await.unwrap();
    browser.expect("publication", json!({"data":last})).await;
    assert_eq!(browser.data(), (1..=last).map(|n| json!(n)).collect::<Vec<_>>(), "each once, in order");
    assert!(!browser.seen.iter().any(|event| event["event"] == "disconnected"), "{:?}", browser.seen);
    second.stop().await;
    elsewhere.stop().await;
}

#[tokio::test]
async fn pusher_js_subscribes_hears_and_comes_back_after_a_restart() {
    let broker = Arc::new(MemoryBroker::new());
    let first = over(config(), broker.clone()).await;
    let address = first.local_addr();
    let Some(mut one) = Browser::run(&first, "pusher.mjs").await else { return };
    let Some(mut two) = Browser::run(&first, "pusher.mjs").await else { return };
    for browser in [&mut one, &mut two] {
        for channel in ["room", "private-a", "private-forbidden"] {
            browser.order(json!({"do":"subscribe","channel":channel})).await;
        }
        browser.expect("refused", json!({"channel":"private-forbidden","status":401})).await;
    }
    one.order(json!({"do":"trigger","channel":"private-a","name":"client-typing","data":{"n":1}})).await;
    two.expect("message", json!({"channel":"private-a","name":"client-typing","data":{"n":1}})).await;
    first.handle().publish("room", r#"{"event":"tick","data":{"n":2}}"#).await.unwrap();
    for browser in [&mut one, &mut two] {
        browser.expect("message", json!({"channel":"room","name":"tick","data":{"n":2}})).await;
    }
    let own = one.seen.iter().filter(|event| event["name"] == "client-typing").count();
    assert_eq!(own, 0, "what a client sends does not come back to it");
    first.stop().await;
    let mut same = config();
    same.listen = address;
    let second = over(same, broker).await;
    one.expect("connected", json!({})).await;
    one.expect("subscribed", json!({"channel":"room"})).await;
    second.handle().publish("room", r#"{"event":"tick","data":{"n":3}}"#).await.unwrap();
    one.expect("message", json!({"name":"tick","data":{"n":3}})).await;
    second.stop().await;
}
