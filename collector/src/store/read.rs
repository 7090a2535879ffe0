//! Reading: each question bounded in time and size.
//!
//! A question looks at the headers of the blocks first, then into those that may have an answer. A
//! block that is damaged is left out, and the answer says so.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lru::LruCache;
use rusqlite::Connection;
use sekimori_proto::v1::{Event, HostStatus};
use thiserror::Error;
use tokio::sync::Semaphore;

use super::block::{Block, Header, Stored, Unpacker};
use super::columns::{Columns, Counter};
use super::files::{Files, StoreFile};
use super::filter::Condition;
use super::groups::{GroupError, Groups};
use super::schema;
use super::table::{self, Listed};
use super::tail::{Behind, Tail};
use super::told::{Matching, Told, tell};
use super::totals::Totals;
use crate::expression::ExpressionError;
use crate::identity::Operator;
use crate::limits::{
    BLOCKS_KEPT, GAPS_TOLD_MAX, PAGE_BYTES_MAX, QUERY_TIME_MAX, READERS_MAX, STEP_AT_ONCE_MAX,
    WATCH_WINDOW,
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
    /// Whoever asked has gone.
    #[error("nobody waits for the answer")]
    Cancelled,
    /// The database failed.
    #[error("the store cannot be read: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The expression has no answer for an event.
    #[error("filter.expression: {0}")]
    Expression(ExpressionError),
    /// Too many groups.
    #[error(transparent)]
    Groups(#[from] GroupError),
    /// The reading task died.
    #[error("reading the store failed: {0}")]
    Task(String),
}

/// Events that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The first of their cursors; others between it and `last` may be there.
    pub first: u64,
    /// The last of them.
    pub last: u64,
    /// Which file, and what is wrong with it.
    pub reason: String,
}

/// Where a search goes on: behind this event, among those up to `upper`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Last cursor that the first page could see; later events belong to no page.
    pub upper: u64,
    /// Time and cursor of the last event shown; none before the first page.
    pub last: Option<(i64, u64)>,
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
    /// What could not be read.
    pub gaps: Vec<Gap>,
}

/// One step of a live stream.
#[derive(Debug)]
pub struct Step<T> {
    /// Matching events in the order of their cursors.
    pub events: Vec<T>,
    /// Everything up to here has been looked at.
    pub position: u64,
    /// What could not be read on the way.
    pub gaps: Vec<Gap>,
    /// Nothing was committed behind it yet.
    pub is_last: bool,
}

type Kept = LruCache<(u64, i64), Arc<Block>>;

/// The readers of the store.
#[derive(Clone, Debug)]
pub struct Readers {
    files: Files,
    totals: Totals,
    tail: Tail,
    blocks: Arc<Mutex<Kept>>,
    /// For questions.
    places: Arc<Semaphore>,
    /// For steps of live streams, which are short: long questions do not hold them up.
    step_places: Arc<Semaphore>,
}

impl Readers {
    /// Connections are opened when they are needed.
    pub fn new(files: Files, totals: Totals, tail: Tail) -> Readers {
        let kept = NonZeroUsize::new(BLOCKS_KEPT).unwrap_or(NonZeroUsize::MIN);
        let blocks = Arc::new(Mutex::new(LruCache::new(kept)));
        let places = || Arc::new(Semaphore::new(READERS_MAX));
        Readers { files, totals, tail, blocks, places: places(), step_places: places() }
    }

    /// Closes the connections that wait. One that is in use closes when its query ends.
    pub fn close(&self) {
        self.places.close();
        self.step_places.close();
        self.files.close();
    }

