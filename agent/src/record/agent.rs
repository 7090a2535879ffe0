//! The agent's own events, and those that it learns of by itself.

use sekimori_proto::v1::{Event, Kind, Process, Verdict};

use super::{LANE_ALERT, LANE_TELEMETRY};
use crate::removable::Change;

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

/// A `device` event: something was plugged in or unplugged.
#[must_use]
pub fn device_event(time_ns: i64, change: Change) -> Event {
    Event {
        time_ns,
        kind: Kind::Device.into(),
        operation: change.operation.into(),
        verdict: Verdict::Allowed.into(),
        late: change.late,
        device: Some(change.device),
        lane: LANE_TELEMETRY,
        ..Event::default()
    }
}
