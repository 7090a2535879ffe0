//! The ClientHello in the Initial packets of QUIC versions 1 and 2 (RFC 9000, 9001, 9369).
//!
//! Their keys follow from the connection's number in the packet itself, so that everybody on the
//! path can read them.

use rustls::Side;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::quic::{DirectionalKeys, Version};
use sekimori_proto::v1::NameSource;

use super::hello::{self, ServerName};
use super::{Learned, Reading};
use crate::limits::{CRYPTO_BYTES_MAX, CRYPTO_PARTS_MAX, QUIC_PACKETS_MAX};

/// Bits of the first byte (RFC 9000, 17.2).
const LONG_HEADER: u8 = 0x80;
const PACKET_TYPE: u8 = 0x30;
const PACKET_NUMBER_BYTES: u8 = 0x03;
/// Types of packets of version 1; those of version 2 are one higher and wrap (RFC 9369, 3.2).
const INITIAL: u8 = 0x00;
const RETRY: u8 = 0x30;
const TYPES_MOVED_BY_V2: u8 = 0x10;
/// Numbers of versions.
const V1: u32 = 0x0000_0001;
const V2: u32 = 0x6b33_43cf;
/// Bytes of a connection's number.
const CONNECTION_BYTES_MAX: u8 = 20;
/// The sample for the header's protection stands so far behind the packet number's beginning
/// (RFC 9001, 5.4.2).
const SAMPLE_OFFSET: usize = 4;
const SAMPLE_BYTES: usize = 16;

/// Types of frames that an Initial packet may hold (RFC 9000, 12.4).
const PADDING: u64 = 0x00;
const PING: u64 = 0x01;
const ACK: u64 = 0x02;
const ACK_ECN: u64 = 0x03;
const CRYPTO: u64 = 0x06;

/// The datagrams of one socket.
#[derive(Default)]
pub(super) struct Datagrams {
    /// The number that the connection's keys follow from.
    connection: Option<Vec<u8>>,
    message: Parts,
}

impl Datagrams {
    /// One more datagram.
    pub(super) fn take(&mut self, datagram: &[u8]) -> Reading<Learned> {
        if datagram.first().is_none_or(|first| first & LONG_HEADER == 0) {
            // The hello goes before packets of other forms.
            let begun = self.connection.is_some();
            return if begun { Reading::More } else { Reading::Nothing };
        }
        let mut rest = datagram;
        for _ in 0..QUIC_PACKETS_MAX {
            let Some(packet) = Packet::next(&mut rest) else { break };
            if packet.initial {
                self.open(&packet);
            }
        }
        match self.message.front() {
            [] => Reading::More,
            message => hello::read_message(message).map(learned),
        }
    }

    /// What is known when nothing more comes.
    pub(super) fn rest(&self) -> Learned {
        hello::read_message_rest(self.message.front()).map(learned).unwrap_or_default()
    }

    /// How much is kept of them.
    #[cfg(test)]
    pub(super) fn kept_bytes(&self) -> usize {
        self.message.bytes.len()
    }

    /// Later packets may be sent to a number of the server's choice and have the keys of the first
    /// one. The hello after a Retry has keys of its own, and is sent again from its beginning.
    fn open(&mut self, packet: &Packet<'_>) {
        let known = self.connection.as_deref();
        if let Some(frames) = known.and_then(|known| packet.decrypt(known)) {
            self.message.read(&frames);
        } else if known != Some(packet.connection)
            && let Some(frames) = packet.decrypt(packet.connection)
        {
            self.connection = Some(packet.connection.to_vec());
            self.message = Parts::default();
            self.message.read(&frames);
        }
    }
}

fn learned(found: ServerName) -> Learned {
    let source = if found.outer { NameSource::QuicOuter } else { NameSource::Quic };
    Learned { name: Some((found.name, source)), ..Learned::default() }
}

