//! The agent's own events.

use sekimori_proto::v1::{Event, Kind, Process, Verdict};

use super::LANE_ALERT;

/// An `agent` event: one sentence for people about the monitor itself.
#[must_use]
pub fn agent_event(time_ns: i64, message: impl Into<String>) -> Event {
    Event {
        time_ns,
        kind: Kind::Agent.into(),
        verdict: Verdict::Allowed.into(),
        process: Some(Process { pid: std::process::id(), ..Process::default() }),
        message: message.into(),
        lane: LANE_ALERT,
        ..Event::default()
    }
}