    /// One page of the events that match, by time and then by cursor.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn search(&self, _reader: &Operator, search: Search) -> Result<Page, ReadError> {
        self.run(&self.places, move |look| look.search(&search)).await
    }

    /// The matching events behind `position`; looks at a bounded number of events, so the step may
    /// be empty and yet not the last.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn step<T: Told>(
        &self,
        _reader: &Operator,
        condition: Arc<Condition>,
        position: u64,
    ) -> Result<Step<T>, ReadError> {
        // A little of what was committed last is at hand.
        if condition.is_quick()
            && let Some(behind) = self.last_behind(position)
            && behind.events <= STEP_AT_ONCE_MAX
        {
            return Ok(step_of(&condition, position, &behind));
        }
        self.run(&self.step_places, move |look| look.step(&condition, position)).await
    }

    /// What was committed last behind a cursor. What retention removed is not told from here either.
    fn last_behind(&self, position: u64) -> Option<Behind> {
        self.tail.behind(position.max(self.removed_up_to()), WATCH_WINDOW)
    }

    /// Puts the matching events up to `upper` into groups.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn aggregate(
        &self,
        _reader: &Operator,
        condition: Condition,
        upper: u64,
        groups: Groups,
    ) -> Result<(Groups, Vec<Gap>), ReadError> {
        self.run(&self.places, move |look| look.aggregate(&condition, upper, groups)).await
    }

    /// Every host in the store, by name.
    pub fn hosts(&self, _reader: &Operator) -> Vec<HostStatus> {
        let totals = self.totals.all().into_iter();
        let status = totals.map(|(host, total)| HostStatus {
            host: host.to_string(),
            events: total.events,
            last_event_ns: total.last_event_ns,
            lost: total.lost,
            connected: false,
        });
        status.collect()
    }

    /// How many files the store has, and their bytes on the disk.
    pub fn size(&self) -> (usize, u64) {
        let files = self.files.list();
        (files.len(), files.iter().map(|file| file.bytes()).sum())
    }

    /// The last cursor of what retention has removed; 0 when nothing was.
    pub fn removed_up_to(&self) -> u64 {
        self.files.list().first().map_or(0, |file| file.span().before)
    }

    pub(super) fn places(&self) -> &Arc<Semaphore> {
        &self.places
    }

    /// Runs `query` on a thread that may block, when there is a place for it.
    async fn run<T, F>(&self, places: &Arc<Semaphore>, query: F) -> Result<T, ReadError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Look) -> Result<T, ReadError> + Send + 'static,
    {
        self.run_for(places, QUERY_TIME_MAX, query).await
    }

    /// The same, for at most this time.
    pub(super) async fn run_for<T, F>(
        &self,
        places: &Arc<Semaphore>,
        time_max: Duration,
        query: F,
    ) -> Result<T, ReadError>
    where
        T: Send + 'static,
        F: FnOnce(&mut Look) -> Result<T, ReadError> + Send + 'static,
    {
        let place = Arc::clone(places).acquire_owned().await;
        let place = place.map_err(|error| ReadError::Task(error.to_string()))?;
        let cancelled = Arc::new(AtomicBool::new(false));
        let _guard = Guard(Arc::clone(&cancelled));
        let mut look = Look {
            readers: self.clone(),
            deadline: Instant::now().checked_add(time_max),
            cancelled,
            gaps: Vec::new(),
            gaps_max: GAPS_TOLD_MAX,
            unpacker: Unpacker::default(),
        };
        let task = tokio::task::spawn_blocking(move || {
            let _place = place;
            query(&mut look)
        });
        task.await.unwrap_or_else(|error| Err(ReadError::Task(error.to_string())))
    }
}

/// Whether the condition had an answer for every event that it was asked of.
fn answered(condition: &Condition) -> Result<(), ReadError> {
    condition.failure().map_or(Ok(()), |error| Err(ReadError::Expression(error.clone())))
}

/// A step through what was committed last.
fn step_of<T: Told>(condition: &Condition, position: u64, behind: &Behind) -> Step<T> {
    let Matching { events, cut_at, unreadable } = tell(condition, position, &behind.blocks, true);
    let gap = |(cursor, error): (u64, prost::DecodeError)| {
        tracing::error!(%error, cursor, "an event that was committed cannot be read");
        Gap { first: cursor, last: cursor, reason: error.to_string() }
    };
    let gaps = unreadable.into_iter().take(GAPS_TOLD_MAX).map(gap).collect();
    let is_last = behind.is_all && cut_at.is_none();
    Step { events, position: cut_at.unwrap_or(behind.last), gaps, is_last }
}

