//! Appending and flushing.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use prost::Message as _;
use sekimori_proto::v1::{Event, Loss};

use super::loss::{Ledger, SpoolLoss};
use super::segment::{ENTRY_HEAD_BYTES, HEADER_BYTES, SegmentId, fill_head};
use super::signer::Signer;
use super::{Boot, Lane, Position, SpoolConfig, SpoolError};
use crate::limits;

/// The spool of one running agent. See the module for what it promises.
#[derive(Debug)]
pub struct Spool {
    pub(super) directory: PathBuf,
    pub(super) config: SpoolConfig,
    /// Held for as long as the spool is open.
    pub(super) _lock: File,
    pub(super) epoch: u64,
    pub(super) boot: Boot,
    pub(super) next_sequence: u64,
    pub(super) lanes: [LaneState; 2],
    pub(super) ledger: Ledger,
    pub(super) directory_changed: bool,
    pub(super) dropped: u64,
    pub(super) signer: Option<Signer>,
}

/// One lane.
#[derive(Debug, Default)]
pub(super) struct LaneState {
    /// Oldest first. Only the last can be unsealed.
    pub segments: VecDeque<Segment>,
    /// Sum of the segments' lengths.
    pub bytes: u64,
    /// Appended and not yet written.
    pub pending: VecDeque<Pending>,
    /// Their entries, one behind the other. The heads are filled in when they are written.
    pub buffer: Vec<u8>,
    /// The collector has everything up to here.
    pub acknowledged: Position,
    /// Everything behind this was never handed to a reader.
    pub sent: Position,
}

/// One segment file.
#[derive(Debug)]
pub(super) struct Segment {
    pub id: SegmentId,
    pub path: PathBuf,
    pub file: Arc<File>,
    /// Bytes up to the end of the last whole entry, or of the seal.
    pub length: u64,
    pub last_sequence: u64,
    pub next_ordinal: u32,
    pub sealed: bool,
    /// Written since the last sync.
    pub unsynced: bool,
    /// Bytes whose entries are acknowledged.
    pub acknowledged_bytes: u64,
    pub created: Instant,
    /// Offsets of damage that is already counted.
    pub damage: Vec<u64>,
}

impl Segment {
    pub fn last_position(&self) -> Position {
        self.id.position(self.last_sequence)
    }
}

/// An appended event.
#[derive(Debug)]
pub(super) struct Pending {
    sequence: u64,
    pub kind: i32,
    /// Bytes of the entry, head and payload.
    bytes: usize,
    /// Of a Loss event: if it cannot be written, its sum must not be forgotten.
    pub loss: Option<Box<Loss>>,
}

/// Where a spool stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpoolStats {
    /// Events appended since the start.
    pub appended: u64,
    /// Events dropped since the start because a bound was reached or the disk was full.
    pub dropped: u64,
    /// Bytes on disk of lane 0.
    pub telemetry_bytes: u64,
    /// Bytes on disk of lane 1.
    pub alert_bytes: u64,
    /// Bytes on disk that the collector has not acknowledged.
    pub unacknowledged_bytes: u64,
    /// Segment files.
    pub segments: usize,
}

impl Spool {
    /// The 16 bytes that name this start of the agent.
    #[must_use]
    pub fn boot(&self) -> Boot {
        self.boot
    }

    pub(super) fn lane(&self, lane: Lane) -> &LaneState {
        let [telemetry, alerts] = &self.lanes;
        match lane {
            Lane::Telemetry => telemetry,
            Lane::Alerts => alerts,
        }
    }

    pub(super) fn lane_mut(&mut self, lane: Lane) -> &mut LaneState {
        let [telemetry, alerts] = &mut self.lanes;
        match lane {
            Lane::Telemetry => telemetry,
            Lane::Alerts => alerts,
        }
    }

    /// Numbers an event and keeps it in memory until [`Spool::flush`]. Its own `boot` and
    /// `sequence` are ignored.
    ///
    /// # Errors
    /// The event is too large, or the buffer was full and could not be written. What is lost is
    /// counted and waits for [`Spool::record_losses`]; the caller goes on.
    pub fn append(&mut self, lane: Lane, event: &Event) -> Result<u64, SpoolError> {
        let loss = event.loss.clone().map(Box::new);
        self.append_payload(lane, event.kind, loss, |buffer| event.encode_raw(buffer))
    }

