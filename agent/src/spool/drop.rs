//! What happens when a lane is at its bound or the disk takes no more.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use sekimori_proto::v1::{Kind, Loss};

use super::assess::{Assessment, assess};
use super::loss::{SpoolLoss, Stand};
use super::segment::{ENTRY_HEAD_BYTES, HEADER_BYTES};
use super::store::{Segment, Spool, seal};
use super::{Lane, SpoolError};

/// Kinds that a tombstone's name has room for; the others are counted as unknown.
const TOMBSTONE_KINDS_MAX: usize = 12;
const TOMBSTONE_PREFIX: &str = "dropped-";

impl Spool {
    /// Drops old segments until the lane's bound leaves room for a new piece of a segment.
    pub(super) fn make_room(&mut self, lane: Lane) {
        let reserve = (2 * ENTRY_HEAD_BYTES + HEADER_BYTES) as u64;
        let bound = self.config.lane_bytes_max(lane);
        loop {
            let state = self.lane(lane);
            let wanted = (state.buffer.len() as u64).min(self.config.segment_bytes_max);
            let over = state.bytes + wanted + reserve > bound;
            if !over || !self.drop_oldest(lane, "spool full: the oldest events were dropped") {
                return;
            }
        }
    }

    /// After a failed write: gives the disk room at the cost of the oldest telemetry.
    pub(super) fn free_space(&mut self, lane: Lane) -> bool {
        let reason = "disk full or failing: the oldest events were dropped";
        if self.drop_oldest(Lane::Telemetry, reason) {
            return true;
        }
        let state = self.lane_mut(Lane::Telemetry);
        let Some(index) = state.segments.len().checked_sub(1) else {
            return false;
        };
        if lane == Lane::Telemetry {
            return false;
        }
        // A denial is worth more than the telemetry that is being written.
        seal(state, index);
        self.drop_oldest(Lane::Telemetry, reason)
    }

    pub(super) fn lose_pending(&mut self, lane: Lane, error: &SpoolError) {
        let state = self.lane_mut(lane);
        state.buffer.clear();
        let lost = std::mem::take(&mut state.pending);
        if lane == Lane::Alerts {
            self.ledger.failed();
        }
        let reason = match error {
            SpoolError::Storage { source, .. } => format!("spool not writable: {}", source.kind()),
            _ => "spool not writable".into(),
        };
        for pending in lost {
            match pending.loss.map(|loss| *loss) {
                Some(Loss { stage, kind, count, reason }) => {
                    self.ledger.add(SpoolLoss { stage, kind, reason, count });
                }
                None => {
                    self.dropped += 1;
                    self.ledger.add_spool(pending.kind, 1, reason.clone());
                }
            }
        }
    }

    /// Drops the oldest sealed segment, if possible one of which nothing was sent yet.
    fn drop_oldest(&mut self, lane: Lane, reason: &str) -> bool {
        let state = self.lane(lane);
        let unsent =
            |segment: &Segment| segment.id.position(segment.id.first_sequence) > state.sent;
        let sealed = |segment: &&Segment| segment.sealed;
        let Some(index) = state
            .segments
            .iter()
            .position(|segment| segment.sealed && unsent(segment))
            .or_else(|| state.segments.front().filter(sealed).map(|_| 0))
        else {
            return false;
        };
        self.drop_segment(lane, index, reason);
        true
    }

    fn drop_segment(&mut self, lane: Lane, index: usize, reason: &str) {
        let state = self.lane_mut(lane);
        let acknowledged = state.acknowledged;
        let Some(segment) = state.segments.remove(index) else {
            return;
        };
        state.bytes -= segment.length;
        self.directory_changed = true;
        let found = match segment.read(0, u64::MAX) {
            Ok(bytes) => assess(&segment.id, &bytes, acknowledged),
            Err(error) => {
                self.ledger.add_spool(0, 0, format!("{reason}; unreadable: {}", error.kind()));
                Assessment::default()
            }
        };
        for damage in &found.damage {
            if !segment.damage.contains(&damage.offset) {
                damage.count(&mut self.ledger);
            }
        }
        for (kind, count) in &found.counts {
            self.dropped += count;
            // What a Loss event says is kept, not that there was one.
            if *kind != i32::from(Kind::Loss) {
                self.ledger.add_spool(*kind, *count, reason);
            }
        }
        for Loss { stage, kind, count, reason } in found.losses {
            self.ledger.add(SpoolLoss { stage, kind, reason, count });
        }
        if let Some(tombstone) = bury(&self.directory, &segment, &found.counts) {
            self.ledger.stand(Stand::Remove(tombstone));
        }
    }
}

/// Gives a segment's bytes back to the disk and leaves an empty file whose name says what was in
/// it. This way no room is needed on a full disk, and a crash forgets nothing.
fn bury(directory: &Path, segment: &Segment, counts: &BTreeMap<i32, u64>) -> Option<PathBuf> {
    let counts = tombstone_counts(counts);
    if counts.is_empty() {
        remove(&segment.path);
        return None;
    }
    let id = segment.id;
    let (epoch, lane, first) = (id.epoch, id.lane.number(), id.first_sequence);
    let name = format!("{TOMBSTONE_PREFIX}{epoch:016x}-{lane}-{first:016x}{counts}");
    let tombstone = directory.join(name);
    if let Err(error) = fs::rename(&segment.path, &tombstone) {
        let path = segment.path.display();
        tracing::warn!(%path, %error, "a dropped spool segment cannot be renamed");
        remove(&segment.path);
        return None;
    }
    if let Err(error) = segment.file.set_len(0) {
        let path = tombstone.display();
        tracing::warn!(%path, %error, "a dropped spool segment cannot be emptied");
    }
    Some(tombstone)
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::warn!(path = %path.display(), %error, "a dropped spool segment cannot be removed");
    }
}

fn tombstone_counts(counts: &BTreeMap<i32, u64>) -> String {
    let mut named: BTreeMap<i32, u64> = BTreeMap::new();
    for (kind, count) in counts {
        let known = named.len() < TOMBSTONE_KINDS_MAX && *kind >= 0;
        *named.entry(if known { *kind } else { 0 }).or_default() += count;
    }
    named.iter().map(|(kind, count)| format!("-{kind}x{count}")).collect()
}

/// The counts by kind out of a tombstone's name; none when it is no tombstone.
pub(super) fn parse_tombstone(name: &str) -> Option<Vec<(i32, u64)>> {
    let mut parts = name.strip_prefix(TOMBSTONE_PREFIX)?.split('-').skip(3);
    let count = |part: &str| {
        let (kind, count) = part.split_once('x')?;
        Some((kind.parse().ok()?, count.parse().ok()?))
    };
    parts.by_ref().map(count).collect()
}
