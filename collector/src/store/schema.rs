//! What a file of the store looks like, and how an older one becomes today's.

use std::fs::OpenOptions;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::StoreError;
use crate::limits::{BUSY_TIMEOUT, WAL_BYTES_KEPT};

/// `sekd`: marks a SQLite file as one of ours.
const APPLICATION_ID: i32 = 0x7365_6b64;

/// Step N makes version N + 1 of version N. Steps that were released never change.
///
/// `blocks` has what is known of a block without a look into it, see [`super::block::Header`]; its
/// `run` is the first cursor of the run of blocks that it was stored with. `sum` is the CRC-32 of the
/// header. `columns` has the columns of blocks that were joined, see [`super::columns`]. `boots` has the numbers that are stored of each agent boot, and `hosts` the totals of each
/// host, both also for the files before this one, so that those can be removed.
const MIGRATIONS: [&str; 2] = [
    "
    CREATE TABLE blocks (
        block     INTEGER PRIMARY KEY AUTOINCREMENT,
        run       INTEGER NOT NULL,
        first     INTEGER NOT NULL,
        last      INTEGER NOT NULL,
        events    INTEGER NOT NULL,
        oldest_ns INTEGER NOT NULL,
        newest_ns INTEGER NOT NULL,
        small     INTEGER NOT NULL,
        tags      BLOB    NOT NULL,
        sum       INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX blocks_run ON blocks (run);
    CREATE INDEX blocks_newest ON blocks (newest_ns, oldest_ns);
    CREATE TABLE bodies (
        block INTEGER PRIMARY KEY,
        body  BLOB NOT NULL
    ) STRICT;
    CREATE TABLE boots (
        host   TEXT NOT NULL,
        boot   BLOB NOT NULL,
        ranges BLOB NOT NULL,
        PRIMARY KEY (host, boot)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE hosts (
        host          TEXT    PRIMARY KEY NOT NULL,
        events        INTEGER NOT NULL,
        last_event_ns INTEGER NOT NULL,
        lost          INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE facts (
        name  TEXT    PRIMARY KEY NOT NULL,
        value INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE columns (
        block  INTEGER PRIMARY KEY,
        packed BLOB NOT NULL
    ) STRICT;
",
];

/// The version from which on blocks may have columns.
const WITH_COLUMNS: usize = 2;

/// Opens a file for writing, creates it if need be, and brings it to today's version.
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

/// Opens a file for reading only.
pub fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// Opens a file that nobody writes to any more, and makes nothing beside it: what SQLite would make
/// there is not ours to make.
///
/// What a write-ahead log still has is read with it, which needs its index: whoever wrote the log
/// left one.
pub fn open_sealed(path: &Path) -> rusqlite::Result<Connection> {
    let log = std::fs::metadata(super::files::beside(path, "-wal")).map_or(0, |it| it.len());
    let how = if log == 0 { "immutable=1" } else { "mode=ro&readonly_shm=1" };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_NO_MUTEX
        | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(format!("{}?{how}", uri(path)), flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// A path as SQLite takes it with parameters behind.
fn uri(path: &Path) -> String {
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'-' | b'.' | b'_' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {
                uri.push(char::from(*byte));
            }
            _ => uri.push_str(&format!("%{byte:02x}")),
        }
    }
    uri
}

/// Opens or creates a file only its owner can read: events hold names of people and of files.
pub fn private_file(path: &Path) -> Result<std::fs::File, StoreError> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(|source| StoreError::File { path: path.to_owned(), source })
}

/// The version of the file; refuses what is not ours or is newer than we are.
fn check(connection: &Connection, path: &Path) -> Result<usize, StoreError> {
    let (id, version, tables) =
        marks(connection).map_err(|source| StoreError::Sqlite { path: path.to_owned(), source })?;
    match (id, tables) {
        (0, 0) => Ok(0),
        (APPLICATION_ID, _) if version > MIGRATIONS.len() => {
            Err(StoreError::Newer { path: path.to_owned(), version, known: MIGRATIONS.len() })
        }
        (APPLICATION_ID, _) => Ok(version),
        _ => Err(StoreError::Foreign(path.to_owned())),
    }
}

/// Refuses what is no file of a store, or is newer than we are.
pub fn check_sealed(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    match check(connection, path)? {
        0 => Err(StoreError::Foreign(path.to_owned())),
        _ => Ok(()),
    }
}

/// Whether blocks of a file that was opened may have columns.
pub fn has_columns(connection: &Connection) -> rusqlite::Result<bool> {
    let version =
        connection.pragma_query_value(None, "user_version", |row| row.get::<_, i32>(0))?;
    Ok(usize::try_from(version).unwrap_or(0) >= WITH_COLUMNS)
}

/// Application id, version and number of tables of any SQLite file.
pub fn marks(connection: &Connection) -> rusqlite::Result<(i32, usize, i64)> {
    let read = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let tables =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let version = usize::try_from(read("user_version")?).unwrap_or(0);
    Ok((read("application_id")?, version, tables))
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
    fn a_new_file_is_private_durable_and_opens_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1.db");
        drop(open_writer(&path).unwrap());
        let connection = open_writer(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let pragma = |name: &str| -> i32 {
            connection.pragma_query_value(None, name, |row| row.get(0)).unwrap()
        };
        assert_eq!(pragma("synchronous"), 2);
        assert_eq!(pragma("user_version"), 2);
        let journal: String =
            connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        assert_eq!(journal, "wal");
    }

    #[test]
    fn a_newer_file_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1.db");
        let connection = open_writer(&path).unwrap();
        connection.pragma_update(None, "user_version", 3).unwrap();
        drop(connection);
        let error = open_writer(&path).unwrap_err();
        assert!(matches!(error, StoreError::Newer { version: 3, known: 2, .. }), "{error}");
    }

    #[test]
    fn what_is_no_store_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("other.db");
        Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
        assert!(matches!(open_writer(&path).unwrap_err(), StoreError::Foreign(_)));
        std::fs::write(&path, "not a database, but long enough to be read as one").unwrap();
        assert!(matches!(open_writer(&path).unwrap_err(), StoreError::Sqlite { .. }));
        let missing = dir.path().join("no/such/1.db");
        assert!(matches!(open_writer(&missing).unwrap_err(), StoreError::File { .. }));
    }
}
