//! Certificates that are no longer wanted: the file `revoked` in the collector's directory.
//!
//! One JSON object a line. Lines are appended; when they become many, those that say nothing any
//! more are left out of a new file. One with `revoked` refuses every certificate of that identity;
//! one with `except`, which an enrolment that comes later writes, lets one certificate in again, by
//! its serial number.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::files::{Mode, NO_LINK, give_to_owner, replace};
use super::{PkiError, check_initialised};
use crate::identity::{Role, check_name};
use crate::limits::{REVOKED_BYTES_MAX, REVOKED_EXCEPT_KEPT, SENTENCE_BYTES_MAX};

/// Name of the file, within the directory.
pub const REVOKED_FILE: &str = "revoked";

#[derive(Debug, Deserialize, Serialize)]
#[serde(untagged)]
enum Line {
    Revoked { revoked: String, at: String, reason: String },
    Except { except: String, serial: String, at: String },
}

/// Who is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revoked {
    /// Serial numbers that are let in all the same, by identity.
    identities: HashMap<String, HashSet<String>>,
}

impl Revoked {
    /// Reads the file; where there is none, nobody is refused.
    ///
    /// # Errors
    /// When it cannot be read, is too large, or has a line that is not understood.
    pub fn read(dir: &Path) -> Result<Revoked, PkiError> {
        let mut revoked = Revoked::default();
        read_lines(dir, |line| revoked.add(line))?;
        Ok(revoked)
    }

    /// Whether a certificate is refused.
    pub fn refuses(&self, identity: &str, serial: &str) -> bool {
        self.identities.get(identity).is_some_and(|except| !except.contains(serial))
    }

    fn add(&mut self, line: Line) {
        match line {
            // What was let in before is refused too.
            Line::Revoked { revoked, .. } => {
                self.identities.insert(revoked, HashSet::new());
            }
            Line::Except { except, serial, .. } => {
                if let Some(serials) = self.identities.get_mut(&except) {
                    serials.insert(serial);
                }
            }
        }
    }
}

/// Refuses every certificate that a peer has been given up to now.
///
/// # Errors
/// A bad name, no authority in `dir`, a reason that is too long, or a file that cannot be written.
pub fn revoke(dir: &Path, name: &str, role: Role, reason: &str) -> Result<(), PkiError> {
    check_name(name)?;
    if reason.len() > SENTENCE_BYTES_MAX {
        return Err(PkiError::Reason(reason.len()));
    }
    check_initialised(dir)?;
    // What cannot be understood must not grow.
    Revoked::read(dir)?;
    let (revoked, at) = (role.uri(name), Timestamp::now().to_string());
    append(dir, &[Line::Revoked { revoked, at, reason: reason.to_owned() }])
}

/// Refuses every certificate that a peer has been given up to now but this new one. Both become
/// known at the same time.
///
/// # Errors
/// When the file cannot be read or written.
pub fn supersede(dir: &Path, name: &str, role: Role, serial: &str) -> Result<(), PkiError> {
    Revoked::read(dir)?;
    let (identity, at) = (role.uri(name), Timestamp::now().to_string());
    let reason = format!("enrolled again, as {serial}");
    let revoked = Line::Revoked { revoked: identity.clone(), at: at.clone(), reason };
    append(dir, &[revoked, Line::Except { except: identity, serial: serial.to_owned(), at }])
}

/// Lets a new certificate in that takes the place of another one of the same peer, if that one is
/// good still: it may have been revoked since the peer showed it.
///
/// # Errors
/// [`PkiError::Refused`], or when the file cannot be read or written.
pub fn let_in_after(
    dir: &Path,
    name: &str,
    role: Role,
    before: &str,
    serial: &str,
) -> Result<(), PkiError> {
    let _lock = lock(dir)?;
    let (identity, revoked) = (role.uri(name), Revoked::read(dir)?);
    if revoked.refuses(&identity, before) {
        return Err(PkiError::Refused);
    }
    if !revoked.identities.contains_key(&identity) {
        return Ok(());
    }
    let (serial, at) = (serial.to_owned(), Timestamp::now().to_string());
    append_locked(dir, &[Line::Except { except: identity, serial, at }])
}

/// Lets a new certificate in whose identity was revoked before.
///
/// # Errors
/// When the file cannot be read or written.
pub fn let_in(dir: &Path, name: &str, role: Role, serial: &str) -> Result<(), PkiError> {
    let identity = role.uri(name);
    if !Revoked::read(dir)?.identities.contains_key(&identity) {
        return Ok(());
    }
    let (serial, at) = (serial.to_owned(), Timestamp::now().to_string());
    append(dir, &[Line::Except { except: identity, serial, at }])
}

/// `revoke` and the collector write, and one of them may be about to replace the file.
fn lock(dir: &Path) -> Result<File, PkiError> {
    let failed = |source| PkiError::File { action: "lock", path: dir.to_owned(), source };
    let lock = File::open(dir).map_err(failed)?;
    lock.lock().map_err(failed)?;
    Ok(lock)
}

fn append(dir: &Path, lines: &[Line]) -> Result<(), PkiError> {
    let _lock = lock(dir)?;
    append_locked(dir, lines)
}

