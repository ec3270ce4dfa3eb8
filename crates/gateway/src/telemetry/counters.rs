//! The counters of a gateway as instruments, read when an export is due.

use crate::driver::shared::Shared;
use crate::metrics::Kind;
use opentelemetry::metrics::{AsyncInstrument, Meter};
use std::sync::{Arc, Weak};

/// Has every counter and gauge read when the meter asks.
pub(super) fn observe(meter: &Meter, shared: &Arc<Shared>) {
    for (at, reading) in shared.readings().into_iter().enumerate() {
        // Here the kind and the unit say what Prometheus has in the name.
        let bare = reading.name.trim_end_matches("_total").trim_end_matches("_seconds");
        let name = format!("evenkeel.gateway.{bare}");
        let (shared, help, unit) = (Arc::downgrade(shared), reading.help, reading.unit);
        let read = move |told: &dyn AsyncInstrument<f64>| {
            if let Some(value) = value(&shared, at) {
                told.observe(value, &[]);
            }
        };
        // Registered with its meter, it needs nobody to hold it.
        match reading.kind {
            Kind::Counter => drop(
                meter
                    .f64_observable_counter(name)
                    .with_description(help)
                    .with_unit(unit)
                    .with_callback(read)
                    .build(),
            ),
            Kind::Gauge => drop(
                meter
                    .f64_observable_gauge(name)
                    .with_description(help)
                    .with_unit(unit)
                    .with_callback(read)
                    .build(),
            ),
        }
    }
}

/// What a reading says now.
fn value(shared: &Weak<Shared>, at: usize) -> Option<f64> {
    shared.upgrade()?.readings().get(at)?.value
}
