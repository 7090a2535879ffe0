//! What those who follow the store are told of it.

use std::sync::Arc;

use prost::bytes::Bytes;
use sekimori_proto::forward;
use sekimori_proto::v1::Event;

use super::block::{Block, Stored};
use super::filter::Condition;
use super::plain;
use crate::limits::{PAGE_BYTES_MAX, WATCH_PAGE_EVENTS};

/// What those who follow the store take of a matching event.
pub trait Told: Sized + Send + 'static {
    /// Of an event for which [`Condition::may_be`] holds; `None` when it does not match. One that
    /// `was_checked` is an event, and not read back from a disk.
    ///
    /// # Errors
    /// When it is none.
    fn of(
        stored: &Stored<'_>,
        condition: &Condition,
        was_checked: bool,
    ) -> Result<Option<Self>, prost::DecodeError>;
}

impl Told for Event {
    fn of(
        stored: &Stored<'_>,
        condition: &Condition,
        _was_checked: bool,
    ) -> Result<Option<Event>, prost::DecodeError> {
        let event = stored.event()?;
        Ok(condition.matches(&event).then_some(event))
    }
}

/// An encoded event, for those who only pass it on.
#[derive(Debug)]
pub struct Encoded(pub Bytes);

impl Told for Encoded {
    fn of(
        stored: &Stored<'_>,
        condition: &Condition,
        was_checked: bool,
    ) -> Result<Option<Encoded>, prost::DecodeError> {
        let is_event = || was_checked || plain::facts(stored.body).is_some();
        let known = condition.is_of_what_is_stored_beside() && is_event();
        if !known && !condition.matches(&stored.event()?) {
            return Ok(None);
        }
        Ok(Some(Encoded(forward::encoded(stored.body, stored.host, stored.cursor))))
    }
}

/// Matching events behind a cursor.
pub struct Matching<T> {
    /// In the order of their cursors.
    pub events: Vec<T>,
    /// The last of them, when there are too many for a step.
    pub cut_at: Option<u64>,
    /// What is no event.
    pub unreadable: Vec<(u64, prost::DecodeError)>,
}

/// Finds them in blocks, up to a page.
pub fn tell<T: Told>(
    condition: &Condition,
    position: u64,
    blocks: &[Arc<Block>],
    were_checked: bool,
) -> Matching<T> {
    let of = |kind, verdict| condition.may_be_of(kind, verdict);
    let mut stored: Vec<Stored<'_>> = blocks
        .iter()
        .flat_map(|block| block.entries_of(of))
        .filter(|stored| stored.cursor > position && condition.may_be(stored))
        .collect();
    stored.sort_unstable_by_key(|stored| stored.cursor);
    let mut told = Matching { events: Vec::new(), cut_at: None, unreadable: Vec::new() };
    let mut bytes: usize = 0;
    for stored in stored {
        match T::of(&stored, condition, were_checked) {
            Ok(Some(event)) => told.events.push(event),
            Ok(None) => continue,
            Err(error) => {
                told.unreadable.push((stored.cursor, error));
                continue;
            }
        }
        bytes = bytes.saturating_add(stored.body.len());
        if told.events.len() >= WATCH_PAGE_EVENTS || bytes > PAGE_BYTES_MAX {
            told.cut_at = Some(stored.cursor);
            break;
        }
    }
    told
}
