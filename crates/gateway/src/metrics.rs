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
}

impl Metrics {
    pub(crate) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn add(counter: &AtomicU64, by: usize) {
        counter.fetch_add(by as u64, Ordering::Relaxed);
    }

    /// Writes everything down.
    pub(crate) fn render(&self, gauges: Gauges) -> String {
        let mut out = String::with_capacity(4_096);
        let mut put = |name: &str, kind: &str, help: &str, value: &dyn std::fmt::Display| {
            #[expect(clippy::expect_used, reason = "a string takes every character")]
            writeln!(
                out,
                "# HELP evenkeel_gateway_{name} {help}\n# TYPE evenkeel_gateway_{name} {kind}\nevenkeel_gateway_{name} {value}"
            )
            .expect("text into a string");
        };
        let gauge = |value: &AtomicI64| value.load(Ordering::Relaxed);
        let total = |value: &AtomicU64| value.load(Ordering::Relaxed);
        put("connections", "gauge", "Open TCP connections.", &gauge(&self.connections));
        put("sessions", "gauge", "Open sessions.", &gauge(&self.sessions));
        put("channels", "gauge", "Channels wanted from the broker.", &gauges.channels);
        put("shard_backlog", "gauge", "Commands in the fullest shard queue.", &gauges.backlog);
        put("publications_waiting", "gauge", "Publications that wait for the broker.", &gauges.waiting);
        put("ready", "gauge", "1 when publications can be delivered.", &u8::from(gauges.ready));
        if let Some(age) = gauges.probe_age_seconds {
            put("probe_age_seconds", "gauge", "Age of the last probe that came through the broker.", &age);
        }
        put("accepted_total", "counter", "Connections accepted.", &total(&self.accepted));
        put("refused_total", "counter", "Connections refused at the limit.", &total(&self.refused));
        put(
            "handshake_failed_total",
            "counter",
            "Connections without a good request.",
            &total(&self.handshake_failed),
        );
        put(
            "closed_slow_total",
            "counter",
            "Sessions closed because their outbox was full.",
            &total(&self.closed_slow),
        );
        put(
            "closed_no_pong_total",
            "counter",
            "Sessions closed without an answer to a heartbeat.",
            &total(&self.closed_no_pong),
        );
        put(
            "violations_total",
            "counter",
            "Sessions closed for breaking the protocol.",
            &total(&self.violations),
        );
        put(
            "publications_total",
            "counter",
            "Publications taken from the broker.",
            &total(&self.publications_in),
        );
        put("delivered_total", "counter", "Publications queued for a session.", &total(&self.delivered));
        put(
            "published_total",
            "counter",
            "Publications taken from clients and servers.",
            &total(&self.published),
        );
        put("publish_failed_total", "counter", "Publications refused.", &total(&self.publish_failed));
        put(
            "recovered_total",
            "counter",
            "Subscriptions that got what they missed.",
            &total(&self.recovered),
        );
        put("unrecovered_total", "counter", "Subscriptions that could not.", &total(&self.unrecovered));
        put("hooks_asked_total", "counter", "Questions to hooks.", &total(&self.hooks_asked));
        put(
            "hooks_failed_total",
            "counter",
            "Questions without an answer that could be used.",
            &total(&self.hooks_failed),
        );
        out
    }
}

#[cfg(test)]
mod tests {
    use super::{Gauges, Metrics};

    fn gauges(probe_age_seconds: Option<f64>) -> Gauges {
        Gauges { channels: 2, backlog: 0, waiting: 0, probe_age_seconds, ready: true }
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
