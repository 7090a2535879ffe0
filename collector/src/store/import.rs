//! What an earlier version stored: one file with a row for each event.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use prost::Message as _;
use rusqlite::Connection;
use sekimori_proto::v1::Event;

use super::block::Placed;
use super::current::Current;
use super::entry::Entry;
use super::files::{Files, beside};
use super::totals::{Total, Totals};
use super::{StoreError, schema};
use crate::limits::JOINED_EVENTS;

/// `sekm`: marked such a file.
const APPLICATION_ID: i32 = 0x7365_6b6d;
/// The only version that there was.
const VERSION: usize = 1;
/// What SQLite keeps beside a database.
const BESIDE: [&str; 4] = ["", "-wal", "-shm", ".lock"];

/// Moves the events of a file into the store, with their cursors, and removes it. What was moved
/// before an interruption is not moved again.
///
/// # Errors
/// When it is no such file, or cannot be read or written.
pub fn import(
    path: &Path,
    files: &Files,
    current: &mut Current,
    totals: &Totals,
) -> Result<(), StoreError> {
    let sqlite = |source| StoreError::Sqlite { path: path.to_owned(), source };
    let connection = schema::open_reader(path).map_err(sqlite)?;
    match schema::marks(&connection).map_err(sqlite)? {
        (APPLICATION_ID, VERSION, _) => {}
        (APPLICATION_ID, version, _) => {
            return Err(StoreError::Newer { path: path.to_owned(), version, known: VERSION });
        }
        _ => return Err(StoreError::Foreign(path.to_owned())),
    }
    tracing::info!(path = %path.display(), "the events of an earlier version are moved into the store");
    let moved = move_all(path, &connection, files, current, totals)?;
    drop(connection);
    for suffix in BESIDE {
        let path = beside(path, suffix);
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::File { path, source });
            }
            _ => {}
        }
    }
    tracing::info!(path = %path.display(), moved, "they are in the store, and the file is removed");
    Ok(())
}

fn move_all(
    path: &Path,
    connection: &Connection,
    files: &Files,
    current: &mut Current,
    totals: &Totals,
) -> Result<u64, StoreError> {
    let sqlite = |source| StoreError::Sqlite { path: path.to_owned(), source };
    let mut moved = 0;
    let mut statement =
        connection.prepare("SELECT cursor, body FROM events ORDER BY cursor").map_err(sqlite)?;
    let mut rows = statement.query([]).map_err(sqlite)?;
    let mut part: Vec<(u64, Event, Vec<u8>)> = Vec::new();
    loop {
        let row = rows.next().map_err(sqlite)?;
        let row = row.map(|row| Ok((row.get::<_, i64>(0)?.unsigned_abs(), row.get(1)?)));
        let row: Option<(u64, Vec<u8>)> = row.transpose().map_err(sqlite)?;
        let follows = |cursor: u64| part.last().is_none_or(|(last, ..)| last + 1 == cursor);
        let ends = row.as_ref().is_none_or(|(cursor, _)| !follows(*cursor));
        if (ends || part.len() >= JOINED_EVENTS) && !part.is_empty() {
            moved += part.len() as u64;
            store(std::mem::take(&mut part), files, current, totals)?;
        }
        let Some((cursor, body)) = row else { break };
        match Event::decode(body.as_slice()) {
            Ok(event) => part.push((cursor, event, body)),
            Err(error) => tracing::error!(%error, cursor, "an event is damaged and left out"),
        }
    }
    Ok(moved)
}

