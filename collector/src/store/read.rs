//! Reading: a few read-only connections, each query bounded in time and size.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, params_from_iter};
use sekimori_proto::v1::{Event, HostStatus};
use thiserror::Error;
use tokio::sync::Semaphore;

use super::filter::Condition;
use super::groups::{GroupError, Groups};
use super::row::{COLUMNS, Stored};
use super::schema;
use crate::identity::Operator;
use crate::limits::{
    PAGE_BYTES_MAX, QUERY_STEPS, QUERY_TIME_MAX, READERS_MAX, WATCH_PAGE_EVENTS, WATCH_WINDOW,
};

/// Why nothing was read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// Stopped by [`QUERY_TIME_MAX`].
    #[error(
        "the query took longer than {} s and was stopped: ask for a shorter time range, or for a \
         host, kind or verdict",
        QUERY_TIME_MAX.as_secs()
    )]
    TooLong,
    /// The database failed.
    #[error("the store cannot be read: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A row that is no event.
    #[error("event {0} of the store is damaged: {1}")]
    Damaged(i64, prost::DecodeError),
    /// Too many groups.
    #[error(transparent)]
    Groups(#[from] GroupError),
    /// The reading task died.
    #[error("reading the store failed: {0}")]
    Task(String),
}

/// Where a search goes on: behind this event, among those up to `upper`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Last cursor that the first page could see; later events belong to no page.
    pub upper: u64,
    /// Time and cursor of the last event shown; none before the first page.
    pub last: Option<(i64, i64)>,
}

/// What a search asks for.
#[derive(Debug)]
pub struct Search {
    /// Which events.
    pub condition: Condition,
    /// Where the page begins.
    pub position: Position,
    /// Events at most.
    pub limit: u32,
    /// The order.
    pub newest_first: bool,
}

/// One page of a search.
#[derive(Debug)]
pub struct Page {
    /// The events in order.
    pub events: Vec<Event>,
    /// Where the next page begins, if there is one.
    pub next: Option<Position>,
}

/// One step of a live stream.
#[derive(Debug)]
pub struct Step {
    /// Matching events in the order of their cursors.
    pub events: Vec<Event>,
    /// Everything up to here has been looked at.
    pub position: u64,
}

/// The readers of the store.
#[derive(Clone, Debug)]
pub struct Readers {
    path: PathBuf,
    idle: Arc<Mutex<Vec<Connection>>>,
    places: Arc<Semaphore>,
}

impl Readers {
    /// Connections are opened when they are needed.
    pub fn new(path: PathBuf) -> Readers {
        Readers { path, idle: Arc::default(), places: Arc::new(Semaphore::new(READERS_MAX)) }
    }

    /// Closes the connections that wait. One that is in use closes when its query ends.
    pub fn close(&self) {
        self.places.close();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// One page of the events that match, by time and then by cursor.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn search(&self, _reader: &Operator, search: Search) -> Result<Page, ReadError> {
        let Search { mut condition, position, limit, newest_first } = search;
        // The plus: this must not make SQLite walk by cursor and sort everything by time.
        condition.and("+cursor <= ?", [sql_cursor(position.upper)]);
        let (order, beyond) = if newest_first { ("DESC", "<") } else { ("ASC", ">") };
        if let Some((time_ns, cursor)) = position.last {
            let sql = format!("time_ns {beyond}= ? AND (time_ns {beyond} ? OR cursor {beyond} ?)");
            condition.and(sql, [time_ns.into(), time_ns.into(), cursor.into()]);
        }
        let sql = format!(
            "SELECT {COLUMNS} FROM events WHERE {} ORDER BY time_ns {order}, cursor {order}",
            condition.sql()
        );
        let found = self.run(move |connection| take(connection, &sql, &condition, limit)).await?;
        let last = found.rows.last().map(|row| (row.time_ns, row.cursor));
        let next = found.more.then_some(Position { last, ..position });
        Ok(Page { events: decode(&found.rows)?, next })
    }

