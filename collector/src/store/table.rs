//! The tables of a file, as Rust sees them.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::block::{Header, Packed};
use super::files::Span;
use super::sequences::{self, Origin, Sequences};
use super::totals::Total;
use crate::limits::INDEX_FAULTS_MAX;

/// A block as the list of blocks has it.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its row; never given to another block.
    pub block: i64,
    /// First cursor of the run of blocks that it was stored with.
    pub run: u64,
    /// What is known of it. `None`: it is not what was written.
    pub header: Option<Header>,
}

const COLUMNS: &str = "block, run, first, last, events, oldest_ns, newest_ns, tags, sum";

/// Cursors and counts lie within 63 bits.
fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn listed(row: &Row<'_>) -> rusqlite::Result<Listed> {
    let header = Header {
        first: row.get::<_, i64>(2)?.unsigned_abs(),
        last: row.get::<_, i64>(3)?.unsigned_abs(),
        events: row.get(4)?,
        oldest_ns: row.get(5)?,
        newest_ns: row.get(6)?,
        tags: row.get(7)?,
    };
    let sum: u32 = row.get(8)?;
    Ok(Listed {
        block: row.get(0)?,
        run: row.get::<_, i64>(1)?.unsigned_abs(),
        header: (sum == header.sum()).then_some(header),
    })
}

/// Adds a block of a run; the answer is its row.
pub fn insert_block(
    connection: &Connection,
    run: u64,
    small: bool,
    packed: &Packed,
) -> rusqlite::Result<i64> {
    let Packed { header, body } = packed;
    let mut statement = connection.prepare_cached(
        "INSERT INTO blocks (run, first, last, events, oldest_ns, newest_ns, tags, sum, small)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?;
    let block = statement.insert(params![
        number(run),
        number(header.first),
        number(header.last),
        header.events,
        header.oldest_ns,
        header.newest_ns,
        header.tags,
        header.sum(),
        small,
    ])?;
    let mut statement =
        connection.prepare_cached("INSERT INTO bodies (block, body) VALUES (?1, ?2)")?;
    statement.execute(params![block, body])?;
    Ok(block)
}

/// Adds the columns of a block.
pub fn insert_columns(connection: &Connection, block: i64, packed: &[u8]) -> rusqlite::Result<()> {
    let sql = "INSERT INTO columns (block, packed) VALUES (?1, ?2)";
    connection.prepare_cached(sql)?.execute(params![block, packed])?;
    Ok(())
}

/// The packed columns of a block, if it has any.
pub fn columns(connection: &Connection, block: i64) -> rusqlite::Result<Option<Vec<u8>>> {
    let sql = "SELECT packed FROM columns WHERE block = ?1";
    connection.prepare_cached(sql)?.query_row([block], |row| row.get(0)).optional()
}

/// Takes a block away that has no columns.
pub fn delete_block(connection: &Connection, block: i64) -> rusqlite::Result<()> {
    for sql in ["DELETE FROM blocks WHERE block = ?1", "DELETE FROM bodies WHERE block = ?1"] {
        connection.prepare_cached(sql)?.execute([block])?;
    }
    Ok(())
}

/// The blocks with events that may lie between these times, both inclusive.
pub fn each_block<E: From<rusqlite::Error>>(
    connection: &Connection,
    oldest_ns: i64,
    newest_ns: i64,
    mut each: impl FnMut(Listed) -> Result<(), E>,
) -> Result<(), E> {
    let sql = format!("SELECT {COLUMNS} FROM blocks WHERE newest_ns >= ?1 AND oldest_ns <= ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([oldest_ns, newest_ns])?;
    while let Some(row) = rows.next()? {
        each(listed(row)?)?;
    }
    Ok(())
}

/// All blocks, in the order in which they were written.
pub fn all_blocks<E: From<rusqlite::Error>>(
    connection: &Connection,
    mut each: impl FnMut(Listed) -> Result<(), E>,
) -> Result<(), E> {
    let mut statement =
        connection.prepare(&format!("SELECT {COLUMNS} FROM blocks ORDER BY block"))?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        each(listed(row)?)?;
    }
    Ok(())
}

/// What of the indexes is not what the table says: an index that lacks a row hides a block from
/// whoever asks by it. A few of these at most.
pub fn index_faults(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare("PRAGMA integrity_check('blocks')")?;
    let rows = statement.query_map([], |row| row.get::<_, String>(0))?;
    rows.filter(|row| !row.as_ref().is_ok_and(|it| it == "ok")).take(INDEX_FAULTS_MAX).collect()
}

/// The blocks of the runs that may have events behind `cursor`: whole runs, until there are
/// `events_max` such events.
pub fn blocks_behind(
    connection: &Connection,
    cursor: u64,
    events_max: u64,
) -> rusqlite::Result<Vec<Listed>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM blocks
         WHERE run >= coalesce((SELECT max(run) FROM blocks WHERE run <= ?1), 0)
         ORDER BY run, block"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([number(cursor.saturating_add(1))])?;
    let (mut found, mut events): (Vec<Listed>, u64) = (Vec::new(), 0);
    while let Some(row) = rows.next()? {
        let block = listed(row)?;
        if events >= events_max && found.last().is_some_and(|last| last.run != block.run) {
            break;
        }
        let behind = block.header.as_ref().filter(|header| header.last > cursor);
        events += behind.map_or(0, |header| u64::from(header.events));
        found.push(block);
    }
    Ok(found)
}

