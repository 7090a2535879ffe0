//! Live streams of events that are encoded already: the same service and the same bytes on the wire
//! as in [`crate::v1`], without an [`Event`] in between.
//!
//! A message and bytes look alike on the wire (protobuf.dev/programming-guides/encoding,
//! "Length-Delimited Records"), and a field that comes again replaces what came before ("Last One
//! Wins").

use prost::Message;
use prost::bytes::Bytes;

use crate::v1::{Event, Gap};

/// Server made from the .proto file.
#[allow(missing_docs, clippy::all, reason = "generated code")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/forward/sekimori.v1.rs"));
}

pub use generated::watch_service_server;

/// `sekimori.v1.SubscribeResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct SubscribeResponse {
    /// An encoded event: [`encoded`].
    #[prost(bytes = "bytes", optional, tag = "1")]
    pub event: Option<Bytes>,
    /// Instead of an event: some were here that cannot be read any more.
    #[prost(message, optional, tag = "2")]
    pub gap: Option<Gap>,
}

/// The encoded event `body` as it is shown: of this host, at this cursor.
pub fn encoded(body: &[u8], host: &str, cursor: u64) -> Bytes {
    let place = Event { host: host.to_owned(), cursor, ..Event::default() };
    let mut bytes = Vec::with_capacity(body.len() + place.encoded_len());
    bytes.extend_from_slice(body);
    place.encode_raw(&mut bytes);
    bytes.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::v1::{self, Process};

    #[test]
    fn on_the_wire_it_is_the_other() {
        let event = Event {
            host: "what the agent says".into(),
            cursor: 7,
            time_ns: -1,
            process: Some(Process { pid: 3, ..Process::default() }),
            ..Event::default()
        };
        let mut body = event.encode_to_vec();
        let more = Process { user: "花子".into(), ..Process::default() };
        body.extend(Event { process: Some(more), ..Event::default() }.encode_to_vec());
        let event = Some(encoded(&body, "本社-1", u64::MAX));
        let bytes = SubscribeResponse { event, gap: None }.encode_to_vec();
        let read = v1::SubscribeResponse::decode(bytes.as_slice()).unwrap();
        let process = Process { pid: 3, user: "花子".into(), ..Process::default() };
        let shown = Event {
            host: "本社-1".into(),
            cursor: u64::MAX,
            time_ns: -1,
            process: Some(process),
            ..Event::default()
        };
        assert_eq!(read, v1::SubscribeResponse { event: Some(shown), gap: None });

        let gap = Gap { first: 1, last: 2, reason: "x".into() };
        let bytes = SubscribeResponse { event: None, gap: Some(gap.clone()) }.encode_to_vec();
        let read = v1::SubscribeResponse::decode(bytes.as_slice()).unwrap();
        assert_eq!(read, v1::SubscribeResponse { event: None, gap: Some(gap) });
    }
}
