//! What is sent.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One word to people or machines about something that a rule found.
#[derive(Clone, Debug)]
pub struct Notice {
    /// Told apart by it: each notice has its own, which stays the same over all tries.
    pub id: String,
    /// How bad it is.
    pub severity: Severity,
    /// The rule that found it.
    pub rule: String,
    /// What happened, in one line.
    pub title: String,
    /// What happened, in several lines, for people.
    pub text: String,
    /// What happened, for machines.
    pub json: serde_json::Value,
    /// When, in nanoseconds since 1970 UTC.
    pub time_ns: i64,
}

impl Notice {
    /// Its time in UTC to the microsecond, as RFC 3339 and RFC 5424 have it.
    pub(super) fn time(&self) -> String {
        format!("{:.6}", Timestamp::from_nanosecond(self.time_ns.into()).unwrap_or_default())
    }

    /// Its time for a clock that knows nothing before 1970.
    pub(super) fn system_time(&self) -> SystemTime {
        let ns = u64::try_from(self.time_ns).unwrap_or(0);
        SystemTime::UNIX_EPOCH + Duration::from_nanos(ns)
    }
}

/// How bad something is; the worse, the greater.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Info,
    /// To be looked at some day.
    Low,
    /// To be looked at soon.
    #[default]
    Medium,
    /// To be looked at today.
    High,
    /// To be looked at now.
    Critical,
}

impl Severity {
    /// The word for it, in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Low => "low",
            Severity::Medium => "medium",
            Severity::High => "high",
            Severity::Critical => "critical",
        }
    }
}

impl std::fmt::Display for Severity {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.as_str())
    }
}
