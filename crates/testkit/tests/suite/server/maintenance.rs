//! The opt-in, and what is announced to whom.

use std::time::Duration;

use evenkeel_protocol::{
    Notice,
    maintenance::{SlotMove, SlotRanges},
};
use evenkeel_testkit::server::{Audience, EmbeddedServer, EndpointType, MaintenanceSupport};

use super::peer::Peer;

const MOMENT: Duration = Duration::from_millis(50);

fn failed_over(shard: &str) -> Notice {
    Notice::FailedOver { seq: None, shards: vec![shard.to_owned()] }
}

async fn notice(peer: &mut Peer) -> Notice {
    let frame = peer.next_frame().await;
    Notice::parse(frame.elements().unwrap()).unwrap().unwrap()
}

#[tokio::test]
async fn every_announcement_reaches_those_who_opted_in_as_it_was_made() {
    let server = EmbeddedServer::builder().first_seq(16).start().await.unwrap();
    let mut told = Peer::opted_in(server.addr(), "external-fqdn").await;
    let mut untold = Peer::resp3(server.addr()).await;
    let shards = || vec!["1".to_owned(), "2".to_owned()];
    let within = Some(Duration::from_secs(2));
    let slots = || SlotRanges::parse("1,5-9").unwrap();
    let moved = || SlotMove::new(Some("a:1".parse().unwrap()), "b:2".parse().unwrap(), slots());
    let all = [
        Notice::Migrating { seq: Some(16), within, shards: shards() },
        Notice::Migrated { seq: Some(17), shards: shards() },
        Notice::FailingOver { seq: Some(18), within, shards: shards() },
        Notice::FailedOver { seq: Some(19), shards: shards() },
        Notice::SlotsMigrating { seq: Some(20), slots: slots() },
        Notice::SlotsMigrated { seq: Some(21), moves: vec![moved(), moved()] },
        Notice::Moving { seq: Some(22), grace: within, target: Some("h:7".parse().unwrap()) },
    ];
    for announced in &all {
        let seq = announced.seq().unwrap();
        let reached = server.announce(announced, Audience::All);
        assert_eq!((reached.seq, reached.connections), (seq, 1));
        assert_eq!(notice(&mut told).await, *announced);
    }
    // Ids go on behind those that were given.
    assert_eq!(server.announce(&failed_over("3"), Audience::All).seq, 23);
    assert_eq!(notice(&mut told).await.seq(), Some(23));
    assert!(untold.is_silent(MOMENT).await);
}

#[tokio::test]
async fn frames_have_the_layout_that_clients_know() {
    let server = EmbeddedServer::builder().first_seq(1).start().await.unwrap();
    let mut peer = Peer::opted_in(server.addr(), "none").await;
    server.announce(
        &Notice::Moving { seq: None, grace: Some(Duration::from_secs(15)), target: None },
        Audience::All,
    );
    assert_eq!(peer.next().await, ">4\r\n$6\r\nMOVING\r\n:1\r\n:15\r\n_\r\n");
    server.announce(&failed_over("7"), Audience::All);
    assert_eq!(peer.next().await, ">3\r\n$11\r\nFAILED_OVER\r\n:2\r\n*1\r\n$1\r\n7\r\n");
    let moves = vec![SlotMove::new(
        Some("h1:6379".parse().unwrap()),
        "h2:6379".parse().unwrap(),
        SlotRanges::parse("123,789-1000").unwrap(),
    )];
    server.announce(&Notice::SlotsMigrated { seq: None, moves }, Audience::All);
    assert_eq!(
        peer.next().await,
        ">3\r\n$9\r\nSMIGRATED\r\n:3\r\n*1\r\n*3\r\n$7\r\nh1:6379\r\n$7\r\nh2:6379\r\n$12\r\n123,789-1000\r\n"
    );
}

#[tokio::test]
async fn the_opt_in_is_refused_in_every_known_way_and_can_change_live() {
    let server = EmbeddedServer::start().await.unwrap();
    let mut peer = Peer::resp3(server.addr()).await;
    let on = ["CLIENT", "MAINT_NOTIFICATIONS", "ON", "moving-endpoint-type", "internal-ip"];
    server.set_maintenance(MaintenanceSupport::Unknown);
    assert_eq!(peer.ask(&on).await, "-ERR unknown subcommand 'MAINT_NOTIFICATIONS'. Try CLIENT HELP.\r\n");
    server.set_maintenance(MaintenanceSupport::Disabled);
    assert_eq!(peer.ask(&on).await, "-ERR maintenance notifications are disabled on this server\r\n");
    server.set_maintenance(MaintenanceSupport::Silent);
    assert_eq!(peer.ask(&on).await, "+OK\r\n");
    assert_eq!(server.announce(&failed_over("1"), Audience::All).connections, 0);
    assert!(peer.is_silent(MOMENT).await);
    server.set_maintenance(MaintenanceSupport::Enabled);
    for malformed in [
        &["CLIENT", "MAINT_NOTIFICATIONS", "PERHAPS"][..],
        &["CLIENT", "MAINT_NOTIFICATIONS", "ON", "moving-endpoint-type"],
        &["CLIENT", "MAINT_NOTIFICATIONS", "ON", "moving-endpoint-type", "somewhere"],
        &["CLIENT", "MAINT_NOTIFICATIONS", "ON", "other", "internal-ip"],
    ] {
        assert_eq!(peer.ask(malformed).await, "-ERR syntax error\r\n", "{malformed:?}");
    }
    assert_eq!(server.connections()[0].maintenance, None);
    for (word, form) in [
        ("internal-ip", EndpointType::InternalIp),
        ("INTERNAL-FQDN", EndpointType::InternalFqdn),
        ("external-ip", EndpointType::ExternalIp),
        ("external-fqdn", EndpointType::ExternalFqdn),
        ("none", EndpointType::None),
    ] {
        let mut one = Peer::opted_in(server.addr(), word).await;
        assert_eq!(one.next().await, ">3\r\n$11\r\nFAILED_OVER\r\n:0\r\n*1\r\n$1\r\n1\r\n");
        assert_eq!(server.connections().last().unwrap().maintenance, Some(form));
        drop(one);
    }
}

