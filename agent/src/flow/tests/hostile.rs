//! Whatever comes, the parsers end and keep no more than they may.

use std::time::Instant;

use proptest::prelude::*;
use sekimori_proto::v1::Destination;

use super::{SOCKET, answers, hello, quic};
use crate::flow::{Flows, State};
use crate::limits::{
    CRYPTO_BYTES_MAX, FLOW_BYTES_MAX, HOST_BYTES_MAX, HTTP_PATH_BYTES_MAX, RECIPIENTS_MAX,
};

/// Messages that are good before they are damaged.
fn good() -> Vec<Vec<u8>> {
    let message = quic::hello("www.example.jp");
    let frame = quic::crypto(&message, 0, message.len());
    vec![
        hello::hello("www.example.jp"),
        quic::INITIAL.packet(&frame, 1200),
        answers::answer("www.example.jp", &[answers::A, answers::A], 60),
        b"GET http://a:b@example.jp:80/%E6?b HTTP/1.1\r\nHost: a\r\nA: b\r\n\r\n".to_vec(),
        b"CONNECT [::1]:443 HTTP/1.1\r\nHost: [::1]:443\r\n\r\n".to_vec(),
        b"EHLO a\r\nMAIL FROM:<\"a\\\"\"@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n".to_vec(),
    ]
}

/// Beginnings that lead random bytes into the parsers.
const BEGINNINGS: [&[u8]; 9] = [
    b"",
    b"\x16\x03\x01\x01\x00\x01\x00\x00\xfc\x03\x03",
    b"\xc0\0\0\0\x01\x08",
    b"\xd0\x6b\x33\x43\xcf\0\0",
    b"\0\0\x81\x80\0\x01\0\x09\0\0\0\0",
    b"GET ",
    b"GET / HTTP/1.1\r\nHost:",
    b"EHLO a\r\nMAIL FROM:",
    b"EHLO a\r\nMAIL FROM:<a>\r\nRCPT TO:<",
];

fn check(pieces: &[Vec<u8>], datagram: bool) -> Result<(), TestCaseError> {
    let mut flows = Flows::default();
    let now = Instant::now();
    let mut offset = 0;
    for piece in pieces {
        flows.answer(piece, now);
        flows.payload(SOCKET, datagram, offset, piece);
        offset += piece.len() as u64;
        let kept = match &flows.sockets.0.peek(&SOCKET).unwrap().state {
            State::Stream(stream) => stream.unread().len(),
            State::Datagrams(datagrams) => datagrams.kept_bytes(),
            State::Learned(_) => 0,
        };
        let most = if datagram { CRYPTO_BYTES_MAX } else { FLOW_BYTES_MAX };
        prop_assert!(kept <= most);
        let mut destination = Destination { ip: "192.0.2.1".to_owned(), ..Destination::default() };
        flows.describe(SOCKET, &mut destination, now);
        for name in &destination.names {
            prop_assert!((1..=HOST_BYTES_MAX).contains(&name.name.len()));
            prop_assert!(name.name.bytes().all(|byte| byte.is_ascii_graphic()));
        }
        let http = destination.http.unwrap_or_default();
        prop_assert!(http.path.len() <= HTTP_PATH_BYTES_MAX && !http.path.contains(&b'?'));
        prop_assert!(destination.smtp.unwrap_or_default().to.len() <= RECIPIENTS_MAX);
    }
    Ok(())
}

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..most)
}

proptest! {
    #[test]
    fn anything_may_come(
        beginning in proptest::sample::select(&BEGINNINGS[..]),
        pieces in proptest::collection::vec(bytes(600), 1..20),
        datagram: bool,
    ) {
        let mut pieces = pieces;
        pieces[0].splice(..0, beginning.iter().copied());
        check(&pieces, datagram)?;
    }

    #[test]
    fn anything_may_be_cut_off_or_changed(
        which in 0..6_usize,
        end: prop::sample::Index,
        flips in proptest::collection::vec(any::<(prop::sample::Index, u8)>(), 0..8),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let mut bytes = good().swap_remove(which);
        bytes.truncate(end.index(bytes.len()) + 1);
        for (at, bits) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= bits;
        }
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        for cut in cuts.into_iter().rev() {
            pieces.insert(0, bytes.split_off(cut));
        }
        pieces.insert(0, bytes);
        check(&pieces, false)?;
        check(&pieces, true)?;
    }

    /// What is encrypted may be anything too.
    #[test]
    fn packets_may_hold_anything(
        frames in proptest::collection::vec(
            prop_oneof![
                bytes(100),
                (any::<u16>(), bytes(60)).prop_map(|(offset, data)| {
                    let offset = (0x4000 | (offset % 0x2100)).to_be_bytes();
                    [&[6], &offset[..], &[data.len() as u8], &data].concat()
                }),
                Just(vec![2, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]),
            ],
            0..20,
        ),
    ) {
        let packet = quic::INITIAL.packet(&frames.concat(), 4);
        check(&[packet.clone(), packet], true)?;
    }

    /// The message in a flow is found whatever the pieces are.
    #[test]
    fn pieces_may_have_any_size(
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..15),
    ) {
        let bytes = hello::hello("www.example.jp");
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let found = super::sent(cuts.windows(2).map(|it| &bytes[it[0]..it[1]]));
        prop_assert_eq!(&found.names[0].name, "www.example.jp");
    }
}
