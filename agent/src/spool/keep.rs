//! Acknowledging, syncing and closing.

use std::fs::{self, File};
use std::sync::Arc;

use super::cursor;
use super::loss::{DAMAGED, DAMAGED_UNKNOWN};
use super::read::BatchEnd;
use super::segment::HEADER_BYTES;
use super::store::{Spool, SpoolStats};
use super::{Lane, Position, SpoolError};

impl Spool {
    /// Everything up to the end of this batch is stored by the collector. Deletes what is not
    /// needed any more.
    ///
    /// # Errors
    /// The position could not be written down. It counts all the same until the agent stops.
    pub fn acknowledge(&mut self, end: BatchEnd) -> Result<(), SpoolError> {
        let BatchEnd { lane, position, offset } = end;
        let state = self.lane_mut(lane);
        if position <= state.acknowledged {
            return Ok(());
        }
        state.acknowledged = position;
        for segment in &mut state.segments {
            let first = segment.id.position(segment.id.first_sequence);
            if segment.last_position() <= position {
                segment.acknowledged_bytes = segment.length;
            } else if first <= position {
                segment.acknowledged_bytes = offset.min(segment.length);
            }
        }
        let result = cursor::write_acknowledged(&self.directory, lane, position);
        self.reap(lane);
        result
    }

    /// Deletes sealed segments whose entries are all acknowledged.
    pub(super) fn reap(&mut self, lane: Lane) {
        let state = self.lane_mut(lane);
        let acknowledged = state.acknowledged;
        let mut gone = 0;
        state.segments.retain(|segment| {
            let done = segment.sealed && segment.last_position() <= acknowledged;
            if done {
                gone += segment.length;
                if let Err(error) = fs::remove_file(&segment.path) {
                    let path = segment.path.display();
                    tracing::warn!(%path, %error, "a spool segment cannot be removed");
                }
            }
            !done
        });
        state.bytes -= gone;
        self.directory_changed |= gone > 0;
    }

    /// Counts damage once that came to light while reading.
    pub(super) fn note_damage(
        &mut self,
        lane: Lane,
        index: usize,
        offset: u64,
        entries: Option<u64>,
    ) {
        let Some(segment) = self.lane_mut(lane).segments.get_mut(index) else {
            return;
        };
        if segment.damage.contains(&offset) {
            return;
        }
        segment.damage.push(offset);
        let (count, reason) = match entries {
            Some(count) => (count, DAMAGED),
            None => (0, DAMAGED_UNKNOWN),
        };
        self.ledger.add_spool(0, count, reason);
    }

    /// Files to be synced for everything flushed so far to survive the machine. To be synced
    /// without a lock on the spool: it takes long.
    pub(super) fn take_unsynced(&mut self) -> Vec<Arc<File>> {
        let mut files = Vec::new();
        for segment in self.lanes.iter_mut().flat_map(|lane| &mut lane.segments) {
            if std::mem::take(&mut segment.unsynced) {
                files.push(Arc::clone(&segment.file));
            }
        }
        files.extend(self.unsynced_chain());
        if std::mem::take(&mut self.directory_changed)
            && let Ok(directory) = File::open(&self.directory)
        {
            files.push(Arc::new(directory));
        }
        files
    }

    /// Makes everything flushed so far survive the machine.
    ///
    /// # Errors
    /// What the system said.
    pub fn sync(&mut self) -> Result<(), SpoolError> {
        for file in self.take_unsynced() {
            file.sync_data().map_err(SpoolError::storage("sync", &self.directory))?;
        }
        Ok(())
    }

    /// Flushes, syncs and marks an orderly stop.
    ///
    /// # Errors
    /// What the system said; the next start then reports a gap.
    pub fn close(mut self) -> Result<(), SpoolError> {
        self.flush()?;
        self.sync()?;
        let sequence = self.next_sequence - 1;
        cursor::write_clean(&self.directory, Position { epoch: self.epoch, sequence })
    }

    /// Where the spool stands.
    #[must_use]
    pub fn stats(&self) -> SpoolStats {
        let mut stats = SpoolStats {
            appended: self.next_sequence - 1,
            dropped: self.dropped,
            telemetry_bytes: self.lane(Lane::Telemetry).bytes,
            alert_bytes: self.lane(Lane::Alerts).bytes,
            ..SpoolStats::default()
        };
        for segment in self.lanes.iter().flat_map(|lane| &lane.segments) {
            stats.segments += 1;
            let done = segment.acknowledged_bytes.max(HEADER_BYTES as u64);
            let last = self.lane(segment.id.lane).acknowledged >= segment.last_position();
            if !last {
                stats.unacknowledged_bytes += segment.length.saturating_sub(done);
            }
        }
        stats
    }
}
