//! What goes in one request.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message as _;
use sekimori_proto::v1::Event;

use super::record;
use crate::limits::OTLP_REQUEST_BYTES;
use crate::store::{Gap, Step};

/// What is to be sent, in the order of the cursors.
#[derive(Clone, Debug)]
pub enum Item {
    /// An event.
    Event(Box<Event>),
    /// Events that are not there.
    Gap(Gap),
}

impl Item {
    /// Everything up to here is done with when it was taken.
    pub fn cursor(&self) -> u64 {
        match self {
            Item::Event(event) => event.cursor,
            // What is behind its first may be there.
            Item::Gap(gap) => gap.first,
        }
    }

    /// Of a step that began at `position`, when everything up to `removed` has been removed.
    pub fn of(step: Step<Event>, position: u64, removed: u64) -> Vec<Item> {
        let Step { events, gaps, position: end, .. } = step;
        let events = events.into_iter().map(|it| Item::Event(Box::new(it)));
        let mut items: Vec<Item> = gaps.into_iter().map(Item::Gap).chain(events).collect();
        items.sort_by_key(Item::cursor);
        // Retention may come while a file is read: what was read is not missing.
        let before = items.first().map_or(end, |first| first.cursor().saturating_sub(1));
        let last = removed.min(before);
        if last > position {
            let reason = "they were kept as long as this collector keeps them".to_owned();
            items.insert(0, Item::Gap(Gap { first: position.saturating_add(1), last, reason }));
        }
        items
    }
}

/// A request with the first of `items`: at most `limit`, of [`OTLP_REQUEST_BYTES`] in sum unless it
/// is a single one; and how many of them it has.
pub fn of(items: &[Item], limit: usize, observed_ns: u64) -> (ExportLogsServiceRequest, usize) {
    let (mut resource_logs, mut taken, mut bytes) = (Vec::<(&str, Vec<LogRecord>)>::new(), 0, 0);
    for item in items.iter().take(limit) {
        let (host, record) = match item {
            Item::Event(event) => (event.host.as_str(), record::of_event(event, observed_ns)),
            Item::Gap(gap) => ("", record::of_gap(gap, observed_ns)),
        };
        bytes += record.encoded_len();
        if taken > 0 && bytes > OTLP_REQUEST_BYTES {
            break;
        }
        taken += 1;
        // Hosts deliver in batches: few of them are in a request.
        match resource_logs.iter_mut().find(|(known, _)| *known == host) {
            Some((_, records)) => records.push(record),
            None => resource_logs.push((host, vec![record])),
        }
    }
    let resource_logs = resource_logs.into_iter().map(|(host, records)| of_host(host, records));
    (ExportLogsServiceRequest { resource_logs: resource_logs.collect() }, taken)
}

fn of_host(host: &str, log_records: Vec<LogRecord>) -> ResourceLogs {
    let mut attributes = vec![record::text("service.name", "sekimori")];
    if !host.is_empty() {
        attributes.push(record::text("host.name", host));
    }
    let scope = InstrumentationScope {
        name: "sekimori".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    ResourceLogs {
        resource: Some(Resource { attributes, ..Resource::default() }),
        scope_logs: vec![ScopeLogs { scope: Some(scope), log_records, ..ScopeLogs::default() }],
        ..ResourceLogs::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn event(host: &str, cursor: u64, bytes: usize) -> Item {
        let (host, message) = (host.to_owned(), "x".repeat(bytes));
        Item::Event(Box::new(Event { host, cursor, message, ..Event::default() }))
    }

    fn cursors(items: &[Item]) -> Vec<u64> {
        items.iter().map(Item::cursor).collect()
    }

    #[test]
    fn bounded_by_number_and_by_bytes_but_never_empty() {
        let items: Vec<Item> = (1..=10).map(|it| event("a", it, 10)).collect();
        assert_eq!(of(&items, 4, 0).1, 4);
        assert_eq!(of(&items, 1000, 0).1, 10);
        let half = OTLP_REQUEST_BYTES / 2 - 4096;
        let large: Vec<Item> = (1..=3).map(|it| event("a", it, half)).collect();
        let (request, taken) = of(&large, 1000, 0);
        assert_eq!(taken, 2);
        assert!(request.encoded_len() <= OTLP_REQUEST_BYTES);
        let one = [event("a", 1, OTLP_REQUEST_BYTES + 1), event("a", 2, 1)];
        assert_eq!(of(&one, 1000, 0).1, 1);
    }

    #[test]
    fn each_host_is_a_resource() {
        let items = [event("a", 1, 1), event("b", 2, 1), event("a", 3, 1)];
        let (request, _) = of(&items, 1000, 0);
        let found: Vec<(String, usize)> = request
            .resource_logs
            .iter()
            .map(|it| {
                let host = it.resource.as_ref().unwrap().attributes.last().unwrap();
                (format!("{:?}", host.value), it.scope_logs[0].log_records.len())
            })
            .collect();
        assert!(found[0].0.contains("\"a\"") && found[1].0.contains("\"b\""), "{found:?}");
        assert_eq!((found[0].1, found[1].1, found.len()), (2, 1, 2));
    }

    #[test]
    fn what_retention_removed_is_a_gap_unless_it_was_read_before() {
        let step = |cursors: &[u64]| Step {
            events: cursors
                .iter()
                .map(|cursor| Event { cursor: *cursor, ..Event::default() })
                .collect(),
            position: 30,
            gaps: vec![Gap { first: 25, last: 25, reason: "damaged".to_owned() }],
            is_last: true,
        };
        assert_eq!(cursors(&Item::of(step(&[21, 26]), 20, 0)), [21, 25, 26]);
        assert_eq!(cursors(&Item::of(step(&[21, 26]), 20, 20)), [21, 25, 26]);
        let items = Item::of(step(&[21, 26]), 10, 20);
        assert_eq!(cursors(&items), [11, 21, 25, 26]);
        assert!(matches!(&items[0], Item::Gap(gap) if (gap.first, gap.last) == (11, 20)));
        // They were read, and then removed.
        assert_eq!(cursors(&Item::of(step(&[21, 26]), 20, 40)), [21, 25, 26]);
        // Some were removed before, and some after they were read.
        let items = Item::of(step(&[21, 26]), 10, 40);
        assert!(matches!(&items[0], Item::Gap(gap) if (gap.first, gap.last) == (11, 20)));
        assert_eq!(items.len(), 4);
        // Nothing could be read: what lies behind this step is told by the next one.
        let nothing = |position| Step { events: vec![], position, gaps: vec![], is_last: true };
        let items = Item::of(nothing(30), 10, 40);
        assert!(matches!(&items[..], [Item::Gap(gap)] if (gap.first, gap.last) == (11, 30)));
        assert!(Item::of(nothing(10), 10, 40).is_empty());
    }
}