fn append_locked(dir: &Path, lines: &[Line]) -> Result<(), PkiError> {
    let path = dir.join(REVOKED_FILE);
    let file_error = |source| PkiError::File { action: "write", path: path.clone(), source };
    if path.metadata().is_ok_and(|file| file.len() > REVOKED_BYTES_MAX / 2) {
        compact(dir)?;
    }
    let text = text(lines).map_err(|error| file_error(error.into()))?;
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).custom_flags(NO_LINK);
    let mut file = options.open(&path).map_err(file_error)?;
    give_to_owner(&file, dir).map_err(file_error)?;
    let before = file.metadata().map_err(file_error)?.len();
    // One write: the lines are there or they are not. A full disk may take a part of them, which
    // would be a line that nobody understands.
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|error| {
        let _ = file.set_len(before);
        file_error(error)
    })
}

/// Leaves out what a later line made void, and all but the last [`REVOKED_EXCEPT_KEPT`]
/// certificates that were let in again of one name: the earlier ones were renewed since.
fn compact(dir: &Path) -> Result<(), PkiError> {
    let path = dir.join(REVOKED_FILE);
    let file_error = |source| PkiError::File { action: "write", path: path.clone(), source };
    let mut lines = Vec::new();
    read_lines(dir, |line| lines.push(line))?;
    let mut seen: HashMap<String, (bool, usize)> = HashMap::new();
    lines.reverse();
    lines.retain(|line| match line {
        Line::Revoked { revoked, .. } => {
            !std::mem::replace(&mut seen.entry(revoked.clone()).or_default().0, true)
        }
        Line::Except { except, .. } => {
            let (revoked, count) = seen.entry(except.clone()).or_default();
            *count += 1;
            !*revoked && *count <= REVOKED_EXCEPT_KEPT
        }
    });
    lines.reverse();
    replace(&path, &text(&lines).map_err(|error| file_error(error.into()))?, Mode::Secret)
}

fn text(lines: &[Line]) -> serde_json::Result<String> {
    let mut text = String::new();
    for line in lines {
        text.push_str(&serde_json::to_string(line)?);
        text.push('\n');
    }
    Ok(text)
}

fn read_lines(dir: &Path, mut each: impl FnMut(Line)) -> Result<(), PkiError> {
    let path = dir.join(REVOKED_FILE);
    let file_error = |source| PkiError::File { action: "read", path: path.clone(), source };
    let mut text = String::new();
    match OpenOptions::new().read(true).open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(file_error(error)),
        Ok(file) => {
            let most = REVOKED_BYTES_MAX.saturating_add(1);
            file.take(most).read_to_string(&mut text).map_err(file_error)?;
        }
    }
    if text.len() as u64 > REVOKED_BYTES_MAX {
        return Err(file_error(io::ErrorKind::FileTooLarge.into()));
    }
    for (number, line) in (1..).zip(text.lines()) {
        let line = serde_json::from_str(line).map_err(|source| PkiError::Revoked {
            path: path.clone(),
            line: number,
            source,
        })?;
        each(line);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::pki::init;

    const URI: &str = "sekimori:agent:pc-1";

    #[test]
    fn a_new_certificate_takes_the_place_of_all_before_it() {
        let dir = tempfile::tempdir().unwrap();
        supersede(dir.path(), "pc-1", Role::Agent, "0a").unwrap();
        let revoked = Revoked::read(dir.path()).unwrap();
        assert!(revoked.refuses(URI, "01") && !revoked.refuses(URI, "0a"));
        assert!(!revoked.refuses("sekimori:agent:pc-2", "01"));
        // Renewed, the one before is good until it ends.
        let_in_after(dir.path(), "pc-1", Role::Agent, "0a", "0b").unwrap();
        let revoked = Revoked::read(dir.path()).unwrap();
        assert!(!revoked.refuses(URI, "0a") && !revoked.refuses(URI, "0b"));
    }

    #[test]
    fn a_revoked_one_is_not_renewed() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path(), &[]).unwrap();
        let_in_after(dir.path(), "pc-1", Role::Agent, "0a", "0b").unwrap();
        revoke(dir.path(), "pc-1", Role::Agent, "紛失").unwrap();
        let refused = let_in_after(dir.path(), "pc-1", Role::Agent, "0b", "0c").unwrap_err();
        assert!(matches!(refused, PkiError::Refused), "{refused}");
        assert!(Revoked::read(dir.path()).unwrap().refuses(URI, "0c"));
    }

    #[test]
    fn a_shorter_list_refuses_the_same() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path(), &[]).unwrap();
        for number in 0..50 {
            supersede(dir.path(), "pc-1", Role::Agent, &format!("{number:02x}")).unwrap();
        }
        for number in 50..60 {
            let serial = format!("{number:02x}");
            let_in(dir.path(), "pc-1", Role::Agent, &serial).unwrap();
        }
        revoke(dir.path(), "pc-2", Role::Agent, "lost").unwrap();
        compact(dir.path()).unwrap();
        let text = std::fs::read_to_string(dir.path().join(REVOKED_FILE)).unwrap();
        assert_eq!(text.lines().count(), 2 + REVOKED_EXCEPT_KEPT);
        let revoked = Revoked::read(dir.path()).unwrap();
        assert!(revoked.refuses(URI, "10") && !revoked.refuses(URI, "3b"));
        assert!(revoked.refuses("sekimori:agent:pc-2", "00"));
    }
}
