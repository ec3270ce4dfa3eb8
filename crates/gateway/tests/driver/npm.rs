//! The npm clients `centrifuge` and `pusher-js`, unmodified, against the gateway.
//!
//! Skipped, with the reason printed, where npm or its registry cannot be reached.

use crate::start::{DEADLINE, config, over};
use evenkeel_gateway::{Gateway, MemoryBroker};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Mutex;
use tokio::time::timeout;

const INSTALL_DEADLINE: Duration = Duration::from_secs(120);

/// One installation serves all tests of this binary.
static INSTALL: Mutex<Option<Result<PathBuf, String>>> = Mutex::const_new(None);

async fn install() -> Result<PathBuf, String> {
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
    for name in ["package.json", "centrifuge.mjs", "pusher.mjs"] {
        std::fs::copy(source.join(name), folder.join(name)).map_err(|error| error.to_string())?;
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
