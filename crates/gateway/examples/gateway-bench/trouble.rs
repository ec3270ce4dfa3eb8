//! What subscribers and publishers notice when Redis goes away: two gateways, subscribers on one, publications
//! through the other, numbered, a hundred a second.

use crate::publisher::Target;
use crate::socket::{Hello, frame};
use crate::systems::{API_KEY, Programs, Server, System};
use evenkeel_testkit::launcher::{
    Control, SentinelOptions, SentinelTrio, ServerKind, Single, SingleOptions, until,
};
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SUBSCRIBERS: usize = 20;
/// Between two publications.
const PACE: Duration = Duration::from_millis(10);
/// Before the trouble, and after it.
const BEFORE: Duration = Duration::from_secs(2);
const AFTER: Duration = Duration::from_secs(5);
const OUTAGE: Duration = Duration::from_secs(2);
const LIMIT: Duration = Duration::from_secs(30);
/// The longest answer to a publication: what has none by then was refused.
const ANSWER: Duration = Duration::from_secs(8);

/// What came to one subscriber: number, and when.
type Heard = Rc<RefCell<Vec<(u64, Instant)>>>;

enum Redis {
    Single(Single),
    Sentinel(SentinelTrio),
}

pub(crate) async fn run(programs: &Programs, kind: &ServerKind, system: System, scenario: &str) -> Value {
    let local = tokio::task::LocalSet::new();
    local.run_until(within(programs, kind, system, scenario == "sentinel-crash")).await
}

