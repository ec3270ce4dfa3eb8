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

    #[test]
    fn every_family_has_help_type_and_value() {
        let metrics = Metrics::default();
        Metrics::add(&metrics.delivered, 7);
        let gauges =
            Gauges { channels: 2, backlog: 0, waiting: 0, probe_age_seconds: Some(0.5), ready: true };
        let text = metrics.render(gauges);
        assert!(text.contains("\nevenkeel_gateway_delivered_total 7\n"));
        assert!(text.contains("\nevenkeel_gateway_ready 1\n"));
        assert_eq!(text.lines().count() % 3, 0);
    }
}