    /// As [`Spool::append`], for an event that is no Loss event; `encode` puts it behind what the
    /// buffer holds.
    ///
    /// # Errors
    /// As [`Spool::append`].
    pub fn append_with(
        &mut self,
        lane: Lane,
        kind: i32,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Result<u64, SpoolError> {
        self.append_payload(lane, kind, None, encode)
    }

    fn append_payload(
        &mut self,
        lane: Lane,
        kind: i32,
        loss: Option<Box<Loss>>,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Result<u64, SpoolError> {
        let limit = limits::EVENT_BYTES_MAX;
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let state = self.lane_mut(lane);
        let start = state.buffer.len();
        state.buffer.extend_from_slice(&[0; ENTRY_HEAD_BYTES]);
        encode(&mut state.buffer);
        let entry_bytes = state.buffer.len().saturating_sub(start);
        let bytes = entry_bytes.saturating_sub(ENTRY_HEAD_BYTES);
        if bytes > limit {
            state.buffer.truncate(start);
            self.dropped += 1;
            self.ledger.add_spool(kind, 1, format!("event larger than {limit} bytes"));
            return Err(SpoolError::TooLarge { bytes, limit });
        }
        state.pending.push_back(Pending { sequence, kind, bytes: entry_bytes, loss });
        self.note(sequence, (lane, kind), start + ENTRY_HEAD_BYTES);
        if self.lane(lane).buffer.len() >= limits::SPOOL_BUFFER_BYTES_MAX {
            self.flush_lane(lane)?;
        }
        Ok(sequence)
    }

    /// Appends a Loss event for every loss that waits, at the time given. Call it before each
    /// [`Spool::flush`]. Returns how many events that were.
    ///
    /// # Errors
    /// As [`Spool::append`]; what could not be appended still waits.
    pub fn record_losses(&mut self, time_ns: i64) -> Result<usize, SpoolError> {
        let losses = self.ledger.take();
        let count = losses.len();
        let mut losses = losses.into_iter();
        while let Some(loss) = losses.next() {
            if let Err(error) = self.append(Lane::Alerts, &loss.event(time_ns)) {
                // The one that failed came back by itself.
                losses.for_each(|loss| self.ledger.add(loss));
                return Err(error);
            }
        }
        self.ledger.appended();
        Ok(count)
    }

    /// Losses that wait for [`Spool::record_losses`].
    #[must_use]
    pub fn waiting_losses(&self) -> Vec<SpoolLoss> {
        self.ledger.waiting()
    }

    /// Adds a loss that happened elsewhere on the way to the collector.
    pub fn note_loss(&mut self, loss: SpoolLoss) {
        self.ledger.add(loss);
    }

    /// Writes what is appended to the kernel: it then survives the agent, not yet the machine.
    ///
    /// # Errors
    /// The first failure. Events that could not be written are counted and wait for
    /// [`Spool::record_losses`]; the caller goes on.
    pub fn flush(&mut self) -> Result<(), SpoolError> {
        let telemetry = self.flush_lane(Lane::Telemetry);
        let alerts = self.flush_lane(Lane::Alerts);
        self.keep_chain();
        telemetry.and(alerts)
    }

    fn flush_lane(&mut self, lane: Lane) -> Result<(), SpoolError> {
        let mut retried = false;
        while !self.lane(lane).pending.is_empty() {
            let before = self.lane(lane).pending.len();
            let result = self.write_some(lane);
            retried &= self.lane(lane).pending.len() == before;
            let Err(error) = result else { continue };
            if retried || (no_space(&error) && !self.free_space(lane)) {
                self.lose_pending(lane, &error);
                return Err(error);
            }
            retried = true;
        }
        if lane == Lane::Alerts {
            self.ledger.written();
        }
        Ok(())
    }

    /// Writes as much of what is pending as fits into the current segment.
    fn write_some(&mut self, lane: Lane) -> Result<(), SpoolError> {
        self.make_room(lane);
        let index = self.active(lane)?;
        let segment_bytes_max = self.config.segment_bytes_max;
        let state = self.lane_mut(lane);
        let Some(segment) = state.segments.get_mut(index) else {
            return Ok(());
        };
        let fits = finish(segment, &state.pending, &mut state.buffer, segment_bytes_max);
        if fits == 0 {
            seal(state, index);
            return Ok(());
        }
        let bytes = state.buffer.get(..fits).unwrap_or_default();
        let (written, result) = write_at(&segment.file, bytes, segment.length);
        segment.unsynced = true;
        let mut kept = 0;
        while let Some(pending) = state.pending.pop_front_if(|it| kept + it.bytes <= written) {
            kept += pending.bytes;
            segment.last_sequence = pending.sequence;
            segment.next_ordinal += 1;
        }
        state.buffer.drain(..kept);
        segment.length += kept as u64;
        state.bytes += kept as u64;
        let path = if result.is_err() { segment.path.clone() } else { PathBuf::new() };
        if result.is_err() {
            self.leave(lane, index);
        }
        result.map_err(SpoolError::storage("write", path))
    }

    /// Ends a segment that could not be written to: the next attempt is made with a new one.
    fn leave(&mut self, lane: Lane, index: usize) {
        let state = self.lane_mut(lane);
        let Some(segment) = state.segments.get(index) else {
            return;
        };
        // Half an entry would be taken for damage.
        let _ = segment.file.set_len(segment.length);
        if segment.length > HEADER_BYTES as u64 {
            seal(state, index);
        } else if let Some(segment) = state.segments.remove(index) {
            state.bytes -= segment.length;
            let _ = fs::remove_file(segment.path);
        }
    }

    /// Index of the segment that is written to, made when there is none.
    fn active(&mut self, lane: Lane) -> Result<usize, SpoolError> {
        let state = self.lane_mut(lane);
        if let Some(index) = state.segments.len().checked_sub(1)
            && let Some(last) = state.segments.get(index)
            && !last.sealed
        {
            let old = last.created.elapsed() > limits::SEGMENT_AGE_MAX;
            if !old || last.length == HEADER_BYTES as u64 {
                return Ok(index);
            }
            seal(state, index);
        }
        let Some(first_sequence) = state.pending.front().map(|pending| pending.sequence) else {
            return Ok(usize::MAX);
        };
        let id = SegmentId { epoch: self.epoch, lane, first_sequence, boot: self.boot };
        let segment = create(&self.directory, id)?;
        self.directory_changed = true;
        self.reap(lane);
        let state = self.lane_mut(lane);
        state.bytes += segment.length;
        state.segments.push_back(segment);
        Ok(state.segments.len() - 1)
    }
}

/// Fills in the heads of the entries that fit into the segment. Answers how many bytes they have.
fn finish(
    segment: &Segment,
    pending: &VecDeque<Pending>,
    buffer: &mut [u8],
    segment_bytes_max: u64,
) -> usize {
    let (crc, mut ordinal, mut fits) = (segment.id.crc_start(), segment.next_ordinal, 0);
    for Pending { sequence, kind, bytes, .. } in pending {
        let empty = segment.length as usize == HEADER_BYTES && fits == 0;
        let size = segment.length + (fits + bytes + ENTRY_HEAD_BYTES) as u64;
        let entry =
            buffer.get_mut(fits..fits + bytes).filter(|_| empty || size <= segment_bytes_max);
        let Some(entry) = entry else { break };
        fill_head(&crc, entry, *sequence, ordinal, *kind);
        ordinal += 1;
        fits += bytes;
    }
    fits
}

/// Ends a segment. Without room for the seal it simply ends.
pub(super) fn seal(state: &mut LaneState, index: usize) {
    let Some(segment) = state.segments.get_mut(index) else {
        return;
    };
    segment.sealed = true;
    let bytes = segment.id.seal(segment.last_sequence + 1, segment.next_ordinal);
    let (_, result) = write_at(&segment.file, &bytes, segment.length);
    if result.is_ok() {
        segment.length += bytes.len() as u64;
        state.bytes += bytes.len() as u64;
        segment.unsynced = true;
    } else {
        let _ = segment.file.set_len(segment.length);
    }
}

/// The disk, or what the agent may use of it, is full.
fn no_space(error: &SpoolError) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    let SpoolError::Storage { source, .. } = error else {
        return false;
    };
    matches!(source.kind(), StorageFull | QuotaExceeded)
}

/// Writes all of `bytes`, or says how many were written before it failed.
pub(super) fn write_at(file: &File, bytes: &[u8], offset: u64) -> (usize, std::io::Result<()>) {
    use std::os::unix::fs::FileExt as _;
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match file.write_at(rest, offset + written as u64) {
            Ok(0) => return (written, Err(std::io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

/// A new segment with nothing but its header.
fn create(directory: &Path, id: SegmentId) -> Result<Segment, SpoolError> {
    let path = directory.join(id.file_name());
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .map_err(SpoolError::storage("create", &path))?;
    let (_, result) = write_at(&file, &id.header(), 0);
    if result.is_err() {
        let _ = fs::remove_file(&path);
    }
    result.map_err(SpoolError::storage("write", &path))?;
    Ok(Segment {
        id,
        path,
        file: Arc::new(file),
        length: HEADER_BYTES as u64,
        last_sequence: id.first_sequence.saturating_sub(1),
        next_ordinal: 0,
        sealed: false,
        unsynced: true,
        acknowledged_bytes: 0,
        created: Instant::now(),
        damage: Vec::new(),
    })
}
