//! A block: some hundred events that are compressed, stored and read together.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use bytes::Bytes;
use prost::Message;
use sekimori_proto::v1::Event;
use thiserror::Error;

use super::entry::Entry;
use super::tags::{self, Tag, Tagged};
use crate::limits::BLOCK_BYTES_MAX;

/// A block that is not what was written. The rest of the store is not touched by it.
#[derive(Debug, Error)]
pub enum DamagedBlock {
    /// Decompression, or its checksum.
    #[error("{0}")]
    Compression(#[from] std::io::Error),
    /// Not a block inside.
    #[error("{0}")]
    Decode(#[from] prost::DecodeError),
    /// An event of a host that the block does not name.
    #[error("an event of no host")]
    Host,
    /// Nothing at all.
    #[error("it is not there, or has no event")]
    Empty,
    /// Columns that are not those of the block.
    #[error("columns that do not fit its events")]
    Columns,
}

/// What is compressed.
#[derive(Clone, PartialEq, Message)]
struct Body {
    #[prost(string, repeated, tag = "1")]
    hosts: Vec<String>,
    #[prost(message, repeated, tag = "2")]
    entries: Vec<BodyEntry>,
}

#[derive(Clone, PartialEq, Message)]
struct BodyEntry {
    /// Place in `hosts`.
    #[prost(uint32, tag = "1")]
    host: u32,
    #[prost(uint64, tag = "2")]
    cursor: u64,
    #[prost(sint64, tag = "3")]
    time_ns: i64,
    #[prost(bytes = "bytes", tag = "4")]
    event: Bytes,
    #[prost(int32, tag = "5")]
    kind: i32,
    #[prost(int32, tag = "6")]
    verdict: i32,
}

impl Body {
    fn of<'a>(events: impl IntoIterator<Item = &'a Placed>) -> Body {
        let events = events.into_iter();
        let mut body =
            Body { hosts: Vec::new(), entries: Vec::with_capacity(events.size_hint().0) };
        for Placed { cursor, host, entry } in events {
            // The events of a host come together.
            let place = body.hosts.iter().rposition(|known| **known == **host);
            let place = place.unwrap_or_else(|| {
                body.hosts.push(host.to_string());
                body.hosts.len() - 1
            });
            body.entries.push(BodyEntry {
                host: u32::try_from(place).unwrap_or(u32::MAX),
                cursor: *cursor,
                time_ns: entry.time_ns,
                event: entry.body.clone(),
                kind: entry.kind,
                verdict: entry.verdict,
            });
        }
        body
    }
}

/// An event with its place in the store.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Its place.
    pub cursor: u64,
    /// Whose it is.
    pub host: std::sync::Arc<str>,
    /// The event.
    pub entry: Entry,
}

/// What is known of a block without a look into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The lowest cursor in it.
    pub first: u64,
    /// The highest.
    pub last: u64,
    /// How many events.
    pub events: u32,
    /// UTC ns since 1970 of the oldest event.
    pub oldest_ns: i64,
    /// Of the newest.
    pub newest_ns: i64,
    /// See [`tags`].
    pub tags: Vec<u8>,
}

impl Header {
    /// Checksum of all of it.
    pub fn sum(&self) -> u32 {
        let mut sum = crc32fast::Hasher::new();
        sum.update(&self.first.to_le_bytes());
        sum.update(&self.last.to_le_bytes());
        sum.update(&self.events.to_le_bytes());
        sum.update(&self.oldest_ns.to_le_bytes());
        sum.update(&self.newest_ns.to_le_bytes());
        sum.update(&self.tags);
        sum.finalize()
    }
}

/// What is known of the events of a block so far.
#[derive(Debug)]
pub struct Found {
    header: Header,
    tags: Vec<Tag>,
}

impl Default for Found {
    fn default() -> Found {
        let (first, last, events, tags) = (u64::MAX, 0, 0, Vec::new());
        let (oldest_ns, newest_ns) = (i64::MAX, i64::MIN);
        let header = Header { first, last, events, oldest_ns, newest_ns, tags };
        Found { header, tags: Vec::new() }
    }
}

impl Found {
    /// Adds an event, of which these are the tags without that of its host.
    pub fn add(&mut self, cursor: u64, time_ns: i64, tags: &[Tag]) {
        let Header { first, last, events, oldest_ns, newest_ns, .. } = &mut self.header;
        (*first, *last) = ((*first).min(cursor), (*last).max(cursor));
        (*oldest_ns, *newest_ns) = ((*oldest_ns).min(time_ns), (*newest_ns).max(time_ns));
        *events += 1;
        self.tags.extend_from_slice(tags);
    }

