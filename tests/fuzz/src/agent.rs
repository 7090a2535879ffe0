//! The agent between rings and spool, without a kernel and without what this machine knows.

use std::time::Instant;

use prost::Message as _;
use sekimori_abi::event::{ABI_VERSION, EVENT_BYTES, Event, kind, operation, verdict};
use sekimori_abi::limits::TEXT_BYTES_MAX;
use sekimori_agent::decode::{Raw, decode, printable};
use sekimori_agent::enrich::{
    Clock, Enricher, Found, MountLocator, Mounts, ProcessTable, Processes, Users,
};
use sekimori_agent::flow::Flows;
use sekimori_agent::record::{Counters, Losses, RuleBook, RuleFact, Skipped, event};
use sekimori_proto::{json, v1};
use zerocopy::{FromBytes as _, IntoBytes as _};

/// Processes that valid records speak of: few, so that records meet.
const PROCESSES: u32 = 8;

struct Nobody;

impl Processes for Nobody {
    fn find(&self, _: u32) -> Option<Found> {
        None
    }

    fn all(&self) -> Vec<Found> {
        Vec::new()
    }
}

struct OneStick(bool);

impl MountLocator for OneStick {
    fn changed(&mut self) -> Option<Vec<u8>> {
        let first = std::mem::take(&mut self.0);
        first.then(|| b"40 22 8:17 / /media/usb rw - vfat /dev/sdb1 rw\n".to_vec())
    }
}

/// What records go through.
pub struct Agent {
    enricher: Enricher,
    rules: RuleBook,
    losses: Losses,
    flows: Flows,
}

impl Agent {
    /// Knows one user, one mount and one rule.
    #[must_use]
    pub fn new() -> Self {
        let mut rules = RuleBook::default();
        rules.add(1, vec![RuleFact { id: "only".to_owned(), tell_user: None }]);
        Self {
            enricher: Enricher {
                clock: Clock::at(0, 1_700_000_000_000_000_000),
                processes: ProcessTable::new(Box::new(Nobody)),
                users: Users::asking(Box::new(|uid| (uid == 1000).then(|| "alice".to_owned()))),
                mounts: Mounts::new(Box::new(OneStick(true))),
            },
            rules,
            losses: Losses::default(),
            flows: Flows::default(),
        }
    }

    /// One record, from its bytes to the line on a screen. Answers whether it was taken.
    pub fn take(&mut self, bytes: &[u8]) -> bool {
        let raw = match decode(bytes) {
            Ok(raw) => raw,
            Err(error) => {
                self.losses.undecodable(error.to_string());
                return false;
            }
        };
        self.losses.received(raw.event.ring, raw.event.sequence);
        if !self.flows.learn(&raw, Instant::now()) {
            self.record(&raw);
        }
        true
    }

    /// The end of a second: what was lost.
    pub fn poll(&mut self) {
        for lost in self.losses.poll(&Counters::default(), &Skipped::default()) {
            json::event(&lost.event(0));
        }
    }

    fn record(&mut self, raw: &Raw) {
        let Some(mut recorded) = event(raw, &mut self.enricher, &self.rules) else { return };
        if let Some(destination) = &mut recorded.event.destination {
            self.flows.describe(raw.event.inode, destination, Instant::now());
        }
        let mut bytes = Vec::new();
        recorded.encode(&mut bytes);
        let read = v1::Event::decode(bytes.as_slice()).expect("an event is readable");
        let again = v1::Event::decode(read.encode_to_vec().as_slice()).expect("and stays so");
        assert_eq!(read, again);
        let line = json::event(&read);
        let parsed: serde_json::Value = serde_json::from_str(&line.to_string()).expect("JSON");
        assert_eq!(parsed, line);
        let path = read.file.map(|file| printable(&file.path)).unwrap_or_default();
        assert!(!path.contains(char::is_control));
    }
}

impl Default for Agent {
    fn default() -> Self {
        Self::new()
    }
}

/// The first of the records in `bytes`, changed as little as `decode` asks for, and the rest.
#[must_use]
pub fn valid(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (mut event, mut rest) = Event::read_from_prefix(bytes).ok()?;
    event.abi = ABI_VERSION;
    event.kind = into_range(event.kind, kind::FILE_OPEN, kind::SHARE_WRITE);
    event.operation = into_range(event.operation, operation::OPEN, operation::LIMIT);
    if (operation::SOURCE + 1..operation::PAYLOAD).contains(&event.operation) {
        event.operation = operation::PAYLOAD;
    }
    event.verdict = into_range(event.verdict, verdict::ALLOWED, verdict::WOULD_DENY);
    event.ring %= 2;
    event.process.tgid %= PROCESSES;
    event.process.parent_tgid %= PROCESSES;
    let mut texts = Vec::new();
    for length in &mut event.text_bytes {
        let room = (TEXT_BYTES_MAX - texts.len()).min(rest.len());
        let (text, behind) = rest.split_at(usize::from(*length).min(room));
        texts.extend_from_slice(text);
        *length = text.len() as u16;
        rest = behind;
    }
    event.record_bytes = (EVENT_BYTES + texts.len()) as u32;
    Some(([event.as_bytes(), &texts].concat(), rest))
}

const fn into_range(number: u8, least: u8, most: u8) -> u8 {
    if number < least || number > most { least + number % (most - least + 1) } else { number }
}
