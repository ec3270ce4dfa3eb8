//! Who is on a channel: in Centrifugo's protocol, in Pusher's, and by the server API.

use crate::directed::Directed;
use crate::http::api;
use crate::peer::Peer;
use crate::pusher::{mac, open};
use crate::start::{config, over, with};
use evenkeel_gateway::{Access, Gateway, Namespace};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;

async fn gateway() -> Gateway {
    let mut config = config();
    let mut room = config.channels.clone();
    room.presence = Access::Anyone;
    room.join_leave = true;
    room.history_size = 10;
    config.namespaces.push(Namespace::new("room", room));
    with(config).await
}

/// Opens a session that has asked for Pusher's channel `presence-room` as `user`.
async fn knock(address: SocketAddr, user: &str) -> Peer {
    let (mut peer, socket) = open(address).await;
    let data = json!({"user_id":user,"user_info":{"name":user.to_uppercase()}}).to_string();
    let auth = format!("app-key:{}", mac(&format!("{socket}:presence-room:{data}")));
    let wish = json!({"event":"pusher:subscribe",
        "data":{"channel":"presence-room","auth":auth,"channel_data":data}});
    peer.say(&wish.to_string()).await;
    peer
}

#[tokio::test]
async fn who_comes_while_the_members_are_read_is_told_of() {
    let broker = Arc::new(Directed::hesitating());
    let gateway = over(config(), broker.clone()).await;
    let mut one = knock(gateway.local_addr(), "a").await;
    broker.read.acquire().await.unwrap().forget();
    let mut two = knock(gateway.local_addr(), "b").await;
    broker.read.acquire().await.unwrap().forget();
    broker.says.add_permits(2);
    let counts = async |peer: &mut Peer| {
        let reply = peer.json().await;
        assert_eq!(reply["event"], "pusher_internal:subscription_succeeded", "{reply}");
        let members: Value = serde_json::from_str(reply["data"].as_str().unwrap()).unwrap();
        members["presence"]["count"].clone()
    };
    assert_eq!((counts(&mut one).await, counts(&mut two).await), (json!(1), json!(2)));
    let news = one.json().await;
    assert_eq!(
        (&news["event"], &news["data"]),
        (&json!("pusher_internal:member_added"), &json!(r#"{"user_id":"b","user_info":{"name":"B"}}"#))
    );
    gateway.stop().await;
}

async fn ask(peer: &mut Peer, request: Value) -> Value {
    peer.say(&request.to_string()).await;
    peer.json().await
}

#[tokio::test]
async fn a_room_knows_who_is_in_it_and_who_comes_and_goes() {
    let gateway = gateway().await;
    let address = gateway.local_addr();
    let mut one = Peer::connect(address).await;
    one.subscribe("room:a").await;
    let own = one.json().await;
    let client = own["push"]["join"]["info"]["client"].as_str().unwrap().to_owned();
    let mut two = Peer::connect(address).await;
    two.subscribe("room:a").await;
    assert!(two.json().await["push"]["join"].is_object(), "one's own coming is told too");
    let joined = one.json().await;
    assert_eq!(joined["push"]["channel"], "room:a");
    let other = joined["push"]["join"]["info"]["client"].as_str().unwrap().to_owned();
    assert_ne!(client, other);

    let reply = ask(&mut one, json!({"id":3,"presence":{"channel":"room:a"}})).await;
    let there = reply["presence"]["presence"].as_object().unwrap();
    assert_eq!(there.len(), 2);
    assert_eq!(there[&client], json!({"client":client,"user":""}));
    let reply = ask(&mut one, json!({"id":4,"presence_stats":{"channel":"room:a"}})).await;
    assert_eq!(reply, json!({"id":4,"presence_stats":{"num_clients":2,"num_users":1}}));
    let stats = api(address, "presence_stats", json!({"channel":"room:a"})).await;
    assert_eq!(stats, json!({"result":{"num_clients":2,"num_users":1}}));
    let all = api(address, "presence", json!({"channel":"room:a"})).await;
    assert_eq!(all["result"]["presence"][&other]["client"], *other);

    // One leaves by its word, the other by its connection.
    ask(&mut two, json!({"id":5,"unsubscribe":{"channel":"room:a"}})).await;
    assert_eq!(one.json().await["push"]["leave"]["info"]["client"], *other);
    two.subscribe("room:a").await;
    assert_eq!(one.json().await["push"]["join"]["info"]["client"], *other);
    drop(two);
    assert_eq!(one.json().await["push"]["leave"]["info"]["client"], *other);
    let stats = api(address, "presence_stats", json!({"channel":"room:a"})).await;
    assert_eq!(stats["result"]["num_clients"], 1);

    // Who is not there may not look, and a channel that keeps nothing has nothing to show.
    let mut three = Peer::connect(address).await;
    let refused = ask(&mut three, json!({"id":2,"presence":{"channel":"room:a"}})).await;
    assert_eq!(refused["error"]["code"], 103);
    let refused = ask(&mut three, json!({"id":2,"presence":{"channel":"news"}})).await;
    assert_eq!(refused["error"]["code"], 108);
    gateway.stop().await;
}

#[tokio::test]
async fn a_pusher_presence_channel_counts_users() {
    let gateway = gateway().await;
    let address = gateway.local_addr();
    let join = async |user: &str| {
        let mut peer = knock(address, user).await;
        let reply = peer.json().await;
        assert_eq!(reply["event"], "pusher_internal:subscription_succeeded", "{reply}");
        let members: Value = serde_json::from_str(reply["data"].as_str().unwrap()).unwrap();
        (peer, members["presence"].clone())
    };
    let (mut one, members) = join("a").await;
    assert_eq!(members, json!({"count":1,"ids":["a"],"hash":{"a":{"name":"A"}}}));
    let (two, members) = join("b").await;
    assert_eq!((&members["count"], &members["ids"]), (&json!(2), &json!(["a", "b"])));
    let news = one.json().await;
    assert_eq!(news["event"], "pusher_internal:member_added");
    assert_eq!(news["data"], r#"{"user_id":"b","user_info":{"name":"B"}}"#);
    // A user's second session is no second member, and its end is not the user's.
    let (again, members) = join("b").await;
    assert_eq!(members["count"], 2);
    drop(again);
    drop(two);
    let news = one.json().await;
    assert_eq!(
        (&news["event"], &news["data"]),
        (&json!("pusher_internal:member_removed"), &json!(r#"{"user_id":"b"}"#))
    );

    // A signature without the user, or of another one, opens nothing.
    let (mut thief, socket) = open(address).await;
    let auth = format!("app-key:{}", mac(&format!("{socket}:presence-room")));
    let wish = json!({"event":"pusher:subscribe",
        "data":{"channel":"presence-room","auth":auth,"channel_data":"{\"user_id\":\"a\"}"}});
    thief.say(&wish.to_string()).await;
    assert_eq!(thief.json().await["event"], "pusher:subscription_error");
    gateway.stop().await;
}

#[tokio::test]
async fn the_server_api_batches_remembers_keys_and_forgets_histories() {
    let gateway = gateway().await;
    let address = gateway.local_addr();
    let publish = json!({"channel":"room:a","data":1,"idempotency_key":"k"});
    assert_eq!(api(address, "publish", publish.clone()).await["result"]["offset"], 1);
    assert_eq!(api(address, "publish", publish).await, json!({"result":{}}), "not again");
    let other = json!({"channel":"room:b","data":1,"idempotency_key":"k"});
    assert_eq!(api(address, "publish", other).await["result"]["offset"], 1, "a key is the channel's");
    for parallel in [false, true] {
        let batch = json!({"parallel":parallel,"commands":[
            {"publish":{"channel":"room:c","data":{"n":1}}},
            {"history":{"channel":"room:c","limit":1}},
            {"nonsense":{}},
            {"publish":{"channel":"nowhere:a","data":1}}]});
        let replies = api(address, "batch", batch).await;
        let replies = replies["replies"].as_array().unwrap();
        assert!(replies[0]["publish"]["offset"].is_u64(), "{replies:?}");
        assert!(replies[1]["history"]["publications"].is_array());
        assert_eq!(replies[2]["error"]["code"], 104);
        assert_eq!(replies[3]["error"]["code"], 102);
    }
    assert_eq!(api(address, "history_remove", json!({"channel":"room:a"})).await, json!({"result":{}}));
    let history = api(address, "history", json!({"channel":"room:a","limit":10})).await;
    assert_eq!(history["result"]["publications"], json!([]));
    assert_eq!(api(address, "publish", json!({"channel":"room:a","data":2})).await["result"]["offset"], 1);
    gateway.stop().await;
}
