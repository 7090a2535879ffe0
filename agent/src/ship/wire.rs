//! The stream's messages with their events as they lie in the spool: encoded once is enough.

use bytes::Bytes;
use prost::Message;
use sekimori_proto::v1::{Event, IngestResponse};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

use crate::limits;
use crate::spool::{Batch, BatchEntry};

/// `sekimori.v1.IngestService.Stream`.
const STREAM: &str = "/sekimori.v1.IngestService/Stream";

/// An `IngestRequest`. On the wire an embedded message is its bytes behind their number.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Request {
    #[prost(uint64, tag = "1")]
    pub batch: u64,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub events: Vec<Bytes>,
}

/// The event as it is sent: what was spooled, and behind it boot, sequence and lane. Fields of a
/// message may come in any order.
pub(super) fn event(batch: &Batch, entry: &BatchEntry) -> Bytes {
    let rest = Event {
        boot: batch.boot.to_vec(),
        sequence: entry.sequence,
        lane: batch.lane.number(),
        ..Event::default()
    };
    let mut bytes = Vec::with_capacity(entry.payload.len() + rest.encoded_len());
    bytes.extend_from_slice(&entry.payload);
    bytes.extend_from_slice(&rest.encode_to_vec());
    bytes.into()
}

/// Opens the stream.
pub(super) async fn open(
    channel: Channel,
    requests: impl tokio_stream::Stream<Item = Request> + Send + 'static,
) -> Result<Streaming<IngestResponse>, Status> {
    let mut grpc = Grpc::new(channel).max_decoding_message_size(limits::ANSWER_BYTES_MAX);
    grpc.ready().await.map_err(|error| Status::unavailable(crate::causes::causes(&error)))?;
    let codec = ProstCodec::<Request, IngestResponse>::default();
    let path = PathAndQuery::from_static(STREAM);
    let response = grpc.streaming(tonic::Request::new(requests), path, codec).await?;
    Ok(response.into_inner())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use prost::Message as _;
    use sekimori_proto::v1::{Event, IngestRequest, Kind};

    use super::{Request, event};
    use crate::spool::{Batch, BatchEntry, Lane, SharedSpool, Spool, SpoolConfig};

    #[test]
    fn it_is_an_ingest_request() {
        let directory = tempfile::tempdir().unwrap();
        let (spool, _) = Spool::open(directory.path(), SpoolConfig::default()).unwrap();
        let spool = SharedSpool::new(spool);
        let made = Event {
            kind: Kind::Exec.into(),
            message: "持出し".to_owned(),
            lane: 1,
            ..Event::default()
        };
        spool.append(Lane::Alerts, &made).unwrap();
        spool.flush(0).unwrap();
        let batch: Batch = spool.next_batch(&mut spool.reader()).unwrap();
        let entry: &BatchEntry = batch.entries.first().unwrap();
        let request = Request { batch: 7, events: vec![event(&batch, entry)] };
        let read = IngestRequest::decode(request.encode_to_vec().as_slice()).unwrap();
        assert_eq!(read, IngestRequest { batch: 7, events: vec![batch.event(entry).unwrap()] });
    }
}