/// A packet with a long header.
struct Packet<'a> {
    version: Version,
    initial: bool,
    connection: &'a [u8],
    /// All in front of the packet number.
    header: &'a [u8],
    /// The packet number and all behind it.
    protected: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Takes the next packet out of a datagram. Nothing when it cannot be told where it ends.
    fn next(datagram: &mut &'a [u8]) -> Option<Self> {
        let mut rest = *datagram;
        let [first] = *take_array(&mut rest)?;
        let (version, moved) = match u32::from_be_bytes(*take_array(&mut rest)?) {
            V1 => (Version::V1, 0),
            V2 => (Version::V2, TYPES_MOVED_BY_V2),
            _ => return None,
        };
        let kind = (first & PACKET_TYPE).wrapping_sub(moved) & PACKET_TYPE;
        if first & LONG_HEADER == 0 || kind == RETRY {
            return None;
        }
        let connection = take_connection(&mut rest)?;
        take_connection(&mut rest)?;
        let initial = kind == INITIAL;
        if initial {
            let token_bytes = take_integer(&mut rest)?;
            take(&mut rest, token_bytes)?;
        }
        let protected_bytes = take_integer(&mut rest)?;
        let header = datagram.get(..datagram.len().checked_sub(rest.len())?)?;
        let protected = take(&mut rest, protected_bytes)?;
        *datagram = rest;
        Some(Self { version, initial, connection, header, protected })
    }

    /// The frames in an Initial packet.
    fn decrypt(&self, connection: &[u8]) -> Option<Vec<u8>> {
        let keys = keys(self.version, connection)?;
        let sample = self.protected.get(SAMPLE_OFFSET..)?.get(..SAMPLE_BYTES)?;
        let mut header = self.header.to_vec();
        let (number, _) = self.protected.split_first_chunk::<SAMPLE_OFFSET>()?;
        let mut number = *number;
        keys.header.decrypt_in_place(sample, header.first_mut()?, &mut number).ok()?;
        let number_bytes = usize::from(header.first()? & PACKET_NUMBER_BYTES).checked_add(1)?;
        let number = number.get(..number_bytes)?;
        header.extend_from_slice(number);
        // The first packets have small numbers, none of which is abbreviated.
        let number = number.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let mut payload = self.protected.get(number_bytes..)?.to_vec();
        let bytes = keys.packet.decrypt_in_place(number, &header, &mut payload).ok()?.len();
        payload.truncate(bytes);
        Some(payload)
    }
}

/// The keys of what the client sends.
fn keys(version: Version, connection: &[u8]) -> Option<DirectionalKeys> {
    let suite = TLS13_AES_128_GCM_SHA256.tls13()?.quic_suite()?;
    Some(suite.keys(connection, Side::Server, version).remote)
}

/// A message that comes in parts.
#[derive(Default)]
struct Parts {
    bytes: Vec<u8>,
    /// Beginnings and ends of what is there; no two of them touch.
    there: Vec<(usize, usize)>,
}

impl Parts {
    /// What is there from the beginning on.
    fn front(&self) -> &[u8] {
        let front = self.there.iter().find(|(begin, _)| *begin == 0);
        front.and_then(|(_, end)| self.bytes.get(..*end)).unwrap_or_default()
    }

    /// Reads the frames of a packet, up to one that does not belong there.
    fn read(&mut self, mut frames: &[u8]) {
        while self.read_frame(&mut frames).is_some() {}
    }

    fn read_frame(&mut self, frames: &mut &[u8]) -> Option<()> {
        match take_integer(frames)? {
            PADDING | PING => {}
            kind @ (ACK | ACK_ECN) => {
                take_integer(frames)?;
                take_integer(frames)?;
                let ranges = take_integer(frames)?;
                take_integer(frames)?;
                for _ in 0..ranges {
                    take_integer(frames)?;
                    take_integer(frames)?;
                }
                for _ in 0..if kind == ACK_ECN { 3 } else { 0 } {
                    take_integer(frames)?;
                }
            }
            CRYPTO => {
                let offset = take_integer(frames)?;
                let bytes = take_integer(frames)?;
                let part = take(frames, bytes)?;
                self.add(usize::try_from(offset).ok()?, part);
            }
            _ => return None,
        }
        Some(())
    }

    fn add(&mut self, begin: usize, part: &[u8]) {
        let Some(end) = begin.checked_add(part.len()).filter(|it| *it <= CRYPTO_BYTES_MAX) else {
            return;
        };
        if part.is_empty() || self.there.len() >= CRYPTO_PARTS_MAX {
            return;
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        if let Some(place) = self.bytes.get_mut(begin..end) {
            place.copy_from_slice(part);
        }
        let mut joined = (begin, end);
        self.there.retain(|(begin, end)| {
            let apart = *end < joined.0 || joined.1 < *begin;
            if !apart {
                joined = (joined.0.min(*begin), joined.1.max(*end));
            }
            apart
        });
        self.there.push(joined);
    }
}

fn take_array<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(taken)
}

fn take<'a>(rest: &mut &'a [u8], bytes: u64) -> Option<&'a [u8]> {
    let (taken, behind) = rest.split_at_checked(usize::try_from(bytes).ok()?)?;
    *rest = behind;
    Some(taken)
}

fn take_connection<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let [bytes] = *take_array(rest)?;
    if bytes > CONNECTION_BYTES_MAX {
        return None;
    }
    take(rest, bytes.into())
}

/// An integer whose first two bits say how long it is (RFC 9000, 16).
fn take_integer(rest: &mut &[u8]) -> Option<u64> {
    let [first] = *take_array(rest)?;
    let more = (1_u64 << (first >> 6)).saturating_sub(1);
    let begin = u64::from(first & 0x3f);
    Some(take(rest, more)?.iter().fold(begin, |sum, byte| sum << 8 | u64::from(*byte)))
}
