//! The broker over a real Redis, through the plainest link that keeps the contract.

mod cluster;
mod deaf;
mod direct;

use super::link::LinkReply;
use super::{RedisBroker, envelope, scripts};
use crate::broker::{Broker, HistoryQuery, Published};
use crate::config::{GatewayConfig, OutageConfig};
use crate::gateway::Gateway;
use crate::namespace::{Access, ChannelOptions, Namespace};
use crate::publication::{Channel, Position};
use bytes::Bytes;
use direct::Direct;
use evenkeel_client::ConnectionState;
use evenkeel_testkit::launcher::{ServerKind, Single, SingleOptions, for_each_server};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

/// How long any one step of a test may take.
const DEADLINE: Duration = Duration::from_secs(60);

fn options(size: u32) -> Arc<ChannelOptions> {
    Arc::new(ChannelOptions { history_size: size, recovery: true, ..ChannelOptions::default() })
}

async fn server(kind: &ServerKind) -> Single {
    Single::start_with(kind, SingleOptions::default().append_only(true).config("appendfsync always"))
        .await
        .expect("a server")
}

fn url(address: SocketAddr) -> String {
    format!("redis://{address}")
}

/// A broker over the real client.
async fn over_client(url: &str) -> Arc<RedisBroker> {
    Arc::new(RedisBroker::new(Arc::new(client(url).await), outage()))
}

async fn client(url: &str) -> evenkeel_client::Client {
    use evenkeel_client::config::Backoff;
    // As the gateway dials by its own settings.
    let backoff = Backoff::Linear { step: Duration::from_millis(25), max: Duration::from_millis(75) };
    let config = evenkeel_client::Config::try_from(url).expect("a URL").with_usual_backoff(backoff);
    evenkeel_client::Client::connect(config).await.expect("a client")
}

fn broker(server: &Single) -> Arc<RedisBroker> {
    Arc::new(RedisBroker::new(Arc::new(Direct::new(server.addr())), outage()))
}

fn outage() -> OutageConfig {
    OutageConfig {
        probe_interval: Duration::from_millis(100),
        answer_within: Duration::from_secs(30),
        ..OutageConfig::default()
    }
}

