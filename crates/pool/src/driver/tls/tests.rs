//! Servers with certificates of an own authority: only the right one hears the password.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use evenkeel_protocol::{
    Command, Limits, Reply, Scanner,
    conn::{Credentials, HandshakeConfig},
};
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ServerConfig, server::WebPkiClientVerifier};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::{
    driver::{
        clock,
        dial::{DialConfig, DialError, Phase, dial},
        lane::{Lane, LaneConfig, LaneId, LaneObserver},
    },
    machine::{MoveId, MoveRequest, Report},
    queue::Outcome,
};

const PASSWORD: &str = "correct horse";

struct Authority {
    pem: String,
    der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, as PEM.
struct Pair {
    certificate: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), der: certificate.der().to_vec(), issuer: Issuer::new(params, key) }
    }

    /// A certificate for these names and addresses.
    fn issue(&self, names: &[&str]) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    fn trusted(&self) -> TlsBuilder {
        TlsConfig::builder().roots_pem(&self.pem)
    }
}

/// A server that writes down what it is told.
struct Server {
    port: u16,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Server {
    /// Encrypted with this certificate; with an authority it asks for a certificate of it.
    async fn secure(pair: &Pair, clients: Option<&Authority>) -> Self {
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap();
        let config = match clients {
            None => config.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.der.clone().into()).unwrap();
                let provider = Arc::new(ring::default_provider());
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
                config.with_client_cert_verifier(verifier)
            }
        };
        let chain = Pem::text(&pair.certificate).certificates().unwrap();
        let config = config.with_single_cert(chain, Pem::text(&pair.key).key().unwrap()).unwrap();
        Self::start(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn start(acceptor: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&heard);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, log) = (acceptor.clone(), Arc::clone(&log));
                tokio::spawn(async move {
                    match acceptor {
                        None => serve(stream, log).await,
                        Some(acceptor) => {
                            if let Ok(stream) = acceptor.accept(stream).await {
                                serve(stream, log).await;
                            }
                        }
                    }
                });
            }
        });
        Self { port, heard }
    }

    fn heard(&self) -> String {
        String::from_utf8_lossy(&self.heard.lock()).into_owned()
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, log: Arc<Mutex<Vec<u8>>>) {
    let mut read = BytesMut::new();
    let mut scanner = Scanner::new(Limits::default());
    loop {
        let before = read.len();
        if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
            return;
        }
        log.lock().extend_from_slice(&read[before..]);
        while let Ok(Some(found)) = scanner.scan(&read) {
            let command = Reply::new(read.split_to(found.len).freeze()).decode::<Vec<Bytes>>();
            let answer: &[u8] = match command {
                Ok(args) if args[0] == "HELLO" => b"%1\r\n+proto\r\n:3\r\n",
                _ => b"+OK\r\n",
            };
            if stream.write_all(answer).await.is_err() {
                return;
            }
        }
    }
}

async fn connect(tls: &TlsConfig, host: &str, port: u16) -> Result<(), DialError> {
    let handshake = HandshakeConfig::default().credentials(Some(Credentials::password(PASSWORD)));
    let config = DialConfig::default().handshake(handshake).secure(Some(Arc::new(tls.clone())));
    let endpoint = Endpoint::new(host, port);
    let dialing = dial(&endpoint, &config);
    tokio::time::timeout(Duration::from_secs(10), dialing).await.unwrap().map(drop)
}

#[tokio::test]
async fn only_the_right_name_of_the_right_authority_hears_the_password() {
    let (ours, attacker) = (Authority::new(), Authority::new());
    let tls = ours.trusted().build().unwrap();
    for (pair, host, connects) in [
        (ours.issue(&["localhost"]), "localhost", true),
        (ours.issue(&["other.test"]), "localhost", false),
        (ours.issue(&["localhost"]), "127.0.0.1", false),
        (ours.issue(&["127.0.0.1"]), "127.0.0.1", true),
        (ours.issue(&["127.0.0.1"]), "localhost", false),
        (attacker.issue(&["localhost"]), "localhost", false),
    ] {
        let server = Server::secure(&pair, None).await;
        let result = connect(&tls, host, server.port).await;
        assert_eq!(result.is_ok(), connects, "{host}: {result:?}");
        assert_eq!(server.heard().contains(PASSWORD), connects, "{host}");
        if let Err(error) = result {
            assert!(matches!(error, DialError::Io { phase: Phase::Tls, .. }), "{error:?}");
            assert_eq!(server.heard(), "");
        }
    }
}

/// Hears what comes of moves.
struct Reports(mpsc::Sender<Report>);

impl LaneObserver for Reports {
    fn report(&self, _lane: LaneId, report: Report) {
        if matches!(report, Report::Moved(_) | Report::MoveFailed(_)) {
            self.0.try_send(report).unwrap();
        }
    }
}

