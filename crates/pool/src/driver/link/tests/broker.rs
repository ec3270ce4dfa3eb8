//! A server for tests: several ports, one order of everything that is published, and trouble on demand.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use evenkeel_protocol::{Endpoint, Limits, Reply, Scanner};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf},
    sync::mpsc,
};

use crate::driver::clock;

type Line = mpsc::UnboundedSender<(Instant, Vec<u8>)>;

struct Subscriber {
    id: usize,
    names: BTreeSet<(u8, Bytes)>,
    resp3: bool,
    line: Line,
}

impl Subscriber {
    fn say(&self, bytes: Vec<u8>) {
        // Whoever has gone hears nothing.
        let _gone = self.line.send((clock::now(), bytes));
    }
}

#[derive(Default)]
struct State {
    subscribers: Vec<Subscriber>,
    denied: BTreeSet<Bytes>,
    denied_front: Option<&'static str>,
}

impl State {
    fn denies(&self, name: &Bytes) -> bool {
        self.denied.contains(name)
            || self.denied_front.is_some_and(|front| name.starts_with(front.as_bytes()))
    }
}

#[derive(Default)]
pub(super) struct Broker {
    state: Mutex<State>,
    pub(super) no_publish: AtomicBool,
    /// Only RESP2 is spoken.
    pub(super) resp2: AtomicBool,
    /// Nothing is answered any more.
    pub(super) mute: AtomicBool,
    pub(super) accepted: AtomicUsize,
    pub(super) pings: AtomicUsize,
    next: AtomicUsize,
}

fn blob(text: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", text.len()).as_bytes(), text, b"\r\n"].concat()
}

