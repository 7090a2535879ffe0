//! The stream's messages with their events as they lie in the spool: encoded once is enough.

use bytes::Bytes;
use prost::Message as _;
use sekimori_proto::v1::ingest_service_client::IngestServiceClient;
use sekimori_proto::v1::{Event, IngestRequest, IngestResponse};
use tonic::transport::Channel;
use tonic::{Status, Streaming};

use crate::limits;
use crate::spool::{Batch, BatchEntry};

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
    requests: impl tokio_stream::Stream<Item = IngestRequest> + Send + 'static,
) -> Result<Streaming<IngestResponse>, Status> {
    let client = IngestServiceClient::new(channel);
    let mut client = client.max_decoding_message_size(limits::ANSWER_BYTES_MAX);
    Ok(client.stream(requests).await?.into_inner())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use prost::Message as _;
    use sekimori_proto::v1::{Event, Kind};

    use super::event;
    use crate::spool::{Batch, BatchEntry, Lane, SharedSpool, Spool, SpoolConfig};

    #[test]
    fn it_is_the_event_with_its_name() {
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
        let read = Event::decode(event(&batch, entry)).unwrap();
        assert_eq!(read, batch.event(entry).unwrap());
        assert_eq!((read.sequence, read.lane, read.boot.as_slice()), (1, 1, &batch.boot[..]));
    }
}
