//! Spans on their way to the collector: so many wait and no more, and those that never arrive are counted.

use opentelemetry::Context;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::trace::{Span, SpanData, SpanExporter, SpanProcessor};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// What became of spans and of exports.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    waiting: AtomicUsize,
    pub(super) dropped_spans: AtomicU64,
    pub(super) failed_exports: AtomicU64,
    /// Whether the last export failed.
    failing: AtomicBool,
}

impl Ledger {
    fn exported(&self, signal: &'static str, result: &OTelSdkResult) {
        let failed = result.is_err();
        if failed {
            self.failed_exports.fetch_add(1, Ordering::Relaxed);
        }
        // Once each time that it begins and ends: the counters have the rest.
        if self.failing.swap(failed, Ordering::Relaxed) != failed {
            if failed {
                tracing::warn!(signal, "the collector of traces and metrics took no export");
            } else {
                tracing::info!(signal, "the collector of traces and metrics takes exports again");
            }
        }
    }
}

/// Lets in so many spans as may wait.
#[derive(Debug)]
pub(super) struct Bounded<P> {
    pub(super) inner: P,
    pub(super) ledger: Arc<Ledger>,
    pub(super) most: usize,
}

impl<P: SpanProcessor> SpanProcessor for Bounded<P> {
    fn on_start(&self, span: &mut Span, cx: &Context) {
        self.inner.on_start(span, cx);
    }

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        if self.ledger.waiting.fetch_add(1, Ordering::Relaxed) >= self.most {
            self.ledger.waiting.fetch_sub(1, Ordering::Relaxed);
            self.ledger.dropped_spans.fetch_add(1, Ordering::Relaxed);
            return;
        }
        self.inner.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// An exporter whose failures are counted.
#[derive(Debug)]
pub(super) struct Counted<E> {
    pub(super) inner: E,
    pub(super) ledger: Arc<Ledger>,
}

impl<E: SpanExporter> SpanExporter for Counted<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let result = self.inner.export(batch).await;
        self.ledger.waiting.fetch_sub(count, Ordering::Relaxed);
        if result.is_err() {
            self.ledger.dropped_spans.fetch_add(count as u64, Ordering::Relaxed);
        }
        self.ledger.exported("traces", &result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

impl<E: PushMetricExporter> PushMetricExporter for Counted<E> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let result = self.inner.export(metrics).await;
        self.ledger.exported("metrics", &result);
        result
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.inner.temporality()
    }
}
