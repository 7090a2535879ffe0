//! Reading what is to be sent.

use std::os::unix::fs::FileExt as _;

use prost::Message as _;
use sekimori_proto::v1::Event;

use super::segment::{After, ENTRY_HEAD_BYTES, HEADER_BYTES, Piece, Scan};
use super::store::{Segment, Spool};
use super::{Boot, Lane, Position};
use crate::limits;

/// Bytes read at once: a full batch and the entry that did not fit any more.
const WINDOW_BYTES: usize =
    limits::BATCH_BYTES_MAX + 2 * (limits::EVENT_BYTES_MAX + ENTRY_HEAD_BYTES);

/// Events of one lane and one boot, in the order of their sequences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Where they come from.
    pub lane: Lane,
    /// The start of the agent that made them.
    pub boot: Boot,
    /// The events.
    pub entries: Vec<BatchEntry>,
    /// To be handed to [`Spool::acknowledge`] once all of them are stored.
    pub end: BatchEnd,
}

/// One event as it was spooled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchEntry {
    /// Number within the boot.
    pub sequence: u64,
    /// A number of `sekimori.v1.Kind`.
    pub kind: i32,
    /// Encoded `Event` without boot and sequence.
    pub payload: Vec<u8>,
}

/// The end of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchEnd {
    /// Lane of the batch.
    pub lane: Lane,
    /// The last event.
    pub position: Position,
    /// Bytes of its segment up to and including it.
    pub(super) offset: u64,
}

impl Batch {
    /// Bytes of the payloads.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        self.entries.iter().map(|entry| entry.payload.len()).sum()
    }

    /// The event as it is sent, with boot, sequence and lane.
    ///
    /// # Errors
    /// The payload is no `Event` of this version.
    pub fn event(&self, entry: &BatchEntry) -> Result<Event, prost::DecodeError> {
        let mut event = Event::decode(entry.payload.as_slice())?;
        event.boot = self.boot.to_vec();
        event.sequence = entry.sequence;
        event.lane = self.lane.number();
        Ok(event)
    }
}

/// Where the next batch of one lane begins.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    /// Everything up to here has been handed out.
    done: Position,
    /// The segment that was being read, by its epoch and first sequence, and how far.
    open: Option<(Position, u64, After)>,
}

/// Hands out batches from the acknowledged position on, lane 1 first, without starving lane 0.
/// One reader per spool; after a broken connection [`Reader::rewind`] begins again.
#[derive(Debug)]
pub struct Reader {
    places: [Place; 2],
    alert_batches_in_row: u32,
    events_max: usize,
}

impl Default for Reader {
    fn default() -> Self {
        let events_max = limits::BATCH_EVENTS_MAX;
        Self { places: Default::default(), alert_batches_in_row: 0, events_max }
    }
}

impl Reader {
    /// A reader at the acknowledged position.
    #[must_use]
    pub fn new(spool: &Spool) -> Self {
        let mut reader = Self::default();
        reader.rewind(spool);
        reader
    }

    /// Makes the batches that follow smaller: 1 to [`limits::BATCH_EVENTS_MAX`] events.
    pub fn set_events_max(&mut self, events_max: usize) {
        self.events_max = events_max.clamp(1, limits::BATCH_EVENTS_MAX);
    }

    /// Goes back to the acknowledged position.
    pub fn rewind(&mut self, spool: &Spool) {
        self.alert_batches_in_row = 0;
        for lane in Lane::ALL {
            let done = spool.lane(lane).acknowledged;
            *self.place(lane) = Place { done, open: None };
        }
    }

    /// The next batch, or nothing when all that is flushed has been handed out.
    pub fn next_batch(&mut self, spool: &mut Spool) -> Option<Batch> {
        let telemetry_turn = self.alert_batches_in_row >= limits::ALERT_BATCHES_IN_ROW_MAX;
        let mut order = [Lane::Alerts, Lane::Telemetry];
        if telemetry_turn {
            order.reverse();
        }
        for lane in order {
            if let Some(batch) = self.next_of_lane(spool, lane) {
                self.alert_batches_in_row = match lane {
                    Lane::Alerts => self.alert_batches_in_row.saturating_add(1),
                    Lane::Telemetry => 0,
                };
                return Some(batch);
            }
        }
        None
    }

    fn place(&mut self, lane: Lane) -> &mut Place {
        let [telemetry, alerts] = &mut self.places;
        match lane {
            Lane::Telemetry => telemetry,
            Lane::Alerts => alerts,
        }
    }

