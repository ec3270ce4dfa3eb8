//! Brings exports to the collector: one request on a connection of its own, within its time.

use crate::driver::socket::Io;
use crate::driver::tls::Outgoing;
use crate::error::ConfigError;
use bytes::Bytes;
use http::header::{CONNECTION, HOST};
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use opentelemetry_http::{HttpClient, HttpError};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::timeout;

/// Bytes of an answer.
const MAX_ANSWER: usize = 64 * 1024;

/// Posts on the runtime of the gateway, whatever thread asks for it.
#[derive(Clone, Debug)]
pub(super) struct Post {
    runtime: Handle,
    secure: Option<Arc<Outgoing>>,
    limit: Duration,
}

impl Post {
    /// Over TLS, trusting the authorities of `own` or the system's, where `secure`.
    pub(super) fn new(secure: bool, own: Option<&Path>, limit: Duration) -> Result<Self, ConfigError> {
        let secure = secure.then(|| Outgoing::new("otlp.endpoint", own).map(Arc::new)).transpose()?;
        Ok(Self { runtime: Handle::current(), secure, limit })
    }

    async fn send(self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let uri = request.uri();
        let is_secure = uri.scheme_str() == Some("https");
        let authority = uri.authority().ok_or("the collector's address has no host")?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = authority.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
        let stream = TcpStream::connect((&*host, port)).await?;
        match (&self.secure, is_secure) {
            (None, true) => Err("the collector's address needs TLS".into()),
            (Some(secure), true) => exchange(secure.connect(&host, stream).await?, request).await,
            (_, false) => exchange(stream, request).await,
        }
    }
}

impl HttpClient for Post {
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        let (post, limit) = (self.clone(), self.limit);
        let sent = self.runtime.spawn(async move { timeout(limit, post.send(request)).await });
        // The first error is of the task, the second of its time.
        Box::pin(async move { sent.await?? })
    }
}

async fn exchange<S: Io + 'static>(stream: S, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    // It ends with its sender, or with the server.
    tokio::spawn(async move { drop(connection.await) });
    let mut request = request.map(Full::new);
    let authority = request.uri().authority().map_or("", |authority| authority.as_str());
    let authority = HeaderValue::from_str(authority.rsplit('@').next().unwrap_or_default())?;
    request.headers_mut().insert(HOST, authority);
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    *request.uri_mut() = target(request.uri());
    let (head, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
    Ok(Response::from_parts(head, body))
}

/// What stands in the request's first line.
fn target(uri: &Uri) -> Uri {
    uri.path_and_query().and_then(|target| target.as_str().parse().ok()).unwrap_or_default()
}
