//! A WebSocket server that gives back every message, on the gateway's own codec: what conformance suites such as
//! Autobahn talk to. `cargo run --release -p evenkeel-gateway --example echo -- 127.0.0.1:9301`.

#![expect(clippy::expect_used, clippy::print_stdout, reason = "a program for conformance suites")]

#[expect(dead_code, reason = "the gateway uses more of its codec")]
#[path = "../../src/ws/mod.rs"]
mod ws;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use ws::close::CloseCode;
use ws::decode::{Decoder, Event};
use ws::deflate::Agreed;
use ws::{Opcode, encode, handshake};

/// Autobahn's largest message, 16 MiB, and room above it.
const MAX_MESSAGE: u32 = 20 << 20;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let listener = TcpListener::bind(address).await.expect("a listener");
    println!("listening on {}", listener.local_addr().expect("an address"));
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        tokio::spawn(async move {
            // What goes wrong on one connection ends it.
            drop(serve(stream).await);
        });
    }
}

async fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut read = Vec::new();
    let (answer, deflate, head) = loop {
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut headers);
        let Ok(httparse::Status::Complete(head)) = request.parse(&read) else { continue };
        let parsed = handshake::Head {
            method: request.method.unwrap_or_default(),
            target: request.path.unwrap_or_default(),
            version: request.version.unwrap_or_default(),
            headers: request.headers,
        };
        let deflate = handshake::offered_deflate(&parsed);
        let Ok(answer) = handshake::accept(&parsed, deflate) else { return Ok(()) };
        break (answer, deflate, head);
    };
    stream.write_all(&answer).await?;
    let mut decoder = Decoder::new(MAX_MESSAGE).deflating(deflate.is_some());
    let mut bytes = read.split_off(head);
    loop {
        let mut rest = bytes.as_mut_slice();
        loop {
            let (frame, last) = match decoder.decode(&mut rest) {
                Ok(None) => break,
                Ok(Some(event)) => answer_to(&event, deflate),
                Err(violation) => (Some(encode::close(Some(violation.close_code()))), true),
            };
            if let Some(frame) = frame {
                stream.write_all(&frame).await?;
            }
            if last {
                return goodbye(stream).await;
            }
        }
        bytes.resize(64 * 1024, 0);
        let len = stream.read(&mut bytes).await?;
        if len == 0 {
            return Ok(());
        }
        bytes.truncate(len);
    }
}

/// What to say, and whether that is the last.
fn answer_to(event: &Event<'_>, deflate: Option<Agreed>) -> (Option<Bytes>, bool) {
    match event {
        Event::Text(text) => {
            let frame = encode::text(text.as_bytes());
            let covered = deflate.is_some_and(|agreed| agreed.covers(frame.len()));
            (Some(if covered { ws::deflate::compressed(&frame).unwrap_or(frame) } else { frame }), false)
        }
        Event::Binary(data) => (Some(encode::frame(Opcode::Binary, data)), false),
        Event::Ping(payload) => (Some(encode::frame(Opcode::Pong, payload)), false),
        Event::Pong => (None, false),
        Event::Close(code) => (Some(encode::close(code.map(|code| CloseCode::new(code, "")))), true),
    }
}

async fn goodbye(mut stream: TcpStream) -> std::io::Result<()> {
    stream.shutdown().await?;
    let mut rest = [0; 1024];
    let all = async { while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {} };
    // A peer that never hangs up is not waited for.
    drop(tokio::time::timeout(std::time::Duration::from_secs(1), all).await);
    Ok(())
}
