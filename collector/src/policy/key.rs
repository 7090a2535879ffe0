//! The key that policies are signed with: `policy.key` in the collector's directory, and its public
//! half `policy.pub` beside it.
//!
//! Hosts are given the public half at their enrolment and keep to it. The private half may be taken
//! elsewhere: then this collector gives out what is signed there, and cannot make up anything.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sekimori_evidence::{KeyError, SigningKey};
use sekimori_policy::bundle;
use thiserror::Error;

use crate::pki::{self, PkiError};

/// The private half, within the collector's directory.
pub const KEY_FILE: &str = "policy.key";
/// The public half.
pub const PUBLIC_FILE: &str = "policy.pub";

/// Why there is no key.
#[derive(Debug, Error)]
pub enum PolicyKeyError {
    /// A file.
    #[error("{path}: {source}", path = .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What is in the private one.
    #[error(
        "{path} is no key: put it back from a copy; with another key every host has to be enrolled \
         again", path = .0.display()
    )]
    Damaged(PathBuf),
    /// What is in the public one.
    #[error(
        "{path} is no public key, or not that of {KEY_FILE}: put it back from a copy",
        path = .0.display()
    )]
    Public(PathBuf),
    /// No random numbers.
    #[error("the system gives no random bytes for a key")]
    Random,
    /// It could not be written.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

/// Both halves, as far as they are here.
#[derive(Debug, Default)]
pub struct Keys {
    own: Option<SigningKey>,
    public: Option<Vec<u8>>,
}

impl Keys {
    /// Those in `dir`; a pair is made where there is neither half.
    ///
    /// # Errors
    /// [`PolicyKeyError`]; nothing that is there is replaced.
    pub fn open(dir: &Path) -> Result<Keys, PolicyKeyError> {
        let (path, public_path) = (dir.join(KEY_FILE), dir.join(PUBLIC_FILE));
        let told = match fs::read_to_string(&public_path) {
            Ok(text) => {
                let key = bundle::key_of(&text);
                Some(key.ok_or_else(|| PolicyKeyError::Public(public_path.clone()))?)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(PolicyKeyError::File { path: public_path, source }),
        };
        if told.is_some() && !path.try_exists().unwrap_or(true) {
            return Ok(Keys { own: None, public: told });
        }
        let own = open_key(&path)?;
        let public = own.public();
        match told {
            Some(told) if told != public => return Err(PolicyKeyError::Public(public_path)),
            Some(_) => {}
            None => pki::publish(&public_path, &bundle::key_text(&public))?,
        }
        pki::belongs_to_owner(&path)?;
        Ok(Keys { own: Some(own), public: Some(public) })
    }

    /// The private half.
    pub fn own(&self) -> Option<&SigningKey> {
        self.own.as_ref()
    }

    /// The public half.
    pub fn public(&self) -> Option<&[u8]> {
        self.public.as_deref()
    }
}

/// The key in a file, which is made when it does not exist.
///
/// # Errors
/// [`PolicyKeyError`].
pub fn open_key(path: &Path) -> Result<SigningKey, PolicyKeyError> {
    SigningKey::open(path).map_err(|error| match error {
        KeyError::File { path, source } => PolicyKeyError::File { path, source },
        KeyError::Damaged { path } => PolicyKeyError::Damaged(path),
        KeyError::Random => PolicyKeyError::Random,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_pair_is_made_once_and_the_private_half_may_go() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::open(dir.path()).unwrap();
        let public = keys.public().unwrap().to_vec();
        assert_eq!(keys.own().unwrap().public(), public);
        let mode = |name| fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode(KEY_FILE) & 0o777, 0o600);
        assert_eq!(Keys::open(dir.path()).unwrap().public().unwrap(), public);
        fs::remove_file(dir.path().join(KEY_FILE)).unwrap();
        let keys = Keys::open(dir.path()).unwrap();
        assert!(keys.own().is_none() && !dir.path().join(KEY_FILE).exists());
        assert_eq!(keys.public().unwrap(), public);
    }

    #[test]
    fn halves_that_do_not_belong_together_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        Keys::open(dir.path()).unwrap();
        fs::write(dir.path().join(PUBLIC_FILE), bundle::key_text(&[7; 32])).unwrap();
        let error = Keys::open(dir.path()).unwrap_err();
        assert!(matches!(error, PolicyKeyError::Public(_)), "{error}");
        fs::write(dir.path().join(KEY_FILE), "no key").unwrap();
        let error = Keys::open(dir.path()).unwrap_err();
        assert!(matches!(error, PolicyKeyError::Damaged(_)), "{error}");
    }
}
