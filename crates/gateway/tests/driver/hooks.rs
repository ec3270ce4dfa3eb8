//! The application is asked before clients connect, subscribe and publish.

use crate::peer::{Frame, Peer, read_head, request};
use crate::start::{config, until, with};
use evenkeel_gateway::{Access, ChannelOptions, Gateway, GatewayConfig, HookConfig, Namespace};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// An application: it keeps what it is asked, and answers as `answer` says, or never.
struct Application {
    address: SocketAddr,
    /// Path, the header `Cookie`, and the question.
    asked: Arc<Mutex<Vec<(String, String, Value)>>>,
    connections: Arc<AtomicUsize>,
    _task: tokio::task::JoinSet<()>,
}

impl Application {
    async fn start(answer: fn(&str, &Value) -> Option<(u16, Value)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<_>>> = Arc::default();
        let connections: Arc<AtomicUsize> = Arc::default();
        let mut task = tokio::task::JoinSet::new();
        let (keeps, counts) = (asked.clone(), connections.clone());
        task.spawn(async move {
            let mut serving = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                counts.fetch_add(1, Ordering::Relaxed);
                serving.spawn(serve(stream, answer, keeps.clone()));
            }
        });
        Self { address, asked, connections, _task: task }
    }

    fn hook(&self, path: &str) -> HookConfig {
        HookConfig::new(format!("http://{}/{path}", self.address))
    }

    fn last(&self) -> (String, String, Value) {
        self.asked.lock().last().cloned().unwrap()
    }
}

async fn serve(
    stream: TcpStream,
    answer: fn(&str, &Value) -> Option<(u16, Value)>,
    asked: Arc<Mutex<Vec<(String, String, Value)>>>,
) {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut path, mut cookie, mut length) = (String::new(), String::new(), 0);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if let Some(rest) = line.strip_prefix("POST ") {
                path = rest.split(' ').next().unwrap().to_owned();
            }
            match line.to_ascii_lowercase().split_once(": ") {
                Some(("content-length", value)) => length = value.parse().unwrap(),
                Some(("cookie", value)) => value.clone_into(&mut cookie),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        asked.lock().push((path.clone(), cookie, body.clone()));
        let Some((status, said)) = answer(&path, &body) else { return std::future::pending().await };
        let text = said.to_string();
        let head = format!("HTTP/1.1 {status} Said\r\nContent-Length: {}\r\n\r\n", text.len());
        stream.write_all((head + &text).as_bytes()).await.unwrap();
    }
}

/// Channels `ask:*` are as the hooks say.
async fn gateway(application: &Application, change: impl FnOnce(&mut GatewayConfig)) -> Gateway {
    let mut config = config();
    let mut asks = ChannelOptions::default();
    asks.subscribe = Access::Hook;
    asks.publish = Access::Hook;
    config.namespaces.push(Namespace::new("ask", asks));
    config.hooks.connect = Some(application.hook("connect"));
    config.hooks.subscribe = Some(application.hook("subscribe"));
    config.hooks.publish = Some(application.hook("publish"));
    config.hooks.headers = vec!["Cookie".to_owned()];
    change(&mut config);
    with(config).await
}

fn by_name(path: &str, asked: &Value) -> Option<(u16, Value)> {
    let channel = asked["channel"].as_str().unwrap_or_default();
    let said = match (path, channel) {
        ("/connect", _) => match asked["data"]["as"].as_str() {
            Some("stranger") => json!({"error":{"code":1001,"message":"who is that?"}}),
            Some("enemy") => json!({"disconnect":{"code":4501,"reason":"go away"}}),
            who => json!({"result":{"user":who.unwrap_or("somebody"),"data":{"hello":1}}}),
        },
        (_, "ask:no") => json!({"error":{"code":1002,"message":"not you"}}),
        (_, "ask:out") => json!({"disconnect":{"code":4502,"reason":"out"}}),
        (_, "ask:broken") => return Some((500, json!({"result":{}}))),
        (_, "ask:empty") => json!({}),
        (_, "ask:never") => return None,
        ("/publish", _) if asked["data"] == "change" => json!({"result":{"data":"changed"}}),
        _ => json!({"result":{}}),
    };
    Some((200, said))
}

async fn say(peer: &mut Peer, command: Value) -> Value {
    peer.say(&command.to_string()).await;
    peer.json().await
}

async fn open(address: SocketAddr, path: &str, head: &str) -> Peer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request(path, head).as_bytes()).await.unwrap();
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 101 "));
    Peer::on(stream)
}

