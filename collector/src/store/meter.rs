//! What the writer, and what comes before it, count of their work.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use sekimori_proto::v1::Kind;
use sekimori_proto::words::Word as _;

/// Counts since the collector began; each is shared by all clones.
#[derive(Clone, Debug)]
pub struct Meter {
    /// Events that were new, by kind. There are as many kinds as the wire has words for.
    pub events: Family<Label, Counter>,
    /// Bytes of the events that agents sent, whether they were new, known or refused.
    pub received: Counter,
    /// Batches that were refused because an event in them cannot be true, by what is wrong.
    pub invalid: Family<Label, Counter>,
    /// Batches that were answered with an acknowledgement.
    pub batches: Counter,
    /// Batches that were refused because the store could not be written.
    pub refused: Counter,
    /// Seconds that a commit took, without the wait for more batches.
    pub commits: Histogram,
    /// Seconds from a question to its answer, with the wait for a turn, by method.
    pub questions: Family<Label, Histogram, fn() -> Histogram>,
}

/// One name and its value.
type Label = [(&'static str, &'static str); 1];

/// A question that is asked; how long it took is counted when this is dropped.
#[derive(Debug)]
pub struct Asked {
    times: Histogram,
    begun: Instant,
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.times.observe(self.begun.elapsed().as_secs_f64());
    }
}

impl Default for Meter {
    fn default() -> Meter {
        // From 1 ms to 16 s.
        let commits = Histogram::new(exponential_buckets(0.001, 2.0, 15));
        // From 1 ms to 262 s: a replay may take minutes.
        let questions: fn() -> Histogram = || Histogram::new(exponential_buckets(0.001, 4.0, 10));
        Meter {
            events: Family::default(),
            received: Counter::default(),
            invalid: Family::default(),
            batches: Counter::default(),
            refused: Counter::default(),
            commits,
            questions: Family::new_with_constructor(questions),
        }
    }
}

impl Meter {
    /// New events by the number of their kind. Kinds that only a newer agent knows are counted as
    /// `unspecified`.
    pub fn stored(&self, kinds: &BTreeMap<i32, u64>) {
        for (kind, count) in kinds {
            let kind = Kind::try_from(*kind).unwrap_or(Kind::Unspecified);
            self.events.get_or_create(&[("kind", kind.word())]).inc_by(*count);
        }
    }

    /// A batch that was refused; `reason` is one of few words.
    pub fn rejected(&self, reason: &'static str) {
        self.invalid.get_or_create(&[("reason", reason)]).inc();
    }

    /// A question that begins.
    pub fn asked(&self, method: &'static str) -> Asked {
        let times = self.questions.get_or_create(&[("method", method)]).clone();
        Asked { times, begun: Instant::now() }
    }

    /// A commit of so many batches that took this long.
    pub fn committed(&self, batches: usize, took: Duration) {
        self.batches.inc_by(batches as u64);
        self.commits.observe(took.as_secs_f64());
    }

    /// A commit of so many batches that failed.
    pub fn failed(&self, batches: usize) {
        self.refused.inc_by(batches as u64);
    }
}
