//! The gateway inside another HTTP server: a `tower` service that answers every path of the gateway.
//!
//! A WebSocket is taken over from the server once it has switched protocols. Where the server stood on a bare TCP
//! socket the session has that socket, as one of the gateway's own listener has; any other stream is polled.

use super::http;
use super::open::{self, Counted};
use super::route::{Admitted, Route, route};
use super::shared::{Phase, Shared};
use super::socket::Socket;
use crate::metrics::Metrics;
use crate::ws::handshake::Head;
use ::http::header::{CONNECTION, HOST, RETRY_AFTER};
use ::http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version};
use bytes::{Buf, Bytes};
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto::upgrade::downcast;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWriteExt, DuplexStream, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Header fields of a request at most, as the gateway's own listener has it.
const MAX_HEADERS: usize = 64;
/// Bytes of events between a session and the server that sends them; more waits in the session's outbox.
const EVENTS_BUFFER: usize = 64 * 1024;
/// Bytes of events handed to the server at once.
const EVENTS_CHUNK: usize = 16 * 1024;

/// What a body may fail with.
type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A gateway as a service of `tower`, for any server of HTTP/1.1: `axum`'s `Router::nest_service` and
/// `fallback_service` take it as it is.
///
/// Cheap to clone. It answers the same paths as a gateway that listens. The server must offer upgrades
/// (`axum::serve` does) for WebSockets; limits that go by the client's address are the server's.
#[derive(Clone, Debug)]
pub struct GatewayService {
    shared: Arc<Shared>,
}

impl GatewayService {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl<B> tower_service::Service<Request<B>> for GatewayService
where
    B: Body<Data: Send, Error: Into<BodyError>> + Send + 'static,
{
    type Response = Response<GatewayBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let shared = self.shared.clone();
        Box::pin(async move { Ok(answer(&shared, request).await) })
    }
}

/// The body of an answer: whole, or events until their session ends.
#[derive(Debug)]
pub struct GatewayBody(Kind);

#[derive(Debug)]
enum Kind {
    Events(DuplexStream),
    Whole(Full<Bytes>),
}

impl Body for GatewayBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut self.0 {
            Kind::Whole(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|whole| whole.map_err(|never| match never {}))),
            Kind::Events(events) => {
                let mut chunk = vec![0; EVENTS_CHUNK];
                let mut into = ReadBuf::new(&mut chunk);
                if let Err(error) = ready!(Pin::new(events).poll_read(cx, &mut into)) {
                    return Poll::Ready(Some(Err(error)));
                }
                let read = into.filled().len();
                chunk.truncate(read);
                Poll::Ready((read > 0).then(|| Ok(Frame::data(Bytes::from(chunk)))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Events(_) => false,
            Kind::Whole(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Events(_) => SizeHint::default(),
            Kind::Whole(body) => body.size_hint(),
        }
    }
}

async fn answer<B>(shared: &Arc<Shared>, mut request: Request<B>) -> Response<GatewayBody>
where
    B: Body<Data: Send, Error: Into<BodyError>> + Send + 'static,
{
    match find(shared, &request) {
        Route::Http => http::answer(shared, request).await.map(|body| GatewayBody(Kind::Whole(body))),
        Route::Refused(refusal) => {
            Metrics::count(&shared.metrics.handshake_failed);
            let (mut response, rest) = read_back(&refusal);
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                // The refusal is told in the new protocol.
                let Some(upgrade) = upgrade_of(&mut request) else { return cannot_upgrade() };
                tokio::spawn(say(shared.clone(), upgrade, rest));
            } else {
                *response.body_mut() = whole(rest);
            }
            response
        }
        Route::Session(session) => open_session(shared, session, &mut request),
    }
}

/// Finds where a request goes.
fn find<B>(shared: &Arc<Shared>, request: &Request<B>) -> Route {
    let fields = request.headers().iter();
    let mut headers: Vec<_> = fields
        .map(|(name, value)| httparse::Header { name: name.as_str(), value: value.as_bytes() })
        .collect();
    if let (false, Some(authority)) = (request.headers().contains_key(HOST), request.uri().authority()) {
        // HTTP/2 has the host in the target.
        headers.push(httparse::Header { name: "host", value: authority.as_str().as_bytes() });
    }
    route(
        shared,
        &Head {
            method: request.method().as_str(),
            target: request.uri().path_and_query().map_or("/", |target| target.as_str()),
            version: u8::from(request.version() == Version::HTTP_11),
            headers: &headers,
        },
    )
}

