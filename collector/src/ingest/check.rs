//! What an agent may send. Everything is refused that is too long to be true or names no event.

use bytes::Bytes;
use prost::Message as _;
use sekimori_proto::v1::{Destination, Device, Event, File, Kind, Loss, Process};
use sekimori_proto::words::Word as _;
use thiserror::Error;

use crate::limits::{
    ANCESTORS_MAX, ARGV_BYTES_MAX, ARGV_PARTS_MAX, BATCH_EVENTS_MAX, BOOT_BYTES, EVENT_BYTES_MAX,
    NAME_BYTES_MAX, PATH_BYTES_MAX, SENTENCE_BYTES_MAX, SHA256_BYTES,
};
use crate::store::Entry;
use crate::store::plain;

/// What is wrong with a batch.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BatchError {
    /// Too many events.
    #[error("batch {batch}: {count} events, at most {BATCH_EVENTS_MAX}")]
    TooMany {
        /// The batch's number.
        batch: u64,
        /// Its events.
        count: usize,
    },
    /// One event; the first one that is bad.
    #[error("batch {batch}, event {index} (sequence {sequence}): {fault}")]
    Event {
        /// The batch's number.
        batch: u64,
        /// Place in the batch, from 0.
        index: usize,
        /// The event's number.
        sequence: u64,
        /// What is wrong.
        fault: Fault,
    },
}

impl BatchError {
    /// What is wrong, in one of few words.
    pub const fn reason(&self) -> &'static str {
        match self {
            BatchError::TooMany { .. } => "events",
            BatchError::Event { fault, .. } => match fault {
                Fault::Unreadable(_) => "unreadable",
                Fault::Boot(_) => "boot",
                Fault::Sequence => "sequence",
                Fault::Kind => "kind",
                Fault::Collectors(_) => "collectors-own",
                Fault::TooLong { .. } => "too-long",
            },
        }
    }
}

/// What is wrong with an event.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// No event.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// Not an agent boot.
    #[error("boot has {0} bytes, expected exactly {BOOT_BYTES}")]
    Boot(usize),
    /// Not a sequence number.
    #[error("sequence must be from 1 to 2^63 - 1")]
    Sequence,
    /// Nothing says what happened.
    #[error("kind is not set")]
    Kind,
    /// Only the collector says what happens there.
    #[error("records of kind {} are the collector's own", .0.word())]
    Collectors(Kind),
    /// A field that is too long.
    #[error("{field} has {size} {unit}, at most {limit}")]
    TooLong {
        /// Which.
        field: &'static str,
        /// Its size.
        size: usize,
        /// Bytes, parts, ancestors.
        unit: &'static str,
        /// What is allowed.
        limit: usize,
    },
}

/// Checks a batch and makes it ready for the store.
///
/// # Errors
/// The first thing that is wrong, and where.
pub fn check_batch(batch: u64, events: Vec<Bytes>) -> Result<Vec<Entry>, BatchError> {
    if events.len() > BATCH_EVENTS_MAX {
        return Err(BatchError::TooMany { batch, count: events.len() });
    }
    let mut entries = Vec::with_capacity(events.len());
    for (index, body) in events.into_iter().enumerate() {
        let mut sequence = 0;
        let entry = check_event(body, &mut sequence);
        entries.push(entry.map_err(|fault| BatchError::Event { batch, index, sequence, fault })?);
    }
    Ok(entries)
}

fn check_event(body: Bytes, sequence: &mut u64) -> Result<Entry, Fault> {
    if let Some(facts) = plain::facts(&body) {
        *sequence = facts.sequence;
        if let Some(entry) = Entry::with(&facts, body.clone()) {
            return Ok(entry);
        }
    }
    decode_and_check(body, sequence)
}

/// The way of an event that is not plain.
pub(crate) fn decode_and_check(body: Bytes, sequence: &mut u64) -> Result<Entry, Fault> {
    at_most("event", body.len(), EVENT_BYTES_MAX)?;
    let event =
        Event::decode(body.as_ref()).map_err(|error| Fault::Unreadable(error.to_string()))?;
    *sequence = event.sequence;
    check_fields(&event)?;
    Entry::new(&event, body).ok_or(Fault::Boot(event.boot.len()))
}

