//! A message of the stream: events of one host, compressed with zstd.

use std::io::Read as _;

use bytes::Bytes;
use prost::Message;
use thiserror::Error;

use crate::limits::{EVENT_BYTES_MAX, PARCEL_BYTES, PARCEL_BYTES_MAX, ZSTD_LEVEL};
use crate::store::{Batch, Entry};

/// Events of one host, which the collector that sends them knew by its certificate and checked.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Parcel {
    /// Its name.
    #[prost(string, tag = "1")]
    pub host: String,
    /// Each a `sekimori.v1.Event`, as its agent encoded it.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub events: Vec<Bytes>,
}

/// What is no parcel.
#[derive(Debug, Error)]
pub enum ParcelError {
    /// Not zstd, or longer than a parcel is.
    #[error("it cannot be unpacked: {0}")]
    Packed(#[from] std::io::Error),
    /// Not of the form.
    #[error("it cannot be read: {0}")]
    Form(#[from] prost::DecodeError),
}

impl Parcel {
    /// A batch as parcels that each fit into a message as NATS servers take it by default, 1 MiB,
    /// even when nothing can be made smaller.
    pub fn of(batch: Batch) -> impl Iterator<Item = Parcel> {
        let Batch { host, entries } = batch;
        let mut entries = entries.into_iter().peekable();
        std::iter::from_fn(move || {
            let mut size = 0;
            let mut events = Vec::new();
            while let Some(Entry { body, .. }) =
                entries.next_if(|entry| size == 0 || size + entry.body.len() <= PARCEL_BYTES)
            {
                size += body.len().max(1);
                events.push(body);
            }
            (!events.is_empty()).then(|| Parcel { host: host.clone(), events })
        })
    }

    /// For the stream.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn pack(&self) -> std::io::Result<Bytes> {
        zstd::bulk::compress(&self.encode_to_vec(), ZSTD_LEVEL).map(Bytes::from)
    }

    /// From the stream.
    ///
    /// # Errors
    /// [`ParcelError`].
    pub fn unpack(packed: &[u8]) -> Result<Parcel, ParcelError> {
        let mut bytes = Vec::new();
        let unpacked = zstd::Decoder::with_buffer(packed)?;
        let size = unpacked.take(PARCEL_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if size as u64 > PARCEL_BYTES_MAX {
            return Err(std::io::Error::other("it is longer than a parcel").into());
        }
        // Its events are parts of these bytes, without a copy.
        Ok(Parcel::decode(Bytes::from(bytes))?)
    }
}

/// An event more than the size that is aimed at, and what stands around the events.
const _: () = assert!(PARCEL_BYTES + EVENT_BYTES_MAX < PARCEL_BYTES_MAX as usize);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn entry(body: Vec<u8>) -> Entry {
        Entry {
            boot: [1; 16],
            sequence: 1,
            time_ns: 0,
            kind: 1,
            verdict: 0,
            lost: 0,
            tags: Vec::new(),
            body: body.into(),
        }
    }

    #[test]
    fn a_batch_is_parted_and_nothing_of_it_is_lost() {
        let noise = |seed: u8, size: usize| {
            let mut state = u32::from(seed) + 1;
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            };
            (0..size).map(|_| next()).collect::<Vec<_>>()
        };
        let mut bodies: Vec<Vec<u8>> = (0..12).map(|it| noise(it, EVENT_BYTES_MAX)).collect();
        bodies.push(Vec::new());
        bodies.extend((0..20).map(|it| noise(it, 40)));
        let entries = bodies.iter().cloned().map(entry).collect();
        let parcels: Vec<_> = Parcel::of(Batch { host: "pc-1".into(), entries }).collect();
        assert!(parcels.len() > 3);
        let mut found = Vec::new();
        for parcel in parcels {
            let packed = parcel.pack().unwrap();
            assert!(packed.len() < 1 << 20, "{}", packed.len());
            let parcel = Parcel::unpack(&packed).unwrap();
            assert_eq!(parcel.host, "pc-1");
            found.extend(parcel.events.iter().map(|it| it.to_vec()));
        }
        assert_eq!(found, bodies);
        assert_eq!(Parcel::of(Batch { host: "pc-1".into(), entries: Vec::new() }).count(), 0);
    }

    #[test]
    fn what_is_none_is_refused_and_a_bomb_is_not_unpacked() {
        assert!(Parcel::unpack(b"no parcel").is_err());
        assert!(Parcel::unpack(&zstd::bulk::compress(b"\x0a\xff", 1).unwrap()).is_err());
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 1).unwrap();
        let error = Parcel::unpack(&bomb).unwrap_err();
        assert!(error.to_string().contains("longer than a parcel"), "{error}");
    }
}
