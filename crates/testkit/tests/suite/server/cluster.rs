//! Slots, their owners, and the redirections between them.

use std::time::Duration;

use evenkeel_protocol::{Frame, Limits, Notice, Slot, maintenance::SlotRanges};
use evenkeel_testkit::server::EmbeddedServer;

use super::peer::Peer;

async fn cluster(nodes: usize) -> EmbeddedServer {
    EmbeddedServer::builder().addresses(nodes).cluster().start().await.unwrap()
}

fn slots(key: &str) -> SlotRanges {
    let slot = Slot::of(key.as_bytes()).number();
    SlotRanges::from_ranges([slot..=slot])
}

fn moved(server: &EmbeddedServer, key: &str, to: usize) -> String {
    format!("-MOVED {} {}\r\n", Slot::of(key.as_bytes()).number(), server.address(to))
}

#[tokio::test]
async fn every_node_answers_for_its_slots_and_names_the_owner_of_others() {
    let server = cluster(3).await;
    let mut first = Peer::resp3(server.address(0)).await;
    // foo is in slot 12182, of the third node.
    assert_eq!(server.slot_owner(Slot::of(b"foo")), 2);
    assert_eq!(first.ask(&["SET", "foo", "1"]).await, moved(&server, "foo", 2));
    let mut third = Peer::connect(server.address(2)).await;
    assert_eq!(third.ask(&["SET", "foo", "1"]).await, "+OK\r\n");
    assert_eq!(
        third.ask(&["MGET", "foo", "bar"]).await,
        "-CROSSSLOT Keys in request don't hash to the same slot\r\n"
    );
    assert_eq!(first.ask(&["CLUSTER", "KEYSLOT", "foo"]).await, ":12182\r\n");
    assert_eq!(first.ask(&["SELECT", "1"]).await, "-ERR SELECT is not allowed in cluster mode\r\n");
    // A transaction with a redirected command is discarded.
    assert_eq!(first.ask(&["MULTI"]).await, "+OK\r\n");
    assert_eq!(first.ask(&["GET", "foo"]).await, moved(&server, "foo", 2));
    assert!(first.ask(&["EXEC"]).await.starts_with(b"-EXECABORT"));
}

#[tokio::test]
async fn slots_shards_and_nodes_agree() {
    let server = cluster(3).await;
    let mut peer = Peer::resp3(server.address(1)).await;
    peer.send(&["CLUSTER", "SLOTS"]).await;
    let rows = peer.next_frame().await;
    let rows: Vec<_> = rows
        .elements()
        .unwrap()
        .iter()
        .map(|row| {
            let row = row.elements().unwrap();
            let node = row[2].elements().unwrap();
            (row[0].as_integer().unwrap(), row[1].as_integer().unwrap(), node[2].as_str().unwrap().to_owned())
        })
        .collect();
    assert_eq!(
        rows.iter().map(|(first, last, _)| (*first, *last)).collect::<Vec<_>>(),
        [(0, 5461), (5462, 10923), (10924, 16383)]
    );
    let myid = peer.ask(&["CLUSTER", "MYID"]).await;
    assert_eq!(myid, format!("$40\r\n{}\r\n", rows[1].2));
    let shards = peer.ask(&["CLUSTER", "SHARDS"]).await;
    let shards = Frame::parse(&shards, &Limits::default()).unwrap();
    for (shard, (first, last, id)) in shards.elements().unwrap().iter().zip(&rows) {
        let range = shard.get("slots").unwrap().elements().unwrap();
        assert_eq!((range[0].as_integer(), range[1].as_integer()), (Some(*first), Some(*last)));
        let node = &shard.get("nodes").unwrap().elements().unwrap()[0];
        assert_eq!(node.get("id").unwrap().as_str(), Some(id.as_str()));
        assert_eq!(node.get("role").unwrap().as_str(), Some("master"));
        assert_eq!(node.get("health").unwrap().as_str(), Some("online"));
    }
    peer.send(&["CLUSTER", "NODES"]).await;
    let nodes = peer.next_frame().await;
    let nodes = nodes.as_str().unwrap();
    assert_eq!(nodes.lines().count(), 3);
    let mine = nodes.lines().find(|line| line.contains("myself")).unwrap();
    assert!(mine.starts_with(&rows[1].2) && mine.ends_with("5462-10923"), "{mine}");
    assert!(mine.contains(&server.address(1).to_string()));
}

