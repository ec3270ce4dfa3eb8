//! Clients that do it wrong: each gets its own answer, and nobody else is harmed.

use crate::peer::{Frame, Peer, encode, read_head, request};
use crate::start::{DEADLINE, config, gateway, until, with};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

#[tokio::test]
async fn every_wrong_frame_gets_its_close_code() {
    let gateway = gateway().await;
    let connect = encode(0x81, b"{\"id\":1,\"connect\":{}}");
    for (name, bytes, code) in [
        ("unmasked", b"\x81\x02{}".to_vec(), 1002),
        ("reserved bit", encode(0xC1, b"{}"), 1002),
        ("reserved opcode", encode(0x83, b"{}"), 1002),
        ("bad UTF-8", encode(0x81, b"\xFF"), 1007),
        ("too long", encode(0x81, &vec![b' '; 65_537]), 1009),
        ("binary", encode(0x82, b"{}"), 3501),
        ("no JSON", encode(0x81, b"hello"), 3501),
        ("before connect", encode(0x81, b"{\"id\":1,\"subscribe\":{\"channel\":\"a\"}}"), 3501),
        ("a token nobody can check", encode(0x81, b"{\"id\":1,\"connect\":{\"token\":\"x\"}}"), 3500),
        ("connect twice", [connect.clone(), connect.clone()].concat(), 3501),
        ("no id", [connect.clone(), encode(0x81, b"{\"subscribe\":{\"channel\":\"a\"}}")].concat(), 3501),
    ] {
        let mut peer = Peer::open(gateway.local_addr(), "/connection/websocket").await;
        peer.stream.write_all(&bytes).await.unwrap();
        assert_eq!(peer.closed().await, code, "{name}");
        assert_eq!(peer.next().await, Frame::Ended, "{name}");
    }
    let handle = gateway.handle();
    until("all sessions gone", || handle.sessions() == 0).await;
    gateway.stop().await;
}

#[tokio::test]
async fn commands_before_a_close_are_done_and_the_close_is_answered() {
    let gateway = gateway().await;
    let mut hearer = Peer::connect(gateway.local_addr()).await;
    hearer.subscribe("news").await;
    let mut peer = Peer::connect(gateway.local_addr()).await;
    let publish = encode(0x81, b"{\"id\":2,\"publish\":{\"channel\":\"news\",\"data\":1}}");
    let close = encode(0x88, &4_001_u16.to_be_bytes());
    peer.stream.write_all(&[publish, close].concat()).await.unwrap();
    assert_eq!(peer.closed().await, 4_001);
    assert_eq!(hearer.json().await["push"]["pub"]["data"], 1);
    gateway.stop().await;
}

#[tokio::test]
async fn pings_are_answered_between_fragments() {
    let gateway = gateway().await;
    let mut peer = Peer::connect(gateway.local_addr()).await;
    peer.frame(0x01, b"{\"id\":7,").await;
    peer.frame(0x89, b"are you there").await;
    assert_eq!(peer.next().await, Frame::Pong(b"are you there".to_vec()));
    peer.frame(0x80, b"\"ping\":{}}").await;
    assert_eq!(peer.json().await["id"], 7);
    gateway.stop().await;
}

#[tokio::test]
async fn foreign_origins_and_bad_handshakes_are_refused() {
    let gateway = gateway().await;
    let path = "/connection/websocket";
    for (request, status) in [
        (request(path, "Origin: http://evil-here\r\n"), "403"),
        (request(path, "Origin: null\r\n"), "403"),
        (request(path, "Origin: http://here\r\nOrigin: http://here\r\n"), "403"),
        (request(path, "Origin: http://here\r\n"), "101"),
        (request(path, "").replace("Version: 13", "Version: 8"), "426"),
        (request(path, "").replace("Key: dGhl", "Key: "), "400"),
        (request(path, "").replace("Upgrade: websocket\r\n", ""), "400"),
        ("nonsense\r\n\r\n".to_owned(), "400"),
        (request(path, &format!("Long: {}\r\n", "x".repeat(9_000))), "431"),
    ] {
        let mut stream = TcpStream::connect(gateway.local_addr()).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let head = read_head(&mut stream).await;
        assert_eq!(head.split(' ').nth(1), Some(status), "{request} -> {head}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_trickled_head_is_cut_at_the_deadline() {
    let mut config = config();
    config.session.handshake_timeout = Duration::from_millis(300);
    let gateway = with(config).await;
    let mut stream = TcpStream::connect(gateway.local_addr()).await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "a test measures")]
    let began = Instant::now();
    let trickle = async {
        for byte in request("/connection/websocket", "").bytes().cycle() {
            if stream.write_u8(byte).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, trickle).await.expect("never cut");
    assert!(began.elapsed() >= Duration::from_millis(250));
    let handle = gateway.handle();
    until("counted out", || handle.metrics().contains("gateway_connections 0")).await;
    gateway.stop().await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_told_when_to_come_back() {
    let mut config = config();
    config.limits.max_connections = 1;
    let gateway = with(config).await;
    let first = Peer::connect(gateway.local_addr()).await;
    let mut second = TcpStream::connect(gateway.local_addr()).await.unwrap();
    let mut answer = String::new();
    timeout(DEADLINE, second.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After: 5"), "{answer}");
    drop(first);
    let handle = gateway.handle();
    until("room again", || handle.metrics().contains("gateway_connections 0")).await;
    Peer::connect(gateway.local_addr()).await;
    gateway.stop().await;
}
