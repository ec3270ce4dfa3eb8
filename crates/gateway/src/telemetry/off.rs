//! Stands in for the exporter where the crate was built without it: nothing is told to anybody.

use super::Doing;
use crate::driver::shared::Shared;
use http::{HeaderMap, Method};
use std::sync::Arc;

/// Tells nobody.
#[derive(Debug)]
pub(crate) struct Telemetry;

#[expect(clippy::unused_self, reason = "stands in for calls that need it")]
impl Telemetry {
    pub(crate) fn observe(&self, _shared: &Arc<Shared>) {}

    pub(crate) fn begin(&self, _doing: Doing<'_>) -> Span {
        Span
    }

    /// Spans that never reached a collector, and exports of counters that did not.
    pub(crate) fn lost(&self) -> Option<(u64, u64)> {
        None
    }

    #[expect(clippy::unused_async, reason = "stands in for a call that waits")]
    pub(crate) async fn stop(&self) {}
}

/// Nothing.
#[derive(Debug)]
pub(crate) struct Span;

#[expect(clippy::unused_self, reason = "stands in for calls that need it")]
impl Span {
    pub(crate) fn around<F: Future>(&self, work: F) -> F {
        work
    }

    pub(crate) fn pass_on(&self, _headers: &mut HeaderMap) {}

    pub(crate) fn fail(&self, _kind: &'static str) {}

    pub(crate) fn text(&self, _key: &'static str, _value: &'static str) {}

    pub(crate) fn number(&self, _key: &'static str, _value: usize) {}

    pub(crate) fn route(&self, _method: &Method, _route: String) {}

    pub(crate) fn status(&self, _status: u16, _failing: bool) {}
}