#[tokio::test]
async fn a_migrating_slot_asks_tries_again_and_is_moved() {
    let server = cluster(2).await;
    let (source, target) = (server.slot_owner(Slot::of(b"{t}")), 1 - server.slot_owner(Slot::of(b"{t}")));
    let (mut from, mut to) =
        (Peer::connect(server.address(source)).await, Peer::connect(server.address(target)).await);
    assert_eq!(from.ask(&["SET", "{t}old", "1"]).await, "+OK\r\n");
    server.begin_migration(&slots("{t}"), target).unwrap();
    let ask = format!("-ASK {} {}\r\n", Slot::of(b"{t}").number(), server.address(target));
    let again = "-TRYAGAIN Multiple keys request during rehashing of slot\r\n";
    assert_eq!(from.ask(&["GET", "{t}old"]).await, "$1\r\n1\r\n");
    assert_eq!(from.ask(&["GET", "{t}new"]).await, ask);
    assert_eq!(from.ask(&["MGET", "{t}old", "{t}new"]).await, again);
    // The target serves only who asks, and only the next command.
    assert_eq!(to.ask(&["SET", "{t}new", "2"]).await, moved(&server, "{t}", source));
    assert_eq!(to.ask(&["ASKING"]).await, "+OK\r\n");
    assert_eq!(to.ask(&["SET", "{t}new", "2"]).await, "+OK\r\n");
    assert_eq!(to.ask(&["GET", "{t}new"]).await, moved(&server, "{t}", source));
    assert_eq!(from.ask(&["GET", "{t}new"]).await, ask, "it was written at the target");
    to.ask(&["ASKING"]).await;
    assert_eq!(to.ask(&["MGET", "{t}old", "{t}new"]).await, again);
    assert_eq!(server.hand_over_keys(&slots("{t}")), 1);
    assert_eq!(from.ask(&["GET", "{t}old"]).await, ask);
    to.ask(&["ASKING"]).await;
    assert_eq!(to.ask(&["MGET", "{t}old", "{t}new"]).await, "*2\r\n$1\r\n1\r\n$1\r\n2\r\n");
    let moves = server.move_slots(&slots("{t}"), target).unwrap();
    assert_eq!(moves.len(), 1);
    assert_eq!(from.ask(&["GET", "{t}old"]).await, moved(&server, "{t}", target));
    assert_eq!(to.ask(&["MGET", "{t}old", "{t}new"]).await, "*2\r\n$1\r\n1\r\n$1\r\n2\r\n");
}

#[tokio::test]
async fn a_reshard_is_announced_to_every_node_and_ends_shard_subscriptions() {
    let server = cluster(2).await;
    let source = server.slot_owner(Slot::of(b"chan"));
    let target = 1 - source;
    let mut subscriber = Peer::opted_in(server.address(source), "none").await;
    let mut bystander = Peer::opted_in(server.address(target), "none").await;
    subscriber.ask(&["SSUBSCRIBE", "chan"]).await;
    let seq = server.reshard(&slots("chan"), target, Duration::from_millis(20)).await.unwrap();
    assert_eq!(seq, 1);
    for peer in [&mut subscriber, &mut bystander] {
        let frame = peer.next_frame().await;
        let notice = Notice::parse(frame.elements().unwrap()).unwrap().unwrap();
        assert_eq!(notice, Notice::SlotsMigrating { seq: Some(0), slots: slots("chan") });
    }
    assert_eq!(subscriber.next().await, ">3\r\n$12\r\nsunsubscribe\r\n$4\r\nchan\r\n:0\r\n");
    for peer in [&mut subscriber, &mut bystander] {
        let frame = peer.next_frame().await;
        let Some(Ok(Notice::SlotsMigrated { seq: Some(1), moves })) =
            Notice::parse(frame.elements().unwrap())
        else {
            unreachable!("not the end of a reshard");
        };
        assert_eq!(moves.len(), 1);
        assert_eq!(moves[0].source, Some(server.endpoint(source)));
        assert_eq!(moves[0].target, server.endpoint(target));
        assert_eq!(moves[0].slots, slots("chan"));
    }
    assert_eq!(subscriber.ask(&["SSUBSCRIBE", "chan"]).await, moved(&server, "chan", target));
    assert!(server.reshard(&slots("chan"), 2, Duration::ZERO).await.is_err());
    let single = EmbeddedServer::start().await.unwrap();
    assert!(single.move_slots(&slots("chan"), 0).is_err());
}
