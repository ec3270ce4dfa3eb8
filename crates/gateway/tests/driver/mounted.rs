//! The gateway inside an axum application, over real sockets: the router of the example `axum`.

#[path = "../../examples/axum/main.rs"]
#[expect(dead_code, reason = "the test runs the application, not the program")]
mod example;

use crate::peer::{Frame, Peer, read_head, request};
use crate::start::{DEADLINE, config};
use axum::Router;
use evenkeel_gateway::MountedGateway;
use serde_json::json;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

struct App {
    address: SocketAddr,
    gateway: MountedGateway,
    server: JoinHandle<()>,
}

impl App {
    async fn end(self) {
        self.gateway.stop().await;
        self.server.abort();
    }
}

/// The application on bare sockets, as most have it.
async fn app() -> App {
    let (router, gateway) = example::app(config()).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    App { address, gateway, server }
}

/// Sockets behind another layer, as TLS would be one.
struct Layered(TcpListener);

impl axum::serve::Listener for Layered {
    type Io = BufStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        let (stream, peer) = self.0.accept().await.unwrap();
        (BufStream::new(stream), peer)
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

async fn layered(router: Router) -> (SocketAddr, JoinHandle<()>) {
    let listener = Layered(TcpListener::bind("127.0.0.1:0").await.unwrap());
    let address = listener.0.local_addr().unwrap();
    (address, tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }))
}

async fn ask(address: SocketAddr, method: &str, path: &str, more: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{more}Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

async fn connect(address: SocketAddr, token: &str) -> Peer {
    let mut peer = Peer::open(address, "/live/connection/websocket").await;
    peer.say(&json!({"id":1,"connect":{"token":token}}).to_string()).await;
    peer
}

#[tokio::test]
async fn an_application_has_its_own_users_and_broker() {
    let app = app().await;
    let address = app.address;
    let mut peer = connect(address, "user:ann").await;
    assert!(peer.json().await["connect"]["client"].is_string());
    peer.subscribe("news").await;
    assert!(ask(address, "POST", "/say/news", "", "1").await.ends_with("said"));
    assert_eq!(peer.json().await["push"]["pub"]["data"], 1);
    let published =
        ask(address, "POST", "/live/api/publish", "X-API-Key: hush\r\n", r#"{"channel":"news","data":2}"#);
    assert!(published.await.ends_with("{\"result\":{}}"));
    assert_eq!(peer.json().await["push"]["pub"]["data"], 2);
    assert!(ask(address, "GET", "/said", "", "").await.ends_with("\r\n\r\n2"));
    assert_eq!(connect(address, "ann").await.closed().await, 3500);
    app.end().await;
}

#[tokio::test]
async fn all_paths_answer_below_the_applications() {
    let app = app().await;
    let address = app.address;
    assert!(ask(address, "GET", "/live/healthz", "", "").await.ends_with("alive"));
    assert!(ask(address, "GET", "/live/readyz", "", "").await.starts_with("HTTP/1.1 200 "));
    assert!(ask(address, "GET", "/healthz", "", "").await.starts_with("HTTP/1.1 404 "));
    assert!(ask(address, "GET", "/live/sse/closed:1", "", "").await.starts_with("HTTP/1.1 403 "));
    let refused = ask(address, "GET", "/live/connection/websocket", "", "").await;
    assert!(refused.starts_with("HTTP/1.1 400 ") && refused.ends_with("needed here"), "{refused}");

    let mut plain = Peer::open(address, "/live/ws/news").await;
    let mut events = TcpStream::connect(address).await.unwrap();
    events.write_all(b"GET /live/sse/news HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    let head = read_head(&mut events).await.to_lowercase();
    assert!(head.contains("content-type: text/event-stream"), "{head}");
    crate::start::until("both sessions", || app.gateway.handle().sessions() == 2).await;
    app.gateway.handle().publish("news", "{\"n\":1}").await.unwrap();
    assert_eq!(plain.next().await, Frame::Text("{\"n\":1}".to_owned()));
    let mut seen = String::new();
    while !seen.contains("data: {\"n\":1}\n\n") {
        let mut chunk = [0; 256];
        let read = timeout(DEADLINE, events.read(&mut chunk)).await.unwrap().unwrap();
        assert_ne!(read, 0, "{seen}");
        seen.push_str(std::str::from_utf8(&chunk[..read]).unwrap());
    }
    // A reader that hangs up is a session less.
    drop(events);
    crate::start::until("the end of the events", || app.gateway.handle().sessions() == 1).await;

    // Pusher's refusals are told in the new protocol.
    let mut stranger = Peer::open(address, "/live/app/another?protocol=7").await;
    assert_eq!(stranger.json().await["event"], "pusher:error");
    assert_eq!(stranger.closed().await, 4001);
    app.end().await;
}

#[tokio::test]
async fn a_stream_that_is_no_bare_socket_serves_as_well() {
    let (router, gateway) = example::app(config()).await.unwrap();
    let (address, server) = layered(router).await;
    let mut peer = connect(address, "user:ann").await;
    assert!(peer.json().await["connect"]["client"].is_string());
    peer.subscribe("news").await;
    let long = "x".repeat(300_000);
    for at in 0..3 {
        gateway.handle().publish("news", format!("\"{at}{long}\"")).await.unwrap();
        let data = &peer.json().await["push"]["pub"]["data"];
        assert_eq!(*data, format!("{at}{long}"));
    }
    let (code, ()) = tokio::join!(peer.closed(), gateway.stop());
    assert_eq!(code, 3001);
    server.abort();
}

#[tokio::test]
async fn a_gateway_that_stops_opens_no_more_sessions() {
    let app = app().await;
    let mut peer = connect(app.address, "user:ann").await;
    peer.json().await;
    let service = app.gateway.service();
    app.gateway.stop().await;
    assert_eq!(peer.closed().await, 3001);
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    stream.write_all(request("/live/ws/news", "").as_bytes()).await.unwrap();
    let head = read_head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 503 ") && head.to_lowercase().contains("retry-after"), "{head}");
    app.server.abort();

    // Without a server that switches protocols nothing is promised.
    let asked = http::Request::get("/ws/news")
        .header("host", "h")
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .body(axum::body::Body::empty())
        .unwrap();
    let answer = tower_service::Service::call(&mut service.clone(), asked).await.unwrap();
    assert_eq!(answer.status(), 501);
}