impl Broker {
    /// A port of this broker; what it writes to each connection is late by `lag`.
    pub(super) async fn listen(self: &Arc<Self>, lag: Duration) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::new("127.0.0.1", listener.local_addr().unwrap().port());
        let broker = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                broker.accepted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(Arc::clone(&broker).serve(stream, lag));
            }
        });
        endpoint
    }

    pub(super) fn deny(&self, channel: &'static str) {
        self.state.lock().denied.insert(Bytes::from(channel));
    }

    /// Denies all channels that start so.
    pub(super) fn deny_front(&self, front: &'static str) {
        self.state.lock().denied_front = Some(front);
    }

    /// Closes every connection.
    pub(super) fn cut_all(&self) {
        self.state.lock().subscribers.clear();
    }

    /// Says this to every subscriber, word for word.
    pub(super) fn say(&self, words: &[u8]) {
        for one in &self.state.lock().subscribers {
            one.say(words.to_vec());
        }
    }

    pub(super) fn connections(&self) -> usize {
        self.state.lock().subscribers.len()
    }

    /// Ends a shard channel, as a server does whose slot has moved.
    pub(super) fn end_shard(&self, channel: &'static str) {
        let channel = Bytes::from(channel);
        for one in &mut self.state.lock().subscribers {
            if one.names.remove(&(b'h', channel.clone())) {
                confirm(one, "sunsubscribe", &channel);
            }
        }
    }

    pub(super) fn publish(&self, channel: &[u8], payload: &[u8]) -> usize {
        let mut count = 0;
        for one in &self.state.lock().subscribers {
            let mark = if one.resp3 { ">" } else { "*" };
            for (kind, name) in &one.names {
                let message = match kind {
                    b's' if name == channel => [b"message".as_slice(), channel, payload].map(blob).concat(),
                    b'h' if name == channel => [b"smessage".as_slice(), channel, payload].map(blob).concat(),
                    b'p' if channel.starts_with(name.strip_suffix(b"*").unwrap_or(name)) => {
                        [b"pmessage".as_slice(), name, channel, payload].map(blob).concat()
                    }
                    _ => continue,
                };
                let elements = if *kind == b'p' { 4 } else { 3 };
                count += 1;
                one.say([format!("{mark}{elements}\r\n").as_bytes(), &message].concat());
            }
        }
        count
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, lag: Duration) {
        let (read, mut write) = stream.into_split();
        let (line, mut lines) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
        let id = self.next.fetch_add(1, Ordering::SeqCst);
        let resp3 = false;
        self.state.lock().subscribers.push(Subscriber { id, names: BTreeSet::new(), resp3, line });
        let writer = tokio::spawn(async move {
            while let Some((said, bytes)) = lines.recv().await {
                // A longer way, not a slower one: what is on it stays on it.
                tokio::time::sleep_until((said + lag).into()).await;
                if write.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        });
        tokio::select! {
            biased;
            // The line is gone: the connection is to be closed.
            _ended = writer => {}
            () = self.listen_to(id, read) => {}
        }
        self.state.lock().subscribers.retain(|one| one.id != id);
    }

    async fn listen_to(&self, id: usize, mut stream: OwnedReadHalf) {
        let mut read = BytesMut::new();
        let mut scanner = Scanner::new(Limits::default());
        loop {
            while let Some(found) = scanner.scan(&read).unwrap() {
                let args: Vec<Bytes> = Reply::new(read.split_to(found.len).freeze()).decode().unwrap();
                if !self.mute.load(Ordering::SeqCst) {
                    self.answer(id, &args);
                }
            }
            if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                return;
            }
        }
    }

    fn answer(&self, id: usize, args: &[Bytes]) {
        let verb = String::from_utf8(args[0].to_vec()).unwrap();
        let plain = match verb.as_str() {
            "PUBLISH" if self.no_publish.load(Ordering::SeqCst) => {
                b"-NOPERM this user has no permissions to run the 'publish' command\r\n".to_vec()
            }
            "PUBLISH" => format!(":{}\r\n", self.publish(&args[1], &args[2])).into_bytes(),
            "PING" => {
                self.pings.fetch_add(1, Ordering::SeqCst);
                b"+PONG\r\n".to_vec()
            }
            _ => Vec::new(),
        };
        let state = &mut *self.state.lock();
        let denied = args[1..].iter().any(|name| state.denies(name));
        let Some(one) = state.subscribers.iter_mut().find(|one| one.id == id) else { return };
        let kind = match verb.trim_end_matches("SUBSCRIBE").trim_end_matches("UN") {
            "P" => b'p',
            "S" => b'h',
            _ => b's',
        };
        let plain = match verb.as_str() {
            "HELLO" if self.resp2.load(Ordering::SeqCst) => b"-ERR unknown command 'HELLO'\r\n".to_vec(),
            "HELLO" => {
                one.resp3 = true;
                b"%2\r\n+proto\r\n:3\r\n+mode\r\n+standalone\r\n".to_vec()
            }
            "PING" if !one.resp3 && !one.names.is_empty() => b"*2\r\n$4\r\npong\r\n$0\r\n\r\n".to_vec(),
            _ if verb.ends_with("UNSUBSCRIBE") => {
                for name in &args[1..] {
                    one.names.remove(&(kind, name.clone()));
                    confirm(one, &verb.to_lowercase(), name);
                }
                return;
            }
            _ if verb.ends_with("SUBSCRIBE") => {
                if denied {
                    b"-NOPERM No permissions to access a channel\r\n".to_vec()
                } else {
                    for name in &args[1..] {
                        one.names.insert((kind, name.clone()));
                        confirm(one, &verb.to_lowercase(), name);
                    }
                    return;
                }
            }
            _ => plain,
        };
        one.say(plain);
    }
}

fn confirm(one: &Subscriber, verb: &str, name: &[u8]) {
    let mark = if one.resp3 { ">" } else { "*" };
    let text = [format!("{mark}3\r\n").into_bytes(), blob(verb.as_bytes()), blob(name)].concat();
    one.say([text.as_slice(), format!(":{}\r\n", one.names.len()).as_bytes()].concat());
}
