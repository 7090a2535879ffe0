//! Ring records to events of the wire.

mod agent;
mod event;
mod losses;
mod parts;
mod rules;
#[cfg(test)]
mod tests;

pub use self::{
    agent::agent_event,
    event::event,
    losses::{Losses, Lost, Table as Counters},
    rules::{PathTest, RuleBook, RuleFact},
};

use sekimori_proto::v1::Verdict;

/// Lane of the spool for routine events.
pub const LANE_TELEMETRY: u32 = 0;
/// Lane of the spool for what must not be hidden by a flood: denials, alerts, losses, the agent.
pub const LANE_ALERT: u32 = 1;

/// Which lane an event with this verdict takes.
#[must_use]
pub const fn lane(verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Denied | Verdict::WouldDeny | Verdict::Alerted => LANE_ALERT,
        Verdict::Allowed | Verdict::Unspecified => LANE_TELEMETRY,
    }
}
