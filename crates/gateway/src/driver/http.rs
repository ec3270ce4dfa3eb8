//! Everything that is no WebSocket: health, metrics and the server API, over hyper.

use super::shared::{Phase, Shared, reached};
use super::socket::Io;
use crate::api;
use crate::metrics::Metrics;
use crate::telemetry::Doing;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Body;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

/// Bytes of a request's body unless the settings say otherwise.
const MAX_BODY: usize = 4 << 20;

/// What a request's body may fail with.
type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// Serves one connection whose first bytes were read already.
pub(crate) async fn serve<S: Io>(
    shared: Arc<Shared>,
    stream: S,
    read: Vec<u8>,
    mut phase: watch::Receiver<Phase>,
) {
    let io = TokioIo::new(Rewound { read: Bytes::from(read), stream });
    let deadline = shared.config.session.handshake_timeout;
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(answer(&shared, request).await) }
    });
    let mut connection = std::pin::pin!(
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(deadline)
            .serve_connection(io, service)
    );
    tokio::select! {
        biased;
        // What a client did wrong on its own connection is between it and hyper.
        ended = connection.as_mut() => drop(ended),
        () = reached(&mut phase, Phase::Draining) => {
            connection.as_mut().graceful_shutdown();
            drop(tokio::time::timeout(deadline, connection).await);
        }
    }
}

/// Answers a request that opens no session.
pub(super) async fn answer<B>(shared: &Shared, request: Request<B>) -> Response<Full<Bytes>>
where
    B: Body<Error: Into<BodyError>>,
{
    let path = request.uri().path().to_owned();
    if path.starts_with("/api/") || path.starts_with("/apps/") {
        return serve_api(shared, &path, request).await;
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match &*path {
        "/healthz" => text(StatusCode::OK, "alive"),
        "/metrics" => {
            let mut response = text(StatusCode::OK, shared.render_metrics());
            let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        "/readyz" if shared.is_ready() => text(StatusCode::OK, "ready"),
        "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "publications cannot be delivered at the moment"),
        _ => text(StatusCode::NOT_FOUND, "there is nothing here"),
    }
}

/// Answers a server, and tells of it.
async fn serve_api<B>(shared: &Shared, path: &str, request: Request<B>) -> Response<Full<Bytes>>
where
    B: Body<Error: Into<BodyError>>,
{
    let method = request.method().clone();
    let span = shared.telemetry.begin(Doing::Serve { method: &method, headers: request.headers() });
    let response = span.around(async {
        match (path.strip_prefix("/api/"), path.strip_prefix("/apps/")) {
            (Some(method), _) => server_api(shared, method, request).await,
            (None, rest) => pusher_api(shared, rest.unwrap_or_default(), request).await,
        }
    });
    let response = response.await;
    let status = response.status();
    if status == StatusCode::OK {
        // Whatever else was asked for is a client's own words.
        span.route(&method, route(path));
    }
    if status.is_client_error() || status.is_server_error() {
        Metrics::count(&shared.metrics.api_refused);
    }
    span.status(status.as_u16(), status.is_server_error());
    response
}

/// A path that was answered, with what is a name in it left out.
fn route(path: &str) -> String {
    let Some(rest) = path.strip_prefix("/apps/") else { return path.to_owned() };
    match rest.split_once('/') {
        Some((_, what)) if what.starts_with("channels/") => {
            "/apps/{app_id}/channels/{channel_name}".to_owned()
        }
        Some((_, what)) => format!("/apps/{{app_id}}/{what}"),
        None => "/apps/{app_id}".to_owned(),
    }
}

async fn server_api<B>(shared: &Shared, method: &str, request: Request<B>) -> Response<Full<Bytes>>
where
    B: Body<Error: Into<BodyError>>,
{
    let Some(key) = shared.config.api.key.as_deref() else {
        return text(StatusCode::NOT_FOUND, "there is nothing here");
    };
    let given = request.headers().get("x-api-key").map(HeaderValue::as_bytes).unwrap_or_default();
    if !same_secret(given, key.as_bytes()) {
        return text(StatusCode::UNAUTHORIZED, "the header X-API-Key is missing or wrong");
    }
    if request.method() != Method::POST {
        return text(StatusCode::METHOD_NOT_ALLOWED, "the server API takes POST");
    }
    let most = shared.config.api.max_body.unwrap_or(MAX_BODY);
    let Ok(body) = Limited::new(request.into_body(), most).collect().await else {
        return text(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long or was cut");
    };
    match api::call(shared, method, &body.to_bytes()).await {
        Some(answer) => {
            let mut response = Response::new(Full::new(Bytes::from(answer)));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        None => text(StatusCode::NOT_FOUND, "there is no such method"),
    }
}

async fn pusher_api<B>(shared: &Shared, rest: &str, request: Request<B>) -> Response<Full<Bytes>>
where
    B: Body<Error: Into<BodyError>>,
{
    let method = request.method().as_str().to_owned();
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let Ok(body) = Limited::new(request.into_body(), MAX_BODY).collect().await else {
        return text(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long or was cut");
    };
    match super::rest::call(shared, (&method, &path, &query), rest, &body.to_bytes()).await {
        Ok(answer) => {
            let mut response = Response::new(Full::new(Bytes::from(answer.to_string())));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            response
        }
        Err((status, words)) => text(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST), words),
    }
}

/// Compares in a time that depends on the lengths only.
fn same_secret(given: &[u8], key: &[u8]) -> bool {
    let differences = given.iter().zip(key).fold(0, |all, (a, b)| all | (a ^ b));
    given.len() == key.len() && differences == 0
}

pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// A stream that gives back the bytes that were read to see what it is.
struct Rewound<S> {
    read: Bytes,
    stream: S,
}

impl<S: Io> AsyncRead for Rewound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let len = self.read.len().min(buf.remaining());
        buf.put_slice(&self.read.split_to(len));
        Poll::Ready(Ok(()))
    }
}

impl<S: Io> AsyncWrite for Rewound<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::{route, same_secret};

    #[test]
    fn a_route_holds_no_names() {
        assert_eq!(route("/api/publish"), "/api/publish");
        assert_eq!(route("/apps/7/events"), "/apps/{app_id}/events");
        assert_eq!(route("/apps/7/channels/private-ann"), "/apps/{app_id}/channels/{channel_name}");
    }

    #[test]
    fn secrets_are_compared_whole() {
        assert!(same_secret(b"abc", b"abc"));
        for wrong in [&b""[..], b"ab", b"abcd", b"abd"] {
            assert!(!same_secret(wrong, b"abc"));
        }
    }
}
