//! Passwords and keys: read from files that others may not read, and never shown.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::error::{Fault, SecretReason};
use crate::limits::{SECRET_BYTES_MAX, SIGNING_SECRET_BYTES_MIN};

/// Permissions that a secret may not have: all of others, and writing by the group. The group may
/// read, for that is how systemd and Kubernetes hand over secrets.
const MODE_REFUSED: u32 = 0o027;

/// What nobody but the other side may learn.
pub(super) struct Secret(Vec<u8>);

impl Secret {
    /// A key to sign with.
    pub(super) fn key(field: &'static str, path: &Path) -> Result<Secret, Fault> {
        let secret = Secret::read(field, path)?;
        if secret.0.len() < SIGNING_SECRET_BYTES_MIN {
            return Err(refused(field, path, SecretReason::Short));
        }
        Ok(secret)
    }

    /// A password: one line of text.
    pub(super) fn password(field: &'static str, path: &Path) -> Result<Secret, Fault> {
        let secret = Secret::read(field, path)?;
        match secret.text() {
            Some(text) if !text.contains(char::is_control) => Ok(secret),
            _ => Err(refused(field, path, SecretReason::NoText)),
        }
    }

    /// Its bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// As text, if it is text.
    pub(super) fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The content of a file without the end of its last line.
    fn read(field: &'static str, path: &Path) -> Result<Secret, Fault> {
        let failed = |source| Fault::File { field, path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(refused(field, path, SecretReason::NoFile));
        }
        let mode = metadata.permissions().mode() & 0o777;
        if mode & MODE_REFUSED != 0 {
            return Err(Fault::Open { field, path: path.to_owned(), mode });
        }
        let mut bytes = Vec::new();
        file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
        if u64::try_from(bytes.len()).is_ok_and(|length| length > SECRET_BYTES_MAX) {
            return Err(refused(field, path, SecretReason::Long));
        }
        for end in [b'\n', b'\r'] {
            bytes.pop_if(|last| *last == end);
        }
        if bytes.is_empty() {
            return Err(refused(field, path, SecretReason::Empty));
        }
        Ok(Secret(bytes))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(…)")
    }
}

fn refused(field: &'static str, path: &Path, reason: SecretReason) -> Fault {
    Fault::Secret { field, path: path.to_owned(), reason }
}
