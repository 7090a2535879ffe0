//! The bytes of a segment: names, header, entries, and finding whole entries in damaged bytes.

use super::{Boot, Lane, Position};
use crate::limits;

/// Bytes of a segment's header.
pub(super) const HEADER_BYTES: usize = 52;
/// Bytes of an entry before its payload.
pub(super) const ENTRY_HEAD_BYTES: usize = 24;
/// Kind of the entry that ends a full segment. No event has it.
const SEAL: i32 = -1;
const MAGIC: &[u8; 8] = b"SEKISPL\n";
const VERSION: u32 = 1;
/// A whole entry can follow a damaged stretch of at most this many others.
const DAMAGED_ENTRIES_MAX: u32 = 1 << 24;

/// What names a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentId {
    pub epoch: u64,
    pub lane: Lane,
    pub first_sequence: u64,
    pub boot: Boot,
}

impl SegmentId {
    pub fn file_name(&self) -> String {
        let Self { epoch, lane, first_sequence, boot } = self;
        let (lane, boot) = (lane.number(), u128::from_be_bytes(*boot));
        format!("{epoch:016x}-{lane}-{first_sequence:016x}-{boot:032x}.seg")
    }

    pub fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_suffix(".seg")?.split('-');
        let mut number = |digits: usize| {
            let part = parts.next().filter(|part| part.len() == digits)?;
            u128::from_str_radix(part, 16).ok()
        };
        let epoch = u64::try_from(number(16)?).ok()?;
        let lane = Lane::from_number(u32::try_from(number(1)?).ok()?)?;
        let first_sequence = u64::try_from(number(16)?).ok()?;
        let boot = number(32)?.to_be_bytes();
        let id = Self { epoch, lane, first_sequence, boot };
        (id.file_name() == name).then_some(id)
    }

    pub fn position(&self, sequence: u64) -> Position {
        Position { epoch: self.epoch, sequence }
    }

    /// The header of the segment.
    pub fn header(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut rest = &mut bytes[..];
        let fields: [&[u8]; 6] = [
            MAGIC,
            &VERSION.to_le_bytes(),
            &self.lane.number().to_le_bytes(),
            &self.epoch.to_le_bytes(),
            &self.boot,
            &self.first_sequence.to_le_bytes(),
        ];
        let mut crc = crc32fast::Hasher::new();
        for field in fields {
            crc.update(field);
            put(&mut rest, field);
        }
        put(&mut rest, &crc.finalize().to_le_bytes());
        bytes
    }

    /// Appends one entry to `buffer`.
    pub fn encode(&self, buffer: &mut Vec<u8>, entry: &Entry<'_>) {
        let Entry { sequence, ordinal, kind, payload } = *entry;
        let start = buffer.len();
        buffer.extend_from_slice(&[0; ENTRY_HEAD_BYTES]);
        buffer.extend_from_slice(payload);
        let place = buffer.get_mut(start..).unwrap_or_default();
        fill_head(&self.crc_start(), place, sequence, ordinal, kind);
    }

    /// The seal behind the last entry.
    pub fn seal(&self, sequence: u64, ordinal: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(ENTRY_HEAD_BYTES);
        self.encode(&mut bytes, &Entry { sequence, ordinal, kind: SEAL, payload: &[] });
        bytes
    }

    /// The checksum of an entry begins with what tells its segment from others.
    pub fn crc_start(&self) -> crc32fast::Hasher {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&self.epoch.to_le_bytes());
        crc.update(&self.boot);
        crc.update(&self.lane.number().to_le_bytes());
        crc
    }

    fn crc(&self, length: u32, tail: &[u8], payload: &[u8]) -> u32 {
        let mut crc = self.crc_start();
        crc.update(&length.to_le_bytes());
        crc.update(tail);
        crc.update(payload);
        crc.finalize()
    }

    /// The whole entry at the start of `bytes`, if there is one that can follow `after`.
    /// The second value is the number of bytes that were checksummed.
    fn whole_entry<'a>(&self, bytes: &'a [u8], after: After) -> (Option<Entry<'a>>, u64) {
        let Some(plausible) = plausible_entry(bytes, after) else {
            return (None, 0);
        };
        let (length, crc, tail, entry) = plausible;
        let cost = (ENTRY_HEAD_BYTES + entry.payload.len()) as u64;
        let good = self.crc(length, tail, entry.payload) == crc;
        (good.then_some(entry), cost)
    }

    /// As [`Self::whole_entry`], for a reader that takes one entry after the other.
    pub fn entry_at<'a>(&self, bytes: &'a [u8], after: After) -> Option<Entry<'a>> {
        self.whole_entry(bytes, after).0
    }
}

/// Fills in the head of `entry`, whose payload is there. `crc` is [`SegmentId::crc_start`].
pub(super) fn fill_head(
    crc: &crc32fast::Hasher,
    entry: &mut [u8],
    sequence: u64,
    ordinal: u32,
    kind: i32,
) {
    let payload_bytes = entry.len().saturating_sub(ENTRY_HEAD_BYTES);
    let length = u32::try_from(payload_bytes).unwrap_or(u32::MAX).to_le_bytes();
    let Some((head, behind)) = entry.split_first_chunk_mut::<8>() else {
        return;
    };
    let mut rest = &mut *behind;
    put(&mut rest, &sequence.to_le_bytes());
    put(&mut rest, &ordinal.to_le_bytes());
    put(&mut rest, &kind.to_le_bytes());
    let mut crc = crc.clone();
    crc.update(&length);
    crc.update(behind);
    let mut rest = &mut head[..];
    put(&mut rest, &length);
    put(&mut rest, &crc.finalize().to_le_bytes());
}

