//! What the exporter counts of its work.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counts since the collector began; each is shared by all clones.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    /// Events that the receiver took.
    pub sent: Counter,
    /// Events that it refused for good.
    pub refused: Counter,
    /// Runs of cursors that could not be read any more.
    pub gaps: Counter,
    /// Requests that failed and were tried again.
    pub failed: Counter,
    /// Cursors between the end of the store and the last that was acknowledged.
    pub behind: Gauge<u64, AtomicU64>,
}

impl Meter {
    /// Tells Prometheus of them.
    pub fn register(&self, registry: &mut Registry) {
        let Meter { sent, refused, gaps, failed, behind } = self.clone();
        registry.register("otlp_events_sent", "Events that the OTLP receiver took", sent);
        let text = "Events that the OTLP receiver refused for good";
        registry.register("otlp_events_refused", text, refused);
        let text = "Runs of events that were gone before the OTLP receiver took them";
        registry.register("otlp_gaps", text, gaps);
        let text = "Requests to the OTLP receiver that failed and were tried again";
        registry.register("otlp_requests_failed", text, failed);
        let text = "Events that the OTLP receiver has not taken yet, when it was last tried";
        registry.register("otlp_behind", text, behind);
    }
}
