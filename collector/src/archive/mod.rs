//! `sekimori-collector archive`: the sealed files of a store as Parquet, for tools of analysis and
//! for years.
//!
//! Each file of the store becomes one file of the archive, with all its events and their bytes as
//! they were signed. It has its name only when it is whole and on the disk; then a line in the
//! manifest says what it is. So a run that was ended anywhere is taken up by the next one. The store
//! is only read, and nothing is written outside the archive.

mod columns;
mod file;
mod manifest;
#[cfg(test)]
mod tests;

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use jiff::civil::Date;
use parquet::errors::ParquetError;
use prost::Message as _;
use sekimori_proto::v1::Event;
use tempfile::NamedTempFile;
use thiserror::Error;

use self::file::{ParquetFile, Sum};
use self::manifest::{Line, Manifest};
use crate::limits::{ARCHIVE_DAMAGE_TOLD_MAX, ARCHIVE_PROGRESS};
use crate::store::sealed::{self, Damage, OpenFile, SealedFile};
use crate::store::{StoreError, Stored};

/// Keeps a second run off the same archive.
const LOCK: &str = ".lock";
/// What the name of a file that is not whole yet begins and ends with.
const PART: (&str, &str) = (".sekimori-", ".part");

/// Why an archive cannot be made, or not gone on with. What it has stays.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file or directory of the archive.
    #[error("archive {path}: {source}", path = .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another one writes to it.
    #[error("archive {0}: another sekimori-collector is writing to it; wait for that one")]
    InUse(PathBuf),
    /// It would lie among the store's files.
    #[error("archive {0}: it lies in the store; name a directory elsewhere with --to")]
    InStore(PathBuf),
    /// A file of this name has events of another store.
    #[error(
        "archive {path}: {file} is of another store, as {line} says; name another directory with \
         --to", path = .path.display(), line = manifest::NAME
    )]
    Other {
        /// The archive.
        path: PathBuf,
        /// The file.
        file: String,
    },
}

/// What to archive, and where.
#[derive(Clone, Debug)]
pub struct Archive {
    /// The store's directory.
    pub store: PathBuf,
    /// The archive's. It is made unless it is there.
    pub to: PathBuf,
    /// Only what was begun before this day, UTC.
    pub before: Option<Date>,
}

/// What became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Files that were written.
    pub written: u64,
    /// Files that were there already.
    pub there: u64,
    /// Events that were written.
    pub rows: u64,
    /// Bytes of the files that were written.
    pub bytes: u64,
    /// Parts of the store that could not be read.
    pub damaged: u64,
}

impl Archive {
    /// Writes what is not there yet; `tell` is told how far it has come, and what is damaged.
    ///
    /// # Errors
    /// [`ArchiveError`]. A damaged store is none: it is counted in the outcome.
    pub fn run(&self, tell: &mut dyn FnMut(&str)) -> Result<Outcome, ArchiveError> {
        let files = sealed::files(&self.store)?;
        let mut place = Place::open(&self.to, &self.store)?;
        let mut outcome = Outcome::default();
        let due = |file: &&SealedFile| self.before.is_none_or(|before| file.day() < before);
        for file in files.iter().filter(due) {
            let source = match file.open() {
                Ok(Some(source)) => source,
                Ok(None) => continue,
                Err(error) => {
                    tell(&format!("{error}"));
                    outcome.damaged += 1;
                    continue;
                }
            };
            if place.has(&name(file), &source)? {
                outcome.there += 1;
                continue;
            }
            let line = place.write(file, &source, tell)?;
            outcome.written += 1;
            outcome.rows += line.rows;
            outcome.bytes += line.bytes;
            outcome.damaged += line.damaged;
        }
        Ok(outcome)
    }
}

fn name(file: &SealedFile) -> String {
    format!("{}.parquet", file.name())
}

/// An archive that nobody else writes to.
#[derive(Debug)]
struct Place {
    dir: PathBuf,
    manifest: Manifest,
    _lock: File,
}

