//! Ring records to events of the wire.

mod agent;
mod event;
mod losses;
mod parts;
mod rules;
#[cfg(test)]
mod tests;
mod wire;

pub use self::{
    agent::{agent_event, device_event},
    event::event,
    losses::{Losses, Lost, Skipped, Table as Counters},
    rules::{PathTest, RuleBook, RuleFact},
};

use std::sync::Arc;

use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use sekimori_abi::limits::COMM_BYTES_MAX;
use sekimori_proto::v1::{Event, Verdict};

use crate::enrich::zero_ended;

/// Lane of the spool for routine events.
pub const LANE_TELEMETRY: u32 = 0;
/// Lane of the spool for what must not be hidden by a flood: denials, alerts, losses, the agent.
pub const LANE_ALERT: u32 = 1;

/// An event, and apart from it who acted: that is the same in many events and is encoded once.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// The event without its `process`.
    pub event: Event,
    /// Its `process`, encoded, without what is the thread's own.
    pub process: Arc<[u8]>,
    /// The thread.
    pub thread: Thread,
}

/// What is a thread's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thread {
    /// Its number.
    pub tid: u32,
    /// Its name, zero-padded.
    pub comm: [u8; COMM_BYTES_MAX],
}

impl Recorded {
    /// Appends the whole event as it is on the wire. Parsers merge the parts of `process`
    /// (protobuf.dev/programming-guides/encoding, "Last One Wins").
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.event.encode_raw(out);
        wire::message(wire::PROCESS, &self.process, out);
        let Thread { tid, comm } = &self.thread;
        let (tid, comm) = (u64::from(*tid), zero_ended(comm));
        let bytes = wire::number_bytes(wire::TID, tid) + wire::text_bytes(wire::COMM, comm);
        encode_key(wire::PROCESS, WireType::LengthDelimited, out);
        encode_varint(bytes as u64, out);
        wire::number(wire::TID, tid, out);
        wire::text(wire::COMM, comm, out);
    }

    /// The event as whoever gets it reads it.
    #[must_use]
    pub fn whole(&self) -> Event {
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        // What was just encoded can be read.
        Event::decode(bytes.as_slice()).unwrap_or_default()
    }
}

/// Which lane an event with this verdict takes.
#[must_use]
pub const fn lane(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Denied | Verdict::WouldDeny | Verdict::Alerted => LANE_ALERT,
        Verdict::Allowed | Verdict::Unspecified => LANE_TELEMETRY,
    }
}