    fn next_of_lane(&mut self, spool: &mut Spool, lane: Lane) -> Option<Batch> {
        let events_max = self.events_max;
        let place = self.place(lane);
        // An acknowledgement can overtake a reader that was rewound.
        place.done = place.done.max(spool.lane(lane).acknowledged);
        loop {
            let index = spool
                .lane(lane)
                .segments
                .iter()
                .position(|segment| segment.last_position() > place.done)?;
            if let Some(batch) = read_segment(spool, (lane, index), place, events_max) {
                place.done = batch.end.position;
                let sent = &mut spool.lane_mut(lane).sent;
                *sent = (*sent).max(batch.end.position);
                return Some(batch);
            }
            // Nothing readable is left in it.
            let segment = spool.lane(lane).segments.get(index)?;
            place.done = place.done.max(segment.last_position());
            place.open = None;
        }
    }
}

/// The next entries of one segment behind `place`; none when nothing readable is left in it.
fn read_segment(
    spool: &mut Spool,
    (lane, index): (Lane, usize),
    place: &mut Place,
    events_max: usize,
) -> Option<Batch> {
    let segment = spool.lane(lane).segments.get(index)?;
    let name = segment.id.position(segment.id.first_sequence);
    let (mut offset, mut after) = match place.open {
        Some((open, offset, after)) if open == name => (offset, after),
        _ => begin(segment),
    };
    loop {
        let segment = spool.lane(lane).segments.get(index)?;
        let window = match segment.read(offset, WINDOW_BYTES as u64) {
            Ok(window) => window,
            Err(error) => {
                let path = segment.path.clone();
                tracing::warn!(path = %path.display(), offset, %error, "a segment is unreadable");
                spool.note_damage(lane, index, offset, None);
                return None;
            }
        };
        if window.is_empty() {
            return None;
        }
        let (entries, consumed, last) =
            take_entries(segment, &window, (after, place.done), events_max);
        after = last;
        offset += consumed as u64;
        place.open = Some((name, offset, after));
        if !entries.is_empty() {
            let position = segment.id.position(after.sequence);
            let end = BatchEnd { lane, position, offset };
            return Some(Batch { lane, boot: segment.id.boot, entries, end });
        }
        if consumed == 0 {
            // Here the bytes changed after the segment was checked at start.
            let damage = step_over_damage(segment, offset, after);
            spool.note_damage(lane, index, offset, damage.and_then(|(_, _, entries)| entries));
            (offset, after) = damage.map(|(behind, next, _)| (behind, next))?;
            place.open = Some((name, offset, after));
        }
    }
}

/// The start of a segment: its first entry, whatever has become of the header.
fn begin(segment: &Segment) -> (u64, After) {
    (HEADER_BYTES as u64, After::start(&segment.id))
}

/// Whole entries at the start of `window`, up to the bounds of a batch, without those that are
/// done. Also the bytes that were consumed and the place behind them.
fn take_entries(
    segment: &Segment,
    window: &[u8],
    (mut after, done): (After, Position),
    events_max: usize,
) -> (Vec<BatchEntry>, usize, After) {
    let (mut entries, mut consumed, mut bytes) = (Vec::new(), 0, 0);
    while let Some(entry) = segment.id.entry_at(window.get(consumed..).unwrap_or_default(), after) {
        if after.next_ordinal != entry.ordinal {
            break;
        }
        bytes += entry.payload.len();
        let full = entries.len() >= events_max || bytes > limits::BATCH_BYTES_MAX;
        if full && !entries.is_empty() {
            break;
        }
        consumed += entry.size();
        if entry.is_seal() {
            break;
        }
        after = After::entry(&entry);
        if segment.id.position(entry.sequence) > done {
            let (sequence, kind) = (entry.sequence, entry.kind);
            entries.push(BatchEntry { sequence, kind, payload: entry.payload.to_vec() });
        } else {
            bytes = 0;
        }
    }
    (entries, consumed, after)
}

/// Where the next whole entry behind a damaged place begins, and how many are missing. None when
/// the rest of the segment cannot be read.
fn step_over_damage(
    segment: &Segment,
    offset: u64,
    after: After,
) -> Option<(u64, After, Option<u64>)> {
    let rest = segment.read(offset, u64::MAX).ok()?;
    let mut scan = Scan::new(&segment.id, &rest, 0, after);
    match scan.next()? {
        Piece::Damage { entries, .. } => {
            Some((offset + scan.offset() as u64, scan.after(), entries))
        }
        // The disk gives different bytes each time: nothing of it can be trusted.
        Piece::Entry(_) | Piece::Seal => None,
    }
}

impl Segment {
    /// Bytes of the segment from `offset` on, at most `limit`, never behind what is flushed.
    pub(super) fn read(&self, offset: u64, limit: u64) -> std::io::Result<Vec<u8>> {
        let size = self.length.saturating_sub(offset).min(limit);
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }
}
