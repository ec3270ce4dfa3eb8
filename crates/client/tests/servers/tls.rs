//! MOVED under TLS: whoever sends us elsewhere, only the right name of the right authority hears the password.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use evenkeel_client::{Client, Config, Executed, config::RedirectPolicy};
use evenkeel_protocol::{Limits, Reply, Scanner};
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A server's side of TLS, with a certificate for this name or address.
    fn acceptor(&self, name: &str) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::Pkcs8(key.serialize_der().into()),
            )
            .unwrap();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// A node of a cluster that writes down what it is told.
struct Server {
    port: u16,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Server {
    /// Answers every GET with `value`; `None` sends the caller to wherever `target` says.
    async fn start(acceptor: TlsAcceptor, target: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&heard);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, log, target) = (acceptor.clone(), Arc::clone(&log), target.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, port, target, log).await;
                    }
                });
            }
        });
        Self { port, heard }
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    port: u16,
    target: Option<String>,
    log: Arc<Mutex<Vec<u8>>>,
) {
    let mut read = BytesMut::new();
    let mut scanner = Scanner::new(Limits::default());
    loop {
        let before = read.len();
        if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
            return;
        }
        log.lock().extend_from_slice(&read[before..]);
        while let Ok(Some(found)) = scanner.scan(&read) {
            let frame = Reply::new(read.split_to(found.len).freeze());
            let words: Vec<Bytes> = frame.decode().unwrap();
            let words: Vec<&[u8]> = words.iter().map(|word| &word[..]).collect();
            let answer = match words.as_slice() {
                [b"HELLO", ..] => "%1\r\n+proto\r\n:3\r\n".to_owned(),
                [b"CLUSTER", b"SLOTS"] => {
                    format!("*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n+localhost\r\n:{port}\r\n+n1\r\n")
                }
                [b"CLUSTER", ..] => "-ERR unknown subcommand\r\n".to_owned(),
                [b"GET", ..] => match &target {
                    Some(target) => format!("-MOVED 12706 {target}\r\n"),
                    None => "+here\r\n".to_owned(),
                },
                _ => "+OK\r\n".to_owned(),
            };
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

/// The authority's certificate in a file, for as long as this lives.
struct Roots(PathBuf);

impl Roots {
    fn write(authority: &Authority) -> Self {
        let name = format!("evenkeel-roots-{}-{}.pem", std::process::id(), fastrand::u64(..));
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, &authority.pem).unwrap();
        Self(path)
    }
}

impl Drop for Roots {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_leads_only_to_the_right_name_of_the_right_authority() {
    let (ours, attacker) = (Authority::new(), Authority::new());
    let roots = Roots::write(&ours);
    // The target's authority, the name in its certificate, how MOVED names it, and whether that is where we go.
    let cases = [
        (&ours, "localhost", "localhost", true),
        (&ours, "other.test", "localhost", false),
        (&ours, "localhost", "127.0.0.1", false),
        (&attacker, "localhost", "localhost", false),
    ];
    for (authority, name, host, goes) in cases {
        let target = Server::start(authority.acceptor(name), None).await;
        let moved = format!("{host}:{}", target.port);
        let seed = Server::start(ours.acceptor("localhost"), Some(moved)).await;
        let url = format!(
            "rediss+cluster://:correct-horse@localhost:{}?tls_ca_file={}",
            seed.port,
            roots.0.display()
        );
        let client = Client::connect(url).await.unwrap();
        let reply = client.get::<String>("k").timeout(Duration::from_millis(700)).await;
        let heard = String::from_utf8_lossy(&target.heard.lock()).into_owned();
        if goes {
            assert_eq!(reply.unwrap(), "here");
            assert!(heard.contains("correct-horse"));
        } else {
            let error = reply.unwrap_err();
            assert_eq!(error.executed(), Executed::No, "{name} as {host}: {error}");
            assert_eq!(heard, "", "{name} as {host}");
        }
        assert!(String::from_utf8_lossy(&seed.heard.lock()).contains("correct-horse"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_out_of_the_policy_leads_nowhere() {
    let ours = Authority::new();
    let roots = Roots::write(&ours);
    let target = Server::start(ours.acceptor("127.0.0.1"), None).await;
    let moved = format!("127.0.0.1:{}", target.port);
    let seed = Server::start(ours.acceptor("localhost"), Some(moved.clone())).await;
    let url =
        format!("rediss+cluster://:correct-horse@localhost:{}?tls_ca_file={}", seed.port, roots.0.display());
    let policy = RedirectPolicy::Hosts(["*.example.com".to_owned()].into());
    let config = Config::builder().url(&url).redirect_policy(policy).build().unwrap();
    let client = Client::connect(config).await.unwrap();
    let error = client.get::<String>("k").timeout(Duration::from_secs(5)).await.unwrap_err();
    assert_eq!((error.server_code(), error.executed()), (Some("MOVED"), Executed::No), "{error}");
    assert!(error.to_string().contains(&moved), "{error}");
    assert!(target.heard.lock().is_empty());
}
