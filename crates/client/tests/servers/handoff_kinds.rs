//! A move, as each kind of connection sees it: lanes, leases idle and in use, blocked commands, transactions.

use std::time::Duration;

use evenkeel_client::{Client, Event, Executed};
use evenkeel_testkit::server::{EmbeddedServer, Move, ServerHandle};

use crate::load::{Load, now};

const GRACE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(5);

async fn start() -> (EmbeddedServer, Client) {
    let server = EmbeddedServer::builder().addresses(2).start().await.unwrap();
    let client = Client::connect(server.url()).await.unwrap();
    (server, client)
}

/// Waits until something is so.
async fn until(what: impl Fn() -> bool) {
    let waiting = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap();
}

fn blocked(server: &ServerHandle) -> usize {
    server.connections().iter().filter(|conn| conn.blocked).count()
}

fn ran(server: &ServerHandle, words: &[&str]) -> usize {
    let is = |args: &[bytes::Bytes]| {
        words.iter().zip(args).all(|(word, arg)| arg.eq_ignore_ascii_case(word.as_bytes()))
    };
    server.recorded().iter().filter(|command| is(&command.args)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_command_is_ended_there_and_waits_on_here() {
    let (server, client) = start().await;
    server.record(1000);
    let waiting = {
        let client = client.clone();
        tokio::spawn(async move {
            client.blpop::<Option<(String, String)>>(["jobs"], Duration::from_secs(30)).await
        })
    };
    until(|| blocked(&server) == 1).await;
    let report = server.move_endpoint(Move::new(0, 1, GRACE)).await.unwrap().finished().await.unwrap();
    assert_eq!(report.closed, 0);
    assert_eq!(ran(&server, &["CLIENT", "UNBLOCK"]), 1);
    until(|| blocked(&server) == 1).await;
    client.rpush("jobs", "one").await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), Some(("jobs".to_owned(), "one".to_owned())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocked_command_keeps_its_time() {
    let (server, client) = start().await;
    server.record(1000);
    let wait = Duration::from_millis(1500);
    let began = now();
    let waiting = {
        let client = client.clone();
        tokio::spawn(async move { client.blpop::<Option<(String, String)>>(["never"], wait).await })
    };
    until(|| blocked(&server) == 1).await;
    server.move_endpoint(Move::new(0, 1, GRACE)).await.unwrap().finished().await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), None);
    assert!(now() - began >= wait, "nil came before its time");
    let waits: Vec<f64> = server
        .recorded()
        .iter()
        .filter(|command| command.args.first().is_some_and(|name| name.as_ref() == b"BLPOP"))
        .map(|command| std::str::from_utf8(command.args.last().unwrap()).unwrap().parse().unwrap())
        .collect();
    assert!(waits.len() == 2 && waits[1] < waits[0], "the time that was left: {waits:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_blocking_command_that_waits_for_data_goes_on_and_nothing_is_taken_twice() {
    let (server, client) = start().await;
    let mut waiting = tokio::task::JoinSet::new();
    for words in ["BLMOVE a b LEFT RIGHT 30", "BRPOP c 30", "BZPOPMIN z 30", "XREAD BLOCK 30000 STREAMS t 0"]
    {
        let client = client.clone();
        waiting.spawn(async move {
            let mut words = words.split(' ');
            let call = client.cmd(words.next().unwrap()).args(words.collect::<Vec<_>>());
            call.query::<evenkeel_client::Frame>()
                .await
                .map(|frame| frame.elements().is_some() || frame.as_bytes().is_some())
        });
    }
    let waiters = waiting.len();
    until(|| blocked(&server) >= waiters - 1).await;
    let all = blocked(&server);
    server.move_endpoint(Move::new(0, 1, GRACE)).await.unwrap().finished().await.unwrap();
    until(|| blocked(&server) == all).await;
    client.rpush("a", "1").await.unwrap();
    client.rpush("c", "1").await.unwrap();
    client.cmd("ZADD").args(["z", "1", "m"]).query::<i64>().await.unwrap();
    client.cmd("XADD").args(["t", "*", "f", "v"]).query::<String>().await.unwrap();
    while let Some(given) = waiting.join_next().await {
        // A server that does not know one of them says so, which is an answer too.
        match given.unwrap() {
            Ok(given) => assert!(given),
            Err(error) => assert!(error.server_code().is_some(), "{error}"),
        }
    }
    assert_eq!(client.lrange::<Vec<String>>("b", 0, -1).await.unwrap(), ["1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_stays_with_its_connection_until_exec_and_then_moves() {
    let (server, client) = start().await;
    let mut lease = client.lease().await.unwrap();
    let mut events = client.events();
    for (round, meddle) in [(0, true), (1, false)] {
        lease.watch(["stock"]).await.unwrap();
        let (from, to) = (round % 2, 1 - round % 2);
        let moving = server.move_endpoint(Move::new(from, to, GRACE)).await.unwrap();
        // The lane has gone, the lease under WATCH is where it was.
        until(|| server.counters(to).open >= 1 && server.counters(from).open == 1).await;
        if meddle {
            client.set("stock", "taken").await.unwrap();
        }
        let sold = lease.transaction().set("stock", "mine").await.unwrap();
        assert_eq!(sold.is_none(), meddle, "the watch must be in force");
        until(|| server.counters(from).open == 0).await;
        let report = moving.finished().await.unwrap();
        assert_eq!(report.closed, 0);
        loop {
            let event = tokio::time::timeout(PATIENCE, events.recv()).await.unwrap().unwrap();
            if let Event::HandedOff { moved, abandoned, .. } = event {
                break assert_eq!((moved, abandoned), (2, 0));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_outlives_the_grace_fails_before_exec() {
    let (server, client) = start().await;
    let mut lease = client.lease().await.unwrap();
    lease.watch(["stock"]).await.unwrap();
    server.move_endpoint(Move::new(0, 1, GRACE)).await.unwrap().finished().await.unwrap();
    let error = lease.transaction().set("stock", "mine").await.unwrap_err();
    assert_eq!(error.executed(), Executed::No, "{error}");
    assert_eq!(client.get::<Option<String>>("stock").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_nobody_uses_move_at_once() {
    let (server, client) = start().await;
    let mut leases = Vec::new();
    for _ in 0..10 {
        leases.push(client.lease().await.unwrap());
    }
    drop(leases);
    let moving = server.move_endpoint(Move::new(0, 1, GRACE)).await.unwrap();
    until(|| server.counters(0).open == 0).await;
    assert_eq!(server.counters(1).open, 11);
    assert_eq!(moving.finished().await.unwrap().closed, 0);
    // They are used where they are.
    let mut lease = client.lease().await.unwrap();
    assert_eq!(lease.cmd("PING").query::<String>().await.unwrap(), "PONG");
    assert_eq!(server.counters(1).accepted, 11);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_turns_only_at_the_close_costs_no_command() {
    let (server, client) = start().await;
    let load = Load::start(&client, "load", 8);
    let waiting = {
        let client = client.clone();
        tokio::spawn(async move {
            client.blpop::<Option<(String, String)>>(["jobs"], Duration::from_secs(30)).await
        })
    };
    until(|| blocked(&server) == 1).await;
    for round in 0..2usize {
        let (from, to) = (round % 2, 1 - round % 2);
        let plan = Move::new(from, to, GRACE).null_target().flip_at(1.0);
        server.move_endpoint(plan).await.unwrap().finished().await.unwrap();
        // The next announcement is for those who have arrived: the lane, and who waits.
        until(|| server.counters(to).open >= 2 && blocked(&server) == 1).await;
    }
    client.rpush("jobs", "one").await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), Some(("jobs".to_owned(), "one".to_owned())));
    let outcome = load.finish(&client).await;
    let counted = (outcome.failed, outcome.unknown, outcome.lost, outcome.doubled, outcome.disordered);
    assert_eq!(counted, (0, 0, 0, 0, 0), "{outcome:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waits_that_begin_just_before_a_late_close_go_on_behind_it() {
    const WAITS: u32 = 30;
    let server = EmbeddedServer::builder().addresses(2).start().await.unwrap();
    let client = Client::connect(format!("{}?max_leases={WAITS}", server.url())).await.unwrap();
    let mut leases = Vec::new();
    for _ in 0..WAITS {
        leases.push(client.lease().await.unwrap());
    }
    drop(leases);
    let plan = Move::new(0, 1, GRACE).null_target().flip_at(1.0);
    let moving = server.move_endpoint(plan).await.unwrap();
    // They begin all through the last tenth of the grace, in which connections are about to be left or silent.
    let mut waiting = tokio::task::JoinSet::new();
    tokio::time::sleep(GRACE * 9 / 10).await;
    let mut pace = tokio::time::interval(GRACE / 10 / WAITS);
    for _ in 0..WAITS {
        pace.tick().await;
        let client = client.clone();
        waiting.spawn(async move {
            client.blpop::<Option<(String, u32)>>(["jobs"], Duration::from_secs(30)).await
        });
    }
    moving.finished().await.unwrap();
    for number in 0..WAITS {
        client.rpush("jobs", number).await.unwrap();
    }
    let mut given = Vec::new();
    while let Some(one) = waiting.join_next().await {
        given.push(one.unwrap().unwrap().unwrap().1);
    }
    given.sort_unstable();
    assert_eq!(given, (0..WAITS).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_is_sent_to_a_dead_target_is_made_all_the_same() {
    let (server, client) = start().await;
    let moving = server.move_endpoint(Move::new(0, 1, GRACE).dead_target()).await.unwrap();
    // New connections are sent to the target until it is given up.
    until(|| client.maintenance().metrics().failures.values().sum::<u64>() > 0).await;
    let mut lease = client.lease().await.unwrap();
    assert_eq!(lease.cmd("PING").query::<String>().await.unwrap(), "PONG");
    drop(lease);
    moving.finished().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_target_costs_no_command() {
    let (server, client) = start().await;
    let load = Load::start(&client, "load", 8);
    let plan = Move::new(0, 1, Duration::from_secs(2)).dead_target();
    assert_eq!(server.move_endpoint(plan).await.unwrap().finished().await.unwrap().closed, 0);
    let outcome = load.finish(&client).await;
    let counted = (outcome.failed, outcome.unknown, outcome.lost, outcome.doubled, outcome.disordered);
    assert_eq!(counted, (0, 0, 0, 0, 0), "{outcome:?}");
    assert_eq!(
        client.maintenance().metrics().failures.values().sum::<u64>(),
        4,
        "one connection tried it, four times"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operators_drain_makes_every_connection_anew() {
    let (server, client) = start().await;
    let lease = client.lease().await.unwrap();
    drop(lease);
    let load = Load::start(&client, "load", 4);
    let before = server.counters(0).accepted;
    let home = evenkeel_protocol::Endpoint::new(&server.addr().ip().to_string(), server.addr().port());
    // The name leads elsewhere: what an operator does first.
    server.set_front_target(1);
    assert!(client.drain(&home, Duration::from_secs(2)).await);
    until(|| server.counters(0).open == 0).await;
    assert_eq!((server.counters(0).accepted, server.counters(1).open), (before, 2));
    let outcome = load.finish(&client).await;
    assert_eq!((outcome.failed, outcome.unknown, outcome.disordered), (0, 0, 0), "{outcome:?}");
}
