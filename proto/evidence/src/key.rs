//! The key that an author of records signs with.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use thiserror::Error;

/// Bytes of a file with a key; PKCS#8 of Ed25519 has fewer than a hundred.
const FILE_BYTES_MAX: u64 = 4096;

/// Why there is no key.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The file.
    #[error("the key that signs records, {path}: {source}", path = .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What is in it.
    #[error(
        "the key that signs records, {path}, is none; when it is lost, move the file away: a new \
         one is made, and every verification will show the change", path = .path.display()
    )]
    Damaged {
        /// Which.
        path: PathBuf,
    },
    /// No random numbers.
    #[error("the system gives no random bytes for a key")]
    Random,
}

/// An Ed25519 key (RFC 8032) in a file that only its owner may read.
#[derive(Debug)]
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// The key in this file, which is made when it does not exist.
    ///
    /// # Errors
    /// [`KeyError`]; a file that is there and no key is never replaced.
    pub fn open(path: &Path) -> Result<SigningKey, KeyError> {
        let failed = |source| KeyError::File { path: path.into(), source };
        match fs::File::open(path) {
            Ok(file) => {
                let mut bytes = Vec::new();
                file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
                SigningKey::of(&bytes).ok_or_else(|| KeyError::Damaged { path: path.into() })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
                    .map_err(|_| KeyError::Random)?;
                write(path, document.as_ref()).map_err(failed)?;
                SigningKey::of(document.as_ref()).ok_or(KeyError::Random)
            }
            Err(error) => Err(failed(error)),
        }
    }

    fn of(document: &[u8]) -> Option<SigningKey> {
        Ed25519KeyPair::from_pkcs8(document).ok().map(SigningKey)
    }

    /// Its public half, 32 bytes.
    #[must_use]
    pub fn public(&self) -> Vec<u8> {
        self.0.public_key().as_ref().to_vec()
    }

    /// Signs `message`, 64 bytes.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).as_ref().to_vec()
    }
}

/// Whether `signature` is that of `message` by the owner of `key`.
#[must_use]
pub fn is_signed(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
}

/// As a whole or not at all, also when the machine dies.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(Path::new(&temporary))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("evidence.key");
        let key = SigningKey::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let again = SigningKey::open(&path).unwrap();
        assert_eq!(key.public(), again.public());
        let signature = key.sign(b"message");
        assert!(is_signed(&again.public(), b"message", &signature));
        assert!(!is_signed(&again.public(), b"messages", &signature));
        assert!(!is_signed(&[1; 32], b"message", &signature));
        assert!(!is_signed(b"short", b"message", &signature));
    }

    #[test]
    fn a_damaged_key_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("evidence.key");
        fs::write(&path, b"no key").unwrap();
        let error = SigningKey::open(&path).unwrap_err().to_string();
        assert!(error.contains("move the file away"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"no key");
    }
}
