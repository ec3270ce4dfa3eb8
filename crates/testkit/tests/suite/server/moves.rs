//! Moves from one address to another.

use std::time::Duration;

use evenkeel_protocol::Notice;
use evenkeel_testkit::server::{Audience, EmbeddedServer, Move, Spread};

use super::peer::{Peer, now};

const GRACE: Duration = Duration::from_millis(400);

async fn notice(peer: &mut Peer) -> Notice {
    let frame = peer.next_frame().await;
    Notice::parse(frame.elements().unwrap()).unwrap().unwrap()
}

#[tokio::test]
async fn a_move_is_announced_then_carried_out() {
    let server = EmbeddedServer::builder().addresses(2).start().await.unwrap();
    let mut told = Peer::opted_in(server.addr(), "internal-ip").await;
    let mut untold = Peer::connect(server.addr()).await;
    assert_eq!(untold.ask(&["SET", "k", "v"]).await, "+OK\r\n");
    let began = now();
    let moving = server.move_endpoint(Move::new(0, 1, GRACE)).await.unwrap();
    assert_eq!((moving.announced().seq, moving.announced().connections), (0, 1));
    let expected = Notice::Moving {
        seq: Some(0),
        grace: Some(Duration::from_secs(1)),
        target: Some(server.endpoint(1)),
    };
    assert_eq!(notice(&mut told).await, expected);
    // The old address works until the end, and new connections of its own are told with less time.
    assert_eq!(told.ask(&["GET", "k"]).await, "$1\r\nv\r\n");
    let mut late = Peer::opted_in(server.address(0), "none").await;
    let again = Notice::Moving { seq: Some(0), grace: Some(Duration::ZERO), target: None };
    assert_eq!(notice(&mut late).await, again);
    // The new address has the same data and announces nothing.
    let mut moved = Peer::opted_in(server.address(1), "internal-ip").await;
    assert_eq!(moved.ask(&["GET", "k"]).await, "$1\r\nv\r\n");
    let report = moving.finished().await.unwrap();
    assert!(began.elapsed() >= GRACE);
    assert_eq!((report.closed, report.commands_after_announcement), (3, 3), "{report:?}");
    for peer in [&mut told, &mut untold, &mut late] {
        assert_eq!(peer.try_next().await, None);
    }
    assert!(tokio::net::TcpStream::connect(server.address(0)).await.is_err());
    assert_eq!(server.counters(0).closed_by_server, 3);
    assert_eq!(server.counters(0).open, 0);
    assert_eq!(moved.ask(&["PING"]).await, "+PONG\r\n");
    // The front door leads to the new address.
    let mut through = Peer::connect(server.addr()).await;
    assert_eq!(through.ask(&["GET", "k"]).await, "$1\r\nv\r\n");
    assert!(server.connections().iter().all(|conn| conn.address == 1));
}

#[tokio::test]
async fn an_address_moves_back_and_listens_where_it_did() {
    let server = EmbeddedServer::builder().addresses(2).spread(Spread::Ports).start().await.unwrap();
    let first = server.address(0);
    for (from, to) in [(0, 1), (1, 0), (0, 1)] {
        let plan = Move::new(from, to, Duration::from_millis(30));
        let report = server.move_endpoint(plan).await.unwrap().finished().await.unwrap();
        assert_eq!(report.closed, 0);
        assert_eq!(server.front_target(), to);
        assert_eq!(Peer::connect(server.address(to)).await.ask(&["PING"]).await, "+PONG\r\n");
    }
    assert_eq!(server.address(0), first);
}

#[tokio::test]
async fn hosts_share_a_port_so_that_clients_who_keep_theirs_can_follow() {
    let server = EmbeddedServer::builder().addresses(3).start().await.unwrap();
    let all: Vec<_> = (0..3).map(|index| server.address(index)).chain([server.addr()]).collect();
    assert!(all.iter().all(|addr| addr.port() == server.addr().port()), "{all:?}");
    let mut hosts: Vec<_> = all.iter().map(std::net::SocketAddr::ip).collect();
    hosts.sort();
    hosts.dedup();
    assert_eq!(hosts.len(), 4);
}

