//! Spans and counters on their way to a collector.
//!
//! The work is done on threads of the SDK's own, which hold nothing that the gateway waits for: a collector that is
//! slow or gone costs the spans that find no room, and these are counted.

use super::bounded::{Bounded, Counted, Ledger};
use super::config::{OtlpConfig, is_none, number};
use super::post::Post;
use super::{Doing, counters};
use crate::driver::shared::Shared;
use crate::error::ConfigError;
use crate::hooks::Hook;
use http::{HeaderMap, Method, Uri};
use opentelemetry::metrics::MeterProvider as _;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{
    FutureExt as _, SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracer, SdkTracerProvider};
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::oneshot;

/// One export, from the address to the answer, where no variable says how long.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Spans that wait, where no variable says how many.
const MAX_QUEUED: usize = 2_048;
/// How long the end of a gateway waits for the last export.
const LAST_EXPORT: Duration = Duration::from_secs(2);
/// Where a collector listens unless something else is said.
const USUAL: &str = "http://localhost:4318";

/// The gateway's telling of what it does; by default it tells nobody.
#[derive(Debug, Default)]
pub(crate) struct Telemetry {
    live: Option<Live>,
}

#[derive(Debug)]
struct Live {
    tracer: Option<SdkTracer>,
    ends: Mutex<Ends>,
    reader: Mutex<Option<Meters>>,
    ledger: Arc<Ledger>,
}

/// What is ended with the gateway.
#[derive(Debug, Default)]
struct Ends {
    traces: Option<SdkTracerProvider>,
    meters: Option<SdkMeterProvider>,
}

/// What makes the meters, once there is something to measure.
#[derive(Debug)]
struct Meters {
    exporter: Counted<MetricExporter>,
    interval: Option<Duration>,
    resource: Resource,
}

impl Telemetry {
    /// Prepares to tell a collector. Reads the standard variables for what is unset.
    pub(crate) fn new(config: &OtlpConfig) -> Result<Self, ConfigError> {
        let ledger = Arc::new(Ledger::default());
        let resource = resource(config.service_name.as_deref());
        let mut ends = Ends::default();
        let traces = if is_none("OTEL_TRACES_EXPORTER") {
            None
        } else {
            let (endpoint, post) = signal(config, "TRACES")?;
            let built =
                SpanExporter::builder().with_http().with_http_client(post).with_endpoint(endpoint).build();
            Some(Counted { inner: built.map_err(|_named| unusable())?, ledger: ledger.clone() })
        };
        let meters = if is_none("OTEL_METRICS_EXPORTER") {
            None
        } else {
            let (endpoint, post) = signal(config, "METRICS")?;
            let built =
                MetricExporter::builder().with_http().with_http_client(post).with_endpoint(endpoint).build();
            let exporter = Counted { inner: built.map_err(|_named| unusable())?, ledger: ledger.clone() };
            Some(Meters { exporter, interval: config.interval, resource: resource.clone() })
        };
        let tracer = traces.map(|exporter| {
            let said = number("OTEL_BSP_MAX_QUEUE_SIZE").and_then(|most| usize::try_from(most).ok());
            let most = config.max_queued_spans.or(said).unwrap_or(MAX_QUEUED).max(1);
            let mut batches = BatchConfigBuilder::default().with_max_queue_size(most);
            if let Some(interval) = config.interval {
                batches = batches.with_scheduled_delay(interval);
            }
            let inner = BatchSpanProcessor::builder(exporter).with_batch_config(batches.build()).build();
            let processor = Bounded { inner, ledger: ledger.clone(), most };
            let provider =
                SdkTracerProvider::builder().with_resource(resource).with_span_processor(processor).build();
            let tracer = provider.tracer_with_scope(scope());
            ends.traces = Some(provider);
            tracer
        });
        let live = Live { tracer, ends: Mutex::new(ends), reader: Mutex::new(meters), ledger };
        Ok(Self { live: Some(live) })
    }

    /// Begins to export the counters of `shared`.
    pub(crate) fn observe(&self, shared: &Arc<Shared>) {
        let Some(live) = &self.live else { return };
        let Some(Meters { exporter, interval, resource }) = live.reader.lock().take() else { return };
        let mut reader = PeriodicReader::builder(exporter);
        if let Some(interval) = interval {
            reader = reader.with_interval(interval);
        }
        let provider =
            SdkMeterProvider::builder().with_resource(resource).with_reader(reader.build()).build();
        counters::observe(&provider.meter_with_scope(scope()), shared);
        live.ends.lock().meters = Some(provider);
    }

