//! What an agent leaves behind for the next one, in a file beside the spool's segments: a record on
//! the rings may be older than the agent that reads it and names its rule by number, and programs
//! that were left in force should still be there.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::limits::{GENERATIONS_KEPT_MAX, POLICY_BYTES_MAX};
use crate::record::RuleFact;

const NAME: &str = "left.json";
/// The names of rules are part of their policies.
const BYTES_MAX: u64 = GENERATIONS_KEPT_MAX as u64 * POLICY_BYTES_MAX;

/// The content of the file.
#[derive(Debug, Default, Deserialize, Serialize)]
pub(super) struct Left {
    /// The machine's boot in which programs were left at work; empty when none were.
    pub in_force: String,
    /// The rules of the last policies, by generation.
    pub rules: VecDeque<(u32, Vec<RuleFact>)>,
}

/// The kernel's name for this boot of the machine.
pub(super) fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

impl Left {
    /// Replaces the file. Losing it costs names and a notice, so it is not synced.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        let new = directory.join("left.json.tmp");
        fs::write(&new, serde_json::to_vec(self)?)?;
        fs::rename(&new, directory.join(NAME))
    }

    /// Reads the file; without one, or with a damaged one, nothing is known.
    pub fn read(directory: &Path) -> Self {
        let path = directory.join(NAME);
        match read_bounded(&path) {
            Ok(left) => left,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(error) => {
                tracing::warn!(%error, "{} cannot be read", path.display());
                Self::default()
            }
        }
    }

    /// Whether programs should be at work since an earlier agent of this boot.
    pub fn expects_programs(&self) -> bool {
        !self.in_force.is_empty() && self.in_force == boot()
    }
}

fn read_bounded(path: &Path) -> io::Result<Left> {
    let mut text = Vec::new();
    File::open(path)?.take(BYTES_MAX).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::{Left, boot};
    use crate::record::RuleFact;

    #[test]
    fn what_is_left_is_found() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!Left::read(directory.path()).expects_programs());
        let rule = RuleFact { id: "持出し禁止".to_owned(), tell_user: None };
        let left = Left { in_force: boot(), rules: [(7, vec![rule])].into() };
        left.write(directory.path()).unwrap();
        let found = Left::read(directory.path());
        assert!(found.expects_programs());
        assert_eq!(found.rules, left.rules);
        std::fs::write(directory.path().join("left.json"), "{").unwrap();
        assert!(!Left::read(directory.path()).expects_programs());
    }

    #[test]
    fn another_boot_expects_nothing() {
        let left = Left { in_force: "another".to_owned(), ..Left::default() };
        assert!(!left.expects_programs());
    }
}
