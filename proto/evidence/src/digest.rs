//! What stands for an event in a checkpoint.

use prost::encoding::{bytes, uint32, uint64};

/// Bytes of a digest.
pub const DIGEST_BYTES: usize = 16;

/// The first bytes of the BLAKE3 hash of an event as it is sent; the last bit is its lane instead. To
/// find another event with the same digest takes 2^127 tries. Every record is hashed on its host, so
/// the hash is one that needs no instructions of its own to be fast.
pub type Digest = [u8; DIGEST_BYTES];

/// Stands for a number under which nothing was kept.
pub const ABSENT: Digest = [0; DIGEST_BYTES];

/// What names an event and stands at the end of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a> {
    /// Boot of its author.
    pub boot: &'a [u8],
    /// From 1.
    pub sequence: u64,
    /// 0 telemetry, 1 denials and alerts.
    pub lane: u32,
}

impl Name<'_> {
    /// Appends the fields boot, sequence and lane of an `Event`: what an author puts behind the
    /// rest of it, whose encoding has no such fields.
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        bytes::encode(2, &self.boot.to_vec(), buffer);
        uint64::encode(3, &self.sequence, buffer);
        if self.lane != 0 {
            uint32::encode(22, &self.lane, buffer);
        }
    }

    /// Its bytes alone.
    #[must_use]
    pub fn encoded(&self) -> Vec<u8> {
        let mut buffer = Vec::with_capacity(self.boot.len() + 16);
        self.encode(&mut buffer);
        buffer
    }
}

/// Of an event whose bytes are these parts, one behind the other.
#[must_use]
pub fn digest(parts: &[&[u8]], lane: u32) -> Digest {
    let mut hash = blake3::Hasher::new();
    for part in parts {
        hash.update(part);
    }
    let hash = hash.finalize();
    let hash = hash.as_bytes();
    let mut digest = ABSENT;
    digest.iter_mut().zip(hash).for_each(|(to, from)| *to = *from);
    if let Some(last) = digest.last_mut() {
        *last = (*last & !1) | u8::from(lane != 0);
    }
    digest
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use prost::Message as _;
    use sekimori_proto::v1::Event;

    use super::*;

    #[test]
    fn a_name_is_the_end_of_an_event() {
        for lane in [0, 1] {
            let name = Name { boot: &[7; 16], sequence: 300, lane };
            let mut bytes = Event { message: "持出し".into(), ..Event::default() }.encode_to_vec();
            name.encode(&mut bytes);
            let event = Event::decode(bytes.as_slice()).unwrap();
            let expected = Event {
                boot: vec![7; 16],
                sequence: 300,
                lane,
                message: "持出し".into(),
                ..Event::default()
            };
            assert_eq!(event, expected);
        }
    }

    #[test]
    fn the_last_bit_is_the_lane() {
        let (first, second) = (digest(&[b"a"], 0), digest(&[b"a"], 1));
        assert_eq!(first[..15], second[..15]);
        assert_eq!((first[15] & 1, second[15] & 1), (0, 1));
        // BLAKE3 of "a", as b3sum computes it.
        assert_eq!(crate::hex(&first[..4]), "17762fdd");
        assert_eq!(digest(&[b"ab", b"c"], 0), digest(&[b"abc"], 0));
    }
}
