//! TLS of the gateway's own, with real clients: WebSockets, events and HTTP, and new certificates while sessions live.

use crate::peer::{Frame, Peer, encode};
use crate::start::{DEADLINE, config, over, with};
use evenkeel_gateway::{Error, Gateway, GatewayConfig, MemoryBroker, TlsConfig};
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A certificate and its key, as PEM.
struct Pair {
    cert: String,
    key: String,
}

impl Pair {
    fn new() -> Self {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(vec!["gateway.test".to_owned()]).unwrap();
        Self { cert: cert.pem(), key: signing_key.serialize_pem() }
    }

    fn write(&self, folder: &Path) {
        std::fs::write(folder.join("cert.pem"), &self.cert).unwrap();
        std::fs::write(folder.join("key.pem"), &self.key).unwrap();
    }

    /// Connects to a gateway that must show this certificate.
    async fn dial(&self, address: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap()).unwrap();
        let mut client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("gateway.test").unwrap();
        let connecting = TlsConnector::from(Arc::new(client)).connect(name, stream);
        timeout(DEADLINE, connecting).await.unwrap()
    }
}

fn secured(folder: &TempDir) -> GatewayConfig {
    let mut config = config();
    let file = |name: &str| folder.path().join(name);
    config.tls = Some(TlsConfig { cert_file: file("cert.pem"), key_file: file("key.pem") });
    config
}

async fn start(pair: &Pair) -> (Gateway, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    pair.write(folder.path());
    (with(secured(&folder)).await, folder)
}