/// Splits off the fields of an entry and refuses what cannot follow `after` before any checksum.
fn plausible_entry(bytes: &[u8], after: After) -> Option<(u32, u32, &[u8], Entry<'_>)> {
    let (head, rest) = bytes.split_first_chunk::<ENTRY_HEAD_BYTES>()?;
    let (length, tail) = head.split_first_chunk::<4>()?;
    let (crc, tail) = tail.split_first_chunk::<4>()?;
    let (sequence, numbers) = tail.split_first_chunk::<8>()?;
    let (ordinal, kind) = numbers.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length);
    let sequence = u64::from_le_bytes(*sequence);
    let ordinal = u32::from_le_bytes(*ordinal);
    let kind = i32::from_le_bytes(*kind.first_chunk()?);
    let ahead = ordinal.checked_sub(after.next_ordinal)?;
    if sequence <= after.sequence || ahead > DAMAGED_ENTRIES_MAX {
        return None;
    }
    let size = usize::try_from(length).ok().filter(|size| *size <= limits::EVENT_BYTES_MAX)?;
    let payload = rest.get(..size)?;
    Some((length, u32::from_le_bytes(*crc), tail, Entry { sequence, ordinal, kind, payload }))
}

/// Moves `field` to the front of `rest`, which is as long as all fields together.
fn put(rest: &mut &mut [u8], field: &[u8]) {
    if let Some((place, behind)) = std::mem::take(rest).split_at_mut_checked(field.len()) {
        place.copy_from_slice(field);
        *rest = behind;
    }
}

/// One entry, borrowed from the bytes of its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub sequence: u64,
    pub ordinal: u32,
    pub kind: i32,
    pub payload: &'a [u8],
}

impl Entry<'_> {
    pub fn size(&self) -> usize {
        ENTRY_HEAD_BYTES + self.payload.len()
    }

    pub fn is_seal(&self) -> bool {
        self.kind == SEAL
    }
}

/// What the next entry must come behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct After {
    pub sequence: u64,
    /// Ordinal of the next entry, if nothing is missing.
    pub next_ordinal: u32,
}

impl After {
    /// Before the first entry of a segment.
    pub fn start(id: &SegmentId) -> Self {
        Self { sequence: id.first_sequence.saturating_sub(1), next_ordinal: 0 }
    }

    /// Behind `entry`.
    pub fn entry(entry: &Entry<'_>) -> Self {
        Self { sequence: entry.sequence, next_ordinal: entry.ordinal.saturating_add(1) }
    }
}

/// What stands in a segment, piece by piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Entry(Entry<'a>),
    /// The seal of a full segment.
    Seal,
    /// Bytes that are no entry, and how many entries they held. Unknown only at the end.
    Damage {
        bytes: u64,
        entries: Option<u64>,
    },
}

/// Walks the entries of a segment and finds its way behind damaged stretches. It ends at the end
/// of the bytes, always advances, and checksums at most [`limits::RESYNC_BYTES_MAX`] in the search.
pub(super) struct Scan<'a> {
    id: &'a SegmentId,
    bytes: &'a [u8],
    offset: usize,
    after: After,
    budget: u64,
}

impl<'a> Scan<'a> {
    /// Scans from `offset` of `bytes`.
    pub fn new(id: &'a SegmentId, bytes: &'a [u8], offset: usize, after: After) -> Self {
        Self { id, bytes, offset, after, budget: limits::RESYNC_BYTES_MAX }
    }

    /// Scans a whole segment, header included. A damaged header is the first piece of damage.
    pub fn segment(id: &'a SegmentId, bytes: &'a [u8]) -> Self {
        let offset = if bytes.starts_with(&id.header()) { HEADER_BYTES } else { 0 };
        Self::new(id, bytes, offset, After::start(id))
    }

    /// Where the next piece begins.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// What the next entry must come behind.
    pub fn after(&self) -> After {
        self.after
    }

    fn rest(&self, offset: usize) -> &'a [u8] {
        self.bytes.get(offset..).unwrap_or_default()
    }

    /// The first whole entry behind the current place.
    fn resync(&mut self) -> Option<(usize, Entry<'a>)> {
        for offset in self.offset + 1..self.bytes.len() {
            let (entry, cost) = self.id.whole_entry(self.rest(offset), self.after);
            if let Some(entry) = entry {
                return Some((offset, entry));
            }
            self.budget = self.budget.checked_sub(cost)?;
        }
        None
    }
}

impl<'a> Iterator for Scan<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        let rest = self.rest(self.offset);
        if rest.is_empty() {
            return None;
        }
        if let Some(entry) = self.id.entry_at(rest, self.after) {
            let missing = missing_before(self.after, &entry);
            if missing == 0 {
                self.offset += entry.size();
                self.after = After::entry(&entry);
                return Some(if entry.is_seal() { Piece::Seal } else { Piece::Entry(entry) });
            }
            // Whole bytes were cut out of the file: the numbers say what is missing.
            self.after.next_ordinal = entry.ordinal;
            return Some(Piece::Damage { bytes: 0, entries: Some(missing) });
        }
        let start = self.offset;
        let Some((offset, entry)) = self.resync() else {
            self.offset = self.bytes.len();
            let bytes = (self.offset - start) as u64;
            return Some(Piece::Damage { bytes, entries: None });
        };
        let entries = Some(missing_before(self.after, &entry));
        self.offset = offset;
        self.after.next_ordinal = entry.ordinal;
        Some(Piece::Damage { bytes: (offset - start) as u64, entries })
    }
}

/// Entries between `after` and `entry` that are not there.
fn missing_before(after: After, entry: &Entry<'_>) -> u64 {
    u64::from(entry.ordinal.saturating_sub(after.next_ordinal))
}
