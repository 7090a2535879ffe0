//! The collector between an agent's stream and what people are told, without a network.

use std::collections::BTreeMap;

use prost::Message as _;
use sekimori_collector::identity::{Agent, Caller, Peer, Viewer};
use sekimori_collector::ingest::check_batch;
use sekimori_collector::store::{Batch, Condition, Entry, Groups, Position, Search, Store};
use sekimori_evidence::{Scope, Verifier};
use sekimori_proto::json;
use sekimori_proto::v1::{Event, Field, Filter, IngestRequest, Order};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tonic::Request;

/// Batches that one store is given; each looks at all blocks before it.
const BATCHES_MAX: u64 = 500;
/// One input in so many is stored: a commit takes longer than all else.
const STORED: usize = 8;
/// Events of one page.
const PAGE_EVENTS: u32 = 7;

/// A store, and who writes and reads it.
pub struct Collector {
    runtime: Runtime,
    store: Store,
    batches: u64,
    _dir: TempDir,
}

impl Collector {
    /// With an empty store, in memory where there is such a place.
    #[must_use]
    pub fn new() -> Self {
        let dir = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).expect("a directory");
        let store = Store::open(&dir.path().join("store"), None).expect("a store");
        let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
        Self { runtime, store, batches: 0, _dir: dir }
    }

    /// One message of a stream, or one event, from its bytes to what is read and told. Answers
    /// whether it was taken.
    pub fn take(&mut self, bytes: &[u8]) -> bool {
        let request = IngestRequest::decode(bytes).unwrap_or_default();
        let (batch, mut events) = (request.batch, request.events);
        if events.is_empty() {
            events.push(bytes.to_vec().into());
        }
        let Ok(entries) = check_batch(batch, events.clone()) else { return false };
        let events: Vec<_> = events
            .into_iter()
            .map(|bytes| Event::decode(bytes).expect("what was taken is readable"))
            .collect();
        events.iter().for_each(tell);
        if bytes.iter().fold(0, |sum, byte| sum + usize::from(*byte)) % STORED == 0 {
            self.keep(&entries, events);
        }
        true
    }

    /// Stores a batch twice, and reads it.
    fn keep(&mut self, entries: &[Entry], events: Vec<Event>) {
        if self.batches >= BATCHES_MAX {
            *self = Self::new();
        }
        self.batches += 1;
        // Nothing of this batch is in the store yet, whatever came before.
        let host = format!("pc-{}", self.batches);
        let call = call(&host);
        let agent = Agent::of(&call).expect("root is an agent");
        let mut expected = BTreeMap::new();
        for event in events {
            let event = Event { host: host.clone(), cursor: 0, ..event };
            expected.entry((event.boot.clone(), event.sequence)).or_insert(event);
        }
        let writer = self.store.writer();
        let batch = || Batch::new(&agent, entries.to_vec());
        let answers = self.runtime.block_on(async {
            let first = writer.submit(batch()).await.expect("room");
            let second = writer.submit(batch()).await.expect("room");
            [first.await, second.await]
        });
        let stored = answers.map(|it| it.expect("an answer").expect("it is stored"));
        assert_eq!(stored, [expected.len() as u32, 0]);
        let found = self.read(&call, &host);
        let mut in_order: Vec<_> = expected.into_values().collect();
        in_order.sort_by_key(|event| event.time_ns);
        let times = |events: &[Event]| events.iter().map(|it| it.time_ns).collect::<Vec<_>>();
        assert_eq!(times(&found), times(&in_order));
        for event in found {
            let same = Event { cursor: 0, ..event };
            assert!(in_order.contains(&same), "{same:?}");
        }
    }

    /// All that the store has of a host: counted, and page by page.
    fn read(&self, call: &Request<()>, host: &str) -> Vec<Event> {
        let viewer = Viewer::of(call).expect("root is an operator");
        let (reader, readers) = (viewer.operator(), self.store.readers());
        let filter = Filter { hosts: vec![host.to_owned()], ..Filter::default() };
        let condition = Condition::new(Some(&filter)).expect("a condition");
        let by = [Field::Kind, Field::User, Field::Day].map(i32::from);
        let groups = Groups::new(&by, Field::File.into(), 9 * 3600).expect("groups");
        let counted = readers.aggregate(reader, condition.clone(), u64::MAX, groups);
        let (groups, gaps) = self.runtime.block_on(counted).expect("they are counted");
        assert!(gaps.is_empty(), "{gaps:?}");
        let counted = groups.answer(Order::Unspecified, 10).events;
        let mut next = Some(Position { upper: u64::MAX, last: None });
        let mut found = Vec::new();
        while let Some(position) = next {
            let condition = condition.clone();
            let search = Search { condition, position, limit: PAGE_EVENTS, newest_first: false };
            let page = self.runtime.block_on(readers.search(reader, search)).expect("a page");
            assert!(page.gaps.is_empty(), "{:?}", page.gaps);
            found.extend(page.events);
            next = page.next;
        }
        assert_eq!(counted, found.len() as u64);
        found
    }
}

impl Default for Collector {
    fn default() -> Self {
        Self::new()
    }
}

/// A call by root on the unix socket of `host`, who is its agent and an operator as well.
fn call(host: &str) -> Request<()> {
    let peer = Peer::from_local_uid(0, 0, host).expect("root may enter");
    let mut request = Request::new(());
    request.extensions_mut().insert(Caller::Known(peer));
    request
}

/// An event as people, other systems and a verification get it.
fn tell(event: &Event) {
    let line = json::event(event);
    let parsed: serde_json::Value = serde_json::from_str(&line.to_string()).expect("JSON");
    assert_eq!(parsed, line);
    let _ = (sekimori_formats::ocsf(event).to_string(), sekimori_formats::ecs(event).to_string());
    let mut verifier = Verifier::new(Scope::Whole);
    let _ = verifier.look(&event.host, event.cursor, &event.encode_to_vec());
    let _ = verifier.finish();
}
