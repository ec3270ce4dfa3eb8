//! Subscription links: moves that lose nothing, rights, RESP2, slots that move.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use evenkeel_pool::{
    Deaf, DialConfig, Lane, LaneConfig, LaneId, Link, LinkConfig, LinkId, Outcome,
    machine::{ChannelKind, MoveId, MoveRequest},
};
use evenkeel_protocol::{
    Command, Endpoint, Slot,
    conn::{Credentials, HandshakeConfig, ProtocolChoice},
};
use evenkeel_testkit::{
    launcher::{Cluster, ClusterOptions, Single, SingleOptions, for_each_server},
    server::EmbeddedServer,
};

use super::diary::Diary;

fn endpoint(addr: SocketAddr) -> Endpoint {
    Endpoint::new(&addr.ip().to_string(), addr.port())
}

fn start(endpoint: &Endpoint, config: LinkConfig) -> (Link, Arc<Diary>) {
    let diary = Arc::new(Diary::default());
    (Link::start(LinkId(1), endpoint.clone(), config, diary.observer()), diary)
}

fn request(id: u64, target: &Endpoint) -> MoveRequest {
    #[expect(clippy::disallowed_methods, reason = "a test is its own driver")]
    let now = tokio::time::Instant::now().into_std();
    MoveRequest::new(MoveId(id), target.clone(), now, now + Duration::from_secs(10))
}

/// Publishes numbers on `n`, 500 each second, until told to stop.
struct Publisher {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<usize>,
}

impl Publisher {
    fn start(endpoint: &Endpoint) -> Self {
        let lane = Lane::start(LaneId(1), endpoint.clone(), LaneConfig::default(), Arc::new(Deaf));
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(2));
            let mut sent = 0usize;
            while !flag.load(Ordering::SeqCst) {
                ticks.tick().await;
                let publish = Command::new("PUBLISH").arg("n").arg(sent);
                let outcome = lane.request(&publish, Duration::from_secs(10)).await;
                assert!(matches!(outcome, Outcome::Reply(_)), "{outcome:?}");
                sent += 1;
            }
            sent
        });
        Self { stop, task }
    }

    /// Gives how many were published.
    async fn end(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.unwrap()
    }
}

/// Moves to and fro 20 times under load, and compares.
async fn twenty_moves(sides: [Endpoint; 2]) {
    let (link, diary) = start(&sides[0], LinkConfig::default());
    link.subscribe(ChannelKind::Channel, ["n"]);
    link.subscribe(ChannelKind::Pattern, ["*"]);
    diary.hears("confirmed n").await;
    diary.hears("confirmed *").await;
    let publisher = Publisher::start(&sides[0]);
    for round in 1..=20 {
        let heard = diary.with("m ").len();
        diary
            .until("messages go on", |entries| {
                entries.iter().filter(|entry| entry.starts_with("m ")).count() >= heard + 20
            })
            .await;
        assert!(link.move_to(request(round, &sides[usize::try_from(round % 2).unwrap()])));
        diary.hears(&format!("moved {round}")).await;
    }
    let sent = publisher.end().await;
    diary.hears(&format!("m {}", sent - 1)).await;
    diary.hears(&format!("p n={}", sent - 1)).await;
    let numbers: Vec<String> = (0..sent).map(|number| number.to_string()).collect();
    assert_eq!(diary.with("m "), numbers);
    let by_pattern: Vec<String> = numbers.iter().map(|number| format!("n={number}")).collect();
    assert_eq!(diary.with("p "), by_pattern);
    assert_eq!(diary.with("gap"), [""; 0]);
}

#[tokio::test]
async fn twenty_moves_between_two_ways_to_a_real_server_lose_and_double_nothing() {
    for_each_server("link::twenty_moves", |kind| async move {
        let server = Single::start_with(&kind, SingleOptions::default().unix_socket(true)).await.unwrap();
        let socket = Endpoint::unix(server.unix_socket().unwrap().to_str().unwrap());
        twenty_moves([endpoint(server.addr()), socket]).await;
    })
    .await;
}

