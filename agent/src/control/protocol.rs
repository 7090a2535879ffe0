//! Questions and answers of the control socket.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::tell::Told;

/// One command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How the agent stands.
    Status,
    /// Read the policy file again and put it in force.
    Reload,
}

/// The answer to it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The command was carried out.
    pub ok: bool,
    /// One sentence for people.
    pub message: String,
    /// `reload`: what is wrong or doubtful in the policy, `FILE:LINE:COLUMN: …`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<String>,
    /// `status`: the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Box<Status>>,
}

/// How the agent stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the agent.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// 32 hexadecimal digits that name this start of the agent.
    pub boot: String,
    /// UTC ns since 1970.
    pub started_ns: i64,
    /// The policy in force.
    pub policy: PolicyStatus,
    /// Whether the programs' hooks were called when this was tried last.
    pub hooks_called: bool,
    /// Programs in the kernel.
    pub features: Vec<FeatureStatus>,
    /// The kernel's counters by kind.
    pub counters: Vec<KindCounters>,
    /// Events on disk.
    pub spool: SpoolStatus,
    /// Delivery.
    pub collector: CollectorStatus,
    /// Processes known.
    pub processes: u64,
    /// Messages to people.
    pub told: Told,
}

/// The policy in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// Its `metadata.name`.
    pub name: String,
    /// File it came from.
    pub file: PathBuf,
    /// Counted from 1 at each start of the agent.
    pub generation: u32,
    /// Rules in it.
    pub rules: u64,
    /// Its epoch, when it is the collector's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// The last reload was refused, and why; the policy before it stays in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// One program in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FeatureStatus {
    /// What it is for.
    pub name: String,
    /// Where it sits.
    pub hook: String,
    /// It is in place.
    pub attached: bool,
    /// How it went.
    pub detail: String,
    /// The agent does not run without it.
    pub required: bool,
}

/// Counters of one kind since the programs were loaded; `fork` and `note` are records that only feed
/// what the agent knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindCounters {
    /// The kind's word.
    pub kind: String,
    /// Times a hook looked.
    pub seen: u64,
    /// Records written.
    pub emitted: u64,
    /// Operations refused.
    pub denied: u64,
    /// Records and sums lost in the kernel.
    pub lost: u64,
}

/// Events on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolStatus {
    /// Events appended since the start.
    pub appended: u64,
    /// Events dropped since the start because the spool was full.
    pub dropped: u64,
    /// Bytes of telemetry.
    pub telemetry_bytes: u64,
    /// Bytes of denials and alerts.
    pub alert_bytes: u64,
    /// Bytes that wait for the collector.
    pub unacknowledged_bytes: u64,
}

/// Delivery.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectorStatus {
    /// Where events go.
    pub address: String,
    /// A stream is open.
    pub connected: bool,
    /// Events acknowledged since the start.
    pub acknowledged: u64,
    /// What went wrong last, empty when nothing did.
    pub last_error: String,
}