fn check_fields(event: &Event) -> Result<(), Fault> {
    if event.boot.len() != BOOT_BYTES {
        return Err(Fault::Boot(event.boot.len()));
    }
    if event.sequence == 0 || i64::try_from(event.sequence).is_err() {
        return Err(Fault::Sequence);
    }
    // Kinds and verdicts that this collector does not know yet are kept: agents may be newer.
    if event.kind == 0 {
        return Err(Fault::Kind);
    }
    if let kind @ (Kind::Operator | Kind::Custody | Kind::Host | Kind::Alert) = event.kind() {
        return Err(Fault::Collectors(kind));
    }
    // Whatever kind it says that it is.
    let parts = [
        (event.act.is_some(), Kind::Operator),
        (event.custody.is_some(), Kind::Custody),
        (event.host_change.is_some(), Kind::Host),
        (event.alert.is_some(), Kind::Alert),
    ];
    if let Some((_, kind)) = parts.into_iter().find(|(there, _)| *there) {
        return Err(Fault::Collectors(kind));
    }
    at_most("rule", event.rule.len(), NAME_BYTES_MAX)?;
    at_most("message", event.message.len(), SENTENCE_BYTES_MAX)?;
    event.process.as_ref().map_or(Ok(()), check_ancestry)?;
    event.file.as_ref().map_or(Ok(()), check_file)?;
    event.destination.as_ref().map_or(Ok(()), check_destination)?;
    event.device.as_ref().map_or(Ok(()), check_device)?;
    event.sources.iter().try_for_each(check_file)?;
    at_most("sha256", event.sha256.len(), SHA256_BYTES)?;
    at_most("sha256_missing", event.sha256_missing.len(), SENTENCE_BYTES_MAX)?;
    event.loss.as_ref().map_or(Ok(()), check_loss)
}

fn check_ancestry(process: &Process) -> Result<(), Fault> {
    let mut ancestors = 0;
    let mut next = Some(process);
    while let Some(process) = next {
        check_process(process)?;
        next = process.parent.as_deref();
        ancestors += usize::from(next.is_some());
    }
    limited("process.parent", ancestors, "ancestors", ANCESTORS_MAX)
}

fn check_process(process: &Process) -> Result<(), Fault> {
    at_most("process.exe", process.exe.len(), PATH_BYTES_MAX)?;
    at_most("process.cwd", process.cwd.len(), PATH_BYTES_MAX)?;
    limited("process.argv", process.argv.len(), "parts", ARGV_PARTS_MAX)?;
    at_most("process.argv", process.argv.iter().map(Vec::len).sum(), ARGV_BYTES_MAX)?;
    let environment = &process.environment;
    limited("process.environment", environment.len(), "parts", ARGV_PARTS_MAX)?;
    at_most("process.environment", environment.iter().map(Vec::len).sum(), ARGV_BYTES_MAX)?;
    at_most("process.user", process.user.len(), NAME_BYTES_MAX)?;
    at_most("process.login_user", process.login_user.len(), NAME_BYTES_MAX)?;
    at_most("process.tty", process.tty.len(), NAME_BYTES_MAX)?;
    at_most("process.comm", process.comm.len(), NAME_BYTES_MAX)
}

fn check_file(file: &File) -> Result<(), Fault> {
    at_most("file.path", file.path.len(), PATH_BYTES_MAX)?;
    at_most("file.new_path", file.new_path.len(), PATH_BYTES_MAX)?;
    at_most("file.attribute", file.attribute.len(), PATH_BYTES_MAX)?;
    file.device.as_ref().map_or(Ok(()), check_device)
}

fn check_device(device: &Device) -> Result<(), Fault> {
    at_most("device.class", device.class.len(), NAME_BYTES_MAX)?;
    at_most("device.vendor", device.vendor.len(), NAME_BYTES_MAX)?;
    at_most("device.product", device.product.len(), NAME_BYTES_MAX)?;
    at_most("device.serial", device.serial.len(), NAME_BYTES_MAX)?;
    at_most("device.port", device.port.len(), NAME_BYTES_MAX)?;
    at_most("device.vendor_name", device.vendor_name.len(), NAME_BYTES_MAX)?;
    at_most("device.product_name", device.product_name.len(), NAME_BYTES_MAX)?;
    device.functions.iter().try_for_each(|it| at_most("device.functions", it.len(), NAME_BYTES_MAX))
}

fn check_destination(destination: &Destination) -> Result<(), Fault> {
    at_most("destination.ip", destination.ip.len(), NAME_BYTES_MAX)?;
    at_most("destination.protocol", destination.protocol.len(), NAME_BYTES_MAX)?;
    at_most("destination.path", destination.path.len(), PATH_BYTES_MAX)?;
    let names = &destination.names;
    names
        .iter()
        .try_for_each(|it| at_most("destination.names", it.name.len(), SENTENCE_BYTES_MAX))?;
    if let Some(http) = &destination.http {
        at_most("destination.http.method", http.method.len(), NAME_BYTES_MAX)?;
        at_most("destination.http.path", http.path.len(), PATH_BYTES_MAX)?;
    }
    let smtp = destination.smtp.iter();
    let mut addresses = smtp.flat_map(|it| std::iter::once(&it.from).chain(&it.to));
    addresses.try_for_each(|it| at_most("destination.smtp", it.len(), SENTENCE_BYTES_MAX))
}

