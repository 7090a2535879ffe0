//! Reading everything, as it is stored: for what is computed over all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use sekimori_proto::v1::Event;

use super::block::{Found, Header, Stored};
use super::filter::Condition;
use super::read::{Gap, Look, ReadError, Readers};
use super::schema;
use super::table::{self, Listed};
use crate::identity::Operator;
use crate::limits::VERIFY_TOLD_MAX;

/// What a verification found besides what it was told of the events.
#[derive(Debug)]
pub struct Verified {
    /// What cannot be read.
    pub gaps: Vec<Gap>,
    /// What is found or counted by something that its events do not say. Of both at most
    /// [`VERIFY_TOLD_MAX`]; all are in the log.
    pub falsified: Vec<Gap>,
}

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
        let query = move |look: &mut Look| look.scan(&condition, (from, upper), &mut each);
        self.run_for(self.places(), time_max, query).await
    }

    /// Hands each event of these hosts up to `upper` to `each`, of all hosts when there is none;
    /// whatever blocks are found by, which is compared with the events.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn verify<F>(
        &self,
        _reader: &Operator,
        hosts: BTreeSet<String>,
        upper: u64,
        mut each: F,
    ) -> Result<Verified, ReadError>
    where
        F: FnMut(&Stored<'_>) -> ControlFlow<()> + Send + 'static,
    {
        let query = move |look: &mut Look| look.verify(&hosts, upper, &mut each);
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

    /// Nobody signs what blocks are found and counted by: whoever may write the store's files can make
    /// others, and questions would pass over a block. So nothing of it is used here.
    fn verify(
        &mut self,
        hosts: &BTreeSet<String>,
        upper: u64,
        each: &mut impl FnMut(&Stored<'_>) -> ControlFlow<()>,
    ) -> Result<Verified, ReadError> {
        self.gaps_max = VERIFY_TOLD_MAX;
        let (mut falsified, mut ended, mut last_before) = (Vec::new(), false, 0);
        for file in self.files() {
            let span = file.span();
            let name = file.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let mut tell = |first, last, what: String| {
                tracing::error!(file = name, first, last, what, "the store was changed");
                if falsified.len() < VERIFY_TOLD_MAX {
                    falsified.push(Gap { first, last, reason: format!("{name}: {what}") });
                }
            };
            self.within(&file, |look, connection| {
                for fault in table::index_faults(connection)? {
                    tell(span.before + 1, span.last, format!("what blocks are found by: {fault}"));
                }
                let with_columns = schema::has_columns(connection)?;
                let mut runs: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
                table::all_blocks(connection, |Listed { block: row, run, header }| {
                    if ended {
                        return Ok(());
                    }
                    let of_run =
                        || Header { first: run, last: run, ..Found::default().header(&[]) };
                    let known = header.clone().unwrap_or_else(of_run);
                    let lies = runs.entry(run).or_insert((u64::MAX, 0));
                    let Some(block) = look.fresh_block(&file, connection, row, &known)? else {
                        return Ok::<_, ReadError>(());
                    };
                    let cursors = block.entries().map(|stored| stored.cursor);
                    let (first, last, events) = cursors.fold((u64::MAX, 0, 0), |it, cursor| {
                        (it.0.min(cursor), it.1.max(cursor), it.2 + 1)
                    });
                    *lies = (lies.0.min(first), lies.1.max(last));
                    let says = "is not what its events say";
                    if !header.is_some_and(|it| block.is_found_by(&it).unwrap_or(false)) {
                        tell(first, last, format!("block {row}: what it is found by {says}"));
                    }
                    if with_columns
                        && let Some(columns) = look.columns(&file, connection, row, events)?
                        && !columns.agree_with(&block).unwrap_or(false)
                    {
                        tell(first, last, format!("block {row}: what it is counted by {says}"));
                    }
                    for stored in block.entries() {
                        let wanted = stored.cursor <= upper
                            && (hosts.is_empty() || hosts.contains(stored.host));
                        if wanted && each(&stored).is_break() {
                            ended = true;
                            break;
                        }
                    }
                    Ok(())
                })?;
                // Live streams go from run to run.
                let next = runs.keys().skip(1).copied().chain([u64::MAX]);
                for ((run, (first, last)), next) in runs.iter().zip(next).filter(|_| !ended) {
                    if *first < *run || *last >= next {
                        tell(*first, *last, format!("run {run}: its blocks do not lie in it"));
                    }
                }
                // They begin behind what is before the file.
                let before = table::span(connection)?.map_or(0, |span| span.before);
                let first = runs.values().map(|(first, _)| *first).min().unwrap_or(u64::MAX);
                if !ended && !(last_before..first).contains(&before) {
                    let text = format!("its events do not begin behind cursor {before}");
                    tell(first.min(span.last), span.last, text);
                }
                last_before = runs.values().map(|(_, last)| *last).fold(before, u64::max);
                Ok(())
            })?;
        }
        Ok(Verified { gaps: self.take_gaps(), falsified })
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
