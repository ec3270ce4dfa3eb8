//! A whole deployment in trouble: two gateways before a Sentinel trio, clients spread over both and over fifty channels with
//! history, a steady flow of publications; then a planned failover, a gateway that is replaced, and a primary that is killed.
//!
//! Every client does what the client libraries do: it comes back when its connection ends, subscribes again when it is told
//! to, and reads the history when it is told that it cannot be given what it missed. At the end each must have everything
//! that Redis still has, once, and must have been told of every hole.

use crate::socket::frame;
use crate::systems::{API_KEY, Programs, Server, System};
use crate::trouble::{publish_one, text};
use evenkeel_testkit::launcher::{SentinelFailover, SentinelOptions, SentinelTrio, ServerKind};
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CLIENTS: usize = 1_000;
const CHANNELS: usize = 50;
/// Publications in one second, over all channels.
const RATE: u32 = 500;
/// Between two troubles, and before the first.
const CALM: Duration = Duration::from_secs(4);
/// As long as a gateway spreads its closes, and a little.
const DRAIN: Duration = Duration::from_secs(6);
const LIMIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);

/// What happened to one client.
#[derive(Default)]
struct Client {
    channel: String,
    /// Epoch and offset of what it saw last.
    place: Option<(String, u64)>,
    /// What was published to it, and what it read itself after it was told of a hole.
    heard: BTreeSet<u64>,
    read: BTreeSet<u64>,
    doubled: u64,
    silent_gaps: u64,
    told_gaps: u64,
    connects: u64,
}

/// What the publisher knows.
#[derive(Default)]
struct Published {
    number: Cell<u64>,
    acknowledged: RefCell<BTreeSet<u64>>,
    refused: Cell<u64>,
}

pub(crate) async fn run(programs: &Programs, kind: &ServerKind) -> Value {
    tokio::task::LocalSet::new().run_until(within(programs, kind)).await
}

async fn within(programs: &Programs, kind: &ServerKind) -> Value {
    let options = SentinelOptions::default().down_after(Duration::from_millis(1_500));
    let trio = SentinelTrio::start(kind, options).await.expect("sentinels");
    let nodes: Vec<_> = trio.sentinels().iter().map(ToString::to_string).collect();
    let env = [
        ("REDIS_MODE", "sentinel".to_owned()),
        ("REDIS_SENTINELS", nodes.join(",")),
        ("REDIS_SENTINEL_NAME", trio.name().to_owned()),
    ];
    let primary = trio.primary().await.expect("a primary");
    let start = || programs.start(System::EvenkeelHistory, primary, &env);
    let (first, second) = (start(), start());
    let gateways = Rc::new(RefCell::new([first.address, second.address]));
    let clients: Vec<Rc<RefCell<Client>>> = (0..CLIENTS)
        .map(|at| {
            let channel = format!("kept:{}", at % CHANNELS);
            Rc::new(RefCell::new(Client { channel, ..Client::default() }))
        })
        .collect();
    for (at, client) in clients.iter().enumerate() {
        tokio::task::spawn_local(live(at, client.clone(), gateways.clone()));
    }
    until("all clients to be subscribed", || clients.iter().all(|client| client.borrow().place.is_some()))
        .await;
    let published = Rc::new(Published::default());
    let pace = tokio::task::spawn_local(publish(published.clone(), second.address));
    tokio::time::sleep(CALM).await;
    trio.failover(SentinelFailover::Plain).await.expect("a failover");
    let primary = trio.wait_for_new_primary(primary).await.expect("a new primary");
    tokio::time::sleep(CALM).await;
    let third = replace(first, start, &gateways).await;
    tokio::time::sleep(CALM).await;
    trio.nodes().kill(primary).await.expect("killed");
    trio.wait_for_new_primary(primary).await.expect("another primary");
    tokio::time::sleep(2 * CALM).await;
    pace.abort();
    let verdict = verdict(&clients, &published, second.address).await;
    drop(third);
    verdict
}

/// Starts another gateway in place of `old`, which is told to end.
async fn replace(old: Server, start: impl Fn() -> Server, gateways: &RefCell<[SocketAddr; 2]>) -> Server {
    let new = start();
    gateways.borrow_mut()[0] = new.address;
    let ended = Command::new("kill").args(["-TERM", &old.pid.to_string()]).status();
    assert!(ended.is_ok_and(|status| status.success()), "the old gateway is told to end");
    tokio::time::sleep(DRAIN).await;
    drop(old);
    new
}

async fn publish(published: Rc<Published>, gateway: SocketAddr) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / RATE);
    loop {
        ticks.tick().await;
        let number = published.number.get() + 1;
        published.number.set(number);
        let published = published.clone();
        tokio::task::spawn_local(async move {
            let channel = channel_of(number);
            if publish_one(crate::publisher::Target::Http(gateway, "/api/publish"), &channel, number).await {
                published.acknowledged.borrow_mut().insert(number);
            } else {
                published.refused.set(published.refused.get() + 1);
            }
        });
    }
}

fn channel_of(number: u64) -> String {
    format!("kept:{}", number % CHANNELS as u64)
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < LIMIT, "never came: {what}");
        tokio::time::sleep(LOOK).await;
    }
}

