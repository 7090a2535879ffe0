//! QUIC.

use rstest::rstest;
use rustls::Side;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::quic::{ClientConnection, Version};
use sekimori_proto::v1::{Destination, NameSource};

use super::hello::{config, with_extension};
use super::{names, sent_datagrams};
use crate::limits::QUIC_PACKETS_MAX;

const CONNECTION: &[u8] = &[0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];
const FOUND: [(&str, NameSource); 1] = [("www.example.jp", NameSource::Quic)];
const DATAGRAM_BYTES: usize = 1200;

/// The ClientHello to this server.
pub(super) fn hello(server: &str) -> Vec<u8> {
    let name = server.to_owned().try_into().unwrap();
    let mut client = ClientConnection::new(config(), Version::V1, name, vec![1, 2, 3]).unwrap();
    let mut bytes = Vec::new();
    client.write_hs(&mut bytes);
    bytes
}

/// One Initial packet.
#[derive(Clone)]
pub(super) struct Initial<'a> {
    version: Version,
    /// The number that the keys follow from, and the one in the packet.
    keys: &'a [u8],
    connection: &'a [u8],
    token: &'a [u8],
    number: u32,
    number_bytes: usize,
}

pub(super) const INITIAL: Initial<'_> = Initial {
    version: Version::V1,
    keys: CONNECTION,
    connection: CONNECTION,
    token: b"",
    number: 0,
    number_bytes: 1,
};

impl Initial<'_> {
    /// With these frames, and padding up to so many bytes of them.
    pub(super) fn packet(&self, frames: &[u8], payload_bytes: usize) -> Vec<u8> {
        let mut payload = frames.to_vec();
        payload.resize(payload_bytes.max(frames.len()), 0);
        let (kind, version) = match self.version {
            Version::V2 => (0xd0, 0x6b33_43cf_u32),
            _ => (0xc0, 1),
        };
        let mut header = vec![kind | (self.number_bytes - 1) as u8];
        header.extend(version.to_be_bytes());
        header.push(self.connection.len() as u8);
        header.extend(self.connection);
        header.push(0);
        header.push(self.token.len() as u8);
        header.extend(self.token);
        let protected_bytes = (self.number_bytes + payload.len() + 16) as u16;
        header.extend((0x4000 | protected_bytes).to_be_bytes());
        let number_at = header.len();
        header.extend(&self.number.to_be_bytes()[4 - self.number_bytes..]);
        let suite = TLS13_AES_128_GCM_SHA256.tls13().unwrap().quic_suite().unwrap();
        let keys = suite.keys(self.keys, Side::Client, self.version).local;
        let number = self.number.into();
        let tag = keys.packet.encrypt_in_place(number, &header, &mut payload).unwrap();
        payload.extend(tag.as_ref());
        let sample = &payload[4 - self.number_bytes..][..16];
        let (first, rest) = header.split_first_mut().unwrap();
        keys.header.encrypt_in_place(sample, first, &mut rest[number_at - 1..]).unwrap();
        [header, payload].concat()
    }
}

/// A CRYPTO frame with this part of a message.
pub(super) fn crypto(message: &[u8], begin: usize, end: usize) -> Vec<u8> {
    let integer = |number: usize| (0x4000 | number as u16).to_be_bytes();
    [&[6], &integer(begin)[..], &integer(end - begin), &message[begin..end]].concat()
}

#[rstest]
#[case::version_1(INITIAL)]
#[case::version_2(Initial { version: Version::V2, ..INITIAL })]
#[case::token(Initial { token: b"token", ..INITIAL })]
#[case::number(Initial { number: 0x0102_0304, number_bytes: 4, ..INITIAL })]
#[case::no_connection(Initial { keys: b"", connection: b"", ..INITIAL })]
fn the_server_name_is_found(#[case] initial: Initial<'_>) {
    let hello = hello("www.example.jp");
    let packet = initial.packet(&crypto(&hello, 0, hello.len()), DATAGRAM_BYTES);
    assert_eq!(names(&sent_datagrams(&[packet])), FOUND);
}

#[test]
fn the_parts_of_a_hello_may_come_in_every_order() {
    let hello = hello("www.example.jp");
    let end = hello.len();
    for cut in 1..end - 1 {
        let frames = [
            &[0, 1][..],
            &crypto(&hello, cut, end),
            &[2, 5, 0, 1, 2, 1, 1],
            &[3, 5, 0, 0, 2, 1, 1, 1],
            &crypto(&hello, 0, cut + 1),
        ];
        let packet = INITIAL.packet(&frames.concat(), DATAGRAM_BYTES);
        assert_eq!(names(&sent_datagrams(&[packet])), FOUND, "cut at {cut}");
    }
}