#[tokio::test]
async fn an_application_says_who_comes_in_and_what_for() {
    let application = Application::start(by_name).await;
    let gateway = gateway(&application, |_| {}).await;
    let mut peer = open(gateway.local_addr(), "/connection/websocket", "Cookie: id=7\r\n").await;
    let reply = say(&mut peer, json!({"id":1,"connect":{"data":{"as":"u1"},"name":"js"}})).await;
    assert_eq!(reply["connect"]["data"], json!({"hello":1}));
    assert_eq!(reply["connect"].get("expires"), None);
    let client = reply["connect"]["client"].clone();
    assert_eq!(
        application.last(),
        (
            "/connect".to_owned(),
            "id=7".to_owned(),
            json!({"client":client,"transport":"websocket","protocol":"json","encoding":"json","name":"js","data":{"as":"u1"}})
        )
    );
    assert_eq!(peer.subscribe("ask:yes").await["subscribe"], json!({}));
    let (path, cookie, asked) = application.last();
    assert_eq!((&*path, &*cookie), ("/subscribe", "id=7"));
    assert_eq!(
        (&asked["user"], &asked["channel"], &asked["client"]),
        (&json!("u1"), &json!("ask:yes"), &client)
    );
    peer.say(r#"{"id":3,"publish":{"channel":"ask:yes","data":"change"}}"#).await;
    // Its own publication may come before the reply or behind it.
    let both = [peer.json().await, peer.json().await];
    assert!(both.contains(&json!({"id":3,"publish":{}})), "{both:?}");
    assert!(both.iter().any(|line| line["push"]["pub"]["data"] == "changed"), "{both:?}");
    assert_eq!(application.last().2["data"], "change");
    // What it refuses has its own words; what is no answer is refused too, and may be tried again.
    for (channel, code, temporary) in
        [("ask:no", 1002, None), ("ask:broken", 100, Some(true)), ("ask:empty", 100, Some(true))]
    {
        let reply = peer.subscribe(channel).await;
        assert_eq!(
            (reply["error"]["code"].as_u64(), reply["error"]["temporary"].as_bool()),
            (Some(code), temporary)
        );
        let reply = say(&mut peer, json!({"id":4,"publish":{"channel":channel,"data":1}})).await;
        assert_eq!(reply["error"]["code"], code);
    }
    assert_eq!(application.connections.load(Ordering::Relaxed), 3, "each hook has kept its connection");
    // Channels whose options say who may are not asked about.
    let asked = application.asked.lock().len();
    assert!(peer.subscribe("news").await["subscribe"].is_object());
    assert_eq!(peer.subscribe("closed:a").await["error"]["code"], 103);
    assert_eq!(application.asked.lock().len(), asked);
    peer.say(r#"{"id":9,"subscribe":{"channel":"ask:out"}}"#).await;
    assert_eq!(peer.next().await, Frame::Close(Some((4502, "out".to_owned()))));
    gateway.stop().await;
}

#[tokio::test]
async fn who_is_not_let_in_gets_nothing_of_what_came_with_it() {
    let application = Application::start(by_name).await;
    let gateway = gateway(&application, |_| {}).await;
    let address = gateway.local_addr();
    let mut peer = Peer::open(address, "/connection/websocket").await;
    // As the library sends it: all in one frame.
    peer.say("{\"id\":1,\"connect\":{\"data\":{\"as\":\"stranger\"}}}\n{\"id\":2,\"subscribe\":{\"channel\":\"news\"}}").await;
    assert_eq!(peer.json().await, json!({"id":1,"error":{"code":1001,"message":"who is that?"}}));
    assert!(say(&mut peer, json!({"id":3,"connect":{}})).await["connect"].is_object(), "it may try again");
    assert!(peer.subscribe("news").await["subscribe"].is_object());
    let mut peer = Peer::open(address, "/connection/websocket").await;
    peer.say(r#"{"id":1,"connect":{"data":{"as":"enemy"}}}"#).await;
    assert_eq!(peer.next().await, Frame::Close(Some((4501, "go away".to_owned()))));
    gateway.stop().await;
}

#[tokio::test]
async fn the_other_protocols_ask_too() {
    let application = Application::start(by_name).await;
    let gateway = gateway(&application, |_| {}).await;
    let address = gateway.local_addr();
    let mut pusher = Peer::open(address, "/app/app-key?protocol=7").await;
    pusher.json().await;
    let subscribe = |channel: &str| json!({"event":"pusher:subscribe","data":{"channel":channel}});
    assert_eq!(
        say(&mut pusher, subscribe("ask:yes")).await["event"],
        "pusher_internal:subscription_succeeded"
    );
    let refused = say(&mut pusher, subscribe("ask:no")).await;
    assert_eq!(
        (&refused["event"], &refused["data"]["status"]),
        (&json!("pusher:subscription_error"), &json!(403))
    );
    assert_eq!(say(&mut pusher, subscribe("ask:empty")).await["data"]["status"], 503);
    let mut raw = Peer::open(address, "/ws/ask:yes").await;
    until("two sessions", || gateway.handle().metrics().contains("gateway_sessions 2")).await;
    raw.say("\"change\"").await;
    assert_eq!(raw.next().await, Frame::Text("changed".to_owned()));
    assert_eq!(pusher.json().await["data"], "changed");
    for (path, code) in [("/ws/ask:no", 1008), ("/ws/ask:empty", 1013), ("/ws/ask:out", 4502)] {
        assert_eq!(Peer::open(address, path).await.closed().await, code, "{path}");
    }
    let mut events = TcpStream::connect(address).await.unwrap();
    events.write_all(request("/sse/ask:no", "").as_bytes()).await.unwrap();
    let mut text = String::new();
    events.read_to_string(&mut text).await.unwrap();
    assert!(
        text.starts_with("HTTP/1.1 200 ") && text.ends_with("\r\n\r\nretry: 5000\n: not allowed here\n\n"),
        "{text}"
    );
    gateway.stop().await;
}

#[tokio::test]
async fn an_application_that_is_down_or_slow_refuses_and_holds_nobody_else_up() {
    let application = Application::start(by_name).await;
    let gateway = gateway(&application, |config| {
        // Nobody listens there.
        config.hooks.connect = None;
        config.hooks.publish = Some(HookConfig::new("http://127.0.0.1:1/"));
        let slow = config.hooks.subscribe.as_mut().unwrap();
        slow.timeout = Duration::from_millis(300);
        slow.max_concurrent = 1;
    })
    .await;
    let address = gateway.local_addr();
    let (mut slow, mut waits, mut other) =
        (Peer::connect(address).await, Peer::connect(address).await, Peer::connect(address).await);
    other.subscribe("news").await;
    assert_eq!(
        say(&mut other, json!({"id":3,"publish":{"channel":"ask:a","data":1}})).await["error"]["code"],
        100
    );
    slow.say(r#"{"id":2,"subscribe":{"channel":"ask:never"}}"#).await;
    until("the question", || !application.asked.lock().is_empty()).await;
    waits.say(r#"{"id":2,"subscribe":{"channel":"ask:yes"}}"#).await;
    gateway.handle().publish("news", "1").await.unwrap();
    assert_eq!(other.json().await["push"]["pub"]["data"], 1);
    assert_eq!(
        slow.json().await["error"],
        json!({"code":100,"message":"internal server error","temporary":true})
    );
    // Its turn came when the slow one was given up, or its own time was over.
    let waited = waits.json().await;
    assert!(waited["subscribe"].is_object() || waited["error"]["code"] == 100, "{waited}");
    assert!(waits.subscribe("ask:again").await["subscribe"].is_object());
    let metrics = gateway.handle().metrics();
    let failed = metrics.lines().find_map(|line| line.strip_prefix("evenkeel_gateway_hooks_failed_total "));
    assert!(failed.unwrap().parse::<u64>().unwrap() >= 2, "{failed:?}");
    gateway.stop().await;
}

#[tokio::test]
async fn an_application_says_how_long_clients_stay() {
    fn briefly(path: &str, asked: &Value) -> Option<(u16, Value)> {
        let said = match (path, asked["channel"].as_str(), asked["user"].as_str()) {
            ("/refresh", _, Some("leaves")) | ("/sub_refresh", Some("ask:over"), _) => {
                json!({"expired":true})
            }
            ("/refresh" | "/sub_refresh", ..) => json!({}),
            // Long over: it is asked about with the next heartbeat.
            ("/connect", ..) => json!({"user":asked["data"]["as"],"expire_at":1}),
            ("/subscribe", ..) => json!({"expire_at":1}),
            _ => return None,
        };
        Some((200, json!({"result":said})))
    }
    let application = Application::start(briefly).await;
    let gateway = gateway(&application, |config| {
        config.session.ping_interval = Duration::from_secs(2);
        config.session.pong_timeout = Duration::from_secs(1);
        config.hooks.refresh = Some(application.hook("refresh"));
        config.hooks.sub_refresh = Some(application.hook("sub_refresh"));
    })
    .await;
    let address = gateway.local_addr();
    let mut stays = Peer::open(address, "/connection/websocket").await;
    say(&mut stays, json!({"id":1,"connect":{"data":{"as":"stays"}}})).await;
    for channel in ["ask:on", "ask:over"] {
        assert!(stays.subscribe(channel).await["subscribe"].is_object());
    }
    assert_eq!(
        stays.json().await,
        json!({"push":{"channel":"ask:over","unsubscribe":{"code":2501,"reason":"expired"}}})
    );
    let asked = |path: &str, channel: Value| {
        let all = application.asked.lock();
        all.iter().filter(|(at, _, asked)| *at == path && asked["channel"] == channel).count()
    };
    until("both questions", || {
        asked("/refresh", json!(null)) > 0 && asked("/sub_refresh", json!("ask:on")) > 0
    })
    .await;
    gateway.handle().publish("ask:over", "1").await.unwrap();
    gateway.handle().publish("ask:on", "2").await.unwrap();
    assert_eq!(stays.json().await["push"]["pub"]["data"], 2);
    let mut leaves = Peer::open(address, "/connection/websocket").await;
    say(&mut leaves, json!({"id":1,"connect":{"data":{"as":"leaves"}}})).await;
    let end = loop {
        match leaves.next().await {
            Frame::Text(text) if text == "{}" => leaves.say("{}").await,
            other => break other,
        }
    };
    assert_eq!(end, Frame::Close(Some((3005, "connection expired".to_owned()))));
    assert_eq!(asked("/refresh", json!(null)), 2, "who has no end any more is not asked about again");
    gateway.stop().await;
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn authorities_of_hooks_are_read_anew() {
    let application = Application::start(by_name).await;
    let (old, new) = (
        crate::front::Front::of(application.address).await,
        crate::front::Front::of(application.address).await,
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::copy(old.authority(), file.path()).unwrap();
    let gateway = gateway(&application, |config| {
        config.hooks.connect = None;
        config.hooks.subscribe = Some(HookConfig::new(format!("https://localhost:{}/subscribe", new.port)));
        config.hooks.ca_file = Some(file.path().to_owned());
    })
    .await;
    let mut peer = Peer::connect(gateway.local_addr()).await;
    assert_eq!(peer.subscribe("ask:yes").await["error"]["code"], 100);
    std::fs::write(file.path(), "no certificate").unwrap();
    let error = gateway.handle().reload().unwrap_err();
    assert!(error.to_string().contains("hooks.ca_file"), "{error}");
    std::fs::copy(new.authority(), file.path()).unwrap();
    gateway.handle().reload().unwrap();
    assert!(peer.subscribe("ask:yes").await["subscribe"].is_object());
    gateway.stop().await;
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn an_application_is_asked_over_tls_when_its_authority_is_trusted() {
    let application = Application::start(by_name).await;
    let front = crate::front::Front::of(application.address).await;
    let url = format!("https://localhost:{}/subscribe", front.port);
    let trusts = |authority: std::path::PathBuf| {
        gateway(&application, |config| {
            config.hooks.connect = None;
            config.hooks.subscribe = Some(HookConfig::new(url.clone()));
            config.hooks.ca_file = Some(authority);
        })
    };
    let trusting = trusts(front.authority()).await;
    let mut peer = Peer::connect(trusting.local_addr()).await;
    for channel in ["ask:yes", "ask:again"] {
        assert!(peer.subscribe(channel).await["subscribe"].is_object());
    }
    assert_eq!(peer.subscribe("ask:no").await["error"]["code"], 1002);
    assert_eq!(application.connections.load(Ordering::Relaxed), 1, "the connection is kept");
    trusting.stop().await;

    // One that somebody else stands for is told nothing.
    let other = crate::front::Front::of(application.address).await;
    let asked = application.asked.lock().len();
    let wary = trusts(other.authority()).await;
    let mut peer = Peer::connect(wary.local_addr()).await;
    assert_eq!(peer.subscribe("ask:yes").await["error"]["code"], 100);
    assert_eq!(application.asked.lock().len(), asked);
    wary.stop().await;
}

#[tokio::test]
async fn settings_that_ask_nobody_are_refused() {
    let refused = async |change: fn(&mut GatewayConfig)| {
        let mut config = config();
        change(&mut config);
        Gateway::builder().config(config).start().await.unwrap_err().to_string()
    };
    let error = refused(|config| config.channels.subscribe = Access::Hook).await;
    assert!(error.contains("channels.subscribe"), "{error}");
    let error = refused(|config| config.channels.history = Access::Hook).await;
    assert!(error.contains("history"), "{error}");
    for url in ["wss://h/", "h", "http://", "http://user:secret@h/", "/path"] {
        let mut config = config();
        config.hooks.connect = Some(HookConfig::new(url));
        let error = Gateway::builder().config(config).start().await.unwrap_err().to_string();
        assert!(error.contains("hooks.connect.url") && !error.contains("secret"), "{error}");
    }
    let error = refused(|config| config.hooks.headers = vec!["Host".to_owned()]).await;
    assert!(error.contains("hooks.headers"), "{error}");
}
