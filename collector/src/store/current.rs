//! The file that is written to.
//!
//! Events are stored as they come, in small blocks of what was committed together, so that an
//! acknowledgement never waits for others. When there are enough of them they are joined: sorted by
//! kind and host into blocks that hold one kind each. A question about one kind then reads a small
//! part of the store, and what is alike is compressed together. Small blocks and the joined ones
//! that take their place change in one transaction, and cursors stay what they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::BytesMut;
use jiff::civil::Date;
use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use zstd::bulk::Compressor;

use super::StoreError;
use super::block::{self, Block, Packed, Placed};
use super::columns::Gatherer;
use super::entry::Entry;
use super::files::{Files, Span, StoreFile, today};
use super::sequences::Sequences;
use super::tail::Tail;
use super::totals::{Total, Totals};
use super::{schema, table};
use crate::limits::{
    BLOCK_BYTES, BLOCK_EVENTS_MAX, CURSORS_SKIPPED, FILE_BYTES_MAX, JOINED_EVENTS,
    SMALL_BLOCKS_MAX, ZSTD_LEVEL,
};

/// The last file, what is known of all before it, and what waits to be joined.
pub struct Current {
    file: Arc<StoreFile>,
    /// None after a failure: the next commit opens a new one.
    connection: Option<Connection>,
    /// The last cursor that was committed.
    last: u64,
    sequences: Sequences,
    /// Events of the small blocks.
    waiting: Vec<Placed>,
    /// Rows of the small blocks.
    small: Vec<i64>,
    compressor: Compressor<'static>,
    gatherer: Gatherer,
    tail: Tail,
}

/// A block that is new.
struct New {
    packed: Packed,
    columns: Option<Vec<u8>>,
}

/// What one transaction writes.
struct Change<'a> {
    run: u64,
    joins: bool,
    blocks: Vec<New>,
    totals: &'a BTreeMap<Arc<str>, Total>,
}

impl Current {
    /// Opens the last file of a store, or begins the first one.
    ///
    /// A last file that is damaged is left as it is, and another one is begun behind it.
    ///
    /// # Errors
    /// When it is not ours, or newer than we are, or the disk refuses.
    pub fn open(files: &Files) -> Result<(Current, Totals), StoreError> {
        let mut damaged = false;
        for file in files.list().iter().rev() {
            let connection = match schema::open_writer(&file.path) {
                Err(error) if error.is_damage() => {
                    tracing::error!(%error, "a file of the store is damaged; the others are used");
                    damaged = true;
                    continue;
                }
                opened => opened?,
            };
            match Current::load(Arc::clone(file), connection) {
                Ok(Some((mut current, totals))) => {
                    if damaged {
                        // Nobody knows which cursors the damaged file has.
                        current.last += CURSORS_SKIPPED;
                        current.begin_file(files, today(), &totals)?;
                    }
                    return Ok((current, totals));
                }
                // It was begun and nothing was written to it.
                Ok(None) => files
                    .remove(file.number)
                    .map_err(|source| StoreError::File { path: file.path.clone(), source })?,
                Err(error) if error.is_damage() => {
                    tracing::error!(%error, "a file of the store is damaged; the others are used");
                    damaged = true;
                }
                Err(error) => return Err(error),
            }
        }
        let last = if damaged { CURSORS_SKIPPED } else { 0 };
        let totals = Totals::default();
        let file = Arc::new(files.next(today()));
        let mut current = Current::new(file, last, Sequences::default())?;
        current.begin_file(files, today(), &totals)?;
        Ok((current, totals))
    }

    fn new(file: Arc<StoreFile>, last: u64, sequences: Sequences) -> Result<Current, StoreError> {
        let mut compressor = Compressor::new(ZSTD_LEVEL).map_err(StoreError::Compression)?;
        compressor.include_checksum(true).map_err(StoreError::Compression)?;
        let (waiting, small, gatherer, tail) = Default::default();
        let connection = None;
        Ok(Current {
            file,
            connection,
            last,
            sequences,
            waiting,
            small,
            compressor,
            gatherer,
            tail,
        })
    }

    /// `None` when nothing was written to the file.
    fn load(
        file: Arc<StoreFile>,
        connection: Connection,
    ) -> Result<Option<(Current, Totals)>, StoreError> {
        let sqlite = |source| StoreError::Sqlite { path: file.path.clone(), source };
        let Some(span) = table::span(&connection).map_err(sqlite)? else {
            return Ok(None);
        };
        file.set_span(span);
        let totals = Totals::new(table::load_totals(&connection).map_err(sqlite)?);
        let sequences = table::load_boots(&connection).map_err(sqlite)?;
        let mut current = Current::new(Arc::clone(&file), span.last, sequences)?;
        for row in table::small_blocks(&connection).map_err(sqlite)? {
            let body = table::body(&connection, row).map_err(sqlite)?.unwrap_or_default();
            match Block::unpack(&body).and_then(|block| block.placed()) {
                Ok(placed) => {
                    current.waiting.extend(placed);
                    current.small.push(row);
                }
                // It stays where it is, and whoever reads it is told. What was before it stays too: a
                // run has all that lies in it, or live streams would pass over the rest.
                Err(error) => {
                    current.waiting.clear();
                    current.small.clear();
                    let path = file.path.display();
                    tracing::error!(%error, %path, block = row, "a block of the store is damaged");
                }
            }
        }
        current.connection = Some(connection);
        Ok(Some((current, totals)))
    }

