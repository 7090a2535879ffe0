//! TLS.

use std::sync::Arc;

use rstest::rstest;
use rustls::crypto::ring::default_provider;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use sekimori_proto::v1::{Destination, NameSource};

use super::{names, sent};

const PADDING: u16 = 21;
const ENCRYPTED: u16 = 0xfe0d;
const RECORD_HEADER: usize = 5;
const FOUND: [(&str, NameSource); 1] = [("www.example.jp", NameSource::Tls)];
const FOUND_OUTER: [(&str, NameSource); 1] = [("www.example.jp", NameSource::TlsOuter)];

pub(super) fn config() -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

/// What a client sends to this server: one record.
pub(super) fn hello(server: &str) -> Vec<u8> {
    let name = server.to_owned().try_into().unwrap();
    let mut bytes = Vec::new();
    ClientConnection::new(config(), name).unwrap().write_tls(&mut bytes).unwrap();
    bytes
}

/// The message without its record, with one more extension before (or behind) all others.
pub(super) fn with_extension(message: &[u8], front: bool, kind: u16, data: &[u8]) -> Vec<u8> {
    let number = |at: usize| usize::from(u16::from_be_bytes([message[at], message[at + 1]]));
    let session = 4 + 2 + 32;
    let ciphers = session + 1 + usize::from(message[session]);
    let compression = ciphers + 2 + number(ciphers);
    let extensions = compression + 1 + usize::from(message[compression]);
    let bytes = number(extensions);
    let old = &message[extensions + 2..][..bytes];
    let new = [&kind.to_be_bytes(), &(data.len() as u16).to_be_bytes(), data].concat();
    let all = if front { [&new, old].concat() } else { [old, &new].concat() };
    let length = (all.len() as u16).to_be_bytes();
    let body = [&message[4..extensions], &length, &all].concat();
    [&[1], &(body.len() as u32).to_be_bytes()[1..], &body].concat()
}

/// The message in records of so many bytes.
fn records(message: &[u8], bytes: usize) -> Vec<u8> {
    let record = |part: &[u8]| [&[22, 3, 1], &(part.len() as u16).to_be_bytes()[..], part].concat();
    message.chunks(bytes).flat_map(record).collect()
}

#[test]
fn the_server_name_is_found_in_pieces_of_every_size() {
    let hello = hello("WWW.Example.jp.");
    for cut in 0..=hello.len() {
        assert_eq!(names(&sent([&hello[..cut], &hello[cut..]])), FOUND, "cut at {cut}");
    }
}

#[rstest]
#[case(1)]
#[case(7)]
#[case(100)]
fn the_server_name_is_found_in_records_of_every_size(#[case] bytes: usize) {
    let hello = hello("www.example.jp");
    let records = records(&hello[RECORD_HEADER..], bytes);
    assert_eq!(names(&sent([&records])), FOUND);
    assert_eq!(names(&sent(records.chunks(records.len() / 9))), FOUND);
}

#[test]
fn an_address_is_no_server_name() {
    assert_eq!(sent([hello("192.0.2.1")]), Destination::default());
}

#[rstest]
#[case::fits(true, 2048, true)]
#[case::name_before_the_cut(false, 4096, true)]
#[case::name_behind_the_cut(true, 4096, false)]
fn a_long_hello_is_read_as_far_as_it_came(
    #[case] front: bool,
    #[case] bytes: usize,
    #[case] found: bool,
) {
    let hello = hello("www.example.jp");
    let long = with_extension(&hello[RECORD_HEADER..], front, PADDING, &vec![0; bytes]);
    for record_bytes in [1400, 16384] {
        let records = records(&long, record_bytes);
        let expected: &[_] = if found { &FOUND } else { &[] };
        assert_eq!(names(&sent([&records])), expected);
        assert_eq!(names(&sent(records.chunks(1000))), expected);
        // Only the beginning is given.
        assert_eq!(names(&sent([&records[..4096.min(records.len())]])), expected);
    }
}

#[test]
fn a_hello_is_read_as_far_as_it_came_wherever_it_is_cut() {
    let hello = hello("www.example.jp");
    let found = (0..hello.len()).filter(|end| names(&sent([&hello[..*end]])) == FOUND).count();
    let at = hello.windows(14).position(|it| it == b"www.example.jp").unwrap();
    assert_eq!(found, hello.len() - at - 14);
}

#[rstest]
#[case::true_name_inside(0, FOUND_OUTER)]
#[case::is_the_inside(1, FOUND)]
fn an_outer_name_is_said_to_be_one(
    #[case] kind: u8,
    #[case] expected: [(&str, NameSource); 1],
    #[values(true, false)] front: bool,
) {
    let hello = hello("www.example.jp");
    let data = [kind, 0, 1, 0, 1, 9, 0, 0, 0, 0];
    let message = with_extension(&hello[RECORD_HEADER..], front, ENCRYPTED, &data);
    assert_eq!(names(&sent([records(&message, 16384)])), expected);
}

#[test]
fn an_unknown_extension_that_looks_random_is_passed() {
    let hello = hello("www.example.jp");
    let message = with_extension(&hello[RECORD_HEADER..], true, 0x1a1a, b"\0");
    assert_eq!(names(&sent([records(&message, 16384)])), FOUND);
}

#[rstest]
#[case::empty_list(b"\0\0")]
#[case::empty(b"")]
#[case::longer_than_it_is(b"\0\xff\0\0\x03abc")]
#[case::no_host(b"\0\x06\x09\0\x03abc")]
fn a_bad_server_name_is_none(#[case] data: &[u8]) {
    let hello = hello("192.0.2.1");
    let message = with_extension(&hello[RECORD_HEADER..], true, 0, data);
    assert_eq!(sent([records(&message, 16384)]), Destination::default());
}

#[test]
fn nothing_but_the_name_is_kept() {
    let mut flows = crate::flow::Flows::default();
    flows.payload(super::SOCKET, false, 0, &hello("www.example.jp"));
    let state = &flows.sockets.0.peek(&super::SOCKET).unwrap().state;
    assert!(matches!(state, crate::flow::State::Learned(_)));
}

#[test]
fn tls_inside_of_smtp_is_not_read() {
    let pieces = [b"EHLO a\r\nSTARTTLS\r\n".to_vec(), hello("www.example.jp")];
    assert_eq!(sent(pieces), Destination::default());
}