impl Place {
    fn open(dir: &Path, store: &Path) -> Result<Place, ArchiveError> {
        let failed = |path: &Path, source| ArchiveError::File { path: path.to_owned(), source };
        let store = store.canonicalize().map_err(|source| failed(store, source))?;
        // Before it is made, by what is there of its path, and as it is then.
        let there = dir.ancestors().find_map(|it| it.canonicalize().ok());
        if there.is_some_and(|it| it.starts_with(&store)) {
            return Err(ArchiveError::InStore(dir.to_owned()));
        }
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|source| failed(dir, source))?;
        let dir = dir.canonicalize().map_err(|source| failed(dir, source))?;
        if dir.starts_with(&store) {
            return Err(ArchiveError::InStore(dir));
        }
        let path = dir.join(LOCK);
        let lock = manifest::own_file(&path).map_err(|source| failed(&path, source))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ArchiveError::InUse(dir)),
            Err(TryLockError::Error(source)) => return Err(failed(&path, source)),
        }
        remove_parts(&dir).map_err(|source| failed(&dir, source))?;
        let manifest = Manifest::open(&dir);
        let manifest = manifest.map_err(|source| failed(&dir.join(manifest::NAME), source))?;
        Ok(Place { dir, manifest, _lock: lock })
    }

    /// Whether the file is listed, and there.
    fn has(&self, name: &str, source: &OpenFile) -> Result<bool, ArchiveError> {
        let Some(line) = self.manifest.line(name) else { return Ok(false) };
        if line.store_cursors != source.cursors() {
            return Err(ArchiveError::Other { path: self.dir.clone(), file: name.to_owned() });
        }
        let there = fs::symlink_metadata(self.dir.join(name));
        Ok(there.is_ok_and(|it| it.is_file() && it.len() == line.bytes))
    }

    fn write(
        &mut self,
        file: &SealedFile,
        source: &OpenFile,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Line, ArchiveError> {
        let name = name(file);
        let path = self.dir.join(&name);
        let failed = |source| ArchiveError::File { path: path.clone(), source };
        let part = tempfile::Builder::new().prefix(PART.0).suffix(PART.1).tempfile_in(&self.dir);
        let part = part.map_err(failed)?;
        let mut work =
            Work::begin(&name, source.cursors(), part, tell).map_err(|it| it.at(&path))?;
        work.all(source).map_err(|it| it.at(&path))?;
        let (part, line) = work.finish().map_err(|it| it.at(&path))?;
        part.as_file().sync_all().map_err(failed)?;
        part.persist(&path).map_err(|error| failed(error.error))?;
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
        let listed = self.manifest.add(line.clone());
        let manifest = self.dir.join(manifest::NAME);
        listed.map_err(|source| ArchiveError::File { path: manifest, source })?;
        tell(&format!(
            "{name}: {} events, {} bytes ({} in the store)",
            line.rows,
            line.bytes,
            file.bytes()
        ));
        Ok(line)
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

/// What ends the writing of a file.
#[derive(Debug, Error)]
enum Failure {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Parquet(#[from] ParquetError),
}

impl Failure {
    /// With the file that was written.
    fn at(self, path: &Path) -> ArchiveError {
        match self {
            Failure::Store(error) => error.into(),
            Failure::Parquet(error) => {
                let source = match error {
                    // As the disk said it: who may not write is told so.
                    ParquetError::External(error) => match error.downcast::<io::Error>() {
                        Ok(error) => *error,
                        Err(error) => io::Error::other(error),
                    },
                    error => io::Error::other(error),
                };
                ArchiveError::File { path: path.to_owned(), source }
            }
        }
    }
}

/// One file at work.
struct Work<'a> {
    out: ParquetFile<NamedTempFile>,
    line: Line,
    told: Instant,
    tell: &'a mut dyn FnMut(&str),
}

impl<'a> Work<'a> {
    fn begin(
        name: &str,
        store_cursors: (u64, u64),
        part: NamedTempFile,
        tell: &'a mut dyn FnMut(&str),
    ) -> Result<Work<'a>, Failure> {
        let line = Line {
            file: name.to_owned(),
            sha256: String::new(),
            bytes: 0,
            rows: 0,
            first_cursor: None,
            last_cursor: None,
            damaged: 0,
            store_cursors,
        };
        Ok(Work { out: ParquetFile::begin(part)?, line, told: Instant::now(), tell })
    }

    fn all(&mut self, source: &OpenFile) -> Result<(), Failure> {
        // Both are told of by one reader, never at the same time.
        let work = std::cell::RefCell::new(self);
        source.read(
            |stored| work.borrow_mut().event(stored),
            |damage| work.borrow_mut().damaged(&damage),
        )
    }

    fn event(&mut self, stored: &Stored<'_>) -> Result<(), Failure> {
        let event = match Event::decode(stored.body.as_ref()) {
            Ok(event) => event,
            Err(error) => {
                // What the store knows of it is kept, with its bytes.
                let what = format!("event {}: {error}", stored.cursor);
                self.damaged(&Damage { what });
                Event { kind: stored.kind, verdict: stored.verdict, ..Event::default() }
            }
        };
        self.out.push(columns::row(stored, &event))?;
        let Line { rows, first_cursor, last_cursor, .. } = &mut self.line;
        *rows += 1;
        *first_cursor = Some(first_cursor.map_or(stored.cursor, |it| it.min(stored.cursor)));
        *last_cursor = Some(last_cursor.map_or(stored.cursor, |it| it.max(stored.cursor)));
        if self.told.elapsed() > ARCHIVE_PROGRESS {
            self.told = Instant::now();
            let (before, last) = self.line.store_cursors;
            let all = last.saturating_sub(before);
            (self.tell)(&format!("{}: {} of {all} events …", self.line.file, self.line.rows));
        }
        Ok(())
    }

    fn damaged(&mut self, damage: &Damage) {
        self.line.damaged += 1;
        if self.line.damaged <= ARCHIVE_DAMAGE_TOLD_MAX {
            (self.tell)(&format!("{}: damaged: {}", self.line.file, damage.what));
        }
    }

    fn finish(self) -> Result<(NamedTempFile, Line), Failure> {
        let (part, Sum { sha256, bytes }) = self.out.finish()?;
        let sha256 = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok((part, Line { sha256, bytes, ..self.line }))
    }
}