    /// What was committed last.
    pub fn tail(&self) -> &Tail {
        &self.tail
    }

    /// The last cursor that was committed.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Makes ready for a commit: opens the file again after a failure, or begins the next one when
    /// the day is over or the file is large.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn begin(&mut self, files: &Files, totals: &Totals) -> Result<(), StoreError> {
        let day = today();
        if day == self.file.day && self.file.bytes() < FILE_BYTES_MAX {
            if self.connection.is_none() {
                self.connection = Some(schema::open_writer(&self.file.path)?);
            }
            return Ok(());
        }
        self.join()?;
        self.begin_file(files, day, totals)
    }

    /// Keeps those events of a host that are not stored yet. They are taken for stored from now on,
    /// unless the commit fails.
    pub fn keep_new(&mut self, host: &Arc<str>, entries: Vec<Entry>) -> Vec<Entry> {
        self.sequences.keep_new(host, entries)
    }

    /// The next event gets this cursor, unless it was given.
    pub fn skip_to(&mut self, cursor: u64) {
        self.last = self.last.max(cursor.saturating_sub(1));
    }

    /// Stores new events, gives them their cursors, and notes the numbers of their hosts. The answer
    /// is the last cursor.
    ///
    /// # Errors
    /// When the disk refuses; nothing is stored then.
    pub fn commit(
        &mut self,
        mut new: Vec<Placed>,
        totals: &BTreeMap<Arc<str>, Total>,
    ) -> Result<u64, StoreError> {
        if new.is_empty() {
            return Ok(self.last);
        }
        for (placed, cursor) in new.iter_mut().zip(self.last + 1..) {
            placed.cursor = cursor;
        }
        gather_bodies(&mut new);
        let few =
            self.small.len() < SMALL_BLOCKS_MAX && self.waiting.len() + new.len() < JOINED_EVENTS;
        let stored =
            if few { self.store_small(&new, totals) } else { self.store_joined(&new, totals) };
        if let Err(error) = stored {
            self.sequences.roll_back();
            self.connection = None;
            return Err(error);
        }
        self.tail.push(&new);
        if few {
            self.waiting.append(&mut new);
        } else {
            self.waiting.clear();
            self.small.clear();
        }
        self.sequences.commit();
        self.last = self.file.span().last;
        Ok(self.last)
    }

    /// Lets SQLite move the write-ahead log into the file.
    pub fn close(&mut self) {
        if let Err(error) = self.join() {
            tracing::warn!(%error, "small blocks of the store could not be joined");
        }
        self.connection = None;
    }

    /// Joins what waits.
    fn join(&mut self) -> Result<(), StoreError> {
        if self.small.len() > 1 {
            self.store_joined(&[], &BTreeMap::new())?;
        }
        self.waiting.clear();
        self.small.clear();
        Ok(())
    }

    fn store_small(
        &mut self,
        new: &[Placed],
        totals: &BTreeMap<Arc<str>, Total>,
    ) -> Result<(), StoreError> {
        let new: Vec<&Placed> = new.iter().collect();
        let blocks = self.pack(&new, false)?;
        let run = new.first().map_or(0, |it| it.cursor);
        let rows = self.write(&Change { run, joins: false, blocks, totals })?;
        self.small.extend(rows);
        Ok(())
    }

    fn store_joined(
        &mut self,
        new: &[Placed],
        totals: &BTreeMap<Arc<str>, Total>,
    ) -> Result<(), StoreError> {
        let waiting = std::mem::take(&mut self.waiting);
        let mut events: Vec<&Placed> = waiting.iter().chain(new).collect();
        let run = events.first().map_or(0, |it| it.cursor);
        events.sort_unstable_by_key(|it| (it.entry.kind, &*it.host, it.cursor));
        let written = self
            .pack(&events, true)
            .and_then(|blocks| self.write(&Change { run, joins: true, blocks, totals }));
        self.waiting = waiting;
        written.map(|_| ())
    }

    fn pack(&mut self, events: &[&Placed], joins: bool) -> Result<Vec<New>, StoreError> {
        let pack = |chunk: &[&Placed]| {
            // While the events are at hand for the one they are for the other.
            let columns = joins.then(|| self.columns(chunk)).flatten();
            let packed = block::pack(&mut self.compressor, chunk)?;
            Ok(New { packed, columns })
        };
        let packed = chunks(events, joins).into_iter().map(pack).collect::<Result<_, _>>();
        packed.map_err(StoreError::Compression)
    }

    /// A block that has none is read itself when something is counted.
    fn columns(&mut self, chunk: &[&Placed]) -> Option<Vec<u8>> {
        let packed = self.gatherer.pack(&mut self.compressor, chunk);
        packed.inspect_err(|error| tracing::warn!(%error, "a block gets no columns")).ok().flatten()
    }

    /// The rows of the blocks.
    fn write(&mut self, change: &Change<'_>) -> Result<Vec<i64>, StoreError> {
        let path = self.file.path.clone();
        let connection = match &mut self.connection {
            Some(connection) => connection,
            slot => slot.insert(schema::open_writer(&path)?),
        };
        let gone: &[i64] = if change.joins { &self.small } else { &[] };
        let rows = write_all(connection, change, gone, &self.sequences)
            .map_err(|source| StoreError::Sqlite { path, source })?;
        let headers = change.blocks.iter().map(|new| &new.packed.header);
        let span = headers.fold(self.file.span(), |span, header| {
            span.with(header.last, header.oldest_ns, header.newest_ns)
        });
        self.file.set_span(span);
        Ok(rows)
    }

    /// Lets SQLite say that the disk is full behind so many pages more.
    #[cfg(test)]
    pub(super) fn limit_pages(&self, more: u32) {
        let connection = self.connection.iter();
        connection.for_each(|it| {
            let count = it.query_row("PRAGMA page_count", [], |row| row.get::<_, u32>(0));
            let most = count.unwrap_or(0) + more;
            let _ = it.pragma_update(None, "max_page_count", most);
        });
    }

    /// Begins the next file. What is known of all before it is written into it.
    pub(super) fn begin_file(
        &mut self,
        files: &Files,
        day: Date,
        totals: &Totals,
    ) -> Result<(), StoreError> {
        let file = files.next(day);
        let mut connection = schema::open_writer(&file.path)?;
        let last = self.last;
        let written = write_known(&mut connection, last, &self.sequences, totals);
        if let Err(source) = written {
            drop(connection);
            // Empty, it would only be in the way.
            let _ = std::fs::remove_file(&file.path);
            return Err(StoreError::Sqlite { path: file.path, source });
        }
        file.set_span(Span::empty(last));
        let file = Arc::new(file);
        // What still waits stays in small blocks where it is.
        self.waiting.clear();
        self.small.clear();
        tracing::info!(path = %file.path.display(), "a new file of the store is begun");
        files.add(Arc::clone(&file));
        (self.file, self.connection) = (file, Some(connection));
        Ok(())
    }
}

