//! What a collector of OpenTelemetry gets, and that one which is gone or silent harms nobody.

use crate::peer::Peer;
use crate::start::{config, until};
use evenkeel_gateway::{Access, ChannelOptions, Gateway, GatewayConfig, HookConfig, Namespace, OtlpConfig};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use parking_lot::Mutex;
use prost::Message as _;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const TRACE: [u8; 16] =
    [0x0a, 0xf7, 0x65, 0x19, 0x16, 0xcd, 0x43, 0xdd, 0x84, 0x48, 0xeb, 0x21, 0x1c, 0x80, 0x31, 0x9c];

/// One request: path, headers in small letters, body.
type Asked = (String, BTreeMap<String, String>, Vec<u8>);

/// An HTTP server that keeps what it is asked, and answers 200 with `answer`, or never.
struct Keeper {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    _task: JoinSet<()>,
}

impl Keeper {
    async fn start(answer: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let keeps = asked.clone();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut serving = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                serving.spawn(serve(stream, answer, keeps.clone()));
            }
        });
        Self { address, asked, _task: task }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn bodies(&self, path: &str) -> Vec<Vec<u8>> {
        let asked = self.asked.lock();
        asked.iter().filter(|(asked, ..)| asked == path).map(|(.., body)| body.clone()).collect()
    }

    fn traces(&self) -> Vec<ExportTraceServiceRequest> {
        let bodies = self.bodies("/v1/traces");
        bodies.iter().map(|body| ExportTraceServiceRequest::decode(&**body).unwrap()).collect()
    }

    fn spans(&self) -> Vec<Span> {
        let resources = self.traces().into_iter().flat_map(|request| request.resource_spans);
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        scopes
            .inspect(|scope| assert_eq!(scope.scope.as_ref().unwrap().name, "evenkeel-gateway"))
            .flat_map(|scope| scope.spans)
            .collect()
    }

    fn span(&self, name: &str) -> Span {
        let spans = self.spans();
        let names: Vec<_> = spans.iter().map(|span| span.name.clone()).collect();
        spans.into_iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{name} among {names:?}"))
    }

    /// Name, unit and the last value of every instrument.
    fn instruments(&self) -> BTreeMap<String, (String, String)> {
        let mut all = BTreeMap::new();
        for body in self.bodies("/v1/metrics") {
            let request = ExportMetricsServiceRequest::decode(&*body).unwrap();
            let resources = request.resource_metrics.into_iter();
            for metric in resources.flat_map(|one| one.scope_metrics).flat_map(|scope| scope.metrics) {
                assert!(!metric.description.is_empty(), "{}", metric.name);
                let points = match metric.data.unwrap() {
                    Data::Gauge(gauge) => gauge.data_points,
                    Data::Sum(sum) => {
                        assert!(sum.is_monotonic);
                        sum.data_points
                    }
                    other => panic!("{other:?}"),
                };
                let value = match points.last().unwrap().value.unwrap() {
                    Number::AsDouble(value) => value.to_string(),
                    Number::AsInt(value) => value.to_string(),
                };
                all.insert(metric.name, (metric.unit, value));
            }
        }
        all
    }
}

async fn serve(stream: TcpStream, answer: Option<&'static str>, asked: Arc<Mutex<Vec<Asked>>>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            if line.trim_end().is_empty() {
                break;
            }
            lines.push(line.trim_end().to_owned());
        }
        let path = lines[0].split(' ').nth(1).unwrap().to_owned();
        let headers: BTreeMap<_, _> = lines[1..]
            .iter()
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let mut body = vec![0; headers["content-length"].parse().unwrap()];
        stream.read_exact(&mut body).await.unwrap();
        asked.lock().push((path, headers, body));
        let Some(answer) = answer else { return std::future::pending().await };
        let said = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len());
        stream.write_all(said.as_bytes()).await.unwrap();
    }
}

/// Exports often, and calls itself `boats`.
fn to(url: String) -> OtlpConfig {
    let mut collector = OtlpConfig::default();
    collector.endpoint = Some(url);
    collector.service_name = Some("boats".to_owned());
    collector.interval = Some(Duration::from_millis(50));
    collector
}

async fn start(collector: OtlpConfig, change: impl FnOnce(&mut GatewayConfig)) -> Gateway {
    let mut config = config();
    change(&mut config);
    Gateway::builder().config(config).otlp(collector).start().await.unwrap()
}

