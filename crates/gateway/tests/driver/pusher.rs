//! Pusher's protocol, frame by frame.

use crate::peer::{Frame, Peer};
use crate::start::gateway;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

pub(crate) fn mac(message: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(b"app-secret").unwrap();
    mac.update(message.as_bytes());
    hex(&mac.finalize().into_bytes())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |all, byte| all + &format!("{byte:02x}"))
}

pub(crate) async fn open(address: std::net::SocketAddr) -> (Peer, String) {
    let mut peer = Peer::open(address, "/app/app-key?protocol=7&client=js&version=8.4.0&flash=false").await;
    let hello = peer.json().await;
    assert_eq!(hello["event"], "pusher:connection_established");
    let data: Value = serde_json::from_str(hello["data"].as_str().unwrap()).unwrap();
    assert_eq!(data["activity_timeout"], 120);
    (peer, data["socket_id"].as_str().unwrap().to_owned())
}

async fn subscribe(peer: &mut Peer, channel: &str, auth: &str) -> Value {
    peer.say(&json!({"event":"pusher:subscribe","data":{"auth":auth,"channel":channel}}).to_string()).await;
    peer.json().await
}

#[tokio::test]
async fn a_public_channel() {
    let gateway = gateway().await;
    let (mut peer, _) = open(gateway.local_addr()).await;
    let reply = subscribe(&mut peer, "room", "").await;
    assert_eq!(reply, json!({"event":"pusher_internal:subscription_succeeded","channel":"room","data":"{}"}));
    gateway.handle().publish("room", r#"{"event":"tick","data":{"n":1}}"#).await.unwrap();
    assert_eq!(peer.json().await, json!({"event":"tick","channel":"room","data":"{\"n\":1}"}));
    peer.say(r#"{"event":"pusher:ping","data":{}}"#).await;
    assert_eq!(peer.json().await["event"], "pusher:pong");
    peer.say(r#"{"event":"pusher:unsubscribe","data":{"channel":"room"}}"#).await;
    gateway.handle().publish("room", "1").await.unwrap();
    peer.say(r#"{"event":"pusher:ping","data":{}}"#).await;
    let after = peer.json().await;
    // The publication may have been on its way when the channel was left.
    let after = if after["event"] == "message" { peer.json().await } else { after };
    assert_eq!(after["event"], "pusher:pong");
    gateway.stop().await;
}

#[tokio::test]
async fn private_channels_need_their_signature_and_relay_client_events() {
    let gateway = gateway().await;
    let (mut first, first_id) = open(gateway.local_addr()).await;
    let (mut second, second_id) = open(gateway.local_addr()).await;
    let reply = subscribe(&mut first, "private-a", "app-key:00").await;
    assert_eq!(
        (&reply["event"], &reply["data"]["status"]),
        (&json!("pusher:subscription_error"), &json!(401))
    );
    let stolen = format!("app-key:{}", mac(&format!("{second_id}:private-a")));
    assert_eq!(subscribe(&mut first, "private-a", &stolen).await["data"]["status"], 401);
    for (peer, id) in [(&mut first, &first_id), (&mut second, &second_id)] {
        let auth = format!("app-key:{}", mac(&format!("{id}:private-a")));
        assert_eq!(
            subscribe(peer, "private-a", &auth).await["event"],
            "pusher_internal:subscription_succeeded"
        );
    }
    first.say(r#"{"event":"client-typing","channel":"private-a","data":{"n":1}}"#).await;
    assert_eq!(
        second.json().await,
        json!({"event":"client-typing","channel":"private-a","data":"{\"n\":1}"})
    );
    first.say(r#"{"event":"client-typing","channel":"room","data":{}}"#).await;
    assert_eq!(first.json().await["event"], "pusher:error", "and its own event did not come back before it");
    gateway.stop().await;
}

#[tokio::test]
async fn wrong_applications_and_messages_do_not_come_back() {
    let gateway = gateway().await;
    for (path, code) in [("/app/other?protocol=7", 4001), ("/app/app-key?protocol=4", 4007)] {
        let mut peer = Peer::open(gateway.local_addr(), path).await;
        assert_eq!(peer.json().await["data"]["code"], code);
        assert_eq!(peer.closed().await, code);
    }
    let (mut peer, _) = open(gateway.local_addr()).await;
    peer.say("nonsense").await;
    assert_eq!(peer.closed().await, 4006);
    let (mut peer, _) = open(gateway.local_addr()).await;
    peer.say(r#"{"event":"pusher:dance"}"#).await;
    assert_eq!(peer.json().await["event"], "pusher:error");
    for (channel, kind) in
        [("closed:a", "AuthError"), ("nowhere:a", "UnknownChannel"), ("", "InvalidChannel")]
    {
        assert_eq!(subscribe(&mut peer, channel, "").await["data"]["type"], kind);
    }
    let metrics = gateway.handle().metrics();
    assert!(metrics.contains("evenkeel_gateway_request_errors_total 4\n"), "{metrics}");
    let stopping = tokio::spawn(gateway.stop());
    let code = loop {
        match peer.next().await {
            Frame::Close(Some((code, _))) => break code,
            Frame::Text(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert!((4100..4200).contains(&code), "{code} would make clients loop");
    stopping.await.unwrap();
}
