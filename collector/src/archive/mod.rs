//! `sekimori-collector archive`: the sealed files of a store as Parquet, for tools of analysis and
//! for years.
//!
//! Each file of the store becomes one file of the archive, with all its events and their bytes as
//! they were signed. It has its name only when it is whole and on the disk; then a line in the
//! manifest says what it is. So a run that was ended anywhere is taken up by the next one. The store
//! is only read, and nothing is written outside the archive but the note that it was made.

mod bucket;
mod columns;
mod directory;
mod file;
mod manifest;
mod place;
#[cfg(test)]
mod tests;
mod work;

use std::io;
use std::path::PathBuf;

use jiff::civil::Date;
use thiserror::Error;

use self::bucket::Bucket;
pub use self::bucket::{BucketConfig, BucketError};
use self::directory::Directory;
use self::manifest::Line;
use self::place::Place;
use self::work::Work;
use crate::store::StoreError;
use crate::store::sealed::{self, OpenFile, SealedFile};

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
    /// A bucket.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// Another one writes to it.
    #[error("archive {0}: another sekimori-collector is writing to it; wait for that one")]
    InUse(String),
    /// It would lie among the store's files.
    #[error("archive {0}: it lies in the store; name a directory elsewhere with --to")]
    InStore(PathBuf),
    /// A file of this name has events of another store.
    #[error(
        "archive {place}: {file} is of another store, as {line} says; name another place with --to",
        line = manifest::NAME
    )]
    Other {
        /// The archive.
        place: String,
        /// The file.
        file: String,
    },
}

/// Where an archive goes.
#[derive(Clone, Debug)]
pub enum To {
    /// A directory. It is made unless it is there.
    Directory(PathBuf),
    /// A bucket of S3.
    Bucket(BucketConfig),
}

/// What to archive, and where.
#[derive(Clone, Debug)]
pub struct Archive {
    /// The store's directory.
    pub store: PathBuf,
    /// Where the archive is.
    pub to: To,
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
        match &self.to {
            To::Directory(path) => self.fill(&files, Directory::open(path, &self.store)?, tell),
            To::Bucket(config) => self.fill(&files, Bucket::open(config)?, tell),
        }
    }

    fn fill<P: Place>(
        &self,
        files: &[SealedFile],
        mut place: P,
        tell: &mut dyn FnMut(&str),
    ) -> Result<Outcome, ArchiveError> {
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
            let name = format!("{}.parquet", file.name());
            if has(&place, &name, &source)? {
                outcome.there += 1;
                continue;
            }
            let line = write(&mut place, &name, &source, tell)?;
            tell(&format!(
                "{name}: {} events, {} bytes ({} in the store)",
                line.rows,
                line.bytes,
                file.bytes()
            ));
            outcome.written += 1;
            outcome.rows += line.rows;
            outcome.bytes += line.bytes;
            outcome.damaged += line.damaged;
        }
        Ok(outcome)
    }
}

/// Whether the file is listed, and there.
fn has(place: &impl Place, name: &str, source: &OpenFile) -> Result<bool, ArchiveError> {
    let Some(line) = place.line(name) else { return Ok(false) };
    if line.store_cursors != source.cursors() {
        return Err(ArchiveError::Other { place: place.name(), file: name.to_owned() });
    }
    Ok(place.length(name)? == Some(line.bytes))
}

fn write<P: Place>(
    place: &mut P,
    name: &str,
    source: &OpenFile,
    tell: &mut dyn FnMut(&str),
) -> Result<Line, ArchiveError> {
    let part = place.begin(name)?;
    let written = || {
        let mut work = Work::begin(name, source.cursors(), part, tell)?;
        work.all(source)?;
        work.finish()
    };
    let (part, line) = written().map_err(|it| it.told(|source| place.failed(name, source)))?;
    place.keep(part, &line, tell)?;
    Ok(line)
}
