//! The store: a SQLite file a day, one writer thread, a few readers.
//!
//! * An event is named by (host, boot, sequence) and stored once, however often it is sent.
//! * Its cursor is its place in the order of commits. Cursors become visible in their order, so
//!   whoever has read up to one has missed nothing below it.
//! * A batch is answered after its commit reached the disk (`synchronous=FULL`), never before.
//! * Events lie in blocks of some hundred, as the agents encoded them; see [`current`].

mod block;
mod columns;
mod current;
mod entry;
mod files;
mod filter;
mod groups;
mod import;
mod meter;
pub(crate) mod plain;
mod read;
mod retention;
mod scan;
mod schema;
pub mod sealed;
mod sequences;
mod side;
mod table;
mod tags;
mod tail;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
pub(crate) mod tamper;
#[cfg(test)]
mod tests;
mod told;
mod totals;
mod write;

use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use sekimori_proto::v1::Removed;
use thiserror::Error;

use crate::bus::Committed;
pub use block::Stored;
use current::Current;
pub use entry::{Batch, Entry, Facts};
use files::{Files, Span};
pub use filter::{Condition, FilterError};
pub use groups::{GroupError, Groups, bytes_of, value_of};
pub use meter::Meter;
pub use read::{Gap, Page, Position, ReadError, Readers, Search, Step};
pub use retention::Keep;
pub use scan::Verified;
pub use side::open_side;
pub use told::Encoded;
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
    /// No memory for it.
    #[error("events cannot be compressed: {0}")]
    Compression(std::io::Error),
    /// No thread to be had.
    #[error("the writer of the store cannot be started: {0}")]
    Thread(std::io::Error),
}

/// An open store.
#[derive(Debug)]
pub struct Store {
    shared: write::Shared,
    writer: Writer,
    readers: Readers,
    thread: JoinHandle<()>,
    _lock: files::StoreLock,
}

impl Store {
    /// Opens or creates the store in a directory and starts its writer. Files that are damaged stay
    /// as they are: what can be read of them is, and what cannot is told to whoever asks for it.
    /// `earlier` may be a file of an earlier version, whose events are moved into the store.
    ///
    /// # Errors
    /// [`StoreError`]: in use, newer than this program, not a store, or not readable.
    pub fn open(dir: &Path, earlier: Option<&Path>) -> Result<Store, StoreError> {
        let lock = files::lock(dir)?;
        let files = Files::of(dir)?;
        let (mut current, totals) = Current::open(&files)?;
        survey(&files);
        if let Some(earlier) = earlier.filter(|path| path.exists()) {
            import::import(earlier, &files, &mut current, &totals)?;
        }
        let committed = Committed::new(current.last());
        let shared = write::Shared { files, committed, totals, meter: Meter::default() };
        let tail = current.tail().clone();
        let (writer, thread) = write::start(current, shared.clone())?;
        let readers = Readers::new(shared.files.clone(), shared.totals.clone(), tail);
        Ok(Store { shared, writer, readers, thread, _lock: lock })
    }

    /// How far it is committed.
    pub fn committed(&self) -> &Committed {
        &self.shared.committed
    }

    /// What its writer counts.
    pub fn meter(&self) -> &Meter {
        &self.shared.meter
    }

    /// Where batches go.
    pub fn writer(&self) -> &Writer {
        &self.writer
    }

    /// Where events come from.
    pub fn readers(&self) -> &Readers {
        &self.readers
    }

    /// Removes what is older or more than is to be kept, again and again. `tell` is told before:
    /// up to which cursor, and why; it answers whether that could be recorded.
    pub fn retain<T, F>(&self, keep: Keep, tell: T) -> impl Future<Output = ()> + use<T, F>
    where
        T: FnMut(Removed) -> F,
        F: Future<Output = bool>,
    {
        retention::retain(self.shared.files.clone(), keep, tell)
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

/// Notes what lies between the ends of each file but the last, whose writer knows it.
fn survey(files: &Files) {
    let files = files.list();
    let mut next_before = None;
    for file in files.iter().rev() {
        if let Some(next_before) = next_before {
            match file.read(table::span) {
                Ok(Some(span)) => file.set_span(span),
                result => {
                    let error = result.err().map(|error| error.to_string());
                    let reason = error.as_deref().unwrap_or("nothing was ever written to it");
                    tracing::error!(path = %file.path.display(), reason, "a file of the store cannot be read");
                    file.set_span(Span::unknown(next_before));
                }
            }
        }
        next_before = Some(file.span().before);
    }
}
