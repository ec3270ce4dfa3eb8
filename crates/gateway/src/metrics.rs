//! Counters of a gateway, in the text form of Prometheus.

use std::fmt::Write;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// What a gateway counts.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) connections: AtomicI64,
    pub(crate) sessions: AtomicI64,
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) handshake_failed: AtomicU64,
    pub(crate) closed_slow: AtomicU64,
    pub(crate) closed_no_pong: AtomicU64,
    pub(crate) violations: AtomicU64,
    pub(crate) request_errors: AtomicU64,
    pub(crate) api_refused: AtomicU64,
    pub(crate) publications_in: AtomicU64,
    pub(crate) published: AtomicU64,
    pub(crate) publish_failed: AtomicU64,
    pub(crate) delivered: AtomicU64,
    pub(crate) recovered: AtomicU64,
    pub(crate) unrecovered: AtomicU64,
    pub(crate) hooks_asked: AtomicU64,
    pub(crate) hooks_failed: AtomicU64,
}

/// What is measured when it is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gauges {
    pub(crate) channels: usize,
    pub(crate) backlog: usize,
    pub(crate) waiting: usize,
    pub(crate) probe_age_seconds: Option<f64>,
    pub(crate) ready: bool,
    /// Spans and exports that never reached a collector, where there is one.
    pub(crate) lost: Option<(u64, u64)>,
}

/// How a reading goes: only up, or both ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
}

/// One of the figures of a gateway.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    /// As Prometheus has it, without the prefix.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// As UCUM has it; what is counted stands in braces.
    #[cfg_attr(not(feature = "otlp"), expect(dead_code, reason = "Prometheus has the unit in the name"))]
    pub(crate) unit: &'static str,
    pub(crate) help: &'static str,
    /// Nothing where it is not known yet.
    pub(crate) value: Option<f64>,
}

impl Metrics {
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add(counter: &AtomicU64, by: usize) {
        counter.fetch_add(by as u64, Ordering::Relaxed);
    }

    /// Every figure, always in the same order.
    #[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
    pub(crate) fn readings(&self, gauges: Gauges) -> Vec<Reading> {
        let gauge = |name, unit, help, value| Reading { name, kind: Kind::Gauge, unit, help, value };
        let open = |value: &AtomicI64| Some(value.load(Ordering::Relaxed) as f64);
        let total = |name, unit, help, value: &AtomicU64| {
            let value = Some(value.load(Ordering::Relaxed) as f64);
            Reading { name, kind: Kind::Counter, unit, help, value }
        };
        let lost = |name, unit, help, value: Option<u64>| Reading {
            name,
            kind: Kind::Counter,
            unit,
            help,
            value: value.map(|value| value as f64),
        };
        let ready = Some(f64::from(u8::from(gauges.ready)));
        vec![
            gauge("connections", "{connection}", "Open TCP connections.", open(&self.connections)),
            gauge("sessions", "{session}", "Open sessions.", open(&self.sessions)),
            gauge("channels", "{channel}", "Channels wanted from the broker.", Some(gauges.channels as f64)),
            gauge(
                "shard_backlog",
                "{command}",
                "Commands in the fullest shard queue.",
                Some(gauges.backlog as f64),
            ),
            gauge(
                "publications_waiting",
                "{publication}",
                "Publications that wait for the broker.",
                Some(gauges.waiting as f64),
            ),
            gauge("ready", "1", "1 when publications can be delivered.", ready),
            gauge(
                "probe_age_seconds",
                "s",
                "Age of the last probe that came through the broker.",
                gauges.probe_age_seconds,
            ),
            total("accepted_total", "{connection}", "Connections accepted.", &self.accepted),
            total("refused_total", "{connection}", "Connections refused at the limit.", &self.refused),
            total(
                "handshake_failed_total",
                "{connection}",
                "Connections without a good request.",
                &self.handshake_failed,
            ),
            total(
                "closed_slow_total",
                "{session}",
                "Sessions closed because their outbox was full.",
                &self.closed_slow,
            ),
            total(
                "closed_no_pong_total",
                "{session}",
                "Sessions closed without an answer to a heartbeat.",
                &self.closed_no_pong,
            ),
            total(
                "violations_total",
                "{session}",
                "Sessions closed for breaking the protocol.",
                &self.violations,
            ),
            total(
                "request_errors_total",
                "{request}",
                "Requests of clients answered with an error.",
                &self.request_errors,
            ),
            total(
                "api_refused_total",
                "{request}",
                "Requests of servers answered with an error.",
                &self.api_refused,
            ),
            total(
                "publications_total",
                "{publication}",
                "Publications taken from the broker.",
                &self.publications_in,
            ),
            total("delivered_total", "{publication}", "Publications queued for a session.", &self.delivered),
            total(
                "published_total",
                "{publication}",
                "Publications taken from clients and servers.",
                &self.published,
            ),
            total("publish_failed_total", "{publication}", "Publications refused.", &self.publish_failed),
            total(
                "recovered_total",
                "{subscription}",
                "Subscriptions that got what they missed.",
                &self.recovered,
            ),
            total("unrecovered_total", "{subscription}", "Subscriptions that could not.", &self.unrecovered),
            total("hooks_asked_total", "{question}", "Questions to hooks.", &self.hooks_asked),
            total(
                "hooks_failed_total",
                "{question}",
                "Questions without an answer that could be used.",
                &self.hooks_failed,
            ),
            lost(
                "otlp_spans_dropped_total",
                "{span}",
                "Spans that never reached the collector.",
                gauges.lost.map(|lost| lost.0),
            ),
            lost(
                "otlp_exports_failed_total",
                "{export}",
                "Exports that the collector did not take.",
                gauges.lost.map(|lost| lost.1),
            ),
        ]
    }

