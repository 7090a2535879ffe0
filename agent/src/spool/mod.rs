//! Events on disk, from the moment they are made until the collector has stored them.
//!
//! # What it must withstand
//!
//! - `kill -9` of the agent: whatever `flush` has given to the kernel stays.
//! - The machine's death: at most the time between two `sync` calls is lost, and what remains is
//!   readable up to the last whole entry.
//! - A collector that is away for days: the disk space is bounded per lane, and the oldest part
//!   goes first. Telemetry never pushes out a denial.
//! - A full or failing disk, damaged files: counted, recorded, never a reason to stop.
//!
//! # Format
//!
//! A directory, one agent at a time (`lock`), with two lanes: 0 telemetry, 1 denials, alerts and
//! losses. A lane is a row of segment files, `EPOCH-LANE-FIRST-BOOT.seg`, where EPOCH counts the
//! agent's starts on this spool, FIRST is the first sequence in the file and BOOT the start's 16
//! random bytes. A segment is a header and entries, all numbers little-endian:
//!
//! ```text
//! header  magic 8 | version u32 | lane u32 | epoch u64 | boot 16 | first sequence u64
//!         | crc u32
//! entry   payload length u32 | crc u32 | sequence u64 | ordinal u32 | kind i32 | payload
//! ```
//!
//! Sequences run from 1 over both lanes of a boot. Ordinals count the entries of one segment from
//! 0, so that a damaged stretch between two whole entries says exactly how many it held. The
//! payload is an encoded `Event`; boot, sequence and lane are filled in when it is read. An entry's CRC-32
//! starts from epoch, boot and lane: an entry inside another one's text, or in another file, is
//! not taken for an entry. A full segment ends in a seal, an entry without payload. A segment that
//! cannot be written to is left, and writing goes on in a new one.
//!
//! Beside the segments: `acknowledged-LANE` (how far the collector has stored), `epoch`, `clean`
//! (there after an orderly stop only), and `dropped-…` and `*.corrupt-unreported`, which stand for
//! losses until their Loss event is on disk. `evidence.key` and `chain` belong to the signatures
//! ([`signer`]).
//!
//! # What deletes
//!
//! A segment goes when it is sealed and every entry in it is acknowledged. The only other way is a
//! lane at its bound or a disk without room; then the oldest segment that was not sent yet goes,
//! its unacknowledged entries are counted by kind, and the counts become Loss events
//! ([`Spool::record_losses`]). An entry that was sent and not acknowledged is dropped only when
//! nothing else is left; it may then be stored and counted as lost. A crash between a Loss event
//! and the removal of its `dropped-…` file counts that loss twice; nothing is lost uncounted.

mod assess;
mod cursor;
mod drop;
mod keep;
mod loss;
mod read;
mod recover;
mod segment;
mod shared;
mod signer;
mod store;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

pub use loss::SpoolLoss;
pub use read::{Batch, BatchEnd, BatchEntry, Reader};
pub use recover::RecoveryReport;
pub use shared::SharedSpool;
pub use store::{Spool, SpoolStats};

use crate::limits;

/// 16 random bytes that name one start of the agent.
pub type Boot = [u8; 16];

/// Which of the two queues an event waits in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Everything else; dropped first.
    Telemetry,
    /// Denials, alerts, losses and the agent's own life.
    Alerts,
}

impl Lane {
    /// Both, in the order of their numbers.
    pub const ALL: [Self; 2] = [Self::Telemetry, Self::Alerts];

    /// 0 or 1, as files and events carry it.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::Telemetry => 0,
            Self::Alerts => 1,
        }
    }

    fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|lane| lane.number() == number)
    }
}

/// A place in a lane: everything up to and including it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Which start of the agent, counted on this spool.
    pub epoch: u64,
    /// Sequence within that start; 0 is before the first.
    pub sequence: u64,
}

/// Bounds of a spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolConfig {
    /// Bytes on disk of lane 0.
    pub telemetry_bytes_max: u64,
    /// Bytes on disk of lane 1.
    pub alert_bytes_max: u64,
    /// Bytes of one segment.
    pub segment_bytes_max: u64,
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self {
            telemetry_bytes_max: limits::TELEMETRY_BYTES_DEFAULT,
            alert_bytes_max: limits::ALERT_BYTES_DEFAULT,
            segment_bytes_max: limits::SEGMENT_BYTES_DEFAULT,
        }
    }
}

impl From<&crate::config::Spool> for SpoolConfig {
    fn from(config: &crate::config::Spool) -> Self {
        Self {
            telemetry_bytes_max: config.telemetry_bytes_max,
            alert_bytes_max: config.alert_bytes_max,
            segment_bytes_max: config.segment_bytes_max,
        }
    }
}

impl SpoolConfig {
    fn lane_bytes_max(&self, lane: Lane) -> u64 {
        match lane {
            Lane::Telemetry => self.telemetry_bytes_max,
            Lane::Alerts => self.alert_bytes_max,
        }
    }
}

/// What can go wrong with a spool. Events that could not be kept because of it are counted and
/// wait for [`Spool::record_losses`]; the agent goes on.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Another agent uses the directory.
    #[error(
        "the spool {} is in use by another sekimori-agent; stop that one, or give this one its own \
         spool.directory", directory.display()
    )]
    Locked {
        /// The directory.
        directory: PathBuf,
    },
    /// The system refused an operation.
    #[error("spool: cannot {action} {}: {source}", path.display())]
    Storage {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The event is larger than any event can be; it is counted as lost.
    #[error(
        "spool: an event of {bytes} bytes is larger than the limit of {limit}; it was not kept"
    )]
    TooLarge {
        /// Its encoded length.
        bytes: usize,
        /// [`limits::EVENT_BYTES_MAX`].
        limit: usize,
    },
    /// No key to sign with.
    #[error("spool: {0}")]
    Key(#[from] sekimori_evidence::KeyError),
    /// No random numbers for the boot id.
    #[error("spool: the system gave no random bytes for a boot id: {message}")]
    Random {
        /// What the system said.
        message: String,
    },
}

impl SpoolError {
    /// Makes a [`SpoolError::Storage`] out of what the system said.
    fn storage(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Storage { action, path, source }
    }
}