    /// The matching events behind `position`, up to `committed` at most; looks at a bounded number
    /// of events, so the step may be empty and yet not the last.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn step(
        &self,
        _reader: &Operator,
        mut condition: Condition,
        position: u64,
        committed: u64,
    ) -> Result<Step, ReadError> {
        let end = committed.min(position.saturating_add(WATCH_WINDOW));
        condition.and("cursor > ? AND cursor <= ?", [sql_cursor(position), sql_cursor(end)]);
        // The window is short: walking it by cursor is best, whatever the filter.
        let sql = format!(
            "SELECT {COLUMNS} FROM events NOT INDEXED WHERE {} ORDER BY cursor",
            condition.sql()
        );
        let limit = WATCH_PAGE_EVENTS;
        let found = self.run(move |connection| take(connection, &sql, &condition, limit)).await?;
        let position = match found.rows.last() {
            Some(last) if found.more => last.cursor.unsigned_abs(),
            _ => end,
        };
        Ok(Step { events: decode(&found.rows)?, position })
    }

    /// Puts the matching events up to `upper` into groups.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn aggregate(
        &self,
        _reader: &Operator,
        mut condition: Condition,
        upper: u64,
        mut groups: Groups,
    ) -> Result<Groups, ReadError> {
        // The plus: the time range is what an index should be used for.
        condition.and("+cursor <= ?", [sql_cursor(upper)]);
        let sql = format!("SELECT {COLUMNS} FROM events WHERE {}", condition.sql());
        self.run(move |connection| {
            let mut statement = connection.prepare_cached(&sql)?;
            let mut rows = statement.query(params_from_iter(condition.values()))?;
            while let Some(row) = rows.next()? {
                let stored = Stored::read(row)?;
                let event = stored.event();
                groups.add(&event.map_err(|error| ReadError::Damaged(stored.cursor, error))?)?;
            }
            Ok(groups)
        })
        .await
    }

    /// Every host in the store, by name.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn hosts(&self, _reader: &Operator) -> Result<Vec<HostStatus>, ReadError> {
        self.run(|connection| {
            let sql = "SELECT host, events, last_event_ns, lost FROM hosts ORDER BY host";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([], |row| {
                Ok(HostStatus {
                    host: row.get(0)?,
                    events: row.get::<_, i64>(1)?.unsigned_abs(),
                    last_event_ns: row.get(2)?,
                    lost: row.get::<_, i64>(3)?.unsigned_abs(),
                    connected: false,
                })
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
        .await
    }

    /// Runs `query` on a connection of its own, on a thread that may block.
    async fn run<T, F>(&self, query: F) -> Result<T, ReadError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, ReadError> + Send + 'static,
    {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.map_err(|error| ReadError::Task(error.to_string()))?;
        let (idle, places) = (Arc::clone(&self.idle), Arc::clone(&self.places));
        let path = self.path.clone();
        let task = tokio::task::spawn_blocking(move || {
            let _place = place;
            let kept = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut connection = match kept {
                Some(connection) => connection,
                None => schema::open_reader(&path)?,
            };
            let deadline = Instant::now() + QUERY_TIME_MAX;
            connection.progress_handler(QUERY_STEPS, Some(move || Instant::now() > deadline))?;
            let result = query(&connection);
            // A connection that failed, or that nobody will want, is closed rather than kept.
            if result.is_ok() && !places.is_closed() {
                idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            }
            result
        });
        match task.await {
            Ok(Err(ReadError::Sqlite(error)))
                if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) =>
            {
                Err(ReadError::TooLong)
            }
            Ok(result) => result,
            Err(error) => Err(ReadError::Task(error.to_string())),
        }
    }
}

struct Found {
    rows: Vec<Stored>,
    /// There is at least one more row.
    more: bool,
}

/// Takes rows until there are `limit` of them or their bytes fill a page.
fn take(
    connection: &Connection,
    sql: &str,
    condition: &Condition,
    limit: u32,
) -> Result<Found, ReadError> {
    // One row more than wanted tells whether there is a next page.
    let sql = format!("{sql} LIMIT {}", limit.saturating_add(1));
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(condition.values()))?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut found = Found { rows: Vec::new(), more: false };
    let mut bytes: usize = 0;
    while let Some(row) = rows.next()? {
        let stored = Stored::read(row)?;
        bytes = bytes.saturating_add(stored.body.len());
        let full = found.rows.len() >= limit || bytes > PAGE_BYTES_MAX;
        if full && !found.rows.is_empty() {
            found.more = true;
            break;
        }
        found.rows.push(stored);
    }
    Ok(found)
}

fn decode(rows: &[Stored]) -> Result<Vec<Event>, ReadError> {
    rows.iter()
        .map(|row| row.event().map_err(|error| ReadError::Damaged(row.cursor, error)))
        .collect()
}

fn sql_cursor(cursor: u64) -> Value {
    i64::try_from(cursor).unwrap_or(i64::MAX).into()
}

/// The last cursor ever given, 0 in a new store.
pub fn last_cursor(connection: &Connection) -> rusqlite::Result<u64> {
    let sql = "SELECT seq FROM sqlite_sequence WHERE name = 'events'";
    let last: Option<i64> = connection.query_row(sql, [], |row| row.get(0)).optional()?;
    Ok(last.unwrap_or(0).unsigned_abs())
}