    /// Writes everything down that is known.
    pub(crate) fn render(&self, gauges: Gauges) -> String {
        let mut out = String::with_capacity(4_096);
        for Reading { name, kind, help, value, .. } in self.readings(gauges) {
            let Some(value) = value else { continue };
            let kind = match kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
            };
            #[expect(clippy::expect_used, reason = "a string takes every character")]
            writeln!(
                out,
                "# HELP evenkeel_gateway_{name} {help}\n# TYPE evenkeel_gateway_{name} {kind}\nevenkeel_gateway_{name} {value}"
            )
            .expect("text into a string");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::{Gauges, Metrics};

    fn gauges(probe_age_seconds: Option<f64>) -> Gauges {
        Gauges { channels: 2, backlog: 0, waiting: 0, probe_age_seconds, ready: true, lost: Some((1, 2)) }
    }

    /// Name, kind and value of every family; fails on what a scraper or the conventions of names would not take.
    fn families(page: &str) -> Vec<(String, String, f64)> {
        assert!(page.ends_with('\n'), "the last line has to end");
        let lines: Vec<&str> = page.lines().collect();
        let (families, rest) = lines.as_chunks::<3>();
        assert!(rest.is_empty(), "lines of no family: {rest:?}");
        let read = |[help, kind, sample]: &[&str; 3]| {
            let (name, text) = help.strip_prefix("# HELP ").unwrap().split_once(' ').unwrap();
            assert!(text.len() > 1 && text.ends_with('.') && !text.contains('\\'), "help of {name}: {text}");
            let (typed, kind) = kind.strip_prefix("# TYPE ").unwrap().split_once(' ').unwrap();
            assert_eq!(name, typed);
            // Right behind the name: a label would stand between them, and none is bounded by itself.
            let value = sample.strip_prefix(name).unwrap().strip_prefix(' ').unwrap();
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            let own = name.strip_prefix("evenkeel_gateway_").unwrap();
            assert!(own.starts_with(|c: char| c.is_ascii_lowercase()) && own.chars().all(plain), "{name}");
            match kind {
                "counter" => assert!(own.ends_with("_total"), "a counter says so: {name}"),
                "gauge" => assert!(!own.ends_with("_total"), "a gauge is no total: {name}"),
                other => panic!("{name} is of kind {other}"),
            }
            let not_base = ["_ms", "_milliseconds", "_us", "_minutes", "_kib", "_mib", "_percent"];
            let part = own.strip_suffix("_total").unwrap_or(own);
            assert!(not_base.iter().all(|unit| !part.ends_with(unit)), "no base unit: {name}");
            (name.to_owned(), kind.to_owned(), value.parse().unwrap())
        };
        families.iter().map(read).collect()
    }

    #[test]
    fn every_family_is_what_a_scraper_takes() {
        let metrics = Metrics::default();
        Metrics::add(&metrics.delivered, 7);
        let found = families(&metrics.render(gauges(Some(0.5))));
        let value = |name: &str| {
            let name = format!("evenkeel_gateway_{name}");
            let mut of_name = found.iter().filter(|family| family.0 == name);
            let value = of_name.next().unwrap().2;
            assert!(of_name.next().is_none(), "{name} is there twice");
            value
        };
        assert_eq!(value("delivered_total").to_bits(), 7.0_f64.to_bits());
        assert_eq!(value("probe_age_seconds").to_bits(), 0.5_f64.to_bits());
        assert_eq!(value("ready").to_bits(), 1.0_f64.to_bits());
        let names: std::collections::BTreeSet<_> = found.iter().map(|family| &family.0).collect();
        assert_eq!(names.len(), found.len(), "a family is there twice");
    }

    #[test]
    fn an_age_that_nobody_knows_is_left_out() {
        let metrics = Metrics::default();
        let (with, without) =
            (families(&metrics.render(gauges(Some(1.0)))), families(&metrics.render(gauges(None))));
        assert_eq!(with.len(), without.len() + 1);
        assert!(without.iter().all(|family| family.0 != "evenkeel_gateway_probe_age_seconds"));
    }
}