#[tokio::test]
async fn all_that_is_served_is_served_encrypted() {
    let pair = Pair::new();
    let folder = tempfile::tempdir().unwrap();
    pair.write(folder.path());
    let mut config = secured(&folder);
    config.limits.outbox_bytes = 16 << 20;
    config.session.close_timeout = Duration::from_secs(5);
    let gateway = with(config).await;
    let address = gateway.local_addr();
    let mut stream = pair.dial(address).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("alive"), "{answer}");

    let mut peer = Peer::connect_over(pair.dial(address).await.unwrap()).await;
    peer.subscribe("news").await;
    let mut events = pair.dial(address).await.unwrap();
    events.write_all(b"GET /sse/news HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    let head = crate::peer::read_head(&mut events).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let subscribed = || gateway.handle().metrics().contains("evenkeel_gateway_sessions 2");
    crate::start::until("both sessions", subscribed).await;
    let events = tokio::spawn(async move {
        let mut all = Vec::new();
        events.read_to_end(&mut all).await.map(|_| all)
    });
    // More than the socket and the layer above it take at once, so that both directions wait for each other.
    let long = "x".repeat(900_000);
    for at in 0..3 {
        peer.frame(0x89, format!("{at}").as_bytes()).await;
        gateway.handle().publish("news", format!("\"{at}{long}\"")).await.unwrap();
    }
    let mut pongs = 0;
    let mut seen = 0;
    while pongs < 3 || seen < 3 {
        match peer.next().await {
            Frame::Pong(_) => pongs += 1,
            Frame::Text(text) => {
                assert!(text.contains(&format!("\"{seen}xxx")) && text.len() > long.len());
                seen += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    let ended = async {
        // Both are told, and the end of the stream is no truncation.
        assert_eq!(peer.closed().await, 3001);
        assert_eq!(timeout(DEADLINE, peer.stream.read(&mut [0; 8])).await.unwrap().unwrap(), 0);
        drop(peer);
        let events = timeout(DEADLINE, events).await.unwrap().unwrap().unwrap();
        assert!(events.len() > 3 * long.len());
    };
    tokio::join!(gateway.stop(), ended);
}

#[tokio::test]
async fn a_slow_reader_is_closed_behind_tls_too() {
    let pair = Pair::new();
    let folder = tempfile::tempdir().unwrap();
    pair.write(folder.path());
    let mut config = secured(&folder);
    config.limits.outbox_bytes = 100_000;
    config.session.close_timeout = DEADLINE;
    let gateway = over(config, Arc::new(MemoryBroker::new())).await;
    let mut peer = Peer::connect_over(pair.dial(gateway.local_addr()).await.unwrap()).await;
    peer.subscribe("news").await;
    let slow = || gateway.handle().metrics().contains("evenkeel_gateway_closed_slow_total 1");
    let published = timeout(DEADLINE, async {
        while !slow() {
            gateway.handle().publish("news", format!("\"{}\"", "x".repeat(60_000))).await.unwrap();
        }
    });
    published.await.unwrap();
    assert_eq!(peer.closed().await, 3008);
    drop(peer);
    gateway.stop().await;
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_handshakes_and_sessions_go_on() {
    let (old, new) = (Pair::new(), Pair::new());
    let (gateway, folder) = start(&old).await;
    let address = gateway.local_addr();
    let mut peer = Peer::connect_over(old.dial(address).await.unwrap()).await;
    peer.subscribe("news").await;
    assert!(new.dial(address).await.is_err());

    new.write(folder.path());
    gateway.handle().reload().unwrap();
    let mut later = Peer::connect_over(new.dial(address).await.unwrap()).await;
    later.subscribe("news").await;
    assert!(old.dial(address).await.is_err(), "the old certificate is shown to nobody");

    // What cannot be used changes nothing, and is called by its name.
    std::fs::write(folder.path().join("key.pem"), &old.key).unwrap();
    assert_eq!(gateway.handle().reload().unwrap_err().key(), "tls.key_file");
    std::fs::write(folder.path().join("cert.pem"), "no certificate").unwrap();
    assert_eq!(gateway.handle().reload().unwrap_err().key(), "tls.cert_file");
    new.dial(address).await.unwrap();

    gateway.handle().publish("news", "1").await.unwrap();
    for peer in [&mut peer, &mut later] {
        assert_eq!(peer.json().await["push"]["pub"]["data"], 1);
    }
    gateway.stop().await;
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named() {
    let pair = Pair::new();
    let other = KeyPair::generate().unwrap().serialize_pem();
    for (cert, key, name, words) in [
        (None, Some(&*pair.key), "tls.cert_file", "cert.pem"),
        (Some(&*pair.cert), None, "tls.key_file", "key.pem"),
        (Some(&*pair.key), Some(&*pair.key), "tls.cert_file", "no certificate"),
        (Some(&*pair.cert), Some(&*pair.cert), "tls.key_file", "no private key"),
        (Some(&*pair.cert), Some(&*other), "tls.key_file", "not the key of the certificate"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in [("cert.pem", cert), ("key.pem", key)] {
            if let Some(text) = text {
                std::fs::write(folder.path().join(file), text).unwrap();
            }
        }
        let error = Gateway::builder().config(secured(&folder)).start().await.unwrap_err();
        let Error::Config(error) = error else { panic!("{error}") };
        assert_eq!(error.key(), name, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(!error.to_string().contains("BEGIN"), "{error}");
    }
}

#[tokio::test]
async fn whoever_speaks_plainly_to_an_encrypted_port_harms_nobody() {
    let pair = Pair::new();
    let (gateway, _folder) = start(&pair).await;
    let address = gateway.local_addr();
    let mut peer = Peer::connect_over(pair.dial(address).await.unwrap()).await;
    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    drop(timeout(DEADLINE, plain.read_to_end(&mut answer)).await.unwrap());
    assert!(!answer.starts_with(b"HTTP"));
    let failed = || gateway.handle().metrics().contains("evenkeel_gateway_handshake_failed_total 1");
    crate::start::until("the count", failed).await;
    // A masked frame in pieces, each a record of its own.
    for byte in encode(0x89, b"hi") {
        peer.stream.write_all(&[byte]).await.unwrap();
        peer.stream.flush().await.unwrap();
    }
    assert_eq!(peer.next().await, Frame::Pong(b"hi".to_vec()));
    gateway.stop().await;
}