#[tokio::test]
async fn opting_out_ends_it_and_resp2_hears_nothing() {
    let server = EmbeddedServer::start().await.unwrap();
    let mut peer = Peer::opted_in(server.addr(), "none").await;
    assert_eq!(peer.ask(&["CLIENT", "MAINT_NOTIFICATIONS", "OFF"]).await, "+OK\r\n");
    let mut old = Peer::connect(server.addr()).await;
    assert_eq!(old.ask(&["client", "maint_notifications", "on"]).await, "+OK\r\n");
    assert_eq!(server.announce(&failed_over("1"), Audience::All).connections, 0);
    assert_eq!(peer.ask(&["PING"]).await, "+PONG\r\n");
    assert_eq!(old.ask(&["PING"]).await, "+PONG\r\n");
}

#[tokio::test]
async fn the_latest_completion_is_replayed_and_starters_are_not() {
    let server = EmbeddedServer::start().await.unwrap();
    let shards = vec!["1".to_owned()];
    server.announce(&Notice::Migrated { seq: None, shards: shards.clone() }, Audience::All);
    let completed = server.announce(&failed_over("1"), Audience::All);
    server.announce(&Notice::Migrating { seq: None, within: None, shards }, Audience::All);
    for _ in 0..2 {
        let mut late = Peer::opted_in(server.addr(), "none").await;
        let replayed = notice(&mut late).await;
        assert_eq!((replayed.name(), replayed.seq()), ("FAILED_OVER", Some(completed.seq)));
        assert!(late.is_silent(MOMENT).await);
    }
    let forgetful = EmbeddedServer::builder().retain_completions(false).start().await.unwrap();
    forgetful.announce(&failed_over("1"), Audience::All);
    assert!(Peer::opted_in(forgetful.addr(), "none").await.is_silent(MOMENT).await);
}

#[tokio::test]
async fn one_connection_or_one_address_can_be_meant() {
    let server = EmbeddedServer::builder().addresses(2).start().await.unwrap();
    let mut first = Peer::opted_in(server.address(0), "none").await;
    let mut second = Peer::opted_in(server.address(1), "none").await;
    let id = server.connections().iter().find(|conn| conn.address == 1).unwrap().id;
    assert_eq!(server.announce(&failed_over("1"), Audience::Connection(id)).connections, 1);
    assert_eq!(notice(&mut second).await.seq(), Some(0));
    assert_eq!(server.announce(&failed_over("1"), Audience::Address(0)).connections, 1);
    assert_eq!(notice(&mut first).await.seq(), Some(1));
    assert_eq!(server.send_raw(b">2\r\n+MOVING\r\n:x\r\n", Audience::Address(1)), 1);
    assert_eq!(second.next().await, ">2\r\n+MOVING\r\n:x\r\n");
    assert_eq!(server.close(Audience::Connection(id)), 1);
    assert_eq!(second.try_next().await, None);
    assert_eq!(first.ask(&["PING"]).await, "+PONG\r\n");
}

#[tokio::test]
async fn announcements_fall_between_replies_and_never_into_them() {
    let server = EmbeddedServer::start().await.unwrap();
    let mut peer = Peer::opted_in(server.addr(), "none").await;
    let big = "x".repeat(100_000);
    peer.ask(&["SET", "k", &big]).await;
    let announcer = {
        let server = server.handle();
        tokio::spawn(async move {
            for _ in 0..200 {
                server.announce(&failed_over("1"), Audience::All);
                tokio::task::yield_now().await;
            }
        })
    };
    for _ in 0..20 {
        peer.send_raw(&b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n".repeat(10)).await;
    }
    let (mut replies, mut pushes) = (Vec::new(), 0);
    while replies.len() < 400 || pushes < 200 {
        let frame = peer.next().await;
        if frame.starts_with(b">") {
            pushes += 1;
        } else {
            replies.push(frame.len());
        }
    }
    announcer.await.unwrap();
    assert!(replies.chunks(2).all(|pair| pair == [100_000 + 11, 8]), "{replies:?}");
}
