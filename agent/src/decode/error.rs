//! Why a ring record was refused.

use sekimori_abi::event::ABI_VERSION;

/// A record that does not hold together. The agent counts it as lost and goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not even the fixed part is there.
    #[error("record of {bytes} bytes, the fixed part alone has {needed}")]
    Short {
        /// What came.
        bytes: usize,
        /// What the fixed part has.
        needed: usize,
    },
    /// Programs and agent are not of one build.
    #[error(
        "record of layout {found}, this agent reads {ABI_VERSION}: \
         the loaded programs are of another version, restart the agent"
    )]
    Version {
        /// What the record says.
        found: u16,
    },
    /// The record says it is longer than it is, or shorter than its fixed part.
    #[error("record says it has {said} bytes, {bytes} came")]
    Length {
        /// What the record says.
        said: u32,
        /// What came.
        bytes: usize,
    },
    /// The texts do not fill the record exactly.
    #[error("record says its texts have {said} bytes, {bytes} came")]
    Texts {
        /// Sum of the four lengths.
        said: usize,
        /// What came behind the fixed part.
        bytes: usize,
    },
    /// More of an environment than a record holds.
    #[error("record with {said} bytes of an environment")]
    Environment {
        /// What the record says.
        said: usize,
    },
    /// Unknown kind.
    #[error("record of unknown kind {found}")]
    Kind {
        /// What the record says.
        found: u8,
    },
    /// Unknown operation.
    #[error("record of kind {kind} with unknown operation {found}")]
    Operation {
        /// What the record says.
        found: u8,
        /// Its kind.
        kind: u8,
    },
    /// Unknown verdict.
    #[error("record with unknown verdict {found}")]
    Verdict {
        /// What the record says.
        found: u8,
    },
    /// Unknown ring.
    #[error("record of unknown ring {found}")]
    Ring {
        /// What the record says.
        found: u8,
    },
}
