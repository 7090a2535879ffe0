//! Certificates that are no longer wanted: the file `revoked` in the collector's directory.
//!
//! One JSON object a line, only ever appended. One with `revoked` refuses every certificate of that
//! identity; one with `except`, which an enrolment that comes later writes, lets one certificate in
//! again, by its serial number.

use std::collections::{HashMap, HashSet};
use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{CA_FILE, PkiError};
use crate::identity::{Role, check_name};
use crate::limits::{REVOKED_BYTES_MAX, SENTENCE_BYTES_MAX};

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
        let path = dir.join(REVOKED_FILE);
        let file_error = |source| PkiError::File { action: "read", path: path.clone(), source };
        let mut text = String::new();
        match OpenOptions::new().read(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Revoked::default()),
            Err(error) => return Err(file_error(error)),
            Ok(file) => {
                let most = REVOKED_BYTES_MAX.saturating_add(1);
                file.take(most).read_to_string(&mut text).map_err(file_error)?;
            }
        }
        if text.len() as u64 > REVOKED_BYTES_MAX {
            return Err(file_error(io::ErrorKind::FileTooLarge.into()));
        }
        let mut revoked = Revoked::default();
        for (number, line) in (1..).zip(text.lines()) {
            let line = serde_json::from_str(line).map_err(|source| PkiError::Revoked {
                path: path.clone(),
                line: number,
                source,
            })?;
            revoked.add(line);
        }
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
    let authority = dir.join(CA_FILE);
    if authority.try_exists().is_ok_and(|exists| !exists) {
        return Err(PkiError::NotInitialised(authority, dir.to_owned()));
    }
    // What cannot be understood must not grow.
    Revoked::read(dir)?;
    let (revoked, at) = (role.uri(name), Timestamp::now().to_string());
    append(dir, &Line::Revoked { revoked, at, reason: reason.to_owned() })
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
    append(dir, &Line::Except { except: identity, serial, at })
}

fn append(dir: &Path, line: &Line) -> Result<(), PkiError> {
    let path = dir.join(REVOKED_FILE);
    let file_error = |source| PkiError::File { action: "write", path: path.clone(), source };
    let mut text = serde_json::to_string(line).map_err(|error| file_error(error.into()))?;
    text.push('\n');
    let mut options = OpenOptions::new();
    let mut file = options.append(true).create(true).mode(0o600).open(&path).map_err(file_error)?;
    // The collector must be able to read it, whoever revokes.
    let (owner, own) = (dir.metadata().map_err(file_error)?, file.metadata().map_err(file_error)?);
    if (owner.uid(), owner.gid()) != (own.uid(), own.gid()) {
        fchown(&file, Some(owner.uid()), Some(owner.gid())).map_err(file_error)?;
    }
    // One write: a line is there or it is not.
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(file_error)
}
