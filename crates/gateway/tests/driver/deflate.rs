//! permessage-deflate over real sockets.

use crate::peer::{Frame, Peer, encode, read_head, request};
use crate::start::{config, gateway, with};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use serde_json::json;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";

async fn open(address: SocketAddr) -> (TcpStream, String) {
    offer(address, OFFER).await
}

async fn offer(address: SocketAddr, offer: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request("/connection/websocket", offer).as_bytes()).await.unwrap();
    let head = read_head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    (stream, head)
}

/// First byte and payload of the next frame.
async fn frame(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let first = stream.read_u8().await.unwrap();
    let len = match stream.read_u8().await.unwrap() {
        126 => usize::from(stream.read_u16().await.unwrap()),
        len => usize::from(len),
    };
    let mut payload = vec![0; len];
    stream.read_exact(&mut payload).await.unwrap();
    (first, payload)
}

fn deflated(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 1_024);
    let mut machine = Compress::new(Compression::best(), false);
    machine.compress_vec(data, &mut out, FlushCompress::Sync).unwrap();
    assert!(out.ends_with(&[0, 0, 0xFF, 0xFF]));
    out.truncate(out.len() - 4);
    out
}

fn inflated(mut data: Vec<u8>) -> Vec<u8> {
    data.extend([0, 0, 0xFF, 0xFF]);
    let mut out = Vec::with_capacity(1 << 16);
    Decompress::new(false).decompress_vec(&data, &mut out, FlushDecompress::None).unwrap();
    out
}

#[tokio::test]
async fn whoever_asks_for_it_gets_compressed_publications() {
    let gateway = gateway().await;
    let (mut stream, head) = open(gateway.local_addr()).await;
    assert!(
        head.contains("permessage-deflate; server_no_context_takeover; client_no_context_takeover"),
        "{head}"
    );
    let hello = "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"news\"}}";
    stream.write_all(&encode(0xC1, &deflated(hello.as_bytes()))).await.unwrap();
    let (first, replies) = frame(&mut stream).await;
    assert_eq!(first, 0x81, "short ones stay as they are");
    assert!(String::from_utf8(replies).unwrap().contains("\"id\":2"));
    let mut plain = Peer::connect(gateway.local_addr()).await;
    plain.subscribe("news").await;
    let text = "again and ".repeat(1_000);
    gateway.handle().publish("news", json!(text).to_string()).await.unwrap();
    let (first, payload) = frame(&mut stream).await;
    assert_eq!(first, 0xC1);
    assert!(payload.len() < 500, "{}", payload.len());
    let push: serde_json::Value = serde_json::from_slice(&inflated(payload)).unwrap();
    assert_eq!(push, plain.json().await, "others get the same without");
    assert_eq!(push["push"]["pub"]["data"], text);
    gateway.stop().await;
}

#[tokio::test]
async fn a_client_with_a_small_window_gets_compressed_what_fits_into_it() {
    let gateway = gateway().await;
    let small = "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9\r\n";
    let (mut stream, head) = offer(gateway.local_addr(), small).await;
    assert!(head.contains("; server_max_window_bits=9\r\n"), "{head}");
    let hello = "{\"id\":1,\"connect\":{}}\n{\"id\":2,\"subscribe\":{\"channel\":\"news\"}}";
    stream.write_all(&encode(0xC1, &deflated(hello.as_bytes()))).await.unwrap();
    frame(&mut stream).await;
    for (times, first_byte) in [(40, 0xC1), (100, 0x81)] {
        let text = "again and ".repeat(times);
        gateway.handle().publish("news", json!(text).to_string()).await.unwrap();
        let (first, payload) = frame(&mut stream).await;
        assert_eq!(first, first_byte, "{times} times");
        let plain = if first == 0xC1 { inflated(payload) } else { payload };
        let push: serde_json::Value = serde_json::from_slice(&plain).unwrap();
        assert_eq!(push["push"]["pub"]["data"], text);
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_bomb_ends_its_own_session_and_nothing_else() {
    let gateway = gateway().await;
    let mut other = Peer::connect(gateway.local_addr()).await;
    for (payload, code) in [(deflated(&vec![0; 4 << 20]), 1009), (vec![0xFF; 20], 1007)] {
        let (mut stream, _) = open(gateway.local_addr()).await;
        stream.write_all(&encode(0xC1, &payload)).await.unwrap();
        let (first, payload) = frame(&mut stream).await;
        assert_eq!((first, u16::from_be_bytes([payload[0], payload[1]])), (0x88, code));
    }
    assert!(other.subscribe("news").await["subscribe"].is_object());
    gateway.stop().await;
}

#[tokio::test]
async fn what_was_not_agreed_is_refused() {
    let mut off = config();
    off.session.compression = false;
    let gateway = with(off).await;
    let (mut stream, head) = open(gateway.local_addr()).await;
    assert!(!head.contains("permessage-deflate"), "{head}");
    stream.write_all(&encode(0xC1, &deflated(b"{}"))).await.unwrap();
    assert_eq!(frame(&mut stream).await.0, 0x88);
    let mut peer = Peer::open(gateway.local_addr(), "/connection/websocket").await;
    peer.frame(0xC1, &deflated(b"{}")).await;
    assert!(matches!(peer.next().await, Frame::Close(Some((1002, _)))));
    gateway.stop().await;
}
