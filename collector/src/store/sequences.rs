//! Which events are stored: the numbers of each agent boot, as ranges.
//!
//! An agent numbers its events without gaps, so that a boot is one range most of the time, however
//! many events it has.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use rangemap::RangeInclusiveSet;

use super::entry::{Boot, Entry};

/// A host and one boot of its agent.
pub type Origin = (Arc<str>, Boot);

/// What is stored, with what was added since the last commit.
#[derive(Debug, Default)]
pub struct Sequences {
    known: HashMap<Origin, RangeInclusiveSet<u64>>,
    /// Added and not committed.
    added: HashMap<Origin, RangeInclusiveSet<u64>>,
}

impl Sequences {
    /// Takes what a store holds.
    pub fn restore(
        &mut self,
        origin: Origin,
        ranges: impl IntoIterator<Item = RangeInclusive<u64>>,
    ) {
        self.known.entry(origin).or_default().extend(ranges);
    }

    /// Keeps those events of a host that are not there yet, in their order, and adds them.
    pub fn keep_new(&mut self, host: &Arc<str>, entries: Vec<Entry>) -> Vec<Entry> {
        let mut new = Vec::with_capacity(entries.len());
        let mut entries = entries.into_iter().peekable();
        while let Some(first) = entries.next() {
            let origin = (Arc::clone(host), first.boot);
            let known = self.known.entry(origin.clone()).or_default();
            let added = self.added.entry(origin).or_default();
            // Most come one after the other, and none of them was here.
            let (start, mut end, kept) = (first.sequence, first.sequence, new.len());
            let (boot, mut one) = (first.boot, Some(first));
            while let Some(entry) = one.take() {
                end = entry.sequence;
                new.push(entry);
                let follows =
                    |next: &Entry| next.boot == boot && next.sequence.checked_sub(1) == Some(end);
                one = entries.next_if(follows);
            }
            if known.overlaps(&(start..=end)) {
                let mut some = new.split_off(kept);
                some.retain(|entry| !known.contains(&entry.sequence));
                for entry in &some {
                    known.insert(entry.sequence..=entry.sequence);
                    added.insert(entry.sequence..=entry.sequence);
                }
                new.append(&mut some);
            } else {
                known.insert(start..=end);
                added.insert(start..=end);
            }
        }
        new
    }

    /// The boots that something was added to, with all that is stored of each.
    pub fn changed(&self) -> impl Iterator<Item = (&Origin, Vec<u8>)> {
        self.added.keys().filter_map(|origin| Some((origin, to_bytes(self.known.get(origin)?))))
    }

    /// Every boot.
    pub fn all(&self) -> impl Iterator<Item = (&Origin, Vec<u8>)> {
        self.known.iter().map(|(origin, ranges)| (origin, to_bytes(ranges)))
    }

    /// What was added is stored.
    pub fn commit(&mut self) {
        self.added.clear();
    }

    /// What was added is not stored.
    pub fn roll_back(&mut self) {
        for (origin, added) in self.added.drain() {
            if let Some(known) = self.known.get_mut(&origin) {
                added.iter().for_each(|range| known.remove(range.clone()));
            }
        }
    }
}

fn to_bytes(ranges: &RangeInclusiveSet<u64>) -> Vec<u8> {
    ranges
        .iter()
        .flat_map(|range| [*range.start(), *range.end()])
        .flat_map(u64::to_le_bytes)
        .collect()
}

/// Ranges as they are stored: first and last number of each, in little endian.
pub fn from_bytes(bytes: &[u8]) -> Vec<RangeInclusive<u64>> {
    let (numbers, _) = bytes.as_chunks();
    let numbers: Vec<u64> = numbers.iter().map(|it| u64::from_le_bytes(*it)).collect();
    let (pairs, _) = numbers.as_chunks();
    pairs.iter().filter(|[first, last]| first <= last).map(|[first, last]| *first..=*last).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use bytes::Bytes;
    use proptest::prelude::*;
    use sekimori_proto::v1::Event;

    use super::*;

    fn host() -> Arc<str> {
        "pc".into()
    }

    fn origin(boot: u8) -> Origin {
        (host(), [boot; 16])
    }

    /// Those of `numbers` that were new.
    fn add(sequences: &mut Sequences, boot: u8, numbers: &[u64]) -> Vec<u64> {
        let entry = |sequence: &u64| {
            let event = Event { boot: vec![boot; 16], sequence: *sequence, ..Event::default() };
            Entry::new(&event, Bytes::new()).unwrap()
        };
        let new = sequences.keep_new(&host(), numbers.iter().map(entry).collect());
        new.iter().map(|entry| entry.sequence).collect()
    }

    /// Numbers in runs that overlap.
    fn batches() -> impl Strategy<Value = Vec<Vec<u64>>> {
        let run = (1..60_u64, 0..9_u64).prop_map(|(first, count)| first..first + count);
        let batch = proptest::collection::vec(run, 0..4)
            .prop_map(|runs| runs.into_iter().flatten().collect());
        proptest::collection::vec(batch, 0..12)
    }

    proptest! {
        #[test]
        fn each_number_is_new_once(batches in batches()) {
            let mut sequences = Sequences::default();
            let mut seen = std::collections::BTreeSet::new();
            for (step, batch) in batches.into_iter().enumerate() {
                let expected: Vec<u64> =
                    batch.iter().copied().filter(|number| seen.insert(*number)).collect();
                prop_assert_eq!(add(&mut sequences, 1, &batch), expected);
                if step % 3 == 0 {
                    sequences.commit();
                }
            }
            let bytes = sequences.all().map(|(_, bytes)| bytes).next().unwrap_or_default();
            let stored: Vec<u64> = from_bytes(&bytes).into_iter().flatten().collect();
            prop_assert_eq!(stored, seen.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn what_was_not_committed_is_new_again(before in batches(), after in batches()) {
            let mut sequences = Sequences::default();
            before.iter().for_each(|batch| drop(add(&mut sequences, 1, batch)));
            sequences.commit();
            after.iter().for_each(|batch| drop(add(&mut sequences, 1, batch)));
            sequences.roll_back();
            let before: Vec<u64> = before.concat();
            for number in 1..80 {
                let new = !add(&mut sequences, 1, &[number]).is_empty();
                prop_assert_eq!(new, !before.contains(&number));
            }
        }

        #[test]
        fn damaged_ranges_are_no_panic(bytes: Vec<u8>) {
            for range in from_bytes(&bytes) {
                prop_assert!(range.start() <= range.end());
            }
        }
    }

    #[test]
    fn boots_are_apart_and_few_bytes() {
        let mut sequences = Sequences::default();
        let numbers: Vec<u64> = (1..=100_000).collect();
        assert_eq!(add(&mut sequences, 1, &numbers).len(), numbers.len());
        sequences.commit();
        assert_eq!(add(&mut sequences, 2, &[7]), [7]);
        let changed: Vec<_> = sequences.changed().map(|(origin, _)| origin.clone()).collect();
        assert_eq!(changed, [origin(2)]);
        assert!(sequences.all().all(|(_, bytes)| bytes.len() == 16));
    }
}