async fn within(programs: &Programs, kind: &ServerKind, system: System, sentinel: bool) -> Value {
    let redis = if sentinel {
        let options = SentinelOptions::default().replicas(1).down_after(Duration::from_millis(1_500));
        Redis::Sentinel(SentinelTrio::start(kind, options).await.expect("sentinels"))
    } else {
        let options = SingleOptions::default().append_only(true).config("appendfsync always");
        Redis::Single(Single::start_with(kind, options).await.expect("a Redis"))
    };
    let (address, env) = match &redis {
        Redis::Single(single) => (single.addr(), Vec::new()),
        Redis::Sentinel(trio) => {
            let nodes: Vec<_> = trio.sentinels().iter().map(ToString::to_string).collect();
            let env = vec![
                ("REDIS_MODE", "sentinel".to_owned()),
                ("REDIS_SENTINELS", nodes.join(",")),
                ("REDIS_SENTINEL_NAME", trio.name().to_owned()),
            ];
            (trio.primary().await.expect("a primary"), env)
        }
    };
    let hears = programs.start(system, address, &env);
    let publishes = match system {
        System::Evenkeel | System::EvenkeelHistory => Some(programs.start(system, address, &env)),
        _ => None,
    };
    let channel = if system == System::EvenkeelHistory { "kept:bench" } else { "bench" };
    let heard: Vec<Heard> = (0..SUBSCRIBERS).map(|_| Heard::default()).collect();
    for heard in &heard {
        tokio::task::spawn_local(subscribe(system, hears.address, channel, heard.clone()));
    }
    let target = target(system, &hears, publishes.as_ref(), address);
    let numbers = Rc::new(Cell::new(0));
    let acknowledged: Rc<RefCell<BTreeSet<u64>>> = Rc::default();
    let refused = Rc::new(Cell::new(0_u64));
    let publish = |number| publish_one(target, channel, number);
    // Everybody hears it before it counts.
    while !heard.iter().all(|heard| !heard.borrow().is_empty()) {
        let _ = publish(0).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let pace = {
        let (numbers, acknowledged, refused) = (numbers.clone(), acknowledged.clone(), refused.clone());
        tokio::task::spawn_local(async move {
            let mut ticks = tokio::time::interval(PACE);
            loop {
                ticks.tick().await;
                numbers.set(numbers.get() + 1);
                let number = numbers.get();
                let (acknowledged, refused) = (acknowledged.clone(), refused.clone());
                tokio::task::spawn_local(async move {
                    if publish_one(target, channel, number).await {
                        acknowledged.borrow_mut().insert(number);
                    } else {
                        refused.set(refused.get() + 1);
                    }
                });
            }
        })
    };
    tokio::time::sleep(BEFORE).await;
    let (gone, back) = trouble(&redis, address).await;
    tokio::time::sleep(AFTER).await;
    pace.abort();
    tokio::time::sleep(Duration::from_secs(1)).await;
    verdict(&heard, &acknowledged.borrow(), refused.get(), gone, back)
}

/// Makes the trouble; gives when Redis went and when one accepted writes again.
async fn trouble(redis: &Redis, primary: SocketAddr) -> (Instant, Instant) {
    let writable = async |node: SocketAddr| {
        until(LIMIT, "Redis to accept writes", || async move {
            let mut control = Control::connect(node, None).await.ok()?;
            let reply = control.command(&["SET", "bench:writable", "1"]).await.ok()?;
            (reply.text() == Some("OK")).then(Instant::now)
        })
        .await
        .expect("Redis is back")
    };
    match redis {
        Redis::Single(single) => {
            let gone = Instant::now();
            single.nodes().kill(primary).await.expect("killed");
            tokio::time::sleep_until((gone + OUTAGE).into()).await;
            single.nodes().restart(primary).await.expect("restarted");
            (gone, writable(primary).await)
        }
        Redis::Sentinel(trio) => {
            let others: Vec<_> = trio.data_nodes().into_iter().filter(|node| *node != primary).collect();
            let gone = Instant::now();
            trio.nodes().kill(primary).await.expect("killed");
            (gone, writable(others[0]).await)
        }
    }
}

fn verdict(
    heard: &[Heard],
    acknowledged: &BTreeSet<u64>,
    refused: u64,
    gone: Instant,
    back: Instant,
) -> Value {
    let mut missing: BTreeSet<u64> = BTreeSet::new();
    let mut doubled = 0;
    let mut silence = Duration::ZERO;
    for heard in heard {
        let heard = heard.borrow();
        let mut counts: BTreeMap<u64, u64> = BTreeMap::new();
        for (number, _) in heard.iter().filter(|(number, _)| *number > 0) {
            *counts.entry(*number).or_default() += 1;
        }
        doubled += counts.values().map(|count| count - 1).sum::<u64>();
        missing.extend(acknowledged.iter().filter(|number| !counts.contains_key(number)));
        let times = heard.iter().map(|(_, at)| *at).chain([back + AFTER]);
        let mut last = None;
        for at in times {
            if let Some(last) = last
                && at > gone
            {
                silence = silence.max(at - last);
            }
            last = Some(at);
        }
    }
    if let (Some(first), Some(last)) = (missing.first(), missing.last()) {
        eprintln!(
            "{} publications were acknowledged and not heard by all, {first} to {last}; Redis went at about {}, for {:?}",
            missing.len(),
            BEFORE.as_millis() / PACE.as_millis(),
            back - gone,
        );
    }
    json!({
        "subscribers": heard.len(),
        "recovered_ms": silence.saturating_sub(back - gone).as_secs_f64() * 1e3,
        "missing": missing.len(),
        "doubled": doubled,
        "refused": refused,
    })
}

fn target(system: System, hears: &Server, publishes: Option<&Server>, redis: SocketAddr) -> Target {
    match (system, publishes) {
        (System::Nchan, _) => Target::Http(hears.address, "/pub/bench"),
        (_, Some(gateway)) => Target::Http(gateway.address, "/api/publish"),
        (_, None) => Target::Redis(redis),
    }
}

/// Publishes on a connection of its own; true when that was acknowledged.
pub(crate) async fn publish_one(target: Target, channel: &str, number: u64) -> bool {
    let call = async {
        let (Target::Http(address, _) | Target::Redis(address)) = target;
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = match target {
            Target::Redis(_) => format!("PUBLISH {channel} {number}\r\n"),
            Target::Http(_, path) => {
                let body = if path.starts_with("/api/") {
                    json!({ "channel": channel, "data": number }).to_string()
                } else {
                    number.to_string()
                };
                format!(
                    "POST {path} HTTP/1.1\r\nHost: here\r\nX-API-Key: {API_KEY}\r\nConnection: close\r\n\
                     Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                )
            }
        };
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        match target {
            Target::Redis(_) => {
                stream.read_buf(&mut answer).await.ok()?;
                Some(answer.starts_with(b":"))
            }
            Target::Http(..) => {
                stream.read_to_end(&mut answer).await.ok()?;
                let text = String::from_utf8_lossy(&answer);
                let good = text.starts_with("HTTP/1.1 20") && !text.contains("\"error\"");
                Some(good)
            }
        }
    };
    tokio::time::timeout(ANSWER, call).await.ok().flatten().unwrap_or(false)
}

/// A subscriber that comes back whenever its connection or its subscription ends, as client libraries do.
async fn subscribe(system: System, server: SocketAddr, channel: &str, heard: Heard) {
    let mut place: Option<(String, u64)> = None;
    loop {
        let _ = session(system, server, channel, &heard, &mut place).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn session(
    system: System,
    server: SocketAddr,
    channel: &str,
    heard: &Heard,
    place: &mut Option<(String, u64)>,
) -> Option<()> {
    let hello = if system == System::Nchan { Hello::Path("/sub/bench") } else { Hello::Path("/bench") };
    let speaks = !matches!(system, System::Nchan | System::Node);
    let mut stream = if speaks {
        let mut stream = crate::socket::open(server, Hello::Path("/connection/websocket"), false).await;
        stream.write_all(&frame("{\"id\":1,\"connect\":{}}")).await.ok()?;
        stream.write_all(&frame(&wish(channel, place.as_ref()))).await.ok()?;
        stream
    } else {
        crate::socket::open(server, hello, false).await
    };
    loop {
        let text = text(&mut stream).await?;
        let now = Instant::now();
        if !speaks {
            heard.borrow_mut().extend(text.trim().parse().ok().map(|number| (number, now)));
            continue;
        }
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).ok()?;
            if line.as_object().is_some_and(serde_json::Map::is_empty) {
                stream.write_all(&frame("{}")).await.ok()?;
            }
            let subscribed = &line["subscribe"];
            if let Some(epoch) = subscribed["epoch"].as_str() {
                *place = Some((epoch.to_owned(), subscribed["offset"].as_u64().unwrap_or(0)));
            }
            let recovered = subscribed["publications"].as_array().into_iter().flatten();
            for publication in recovered.chain([&line["push"]["pub"]]) {
                let Some(number) = publication["data"].as_u64() else { continue };
                heard.borrow_mut().push((number, now));
                if let (Some(place), Some(offset)) = (place.as_mut(), publication["offset"].as_u64()) {
                    place.1 = offset;
                }
            }
            if line["push"]["unsubscribe"].is_object() || line["id"] == 2 && line["error"].is_object() {
                stream.write_all(&frame(&wish(channel, place.as_ref()))).await.ok()?;
            }
        }
    }
}

fn wish(channel: &str, place: Option<&(String, u64)>) -> String {
    let mut subscribe = json!({ "channel": channel });
    if let Some((epoch, offset)) = place {
        subscribe["recover"] = json!(true);
        subscribe["epoch"] = json!(epoch);
        subscribe["offset"] = json!(offset);
    }
    json!({ "id": 2, "subscribe": subscribe }).to_string()
}

/// The next text frame.
pub(crate) async fn text(stream: &mut TcpStream) -> Option<String> {
    loop {
        let first = stream.read_u8().await.ok()?;
        let len = match stream.read_u8().await.ok()? & 0x7F {
            126 => u64::from(stream.read_u16().await.ok()?),
            127 => stream.read_u64().await.ok()?,
            len => u64::from(len),
        };
        let mut payload = vec![0; usize::try_from(len).ok()?];
        stream.read_exact(&mut payload).await.ok()?;
        if first == 0x81 {
            return String::from_utf8(payload).ok();
        }
        if first == 0x88 {
            return None;
        }
    }
}