fn check_loss(loss: &Loss) -> Result<(), Fault> {
    at_most("loss.stage", loss.stage.len(), NAME_BYTES_MAX)?;
    at_most("loss.reason", loss.reason.len(), SENTENCE_BYTES_MAX)
}

fn at_most(field: &'static str, size: usize, limit: usize) -> Result<(), Fault> {
    limited(field, size, "bytes", limit)
}

fn limited(
    field: &'static str,
    size: usize,
    unit: &'static str,
    limit: usize,
) -> Result<(), Fault> {
    if size > limit {
        return Err(Fault::TooLong { field, size, unit, limit });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use rstest::rstest;
    use sekimori_proto::v1::{Custody, OperatorAct};

    use super::*;

    fn checked(batch: u64, events: &[Event]) -> Result<Vec<Entry>, BatchError> {
        check_batch(batch, events.iter().map(|event| event.encode_to_vec().into()).collect())
    }

    fn good() -> Event {
        Event { boot: vec![7; 16], sequence: 1, kind: 6, ..Event::default() }
    }

    fn with_process(process: Process) -> Event {
        Event { process: Some(process), ..good() }
    }

    fn chain(ancestors: usize) -> Event {
        let mut process = Process::default();
        for _ in 0..ancestors {
            process = Process { parent: Some(Box::new(process)), ..Process::default() };
        }
        with_process(process)
    }

    #[rstest]
    #[case::plain(good())]
    #[case::a_kind_of_the_future(Event { kind: 9999, ..good() })]
    #[case::path_of_4000_bytes(Event {
        file: Some(File { path: vec![0xff; 4000], ..File::default() }), ..good()
    })]
    #[case::many_ancestors(chain(32))]
    #[case::long_argv(with_process(Process { argv: vec![vec![1; 65536]], ..Process::default() }))]
    fn accepted(#[case] event: Event) {
        checked(1, &[event]).unwrap();
    }

    #[rstest]
    #[case(Event { boot: vec![], ..good() }, "boot has 0 bytes, expected exactly 16")]
    #[case(Event { boot: vec![1; 17], ..good() }, "boot has 17 bytes, expected exactly 16")]
    #[case(Event { sequence: 0, ..good() }, "sequence must be from 1 to 2^63 - 1")]
    #[case(Event { sequence: u64::MAX, ..good() }, "sequence must be from 1 to 2^63 - 1")]
    #[case(Event { kind: 0, ..good() }, "kind is not set")]
    #[case(Event { kind: 103, ..good() }, "records of kind operator are the collector's own")]
    #[case(Event { kind: 105, ..good() }, "records of kind custody are the collector's own")]
    #[case(
        Event { custody: Some(Custody::default()), ..good() },
        "records of kind custody are the collector's own"
    )]
    #[case(
        Event { act: Some(OperatorAct::default()), ..good() },
        "records of kind operator are the collector's own"
    )]
    #[case(Event { kind: 106, ..good() }, "records of kind host are the collector's own")]
    #[case(Event { rule: "r".repeat(257), ..good() }, "rule has 257 bytes, at most 256")]
    #[case(
        Event { file: Some(File { path: vec![1; 8193], ..File::default() }), ..good() },
        "file.path has 8193 bytes, at most 8192"
    )]
    #[case(
        with_process(Process { argv: vec![vec![1; 40000]; 2], ..Process::default() }),
        "process.argv has 80000 bytes, at most 65536"
    )]
    #[case(
        with_process(Process { environment: vec![vec![1; 40000]; 2], ..Process::default() }),
        "process.environment has 80000 bytes, at most 65536"
    )]
    #[case(chain(33), "process.parent has 33 ancestors, at most 32")]
    fn refused(#[case] event: Event, #[case] fault: &str) {
        let sequence = event.sequence;
        let error = checked(3, &[good(), event]).unwrap_err();
        assert_eq!(error.to_string(), format!("batch 3, event 1 (sequence {sequence}): {fault}"));
    }

    #[test]
    fn what_is_no_event_is_refused() {
        let good = good().encode_to_vec();
        let error = check_batch(3, vec![good.into(), Bytes::from_static(b"\x0a\xff")]).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("batch 3, event 1 (sequence 0): it cannot be read: "), "{text}");
    }

    #[test]
    fn a_batch_has_at_most_a_thousand_events() {
        checked(1, &vec![good(); 1000]).unwrap();
        let error = checked(1, &vec![good(); 1001]).unwrap_err();
        assert_eq!(error, BatchError::TooMany { batch: 1, count: 1001 });
    }
}
