//! What is counted of the bus.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counts since the collector began; each is shared by all clones.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    /// Batches that the stream has.
    pub published: Counter,
    /// Batches that it did not take, or not in time.
    pub refused: Counter,
    /// Messages of the stream that are in this collector's store.
    pub taken: Counter,
    /// Messages of the stream that are not stored here: no collector can have sent them, or one of a
    /// later version.
    pub unreadable: Counter,
    /// Messages of the stream that it forgot to give to this collector, which fetched them.
    pub mended: Counter,
    /// Messages of the stream that wait for this collector.
    pub waiting: Gauge<u64, AtomicU64>,
    /// Whether there is a connection: 0 or 1.
    pub connected: Gauge<u64, AtomicU64>,
}

impl Meter {
    /// Puts all of it among what is told.
    pub fn register(&self, registry: &mut Registry) {
        let Meter { published, refused, taken, unreadable, mended, waiting, connected } =
            self.clone();
        registry.register("bus_batches_published", "Batches that the bus has", published);
        let text = "Batches that the bus did not take, or not in time";
        registry.register("bus_batches_refused", text, refused);
        let text = "Messages of the bus that are in this collector's store";
        registry.register("bus_messages_stored", text, taken);
        let text = "Messages of the bus that were not taken for a collector's";
        registry.register("bus_messages_unreadable", text, unreadable);
        let text = "Messages of the bus that it forgot to give, and that were fetched";
        registry.register("bus_messages_forgotten", text, mended);
        let text = "Messages of the bus that wait for this collector";
        registry.register("bus_messages_waiting", text, waiting);
        registry.register("bus_connected", "Whether the bus is connected, 0 or 1", connected);
    }
}
