//! Losses on their way to become Loss events.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use sekimori_proto::v1::{Event, Kind, Loss, Verdict};

use crate::limits;

/// Reason of a loss through damaged files.
pub(super) const DAMAGED: &str = "spool damaged on disk";
/// The same, when the number of events that were there cannot be known.
pub(super) const DAMAGED_UNKNOWN: &str = "spool damaged on disk, number of events unknown";

/// Events that could not be kept, summed by where, what and why.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpoolLoss {
    /// Where it happened, as the Loss event says it.
    pub stage: String,
    /// Kind of the lost events, a number of `sekimori.v1.Kind`; 0 when unknown.
    pub kind: i32,
    /// Why, for people.
    pub reason: String,
    /// How many. 0 together with a reason when the number cannot be known.
    pub count: u64,
}

impl SpoolLoss {
    /// The record of this loss.
    #[must_use]
    pub fn event(&self, time_ns: i64) -> Event {
        let Self { stage, kind, reason, count } = self.clone();
        Event {
            time_ns,
            kind: Kind::Loss.into(),
            verdict: Verdict::Allowed.into(),
            lane: super::Lane::Alerts.number(),
            loss: Some(Loss { stage, kind, count, reason }),
            ..Event::default()
        }
    }
}

/// Files that stand for a loss until its event is on disk.
#[derive(Debug)]
pub(super) enum Stand {
    /// Goes away.
    Remove(PathBuf),
    /// Stays for a person to look at, under its second name.
    Rename(PathBuf, PathBuf),
}

impl Stand {
    fn release(&self) {
        let (result, path) = match self {
            Self::Remove(path) => (fs::remove_file(path), path),
            Self::Rename(from, to) => (fs::rename(from, to), from),
        };
        if let Err(error) = result {
            tracing::warn!(path = %path.display(), %error, "a loss may be recorded twice");
        }
    }
}

type Key = (String, i32, String);

/// Sums of losses, and the files that stand for them.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    sums: BTreeMap<Key, u64>,
    stands: Vec<Stand>,
    /// Of losses whose events are appended but not flushed.
    recorded: Vec<Stand>,
}

impl Ledger {
    /// Adds one loss. Beyond [`limits::LOSS_SUMS_MAX`] different ones the reasons are merged.
    pub fn add(&mut self, loss: SpoolLoss) {
        let mut key = (loss.stage, loss.kind, loss.reason);
        if self.sums.len() >= limits::LOSS_SUMS_MAX && !self.sums.contains_key(&key) {
            key = ("spool".into(), 0, "several losses".into());
        }
        let sum = self.sums.entry(key).or_default();
        *sum = sum.saturating_add(loss.count);
    }

    /// Adds losses of the spool itself.
    pub fn add_spool(&mut self, kind: i32, count: u64, reason: impl Into<String>) {
        self.add(SpoolLoss { stage: "spool".into(), kind, reason: reason.into(), count });
    }

    /// Keeps a file until what has been added so far is recorded.
    pub fn stand(&mut self, stand: Stand) {
        self.stands.push(stand);
    }

    /// What waits, without taking it.
    pub fn waiting(&self) -> Vec<SpoolLoss> {
        let loss = |((stage, kind, reason), count): (&Key, &u64)| SpoolLoss {
            stage: stage.clone(),
            kind: *kind,
            reason: reason.clone(),
            count: *count,
        };
        self.sums.iter().map(loss).collect()
    }

    /// Takes what waits, to be appended as events. Their files still stand.
    pub fn take(&mut self) -> Vec<SpoolLoss> {
        let losses = self.waiting();
        self.sums.clear();
        losses
    }

    /// Everything taken is appended.
    pub fn appended(&mut self) {
        self.recorded.append(&mut self.stands);
    }

    /// The events of everything appended are written.
    pub fn written(&mut self) {
        for stand in self.recorded.drain(..) {
            stand.release();
        }
    }

    /// Writing those events failed; the files stay. The sums come back one by one with the events
    /// that could not be written.
    pub fn failed(&mut self) {
        self.stands.append(&mut self.recorded);
    }
}