#[tokio::test]
async fn a_move_ends_only_at_the_right_name_of_the_right_authority() {
    let (ours, attacker) = (Authority::new(), Authority::new());
    let tls = ours.trusted().build().unwrap();
    let home = Server::secure(&ours.issue(&["localhost"]), None).await;
    let handshake = HandshakeConfig::default().credentials(Some(Credentials::password(PASSWORD)));
    let dial = DialConfig::default().handshake(handshake).secure(Some(Arc::new(tls)));
    let (tx, mut reports) = mpsc::channel(16);
    let config = LaneConfig::default().dial(dial);
    let lane = Lane::start(LaneId(1), Endpoint::new("localhost", home.port), config, Arc::new(Reports(tx)));
    assert!(lane.ready().await);
    for (number, (pair, host, moves)) in [
        (ours.issue(&["other.test"]), "localhost", false),
        (ours.issue(&["localhost"]), "127.0.0.1", false),
        (attacker.issue(&["localhost"]), "localhost", false),
        (ours.issue(&["localhost"]), "localhost", true),
    ]
    .into_iter()
    .enumerate()
    {
        let server = Server::secure(&pair, None).await;
        let (id, now) = (MoveId(number as u64), clock::now());
        let target = Endpoint::new(host, server.port);
        let mut request = MoveRequest::new(id, target, now, now + Duration::from_secs(10));
        request.once = true;
        assert!(lane.move_to(request));
        let report = tokio::time::timeout(Duration::from_secs(20), reports.recv()).await.unwrap().unwrap();
        let expected = if moves { Report::Moved(id) } else { Report::MoveFailed(id) };
        assert_eq!(report, expected);
        assert_eq!(server.heard().contains(PASSWORD), moves, "{host}");
        // It works on, wherever it is.
        let before = home.heard().len();
        let answer = lane.request(&Command::new("PING"), Duration::from_secs(10)).await;
        assert!(matches!(answer, Outcome::Reply(_)), "{answer:?}");
        assert_eq!(home.heard().len() > before, !moves);
    }
}

#[tokio::test]
async fn a_server_without_tls_hears_no_password() {
    let server = Server::start(None).await;
    let handshake = HandshakeConfig::default().credentials(Some(Credentials::password(PASSWORD)));
    let tls = Authority::new().trusted().build().unwrap();
    let config = DialConfig::default()
        .handshake(handshake)
        .connect_timeout(Duration::from_millis(500))
        .secure(Some(Arc::new(tls)));
    assert!(dial(&Endpoint::new("localhost", server.port), &config).await.is_err());
    assert!(!server.heard().contains(PASSWORD) && !server.heard().is_empty());
}

#[tokio::test]
async fn a_name_may_be_given_in_place_of_the_host() {
    let ours = Authority::new();
    let server = Server::secure(&ours.issue(&["redis.test"]), None).await;
    let named = ours.trusted().server_name("redis.test").build().unwrap();
    connect(&named, "127.0.0.1", server.port).await.unwrap();
    let other = TlsConfig::builder().root_der(ours.der.clone()).server_name("other.test").build().unwrap();
    assert!(connect(&other, "127.0.0.1", server.port).await.is_err());
    assert!(ours.trusted().server_name("no name").build().is_err());
}

#[tokio::test]
async fn a_server_may_ask_who_we_are() {
    let (ours, others) = (Authority::new(), Authority::new());
    let server = Server::secure(&ours.issue(&["localhost"]), Some(&ours)).await;
    let (mine, foreign) = (ours.issue(&["me"]), others.issue(&["me"]));
    let known = ours.trusted().client_certificate_pem(&mine.certificate, &mine.key).build().unwrap();
    connect(&known, "localhost", server.port).await.unwrap();
    let unknown = ours.trusted().client_certificate_pem(&foreign.certificate, &foreign.key).build().unwrap();
    assert!(connect(&unknown, "localhost", server.port).await.is_err());
    let nobody = ours.trusted().build().unwrap();
    assert!(connect(&nobody, "localhost", server.port).await.is_err());
}

#[tokio::test]
async fn renewed_files_count_from_the_next_dial_on_and_broken_ones_never() {
    let (old, new) = (Authority::new(), Authority::new());
    let server = Server::secure(&new.issue(&["localhost"]), None).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    std::fs::write(&path, &old.pem).unwrap();
    let tls = TlsConfig::builder().roots_pem_file(&path).build().unwrap();
    let clone = tls.clone();
    assert!(connect(&clone, "localhost", server.port).await.is_err());
    std::fs::write(&path, &new.pem).unwrap();
    tls.reload().unwrap();
    connect(&clone, "localhost", server.port).await.unwrap();
    std::fs::write(&path, "nothing").unwrap();
    let error = tls.reload().unwrap_err();
    assert_eq!(error.to_string(), format!("{} has no certificate in it", path.display()));
    connect(&clone, "localhost", server.port).await.unwrap();
    tls.replace(old.trusted()).unwrap();
    assert!(connect(&clone, "localhost", server.port).await.is_err());
}

#[test]
fn what_cannot_work_is_refused_when_built_and_no_key_is_shown() {
    let ours = Authority::new();
    let (mine, other) = (ours.issue(&["me"]), ours.issue(&["me"]));
    let mixed = ours.trusted().client_certificate_pem(&mine.certificate, &other.key);
    let error = mixed.clone().build().unwrap_err();
    assert_eq!(error.to_string(), "the client's certificate and key cannot be used");
    let missing = TlsConfig::builder().roots_pem_file("/nowhere/ca.pem").build().unwrap_err();
    assert_eq!(missing.to_string(), "cannot read /nowhere/ca.pem");
    assert!(std::error::Error::source(&missing).is_some());
    let shown = format!("{mixed:?}{:?}", ours.trusted().build().unwrap());
    assert!(!shown.contains("BEGIN") && shown.contains("the PEM text"), "{shown}");
}
