//! A case: records with all that proves them, in one file that is checked without a collector.
//!
//! It is a zip archive with these members and no others:
//!
//! ```text
//! case.json      what it is, who made it and why, and SHA-256 and size of each member below
//! case.sig       Ed25519 of the collector over the text `sekimori case 1`, a line feed and case.json
//! records.jsonl  the records as JSON, one a line, for people
//! records.bin    the same records as their authors sent them
//! proof.bin      checkpoints, countersignatures, and records of the policies in force
//! policies/N     the text of each policy in them
//! ```
//!
//! `records.bin` and `proof.bin` are `CaseRecord` messages, each behind its length as a varint.

mod read;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use read::{Opened, open};
pub use write::CaseWriter;

use crate::verify::TooMuch;

/// What `format` says.
pub const FORMAT: &str = "sekimori-case-1";
const CONTEXT: &[u8] = b"sekimori case 1\n";
const MANIFEST: &str = "case.json";
const SIGNATURE: &str = "case.sig";
const RECORDS: &str = "records.bin";
const READABLE: &str = "records.jsonl";
const PROOF: &str = "proof.bin";
/// Bytes of `case.json`.
const MANIFEST_BYTES_MAX: u64 = 16 << 20;
/// Bytes of one record; an event has at most 256 KiB.
const RECORD_BYTES_MAX: usize = 1 << 20;

/// Who asked for what, and what it is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: String,
    /// When it was made, RFC 3339.
    pub made: String,
    /// Host name under which the collector's own records stand.
    pub collector: String,
    /// Its version.
    pub version: String,
    /// Public key of the collector, hexadecimal. Compare it with what the collector's
    /// administrator has published.
    pub collector_key: String,
    /// The operator that made it.
    pub exported_by: String,
    /// Where they connected from.
    pub exported_from: String,
    /// Why.
    pub reason: String,
    /// What they asked for, in the options of the command line.
    pub question: String,
    /// Records in it.
    pub records: u64,
    /// Parts of the store that could not be read: what they hold is missing.
    pub unreadable: Vec<String>,
    /// The members.
    pub files: BTreeMap<String, Member>,
}

/// A member of the archive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Hexadecimal.
    pub sha256: String,
    /// Unpacked.
    pub bytes: u64,
}

/// Why a file is no case, or is not what was made.
#[derive(Debug, Error)]
pub enum CaseError {
    /// Reading or writing failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// No archive.
    #[error("it is no case: {0}")]
    Archive(#[from] zip::result::ZipError),
    /// A member that a case has.
    #[error("it is no case: {0} is missing")]
    Missing(&'static str),
    /// No description of a case.
    #[error("case.json cannot be read: {0}")]
    Manifest(#[from] serde_json::Error),
    /// Of another version.
    #[error("it is a case of format {0:?}; this program knows {FORMAT}: use a later version")]
    Format(String),
    /// Not what the collector signed.
    #[error("the signature over case.json does not hold: the case was changed after it was made")]
    Signature,
    /// A member is not what is described.
    #[error("{0} is not what case.json describes: the case was changed after it was made")]
    Changed(String),
    /// A member that nobody described.
    #[error("{0} is not in case.json: it was put into the case after it was made")]
    Added(String),
    /// Bytes that are no record.
    #[error("{0} holds what is no record")]
    Record(&'static str),
    /// A record that could not be.
    #[error("a record of {0} bytes is too large for a case")]
    TooLarge(usize),
    /// More than can be verified at once.
    #[error(transparent)]
    TooMuch(#[from] TooMuch),
}
