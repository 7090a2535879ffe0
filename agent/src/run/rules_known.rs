//! The names of the rules of the last policies, kept in a file: a record on the rings may be older
//! than the agent that reads it, and names its rule by number.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use crate::limits::{GENERATIONS_KEPT_MAX, POLICY_BYTES_MAX};
use crate::record::RuleFact;

/// Beside the spool's segments.
const NAME: &str = "rules.json";

/// The names of rules are part of their policies.
const BYTES_MAX: u64 = GENERATIONS_KEPT_MAX as u64 * POLICY_BYTES_MAX;

type Known = VecDeque<(u32, Vec<RuleFact>)>;

/// Replaces the file. Losing it costs names and nothing else, so it is not synced.
pub(super) fn write(directory: &Path, known: &Known) -> io::Result<()> {
    let new = directory.join("rules.json.tmp");
    fs::write(&new, serde_json::to_vec(known)?)?;
    fs::rename(&new, directory.join(NAME))
}

/// Reads the file; without one, or with a damaged one, no names are known.
pub(super) fn read(directory: &Path) -> Known {
    let path = directory.join(NAME);
    read_bounded(&path).unwrap_or_else(|error| {
        tracing::warn!(%error, "{} cannot be read", path.display());
        Known::new()
    })
}

fn read_bounded(path: &Path) -> io::Result<Known> {
    let mut text = Vec::new();
    File::open(path)?.take(BYTES_MAX).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}
