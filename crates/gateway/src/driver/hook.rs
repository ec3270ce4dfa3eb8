//! Asks hooks over HTTP/1.1, on connections that are kept.

use super::clock;
use super::socket::Io;
use super::tls::Outgoing;
use crate::error::ConfigError;
use crate::hooks::{Hook, HookConfig, HooksConfig, Question, Verdict};
use crate::metrics::Metrics;
use crate::telemetry::{Doing, Span, Telemetry};
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

/// Bytes of an answer.
const MAX_ANSWER: usize = 64 * 1024;
/// Connections kept for the next question.
const MAX_IDLE: usize = 16;
/// Headers that say how the question itself travels.
const OUR_OWN: [HeaderName; 7] =
    [CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TE, TRANSFER_ENCODING, UPGRADE];

/// The hooks of a gateway.
#[derive(Debug, Default)]
pub(crate) struct Hooks {
    connect: Option<Endpoint>,
    publish: Option<Endpoint>,
    refresh: Option<Endpoint>,
    sub_refresh: Option<Endpoint>,
    subscribe: Option<Endpoint>,
    /// The headers of clients' requests that go with questions.
    pub(crate) headers: Vec<HeaderName>,
    /// For all endpoints by `https`.
    secure: Option<Arc<Outgoing>>,
}

impl Hooks {
    /// Checks the settings.
    pub(crate) fn new(
        config: &HooksConfig,
        metrics: &Arc<Metrics>,
        telemetry: &Arc<Telemetry>,
    ) -> Result<Self, ConfigError> {
        let all = [&config.connect, &config.publish, &config.refresh, &config.sub_refresh, &config.subscribe];
        let secure = all.into_iter().flatten().any(HookConfig::is_secure);
        let blamed = if config.ca_file.is_some() { "hooks.ca_file" } else { "hooks" };
        let outgoing = secure.then(|| Outgoing::new(blamed, config.ca_file.as_deref()));
        let outgoing = outgoing.transpose()?.map(Arc::new);
        let endpoint = |key: &str, hook: &Option<HookConfig>| {
            let made = hook
                .as_ref()
                .map(|hook| Endpoint::new(key, hook, (metrics.clone(), telemetry.clone())))
                .transpose()?;
            Ok(made.map(|made| made.over(outgoing.as_ref())))
        };
        let header = |name: &String| {
            let bad =
                || ConfigError::new("hooks.headers", format!("`{name}` is no header that can be passed on"));
            let known = HeaderName::from_bytes(name.as_bytes()).map_err(|_bad| bad())?;
            if OUR_OWN.contains(&known) { Err(bad()) } else { Ok(known) }
        };
        Ok(Self {
            connect: endpoint("hooks.connect", &config.connect)?,
            publish: endpoint("hooks.publish", &config.publish)?,
            refresh: endpoint("hooks.refresh", &config.refresh)?,
            sub_refresh: endpoint("hooks.sub_refresh", &config.sub_refresh)?,
            subscribe: endpoint("hooks.subscribe", &config.subscribe)?,
            headers: config.headers.iter().map(header).collect::<Result<_, _>>()?,
            secure: outgoing,
        })
    }

    /// Reads the authorities anew, for handshakes from now on; connections that stand are kept. With an error the old
    /// ones stay.
    pub(crate) fn reload(&self, config: &HooksConfig) -> Result<(), ConfigError> {
        let (Some(secure), Some(file)) = (&self.secure, &config.ca_file) else { return Ok(()) };
        secure.reload("hooks.ca_file", file)
    }

    /// Asks, and waits for the answer as long as the settings say.
    ///
    /// # Cancel safety
    /// When dropped the question may or may not have been asked.
    pub(crate) async fn ask(&self, question: Question) -> Verdict {
        let endpoint = match question.hook {
            Hook::Connect => &self.connect,
            Hook::Publish => &self.publish,
            Hook::Refresh => &self.refresh,
            Hook::SubRefresh => &self.sub_refresh,
            Hook::Subscribe => &self.subscribe,
        };
        // Without an endpoint nobody can allow it.
        let Some(endpoint) = endpoint else { return Verdict::Failed };
        let hook = question.hook;
        let verdict = endpoint.ask(question).await;
        Metrics::count(&endpoint.metrics.hooks_asked);
        if matches!(verdict, Verdict::Failed) {
            Metrics::count(&endpoint.metrics.hooks_failed);
            tracing::warn!(?hook, "a hook gave no answer that can be used");
        }
        verdict
    }
}

/// One endpoint with its connections.
struct Endpoint {
    /// Host and port, as they are dialled.
    authority: String,
    port: u16,
    /// The host, as its certificate has to name it.
    name: String,
    /// For `https`.
    secure: Option<Arc<Outgoing>>,
    host: HeaderValue,
    path: Uri,
    config: HookConfig,
    turns: Semaphore,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
    metrics: Arc<Metrics>,
    telemetry: Arc<Telemetry>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("authority", &self.authority).finish_non_exhaustive()
    }
}

