//! The stream of an agent, with events as bytes that are made once.

use bytes::{BufMut as _, Bytes};
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint, uint64};
use sekimori_proto::v1::{Event, IngestResponse};
use tokio_stream::Stream;
use tonic::client::Grpc;
use tonic::codec::{Codec, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use tonic_prost::ProstDecoder;

/// `sekimori.v1.IngestService.Stream`.
const STREAM: &str = "/sekimori.v1.IngestService/Stream";
/// `batch` of an `IngestRequest`.
const BATCH: u32 = 1;
/// `events` of an `IngestRequest`.
const EVENTS: u32 = 2;

/// What no event says twice.
#[derive(Debug, Clone, Copy)]
pub struct Stamp {
    /// The agent's start.
    pub boot: [u8; 16],
    /// The number within it.
    pub sequence: u64,
    /// UTC ns since 1970.
    pub time_ns: i64,
}

impl Stamp {
    /// Behind an encoded event this makes it the one that the stamp names: of a field that comes
    /// twice the last one counts.
    pub fn encoded(&self) -> Vec<u8> {
        let Self { boot, sequence, time_ns } = *self;
        Event { boot: boot.to_vec(), sequence, time_ns, ..Event::default() }.encode_to_vec()
    }
}

/// An encoded `IngestRequest` of events without their stamps. On the wire an embedded message is
/// its bytes behind their number.
pub fn request<'a>(batch: u64, events: impl Iterator<Item = (Stamp, &'a [u8])>) -> Bytes {
    let mut out = Vec::new();
    uint64::encode(BATCH, &batch, &mut out);
    for (stamp, event) in events {
        let stamp = stamp.encoded();
        encode_key(EVENTS, WireType::LengthDelimited, &mut out);
        encode_varint((event.len() + stamp.len()) as u64, &mut out);
        out.extend_from_slice(event);
        out.extend_from_slice(&stamp);
    }
    out.into()
}

/// Opens the stream.
///
/// # Errors
/// What the collector answers.
pub async fn open(
    channel: Channel,
    requests: impl Stream<Item = Bytes> + Send + 'static,
) -> Result<Streaming<IngestResponse>, Status> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::from_static(STREAM);
    let response = grpc.streaming(tonic::Request::new(requests), path, Encoded).await?;
    Ok(response.into_inner())
}

/// Requests that are encoded already.
#[derive(Debug, Clone, Copy)]
struct Encoded;

impl Codec for Encoded {
    type Encode = Bytes;
    type Decode = IngestResponse;
    type Encoder = Self;
    type Decoder = ProstDecoder<IngestResponse>;

    fn encoder(&mut self) -> Self::Encoder {
        *self
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::default()
    }
}

impl Encoder for Encoded {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::events::Host;

    /// An `IngestRequest` whose events are still encoded.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Request {
        #[prost(uint64, tag = "1")]
        batch: u64,
        #[prost(bytes = "vec", repeated, tag = "2")]
        events: Vec<Vec<u8>>,
    }

    #[test]
    fn it_is_an_ingest_request_with_each_event_as_its_stamp_says() {
        let mut host = Host::new(1);
        let made: Vec<Event> = (0..3).map(|_| host.event()).collect();
        let encoded: Vec<Vec<u8>> = made.iter().map(Event::encode_to_vec).collect();
        let stamps = (10..).map(|sequence| Stamp { boot: [9; 16], sequence, time_ns: -5 });
        let request = request(4, stamps.zip(encoded.iter().map(Vec::as_slice)));
        let read = Request::decode(request).unwrap();
        assert_eq!(read.batch, 4);
        let decode = |event: &Vec<u8>| Event::decode(event.as_slice()).unwrap();
        let read: Vec<Event> = read.events.iter().map(decode).collect();
        let stamped = |(sequence, event): (u64, Event)| Event {
            boot: vec![9; 16],
            sequence,
            time_ns: -5,
            ..event
        };
        assert_eq!(read, (10..).zip(made).map(stamped).collect::<Vec<_>>());
    }
}
