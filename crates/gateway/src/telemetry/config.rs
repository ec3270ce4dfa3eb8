//! Where traces and metrics go.

use std::time::Duration;

/// Variables that name a collector.
const ENDPOINTS: [&str; 3] = [
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
];

/// A collector of OpenTelemetry that gets traces and metrics by OTLP over HTTP (`http/protobuf`).
///
/// What is left unset is taken from the standard variables, `OTEL_EXPORTER_OTLP_ENDPOINT`,
/// `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_EXPORTER_OTLP_TIMEOUT`, their forms for one signal, `OTEL_SERVICE_NAME`,
/// `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER`, `OTEL_BSP_*` and `OTEL_METRIC_EXPORT_INTERVAL`.
/// `OTEL_TRACES_EXPORTER=none` and `OTEL_METRICS_EXPORTER=none` switch one of the two off.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct OtlpConfig {
    /// The collector: `http://host:port`, or (with the feature `tls`) `https`; `/v1/traces` and `/v1/metrics` are added.
    /// Default: what the variables say, else `http://localhost:4318`.
    pub endpoint: Option<String>,
    /// What the gateway is called. Default: what the variables say, else `evenkeel-gateway`.
    pub service_name: Option<String>,
    /// Between two exports of spans, and of metrics. Default: what the variables say, else 5 s and 60 s.
    pub interval: Option<Duration>,
    /// Spans that wait for the collector. Default: what `OTEL_BSP_MAX_QUEUE_SIZE` says, else 2048. Further ones are
    /// dropped, and counted.
    pub max_queued_spans: Option<usize>,
}

impl std::fmt::Debug for OtlpConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // An address may hold a password.
        f.debug_struct("OtlpConfig")
            .field("endpoint", &self.endpoint.as_ref().map(|_| "<set>"))
            .field("service_name", &self.service_name)
            .field("interval", &self.interval)
            .field("max_queued_spans", &self.max_queued_spans)
            .finish()
    }
}

impl OtlpConfig {
    /// What the standard variables say: `None` where they name no collector, or `OTEL_SDK_DISABLED` is `true`.
    pub fn from_env() -> Option<Self> {
        Self::read(|name| std::env::var(name).ok())
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let disabled = variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let named = ENDPOINTS.into_iter().any(|name| variable(name).is_some_and(|value| !value.is_empty()));
        (named && !disabled).then(Self::default)
    }
}

/// Whether the variable `name` says that a signal goes nowhere.
pub(super) fn is_none(name: &str) -> bool {
    std::env::var(name).is_ok_and(|value| value.trim().eq_ignore_ascii_case("none"))
}

/// A number from a variable; nothing where it is unset or no number.
pub(super) fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::OtlpConfig;

    #[test]
    fn variables_name_a_collector_or_there_is_none() {
        let read = |variables: &'static [(&str, &str)]| {
            OtlpConfig::read(|name| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        assert!(read(&[]).is_none());
        assert!(read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]).is_none());
        assert!(read(&[("OTEL_SERVICE_NAME", "x")]).is_none());
        assert!(read(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c/v1/traces")]).is_some());
        assert!(read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318")]).is_some());
        assert!(
            read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"), ("OTEL_SDK_DISABLED", "TRUE")]).is_none()
        );
    }

    #[test]
    fn an_address_is_not_shown() {
        let config = OtlpConfig { endpoint: Some("http://user:hush@c".to_owned()), ..OtlpConfig::default() };
        assert!(!format!("{config:?}").contains("hush"));
    }
}