    /// Begins a span: of what its headers name, or of what is under way here.
    pub(crate) fn begin(&self, doing: Doing<'_>) -> Span {
        let Some(tracer) = self.live.as_ref().and_then(|live| live.tracer.as_ref()) else {
            return Span(None);
        };
        let told = |headers: &HeaderMap| {
            TraceContextPropagator::new().extract_with_context(&Context::current(), &HeaderExtractor(headers))
        };
        let (parent, kind, name, attributes) = match doing {
            Doing::Ask { hook, host, port, headers } => (
                told(headers),
                SpanKind::Client,
                "POST".to_owned(),
                vec![
                    KeyValue::new("http.request.method", "POST"),
                    KeyValue::new("server.address", host.to_owned()),
                    KeyValue::new("server.port", i64::from(port)),
                    KeyValue::new("evenkeel.hook", name_of(hook)),
                ],
            ),
            Doing::Publish { channel, bytes } => {
                let template = template(channel);
                let mut attributes = vec![
                    KeyValue::new("messaging.system", "evenkeel"),
                    KeyValue::new("messaging.operation.name", "publish"),
                    KeyValue::new("messaging.operation.type", "send"),
                    KeyValue::new("messaging.message.body.size", i64::try_from(bytes).unwrap_or(i64::MAX)),
                ];
                attributes.extend(
                    template.clone().map(|name| KeyValue::new("messaging.destination.template", name)),
                );
                (Context::current(), SpanKind::Producer, named("publish", template), attributes)
            }
            Doing::Recover { channel } => {
                let template = template(channel);
                let attributes = template
                    .clone()
                    .map(|name| KeyValue::new("messaging.destination.template", name))
                    .into_iter()
                    .collect();
                (Context::current(), SpanKind::Internal, named("recover", template), attributes)
            }
            Doing::Serve { method, headers } => {
                let method = name_of_method(method);
                let attributes = vec![KeyValue::new("http.request.method", method)];
                (told(headers), SpanKind::Server, method.to_owned(), attributes)
            }
        };
        let span = tracer.span_builder(name).with_kind(kind).with_attributes(attributes);
        let span = span.start_with_context(tracer, &parent);
        Span(Some(parent.with_span(span)))
    }

    /// Spans that never reached a collector, and exports that it did not take.
    pub(crate) fn lost(&self) -> Option<(u64, u64)> {
        let ledger = &self.live.as_ref()?.ledger;
        Some((ledger.dropped_spans.load(Ordering::Relaxed), ledger.failed_exports.load(Ordering::Relaxed)))
    }

    /// Exports what is left, and waits for it a little.
    pub(crate) async fn stop(&self) {
        let Some(live) = &self.live else { return };
        let ends = std::mem::take(&mut *live.ends.lock());
        let (done, ended) = oneshot::channel();
        apart(move || {
            ends.end();
            // Nobody waits any more where it took too long.
            let _late: Result<(), ()> = done.send(());
        });
        drop(tokio::time::timeout(LAST_EXPORT, ended).await);
    }
}

impl Ends {
    fn end(self) {
        // What they say went into the ledger.
        if let Some(traces) = self.traces {
            drop(traces.shutdown());
        }
        if let Some(meters) = self.meters {
            drop(meters.shutdown());
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let (ends, tracer) = (std::mem::take(&mut *self.ends.lock()), self.tracer.take());
        // The last of them waits for an export, and this may be the thread that would carry it.
        apart(move || {
            ends.end();
            drop(tracer);
        });
    }
}

/// Does something that waits on a thread of its own.
fn apart(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().name("evenkeel-otlp-end".to_owned());
    if let Err(error) = thread.spawn(work) {
        tracing::warn!(%error, "the last traces and metrics cannot be exported");
    }
}

/// What is under way, and whose it is; nothing where nobody is told.
#[derive(Debug)]
pub(crate) struct Span(Option<Context>);

impl Span {
    /// Does `work` within the span: spans that begin in it belong to this one.
    pub(crate) async fn around<F: Future>(&self, work: F) -> F::Output {
        match &self.0 {
            None => work.await,
            Some(cx) => work.with_context(cx.clone()).await,
        }
    }

    /// Says in a request's headers what it belongs to (`traceparent`).
    pub(crate) fn pass_on(&self, headers: &mut HeaderMap) {
        if let Some(cx) = &self.0 {
            TraceContextPropagator::new().inject_context(cx, &mut HeaderInjector(headers));
        }
    }

    /// Says why it failed.
    pub(crate) fn fail(&self, kind: &'static str) {
        if let Some(cx) = &self.0 {
            cx.span().set_attribute(KeyValue::new("error.type", kind));
            cx.span().set_status(Status::error(""));
        }
    }

    pub(crate) fn text(&self, key: &'static str, value: &'static str) {
        if let Some(cx) = &self.0 {
            cx.span().set_attribute(KeyValue::new(key, value));
        }
    }

    pub(crate) fn number(&self, key: &'static str, value: usize) {
        if let Some(cx) = &self.0 {
            cx.span().set_attribute(KeyValue::new(key, i64::try_from(value).unwrap_or(i64::MAX)));
        }
    }

    /// Names the span of a request by its route.
    pub(crate) fn route(&self, method: &Method, route: String) {
        if let Some(cx) = &self.0 {
            cx.span().update_name(format!("{} {route}", name_of_method(method)));
            cx.span().set_attribute(KeyValue::new("http.route", route));
        }
    }

