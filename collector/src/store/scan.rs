//! Reading everything, as it is stored: for what is computed over all of it.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use sekimori_proto::v1::Event;

use super::block::{Block, Header, Stored};
use super::files::StoreFile;
use super::filter::Condition;
use super::read::{Gap, Look, ReadError, Readers};
use super::schema;
use crate::identity::Operator;

impl Readers {
    /// Hands each event behind cursor `from` up to `upper` that may match to `each`, in no order:
    /// the condition is looked at as far as that is possible without decoding. Takes as long as it
    /// takes, and ends when nobody waits for it any more. Answers with what could not be read.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn scan<F>(
        &self,
        reader: &Operator,
        condition: Arc<Condition>,
        range: (u64, u64),
        each: F,
    ) -> Result<Vec<Gap>, ReadError>
    where
        F: FnMut(&Stored<'_>) -> ControlFlow<()> + Send + 'static,
    {
        self.scan_within(Duration::MAX, reader, condition, range, each).await
    }

    /// The same, for at most this time.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn scan_within<F>(
        &self,
        time_max: Duration,
        _reader: &Operator,
        condition: Arc<Condition>,
        (from, upper): (u64, u64),
        mut each: F,
    ) -> Result<Vec<Gap>, ReadError>
    where
        F: FnMut(&Stored<'_>) -> ControlFlow<()> + Send + 'static,
    {
        let query = move |look: &mut Look| look.scan(&condition, (from, upper), false, &mut each);
        self.run_for(self.places(), time_max, query).await
    }

    /// The same as [`Readers::scan`]; a block is also told when what it is found or counted by is not
    /// what its events say.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn verify<F>(
        &self,
        _reader: &Operator,
        condition: Arc<Condition>,
        (from, upper): (u64, u64),
        mut each: F,
    ) -> Result<Vec<Gap>, ReadError>
    where
        F: FnMut(&Stored<'_>) -> ControlFlow<()> + Send + 'static,
    {
        let query = move |look: &mut Look| look.scan(&condition, (from, upper), true, &mut each);
        self.run_for(self.places(), Duration::MAX, query).await
    }

    /// The matching event with the highest cursor in the last file that has one.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn last(
        &self,
        _reader: &Operator,
        condition: Arc<Condition>,
    ) -> Result<Option<Event>, ReadError> {
        let query = move |look: &mut Look| look.last(&condition);
        self.run_for(self.places(), Duration::MAX, query).await
    }
}

impl Look {
    fn scan(
        &mut self,
        condition: &Condition,
        (from, upper): (u64, u64),
        verifies: bool,
        each: &mut impl FnMut(&Stored<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<Gap>, ReadError> {
        let mut ended = false;
        for file in self.files() {
            if ended || file.span().last <= from {
                continue;
            }
            self.within(&file, |look, connection| {
                for (row, header) in look.listed(&file, connection, condition, upper)? {
                    if ended || header.last <= from {
                        continue;
                    }
                    let block = look.fresh_block(&file, connection, row, &header)?;
                    if verifies && let Some(block) = &block {
                        look.verify(&file, connection, row, &header, block)?;
                    }
                    for stored in block.iter().flat_map(|block| block.entries()) {
                        let wanted = (from + 1..=upper).contains(&stored.cursor);
                        if wanted && condition.may_be(&stored) && each(&stored).is_break() {
                            ended = true;
                            break;
                        }
                    }
                }
                Ok(())
            })?;
        }
        Ok(self.take_gaps())
    }

    /// Notes a block whose header or columns are not those of its events. Nobody signs them: whoever
    /// may write the store's files can make others, and questions would pass over the block.
    fn verify(
        &mut self,
        file: &StoreFile,
        connection: &Connection,
        row: i64,
        header: &Header,
        block: &Block,
    ) -> Result<(), ReadError> {
        let gap = |look: &mut Look, what: &str| {
            let reason = format!("block {row}: {what} is not what its events say");
            look.gap(file, header.first, header.last, reason);
        };
        if !block.is_found_by(header).unwrap_or(false) {
            gap(self, "what it is found by");
        }
        if schema::has_columns(connection)?
            && let Some(columns) = self.columns(file, connection, row, header)?
            && !columns.agree_with(block).unwrap_or(false)
        {
            gap(self, "what it is counted by");
        }
        Ok(())
    }

    fn last(&mut self, condition: &Condition) -> Result<Option<Event>, ReadError> {
        let mut files = self.files();
        files.reverse();
        for file in files {
            let mut last: Option<Event> = None;
            self.within(&file, |look, connection| {
                let mut listed = look.listed(&file, connection, condition, u64::MAX)?;
                listed.sort_by_key(|(_, header)| std::cmp::Reverse(header.last));
                for (row, header) in listed {
                    if last.as_ref().is_some_and(|last| last.cursor > header.last) {
                        break;
                    }
                    let block = look.fresh_block(&file, connection, row, &header)?;
                    for stored in block.iter().flat_map(|block| block.entries()) {
                        let later = last.as_ref().is_none_or(|last| stored.cursor > last.cursor);
                        if !later || !condition.may_be(&stored) {
                            continue;
                        }
                        if let Ok(event) = stored.event()
                            && condition.matches(&event)
                        {
                            last = Some(event);
                        }
                    }
                }
                Ok(())
            })?;
            if last.is_some() {
                return Ok(last);
            }
        }
        Ok(None)
    }
}