async fn post(address: SocketAddr, method: &str, key: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "POST /api/{method} HTTP/1.1\r\nHost: h\r\nX-API-Key: {key}\r\ntraceparent: {PARENT}\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    Some(match found.value.as_ref()?.value.as_ref()? {
        Value::IntValue(value) => value.to_string(),
        Value::StringValue(value) => value.clone(),
        other => panic!("{other:?}"),
    })
}

#[tokio::test]
async fn a_request_of_the_server_api_and_its_publication_are_one_trace() {
    let collector = Keeper::start(Some("")).await;
    let gateway = start(to(collector.url()), |config| {
        config.api.key = Some("hush-key".to_owned());
        let mut open = ChannelOptions::default();
        open.subscribe = Access::Anyone;
        config.namespaces.push(Namespace::new("user", open));
    })
    .await;
    let address = gateway.local_addr();
    let body = r#"{"channel":"user:zoe","data":{"hush":"payload"}}"#;
    assert!(post(address, "publish", "hush-key", body).await.starts_with("HTTP/1.1 200 "));
    assert!(post(address, "hush-method", "hush-key", "{}").await.starts_with("HTTP/1.1 404 "));
    assert!(post(address, "publish", "hush-guess", body).await.starts_with("HTTP/1.1 401 "));
    gateway.stop().await;

    let served = collector.span("POST /api/publish");
    assert_eq!((&*served.trace_id, served.kind()), (&TRACE[..], SpanKind::Server));
    assert_eq!(served.parent_span_id, [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]);
    for (key, value) in [
        ("http.request.method", "POST"),
        ("http.route", "/api/publish"),
        ("http.response.status_code", "200"),
    ] {
        assert_eq!(attribute(&served.attributes, key).as_deref(), Some(value), "{key}");
    }
    let published = collector.span("publish user:{channel}");
    assert_eq!((&*published.trace_id, published.kind()), (&TRACE[..], SpanKind::Producer));
    assert_eq!(published.parent_span_id, served.span_id);
    for (key, value) in [
        ("messaging.operation.name", "publish"),
        ("messaging.destination.template", "user:{channel}"),
        ("messaging.message.body.size", "18"),
        ("evenkeel.publish.outcome", "delivered"),
    ] {
        assert_eq!(attribute(&published.attributes, key).as_deref(), Some(value), "{key}");
    }
    // What was not answered is a client's own words, and names nothing.
    let refused: Vec<_> = collector.spans().into_iter().filter(|span| span.name == "POST").collect();
    let status = |span: &Span| attribute(&span.attributes, "http.response.status_code").unwrap();
    let mut statuses: Vec<_> = refused.iter().map(status).collect();
    statuses.sort();
    assert_eq!(statuses, ["401", "404"]);
    let told = format!("{:?}", collector.spans());
    for secret in ["hush", "zoe", "payload"] {
        assert!(!told.contains(secret), "{secret} in {told}");
    }
    let resource = collector.traces()[0].resource_spans[0].resource.clone().unwrap();
    assert_eq!(attribute(&resource.attributes, "service.name").as_deref(), Some("boats"));
    assert!(attribute(&resource.attributes, "service.instance.id").is_some());
}

