//! DNS answers.

use std::time::{Duration, Instant};

use rstest::rstest;
use sekimori_proto::v1::Destination;

use crate::flow::Flows;
use crate::limits::{ADDRESSES_MAX, NAMES_PER_ADDRESS_MAX};

/// Types of records and their data.
pub(super) const A: (u16, &[u8]) = (1, &[192, 0, 2, 1]);
const AAAA: (u16, &[u8]) = (28, &[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
const MAPPED: (u16, &[u8]) = (28, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1]);
/// `CNAME` to `cdn` and the name that is asked for.
const ALIAS: (u16, &[u8]) = (5, b"\x03cdn\xc0\x0c");
const TEXT: (u16, &[u8]) = (16, b"\x02hi");
const SERVICE: (u16, &[u8]) = (65, b"\0\x01\0");
const RESPONSE: u16 = 0x8180;

/// The name in the question, to which records point.
fn wire_name(name: &[u8]) -> Vec<u8> {
    let labels = name.split(|byte| *byte == b'.');
    let mut wire: Vec<u8> = labels.flat_map(|it| [&[it.len() as u8], it].concat()).collect();
    wire.push(0);
    wire
}

fn message(flags: u16, questions: u16, name: &[u8], records: &[(u16, &[u8])], ttl: u32) -> Vec<u8> {
    let count = records.len() as u16;
    let mut message: Vec<u8> =
        [0x1234, flags, questions, count, 0, 0].into_iter().flat_map(u16::to_be_bytes).collect();
    for _ in 0..questions {
        message.extend([name, &[0, 1, 0, 1]].concat());
    }
    for (kind, data) in records {
        message.extend([0xc0, 12]);
        message.extend(kind.to_be_bytes());
        message.extend([0, 1]);
        message.extend(ttl.to_be_bytes());
        message.extend((data.len() as u16).to_be_bytes());
        message.extend(*data);
    }
    message
}

pub(super) fn answer(name: &str, records: &[(u16, &[u8])], ttl: u32) -> Vec<u8> {
    message(RESPONSE, 1, &wire_name(name.as_bytes()), records, ttl)
}

fn names(flows: &Flows, ip: &str, now: Instant) -> Vec<String> {
    let mut destination = Destination { ip: ip.to_owned(), ..Destination::default() };
    flows.describe(0, &mut destination, now);
    destination.names.into_iter().map(|it| it.name).collect()
}

#[rstest]
#[case::an_address(&[A], "192.0.2.1")]
#[case::a_newer_address(&[AAAA], "2001:db8::1")]
#[case::a_mapped_address(&[MAPPED], "192.0.2.1")]
#[case::asked_for_mapped(&[A], "::ffff:192.0.2.1")]
#[case::aliases(&[ALIAS, ALIAS, A], "192.0.2.1")]
#[case::among_others(&[TEXT, A, SERVICE], "192.0.2.1")]
fn an_address_has_the_name_that_was_asked(#[case] records: &[(u16, &[u8])], #[case] ip: &str) {
    let now = Instant::now();
    let mut flows = Flows::default();
    flows.answer(&answer("WWW.Example.jp", records, 60), now);
    assert_eq!(names(&flows, ip, now), ["www.example.jp"]);
    assert_eq!(flows.bad_answers(), 0);
}

#[rstest]
#[case::query(0x0100, 1)]
#[case::no_such_name(0x8183, 1)]
#[case::refused(0x8185, 1)]
#[case::no_question(RESPONSE, 0)]
#[case::two_questions(RESPONSE, 2)]
fn other_messages_say_nothing(#[case] flags: u16, #[case] questions: u16) {
    let now = Instant::now();
    let mut flows = Flows::default();
    flows.answer(&message(flags, questions, &wire_name(b"example.jp"), &[A], 60), now);
    assert_eq!(names(&flows, "192.0.2.1", now), [""; 0]);
    assert_eq!(flows.bad_answers(), 0);
}

#[rstest]
#[case::a_name_that_points_to_itself(message(RESPONSE, 1, &[0xc0, 12], &[A], 60))]
#[case::a_name_that_points_ahead(message(RESPONSE, 1, &[0xc0, 14, 0], &[A], 60))]
#[case::a_name_without_end(message(RESPONSE, 1, &endless(), &[A], 60))]
#[case::a_short_address(answer("example.jp", &[A, (1, &[192, 0, 2])], 60))]
#[case::a_long_address(answer("example.jp", &[A, (1, &[192, 0, 2, 1, 1])], 60))]
#[case::nothing(Vec::new())]
#[case::no_dns(b"hello".to_vec())]
fn bad_messages_are_counted_and_change_nothing(#[case] message: Vec<u8>) {
    let now = Instant::now();
    let mut flows = Flows::default();
    flows.answer(&message, now);
    assert_eq!(names(&flows, "192.0.2.1", now), [""; 0]);
    assert_eq!(flows.bad_answers(), 1);
}

/// A name that goes on at its own beginning.
fn endless() -> Vec<u8> {
    [b"\x01a".repeat(100), vec![0xc0, 12]].concat()
}

#[test]
fn a_message_that_is_cut_anywhere_is_bad() {
    let now = Instant::now();
    let whole = answer("example.jp", &[ALIAS, A], 60);
    let mut flows = Flows::default();
    for end in 0..whole.len() {
        flows.answer(&whole[..end], now);
    }
    assert_eq!(names(&flows, "192.0.2.1", now), [""; 0]);
    assert_eq!(flows.bad_answers(), whole.len() as u64);
}

#[rstest]
#[case::short(1, 600)]
#[case::as_said(7200, 7200)]
#[case::long(u32::MAX, 24 * 3600)]
fn a_name_is_kept_for_its_time(#[case] ttl: u32, #[case] kept_secs: u64) {
    let now = Instant::now();
    let mut flows = Flows::default();
    flows.answer(&answer("example.jp", &[A], ttl), now);
    let end = now + Duration::from_secs(kept_secs);
    assert_eq!(names(&flows, "192.0.2.1", end - Duration::from_millis(1)), ["example.jp"]);
    assert_eq!(names(&flows, "192.0.2.1", end), [""; 0]);
}

#[test]
fn the_latest_names_of_an_address_stay() {
    let now = Instant::now();
    let mut flows = Flows::default();
    for name in ["a", "b", "c", "d", "b", "e"] {
        flows.answer(&answer(name, &[A], 60), now);
    }
    let latest = names(&flows, "192.0.2.1", now);
    assert_eq!(latest, ["e", "b", "d", "c"]);
    assert_eq!(latest.len(), NAMES_PER_ADDRESS_MAX);
}

#[test]
fn the_address_that_was_answered_longest_ago_goes() {
    let now = Instant::now();
    let mut flows = Flows::default();
    let learn = |flows: &mut Flows, number: u32| {
        flows.answer(&answer("example.jp", &[(1, &number.to_be_bytes())], 60), now);
    };
    learn(&mut flows, 1);
    learn(&mut flows, 2);
    for number in 3..=ADDRESSES_MAX as u32 {
        learn(&mut flows, number);
    }
    learn(&mut flows, 1);
    learn(&mut flows, u32::MAX);
    assert_eq!(names(&flows, "0.0.0.1", now), ["example.jp"]);
    assert_eq!(names(&flows, "0.0.0.2", now), [""; 0]);
}

#[rstest]
#[case::encoded("xn--wgv71a119e.jp", "xn--wgv71a119e.jp")]
#[case::bytes("a b\\\x01.日.jp", r"a\032b\092\001.\230\151\165.jp")]
fn names_are_printable(#[case] asked: &str, #[case] expected: &str) {
    let now = Instant::now();
    let mut flows = Flows::default();
    flows.answer(&answer(asked, &[A], 60), now);
    assert_eq!(names(&flows, "192.0.2.1", now), [expected]);
}

#[test]
fn a_dot_in_a_label_separates_nothing() {
    let now = Instant::now();
    let mut flows = Flows::default();
    flows.answer(&message(RESPONSE, 1, b"\x06www.jp\0", &[A], 60), now);
    assert_eq!(names(&flows, "192.0.2.1", now), [r"www\046jp"]);
}