/// Tells a query that whoever asked has gone.
struct Guard(Arc<AtomicBool>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One question at work.
pub(super) struct Look {
    readers: Readers,
    /// None: as long as it takes.
    deadline: Option<Instant>,
    cancelled: Arc<AtomicBool>,
    gaps: Vec<Gap>,
    pub(super) gaps_max: usize,
    unpacker: Unpacker,
}

impl Look {
    fn search(&mut self, search: &Search) -> Result<Page, ReadError> {
        let Search { condition, position, limit, newest_first } = search;
        let limit = usize::try_from(*limit).unwrap_or(usize::MAX);
        let mut best = Best::new(limit, *newest_first);
        let mut files = self.readers.files.list();
        // What may come first is looked at first.
        let first = |oldest_ns, newest_ns| best_time(*newest_first, oldest_ns, newest_ns);
        files.sort_by_key(|file| first(file.span().oldest_ns, file.span().newest_ns));
        for file in files {
            let span = file.span();
            if best.is_beyond(first(span.oldest_ns, span.newest_ns)) {
                break;
            }
            self.within(&file, |look, connection| {
                let mut listed = look.listed(&file, connection, condition, position.upper)?;
                listed.sort_by_key(|(_, header)| first(header.oldest_ns, header.newest_ns));
                for (row, header) in &listed {
                    if best.is_beyond(first(header.oldest_ns, header.newest_ns)) {
                        break;
                    }
                    look.block(&file, connection, *row, header, |stored| {
                        let key = (stored.time_ns, stored.cursor);
                        let shown = |last| if *newest_first { key >= last } else { key <= last };
                        if stored.cursor > position.upper
                            || position.last.is_some_and(shown)
                            || best.is_ruled_out(key)
                            || !condition.may_be(stored)
                        {
                            return Ok(());
                        }
                        let event = stored.event()?;
                        if condition.matches(&event) {
                            best.add(key, event, stored.body.len());
                        }
                        Ok(())
                    })?;
                }
                Ok(())
            })?;
        }
        answered(condition)?;
        let (events, more) = best.done();
        let last = events.last().map(|event| (event.time_ns, event.cursor));
        let next = more.then_some(Position { last, ..*position });
        Ok(Page { events, next, gaps: std::mem::take(&mut self.gaps) })
    }

    fn step<T: Told>(
        &mut self,
        condition: &Condition,
        position: u64,
    ) -> Result<Step<T>, ReadError> {
        let step = match self.readers.last_behind(position) {
            Some(behind) => step_of(condition, position, &behind),
            None => self.stored_step(condition, position)?,
        };
        answered(condition)?;
        Ok(step)
    }

    fn stored_step<T: Told>(
        &mut self,
        condition: &Condition,
        position: u64,
    ) -> Result<Step<T>, ReadError> {
        let mut step = Step { events: Vec::new(), position, gaps: Vec::new(), is_last: false };
        let files = self.readers.files.list();
        let Some(file) = files.into_iter().find(|file| file.span().last > position) else {
            return Ok(step);
        };
        let mut end = position.max(file.span().before);
        self.within(&file, |look, connection| {
            let listed = table::blocks_behind(connection, end, WATCH_WINDOW)?;
            let mut blocks = Vec::new();
            for Listed { block: row, run, header } in &listed {
                let Some(header) = header else {
                    look.gap(&file, *run, *run, format!("block {row}: its header is damaged"));
                    continue;
                };
                end = end.max(header.last);
                if header.last > position && condition.may_match(header) {
                    blocks.extend(look.kept_block(&file, connection, *row, header)?);
                }
            }
            let told = tell(condition, position, &blocks, false);
            for (cursor, error) in told.unreadable {
                look.gap(&file, cursor, cursor, error.to_string());
            }
            step.events = told.events;
            end = told.cut_at.unwrap_or(end);
            Ok(())
        })?;
        step.gaps = std::mem::take(&mut self.gaps);
        // What lies behind this step is told by a later one.
        step.gaps.retain(|gap| gap.last > position && gap.first <= end.max(position + 1));
        // Nothing could be read, or nothing is there: the next file is what comes next.
        step.position = if end > position { end } else { file.span().last };
        Ok(step)
    }

    fn aggregate(
        &mut self,
        condition: &Condition,
        upper: u64,
        mut groups: Groups,
    ) -> Result<(Groups, Vec<Gap>), ReadError> {
        let mut counter = Counter::new(condition, &groups);
        for file in self.readers.files.list() {
            self.within(&file, |look, connection| {
                let mut counter = match &mut counter {
                    Some(counter) if schema::has_columns(connection)? => Some(counter),
                    _ => None,
                };
                for (row, header) in look.listed(&file, connection, condition, upper)? {
                    if let Some(counter) = counter.as_mut().filter(|_| header.last <= upper)
                        && let Some(columns) =
                            look.columns(&file, connection, row, header.events)?
                        && let Ok(counted) = counter.add(&columns, &mut groups)
                    {
                        counted?;
                        continue;
                    }
                    let mut failed = None;
                    look.block(&file, connection, row, &header, |stored| {
                        if failed.is_some() || stored.cursor > upper || !condition.may_be(stored) {
                            return Ok(());
                        }
                        let event = stored.event()?;
                        if condition.matches(&event) {
                            failed = groups.add(&event).err();
                        }
                        Ok(())
                    })?;
                    if let Some(error) = failed {
                        return Err(error.into());
                    }
                }
                Ok(())
            })?;
        }
        answered(condition)?;
        Ok((groups, std::mem::take(&mut self.gaps)))
    }

    /// The columns of a block, unless it has none or they are damaged.
    pub(super) fn columns(
        &mut self,
        file: &StoreFile,
        connection: &Connection,
        row: i64,
        events: u32,
    ) -> Result<Option<Columns>, ReadError> {
        self.go_on()?;
        let columns = match table::columns(connection, row) {
            Err(error) if is_passing(&error) => return Err(error.into()),
            Err(error) => Err(error.to_string()),
            Ok(None) => return Ok(None),
            Ok(Some(packed)) => Columns::unpack(&packed, events, &mut self.unpacker)
                .map_err(|error| error.to_string()),
        };
        let warn = |error: &String| {
            let path = file.path.display();
            tracing::warn!(error, %path, block = row, "columns of the store are damaged");
        };
        Ok(columns.inspect_err(warn).ok())
    }

    /// Reads a file as it is at one moment. One that is damaged is noted and left out.
    pub(super) fn within(
        &mut self,
        file: &StoreFile,
        read: impl FnOnce(&mut Look, &Connection) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        let result = file.read(|connection| {
            let transaction = connection.unchecked_transaction()?;
            read(self, &transaction)
        });
        match result {
            // Retention was faster.
            Err(ReadError::Sqlite(_)) if !file.path.exists() => Ok(()),
            Err(ReadError::Sqlite(error)) if !is_passing(&error) => {
                self.gap(file, file.span().before + 1, file.span().last, error.to_string());
                Ok(())
            }
            result => result,
        }
    }

    /// The blocks of a file that may have matching events up to `upper`.
    pub(super) fn listed(
        &mut self,
        file: &StoreFile,
        connection: &Connection,
        condition: &Condition,
        upper: u64,
    ) -> Result<Vec<(i64, Header)>, ReadError> {
        let mut found = Vec::new();
        let span = file.span();
        if !condition.may_match_times(span.oldest_ns, span.newest_ns) {
            return Ok(found);
        }
        let (since_ns, until_ns) = condition.times();
        table::each_block(connection, since_ns, until_ns, |Listed { block: row, run, header }| {
            if row % 1024 == 0 {
                self.go_on()?;
            }
            match header {
                Some(header) if header.first <= upper && condition.may_match(&header) => {
                    found.push((row, header));
                }
                Some(_) => {}
                None => self.gap(file, run, run, format!("block {row}: its header is damaged")),
            }
            Ok::<_, ReadError>(())
        })?;
        Ok(found)
    }

    /// Looks at each event of a block, until the block turns out to be damaged.
    fn block(
        &mut self,
        file: &StoreFile,
        connection: &Connection,
        row: i64,
        header: &Header,
        mut each: impl FnMut(&Stored<'_>) -> Result<(), prost::DecodeError>,
    ) -> Result<(), ReadError> {
        let Some(block) = self.kept_block(file, connection, row, header)? else {
            return Ok(());
        };
        for stored in block.entries() {
            if let Err(error) = each(&stored) {
                self.gap(file, stored.cursor, stored.cursor, error.to_string());
            }
        }
        Ok(())
    }

    /// `None` when it is damaged, which is noted.
    fn kept_block(
        &mut self,
        file: &StoreFile,
        connection: &Connection,
        row: i64,
        header: &Header,
    ) -> Result<Option<Arc<Block>>, ReadError> {
        self.go_on()?;
        let kept = || self.readers.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(block) = kept().get(&(file.number, row)) {
            return Ok(Some(Arc::clone(block)));
        }
        let block = self.fresh_block(file, connection, row, header)?.map(Arc::new);
        if let Some(block) = &block {
            let kept = self.readers.blocks.lock();
            kept.unwrap_or_else(PoisonError::into_inner).put((file.number, row), Arc::clone(block));
        }
        Ok(block)
    }

    /// The same, past the blocks that are kept: whoever looks at all of them once has no use for
    /// them.
    pub(super) fn fresh_block(
        &mut self,
        file: &StoreFile,
        connection: &Connection,
        row: i64,
        header: &Header,
    ) -> Result<Option<Block>, ReadError> {
        self.go_on()?;
        let body = match table::body(connection, row) {
            Ok(body) => body.unwrap_or_default(),
            Err(error) if is_passing(&error) => return Err(error.into()),
            Err(error) => {
                self.gap(file, header.first, header.last, format!("block {row}: {error}"));
                return Ok(None);
            }
        };
        match Block::unpack(&body) {
            Ok(block) => Ok(Some(block)),
            Err(error) => {
                self.gap(file, header.first, header.last, format!("block {row}: {error}"));
                Ok(None)
            }
        }
    }

    pub(super) fn files(&self) -> Vec<Arc<StoreFile>> {
        self.readers.files.list()
    }

    pub(super) fn take_gaps(&mut self) -> Vec<Gap> {
        std::mem::take(&mut self.gaps)
    }

    fn go_on(&self) -> Result<(), ReadError> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(ReadError::Cancelled);
        }
        if self.deadline.is_some_and(|deadline| Instant::now() > deadline) {
            return Err(ReadError::TooLong);
        }
        Ok(())
    }

    pub(super) fn gap(&mut self, file: &StoreFile, first: u64, last: u64, reason: String) {
        let name = file.path.file_name().unwrap_or_default().to_string_lossy();
        tracing::error!(file = %file.path.display(), first, last, reason, "a part of the store cannot be read");
        if self.gaps.len() < self.gaps_max {
            self.gaps.push(Gap { first, last, reason: format!("{name}: {reason}") });
        }
    }
}

