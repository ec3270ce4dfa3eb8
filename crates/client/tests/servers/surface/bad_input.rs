use std::time::Duration;

use evenkeel_client::{Client, Config, Error, ErrorKind, Executed, Origin};
use evenkeel_testkit::launcher::{Single, SingleOptions, for_each_server};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

/// Connects, and expects an error of that kind within the deadline.
async fn fails(config: Result<Config, Error>, kind: ErrorKind, deadline: Duration) -> Error {
    let connecting = async { Client::connect(config?).await };
    let result = tokio::time::timeout(deadline, connecting).await.expect("an error within the deadline");
    let error = result.expect_err("no connection");
    assert_eq!((error.kind(), error.executed()), (kind, Executed::No), "{error}");
    error
}

fn environment(url: &str) -> Result<Config, Error> {
    Config::from_vars([("REDIS_URL", url)])
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_refused_address_names_it_its_setting_and_its_port() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let error = fails(environment(&format!("redis://{addr}")), ErrorKind::Connect, 4 * SECOND).await;
    let port = addr.port();
    assert_eq!(
        error.to_string(),
        format!(
            "cannot connect to {addr} (address from REDIS_URL): ECONNREFUSED, is Redis running on port {port}?"
        )
    );
    assert_eq!(error.endpoint().unwrap().port(), port);
}

#[tokio::test]
async fn a_silent_address_names_network_and_firewall() {
    // It takes connections and never says a word.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url =
        format!("redis://{}?connect_timeout=300ms&handshake_timeout=300ms", listener.local_addr().unwrap());
    let error = fails(environment(&url), ErrorKind::Timeout, 4 * SECOND).await;
    let text = error.to_string();
    for word in ["ETIMEDOUT", "network", "firewall", "REDIS_URL"] {
        assert!(text.contains(word), "{text}");
    }
    assert!(error.is_timeout());
}

#[tokio::test]
async fn a_server_that_speaks_something_else_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let web = tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = [0; 64];
            let _read = socket.read(&mut request).await;
            let _written = socket.write_all(b"HTTP/1.1 400 Bad Request\r\nServer: web\r\n\r\n").await;
        }
    });
    let error = fails(format!("redis://{addr}").parse(), ErrorKind::Protocol, 4 * SECOND).await;
    assert!(error.to_string().contains(&addr.to_string()), "{error}");
    assert!(std::error::Error::source(&error).is_some());
    web.abort();
}

#[tokio::test]
async fn a_wrong_password_names_its_setting_and_not_itself() {
    for_each_server("client::a_wrong_password_names_its_setting", |kind| async move {
        let server = Single::start_with(&kind, SingleOptions::default().password("right")).await.unwrap();
        let url = format!("redis://{}", server.addr());
        let vars = [("REDIS_URL", url.as_str()), ("REDIS_PASSWORD", "hunter2")];
        let error = fails(Config::from_vars(vars), ErrorKind::Handshake, 4 * SECOND).await;
        assert_eq!(error.server_code(), Some("WRONGPASS"));
        let text = error.to_string();
        assert!(text.contains("REDIS_PASSWORD") && text.contains(&server.addr().to_string()), "{text}");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");

        let error = fails(url.parse(), ErrorKind::Handshake, 4 * SECOND).await;
        assert_eq!(error.server_code(), Some("NOAUTH"), "{error}");

        let vars = [("REDIS_URL", url.as_str()), ("REDIS_PASSWORD", "right")];
        let client = Client::connect(Config::from_vars(vars).unwrap()).await.unwrap();
        assert_eq!(client.config().password_origin(), Origin::Variable("REDIS_PASSWORD"));
        client.ping().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_password_that_nobody_asked_for_is_no_error() {
    for_each_server("client::a_password_that_nobody_asked_for", |kind| async move {
        let server = Single::start(&kind).await.unwrap();
        let url = format!("redis://{}", server.addr());
        let vars = [("REDIS_URL", url.as_str()), ("REDIS_PASSWORD", "superfluous")];
        let client = Client::connect(Config::from_vars(vars).unwrap()).await.unwrap();
        client.ping().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_database_that_is_not_there_is_an_error() {
    for_each_server("client::a_database_that_is_not_there", |kind| async move {
        let server = Single::start(&kind).await.unwrap();
        let url = format!("redis://{}/9999", server.addr());
        let error = fails(url.parse(), ErrorKind::Handshake, 4 * SECOND).await;
        assert!(error.to_string().contains("SELECT"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_lazy_client_starts_while_its_server_is_away() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let client = Client::connect(format!("redis://{addr}?lazy=true")).await.unwrap();
    let error = client.incr("n").timeout(Duration::from_millis(200)).await.unwrap_err();
    assert_eq!(error.executed(), Executed::No, "{error}");
    assert!(!client.is_healthy().await);
}

#[cfg(not(feature = "tls"))]
#[tokio::test]
async fn what_shall_be_encrypted_never_goes_in_the_clear() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("rediss://:secret@{}", listener.local_addr().unwrap());
    let error = fails(url.parse(), ErrorKind::Config, SECOND).await;
    assert!(error.to_string().contains("tls"), "{error}");
    let dialled = tokio::time::timeout(Duration::from_millis(50), listener.accept()).await;
    assert!(dialled.is_err(), "nobody was dialled");
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn what_shall_be_encrypted_never_goes_in_the_clear() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("rediss://:secret@{}?connect_timeout=300ms", listener.local_addr().unwrap());
    let hearing = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heard = Vec::new();
        // It waits for our half of the handshake, which never comes.
        let _closed = tokio::time::timeout(SECOND, stream.read_to_end(&mut heard)).await;
        heard
    };
    let connecting = fails(url.parse(), ErrorKind::Timeout, 5 * SECOND);
    let (heard, _error) = tokio::join!(hearing, connecting);
    assert_eq!(heard.first(), Some(&0x16), "a handshake of TLS");
    assert!(!heard.windows(6).any(|bytes| bytes == b"secret"));
}