/// The packed body of a block; `None` when another one took its place.
pub fn body(connection: &Connection, block: i64) -> rusqlite::Result<Option<Vec<u8>>> {
    let mut statement = connection.prepare_cached("SELECT body FROM bodies WHERE block = ?1")?;
    statement.query_row([block], |row| row.get(0)).optional()
}

/// Rows of the blocks that wait to be joined.
pub fn small_blocks(connection: &Connection) -> rusqlite::Result<Vec<i64>> {
    let sql = "SELECT block FROM blocks WHERE small ORDER BY block";
    let mut statement = connection.prepare(sql)?;
    statement.query_map([], |row| row.get(0))?.collect()
}

/// What the events of a file lie between; `None` when nothing was ever written to it.
pub fn span(connection: &Connection) -> rusqlite::Result<Option<Span>> {
    let sql = "SELECT value FROM facts WHERE name = 'cursor_before'";
    let before: Option<i64> = connection.query_row(sql, [], |row| row.get(0)).optional()?;
    let Some(before) = before else { return Ok(None) };
    let span = Span::empty(before.unsigned_abs());
    let sql = "SELECT max(last), min(oldest_ns), max(newest_ns) FROM blocks";
    connection.query_row(sql, [], |row| {
        let last: Option<i64> = row.get(0)?;
        let Some(last) = last else { return Ok(Some(span)) };
        Ok(Some(span.with(last.unsigned_abs(), row.get(1)?, row.get(2)?)))
    })
}

/// Notes in a new file what was the last cursor before it.
pub fn set_cursor_before(connection: &Connection, cursor: u64) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO facts (name, value) VALUES ('cursor_before', ?1)";
    connection.execute(sql, [number(cursor)])?;
    Ok(())
}

/// Notes what is stored of an agent boot.
pub fn save_boot(connection: &Connection, origin: &Origin, ranges: &[u8]) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO boots (host, boot, ranges) VALUES (?1, ?2, ?3)";
    let (host, boot) = origin;
    connection.prepare_cached(sql)?.execute(params![&**host, boot, ranges])?;
    Ok(())
}

/// What is stored of every agent boot.
pub fn load_boots(connection: &Connection) -> rusqlite::Result<Sequences> {
    let mut known = Sequences::default();
    let mut statement = connection.prepare("SELECT host, boot, ranges FROM boots")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let host: Arc<str> = row.get_ref(0)?.as_str()?.into();
        let ranges = sequences::from_bytes(row.get_ref(2)?.as_blob()?);
        known.restore((host, row.get(1)?), ranges);
    }
    Ok(known)
}

/// Notes the totals of a host.
pub fn save_total(connection: &Connection, host: &str, total: &Total) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO hosts (host, events, last_event_ns, lost)
               VALUES (?1, ?2, ?3, ?4)";
    let Total { events, last_event_ns, lost } = *total;
    let values = params![host, number(events), last_event_ns, number(lost)];
    connection.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// The totals of every host.
pub fn load_totals(connection: &Connection) -> rusqlite::Result<Vec<(Arc<str>, Total)>> {
    let sql = "SELECT host, events, last_event_ns, lost FROM hosts";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| {
        let host: Arc<str> = row.get_ref(0)?.as_str()?.into();
        let total = Total {
            events: row.get::<_, i64>(1)?.unsigned_abs(),
            last_event_ns: row.get(2)?,
            lost: row.get::<_, i64>(3)?.unsigned_abs(),
        };
        Ok((host, total))
    })?;
    rows.collect()
}
