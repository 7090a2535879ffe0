//! What the database looks like, and how an older one becomes today's.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use super::StoreError;
use crate::limits::{BUSY_TIMEOUT, WAL_BYTES_KEPT};

/// `sekm`: marks a SQLite file as ours.
const APPLICATION_ID: i32 = 0x7365_6b6d;

/// Step N makes version N + 1 of version N. Steps that were released never change.
const MIGRATIONS: [&str; 1] = ["
    CREATE TABLE events (
        cursor     INTEGER PRIMARY KEY AUTOINCREMENT,
        host       TEXT    NOT NULL,
        boot       BLOB    NOT NULL,
        sequence   INTEGER NOT NULL,
        time_ns    INTEGER NOT NULL,
        kind       INTEGER NOT NULL,
        verdict    INTEGER NOT NULL,
        user       TEXT    NOT NULL,
        login_user TEXT    NOT NULL,
        rule       TEXT    NOT NULL,
        text       BLOB    NOT NULL,
        body       BLOB    NOT NULL,
        UNIQUE (host, boot, sequence)
    ) STRICT;
    CREATE INDEX events_time    ON events (time_ns, cursor, kind, verdict, host);
    CREATE INDEX events_kind    ON events (kind, time_ns, cursor);
    CREATE INDEX events_host    ON events (host, time_ns, cursor);
    CREATE INDEX events_verdict ON events (verdict, time_ns, cursor);
    CREATE TABLE hosts (
        host          TEXT    PRIMARY KEY NOT NULL,
        events        INTEGER NOT NULL,
        last_event_ns INTEGER NOT NULL,
        lost          INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
"];

/// Keeps a second collector off the same store while it lives.
#[derive(Debug)]
pub struct StoreLock {
    _file: File,
}

/// Takes the lock beside the store, `PATH.lock`.
pub fn lock(path: &Path) -> Result<StoreLock, StoreError> {
    let lock_path = beside(path, ".lock");
    let file = private_file(&lock_path)?;
    match file.try_lock() {
        Ok(()) => Ok(StoreLock { _file: file }),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse(path.to_owned())),
        Err(TryLockError::Error(source)) => Err(StoreError::File { path: lock_path, source }),
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Opens or creates a file only its owner can read: events hold names of people and of files.
fn private_file(path: &Path) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(|source| StoreError::File { path: path.to_owned(), source })
}

/// Opens the store for writing, creates it if need be, and brings it to today's version.
pub fn open_writer(path: &Path) -> Result<Connection, StoreError> {
    drop(private_file(path)?);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let sqlite = |source| StoreError::Sqlite { path: path.to_owned(), source };
    let mut connection = Connection::open_with_flags(path, flags).map_err(sqlite)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(sqlite)?;
    // First look whose it is, and only then change anything.
    let version = check(&connection, path)?;
    connection.pragma_update(None, "journal_mode", "wal").map_err(sqlite)?;
    // Acknowledged means stored: every commit reaches the disk before it is acknowledged.
    connection.pragma_update(None, "synchronous", "full").map_err(sqlite)?;
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES_KEPT).map_err(sqlite)?;
    migrate(&mut connection, version).map_err(sqlite)?;
    Ok(connection)
}

/// Opens the store for reading only.
pub fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// The version of the store; refuses what is not ours or is newer than we are.
fn check(connection: &Connection, path: &Path) -> Result<usize, StoreError> {
    let read = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let facts = read("application_id").and_then(|id| {
        let tables = "SELECT count(*) FROM sqlite_schema";
        let tables: i64 = connection.query_row(tables, [], |row| row.get(0))?;
        Ok((id, read("user_version")?, tables))
    });
    let (id, version, tables) =
        facts.map_err(|source| StoreError::Sqlite { path: path.to_owned(), source })?;
    let version = usize::try_from(version).unwrap_or(0);
    match (id, tables) {
        (0, 0) => Ok(0),
        (APPLICATION_ID, _) if version > MIGRATIONS.len() => {
            Err(StoreError::Newer { path: path.to_owned(), version, known: MIGRATIONS.len() })
        }
        (APPLICATION_ID, _) => Ok(version),
        _ => Err(StoreError::Foreign(path.to_owned())),
    }
}

fn migrate(connection: &mut Connection, version: usize) -> rusqlite::Result<()> {
    for (version, sql) in (1_i64..).zip(MIGRATIONS).skip(version) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", version)?;
        transaction.commit()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_new_store_is_private_durable_and_opens_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.db");
        drop(open_writer(&path).unwrap());
        let connection = open_writer(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let pragma = |name: &str| -> i32 {
            connection.pragma_query_value(None, name, |row| row.get(0)).unwrap()
        };
        assert_eq!(pragma("synchronous"), 2);
        assert_eq!(pragma("user_version"), 1);
        let journal: String =
            connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        assert_eq!(journal, "wal");
    }

    #[test]
    fn a_newer_store_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.db");
        let connection = open_writer(&path).unwrap();
        connection.pragma_update(None, "user_version", 2).unwrap();
        drop(connection);
        let error = open_writer(&path).unwrap_err();
        assert!(matches!(error, StoreError::Newer { version: 2, known: 1, .. }), "{error}");
    }

    #[test]
    fn what_is_no_store_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("other.db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
        assert!(matches!(open_writer(&path).unwrap_err(), StoreError::Foreign(_)));
        std::fs::write(&path, "not a database, but long enough to be read as one").unwrap();
        assert!(matches!(open_writer(&path).unwrap_err(), StoreError::Sqlite { .. }));
        let missing = dir.path().join("no/such/events.db");
        assert!(matches!(open_writer(&missing).unwrap_err(), StoreError::File { .. }));
    }

    #[test]
    fn one_collector_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.db");
        let first = lock(&path).unwrap();
        assert!(matches!(lock(&path).unwrap_err(), StoreError::InUse(_)));
        drop(first);
        lock(&path).unwrap();
    }
}