#[test]
fn the_parts_of_a_hello_may_come_in_several_packets_and_datagrams() {
    let short = hello("www.example.jp");
    let hello = with_extension(&short, true, 21, &[0; 1800]);
    let frame = |begin, end: usize| crypto(&hello, begin, end.min(hello.len()));
    let packet = |number, frames: &[u8]| Initial { number, ..INITIAL }.packet(frames, 4);
    let coalesced = [
        packet(0, &frame(0, 500)),
        packet(1, &frame(500, 1000)),
        // Handshake and 0-RTT packets between them are passed.
        vec![0xe0, 0, 0, 0, 1, 0, 0, 2, 9, 9],
        vec![0xd0, 0, 0, 0, 1, 0, 0, 2, 9, 9],
        packet(2, &frame(1000, 1200)),
    ];
    // The server chose another number meanwhile.
    let later = Initial { connection: b"server", number: 3, ..INITIAL };
    let later = later.packet(&frame(1200, 4000), DATAGRAM_BYTES);
    let datagrams = [coalesced.concat(), later];
    assert_eq!(names(&sent_datagrams(&datagrams[..1])), []);
    assert_eq!(names(&sent_datagrams(&datagrams)), FOUND);
}

#[test]
fn after_a_retry_the_hello_has_other_keys() {
    let hello = hello("www.example.jp");
    let first = INITIAL.packet(&crypto(&hello, 0, 50), DATAGRAM_BYTES);
    let second = Initial { keys: b"retried", connection: b"retried", token: b"t", ..INITIAL };
    let second = second.packet(&crypto(&hello, 0, hello.len()), DATAGRAM_BYTES);
    assert_eq!(names(&sent_datagrams(&[first, second])), FOUND);
}

#[test]
fn an_outer_name_is_said_to_be_one() {
    let hello = with_extension(&hello("www.example.jp"), false, 0xfe0d, &[0, 0, 1, 0, 1]);
    let packet = INITIAL.packet(&crypto(&hello, 0, hello.len()), DATAGRAM_BYTES);
    let expected = [("www.example.jp", NameSource::QuicOuter)];
    assert_eq!(names(&sent_datagrams(&[packet])), expected);
}

#[test]
fn a_hello_is_read_as_far_as_it_came() {
    let hello = with_extension(&hello("www.example.jp"), false, 21, &[0; 3000]);
    let packet = INITIAL.packet(&crypto(&hello, 0, 1100), DATAGRAM_BYTES);
    assert_eq!(names(&sent_datagrams(&[packet])), FOUND);
}

#[rstest]
#[case::cut_off(|packet: &mut Vec<u8>| packet.truncate(1000))]
#[case::changed(|packet: &mut Vec<u8>| packet[200] ^= 1)]
#[case::other_version(|packet: &mut Vec<u8>| packet[1] = 0xff)]
#[case::short_header(|packet: &mut Vec<u8>| packet[0] &= 0x7f)]
fn other_datagrams_say_nothing(#[case] change: fn(&mut Vec<u8>)) {
    let hello = hello("www.example.jp");
    let mut packet = INITIAL.packet(&crypto(&hello, 0, hello.len()), DATAGRAM_BYTES);
    change(&mut packet);
    assert_eq!(sent_datagrams(&[packet]), Destination::default());
}

#[test]
fn only_so_many_packets_of_a_datagram_are_read() {
    let hello = hello("www.example.jp");
    let packet = INITIAL.packet(&crypto(&hello, 0, hello.len()), 4);
    let other = [0xe0, 0, 0, 0, 1, 0, 0, 0].to_vec();
    let read = [other.repeat(QUIC_PACKETS_MAX - 1), packet.clone()].concat();
    let not_read = [other.repeat(QUIC_PACKETS_MAX), packet].concat();
    assert_eq!(names(&sent_datagrams(&[read])), FOUND);
    assert_eq!(names(&sent_datagrams(&[not_read])), []);
}

/// RFC 9001, A.2: the frame of the client's first packet, and where that begins and ends.
#[test]
fn the_packet_of_the_standard_is_read() {
    const FRAME: &str = "060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e868\
        04fe3a47f06a2b69484c00000413011302010000c000000010000e00000b6578616d706c652e636f6dff0100\
        0100000a00080006001d0017001800100007000504616c706e00050005010000000000330026002400\
        1d00209370b2c9caa47fbabaf4559fedba753de171fa71f50f1ce15d43e994ec74d748002b000302030400\
        0d0010000e0403050306030203080408050806002d00020101001c00024001003900320408ffffffffffffff\
        ff05048000ffff07048000ffff0801100104800075300901100f088394c8f03e51570806048000ffff";
    const BEGIN: &str = "c000000001088394c8f03e5157080000449e7b9aec34d1b1c98dd7689fb8ec11d242b123";
    const END: &str = "e221af44860018ab0856972e194cd934";
    let initial = Initial { number: 2, number_bytes: 4, ..INITIAL };
    let packet = initial.packet(&bytes(FRAME), 1162);
    assert_eq!(packet.len(), 1200);
    assert!(packet.starts_with(&bytes(BEGIN)));
    assert!(packet.ends_with(&bytes(END)));
    let expected = [("example.com", NameSource::Quic)];
    assert_eq!(names(&sent_datagrams(&[packet])), expected);
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).unwrap() as u8;
    hexadecimal.as_bytes().chunks(2).map(|it| digit(&it[0]) << 4 | digit(&it[1])).collect()
}
