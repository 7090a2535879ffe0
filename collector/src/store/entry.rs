//! An event made ready for the writer: everything that costs time and needs no order is done here,
//! outside its thread.

use bytes::Bytes;
use sekimori_proto::v1::Event;

use super::tags::{Found, Tag};
use crate::identity::Agent;
use crate::limits::BOOT_BYTES;

/// Agent boot.
pub type Boot = [u8; BOOT_BYTES];

/// An event, as the agent encoded it, and what the store wants to know of it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Together with `sequence` its name.
    pub boot: Boot,
    /// From 1.
    pub sequence: u64,
    /// UTC, ns since 1970.
    pub time_ns: i64,
    /// Number of [`sekimori_proto::v1::Kind`]; agents may know more of them.
    pub kind: i32,
    /// Number of [`sekimori_proto::v1::Verdict`].
    pub verdict: i32,
    /// Events that this one says were lost.
    pub lost: u64,
    /// What it can be found by, without that of its host.
    pub tags: Vec<Tag>,
    /// The encoded event.
    pub body: Bytes,
}

/// What the store wants to know of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts<'a> {
    /// Agent boot.
    pub boot: &'a [u8],
    /// From 1.
    pub sequence: u64,
    /// UTC, ns since 1970.
    pub time_ns: i64,
    /// Events that this one says were lost.
    pub lost: u64,
    /// What it is found by.
    pub found: Found<'a>,
}

impl<'a> Facts<'a> {
    /// Of an event.
    pub fn of(event: &'a Event) -> Facts<'a> {
        Facts {
            boot: &event.boot,
            sequence: event.sequence,
            time_ns: event.time_ns,
            lost: event.loss.as_ref().map_or(0, |loss| loss.count),
            found: Found::of(event),
        }
    }
}

impl Entry {
    /// Of an event and its bytes; `None` when its boot is none.
    pub fn new(event: &Event, body: Bytes) -> Option<Entry> {
        Entry::with(&Facts::of(event), body)
    }

    /// Of what is known of an event, and its bytes; `None` when its boot is none.
    pub fn with(facts: &Facts<'_>, body: Bytes) -> Option<Entry> {
        Some(Entry {
            boot: facts.boot.try_into().ok()?,
            sequence: facts.sequence,
            time_ns: facts.time_ns,
            kind: facts.found.kind,
            verdict: facts.found.verdict,
            lost: facts.lost,
            tags: facts.found.tags(),
            body,
        })
    }
}

/// What an agent wants to have stored, at once or not at all.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Whose events these are, whatever they say.
    pub host: String,
    /// In the agent's order.
    pub entries: Vec<Entry>,
}

impl Batch {
    /// Of the agent that sent them.
    pub fn new(agent: &Agent, entries: Vec<Entry>) -> Batch {
        Batch { host: agent.name().to_owned(), entries }
    }
}
