//! An archive in a directory of this machine.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::ArchiveError;
use super::manifest::{self, Line, Manifest};
use super::place::Place;

/// Keeps a second run off the same archive.
pub(super) const LOCK: &str = ".lock";
/// What the name of a file that is not whole yet begins and ends with.
const PART: (&str, &str) = (".sekimori-", ".part");

/// An archive that nobody else writes to.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    manifest: Manifest,
    _lock: File,
}

impl Directory {
    /// Makes it unless it is there, and keeps others off.
    ///
    /// # Errors
    /// When it lies in the store, another run has it, or the disk refuses.
    pub fn open(path: &Path, store: &Path) -> Result<Directory, ArchiveError> {
        let failed = |path: &Path, source| ArchiveError::File { path: path.to_owned(), source };
        let store = store.canonicalize().map_err(|source| failed(store, source))?;
        // Before it is made, by what is there of its path, and as it is then.
        let there = path.ancestors().find_map(|it| it.canonicalize().ok());
        if there.is_some_and(|it| it.starts_with(&store)) {
            return Err(ArchiveError::InStore(path.to_owned()));
        }
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.map_err(|source| failed(path, source))?;
        let path = path.canonicalize().map_err(|source| failed(path, source))?;
        if path.starts_with(&store) {
            return Err(ArchiveError::InStore(path));
        }
        let lock_path = path.join(LOCK);
        let lock = manifest::own_file(&lock_path).map_err(|source| failed(&lock_path, source))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(ArchiveError::InUse(path.display().to_string()));
            }
            Err(TryLockError::Error(source)) => return Err(failed(&lock_path, source)),
        }
        remove_parts(&path).map_err(|source| failed(&path, source))?;
        let manifest = Manifest::open(&path);
        let manifest = manifest.map_err(|source| failed(&path.join(manifest::NAME), source))?;
        Ok(Directory { path, manifest, _lock: lock })
    }
}

impl Place for Directory {
    type Part = NamedTempFile;

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn line(&self, file: &str) -> Option<&Line> {
        self.manifest.line(file)
    }

    fn length(&self, file: &str) -> Result<Option<u64>, ArchiveError> {
        let there = fs::symlink_metadata(self.path.join(file)).ok();
        Ok(there.filter(|it| it.is_file()).map(|it| it.len()))
    }

    fn begin(&self, file: &str) -> Result<NamedTempFile, ArchiveError> {
        let part = tempfile::Builder::new().prefix(PART.0).suffix(PART.1).tempfile_in(&self.path);
        part.map_err(|source| self.failed(file, source))
    }

    fn failed(&self, file: &str, source: io::Error) -> ArchiveError {
        ArchiveError::File { path: self.path.join(file), source }
    }

    fn keep(
        &mut self,
        part: NamedTempFile,
        line: &Line,
        _tell: &mut dyn FnMut(&str),
    ) -> Result<(), ArchiveError> {
        let failed = |source| self.failed(&line.file, source);
        part.as_file().sync_all().map_err(failed)?;
        part.persist(self.path.join(&line.file)).map_err(|error| failed(error.error))?;
        File::open(&self.path).and_then(|dir| dir.sync_all()).map_err(failed)?;
        let listed = self.manifest.add(line.clone());
        listed.map_err(|source| self.failed(manifest::NAME, source))
    }
}

/// Removes what runs that were killed have left.
fn remove_parts(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|it| it.starts_with(PART.0) && it.ends_with(PART.1));
        if ours && entry.file_type()?.is_file() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
