//! Public keys of tokens from a URL: fetched when the gateway starts and again and again, kept when that fails.

use super::shared::Shared;
use super::socket::Io;
use super::tls::Outgoing;
use crate::error::ConfigError;
use crate::keys::{self, Key};
use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST};
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// Bytes of a document of keys.
const MAX_DOCUMENT: usize = 256 * 1024;
/// How long one attempt may take, from the address to the last byte.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two attempts at least, whatever asks for them: forged tokens must not make a flood of them.
const MIN_GAP: Duration = Duration::from_secs(1);
/// Between two attempts that fail at most.
const MAX_RETRY: Duration = Duration::from_secs(30);

/// Why no keys came.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    #[error("the exchange failed")]
    Exchange(#[source] hyper::Error),
    #[error("the document has no key that is known here")]
    NoKeys,
    #[error("the answer was {0}")]
    Status(http::StatusCode),
    #[error("nothing came within {} s", FETCH_TIMEOUT.as_secs())]
    Timeout,
    #[error("the document is too long or was cut")]
    TooLong,
}

/// Where keys come from.
#[derive(Debug)]
pub(crate) struct Source {
    host: String,
    port: u16,
    uri: Uri,
    secure: Option<Arc<Outgoing>>,
}

impl Source {
    /// Takes a URL apart; for `https` the authorities of `own` are trusted, or the system's.
    pub(crate) fn new(url: &str, own: Option<&Path>) -> Result<Self, ConfigError> {
        // It may hold a secret, so it is not repeated.
        let wrong = |problem: &'static str| ConfigError::new("token.jwks_url", problem);
        let uri: Uri = url.parse().map_err(|_no_uri| wrong("is no URL"))?;
        let host = uri.host().ok_or_else(|| wrong("has no host"))?.trim_matches(['[', ']']).to_owned();
        let blamed = if own.is_some() { "token.jwks_ca_file" } else { "token.jwks_url" };
        let (port, secure) = match uri.scheme_str() {
            Some("http") => (80, None),
            Some("https") => (443, Some(Arc::new(Outgoing::new(blamed, own)?))),
            _ => return Err(wrong("must begin with http:// or https://")),
        };
        Ok(Self { host, port: uri.port_u16().unwrap_or(port), secure, uri })
    }

    /// What encrypts the exchange, for `https`.
    pub(crate) fn secure(&self) -> Option<Arc<Outgoing>> {
        self.secure.clone()
    }

    async fn fetch(&self) -> Result<Vec<Key>, FetchError> {
        let whole = async {
            let address = (&*self.host, self.port);
            let stream = TcpStream::connect(address).await.map_err(FetchError::Connect)?;
            match &self.secure {
                None => self.exchange(stream).await,
                Some(secure) => {
                    self.exchange(secure.connect(&self.host, stream).await.map_err(FetchError::Connect)?)
                        .await
                }
            }
        };
        let document = timeout(FETCH_TIMEOUT, whole).await.map_err(|_elapsed| FetchError::Timeout)??;
        keys::read(&document).ok_or(FetchError::NoKeys)
    }

    async fn exchange<S: Io + 'static>(&self, stream: S) -> Result<Bytes, FetchError> {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(FetchError::Exchange)?;
        let mut request = Request::new(Empty::<Bytes>::new());
        let target = self.uri.path_and_query().map_or("/", |target| target.as_str());
        *request.uri_mut() = target.parse().unwrap_or_default();
        let fields = [
            (HOST, self.uri.authority().map_or("", |authority| authority.as_str())),
            (ACCEPT, "application/jwk-set+json, application/json"),
            (CONNECTION, "close"),
        ];
        for (name, value) in fields {
            if let Ok(value) = value.parse() {
                request.headers_mut().insert(name, value);
            }
        }
        let work = async move {
            let response = sender.send_request(request).await.map_err(FetchError::Exchange)?;
            if response.status() != http::StatusCode::OK {
                return Err(FetchError::Status(response.status()));
            }
            let body = Limited::new(response.into_body(), MAX_DOCUMENT).collect().await;
            Ok(body.map_err(|_long| FetchError::TooLong)?.to_bytes())
        };
        let (mut work, connection) = (std::pin::pin!(work), std::pin::pin!(connection));
        tokio::select! {
            biased;
            done = work.as_mut() => done,
            // What it still holds of the answer can be read.
            _ended = connection => work.await,
        }
    }
}

/// Keeps the keys of tokens fresh: every `every`, and soon after a token names a key that is not known.
pub(crate) async fn refresh(shared: Arc<Shared>, source: Source, every: Duration) {
    let Some(tokens) = &shared.rules.tokens else { return };
    let mut retry = MIN_GAP;
    loop {
        let wait = match source.fetch().await {
            Ok(keys) => {
                tokens.set_fetched(keys);
                retry = MIN_GAP;
                every
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%error, cause, "keys of tokens could not be fetched, those known stay");
                let wait = retry.min(every);
                retry = (retry * 2).min(MAX_RETRY);
                wait
            }
        };
        sleep(MIN_GAP).await;
        // Time or a token that names another key, whichever is first.
        drop(timeout(wait.saturating_sub(MIN_GAP), tokens.missed()).await);
    }
}

#[cfg(test)]
mod tests {
    use super::Source;

    #[test]
    fn urls_are_taken_apart() {
        let source = Source::new("http://[::1]:81/keys?x=1", None).unwrap();
        assert_eq!((&*source.host, source.port), ("::1", 81));
        assert_eq!(Source::new("http://auth.example.com/keys", None).unwrap().port, 80);
        for wrong in ["", "keys.json", "ftp://h/secret", "http://", "/secret"] {
            let error = Source::new(wrong, None).unwrap_err();
            assert_eq!(error.key(), "token.jwks_url");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }
}
