//! The files of the store: one a day, or more when a day is large.
//!
//! A file is named by its number and the day on which it was begun (UTC). Only the last one is
//! written to; one that is not the last never changes again, until it is removed as a whole.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use rusqlite::Connection;

use super::StoreError;
use super::schema;

/// Keeps a second collector off the same store while it lives.
#[derive(Debug)]
pub struct StoreLock {
    _file: File,
}

/// Makes the directory unless it is there, and takes the lock in it.
pub fn lock(dir: &Path) -> Result<StoreLock, StoreError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|source| StoreError::File { path: dir.to_owned(), source })?;
    let path = dir.join("lock");
    let file = schema::private_file(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(StoreLock { _file: file }),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(StoreError::File { path, source }),
    }
}

/// The day by this machine's clock, UTC.
pub fn today() -> Date {
    Timestamp::now().to_zoned(TimeZone::UTC).date()
}

/// What SQLite keeps beside a database, by what it adds to the name.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// What the events of a file lie between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The last cursor that was given before the file was begun.
    pub before: u64,
    /// The highest cursor; as `before` when the file is empty.
    pub last: u64,
    /// UTC ns since 1970 of the oldest event.
    pub oldest_ns: i64,
    /// Of the newest.
    pub newest_ns: i64,
}

impl Span {
    /// Of no event, behind cursor `before`.
    pub const fn empty(before: u64) -> Span {
        Span { before, last: before, oldest_ns: i64::MAX, newest_ns: i64::MIN }
    }

    /// Of who knows what, up to cursor `last`.
    pub const fn unknown(last: u64) -> Span {
        Span { before: 0, last, oldest_ns: i64::MIN, newest_ns: i64::MAX }
    }

    /// With the events up to cursor `last`, between these times.
    pub fn with(self, last: u64, oldest_ns: i64, newest_ns: i64) -> Span {
        Span {
            before: self.before,
            last: self.last.max(last),
            oldest_ns: self.oldest_ns.min(oldest_ns),
            newest_ns: self.newest_ns.max(newest_ns),
        }
    }
}

/// One file.
#[derive(Debug)]
pub struct StoreFile {
    /// Grows by one from file to file.
    pub number: u64,
    /// When it was begun.
    pub day: Date,
    /// Where it is.
    pub path: PathBuf,
    span: Mutex<Span>,
    idle: Mutex<Vec<Connection>>,
}

impl StoreFile {
    fn new(dir: &Path, number: u64, day: Date) -> StoreFile {
        let path = dir.join(format!("{number:06}-{day}.db"));
        let (span, idle) = (Mutex::new(Span::empty(0)), Mutex::default());
        StoreFile { number, day, path, span, idle }
    }

    fn from_name(path: &Path) -> Option<StoreFile> {
        let (number, day) = path.file_name()?.to_str()?.strip_suffix(".db")?.split_once('-')?;
        let file = StoreFile::new(path.parent()?, number.parse().ok()?, day.parse().ok()?);
        // Another spelling of the same would be another file.
        (file.path == path).then_some(file)
    }

    /// What its events lie between.
    pub fn span(&self) -> Span {
        *self.span.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its events lie between this from now on.
    pub fn set_span(&self, span: Span) {
        *self.span.lock().unwrap_or_else(PoisonError::into_inner) = span;
    }

    /// Bytes on the disk, with the write-ahead log.
    pub fn bytes(&self) -> u64 {
        let size = |path: &Path| fs::metadata(path).map_or(0, |it| it.len());
        size(&self.path) + size(&beside(&self.path, "-wal"))
    }

    /// Reads with a connection of its own. One that failed is closed.
    pub fn read<T, E: From<rusqlite::Error>>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match kept {
            Some(connection) => connection,
            None => schema::open_reader(&self.path)?,
        };
        let result = read(&connection)?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        Ok(result)
    }

    /// Closes the connections that nobody reads with.
    pub fn close(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Removes it. Whoever reads it now reads on.
    fn remove(&self) -> std::io::Result<()> {
        self.close();
        fs::remove_file(&self.path)?;
        for suffix in ["-wal", "-shm"] {
            match fs::remove_file(beside(&self.path, suffix)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// All files, in the order of their numbers.
#[derive(Clone, Debug)]
pub struct Files {
    dir: PathBuf,
    files: Arc<RwLock<Vec<Arc<StoreFile>>>>,
}

impl Files {
    /// Those that are in the directory.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn of(dir: &Path) -> Result<Files, StoreError> {
        let failed = |source| StoreError::File { path: dir.to_owned(), source };
        let mut files = Vec::new();
        for entry in fs::read_dir(dir).map_err(failed)? {
            files.extend(StoreFile::from_name(&entry.map_err(failed)?.path()).map(Arc::new));
        }
        files.sort_by_key(|file| file.number);
        Ok(Files { dir: dir.to_owned(), files: Arc::new(RwLock::new(files)) })
    }

    /// As they are now.
    pub fn list(&self) -> Vec<Arc<StoreFile>> {
        self.files.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The file that comes behind the last one, of this day; [`Files::add`] makes it one of them.
    pub fn next(&self, day: Date) -> StoreFile {
        let last = self.list().last().map_or(0, |file| file.number);
        StoreFile::new(&self.dir, last + 1, day)
    }

    /// Adds the last one.
    pub fn add(&self, file: Arc<StoreFile>) {
        self.files.write().unwrap_or_else(PoisonError::into_inner).push(file);
    }

    /// Removes the file with this number, from the list first.
    ///
    /// # Errors
    /// When the file system does not; it is no longer in the list.
    pub fn remove(&self, number: u64) -> std::io::Result<()> {
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        let place = files.iter().position(|file| file.number == number);
        let file = place.map(|place| files.remove(place));
        drop(files);
        file.map_or(Ok(()), |file| file.remove())
    }

    /// Closes what nobody reads with.
    pub fn close(&self) {
        self.list().iter().for_each(|file| file.close());
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn one_collector_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("store");
        let first = lock(&dir).unwrap();
        assert!(matches!(lock(&dir).unwrap_err(), StoreError::InUse(_)));
        drop(first);
        lock(&dir).unwrap();
    }

    #[test]
    fn files_are_found_by_their_names_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "000010-2026-12-01.db",
            "000009-2026-11-27.db",
            "000009-2026-11-27.db-wal",
            "9-2026-11-27.db",
            "lock",
            "000011-2026-13-01.db",
            "000012.db",
        ] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let files = Files::of(dir.path()).unwrap();
        let numbers = |files: &Files| files.list().iter().map(|it| it.number).collect::<Vec<_>>();
        assert_eq!(numbers(&files), [9, 10]);
        let next = files.next("2026-12-02".parse().unwrap());
        assert_eq!(next.path, dir.path().join("000011-2026-12-02.db"));
        files.add(Arc::new(next));
        files.remove(9).unwrap();
        assert_eq!(numbers(&files), [10, 11]);
        assert!(!dir.path().join("000009-2026-11-27.db-wal").exists());
    }
}
