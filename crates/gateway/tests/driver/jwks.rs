//! Keys of tokens from a URL: fetched, replaced when a token names another, kept when the server is gone.

use crate::peer::Peer;
use crate::start::{DEADLINE, config, with};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use evenkeel_gateway::{Error, Gateway, TokenConfig};
use parking_lot::Mutex;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::json;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

/// A key with its name.
struct Signer(&'static str, Ed25519KeyPair);

impl Signer {
    fn new(name: &'static str) -> Self {
        let seed: Vec<u8> = (0..32).map(|at| at ^ name.as_bytes()[0]).collect();
        Self(name, Ed25519KeyPair::from_seed_unchecked(&seed).unwrap())
    }

    fn document(&self) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.1.public_key().as_ref());
        json!({"keys":[{"kty":"OKP","crv":"Ed25519","kid":self.0,"x":x}]}).to_string()
    }

    fn token(&self) -> String {
        let header = json!({"alg":"EdDSA","kid":self.0}).to_string();
        let signed =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(r#"{"sub":"ann"}"#));
        let signature = URL_SAFE_NO_PAD.encode(self.1.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}

/// A server that gives the same answer to everybody, and counts.
#[derive(Clone, Default)]
struct Server {
    answer: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
}

impl Server {
    async fn start(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = self.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                assert!(head.starts_with(b"GET /keys?of=us HTTP/1.1\r\n"));
                let answer = server.answer.lock().clone();
                stream.write_all(answer.as_bytes()).await.unwrap();
                server.asked.fetch_add(1, Ordering::Relaxed);
            }
        });
        address
    }

    fn says(&self, status: &str, body: &str) {
        let length = body.len();
        *self.answer.lock() = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
    }
}

async fn is_let_in(address: SocketAddr, signer: &Signer) -> bool {
    let mut peer = Peer::open(address, "/connection/websocket").await;
    peer.say(&json!({"id":1,"connect":{"token":signer.token()}}).to_string()).await;
    matches!(peer.next().await, crate::peer::Frame::Text(_))
}

async fn until_let_in(address: SocketAddr, signer: &Signer) {
    let waited = timeout(DEADLINE, async {
        while !is_let_in(address, signer).await {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "{} is never let in", signer.0);
}

#[tokio::test]
async fn keys_come_from_a_url_and_outlive_its_troubles() {
    let (first, second) = (Signer::new("a"), Signer::new("b"));
    let server = Server::default();
    // A gateway may start before the server of its keys is well.
    server.says("503 Service Unavailable", "");
    let url = format!("http://{}/keys?of=us", server.start().await);
    let mut settings = config();
    settings.token = Some(TokenConfig { jwks_url: Some(url), ..TokenConfig::default() });
    let gateway = with(settings).await;
    let address = gateway.local_addr();
    crate::start::until("the first attempt", || server.asked.load(Ordering::Relaxed) > 0).await;
    assert!(!is_let_in(address, &first).await);
    server.says("200 OK", &first.document());
    until_let_in(address, &first).await;

    // A token by a key that is not known makes the gateway look again, long before the ten minutes are over.
    assert!(!is_let_in(address, &second).await);
    server.says("200 OK", &second.document());
    until_let_in(address, &second).await;
    assert!(!is_let_in(address, &first).await, "a key that is withdrawn opens nothing");

    // What is no document of keys, and silence, change nothing.
    let asked = server.asked.load(Ordering::Relaxed);
    server.says("200 OK", "{}");
    gateway.handle().reload().unwrap();
    crate::start::until("another attempt", || server.asked.load(Ordering::Relaxed) > asked).await;
    assert!(is_let_in(address, &second).await);
    gateway.stop().await;
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn keys_come_encrypted_from_a_server_whose_authority_is_trusted() {
    let signer = Signer::new("a");
    let server = Server::default();
    server.says("200 OK", &signer.document());
    let front = crate::front::Front::of(server.start().await).await;
    let url = format!("https://localhost:{}/keys?of=us", front.port);
    let mut settings = config();
    let token = TokenConfig { jwks_url: Some(url), ..TokenConfig::default() };
    settings.token = Some(TokenConfig { jwks_ca_file: Some(front.authority()), ..token.clone() });
    let gateway = with(settings.clone()).await;
    until_let_in(gateway.local_addr(), &signer).await;
    gateway.stop().await;

    // Another authority signs nothing here: its keys are not even asked for.
    let other = crate::front::Front::of("127.0.0.1:1".parse().unwrap()).await;
    settings.token = Some(TokenConfig { jwks_ca_file: Some(other.authority()), ..token });
    let asked = server.asked.load(Ordering::Relaxed);
    let gateway = with(settings).await;
    crate::start::until("an attempt that fails", || front.refused.load(Ordering::Relaxed) > 0).await;
    assert!(!is_let_in(gateway.local_addr(), &signer).await);
    assert_eq!(server.asked.load(Ordering::Relaxed), asked);
    gateway.stop().await;
}

#[tokio::test]
async fn a_url_that_is_none_is_named() {
    for url in ["keys.json", "ftp://h/keys"] {
        let mut settings = config();
        settings.token = Some(TokenConfig { jwks_url: Some(url.to_owned()), ..TokenConfig::default() });
        let error = Gateway::builder().config(settings).start().await.unwrap_err();
        let Error::Config(error) = error else { panic!("{error}") };
        assert_eq!(error.key(), "token.jwks_url");
    }
}
