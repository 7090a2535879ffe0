//! What is sent and answered over a network.
#![no_main]

use std::time::Instant;

use arbitrary::{Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use sekimori_agent::flow::Flows;
use sekimori_agent::limits::{
    HOST_BYTES_MAX, HTTP_METHOD_BYTES_MAX, HTTP_PATH_BYTES_MAX, RECIPIENTS_MAX,
};
use sekimori_fuzz::seeds::{self, piece};
use sekimori_fuzz::tls;
use sekimori_proto::v1::Destination;

/// What happens to one of a few sockets.
#[derive(Debug)]
struct Piece {
    what: u8,
    socket: u64,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Pieces(Vec<Piece>);

impl<'a> Arbitrary<'a> for Pieces {
    fn arbitrary(input: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let mut pieces = Vec::new();
        while !input.is_empty() {
            let [what, low, high] = <[u8; 3]>::arbitrary(input)?;
            let length = usize::from(u16::from_le_bytes([low, high])).min(input.len());
            let bytes = input.bytes(length)?.to_vec();
            pieces.push(Piece {
                what: what % 8 % piece::COUNT,
                socket: u64::from(what / 8 % 4),
                bytes,
            });
        }
        Ok(Self(pieces))
    }
}

fuzz_target!(
    init: seeds::write(seeds::flows()),
    |pieces: Pieces| {
        let (mut flows, now) = (Flows::default(), Instant::now());
        let mut sent = [0_u64; 4];
        for Piece { what, socket, bytes } in &pieces.0 {
            let sent = &mut sent[*socket as usize];
            match (*what, bytes.as_slice()) {
                (piece::STREAM, bytes) => {
                    flows.payload(*socket, false, *sent, bytes);
                    *sent += bytes.len() as u64;
                }
                (piece::STREAM_AT, [low, high, bytes @ ..]) => {
                    let offset = u16::from_le_bytes([*low, *high]);
                    // The last of them stand for the end of the number space.
                    let offset = u64::from(offset).wrapping_sub(16);
                    flows.payload(*socket, false, offset, bytes);
                }
                (piece::DATAGRAM, bytes) => flows.payload(*socket, true, 0, bytes),
                (piece::FRAMES, frames) => {
                    let packet = tls::initial(frames).unwrap_or_default();
                    flows.payload(*socket, true, 0, &packet);
                }
                (piece::ANSWER, bytes) => flows.answer(bytes, now),
                _ => {
                    flows.closed(*socket);
                    *sent = 0;
                }
            }
            check(&flows, *socket, now);
        }
    }
);

/// What is learned is short and safe to show.
fn check(flows: &Flows, socket: u64, now: Instant) {
    let mut destination = Destination { ip: "192.0.2.1".to_owned(), ..Destination::default() };
    flows.describe(socket, &mut destination, now);
    for name in &destination.names {
        assert!((1..=HOST_BYTES_MAX).contains(&name.name.len()));
        assert!(name.name.bytes().all(|byte| byte.is_ascii_graphic()));
    }
    if let Some(http) = destination.http {
        assert!(http.method.len() <= HTTP_METHOD_BYTES_MAX);
        assert!(http.path.len() <= HTTP_PATH_BYTES_MAX && !http.path.contains(&b'?'));
    }
    if let Some(smtp) = destination.smtp {
        assert!(smtp.to.len() <= RECIPIENTS_MAX);
    }
}
