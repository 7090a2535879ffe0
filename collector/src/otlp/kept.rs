//! How far each receiver has acknowledged: `otlp.db` in the store's directory.
//!
//! A receiver is known by its URL, so that another one begins on its own, and an earlier one that
//! comes back goes on where it was.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OptionalExtension as _, params};
use tokio::task::spawn_blocking;

use crate::store::{StoreError, open_side};

const FILE: &str = "otlp.db";
const VERSION: i64 = 1;

const TABLE: &str = "
    CREATE TABLE IF NOT EXISTS receivers (
        url      TEXT    PRIMARY KEY NOT NULL,
        position INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    PRAGMA user_version = 1;
";

/// The open file.
#[derive(Clone, Debug)]
pub struct Kept {
    path: PathBuf,
    connection: Arc<Mutex<Connection>>,
}

impl Kept {
    /// Opens or makes it in the store's directory.
    ///
    /// # Errors
    /// When it cannot be used, with its path.
    pub fn open(store: &Path) -> Result<Kept, StoreError> {
        let path = store.join(FILE);
        match open_side(&path, VERSION, TABLE) {
            Ok(connection) => Ok(Kept { path, connection: Arc::new(Mutex::new(connection)) }),
            Err(source) => Err(StoreError::Sqlite { path, source }),
        }
    }

    /// The last cursor that this receiver has acknowledged.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn position(&self, url: &str) -> Result<Option<u64>, StoreError> {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let sql = "SELECT position FROM receivers WHERE url = ?1";
        let read = connection.query_row(sql, [url], |row| row.get::<_, i64>(0)).optional();
        read.map(|it| it.map(i64::cast_unsigned))
            .map_err(|source| StoreError::Sqlite { path: self.path.clone(), source })
    }

    /// Notes it; it is on the disk when this returns.
    ///
    /// # Errors
    /// When it could not be written.
    pub async fn keep(&self, url: &str, position: u64) -> Result<(), StoreError> {
        let (kept, url) = (self.clone(), url.to_owned());
        let write = move || {
            let connection = kept.connection.lock().unwrap_or_else(PoisonError::into_inner);
            let sql = "INSERT OR REPLACE INTO receivers (url, position) VALUES (?1, ?2)";
            let written = connection.execute(sql, params![url, position.cast_signed()]);
            drop(connection);
            written.map(drop).map_err(|source| StoreError::Sqlite { path: kept.path, source })
        };
        match spawn_blocking(write).await {
            Ok(written) => written,
            Err(error) => {
                let source = io::Error::other(error);
                Err(StoreError::File { path: self.path.clone(), source })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[tokio::test]
    async fn each_receiver_has_a_place_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::open(dir.path()).unwrap();
        assert_eq!(kept.position("https://a:1").unwrap(), None);
        kept.keep("https://a:1", 7).await.unwrap();
        kept.keep("https://b:1", u64::MAX).await.unwrap();
        kept.keep("https://a:1", 9).await.unwrap();
        drop(kept);
        let kept = Kept::open(dir.path()).unwrap();
        assert_eq!(kept.position("https://a:1").unwrap(), Some(9));
        assert_eq!(kept.position("https://b:1").unwrap(), Some(u64::MAX));
        assert_eq!(kept.position("https://c:1").unwrap(), None);
    }

    #[test]
    fn a_later_version_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        drop(Kept::open(dir.path()).unwrap());
        let connection = Connection::open(dir.path().join(FILE)).unwrap();
        connection.pragma_update(None, "user_version", 2).unwrap();
        drop(connection);
        let error = Kept::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("otlp.db") && error.contains("a later version"), "{error}");
    }
}