    /// The status of an answer; `failing` are those that are failures.
    pub(crate) fn status(&self, status: u16, failing: bool) {
        if let Some(cx) = &self.0 {
            cx.span().set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
            if failing {
                cx.span().set_attribute(KeyValue::new("error.type", status.to_string()));
                cx.span().set_status(Status::error(""));
            }
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        // Children that live longer hold the context, and would keep it open.
        if let Some(cx) = &self.0 {
            cx.span().end();
        }
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("evenkeel-gateway").with_version(env!("CARGO_PKG_VERSION")).build()
}

/// What is told of the gateway itself, beside what the variables say.
fn resource(name: Option<&str>) -> Resource {
    let said = Resource::builder().build();
    let has = |key: &'static str| said.get(&opentelemetry::Key::new(key));
    let mut resource = Resource::builder();
    let unnamed = has("service.name").is_none_or(|name| name.as_str().starts_with("unknown_service"));
    if let Some(name) = name.or_else(|| unnamed.then_some("evenkeel-gateway")) {
        resource = resource.with_service_name(name.to_owned());
    }
    if has("service.version").is_none() {
        resource = resource.with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    }
    if has("service.instance.id").is_none() {
        // Gateways that share a name are told apart by it.
        resource =
            resource.with_attribute(KeyValue::new("service.instance.id", instance(fastrand::u128(..))));
    }
    resource.build()
}

/// A random UUID, version 4.
fn instance(random: u128) -> String {
    let hex = format!("{:032x}", random & !(0xF << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62));
    let part = |from, to| hex.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}

/// Where a signal goes, and what brings it there.
fn signal(config: &OtlpConfig, signal: &str) -> Result<(String, Post), ConfigError> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let either = |what: &str| {
        variable(&format!("OTEL_EXPORTER_OTLP_{signal}_{what}"))
            .or_else(|| variable(&format!("OTEL_EXPORTER_OTLP_{what}")))
    };
    let below = |base: &str| format!("{}/v1/{}", base.trim_end_matches('/'), signal.to_ascii_lowercase());
    let endpoint = match &config.endpoint {
        Some(base) => below(base),
        // The form for one signal is taken as it is.
        None => variable(&format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"))
            .unwrap_or_else(|| below(variable("OTEL_EXPORTER_OTLP_ENDPOINT").as_deref().unwrap_or(USUAL))),
    };
    let secure = secure(&endpoint)?;
    let limit = either("TIMEOUT").and_then(|text| text.parse().ok()).map_or(TIMEOUT, Duration::from_millis);
    let own = either("CERTIFICATE").map(PathBuf::from);
    Ok((endpoint, Post::new(secure, own.as_deref(), limit)?))
}

/// Whether an address asks for encryption.
fn secure(endpoint: &str) -> Result<bool, ConfigError> {
    let uri: Uri = endpoint.parse().map_err(|_no_uri| unusable())?;
    match uri.scheme_str() {
        Some("http") if uri.host().is_some() => Ok(false),
        Some("https") if uri.host().is_some() => Ok(true),
        _ => Err(unusable()),
    }
}

/// It may hold a secret, so it is not repeated.
fn unusable() -> ConfigError {
    ConfigError::new("otlp.endpoint", "cannot be used; it must be http[s]://host[:port]")
}

/// A channel's namespace: what is below it may name a person.
fn template(channel: &str) -> Option<String> {
    channel.split_once(':').map(|(namespace, _)| format!("{namespace}:{{channel}}"))
}

fn named(what: &str, template: Option<String>) -> String {
    template.map_or_else(|| what.to_owned(), |template| format!("{what} {template}"))
}

const fn name_of(hook: Hook) -> &'static str {
    match hook {
        Hook::Connect => "connect",
        Hook::Publish => "publish",
        Hook::Refresh => "refresh",
        Hook::SubRefresh => "sub_refresh",
        Hook::Subscribe => "subscribe",
    }
}

/// Methods that are known; a client's own inventions are all one.
fn name_of_method(method: &Method) -> &'static str {
    match *method {
        Method::DELETE => "DELETE",
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        Method::POST => "POST",
        Method::PUT => "PUT",
        _ => "_OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::{instance, secure, template};

    #[test]
    fn an_instance_is_named_by_a_random_uuid() {
        assert_eq!(instance(0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(instance(u128::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }

    #[test]
    fn of_a_channel_only_the_namespace_is_told() {
        assert_eq!(template("news"), None);
        assert_eq!(template("user:ann@example.com").unwrap(), "user:{channel}");
    }

    #[test]
    fn an_address_that_cannot_be_used_is_not_repeated() {
        assert!(!secure("http://c:4318/v1/traces").unwrap());
        assert!(secure("https://c/v1/traces").unwrap());
        for wrong in ["", "c:4318", "ftp://hush/", "/hush", "http:///hush", "grpc://hush"] {
            let error = secure(wrong).unwrap_err().to_string();
            assert!(error.contains("otlp.endpoint") && !error.contains("hush"), "{error}");
        }
    }
}
