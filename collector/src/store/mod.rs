//! The store: one SQLite database, one writer thread, a few readers.
//!
//! * An event is named by (host, boot, sequence) and stored once, however often it is sent.
//! * Its cursor is its place in the order of commits. Cursors become visible in their order, so
//!   whoever has read up to one has missed nothing below it.
//! * A batch is answered after its commit reached the disk (`synchronous=FULL`), never before.

mod filter;
mod groups;
mod read;
mod row;
mod schema;
mod write;

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use thiserror::Error;

use crate::bus::Committed;
pub use filter::{Condition, FilterError};
pub use groups::{GroupError, Groups};
pub use read::{Page, Position, ReadError, Readers, Search, Step};
pub use row::Row;
pub use write::{WriteError, Writer, Written};

/// Why the store cannot be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Another collector runs on it.
    #[error("store {0}: another collector is using it; stop that one or name another --store")]
    InUse(PathBuf),
    /// Made by a later version.
    #[error(
        "store {path}: version {version} is newer than {known}, the newest this collector knows; \
         use the collector that wrote it, or a later one", path = .path.display()
    )]
    Newer {
        /// Which.
        path: PathBuf,
        /// Its version.
        version: usize,
        /// The last one known here.
        known: usize,
    },
    /// A SQLite database of something else.
    #[error("store {0}: a database, but not one of Sekimori; name another --store")]
    Foreign(PathBuf),
    /// The file itself.
    #[error("store {path}: {source}", path = .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The database.
    #[error("store {path}: {source}", path = .path.display())]
    Sqlite {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: rusqlite::Error,
    },
    /// No thread to be had.
    #[error("the writer of the store cannot be started: {0}")]
    Thread(std::io::Error),
}

/// An open store.
#[derive(Debug)]
pub struct Store {
    committed: Committed,
    writer: Writer,
    readers: Readers,
    thread: JoinHandle<()>,
    _lock: schema::StoreLock,
}

impl Store {
    /// Opens or creates the store and starts its writer.
    ///
    /// # Errors
    /// [`StoreError`]: in use, newer than this program, not a store, or not readable.
    pub fn open(path: &Path) -> Result<Store, StoreError> {
        let lock = schema::lock(path)?;
        let connection = schema::open_writer(path)?;
        let last = read::last_cursor(&connection)
            .map_err(|source| StoreError::Sqlite { path: path.to_owned(), source })?;
        let committed = Committed::new(last);
        let (writer, thread) = write::start(path.to_owned(), connection, committed.clone())?;
        let readers = Readers::new(path.to_owned());
        Ok(Store { committed, writer, readers, thread, _lock: lock })
    }

    /// How far it is committed.
    pub fn committed(&self) -> &Committed {
        &self.committed
    }

    /// Where batches go.
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Where events come from.
    pub fn readers(&self) -> &Readers {
        &self.readers
    }

    /// Commits what is queued and closes the store: the writer last, so that SQLite moves the
    /// write-ahead log into the database.
    pub async fn close(self) {
        self.readers.close();
        self.writer.stop().await;
        let thread = self.thread;
        // Only a panic of the writer is an error here, and it was printed.
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    }
}
