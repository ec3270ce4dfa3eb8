//! A link over bare sockets: one connection for commands, one for the subscription, redialled until they stand.
//! And a subscriber of the gateway.

use crate::broker::BoxFuture;
use crate::broker::redis::link::{LinkError, LinkEvent, LinkReply, RedisLink, RedisListener};
use crate::publication::Channel;
use bytes::Bytes;
use serde_json::Value;
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::{Mutex, mpsc};

const REDIAL: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(super) struct Direct {
    address: SocketAddr,
    stream: Mutex<Option<BufReader<TcpStream>>>,
}

impl Direct {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self { address, stream: Mutex::new(None) }
    }
}

impl RedisLink for Direct {
    fn command(&self, args: Vec<Bytes>) -> BoxFuture<'_, Result<LinkReply, LinkError>> {
        Box::pin(async move {
            let mut slot = self.stream.lock().await;
            if slot.is_none() {
                let stream = TcpStream::connect(self.address).await.map_err(|_refused| LinkError::NotRun)?;
                *slot = Some(BufReader::new(stream));
            }
            let stream = slot.as_mut().expect("just made");
            let answer = async {
                stream.write_all(&encode(&args)).await?;
                read(stream).await
            };
            match answer.await {
                Ok(Ok(reply)) => Ok(reply),
                Ok(Err(code)) if matches!(&*code, "LOADING" | "READONLY" | "MASTERDOWN") => {
                    Err(LinkError::NotRun)
                }
                Ok(Err(code)) => Err(LinkError::Refused { code }),
                Err(_lost) => {
                    *slot = None;
                    Err(LinkError::Unknown)
                }
            }
        })
    }

    fn listen(&self, _sharded: bool) -> BoxFuture<'_, Result<Box<dyn RedisListener>, LinkError>> {
        let (events, heard) = mpsc::channel(10_000);
        let (orders, taken) = mpsc::channel(1_000);
        tokio::spawn(listen(self.address, taken, events));
        Box::pin(std::future::ready(Ok(Box::new(Ear { heard, orders }) as Box<dyn RedisListener>)))
    }
}

#[derive(Debug)]
struct Ear {
    heard: mpsc::Receiver<LinkEvent>,
    orders: mpsc::Sender<(bool, Vec<Channel>)>,
}

impl RedisListener for Ear {
    fn subscribe(&mut self, channels: Vec<Channel>) {
        self.orders.try_send((true, channels)).expect("room");
    }

    fn unsubscribe(&mut self, channels: Vec<Channel>) {
        self.orders.try_send((false, channels)).expect("room");
    }

    fn next<'a>(&'a mut self, events: &'a mut Vec<LinkEvent>) -> BoxFuture<'a, bool> {
        Box::pin(async move { self.heard.recv_many(events, 64).await > 0 })
    }

    fn renew(&mut self) {}
}

async fn listen(
    address: SocketAddr,
    mut orders: mpsc::Receiver<(bool, Vec<Channel>)>,
    events: mpsc::Sender<LinkEvent>,
) {
    let mut wanted = BTreeSet::new();
    let mut again = false;
    loop {
        let Ok(stream) = TcpStream::connect(address).await else {
            tokio::time::sleep(REDIAL).await;
            continue;
        };
        let (read_half, mut write_half) = stream.into_split();
        let (replies, mut replied) = mpsc::channel(10_000);
        let reader = tokio::spawn(async move {
            let mut stream = BufReader::new(read_half);
            while let Ok(Ok(reply)) = read(&mut stream).await {
                if replies.send(reply).await.is_err() {
                    return;
                }
            }
        });
        let mut owed: BTreeSet<Channel> = if again { wanted.clone() } else { BTreeSet::new() };
        let all: Vec<Channel> = wanted.iter().cloned().collect();
        if !all.is_empty() && write_half.write_all(&order(true, &all)).await.is_err() {
            continue;
        }
        loop {
            tokio::select! {
                taken = orders.recv() => {
                    let Some((subscribe, channels)) = taken else { return };
                    for channel in &channels {
                        if subscribe { wanted.insert(channel.clone()); } else { wanted.remove(channel); }
                    }
                    if write_half.write_all(&order(subscribe, &channels)).await.is_err() { break; }
                }
                reply = replied.recv() => {
                    let Some(LinkReply::Array(items)) = reply else { break };
                    let [LinkReply::Bytes(kind), LinkReply::Bytes(channel), third] = &items[..] else { continue };
                    let channel = Channel::from(std::str::from_utf8(channel).expect("text"));
                    match (&**kind, third) {
                        (b"subscribe", _) => {
                            let resubscribed = owed.remove(&channel);
                            events.send(LinkEvent::Subscribed(channel)).await.ok();
                            if resubscribed && owed.is_empty() {
                                events.send(LinkEvent::Gap(None)).await.ok();
                            }
                        }
                        (b"message", LinkReply::Bytes(payload)) => {
                            events.send(LinkEvent::Message { channel, payload: payload.clone() }).await.ok();
                        }
                        _ => {}
                    }
                }
            }
        }
        reader.abort();
        again = true;
        tokio::time::sleep(REDIAL).await;
    }
}