#[tokio::test]
async fn targets_are_told_in_the_form_asked_for() {
    let server =
        EmbeddedServer::builder().addresses(2).hostnames(["one.test", "two.test"]).start().await.unwrap();
    let target = |plan: Move, form: &'static str| {
        let server = &server;
        async move {
            let mut peer = Peer::opted_in(server.address(0), form).await;
            let moving = server.move_endpoint(plan).await.unwrap();
            let Notice::Moving { target, .. } = notice(&mut peer).await else { panic!("not a move") };
            moving.finished().await.unwrap();
            server.listen(0).await.unwrap();
            target.map(|endpoint| endpoint.to_string())
        }
    };
    let short = Duration::from_millis(20);
    let port = server.address(1).port();
    for form in ["internal-ip", "external-ip"] {
        assert_eq!(target(Move::new(0, 1, short), form).await.unwrap(), server.address(1).to_string());
    }
    for form in ["internal-fqdn", "external-fqdn"] {
        assert_eq!(target(Move::new(0, 1, short), form).await.unwrap(), format!("two.test:{port}"));
    }
    assert_eq!(target(Move::new(0, 1, short), "none").await, None);
    assert_eq!(target(Move::new(0, 1, short).null_target(), "internal-ip").await, None);
    let dead = target(Move::new(0, 1, short).dead_target(), "internal-ip").await.unwrap();
    assert!(tokio::net::TcpStream::connect(&dead).await.is_err(), "{dead}");
    let told = target(Move::new(0, 1, short).told_target("h:1".parse().unwrap()), "internal-ip").await;
    assert_eq!(told.unwrap(), "h:1");
}

#[tokio::test]
async fn the_name_flips_when_the_plan_says() {
    let server = EmbeddedServer::builder().addresses(2).start().await.unwrap();
    let began = now();
    let moving = server.move_endpoint(Move::new(0, 1, GRACE).flip_at(0.25).copies(3)).await.unwrap();
    let mut seen = None;
    while began.elapsed() < GRACE && seen.is_none() {
        let mut peer = Peer::connect(server.addr()).await;
        peer.ask(&["PING"]).await;
        if server.connections().iter().any(|conn| conn.address == 1) {
            seen = Some(began.elapsed());
        }
    }
    let seen = seen.expect("the name never flipped");
    assert!(seen >= GRACE / 4 && seen < GRACE, "{seen:?}");
    moving.finished().await.unwrap();
}

#[tokio::test]
async fn copies_carry_one_id_and_withheld_replies_are_lost() {
    let server = EmbeddedServer::builder().addresses(2).start().await.unwrap();
    let mut peer = Peer::opted_in(server.addr(), "internal-ip").await;
    let plan =
        Move::new(0, 1, GRACE).copies(3).withhold_last(GRACE / 2).announced_grace(Duration::from_secs(9));
    let moving = server.move_endpoint(plan).await.unwrap();
    for _ in 0..3 {
        let expected = Notice::Moving {
            seq: Some(0),
            grace: Some(Duration::from_secs(9)),
            target: Some(server.endpoint(1)),
        };
        assert_eq!(notice(&mut peer).await, expected);
    }
    assert_eq!(peer.ask(&["INCR", "n"]).await, ":1\r\n");
    tokio::time::sleep(GRACE * 3 / 4).await;
    peer.send(&["INCR", "n"]).await;
    assert_eq!(peer.try_next().await, None, "the reply is lost with the connection");
    let report = moving.finished().await.unwrap();
    assert_eq!(report.commands_after_announcement, 2);
    assert_eq!(Peer::connect(server.addr()).await.ask(&["GET", "n"]).await, "$1\r\n2\r\n");
}

#[tokio::test]
async fn nothing_is_left_when_the_server_ends() {
    let server = EmbeddedServer::builder().addresses(2).start().await.unwrap();
    let handle = server.handle();
    let addrs = [server.addr(), server.address(0), server.address(1)];
    let mut peer = Peer::connect(server.addr()).await;
    peer.ask(&["PING"]).await;
    let moving = server.move_endpoint(Move::new(0, 1, Duration::from_secs(60))).await.unwrap();
    server.shutdown().await;
    assert_eq!(peer.try_next().await, None);
    for addr in addrs {
        assert!(tokio::net::TcpStream::connect(addr).await.is_err(), "{addr}");
    }
    assert!(moving.finished().await.is_err());
    assert_eq!(handle.connections(), []);
    assert!(handle.move_endpoint(Move::new(0, 1, GRACE)).await.is_err());
}

#[tokio::test]
async fn a_dropped_server_closes_its_connections() {
    let server = EmbeddedServer::start().await.unwrap();
    let mut peer = Peer::connect(server.addr()).await;
    peer.ask(&["PING"]).await;
    let handle = server.handle();
    drop(server);
    assert_eq!(peer.try_next().await, None);
    assert_eq!(handle.close(Audience::All), 0);
}
