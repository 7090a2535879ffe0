//! What a segment holds and what is missing from it.

use std::collections::BTreeMap;

use prost::Message as _;
use sekimori_proto::v1::{Event, Kind, Loss};

use super::Position;
use super::loss::{DAMAGED, DAMAGED_UNKNOWN, Ledger};
use super::segment::{Entry, HEADER_BYTES, Piece, Scan, SegmentId};

/// A stretch of bytes that are no entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Damage {
    pub offset: u64,
    pub bytes: u64,
    /// Entries that were there; unknown at the end of a segment without seal.
    pub entries: Option<u64>,
}

impl Damage {
    /// Adds it to the losses, unless nothing was lost by it.
    pub fn count(&self, ledger: &mut Ledger) {
        match self.entries {
            Some(0) => {}
            Some(count) => ledger.add_spool(0, count, DAMAGED),
            None => ledger.add_spool(0, 0, DAMAGED_UNKNOWN),
        }
    }
}

/// The result of reading a whole segment.
#[derive(Debug, Default)]
pub(super) struct Assessment {
    /// Whole entries that are not acknowledged, by kind.
    pub counts: BTreeMap<i32, u64>,
    /// What the Loss events among them say.
    pub losses: Vec<Loss>,
    /// Damage behind the last acknowledged entry.
    pub damage: Vec<Damage>,
    /// Bytes anywhere in the segment are no entry, or entries are missing.
    pub damaged: bool,
    /// The last whole entry and the time it carries.
    pub last: Option<(u64, Option<i64>)>,
    /// Ordinal behind the last whole entry.
    pub next_ordinal: u32,
    /// End of the last acknowledged entry.
    pub acknowledged_bytes: u64,
    /// End of the last whole entry or seal.
    pub good_bytes: u64,
    pub sealed: bool,
}

/// Reads a whole segment, of which everything up to `acknowledged` is not needed any more.
pub(super) fn assess(id: &SegmentId, bytes: &[u8], acknowledged: Position) -> Assessment {
    let mut found = Assessment::default();
    let mut scan = Scan::segment(id, bytes);
    found.good_bytes = scan.offset() as u64;
    found.acknowledged_bytes = HEADER_BYTES as u64;
    let mut last = None;
    loop {
        let offset = scan.offset() as u64;
        let Some(piece) = scan.next() else { break };
        match piece {
            Piece::Seal => found.sealed = true,
            Piece::Damage { bytes, entries } => {
                found.damaged = true;
                found.damage.push(Damage { offset, bytes, entries });
                continue;
            }
            Piece::Entry(entry) => {
                last = Some(entry);
                take(&mut found, id, &entry, acknowledged, scan.offset());
            }
        }
        found.good_bytes = scan.offset() as u64;
    }
    found.next_ordinal = scan.after().next_ordinal;
    found.last = last.map(|entry| {
        let time_ns = Event::decode(entry.payload).ok().map(|event| event.time_ns);
        (entry.sequence, time_ns)
    });
    found
}

fn take(
    found: &mut Assessment,
    id: &SegmentId,
    entry: &Entry<'_>,
    acknowledged: Position,
    end: usize,
) {
    if id.position(entry.sequence) <= acknowledged {
        found.acknowledged_bytes = end as u64;
        found.damage.clear();
        return;
    }
    *found.counts.entry(entry.kind).or_default() += 1;
    if entry.kind == i32::from(Kind::Loss)
        && let Ok(Event { loss: Some(loss), .. }) = Event::decode(entry.payload)
    {
        found.losses.push(loss);
    }
}
