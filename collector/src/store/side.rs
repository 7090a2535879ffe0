//! Databases beside the events: what is known of hosts, policies and alerts.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rusqlite::Connection;

use crate::limits::BUSY_TIMEOUT;

/// Opens or makes one, for its owner alone; `tables` says what is in it and sets `user_version`.
/// What is committed to it is on the disk.
///
/// # Errors
/// When it cannot be used, or a version later than `version` wrote it.
pub fn open_side(path: &Path, version: i64, tables: &str) -> rusqlite::Result<Connection> {
    let unusable = |error: io::Error| rusqlite::Error::ToSqlConversionFailure(Box::new(error));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    drop(options.open(path).map_err(unusable)?);
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let written: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if written > version {
        return Err(unusable(io::Error::other("a later version wrote it")));
    }
    connection.execute_batch(tables)?;
    Ok(connection)
}
