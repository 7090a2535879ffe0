//! What was read off the rings and is not recorded yet.

use std::ops::Range;

use sekimori_abi::event::Event;

/// Where a record says when it was made.
const TIME_AT: usize = std::mem::offset_of!(Event, time_ns);

/// Records as they came, one behind the other. Nothing of them is trusted.
#[derive(Debug, Default)]
pub(super) struct Taken {
    bytes: Vec<u8>,
    /// When each was made, as it says itself, and where it is.
    pub records: Vec<(u64, Range<usize>)>,
}

impl Taken {
    pub fn push(&mut self, record: &[u8]) {
        let time = record.get(TIME_AT..).and_then(<[u8]>::first_chunk);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(record);
        let time_ns = time.map_or(0, |time| u64::from_ne_bytes(*time));
        self.records.push((time_ns, start..self.bytes.len()));
    }

    /// Each record, in order of time; those of one time as they came.
    pub fn in_order(&mut self) -> impl Iterator<Item = &[u8]> {
        if !self.records.is_sorted_by_key(|(time_ns, _)| *time_ns) {
            self.records.sort_by_key(|(time_ns, _)| *time_ns);
        }
        self.records.iter().filter_map(|(_, place)| self.bytes.get(place.clone()))
    }

    /// Forgets them and keeps the room.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.records.clear();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use sekimori_abi::event::{kind, operation};

    use super::Taken;
    use crate::decode::sample;

    #[test]
    fn records_come_in_order_of_time_and_those_without_come_first() {
        let made = |time_ns, text: &[u8]| {
            let mut event = sample::event(kind::EXEC, operation::EXEC);
            event.time_ns = time_ns;
            sample::record(event, [b"", b"", text])
        };
        let (late, early, same) = (made(9, b"late"), made(2, b"early"), made(9, b"same time"));
        let mut taken = Taken::default();
        for record in [late.as_slice(), early.as_slice(), same.as_slice(), b"short", b""] {
            taken.push(record);
        }
        let order: Vec<&[u8]> = taken.in_order().collect();
        assert_eq!(order, [&b"short"[..], b"", &early, &late, &same]);
        taken.clear();
        assert_eq!(taken.in_order().count(), 0);
    }
}
