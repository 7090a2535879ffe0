//! The files of a store that nobody writes to any more, read from outside: beside a collector that
//! runs, without its lock, and without making anything beside them.

use std::path::Path;
use std::sync::Arc;

use jiff::civil::Date;
use rusqlite::ErrorCode;

use super::block::{Block, Stored};
use super::files::{Files, Span, StoreFile};
use super::{StoreError, schema, table};

/// A file of the store behind which another one was begun.
#[derive(Clone, Debug)]
pub struct SealedFile(Arc<StoreFile>);

/// Something of a file that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Which part, the cursors of its events as far as they are known, and what is wrong with it.
    pub what: String,
}

/// All files of a store but the newest, in the order of their numbers.
///
/// # Errors
/// When the directory cannot be read.
pub fn files(dir: &Path) -> Result<Vec<SealedFile>, StoreError> {
    let mut files = Files::of(dir)?.list();
    files.pop();
    Ok(files.into_iter().map(SealedFile).collect())
}

impl SealedFile {
    /// Number and day, as its name has them: `000012-2026-11-09`. Made of those two; nothing else of
    /// a name in the store's directory comes through.
    pub fn name(&self) -> String {
        format!("{:06}-{}", self.0.number, self.0.day)
    }

    /// When it was begun, UTC.
    pub fn day(&self) -> Date {
        self.0.day
    }

    /// Bytes on the disk.
    pub fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    /// Opens it. `None`: retention was faster.
    ///
    /// # Errors
    /// When it cannot be read, or is no file of a store, or a newer one.
    pub fn open(&self) -> Result<Option<OpenFile>, StoreError> {
        let path = &self.0.path;
        let failed = |source| StoreError::Sqlite { path: path.clone(), source };
        let open = || -> Result<OpenFile, StoreError> {
            let connection = schema::open_sealed(path).map_err(failed)?;
            schema::check_sealed(&connection, path)?;
            let span = table::span(&connection).map_err(failed)?.unwrap_or(Span::empty(0));
            Ok(OpenFile { connection, span, path: path.clone() })
        };
        match open() {
            Ok(file) => Ok(Some(file)),
            Err(_) if !path.exists() => Ok(None),
            // The log was there when it was looked for, and moved into the file since.
            Err(StoreError::Sqlite { source, .. })
                if source.sqlite_error_code() == Some(ErrorCode::CannotOpen) =>
            {
                open().map(Some)
            }
            Err(error) => Err(error),
        }
    }
}

/// A sealed file that is read.
#[derive(Debug)]
pub struct OpenFile {
    connection: rusqlite::Connection,
    span: Span,
    path: std::path::PathBuf,
}

impl OpenFile {
    /// The last cursor before the file, and the last one in it.
    pub fn cursors(&self) -> (u64, u64) {
        (self.span.before, self.span.last)
    }

    /// Hands each event to `each`, block by block as they were written: within some ten thousand
    /// they lie by kind. What is damaged goes to `damaged`, and the rest is read on.
    ///
    /// # Errors
    /// Those of `each`, and when the disk or the memory fails.
    pub fn read<E: From<StoreError>>(
        &self,
        mut each: impl FnMut(&Stored<'_>) -> Result<(), E>,
        mut damaged: impl FnMut(Damage),
    ) -> Result<(), E> {
        let failed = |source| StoreError::Sqlite { path: self.path.clone(), source };
        let transaction = self.connection.unchecked_transaction().map_err(failed)?;
        let result = table::all_blocks(&transaction, |listed| {
            let row = listed.block;
            let events = match &listed.header {
                Some(header) => format!("events {} to {}", header.first, header.last),
                None => {
                    // What it is found by is spoiled; its events have a checksum of their own.
                    let what = format!("block {row}: its header is damaged");
                    damaged(Damage { what });
                    format!("events from {}", listed.run)
                }
            };
            let mut spoiled = |error: &dyn std::fmt::Display| {
                damaged(Damage { what: format!("block {row}, {events}: {error}") });
            };
            let body = match table::body(&transaction, row) {
                Ok(body) => body.unwrap_or_default(),
                Err(error) if is_damage(&error) => {
                    spoiled(&error);
                    return Ok(());
                }
                Err(error) => return Err(Stop::Sqlite(error)),
            };
            match Block::unpack(&body) {
                Ok(block) => {
                    block.entries().try_for_each(|stored| each(&stored)).map_err(Stop::Other)?;
                }
                Err(error) => spoiled(&error),
            }
            Ok(())
        });
        match result {
            Ok(()) => Ok(()),
            Err(Stop::Other(error)) => Err(error),
            Err(Stop::Sqlite(error)) if is_damage(&error) => {
                let what = format!("the list of blocks, and what stands behind that: {error}");
                damaged(Damage { what });
                Ok(())
            }
            Err(Stop::Sqlite(error)) => Err(failed(error).into()),
        }
    }
}

/// Why reading ended.
enum Stop<E> {
    Sqlite(rusqlite::Error),
    Other(E),
}

impl<E> From<rusqlite::Error> for Stop<E> {
    fn from(error: rusqlite::Error) -> Stop<E> {
        Stop::Sqlite(error)
    }
}

/// Whether the file is not what was written. A disk that cannot be read is taken for that as well:
/// the rest of it is worth having.
fn is_damage(error: &rusqlite::Error) -> bool {
    use ErrorCode::{DatabaseCorrupt, NotADatabase, SystemIoFailure};
    matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase | SystemIoFailure))
        || matches!(
            error,
            rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::IntegralValueOutOfRange(..)
        )
}

/// Stores for tests of what reads them.
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
pub(crate) mod stores {
    use std::collections::BTreeMap;

    use sekimori_proto::v1::Event;

