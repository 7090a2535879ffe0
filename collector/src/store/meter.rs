//! What the writer counts of its work.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// Counts since the collector began; each is shared by all clones.
#[derive(Clone, Debug)]
pub struct Meter {
    /// Events that were new.
    pub events: Counter,
    /// Batches that were answered with an acknowledgement.
    pub batches: Counter,
    /// Batches that were refused because the store could not be written.
    pub refused: Counter,
    /// Seconds that a commit took, without the wait for more batches.
    pub commits: Histogram,
}

impl Default for Meter {
    fn default() -> Meter {
        // From 1 ms to 16 s.
        let commits = Histogram::new(exponential_buckets(0.001, 2.0, 15));
        Meter {
            events: Counter::default(),
            batches: Counter::default(),
            refused: Counter::default(),
            commits,
        }
    }
}

impl Meter {
    /// A commit that took this long; `counts` has the new events of each batch.
    pub fn committed(&self, counts: &[u32], took: Duration) {
        self.events.inc_by(counts.iter().map(|count| u64::from(*count)).sum());
        self.batches.inc_by(counts.len() as u64);
        self.commits.observe(took.as_secs_f64());
    }

    /// A commit of so many batches that failed.
    pub fn failed(&self, batches: usize) {
        self.refused.inc_by(batches as u64);
    }
}