async fn verdict(clients: &[Rc<RefCell<Client>>], published: &Published, gateway: SocketAddr) -> Value {
    let mut kept = Vec::new();
    for channel in 0..CHANNELS {
        // What waited in the gateway is in Redis once a last one is.
        let last = u64::MAX - channel as u64;
        let channel = format!("kept:{channel}");
        let target = crate::publisher::Target::Http(gateway, "/api/publish");
        assert!(publish_one(target, &channel, last).await, "the last publication is taken");
        let begun = Instant::now();
        let mut all = history(gateway, &channel).await;
        while !all.contains(&last) && begun.elapsed() < LIMIT {
            tokio::time::sleep(LOOK).await;
            all = history(gateway, &channel).await;
        }
        kept.push(all);
    }
    let late = Cell::new(0);
    let has_last = |at: usize| {
        let client = clients[at].borrow();
        let last = u64::MAX - (at % CHANNELS) as u64;
        client.heard.contains(&last) || client.read.contains(&last)
    };
    let begun = Instant::now();
    loop {
        late.set((0..clients.len()).filter(|at| !has_last(*at)).count());
        if late.get() == 0 || begun.elapsed() > LIMIT {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    let missing: usize = (0..clients.len())
        .map(|at| {
            let client = clients[at].borrow();
            let has = |number: &&u64| client.heard.contains(number) || client.read.contains(number);
            kept[at % CHANNELS].iter().filter(|number| !has(number)).count()
        })
        .sum();
    let survived: BTreeSet<u64> = kept.iter().flatten().copied().collect();
    let acknowledged = published.acknowledged.borrow();
    let sum = |of: fn(&Client) -> u64| clients.iter().map(|client| of(&client.borrow())).sum::<u64>();
    json!({
        "subscribers": clients.len(),
        "published": published.number.get(),
        "acknowledged": acknowledged.len(),
        "refused": published.refused.get(),
        "lost_by_redis": acknowledged.difference(&survived).count(),
        "missing": missing,
        "doubled": sum(|client| client.doubled),
        "silent_gaps": sum(|client| client.silent_gaps),
        "told_gaps": sum(|client| client.told_gaps),
        "reconnects": sum(|client| client.connects - 1),
    })
}

/// Everything that a channel's history has.
async fn history(gateway: SocketAddr, channel: &str) -> BTreeSet<u64> {
    let body = json!({ "channel": channel, "limit": -1 }).to_string();
    let mut stream = TcpStream::connect(gateway).await.expect("the gateway");
    let request = format!(
        "POST /api/history HTTP/1.1\r\nHost: here\r\nX-API-Key: {API_KEY}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
    let answer: Value = serde_json::from_str(body).expect("JSON");
    numbers(&answer["result"]).collect()
}

fn numbers(holder: &Value) -> impl Iterator<Item = u64> + '_ {
    let publications = holder["publications"].as_array().into_iter().flatten();
    publications.filter_map(|publication| publication["data"].as_u64())
}

/// A client's life: it comes back whenever its connection ends, half of them to the other gateway when theirs is away.
async fn live(at: usize, client: Rc<RefCell<Client>>, gateways: Rc<RefCell<[SocketAddr; 2]>>) {
    for attempt in at.. {
        let gateway = gateways.borrow()[attempt % 2];
        // How a connection ended says nothing about the next one.
        let _ended = session(&client, gateway).await;
        tokio::time::sleep(LOOK).await;
    }
}

async fn session(client: &RefCell<Client>, gateway: SocketAddr) -> Option<()> {
    let mut stream = TcpStream::connect(gateway).await.ok()?;
    let request = "GET /connection/websocket HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    client.borrow_mut().connects += 1;
    stream.write_all(&frame("{\"id\":1,\"connect\":{}}")).await.ok()?;
    stream.write_all(&wish(client)).await.ok()?;
    loop {
        let text = text(&mut stream).await?;
        for line in text.lines() {
            let answer = heard(client, &serde_json::from_str(line).ok()?);
            if let Some(answer) = answer {
                stream.write_all(&answer).await.ok()?;
            }
        }
    }
}

/// Takes one line of the gateway; gives what the client says to it.
fn heard(client: &RefCell<Client>, line: &Value) -> Option<Vec<u8>> {
    if line.as_object().is_some_and(serde_json::Map::is_empty) {
        return Some(frame("{}"));
    }
    if line["push"]["unsubscribe"].is_object() || (line["id"] == 2 && line["error"].is_object()) {
        return Some(wish(client));
    }
    let mut state = client.borrow_mut();
    state.read.extend(numbers(&line["history"]));
    take(&mut state, &line["push"]["pub"]);
    let reply = line.get("subscribe")?;
    let epoch = reply["epoch"].as_str().unwrap_or_default().to_owned();
    if reply["recovered"] == true {
        for publication in reply["publications"].as_array().into_iter().flatten() {
            take(&mut state, publication);
        }
        return None;
    }
    let told = state.place.replace((epoch, reply["offset"].as_u64().unwrap_or(0))).is_some();
    if !told {
        return None;
    }
    state.told_gaps += 1;
    let history = json!({"id": 3, "history": {"channel": state.channel, "limit": -1}});
    Some(frame(&history.to_string()))
}

fn take(client: &mut Client, publication: &Value) {
    let (Some(number), Some(offset)) = (publication["data"].as_u64(), publication["offset"].as_u64()) else {
        return;
    };
    if !client.heard.insert(number) {
        client.doubled += 1;
    }
    if let Some((_, seen)) = &mut client.place {
        client.silent_gaps += u64::from(offset != *seen + 1);
        *seen = offset;
    }
}

fn wish(client: &RefCell<Client>) -> Vec<u8> {
    let client = client.borrow();
    let mut subscribe = json!({ "channel": client.channel });
    if let Some((epoch, offset)) = &client.place {
        subscribe["recover"] = json!(true);
        subscribe["epoch"] = json!(epoch);
        subscribe["offset"] = json!(offset);
    }
    frame(&json!({ "id": 2, "subscribe": subscribe }).to_string())
}