/// Puts the bodies into memory of their own. They come as parts of messages that may be much longer,
/// and would keep those as long as they are kept.
fn gather_bodies(events: &mut [Placed]) {
    let mut own = BytesMut::with_capacity(events.iter().map(|it| it.entry.body.len()).sum());
    events.iter().for_each(|it| own.extend_from_slice(&it.entry.body));
    let mut own = own.freeze();
    for placed in events {
        placed.entry.body = own.split_to(placed.entry.body.len());
    }
}

/// The events of one block each: of a bounded size, and of one kind when they are sorted by it.
fn chunks<'a, 'b>(events: &'a [&'b Placed], by_kind: bool) -> Vec<&'a [&'b Placed]> {
    let (mut chunks, mut rest) = (Vec::new(), events);
    while let Some(first) = rest.first() {
        let mut bytes = 0;
        let fits = |(count, placed): &(usize, &&Placed)| {
            bytes += placed.entry.body.len();
            let together = !by_kind || placed.entry.kind == first.entry.kind;
            *count == 0 || (together && *count < BLOCK_EVENTS_MAX && bytes <= BLOCK_BYTES)
        };
        let count = rest.iter().enumerate().take_while(fits).count();
        let (chunk, others) = rest.split_at(count);
        chunks.push(chunk);
        rest = others;
    }
    chunks
}

fn write_all(
    connection: &mut Connection,
    change: &Change<'_>,
    gone: &[i64],
    sequences: &Sequences,
) -> rusqlite::Result<Vec<i64>> {
    // Dropping it on the way out rolls back.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    gone.iter().try_for_each(|row| table::delete_block(&transaction, *row))?;
    let mut rows = Vec::with_capacity(change.blocks.len());
    for New { packed, columns } in &change.blocks {
        let row = table::insert_block(&transaction, change.run, !change.joins, packed)?;
        columns.iter().try_for_each(|it| table::insert_columns(&transaction, row, it))?;
        rows.push(row);
    }
    for (origin, ranges) in sequences.changed() {
        table::save_boot(&transaction, origin, &ranges)?;
    }
    for (host, total) in change.totals {
        table::save_total(&transaction, host, total)?;
    }
    transaction.commit()?;
    Ok(rows)
}

fn write_known(
    connection: &mut Connection,
    last: u64,
    sequences: &Sequences,
    totals: &Totals,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for (origin, ranges) in sequences.all() {
        table::save_boot(&transaction, origin, &ranges)?;
    }
    for (host, total) in &totals.all() {
        table::save_total(&transaction, host, total)?;
    }
    table::set_cursor_before(&transaction, last)?;
    transaction.commit()
}

impl StoreError {
    /// The file is there and not what was written.
    pub(super) fn is_damage(&self) -> bool {
        let StoreError::Sqlite { source, .. } = self else { return false };
        matches!(
            source.sqlite_error_code(),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        ) || matches!(source, rusqlite::Error::FromSqlConversionFailure(..))
    }
}