#[tokio::test]
async fn a_hook_learns_which_trace_it_belongs_to() {
    let collector = Keeper::start(Some("")).await;
    let application = Keeper::start(Some(r#"{"result":{}}"#)).await;
    let gateway = start(to(collector.url()), |config| {
        let mut asks = ChannelOptions::default();
        asks.subscribe = Access::Hook;
        config.namespaces.push(Namespace::new("ask", asks));
        config.hooks.subscribe = Some(HookConfig::new(format!("{}/hush-path", application.url())));
    })
    .await;
    let mut peer = Peer::connect(gateway.local_addr()).await;
    assert!(peer.subscribe("ask:zoe").await["subscribe"].is_object());
    gateway.stop().await;

    let asked = collector.span("POST");
    assert_eq!(asked.kind(), SpanKind::Client);
    for (key, value) in [
        ("evenkeel.hook", "subscribe"),
        ("server.address", "127.0.0.1"),
        ("http.response.status_code", "200"),
    ] {
        assert_eq!(attribute(&asked.attributes, key).as_deref(), Some(value), "{key}");
    }
    let trace = u128::from_be_bytes(asked.trace_id.clone().try_into().unwrap());
    let span = u64::from_be_bytes(asked.span_id.try_into().unwrap());
    let told = application.asked.lock()[0].1["traceparent"].clone();
    assert_eq!(told, format!("00-{trace:032x}-{span:016x}-01"));
    let all = format!("{:?}", collector.spans());
    assert!(!all.contains("hush") && !all.contains("zoe"), "{all}");
}

#[tokio::test]
async fn a_client_that_comes_back_is_a_span_too() {
    let collector = Keeper::start(Some("")).await;
    let gateway = start(to(collector.url()), |config| {
        let mut kept = ChannelOptions::default();
        kept.subscribe = Access::Anyone;
        kept.history_size = 10;
        kept.recovery = true;
        config.namespaces.push(Namespace::new("seen", kept));
    })
    .await;
    let mut peer = Peer::connect(gateway.local_addr()).await;
    let first = peer.subscribe("seen:a").await["subscribe"].clone();
    gateway.handle().publish("seen:a", "1").await.unwrap();
    let mut again = Peer::connect(gateway.local_addr()).await;
    let wish = serde_json::json!({"id":2,"subscribe":{
        "channel":"seen:a","recover":true,"epoch":first["epoch"],"offset":first["offset"].as_u64().unwrap_or(0)
    }});
    again.say(&wish.to_string()).await;
    assert_eq!(again.json().await["subscribe"]["recovered"], true);
    gateway.stop().await;
    let recovered = collector.span("recover seen:{channel}");
    assert_eq!(attribute(&recovered.attributes, "evenkeel.recover.outcome").as_deref(), Some("recovered"));
    assert_eq!(attribute(&recovered.attributes, "evenkeel.recover.publications").as_deref(), Some("1"));
}

#[tokio::test]
async fn counters_are_exported_as_the_page_has_them() {
    let collector = Keeper::start(Some("")).await;
    let gateway = start(to(collector.url()), |_| {}).await;
    let mut peer = Peer::connect(gateway.local_addr()).await;
    peer.subscribe("news").await;
    gateway.handle().publish("news", "1").await.unwrap();
    peer.json().await;
    until("an export", || {
        let told = collector.instruments();
        told.get("evenkeel.gateway.delivered").is_some_and(|(_, value)| value == "1")
    })
    .await;
    let told = collector.instruments();
    assert_eq!(told["evenkeel.gateway.sessions"], ("{session}".to_owned(), "1".to_owned()));
    assert_eq!(told["evenkeel.gateway.published"], ("{publication}".to_owned(), "1".to_owned()));
    let page = gateway.handle().metrics();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(' ').next().unwrap().trim_start_matches("evenkeel_gateway_");
        let name = name.trim_end_matches("_total").trim_end_matches("_seconds");
        assert!(told.contains_key(&format!("evenkeel.gateway.{name}")), "{name} in {told:?}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_collector_that_is_silent_or_gone_harms_nobody_and_what_is_lost_is_counted() {
    let silent = Keeper::start(None).await;
    for url in [silent.url(), "http://127.0.0.1:1".to_owned()] {
        let mut collector = to(url);
        collector.max_queued_spans = Some(4);
        let gateway = start(collector, |_| {}).await;
        let mut peer = Peer::connect(gateway.local_addr()).await;
        peer.subscribe("news").await;
        for number in 0..50 {
            gateway.handle().publish("news", number.to_string()).await.unwrap();
            assert_eq!(peer.json().await["push"]["pub"]["data"], number);
        }
        until("drops", || {
            let page = gateway.handle().metrics();
            let dropped = page.lines().find_map(|line| {
                line.strip_prefix("evenkeel_gateway_otlp_spans_dropped_total ")?.parse::<u64>().ok()
            });
            dropped.is_some_and(|dropped| (46..=50).contains(&dropped))
        })
        .await;
        gateway.stop().await;
    }
}

#[tokio::test]
async fn an_address_that_cannot_be_used_is_refused_at_the_start() {
    for url in ["collector:4318", "ftp://h", "/hush"] {
        let started = Gateway::builder().config(config()).otlp(to(url.to_owned())).start().await;
        let error = started.unwrap_err().to_string();
        assert!(error.contains("otlp.endpoint") && !error.contains("hush"), "{error}");
    }
}