fn open_session<B>(
    shared: &Arc<Shared>,
    session: Box<Admitted>,
    request: &mut Request<B>,
) -> Response<GatewayBody> {
    let (mut response, _) = read_back(&session.answer);
    let opens_socket = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let upgrade = if opens_socket { upgrade_of(request) } else { None };
    if opens_socket && upgrade.is_none() {
        return cannot_upgrade();
    }
    let open = shared.metrics.connections.fetch_add(1, Ordering::Relaxed);
    let guard = Counted::new(shared.clone(), None);
    let full = usize::try_from(open).unwrap_or(0) >= shared.config.limits.max_connections;
    if full || *shared.phase.borrow() != Phase::Running {
        Metrics::count(&shared.metrics.refused);
        let mut refused = text(StatusCode::SERVICE_UNAVAILABLE, "no more sessions are taken at the moment");
        refused.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
        return refused;
    }
    Metrics::count(&shared.metrics.accepted);
    let shared = shared.clone();
    if let Some(upgrade) = upgrade {
        tokio::spawn(open::connection(
            guard,
            Box::pin(async move {
                let (socket, rest) = take_over(&shared, upgrade).await?;
                open::start(&shared, socket, session, rest).await
            }),
        ));
    } else {
        let (near, far) = tokio::io::duplex(EVENTS_BUFFER);
        response.headers_mut().remove(CONNECTION);
        *response.body_mut() = GatewayBody(Kind::Events(far));
        tokio::spawn(open::connection(
            guard,
            Box::pin(async move { open::start(&shared, Socket::other(near), session, Vec::new()).await }),
        ));
    }
    response
}

/// What the server gives when it has switched protocols; nothing where it cannot.
fn upgrade_of<B>(request: &mut Request<B>) -> Option<OnUpgrade> {
    request.extensions_mut().remove::<OnUpgrade>()
}

/// Waits for the stream of a server that switches protocols, with what the client said already.
async fn take_over(shared: &Shared, upgrade: OnUpgrade) -> Option<(Socket, Vec<u8>)> {
    let Ok(Ok(upgraded)) = timeout(shared.config.session.handshake_timeout, upgrade).await else {
        Metrics::count(&shared.metrics.handshake_failed);
        return None;
    };
    let (stream, rest) = match bare(upgraded) {
        Ok(bare) => bare,
        Err(upgraded) => return Some((Socket::other(TokioIo::new(upgraded)), Vec::new())),
    };
    // Without it small frames would wait for acknowledgements; a socket that refuses works all the same.
    drop(stream.set_nodelay(true));
    Some((Socket::Tcp(stream), rest))
}

/// The TCP socket beneath, when there is nothing in between.
fn bare(upgraded: Upgraded) -> Result<(TcpStream, Vec<u8>), Upgraded> {
    let upgraded = match downcast::<TokioIo<TcpStream>>(upgraded) {
        Ok(parts) => return Ok((parts.io.into_inner(), parts.read_buf.to_vec())),
        Err(upgraded) => upgraded,
    };
    let parts = upgraded.downcast::<TokioIo<TcpStream>>()?;
    Ok((parts.io.into_inner(), parts.read_buf.to_vec()))
}

async fn say(shared: Arc<Shared>, upgrade: OnUpgrade, last: Bytes) {
    let said = async {
        let mut stream = TokioIo::new(upgrade.await.map_err(io::Error::other)?);
        stream.write_all(&last).await?;
        stream.shutdown().await
    };
    // A client that is refused may well be gone.
    drop(timeout(shared.config.session.close_timeout, said).await);
}

/// An answer in bytes, as the gateway's own listener sends it, as the server wants it; with what follows the head.
fn read_back(answer: &Bytes) -> (Response<GatewayBody>, Bytes) {
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut fields);
    let mut rest = answer.clone();
    if let Ok(httparse::Status::Complete(head)) = parsed.parse(answer) {
        rest.advance(head.min(answer.len()));
    }
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    let headers: HeaderMap = parsed
        .headers
        .iter()
        .filter_map(|field| {
            let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
            Some((name, HeaderValue::from_bytes(field.value).ok()?))
        })
        .collect();
    let mut response = Response::new(whole(Bytes::new()));
    *response.status_mut() = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.headers_mut() = headers;
    (response, rest)
}

fn cannot_upgrade() -> Response<GatewayBody> {
    text(StatusCode::NOT_IMPLEMENTED, "the server around this gateway cannot switch protocols")
}

fn text(status: StatusCode, words: &'static str) -> Response<GatewayBody> {
    http::text(status, words).map(|body| GatewayBody(Kind::Whole(body)))
}

fn whole(body: Bytes) -> GatewayBody {
    GatewayBody(Kind::Whole(Full::new(body)))
}

#[cfg(test)]
mod tests {
    use super::read_back;
    use crate::driver::route::refusal;
    use http::header::CONTENT_TYPE;

    #[test]
    fn answers_are_read_back_as_they_were_written() {
        let (response, rest) = read_back(&refusal(403, "Forbidden", "not here"));
        assert_eq!(response.status(), 403);
        assert_eq!(response.headers()[CONTENT_TYPE], "text/plain");
        assert_eq!(&rest[..], b"not here");
        assert_eq!(read_back(&bytes::Bytes::new()).0.status(), 500);
    }
}