impl Endpoint {
    fn new(
        key: &str,
        config: &HookConfig,
        (metrics, telemetry): (Arc<Metrics>, Arc<Telemetry>),
    ) -> Result<Self, ConfigError> {
        let bad = || ConfigError::new(format!("{key}.url"), "must be http[s]://host[:port]/path");
        let url: Uri = config.url.parse().map_err(|_bad| bad())?;
        let authority = url.authority().filter(|authority| !authority.as_str().contains('@'));
        let port = match url.scheme_str() {
            Some("http") => 80,
            Some("https") => 443,
            _ => return Err(bad()),
        };
        let authority = authority.ok_or_else(bad)?;
        let port = authority.port_u16().unwrap_or(port);
        if config.max_concurrent == 0 || config.max_concurrent > Semaphore::MAX_PERMITS {
            return Err(ConfigError::new(format!("{key}.max_concurrent"), "must be at least 1"));
        }
        if config.timeout.is_zero() {
            return Err(ConfigError::new(format!("{key}.timeout"), "must be above 0"));
        }
        let path = url.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        Ok(Self {
            authority: format!("{}:{port}", authority.host()),
            port,
            name: authority.host().trim_matches(['[', ']']).to_owned(),
            secure: None,
            host: HeaderValue::from_str(authority.as_str()).map_err(|_bad| bad())?,
            path: path.parse().map_err(|_bad| bad())?,
            turns: Semaphore::new(config.max_concurrent),
            idle: Mutex::default(),
            config: config.clone(),
            metrics,
            telemetry,
        })
    }

    /// Has it encrypt what is asked, where its URL says so.
    fn over(mut self, outgoing: Option<&Arc<Outgoing>>) -> Self {
        self.secure = outgoing.filter(|_| self.config.is_secure()).cloned();
        self
    }

    async fn ask(&self, question: Question) -> Verdict {
        let deadline = Instant::from_std(clock::now() + self.config.timeout);
        let mut request = Request::new(Full::new(question.body));
        for (name, value) in question.headers.iter() {
            request.headers_mut().append(name, value.clone());
        }
        let (hook, host, port) = (question.hook, &*self.name, self.port);
        let span = self.telemetry.begin(Doing::Ask { hook, host, port, headers: request.headers() });
        span.pass_on(request.headers_mut());
        let verdict = timeout_at(deadline, self.ask_in_turn(request, &span)).await;
        if verdict.is_err() {
            span.fail("timeout");
        }
        verdict.ok().flatten().unwrap_or(Verdict::Failed)
    }

    async fn ask_in_turn(&self, mut request: Request<Full<Bytes>>, span: &Span) -> Option<Verdict> {
        let _turn = self.turns.acquire().await.ok()?;
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.path.clone();
        request.headers_mut().insert(HOST, self.host.clone());
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let Some((response, sender)) = self.send(request).await else {
            span.fail("connection");
            return None;
        };
        let status = response.status();
        span.status(status.as_u16(), status.is_client_error() || status.is_server_error());
        let good = response.status() == StatusCode::OK;
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.ok()?;
        self.keep(sender);
        if !good {
            return None;
        }
        Some(Verdict::read(&body.to_bytes()))
    }

    /// Sends a request on a connection that is kept, or on a fresh one where none takes it.
    async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Option<(Response<Incoming>, SendRequest<Full<Bytes>>)> {
        while let Some(mut sender) = self.take() {
            if sender.ready().await.is_err() {
                continue;
            }
            match sender.try_send_request(request).await {
                Ok(response) => return Some((response, sender)),
                // One that the server closed meanwhile gives back what it did not send.
                Err(mut error) => request = error.take_message()?,
            }
        }
        let stream = TcpStream::connect(&self.authority).await.ok()?;
        // A question is one small write; a socket that refuses works all the same.
        drop(stream.set_nodelay(true));
        let mut sender = match &self.secure {
            None => begin(stream).await?,
            Some(secure) => begin(secure.connect(&self.name, stream).await.ok()?).await?,
        };
        let response = sender.send_request(request).await.ok()?;
        Some((response, sender))
    }

    fn take(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.lock();
        // The latest is the likeliest to live.
        while let Some(sender) = idle.pop() {
            if !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }

    fn keep(&self, sender: SendRequest<Full<Bytes>>) {
        let mut idle = self.idle.lock();
        if idle.len() < MAX_IDLE {
            idle.push(sender);
        }
    }
}

/// Begins to talk on a connection.
async fn begin<S: Io + 'static>(stream: S) -> Option<SendRequest<Full<Bytes>>> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await.ok()?;
    // It ends with its sender, or with the server.
    tokio::spawn(async move { drop(connection.await) });
    Some(sender)
}