/// Events whose cursors follow each other.
fn store(
    part: Vec<(u64, Event, Vec<u8>)>,
    files: &Files,
    current: &mut Current,
    totals: &Totals,
) -> Result<(), StoreError> {
    current.begin(files, totals)?;
    let mut new: Vec<Placed> = Vec::with_capacity(part.len());
    let mut changed: BTreeMap<Arc<str>, Total> = BTreeMap::new();
    for (cursor, event, body) in part {
        let host: Arc<str> = event.host.as_str().into();
        let entry = Entry::new(&event, body.into());
        for entry in current.keep_new(&host, entry.into_iter().collect()) {
            let total = changed.entry(Arc::clone(&host)).or_insert_with(|| totals.of(&host));
            let (last_event_ns, lost) = (entry.time_ns, entry.lost);
            *total = total.with(Total { events: 1, last_event_ns, lost });
            new.push(Placed { cursor, host: Arc::clone(&host), entry });
        }
    }
    if let Some(first) = new.first() {
        current.skip_to(first.cursor);
    }
    current.commit(new, &changed)?;
    changed.iter().for_each(|(host, total)| totals.set(host, *total));
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use rusqlite::params;
    use sekimori_proto::v1::Loss;

    use super::*;

    /// As version 0.1.0 wrote it at first.
    const OLD: &str = "
        PRAGMA application_id = 1936026477;
        PRAGMA user_version = 1;
        CREATE TABLE events (
            cursor INTEGER PRIMARY KEY AUTOINCREMENT, host TEXT NOT NULL, boot BLOB NOT NULL,
            sequence INTEGER NOT NULL, time_ns INTEGER NOT NULL, kind INTEGER NOT NULL,
            verdict INTEGER NOT NULL, user TEXT NOT NULL, login_user TEXT NOT NULL,
            rule TEXT NOT NULL, text BLOB NOT NULL, body BLOB NOT NULL,
            UNIQUE (host, boot, sequence)
        ) STRICT;";

    fn old_file(path: &Path, cursors: impl IntoIterator<Item = u64>) {
        let connection = Connection::open(path).unwrap();
        connection.execute_batch(OLD).unwrap();
        for cursor in cursors {
            let host = if cursor % 2 == 0 { "端末" } else { "pc" };
            let event = Event {
                host: host.into(),
                boot: vec![7; 16],
                sequence: cursor,
                time_ns: 50,
                kind: 100,
                loss: Some(Loss { count: 2, ..Loss::default() }),
                ..Event::default()
            };
            let number = i64::try_from(cursor).unwrap();
            let values = params![number, host, event.boot, number, event.encode_to_vec()];
            let sql = "INSERT INTO events VALUES (?1, ?2, ?3, ?4, 50, 100, 0, '', '', '', x'', ?5)";
            connection.execute(sql, values).unwrap();
        }
    }

    #[test]
    fn cursors_names_and_totals_stay() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("events.db"), dir.path().join("store"));
        std::fs::create_dir(&new).unwrap();
        let cursors: Vec<u64> = (1..=40).chain(100..=120).collect();
        old_file(&old, cursors.iter().copied());
        let files = Files::of(&new).unwrap();
        let (mut current, totals) = Current::open(&files).unwrap();
        // An interruption: some of it is there.
        let copy = dir.path().join("part.db");
        old_file(&copy, 1..=40);
        import(&copy, &files, &mut current, &totals).unwrap();
        import(&old, &files, &mut current, &totals).unwrap();
        assert!(!old.exists());
        assert_eq!(current.last(), 120);
        assert_eq!(totals.of("端末"), Total { events: 31, last_event_ns: 50, lost: 62 });
        let file = files.list().pop().unwrap();
        let stored: Vec<u64> = file
            .read(|connection| {
                let mut found = Vec::new();
                for row in super::super::table::small_blocks(connection)? {
                    let body = super::super::table::body(connection, row)?.unwrap();
                    let block = super::super::block::Block::unpack(&body).unwrap();
                    found.extend(block.entries().map(|it| it.event().unwrap().cursor));
                }
                Ok::<_, rusqlite::Error>(found)
            })
            .unwrap();
        assert_eq!(stored, cursors);
    }

    #[test]
    fn another_database_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let old = dir.path().join("events.db");
        Connection::open(&old).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
        let files = Files::of(dir.path()).unwrap();
        let (mut current, totals) = Current::open(&files).unwrap();
        let error = import(&old, &files, &mut current, &totals).unwrap_err();
        assert!(matches!(error, StoreError::Foreign(_)), "{error}");
        assert!(old.exists());
    }
}
