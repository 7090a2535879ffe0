//! Ring records to events of the wire.

mod agent;
mod event;
mod losses;
mod parts;
mod rules;
#[cfg(test)]
mod tests;

pub use self::{
    agent::{agent_event, device_event},
    event::event,
    losses::{Losses, Lost, Skipped, Table as Counters},
    rules::{PathTest, RuleBook, RuleFact},
};

use std::sync::Arc;

use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use sekimori_proto::v1::{Event, Verdict};

/// Lane of the spool for routine events.
pub const LANE_TELEMETRY: u32 = 0;
/// Lane of the spool for what must not be hidden by a flood: denials, alerts, losses, the agent.
pub const LANE_ALERT: u32 = 1;

/// Number of `process` in `event.proto`.
const PROCESS_TAG: u32 = 9;

/// An event, and apart from it what is the same in all events of its process: that is encoded once.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The event. Its `process` has only what can differ from event to event.
    pub event: Event,
    /// The rest of its `process`, encoded.
    pub described: Arc<[u8]>,
}

impl Recorded {
    /// The whole event on the wire. Parsers merge the two parts of `process`
    /// (protobuf.dev/programming-guides/encoding, "Last One Wins").
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let bytes = self.event.encoded_len() + self.described.len() + 16;
        let mut whole = Vec::with_capacity(bytes);
        self.event.encode_raw(&mut whole);
        encode_key(PROCESS_TAG, WireType::LengthDelimited, &mut whole);
        encode_varint(self.described.len() as u64, &mut whole);
        whole.extend_from_slice(&self.described);
        whole
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