#[tokio::test]
async fn twenty_moves_between_addresses_that_keep_no_count_lose_and_double_nothing() {
    let server = EmbeddedServer::builder().addresses(2).start().await.unwrap();
    twenty_moves([server.endpoint(0), server.endpoint(1)]).await;
}

#[tokio::test]
async fn what_the_rights_of_a_user_forbid_is_told_and_a_move_ends_with_a_gap() {
    for_each_server("link::rights", |kind| async move {
        let options = SingleOptions::default().unix_socket(true);
        let server = Single::start_with(&kind, options).await.unwrap();
        let rights = ["ACL", "SETUSER", "u", "on", ">p", "+@all", "resetchannels", "&news.*"];
        server.command(&rights).await.unwrap();
        let handshake = HandshakeConfig::default().credentials(Some(Credentials::user("u", "p")));
        let config = LinkConfig::default().dial(DialConfig::default().handshake(handshake));
        let (link, diary) = start(&endpoint(server.addr()), config);
        link.subscribe(ChannelKind::Channel, ["news.a", "secret", "news.b", "news.c"]);
        diary.hears("refused secret NOPERM").await;
        for channel in ["a", "b", "c"] {
            diary.hears(&format!("confirmed news.{channel}")).await;
        }
        let socket = Endpoint::unix(server.unix_socket().unwrap().to_str().unwrap());
        link.move_to(request(1, &socket));
        diary.hears("moved 1").await;
        diary.hears("gap may_repeat=true").await;
        server.command(&["PUBLISH", "news.b", "after"]).await.unwrap();
        diary.hears("m after").await;
        assert_eq!(diary.with("refused").len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_killed_connection_comes_back_in_both_protocols_and_tells_the_gap() {
    for_each_server("link::killed", |kind| async move {
        let server = Single::start(&kind).await.unwrap();
        for protocol in [ProtocolChoice::Resp2, ProtocolChoice::Auto] {
            let handshake = HandshakeConfig::default().protocol(protocol);
            let config = LinkConfig::default()
                .dial(DialConfig::default().handshake(handshake))
                .ping_after(Duration::from_millis(20));
            let (link, diary) = start(&endpoint(server.addr()), config);
            let channels: Vec<String> = (0..1000).map(|number| format!("c{number}")).collect();
            link.subscribe(ChannelKind::Channel, channels);
            diary.until("all", |entries| entries.len() == 1000).await;
            server.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await.unwrap();
            diary.hears("gap may_repeat=false").await;
            assert_eq!(diary.with("confirmed").len(), 2000);
            server.command(&["PUBLISH", "c500", "x"]).await.unwrap();
            diary.hears("m x").await;
            // PING and its answer, whatever they look like, go on beside messages.
            for round in 0..8 {
                tokio::time::sleep(Duration::from_millis(30)).await;
                server.command(&["PUBLISH", "c1", &round.to_string()]).await.unwrap();
                diary.hears(&format!("m {round}")).await;
            }
            assert_eq!(diary.with("gap").len(), 1);
            link.close();
            link.closed().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_shard_channel_ends_when_its_slot_moves_and_is_refused_where_it_is_not() {
    for_each_server("link::slot_moves", |kind| async move {
        if kind.name() == "redis" && kind.release() < (7, 0) {
            // Shard channels came with 7.0.
            return;
        }
        let cluster = Cluster::start(&kind, ClusterOptions::default().replicas_per_primary(0)).await.unwrap();
        let slot = Slot::of(b"{s}1").number();
        let owner = cluster.owner(slot).await.unwrap().addr;
        let other = cluster.addresses().into_iter().find(|addr| *addr != owner).unwrap();
        let (link, diary) = start(&endpoint(owner), LinkConfig::default());
        link.subscribe(ChannelKind::Shard, ["{s}1", "{s}2"]);
        diary.hears("confirmed {s}1").await;
        diary.hears("confirmed {s}2").await;
        cluster.reshard(slot..=slot, owner, other).await.unwrap();
        diary.hears("ended {s}1 ByServer").await;
        diary.hears("ended {s}2 ByServer").await;
        link.subscribe(ChannelKind::Shard, ["{s}1"]);
        diary.hears("refused {s}1 MOVED").await;
    })
    .await;
}
