//! Every bound of the scenarios. The guest is translated on a busy machine: patience is large, and
//! nothing is asserted about time.

use std::time::Duration;

/// A program that has not ended by then is killed, and the scenario fails.
pub const PROGRAM_TIMEOUT: Duration = Duration::from_secs(240);
/// How long a flood of records may take to be delivered.
pub const FLOOD_TIMEOUT: Duration = Duration::from_secs(400);
/// How long a record may take to be in the store.
pub const RECORD_TIMEOUT: Duration = Duration::from_secs(30);
/// The agent's start: the kernel checks its programs.
pub const START_TIMEOUT: Duration = Duration::from_secs(400);
/// A daemon's end after SIGTERM.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(120);
/// Between two looks at anything.
pub const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Between two questions to the collector.
pub const SEARCH_INTERVAL: Duration = Duration::from_millis(150);
/// Bytes of one page of its answers.
pub const PAGE_BYTES_MAX: usize = 64 << 20;
/// Bytes of a program's output shown in a failure.
pub const SHOWN_BYTES_MAX: usize = 600;
/// Records shown in a failure.
pub const SHOWN_RECORDS_MAX: usize = 3;
