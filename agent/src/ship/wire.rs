//! The stream's messages with their events as they lie in the spool: encoded once is enough.

use bytes::Bytes;
use sekimori_evidence::Name;

use crate::spool::{Batch, BatchEntry};

/// Boot, sequence and lane with their tags.
const NAME_BYTES_MAX: usize = 32;

/// The event as it is sent: what was spooled, and behind it boot, sequence and lane. Fields of a
/// message may come in any order.
pub(super) fn event(batch: &Batch, entry: &BatchEntry) -> Bytes {
    let name = Name { boot: &batch.boot, sequence: entry.sequence, lane: batch.lane.number() };
    let mut bytes = Vec::with_capacity(entry.payload.len() + NAME_BYTES_MAX);
    bytes.extend_from_slice(&entry.payload);
    name.encode(&mut bytes);
    bytes.into()
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