    /// The header of a block with the events of these hosts.
    pub fn header(mut self, hosts: &[String]) -> Header {
        self.tags.extend(hosts.iter().map(|host| tags::tag(Tagged::Host, host.as_bytes())));
        Header { tags: tags::to_bytes(self.tags), ..self.header }
    }
}

/// A block ready to be stored.
#[derive(Debug)]
pub struct Packed {
    /// What it is found by.
    pub header: Header,
    /// zstd frame with a checksum.
    pub body: Vec<u8>,
}

/// Packs events, at least one, in this order.
///
/// # Errors
/// When zstd fails, for want of memory.
pub fn pack(
    compressor: &mut zstd::bulk::Compressor<'_>,
    events: &[&Placed],
) -> std::io::Result<Packed> {
    let body = Body::of(events.iter().copied());
    let mut found = Found::default();
    events.iter().for_each(|it| found.add(it.cursor, it.entry.time_ns, &it.entry.tags));
    let header = found.header(&body.hosts);
    Ok(Packed { header, body: compressor.compress(&body.encode_to_vec())? })
}

/// Unpacks one after the other, and keeps its memory.
#[derive(Default)]
pub struct Unpacker(Option<zstd::bulk::Decompressor<'static>>);

impl Unpacker {
    /// What was packed.
    ///
    /// # Errors
    /// When it is damaged, or longer than blocks are.
    pub fn unpack(&mut self, packed: &[u8]) -> std::io::Result<Vec<u8>> {
        let decompressor = match &mut self.0 {
            Some(decompressor) => decompressor,
            slot => slot.insert(zstd::bulk::Decompressor::new()?),
        };
        // What it says of itself is believed as far as memory is concerned.
        let size = zstd::bulk::Decompressor::upper_bound(packed).unwrap_or(BLOCK_BYTES_MAX);
        decompressor.decompress(packed, size.min(BLOCK_BYTES_MAX))
    }
}

impl std::fmt::Debug for Unpacker {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Unpacker")
    }
}

/// A block that was read.
#[derive(Debug)]
pub struct Block {
    hosts: Vec<String>,
    entries: Vec<BodyEntry>,
    /// Places of the events of each kind and verdict, once somebody has asked for some of them.
    places: OnceLock<BTreeMap<(i32, i32), Vec<usize>>>,
}

/// One event of a block that was read, not decoded yet.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    /// Its place in the store.
    pub cursor: u64,
    /// UTC, ns since 1970.
    pub time_ns: i64,
    /// Number of its kind.
    pub kind: i32,
    /// Number of its verdict.
    pub verdict: i32,
    /// Whose it is.
    pub host: &'a str,
    /// The encoded event, as the agent sent it.
    pub body: &'a Bytes,
}

impl Block {
    /// Of events that need not be packed.
    pub fn of(events: &[Placed]) -> Block {
        let Body { hosts, entries } = Body::of(events);
        Block { hosts, entries, places: OnceLock::new() }
    }

    /// Unpacks a block.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn unpack(packed: &[u8]) -> Result<Block, DamagedBlock> {
        let body = zstd::bulk::decompress(packed, BLOCK_BYTES_MAX)?;
        let Body { hosts, entries } = Body::decode(Bytes::from(body))?;
        if entries.is_empty() {
            return Err(DamagedBlock::Empty);
        }
        if entries.iter().any(|entry| entry.host as usize >= hosts.len()) {
            return Err(DamagedBlock::Host);
        }
        Ok(Block { hosts, entries, places: OnceLock::new() })
    }

    /// Whether what it is found by is what its events say.
    ///
    /// # Errors
    /// When an event is none.
    pub fn is_found_by(&self, header: &Header) -> Result<bool, prost::DecodeError> {
        let mut found = Found::default();
        for stored in self.entries() {
            let event = Event::decode(stored.body.as_ref())?;
            let same = (event.time_ns, event.kind, event.verdict)
                == (stored.time_ns, stored.kind, stored.verdict);
            if !same {
                return Ok(false);
            }
            found.add(stored.cursor, stored.time_ns, &tags::Found::of(&event).tags());
        }
        Ok(found.header(&self.hosts) == *header)
    }

    /// Its events, as they were packed.
    pub fn entries(&self) -> impl Iterator<Item = Stored<'_>> {
        self.entries.iter().filter_map(|entry| self.stored(entry))
    }

    /// Those of its events whose kind and verdict are wanted. Many who ask the same block look at
    /// what they want and at nothing else; the first of them sorts it for all.
    pub fn entries_of(
        &self,
        wanted: impl Fn(i32, i32) -> bool,
    ) -> impl Iterator<Item = Stored<'_>> {
        let places = self.places.get_or_init(|| {
            let mut places: BTreeMap<(i32, i32), Vec<usize>> = BTreeMap::new();
            for (place, entry) in self.entries.iter().enumerate() {
                places.entry((entry.kind, entry.verdict)).or_default().push(place);
            }
            places
        });
        let wanted = places.iter().filter(move |((kind, verdict), _)| wanted(*kind, *verdict));
        let entries = wanted.flat_map(|(_, places)| places).filter_map(|it| self.entries.get(*it));
        entries.filter_map(|entry| self.stored(entry))
    }

    fn stored<'a>(&'a self, entry: &'a BodyEntry) -> Option<Stored<'a>> {
        let host = self.hosts.get(entry.host as usize)?;
        let BodyEntry { cursor, time_ns, kind, verdict, .. } = *entry;
        Some(Stored { cursor, time_ns, kind, verdict, host, body: &entry.event })
    }

    /// What of it the writer needs to pack its events again.
    ///
    /// # Errors
    /// When an event is damaged.
    pub fn placed(&self) -> Result<Vec<Placed>, DamagedBlock> {
        let mut placed = Vec::with_capacity(self.entries.len());
        for stored in self.entries() {
            let event = Event::decode(stored.body.as_ref())?;
            // The name of an event without a boot is of no use any more: it is stored.
            if let Some(entry) = Entry::new(&event, stored.body.clone()) {
                placed.push(Placed { cursor: stored.cursor, host: stored.host.into(), entry });
            }
        }
        Ok(placed)
    }
}