    use super::super::block::Placed;
    use super::super::current::Current;
    use super::super::entry::Entry;
    use super::*;

    /// Makes a store with a file for each day, which has these events of a host.
    pub(crate) fn fill(
        dir: &Path,
        host: &str,
        days: &[(&str, Vec<Event>)],
        encode: fn(&Event) -> Vec<u8>,
    ) {
        std::fs::create_dir_all(dir).unwrap();
        let files = Files::of(dir).unwrap();
        let (mut current, totals) = Current::open(&files).unwrap();
        files.remove(1).unwrap();
        for (day, events) in days {
            current.begin_file(&files, day.parse().unwrap(), &totals).unwrap();
            commit(&mut current, host, events, encode);
        }
        current.close();
    }

    fn commit(current: &mut Current, host: &str, events: &[Event], encode: fn(&Event) -> Vec<u8>) {
        let host: Arc<str> = host.into();
        // As agents send them, in parts.
        for part in events.chunks(700) {
            let entry = |event: &Event| Entry::new(event, encode(event).into()).unwrap();
            let new = current.keep_new(&host, part.iter().map(entry).collect());
            let placed = |entry| Placed { cursor: 0, host: Arc::clone(&host), entry };
            let new = new.into_iter().map(placed).collect();
            current.commit(new, &BTreeMap::new()).unwrap();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeSet;

    use prost::Message as _;
    use sekimori_proto::v1::{Event, Kind};

    use super::*;

    fn fill(dir: &Path, days: &[(&str, Vec<Event>)]) {
        stores::fill(dir, "pc", days, Event::encode_to_vec);
    }

    fn events(sequences: std::ops::Range<u64>) -> Vec<Event> {
        let event = |sequence| Event {
            boot: vec![1; 16],
            sequence,
            kind: if sequence % 3 == 0 { Kind::Exec } else { Kind::FileOpen }.into(),
            time_ns: i64::try_from(sequence).unwrap(),
            ..Event::default()
        };
        sequences.map(event).collect()
    }

    fn names(dir: &Path) -> BTreeSet<String> {
        let entries = std::fs::read_dir(dir).unwrap();
        entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn cursors(file: &OpenFile) -> Vec<u64> {
        let mut cursors = Vec::new();
        let each = |stored: &Stored<'_>| {
            cursors.push(stored.cursor);
            Ok::<_, StoreError>(())
        };
        file.read(each, |damage| unreachable!("{damage:?}")).unwrap();
        cursors.sort_unstable();
        cursors
    }

    #[test]
    fn all_but_the_newest_and_nothing_is_made_beside_them() {
        let temporary = tempfile::tempdir().unwrap();
        // A name that means something in an address.
        let dir = temporary.path().join("店?immutable=0&mode=rwc#%41");
        let days = [
            ("2026-11-01", events(1..2000)),
            ("2026-11-02", events(2000..2100)),
            ("2026-11-03", events(2100..2101)),
        ];
        fill(&dir, &days);
        let before = names(&dir);
        assert!(!before.iter().any(|name| name.contains("-wal")), "{before:?}");
        let files = files(&dir).unwrap();
        let sealed: Vec<String> = files.iter().map(SealedFile::name).collect();
        assert_eq!(sealed, ["000001-2026-11-01", "000002-2026-11-02"]);
        let opened: Vec<OpenFile> = files.iter().map(|it| it.open().unwrap().unwrap()).collect();
        let [first, second] = opened.as_slice() else { unreachable!("two files") };
        assert_eq!((first.cursors(), second.cursors()), ((0, 1999), (1999, 2099)));
        assert_eq!(cursors(first), (1..2000).collect::<Vec<_>>());
        assert_eq!(cursors(second), (2000..2100).collect::<Vec<_>>());
        assert_eq!(names(&dir), before);
    }

    #[test]
    fn what_the_log_of_a_file_still_has_is_read_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let days = [("2026-11-01", events(1..300)), ("2026-11-02", Vec::new())];
        fill(dir.path(), &days);
        let file = files(dir.path()).unwrap().remove(0);
        // Somebody reads: SQLite cannot move the log into the file when the writer closes it.
        let reader = schema::open_reader(&file.0.path).unwrap();
        let reading = reader.unchecked_transaction().unwrap();
        table::span(&reading).unwrap();
        let writer = schema::open_writer(&file.0.path).unwrap();
        writer.execute("DELETE FROM blocks", []).unwrap();
        drop(writer);
        let before = names(dir.path());
        assert!(before.iter().any(|name| name.ends_with("-wal")), "{before:?}");
        assert_eq!(cursors(&file.open().unwrap().unwrap()), Vec::<u64>::new());
        drop(reading);
        drop(reader);
        assert_eq!(
            cursors(&file.open().unwrap().unwrap()),
            Vec::<u64>::new(),
            "nobody has it open"
        );
        assert_eq!(names(dir.path()), before);
    }

    #[test]
    fn one_that_retention_removed_is_none_and_another_database_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let days = [("2026-11-01", events(1..3)), ("2026-11-02", events(3..4))];
        fill(dir.path(), &days);
        let file = files(dir.path()).unwrap().remove(0);
        std::fs::remove_file(&file.0.path).unwrap();
        assert!(file.open().unwrap().is_none());
        std::fs::write(&file.0.path, "not a database, but long enough to be read as one").unwrap();
        assert!(matches!(file.open().unwrap_err(), StoreError::Sqlite { .. }));
        std::fs::remove_file(&file.0.path).unwrap();
        let other = rusqlite::Connection::open(&file.0.path).unwrap();
        other.execute_batch("CREATE TABLE t (a)").unwrap();
        assert!(matches!(file.open().unwrap_err(), StoreError::Foreign(_)));
    }
}