async fn gateway(broker: Arc<RedisBroker>) -> Gateway {
    let mut config =
        GatewayConfig { listen: "127.0.0.1:0".parse().expect("an address"), ..GatewayConfig::default() };
    config.channels.subscribe = Access::Anyone;
    let kept = ChannelOptions {
        history_size: 10_000,
        recovery: true,
        subscribe: Access::Anyone,
        ..ChannelOptions::default()
    };
    config.namespaces = vec![Namespace::new("kept", kept)];
    config.session.drain = Duration::ZERO;
    config.session.close_timeout = Duration::from_millis(50);
    Gateway::builder().config(config).broker(broker).shards(1).start().await.expect("a gateway")
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(DEADLINE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(waited.await.is_ok(), "never came: {what}");
}

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn check(
    broker: &RedisBroker,
    channel: &str,
    epoch: &str,
    offset: u64,
    nonce: u64,
) -> super::tracker::Checked {
    let args = [
        "fresh".to_owned(),
        "60000".to_owned(),
        epoch.to_owned(),
        offset.to_string(),
        nonce.to_string(),
        "3".to_owned(),
    ];
    let args = args.into_iter().map(Bytes::from).collect();
    let reply =
        broker.eval(&scripts::CHECK, &scripts::keys(&broker.prefix, channel), args).await.expect("a reply");
    scripts::checked(&reply).expect("a verdict")
}

#[tokio::test]
async fn the_scripts_say_what_stands() {
    for_each_server("gateway: the scripts say what stands", |kind| async move {
        use super::tracker::Verdict;
        let server = server(&kind).await;
        let broker = broker(&server);
        let keys = scripts::keys(&broker.prefix, "a");
        let append = async |nonces: &[u64], repeat: &str| {
            let mut args: Vec<Bytes> = ["a", "4", "60000", "60000", "E", repeat, "PUBLISH"].map(text).into();
            for nonce in nonces {
                args.push(Bytes::from(nonce.to_string()));
                args.push(Bytes::from(format!("d{nonce}")));
            }
            let reply = broker.eval(&scripts::APPEND, &keys, args).await.expect("a reply");
            scripts::appended(&reply).expect("offsets")
        };
        assert_eq!(append(&[11, 12], "0").await, ("E".to_owned(), vec![1, 2]));
        assert_eq!(
            append(&[12, 13], "1").await,
            ("E".to_owned(), vec![2, 3]),
            "a repeat appends what is new"
        );

        let stands = check(&broker, "a", "E", 1, 11).await;
        assert_eq!((stands.verdict, stands.top.offset), (Verdict::Stands, 3));
        let offsets: Vec<_> =
            stands.entries.iter().map(|(mark, data)| (mark.offset, mark.nonce, data.clone())).collect();
        assert_eq!(offsets, [(2, 12, Bytes::from_static(b"d12")), (3, 13, Bytes::from_static(b"d13"))]);
        assert_eq!(check(&broker, "a", "E", 3, 13).await.verdict, Verdict::Stands);
        assert_eq!(check(&broker, "a", "E", 0, 0).await.entries.len(), 3);

        append(&[14, 15], "0").await;
        assert_eq!(check(&broker, "a", "E", 0, 0).await.verdict, Verdict::Hole, "offset 1 is trimmed");
        assert_eq!(check(&broker, "a", "E", 1, 11).await.verdict, Verdict::Hole, "nobody can say");

        let query = HistoryQuery { since: Some(3), limit: 10, reverse: false };
        let history = broker.history(&"a".into(), &options(4), query).await.expect("a history");
        assert!(history.complete && history.publications.len() == 2);
        let query = HistoryQuery { since: None, limit: 2, reverse: true };
        let history = broker.history(&"a".into(), &options(4), query).await.expect("a history");
        let offsets: Vec<_> = history.publications.iter().filter_map(|kept| kept.offset()).collect();
        assert_eq!(offsets, [5, 4]);

        let moved = check(&broker, "a", "E", 4, 99).await;
        assert_eq!(
            (moved.verdict, &*moved.top.epoch),
            (Verdict::New, "fresh"),
            "another entry at the offset"
        );
        let agreed = check(&broker, "a", "E", 5, 15).await;
        assert_eq!((agreed.verdict, &*agreed.top.epoch), (Verdict::New, "fresh"), "written once");
        assert_eq!(check(&broker, "a", "fresh", 9, 1).await.verdict, Verdict::New, "from the future");

        broker.link.command(vec![Bytes::from_static(b"FLUSHALL")]).await.expect("flushed");
        assert_eq!(check(&broker, "a", "fresh", 5, 15).await.verdict, Verdict::New, "all is lost");
        assert_eq!(append(&[16], "0").await.1, [1]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publications_reach_the_subscribers_of_every_gateway() {
    for_each_server("gateway: publications reach every gateway", |kind| async move {
        let server = server(&kind).await;
        let (here, there) = (over_client(&url(server.addr())).await, over_client(&url(server.addr())).await);
        let (near, far) = (gateway(here.clone()).await, gateway(there).await);
        let mut peer = direct::Subscriber::connect(near.local_addr()).await;
        let at = peer.subscribe("kept:a").await;
        assert_eq!(at["subscribe"]["offset"], 0);
        peer.subscribe("news").await;
        for n in 1..=100_u64 {
            let published = far.handle().publish("kept:a", n.to_string()).await.expect("published");
            assert!(matches!(published, Published::Delivered(Some(Position { offset, .. })) if offset == n));
        }
        for n in 1..=100 {
            assert_eq!(
                peer.publication().await,
                ("kept:a".to_owned(), serde_json::json!({"data":n,"offset":n}))
            );
        }
        server.command(&["PUBLISH", "news", "from elsewhere"]).await.expect("published");
        assert_eq!(peer.publication().await.1, serde_json::json!({"data":"from elsewhere"}));
        server.command(&["PUBLISH", "kept:a", "{\"raw\":1}"]).await.expect("published");
        assert_eq!(peer.publication().await.1, serde_json::json!({"data":{"raw":1}}));
        let subscribed = server.command(&["PUBSUB", "NUMSUB", "kept:a", "kept:b"]).await.expect("counts");
        let counts: Vec<_> =
            subscribed.items().iter().filter_map(evenkeel_testkit::launcher::Reply::integer).collect();
        assert_eq!(counts, [1, 0], "only where there is a subscriber");
        until("ready", || near.handle().is_ready()).await;
        near.stop().await;
        far.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_redis_costs_nothing_of_what_it_kept() {
    for_each_server("gateway: a killed Redis costs nothing", |kind| async move {
        let server = server(&kind).await;
        let (here, there) = (over_client(&url(server.addr())).await, over_client(&url(server.addr())).await);
        let (near, far) = (gateway(here).await, gateway(there).await);
        let mut peer = direct::Subscriber::connect(near.local_addr()).await;
        peer.subscribe("kept:a").await;
        let publisher = {
            let handle = far.handle();
            tokio::spawn(async move {
                for n in 1..=400_u64 {
                    let published = handle.publish("kept:a", n.to_string()).await.expect("published");
                    assert!(matches!(published, Published::Delivered(Some(_))), "{published:?}");
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            })
        };
        for n in 1..=100 {
            assert_eq!(peer.publication().await.1["data"], n);
        }
        server.nodes().kill(server.addr()).await.expect("killed");
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.nodes().restart(server.addr()).await.expect("restarted");
        for n in 101..=400 {
            let (_, publication) = peer.publication().await;
            assert_eq!((publication["data"].as_u64(), publication["offset"].as_u64()), (Some(n), Some(n)));
        }
        publisher.await.expect("every publication is answered");
        near.stop().await;
        far.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_forgets_makes_subscribers_come_again() {
    for_each_server("gateway: a Redis that forgets", |kind| async move {
        let server = Single::start(&kind).await.expect("a server");
        let broker = over_client(&url(server.addr())).await;
        let gateway = gateway(broker).await;
        let mut peer = direct::Subscriber::connect(gateway.local_addr()).await;
        let first = peer.subscribe("kept:a").await["subscribe"]["epoch"].clone();
        gateway.handle().publish("kept:a", "1").await.expect("published");
        assert_eq!(peer.publication().await.1["offset"], 1);
        server.nodes().kill(server.addr()).await.expect("killed");
        server.nodes().restart(server.addr()).await.expect("restarted");
        assert_eq!(peer.json().await["push"]["unsubscribe"]["code"], 2500);
        let request = serde_json::json!({"id":2,"subscribe":{"channel":"kept:a","recover":true,"epoch":first,"offset":1}});
        peer.say(&request.to_string()).await;
        let reply = peer.json().await;
        assert_ne!(reply["subscribe"]["epoch"], first);
        assert_eq!(reply["subscribe"]["was_recovering"], true);
        assert!(reply["subscribe"].get("recovered").is_none(), "{reply}");
        gateway.handle().publish("kept:a", "2").await.expect("published");
        assert_eq!(peer.publication().await.1["data"], 2);
        gateway.stop().await;
    })
    .await;
}

#[tokio::test]
async fn publications_wait_for_redis_and_the_bound_is_told() {
    let link = Arc::new(Direct::new("127.0.0.1:1".parse().expect("an address")));
    let outage = OutageConfig {
        queued_publications: 2,
        answer_within: Duration::from_millis(20),
        ..OutageConfig::default()
    };
    let broker = RedisBroker::new(link, outage);
    let publish =
        || async { broker.publish(&Channel::from("a"), Bytes::from_static(b"1"), &options(4)).await };
    assert_eq!(publish().await, Ok(Published::Accepted));
    assert_eq!(publish().await, Ok(Published::Accepted));
    assert_eq!(publish().await, Err(crate::error::BrokerError::Full));
    assert_eq!(broker.health().waiting, 2);
    assert_eq!(broker.health().probe_age, None);
}

#[test]
fn replies_of_a_wrong_shape_are_no_answers() {
    let bulk = |text: &'static str| LinkReply::Bytes(Bytes::from_static(text.as_bytes()));
    for reply in [
        LinkReply::Nil,
        LinkReply::Array(vec![]),
        LinkReply::Array(vec![bulk("E"), bulk("x"), bulk("0"), bulk("stands")]),
        LinkReply::Array(vec![bulk("E"), bulk("1"), bulk("0"), bulk("maybe")]),
        LinkReply::Array(vec![bulk("E"), bulk("1"), bulk("0"), bulk("stands"), bulk("1-1")]),
        LinkReply::Array(vec![bulk("E"), bulk("1"), bulk("0"), bulk("stands"), bulk("1"), bulk("d")]),
    ] {
        assert_eq!(scripts::checked(&reply), None, "{reply:?}");
    }
    assert!(matches!(envelope::Message::read(Bytes::from_static(b"x")), envelope::Message::Plain(_)));
}

/// Publishes numbers from 1 on through a gateway, one every 2 ms, until told to stop; gives those that were
/// delivered for sure, and counts them in `done`.
fn publish_on(
    handle: crate::gateway::GatewayHandle,
    mut stop: tokio::sync::watch::Receiver<bool>,
    done: Arc<AtomicUsize>,
) -> tokio::task::JoinHandle<Vec<u64>> {
    tokio::spawn(async move {
        let mut delivered = Vec::new();
        for n in 1..=u64::MAX {
            if *stop.borrow_and_update() {
                break;
            }
            if let Ok(Published::Delivered(_)) = handle.publish("kept:a", n.to_string()).await {
                delivered.push(n);
                done.fetch_add(1, Ordering::Relaxed);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        delivered
    })
}

/// Hears `kept:a` as a client library does, coming again when it is sent away, until `last` was heard. Asserts
/// that within an epoch every offset comes once and in order; gives what was heard.
async fn hear_until(
    peer: &mut direct::Subscriber,
    last: impl Fn() -> Option<u64>,
    subscribed: serde_json::Value,
) -> Vec<u64> {
    let mut epoch = subscribed["subscribe"]["epoch"].clone();
    let mut offset = subscribed["subscribe"]["offset"].as_u64().expect("an offset");
    let mut heard = Vec::new();
    let mut take = |publication: &serde_json::Value, offset: &mut u64| {
        assert_eq!(publication["offset"], *offset + 1, "{publication}");
        *offset += 1;
        heard.push(publication["data"].as_u64().expect("a number"));
        last().is_some_and(|last| heard.contains(&last))
    };
    loop {
        let message = peer.json().await;
        if message["push"]["unsubscribe"].is_object() {
            let request = serde_json::json!({"id":2,"subscribe":{
                "channel":"kept:a","recover":true,"epoch":epoch,"offset":offset}});
            peer.say(&request.to_string()).await;
        } else if let Some(reply) = message.get("subscribe") {
            let mut done = false;
            if reply["recovered"] == true {
                for publication in reply["publications"].as_array().into_iter().flatten() {
                    done |= take(publication, &mut offset);
                }
            }
            epoch = reply["epoch"].clone();
            offset = reply["offset"].as_u64().expect("an offset");
            if done {
                break;
            }
        } else if message["push"]["pub"].is_object() && take(&message["push"]["pub"], &mut offset) {
            break;
        }
    }
    heard
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinel_failovers_leave_no_silent_gap_and_no_double() {
    for_each_server("gateway: sentinel failovers", |kind| async move {
        for crash in [false, true] {
            sentinel_failover(&kind, crash).await;
        }
    })
    .await;
}

async fn sentinel_failover(kind: &ServerKind, crash: bool) {
    use evenkeel_testkit::launcher::{SentinelFailover, SentinelOptions, SentinelTrio};
    {
        let trio = SentinelTrio::start(kind, SentinelOptions::default()).await.expect("a trio");
        let sentinels: Vec<String> = trio.sentinels().iter().map(ToString::to_string).collect();
        let url = format!("redis+sentinel://{}/{}", sentinels.join(","), trio.name());
        let (near, far) = (gateway(over_client(&url).await).await, gateway(over_client(&url).await).await);
        let mut peer = direct::Subscriber::connect(near.local_addr()).await;
        let subscribed = peer.subscribe("kept:a").await;
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let done = Arc::new(AtomicUsize::new(0));
        let publisher = publish_on(far.handle(), stopped, done.clone());
        let trouble = async {
            let delivered = || done.load(Ordering::Relaxed);
            until("publications before", || delivered() >= 50).await;
            let old = trio.primary().await.expect("a primary");
            if crash {
                trio.nodes().kill(old).await.expect("killed");
            } else {
                trio.failover(SentinelFailover::Plain).await.expect("a failover");
            }
            trio.wait_for_new_primary(old).await.expect("a new primary");
            let before = delivered();
            until("publications after", || delivered() >= before + 50).await;
            stop.send_replace(true);
            publisher.await.expect("the publisher")
        };
        let last = parking_lot::Mutex::new(None);
        let (heard, delivered) = tokio::join!(hear_until(&mut peer, || *last.lock(), subscribed), async {
            let delivered = trouble.await;
            // Those of the end reach everybody once the new primary is settled.
            loop {
                if let Ok(Published::Delivered(_)) = far.handle().publish("kept:a", "1000000").await {
                    break;
                }
            }
            *last.lock() = Some(1_000_000);
            far.handle().publish("kept:a", "1000001").await.expect("published");
            delivered
        });
        let mut sorted = heard.clone();
        sorted.sort_unstable();
        sorted.dedup();
        let doubled = heard.len() - sorted.len();
        let missing = delivered.iter().filter(|n| !heard.contains(n)).count();
        println!("crash {crash}: {} delivered, {missing} missing, {doubled} doubled", delivered.len());
        assert!(delivered.len() >= 100);
        if !crash {
            assert_eq!((missing, doubled), (0, 0), "a planned failover costs nothing");
        }
        near.stop().await;
        far.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_publications_wait_until_all_gateways_hear_again() {
    for_each_server("gateway: plain publications wait for the ears", |kind| async move {
        let server = server(&kind).await;
        let url = url(server.addr());
        let publisher = client(&url).await;
        let near = gateway(over_client(&url).await).await;
        let far = gateway(Arc::new(RedisBroker::new(Arc::new(publisher.clone()), outage()))).await;
        // Server-sent events tell of a gap and go on, so whatever is missing was lost on the way.
        let mut events = tokio::net::TcpStream::connect(near.local_addr()).await.expect("a connection");
        events.write_all(b"GET /sse/news HTTP/1.1\r\nHost: h\r\n\r\n").await.expect("asked");
        until("the subscriber", || near.metrics_line("channels") == 1).await;
        let mut events = BufReader::new(events).lines();
        let handle = far.handle();
        let mut number = 0_u64;
        let mut next = || {
            number += 1;
            number
        };
        // How many hear is known from here on.
        until("the own subscription", || far.handle().is_ready() && near.handle().is_ready()).await;
        let subscribed = async {
            loop {
                let count = server.command(&["PUBSUB", "NUMSUB", "news"]).await.expect("a count");
                if count.items().iter().any(|count| count.integer() == Some(1)) {
                    break;
                }
            }
        };
        tokio::time::timeout(DEADLINE, subscribed).await.expect("the channel is subscribed to");
        handle.publish("news", next().to_string()).await.expect("published");
        let mut heard: Vec<u64> = Vec::new();
        for round in 0..=3_u64 {
            // Redis answers a publisher before it writes to the subscribers: what is killed in between is lost by it.
            // Heartbeats come for ever, so one deadline is for all lines.
            let last = 1 + 50 * round;
            let reading = async {
                while heard.last() != Some(&last) {
                    let line = events.next_line().await.expect("a stream").expect("a line");
                    heard.extend(line.strip_prefix("data: ").and_then(|data| data.parse::<u64>().ok()));
                }
            };
            let all = tokio::time::timeout(DEADLINE, reading).await;
            assert_eq!(heard, (1..=last).collect::<Vec<_>>(), "each once, in order; {all:?}");
            if round == 3 {
                break;
            }
            server.nodes().kill(server.addr()).await.expect("killed");
            // What is written before the close is seen has an unknown end.
            let is_up = || publisher.health().endpoints.iter().any(|at| at.state == ConnectionState::Ready);
            until("the publisher to see the close", || !is_up()).await;
            let waiting =
                futures_util::future::join_all((0..50).map(|_| handle.publish("news", next().to_string())));
            let (published, restarted) = tokio::join!(waiting, async {
                until("publications that wait", || far.metrics_line("publications_waiting") >= 50).await;
                server.nodes().restart(server.addr()).await
            });
            restarted.expect("restarted");
            assert!(published.iter().all(Result::is_ok), "{published:?}");
        }
        // A gateway that is gone is not waited for: only the own subscription's round trip is.
        near.stop().await;
        handle.publish("news", "1").await.expect("published");
        far.stop().await;
    })
    .await;
}

impl Gateway {
    /// A gauge by its name.
    fn metrics_line(&self, name: &str) -> u64 {
        let text = self.handle().metrics();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("evenkeel_gateway_{name} ")));
        line.and_then(|value| value.parse().ok()).expect("a gauge")
    }
}

#[tokio::test]
async fn nobody_haunts_a_channel_after_its_gateway_was_killed() {
    use super::members;
    use crate::presence::Member;
    for_each_server("gateway: no ghosts", |kind| async move {
        let server = server(&kind).await;
        let broker = broker(&server);
        let channel = Channel::from("room:a");
        let member = |client: &str| Arc::new(Member::new(client, "u", None));
        let names =
            |members: &[Member]| members.iter().map(|member| member.client.to_string()).collect::<Vec<_>>();
        let (fresh, ended) =
            members::add(&broker, &channel, &[member("c1"), member("c2")]).await.expect("added");
        assert_eq!((fresh.len(), ended.len()), (2, 0));
        let (fresh, _) = members::add(&broker, &channel, &[member("c1"), member("c3")]).await.expect("added");
        assert_eq!(fresh.iter().map(|member| &*member.client).collect::<Vec<_>>(), ["c3"]);
        assert_eq!(names(&members::list(&broker, &channel).await.expect("all").0), ["c1", "c2", "c3"]);
        assert_eq!(names(&members::remove(&broker, &channel, "c3").await.expect("removed")), ["c3"]);
        assert!(members::remove(&broker, &channel, "c3").await.expect("removed").is_empty());
        // Its gateway says nothing any more: the time of this one is over.
        let [_, ends] = scripts::presence_keys(&broker.prefix, &channel);
        let ends = std::str::from_utf8(&ends).expect("a key").to_owned();
        server.command(&["ZADD", &ends, "1", "c2"]).await.expect("aged");
        let (there, ended) = members::list(&broker, &channel).await.expect("all");
        assert_eq!((names(&there), names(&ended)), (vec!["c1".to_owned()], vec!["c2".to_owned()]));
        assert!(members::list(&broker, &channel).await.expect("all").1.is_empty(), "told once");
        let life = server.command(&["PTTL", &ends]).await.expect("a life").integer().expect("a number");
        assert!(life > 0, "keys end by themselves");
        assert!(broker.once("k", Duration::from_secs(60)).await.expect("told"));
        assert!(!broker.once("k", Duration::from_secs(60)).await.expect("told"));
    })
    .await;
}