fn order(subscribe: bool, channels: &[Channel]) -> Vec<u8> {
    let name = if subscribe { "SUBSCRIBE" } else { "UNSUBSCRIBE" };
    let args: Vec<Bytes> = std::iter::once(name)
        .chain(channels.iter().map(|channel| &**channel))
        .map(|arg| Bytes::copy_from_slice(arg.as_bytes()))
        .collect();
    encode(&args)
}

fn encode(args: &[Bytes]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Reads one reply of RESP2; an error gives its code.
fn read<S>(stream: &mut BufReader<S>) -> BoxFuture<'_, io::Result<Result<LinkReply, String>>>
where
    S: tokio::io::AsyncRead + Unpin + Send,
{
    Box::pin(async move {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (kind, rest) = line.trim_end().split_at(1);
        let number = rest.parse::<i64>().unwrap_or(-1);
        let len = usize::try_from(number).unwrap_or(0);
        Ok(Ok(match kind {
            "-" => return Ok(Err(rest.split(' ').next().unwrap_or_default().to_owned())),
            ":" => LinkReply::Integer(number),
            "$" if number >= 0 => {
                let mut bytes = vec![0; len + 2];
                stream.read_exact(&mut bytes).await?;
                bytes.truncate(len);
                LinkReply::Bytes(Bytes::from(bytes))
            }
            "*" if number >= 0 => {
                let mut items = Vec::new();
                for _ in 0..len {
                    items.push(read(stream).await?.unwrap_or(LinkReply::Nil));
                }
                LinkReply::Array(items)
            }
            "+" => LinkReply::Bytes(Bytes::copy_from_slice(rest.as_bytes())),
            _ => LinkReply::Nil,
        }))
    })
}

/// A client of the gateway in Centrifugo's protocol.
pub(super) struct Subscriber {
    stream: BufReader<TcpStream>,
    lines: VecDeque<Value>,
}

impl Subscriber {
    pub(super) async fn connect(address: SocketAddr) -> Self {
        let mut stream = BufReader::new(TcpStream::connect(address).await.expect("a connection"));
        let request = "GET /connection/websocket HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            assert!(stream.read_line(&mut line).await.expect("a head") > 0);
        }
        let mut subscriber = Self { stream, lines: VecDeque::new() };
        subscriber.say("{\"id\":1,\"connect\":{}}").await;
        subscriber.json().await;
        subscriber
    }

    pub(super) async fn subscribe(&mut self, channel: &str) -> Value {
        self.say(&serde_json::json!({"id":2,"subscribe":{"channel":channel}}).to_string()).await;
        let reply = self.json().await;
        assert!(reply["subscribe"].is_object(), "{reply}");
        reply
    }

    pub(super) async fn say(&mut self, text: &str) {
        assert!(text.len() < 65_536);
        let mut frame = vec![0x81, 0xFE];
        frame.extend((text.len() as u16).to_be_bytes());
        if text.len() < 126 {
            frame = vec![0x81, 0x80 | text.len() as u8];
        }
        frame.extend([0; 4]);
        frame.extend(text.as_bytes());
        self.stream.write_all(&frame).await.expect("sent");
    }

    pub(super) async fn json(&mut self) -> Value {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return line;
            }
            let text = tokio::time::timeout(super::DEADLINE, self.frame()).await.expect("a frame in time");
            if text == "{}" {
                self.say("{}").await;
                continue;
            }
            self.lines.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")));
        }
    }

    pub(super) async fn publication(&mut self) -> (String, Value) {
        let push = self.json().await;
        let channel = push["push"]["channel"].as_str();
        let channel = channel.unwrap_or_else(|| panic!("no publication but {push}"));
        (channel.to_owned(), push["push"]["pub"].clone())
    }

    async fn frame(&mut self) -> String {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head).await.expect("a frame");
        let len = match head[1] {
            126 => usize::from(self.stream.read_u16().await.expect("a length")),
            127 => self.stream.read_u64().await.expect("a length") as usize,
            len => usize::from(len),
        };
        let mut payload = vec![0; len];
        self.stream.read_exact(&mut payload).await.expect("a payload");
        assert_eq!(head[0], 0x81, "closed: {payload:?}");
        String::from_utf8(payload).expect("text")
    }
}