/// Whether it has nothing to do with what is in the file.
fn is_passing(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{CannotOpen, DatabaseBusy, DatabaseLocked, OutOfMemory};
    matches!(
        error.sqlite_error_code(),
        Some(CannotOpen | DatabaseBusy | DatabaseLocked | OutOfMemory)
    )
}

/// A number that is the lower the earlier an event of such times may come in the order.
fn best_time(newest_first: bool, oldest_ns: i64, newest_ns: i64) -> i128 {
    if newest_first { -i128::from(newest_ns) } else { i128::from(oldest_ns) }
}

/// The first events in an order, out of all that are added.
struct Best {
    limit: usize,
    newest_first: bool,
    /// By how early they come: lower is earlier.
    events: BTreeMap<(i128, i128), (Event, usize)>,
    bytes: usize,
    /// Some were left out: only what comes earlier than all that is here is of interest.
    full: bool,
}

impl Best {
    fn new(limit: usize, newest_first: bool) -> Best {
        Best { limit, newest_first, events: BTreeMap::new(), bytes: 0, full: false }
    }

    fn key(&self, (time_ns, cursor): (i64, u64)) -> (i128, i128) {
        let (time_ns, cursor) = (i128::from(time_ns), i128::from(cursor));
        if self.newest_first { (-time_ns, -cursor) } else { (time_ns, cursor) }
    }

    /// No event at this time or behind it is of interest; see [`best_time`].
    fn is_beyond(&self, time: i128) -> bool {
        self.full && self.events.last_key_value().is_some_and(|((last, _), _)| time > *last)
    }

    fn is_ruled_out(&self, key: (i64, u64)) -> bool {
        let key = self.key(key);
        self.full && self.events.last_key_value().is_some_and(|(last, _)| key > *last)
    }

    fn add(&mut self, key: (i64, u64), event: Event, bytes: usize) {
        self.bytes += bytes;
        self.events.insert(self.key(key), (event, bytes));
        while self.events.len() > self.limit
            || (self.bytes > PAGE_BYTES_MAX && self.events.len() > 1)
        {
            let Some((_, (_, bytes))) = self.events.pop_last() else { break };
            self.bytes -= bytes;
            self.full = true;
        }
    }

    /// The events, and whether there are more.
    fn done(self) -> (Vec<Event>, bool) {
        (self.events.into_values().map(|(event, _)| event).collect(), self.full)
    }
}
