//! Flows without a kernel.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
#![allow(clippy::arithmetic_side_effects, reason = "tests")]

mod answers;
mod hello;
mod hostile;
mod http;
mod quic;
mod smtp;

use std::time::Instant;

use sekimori_proto::v1::{Destination, NameSource};

use super::Flows;
use crate::limits::{FLOW_PIECES_MAX, FLOWS_MAX};

const SOCKET: u64 = 7;

fn described(flows: &Flows) -> Destination {
    let mut destination = Destination::default();
    flows.describe(SOCKET, &mut destination, Instant::now());
    destination
}

/// What is known of a connection over which this was sent, piece by piece.
fn sent<Piece: AsRef<[u8]>>(pieces: impl IntoIterator<Item = Piece>) -> Destination {
    let mut flows = Flows::default();
    let mut offset = 0;
    for piece in pieces {
        flows.payload(SOCKET, false, offset, piece.as_ref());
        offset += piece.as_ref().len() as u64;
    }
    described(&flows)
}

/// What is known of a UDP socket over which these datagrams were sent.
fn sent_datagrams<Piece: AsRef<[u8]>>(datagrams: &[Piece]) -> Destination {
    let mut flows = Flows::default();
    for datagram in datagrams {
        flows.payload(SOCKET, true, 0, datagram.as_ref());
    }
    described(&flows)
}

fn names(destination: &Destination) -> Vec<(&str, NameSource)> {
    destination.names.iter().map(|it| (it.name.as_str(), it.source())).collect()
}

const REQUEST: &[u8] = b"GET /a HTTP/1.1\r\nHost: www.example.jp\r\n\r\n";

#[test]
fn a_gap_ends_a_flow() {
    let mut flows = Flows::default();
    flows.payload(SOCKET, false, 0, &REQUEST[..20]);
    flows.payload(SOCKET, false, 21, &REQUEST[21..]);
    flows.payload(SOCKET, false, 20, &REQUEST[20..]);
    let destination = described(&flows);
    assert_eq!(names(&destination), []);
    assert_eq!(destination.http.unwrap().path, b"/a");
}

#[test]
fn what_begins_later_says_nothing() {
    let mut flows = Flows::default();
    flows.payload(SOCKET, false, 100, REQUEST);
    flows.payload(SOCKET, false, 0, REQUEST);
    assert_eq!(described(&flows), Destination::default());
}

#[test]
fn what_comes_twice_counts_once() {
    let mut flows = Flows::default();
    flows.payload(SOCKET, false, 0, &REQUEST[..30]);
    flows.payload(SOCKET, false, 0, &REQUEST[..10]);
    flows.payload(SOCKET, false, 25, &REQUEST[25..]);
    assert_eq!(names(&described(&flows)), [("www.example.jp", NameSource::Http)]);
}

#[test]
fn a_closed_socket_is_forgotten() {
    let mut flows = Flows::default();
    flows.payload(SOCKET, false, 0, REQUEST);
    flows.closed(SOCKET);
    assert_eq!(described(&flows), Destination::default());
}

#[test]
fn the_flow_that_was_not_used_longest_is_forgotten() {
    let mut flows = Flows::default();
    flows.payload(SOCKET, false, 0, REQUEST);
    for socket in 1..=FLOWS_MAX as u64 {
        flows.payload(1000 + socket, false, 0, b"G");
        if socket == 10 {
            flows.payload(SOCKET, false, 0, b"");
        }
    }
    let known = |flows: &Flows| !described(flows).names.is_empty();
    assert!(known(&flows));
    assert_eq!(flows.sockets.0.len(), FLOWS_MAX);
    for socket in 0..10 {
        flows.payload(socket << 32, false, 0, b"G");
    }
    assert!(!known(&flows));
}

#[test]
fn no_more_pieces_are_read_than_the_kernel_gives() {
    let pieces: Vec<&[u8]> = REQUEST.chunks(2).take(FLOW_PIECES_MAX).collect();
    let mut flows = Flows::default();
    for (index, piece) in pieces.iter().enumerate() {
        flows.payload(SOCKET, false, 2 * index as u64, piece);
    }
    assert!(matches!(flows.sockets.0.peek(&SOCKET).unwrap().state, super::State::Learned(_)));
    assert_eq!(described(&flows).http.unwrap().path, b"/a");
}

#[test]
fn names_of_the_flow_stand_before_those_of_its_address_and_none_twice() {
    let mut flows = Flows::default();
    let now = Instant::now();
    flows.answer(&answers::answer("www.example.jp", &[answers::A], 60), now);
    flows.payload(SOCKET, false, 0, REQUEST);
    let mut destination =
        Destination { ip: "::ffff:192.0.2.1".to_owned(), ..Destination::default() };
    flows.describe(SOCKET, &mut destination, now);
    flows.describe(SOCKET, &mut destination, now);
    let expected = [("www.example.jp", NameSource::Http), ("www.example.jp", NameSource::Dns)];
    assert_eq!(names(&destination), expected);
}
