//! Key and certificate are two files, and a process can be killed between them.
//!
//! New ones are written beside the old ones, as `….next`, and are both on the disk before the first
//! of them takes the place of an old one: the key, then the certificate. Whoever finds the key new
//! and the certificate old finds the rest of the work in `….next`, and does it. So there is always
//! one whole pair, whatever happens.
//!
//! Readers take no lock. A lock on the directory of the certificate keeps two that renew apart.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rcgen::KeyPair;

use super::request::{belong, new_key, request};
use super::{CredentialsError, failed};
use crate::config::Tls;

/// Looks at files that do not belong together, before that is an error.
const LOOKS: u32 = 20;
/// Pause between two of them.
const PAUSE: Duration = Duration::from_millis(20);

/// The content of the files, PEM.
#[derive(Clone)]
pub struct Credentials {
    /// The authorities to trust.
    pub ca: Vec<u8>,
    /// The certificate.
    pub cert: Vec<u8>,
    /// Its key.
    pub key: Vec<u8>,
}

/// A new key that waits beside the old one for its certificate. Goes away with this value.
pub struct Staged {
    tls: Tls,
    key: KeyPair,
    committed: bool,
    _lock: File,
}

fn next(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".next");
    name.into()
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Reads the files; finishes what a process that was killed began.
///
/// # Errors
/// A file that cannot be read, or files that do not belong together.
pub fn read(tls: &Tls) -> Result<Credentials, CredentialsError> {
    for _ in 0..LOOKS {
        let (key, cert) = (read_file(&tls.key)?, read_file(&tls.cert)?);
        if belong(&cert, &key) {
            return Ok(Credentials { ca: read_file(&tls.ca)?, cert, key });
        }
        // Somebody is between the two renames, or was killed there.
        match lock(tls) {
            Ok(_lock) => settle(tls)?,
            Err(_) => sleep(PAUSE),
        }
    }
    Err(CredentialsError::Mismatch { cert: tls.cert.clone(), key: tls.key.clone() })
}

fn read_file(path: &Path) -> Result<Vec<u8>, CredentialsError> {
    fs::read(path).map_err(failed("read", path))
}

fn lock(tls: &Tls) -> Result<File, CredentialsError> {
    let path = directory(&tls.cert);
    let lock = File::open(path).map_err(failed("open", path))?;
    lock.try_lock().map_err(|_| CredentialsError::Busy(tls.cert.clone()))?;
    Ok(lock)
}

/// Does the rest of what a process that was killed began, or takes it back. With the lock.
fn settle(tls: &Tls) -> Result<(), CredentialsError> {
    let (next_key, next_cert) = (next(&tls.key), next(&tls.cert));
    let Some(cert) = read_if_there(&next_cert)? else {
        return remove(&next_key);
    };
    match read_if_there(&next_key)? {
        Some(key) if is_whole(&cert) && belong(&cert, &key) => commit(tls),
        Some(_) => remove(&next_cert).and_then(|()| remove(&next_key)),
        None if is_whole(&cert) && belong(&cert, &read_file(&tls.key)?) => commit(tls),
        None => remove(&next_cert),
    }
}

fn is_whole(cert: &[u8]) -> bool {
    super::Life::of(cert).is_ok()
}

fn commit(tls: &Tls) -> Result<(), CredentialsError> {
    for path in [&tls.key, &tls.cert] {
        match fs::rename(next(path), path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result.map_err(failed("replace", path))?,
        }
        sync(directory(path))?;
    }
    Ok(())
}

fn sync(path: &Path) -> Result<(), CredentialsError> {
    File::open(path).and_then(|it| it.sync_all()).map_err(failed("write", path))
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, CredentialsError> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some).map_err(failed("read", path)),
    }
}

fn remove(path: &Path) -> Result<(), CredentialsError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(failed("remove", path)),
    }
}