impl Stored<'_> {
    /// The event as it is shown.
    ///
    /// # Errors
    /// When it is none.
    pub fn event(&self) -> Result<Event, prost::DecodeError> {
        let mut event = Event::decode(self.body.as_ref())?;
        self.host.clone_into(&mut event.host);
        event.cursor = self.cursor;
        Ok(event)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::limits::BOOT_BYTES;

    fn placed(cursor: u64, host: &str) -> Placed {
        let event = Event {
            boot: vec![1; BOOT_BYTES],
            sequence: cursor,
            kind: 6,
            time_ns: 100 - i64::try_from(cursor).unwrap(),
            message: "資料".into(),
            host: "liar".into(),
            ..Event::default()
        };
        let body = Bytes::from(event.encode_to_vec());
        Placed { cursor, host: host.into(), entry: Entry::new(&event, body).unwrap() }
    }

    fn packed(events: &[Placed]) -> Packed {
        let mut compressor = zstd::bulk::Compressor::new(1).unwrap();
        compressor.include_checksum(true).unwrap();
        pack(&mut compressor, &events.iter().collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn what_is_packed_comes_back() {
        let events = [placed(3, "a"), placed(5, "b"), placed(9, "a")];
        let Packed { header, body } = packed(&events);
        assert_eq!((header.first, header.last, header.events), (3, 9, 3));
        assert_eq!((header.oldest_ns, header.newest_ns), (91, 97));
        assert!(tags::may_have(&header.tags, &[tags::tag(Tagged::Host, b"b")]));
        let block = Block::unpack(&body).unwrap();
        let shown: Vec<Event> = block.entries().map(|it| it.event().unwrap()).collect();
        let names: Vec<_> =
            shown.iter().map(|it| (it.cursor, it.host.as_str(), it.sequence)).collect();
        assert_eq!(names, [(3, "a", 3), (5, "b", 5), (9, "a", 9)]);
        let again = block.placed().unwrap();
        assert_eq!(packed(&again).header, header);
    }

    #[test]
    fn events_of_a_kind_and_verdict_are_found() {
        let mut events: Vec<Placed> = (1..=9).map(|cursor| placed(cursor, "a")).collect();
        for (place, it) in (0..).zip(&mut events) {
            (it.entry.kind, it.entry.verdict) = (place % 3, place % 2);
        }
        let block = Block::unpack(&packed(&events).body).unwrap();
        let found = |wanted: fn(i32, i32) -> bool| {
            let mut cursors: Vec<u64> = block.entries_of(wanted).map(|it| it.cursor).collect();
            cursors.sort_unstable();
            cursors
        };
        assert_eq!(found(|kind, verdict| kind == 1 && verdict == 0), [5]);
        assert_eq!(found(|_, verdict| verdict == 1), [2, 4, 6, 8]);
        assert_eq!(found(|_, _| true), (1..=9).collect::<Vec<_>>());
        assert_eq!(found(|kind, _| kind > 2), Vec::<u64>::new());
    }

    #[test]
    fn damage_is_noticed() {
        let Packed { mut body, .. } = packed(&[placed(1, "a"), placed(2, "a")]);
        for place in 0..body.len() {
            *body.get_mut(place).unwrap() ^= 1;
            assert!(Block::unpack(&body).is_err(), "byte {place}");
            *body.get_mut(place).unwrap() ^= 1;
        }
        body.truncate(body.len() - 1);
        assert!(Block::unpack(&body).is_err());
    }
}
