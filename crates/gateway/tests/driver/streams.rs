//! Plain WebSockets and server-sent events.

use crate::peer::{Frame, Peer, encode, read_head};
use crate::start::{DEADLINE, gateway, until};
use std::net::SocketAddr;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

#[tokio::test]
async fn a_plain_socket_hears_and_publishes() {
    let gateway = gateway().await;
    let mut first = Peer::open(gateway.local_addr(), "/ws/news").await;
    let mut second = Peer::open(gateway.local_addr(), "/ws/news").await;
    let handle = gateway.handle();
    until("both subscribed", || handle.metrics().contains("gateway_sessions 2")).await;
    first.say("hello").await;
    for peer in [&mut first, &mut second] {
        assert_eq!(peer.next().await, Frame::Text("hello".to_owned()));
    }
    handle.publish("news", "{\"n\":1}").await.unwrap();
    assert_eq!(second.next().await, Frame::Text("{\"n\":1}".to_owned()));
    let mut peer = Peer::open(gateway.local_addr(), "/ws/kept%3Aa").await;
    until("all subscribed", || handle.metrics().contains("gateway_sessions 3")).await;
    handle.publish("kept:a", "\"kept\"").await.unwrap();
    assert_eq!(peer.next().await, Frame::Text("kept".to_owned()));
    gateway.stop().await;
}

#[tokio::test]
async fn closed_and_unknown_channels_are_refused_in_http() {
    let gateway = gateway().await;
    for (path, status) in [
        ("/ws/closed:a", "403"),
        ("/ws/private-a", "403"),
        ("/ws/nowhere:a", "404"),
        ("/ws/", "400"),
        ("/ws/%FF", "400"),
        ("/sse/closed:a", "403"),
        ("/sse/nowhere:a", "404"),
    ] {
        let mut stream = TcpStream::connect(gateway.local_addr()).await.unwrap();
        stream.write_all(crate::peer::request(path, "").as_bytes()).await.unwrap();
        let head = read_head(&mut stream).await;
        assert_eq!(head.split(' ').nth(1), Some(status), "{path}");
    }
    let mut stream = TcpStream::connect(gateway.local_addr()).await.unwrap();
    let request = crate::peer::request("/sse/news", "Origin: http://evil-here\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 403 "));
    gateway.stop().await;
}

#[tokio::test]
async fn a_publisher_without_permission_is_closed() {
    let mut config = crate::start::config();
    config.channels.publish = evenkeel_gateway::Access::Nobody;
    let gateway = crate::start::with(config).await;
    let mut peer = Peer::open(gateway.local_addr(), "/ws/news").await;
    peer.stream.write_all(&encode(0x81, b"hello")).await.unwrap();
    assert_eq!(peer.closed().await, 1008);
    gateway.stop().await;
}

struct Events {
    stream: BufReader<TcpStream>,
}

impl Events {
    async fn open(address: SocketAddr, path: &str, more: &str) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nHost: here\r\n{more}\r\n").as_bytes())
            .await
            .unwrap();
        let head = read_head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"), "{head}");
        Self { stream: BufReader::new(stream) }
    }

    /// The next event's lines.
    async fn next(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            timeout(DEADLINE, self.stream.read_line(&mut line)).await.expect("an event in time").unwrap();
            match line.trim_end() {
                "" if !lines.is_empty() => return lines,
                ":" | "" => {}
                line => lines.push(line.to_owned()),
            }
        }
    }
}

#[tokio::test]
async fn events_go_on_after_the_last_one_seen() {
    let gateway = gateway().await;
    let handle = gateway.handle();
    let mut events = Events::open(gateway.local_addr(), "/sse/kept:a", "").await;
    until("subscribed", || handle.metrics().contains("gateway_sessions 1")).await;
    handle.publish("kept:a", "{\"n\":1}").await.unwrap();
    let first = events.next().await;
    assert_eq!(first[1], "data: {\"n\":1}");
    let id = first[0].strip_prefix("id: ").unwrap().to_owned();
    assert!(id.ends_with(":1"));
    drop(events);
    for n in ["2", "3"] {
        handle.publish("kept:a", n).await.unwrap();
    }
    let more = format!("Last-Event-ID: {id}\r\nOrigin: http://here\r\n");
    let mut events = Events::open(gateway.local_addr(), "/sse/kept:a", &more).await;
    for n in ["2", "3"] {
        assert_eq!(events.next().await[1], format!("data: {n}"));
    }
    handle.publish("kept:a", "4").await.unwrap();
    assert_eq!(events.next().await[1], "data: 4");
    let mut lost = Events::open(gateway.local_addr(), "/sse/kept:a", "Last-Event-ID: other:1\r\n").await;
    assert_eq!(lost.next().await, ["event: gap", "data: {}"]);
    gateway.stop().await;
    assert_eq!(events.next().await, ["retry: 1000", ": shutdown"]);
}
