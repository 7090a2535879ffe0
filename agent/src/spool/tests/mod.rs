//! The spool against a model, damage and full disks.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod basics;
mod damage;
mod full;
mod model;
mod signing;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use prost::Message as _;
use sekimori_proto::v1::{Event, Kind};

use super::*;

/// Small segments, so that few events reach every bound.
const SMALL: SpoolConfig =
    SpoolConfig { telemetry_bytes_max: 8192, alert_bytes_max: 8192, segment_bytes_max: 1024 };

fn open(directory: &Path, config: SpoolConfig) -> (Spool, RecoveryReport) {
    // A child of another test holds this process's locks for a moment, until its exec.
    for _ in 0..1000 {
        match Spool::open(directory, config) {
            Err(SpoolError::Locked { .. }) => std::thread::sleep(Duration::from_millis(5)),
            result => return result.unwrap(),
        }
    }
    panic!("the spool stays locked");
}

/// An event of a kind whose message makes it `size` bytes or so longer.
fn event(kind: Kind, time_ns: i64, size: usize) -> Event {
    Event { kind: kind.into(), time_ns, message: "関".repeat(size / 3), ..Event::default() }
}

/// Everything the reader still gives out, with what the agent knew at `append`.
fn read_all(spool: &mut Spool, reader: &mut Reader) -> Vec<(Batch, Vec<Event>)> {
    let mut all = Vec::new();
    while let Some(batch) = reader.next_batch(spool) {
        let events = batch.entries.iter().map(|entry| batch.event(entry).unwrap()).collect();
        all.push((batch, events));
    }
    all
}

fn sequences(batches: &[(Batch, Vec<Event>)], lane: Lane) -> Vec<u64> {
    let lane = batches.iter().filter(|(batch, _)| batch.lane == lane);
    lane.flat_map(|(_, events)| events.iter().map(|event| event.sequence)).collect()
}

/// Counts by kind that wait to be recorded.
fn losses(spool: &Spool) -> BTreeMap<i32, u64> {
    let mut sums = BTreeMap::new();
    for loss in spool.waiting_losses() {
        *sums.entry(loss.kind).or_default() += loss.count;
    }
    sums.retain(|_, count| *count > 0);
    sums
}

fn files(directory: &Path, part: &str) -> Vec<PathBuf> {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<PathBuf> =
        names.filter(|path| path.to_string_lossy().contains(part)).collect();
    paths.sort();
    paths
}