/// Writes a file that is not there yet, and waits until the disk has it.
fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), CredentialsError> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(mode).open(path);
    let mut file = file.map_err(failed("create", path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed("write", path))
}

/// Makes a new key, on the disk, before anybody is asked for its certificate: a token must not be
/// used up for a disk that is full.
///
/// # Errors
/// When there is no room, or another process renews.
pub fn stage(tls: &Tls) -> Result<Staged, CredentialsError> {
    for path in [&tls.ca, &tls.cert, &tls.key] {
        let directory = directory(path);
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(directory).map_err(failed("create directory", directory))?;
    }
    let lock = lock(tls)?;
    settle(tls)?;
    let key = new_key()?;
    // From here on the drop of the value takes it away again.
    let staged = Staged { tls: tls.clone(), key, committed: false, _lock: lock };
    write_new(&next(&tls.key), staged.key.serialize_pem().as_bytes(), 0o600)?;
    Ok(staged)
}

impl Staged {
    /// The request for a certificate of the new key, DER.
    ///
    /// # Errors
    /// [`CredentialsError::Key`].
    pub fn request(&self) -> Result<Vec<u8>, CredentialsError> {
        request(&self.key)
    }

    /// Puts the new key and its certificate in the place of the old ones.
    ///
    /// # Errors
    /// A certificate of another key, or a file that cannot be written. Until the certificate is on
    /// the disk the old ones stay.
    pub fn commit(mut self, certificate: &str, ca: &str) -> Result<(), CredentialsError> {
        let (certificate, ca) = (certificate.as_bytes(), ca.as_bytes());
        if !is_whole(certificate) || !belong(certificate, self.key.serialize_pem().as_bytes()) {
            return Err(CredentialsError::Answer("its certificate is of another key"));
        }
        if !is_whole(ca) {
            return Err(CredentialsError::Answer("it names no authority"));
        }
        let tls = &self.tls;
        if read_if_there(&tls.ca)?.is_none_or(|old| old != ca) {
            let new = next(&tls.ca);
            remove(&new)?;
            write_new(&new, ca, 0o644)?;
            fs::rename(&new, &tls.ca).map_err(failed("replace", &tls.ca))?;
        }
        write_new(&next(&tls.cert), certificate, 0o644)?;
        sync(directory(&tls.key))?;
        sync(directory(&tls.cert))?;
        // Should the renames fail, `settle` does them at the next look.
        self.committed = true;
        commit(tls)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.committed {
            // The next one would take it away as well.
            let _ = remove(&next(&self.tls.key));
            let _ = remove(&next(&self.tls.cert));
        }
    }
}

/// Keeps the key of the collector's policies. One that is there stays, unless it is to be replaced:
/// somebody may have put it there by hand.
pub(super) fn pin(path: &Path, text: &str, replace: bool) -> Result<(), CredentialsError> {
    match read_if_there(path)? {
        Some(old) if old == text.as_bytes() => return Ok(()),
        Some(_) if !replace => {
            tracing::warn!(
                path = %path.display(),
                "the collector names another key of policies than the one that is here, which stays"
            );
            return Ok(());
        }
        _ => {}
    }
    let mut builder = DirBuilder::new();
    let parent = directory(path);
    builder.recursive(true).mode(0o700);
    builder.create(parent).map_err(failed("create directory", parent))?;
    let new = next(path);
    remove(&new)?;
    write_new(&new, text.as_bytes(), 0o644)?;
    fs::rename(&new, path).map_err(failed("replace", path))?;
    sync(directory(path))
}

/// Refuses a secret that others than its owner may read.
pub(super) fn check_private(path: &Path) -> Result<(), CredentialsError> {
    let file = fs::metadata(path).map_err(failed("read", path))?;
    let mode = file.permissions().mode() & 0o777;
    if file.is_file() && mode & 0o077 != 0 {
        return Err(CredentialsError::Open { path: path.to_owned(), mode });
    }
    Ok(())
}
