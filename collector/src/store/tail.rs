//! What was committed last, as it was in the writer's hands.
//!
//! Most of those who follow the store are at its end, many of them at a time. They find here what
//! came since they last looked, and none of them unpacks a block for it.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError, RwLock};

use super::block::{Block, Placed};
use crate::limits::{TAIL_BYTES_MAX, TAIL_EVENTS_MAX};

/// The events of the last commits.
#[derive(Clone, Debug, Default)]
pub struct Tail {
    commits: Arc<RwLock<Commits>>,
}

#[derive(Debug, Default)]
struct Commits {
    /// In the order of their cursors, without a gap.
    list: VecDeque<Commit>,
    events: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Commit {
    first: u64,
    last: u64,
    events: usize,
    bytes: usize,
    block: Arc<Block>,
}

/// What lies behind a cursor.
#[derive(Debug)]
pub struct Behind {
    /// In order.
    pub blocks: Vec<Arc<Block>>,
    /// The last cursor in them.
    pub last: u64,
    /// How many events they have.
    pub events: usize,
    /// Nothing was committed behind them.
    pub is_all: bool,
}

impl Tail {
    /// Adds what was committed, in the order of its cursors. The oldest commits make room.
    pub fn push(&self, events: &[Placed]) {
        let (Some(first), Some(last)) = (events.first(), events.last()) else { return };
        let bytes = events.iter().map(|it| it.entry.body.len()).sum();
        let (first, last) = (first.cursor, last.cursor);
        let block = Arc::new(Block::of(events));
        let commit = Commit { first, last, events: events.len(), bytes, block };
        let mut commits = self.commits.write().unwrap_or_else(PoisonError::into_inner);
        if commits.list.back().is_some_and(|before| before.last + 1 != first) {
            *commits = Commits::default();
        }
        commits.events += commit.events;
        commits.bytes += commit.bytes;
        commits.list.push_back(commit);
        while commits.events > TAIL_EVENTS_MAX || commits.bytes > TAIL_BYTES_MAX {
            let Some(oldest) = commits.list.pop_front() else { break };
            commits.events -= oldest.events;
            commits.bytes -= oldest.bytes;
        }
    }

    /// What lies behind a cursor, if it is here from there on: whole commits, until there are
    /// `events_max` events.
    pub fn behind(&self, cursor: u64, events_max: u64) -> Option<Behind> {
        let commits = self.commits.read().unwrap_or_else(PoisonError::into_inner);
        let place = commits.list.partition_point(|commit| commit.last <= cursor);
        commits.list.get(place).filter(|commit| commit.first <= cursor + 1)?;
        let mut behind = Behind { blocks: Vec::new(), last: cursor, events: 0, is_all: true };
        for commit in commits.list.range(place..) {
            if behind.events as u64 >= events_max {
                behind.is_all = false;
                break;
            }
            behind.blocks.push(Arc::clone(&commit.block));
            behind.last = commit.last;
            behind.events += commit.events;
        }
        Some(behind)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use prost::Message as _;
    use sekimori_proto::v1::Event;

    use super::*;
    use crate::store::entry::Entry;

    fn placed(cursors: std::ops::RangeInclusive<u64>) -> Vec<Placed> {
        let of = |cursor| {
            let event = Event { boot: vec![1; 16], sequence: cursor, kind: 1, ..Event::default() };
            let entry = Entry::new(&event, event.encode_to_vec().into()).unwrap();
            Placed { cursor, host: if cursor % 2 == 0 { "a" } else { "b" }.into(), entry }
        };
        cursors.map(of).collect()
    }

    fn cursors(tail: &Tail, behind: u64) -> Option<(Vec<u64>, u64)> {
        let Behind { blocks, last, is_all, .. } = tail.behind(behind, u64::MAX)?;
        assert!(is_all);
        let stored = blocks.iter().flat_map(|block| block.entries());
        let numbered = stored.map(|it| {
            assert_eq!(it.host, if it.cursor % 2 == 0 { "a" } else { "b" });
            assert_eq!(it.event().unwrap().sequence, it.cursor);
            it.cursor
        });
        Some((numbered.collect(), last))
    }

    #[test]
    fn whole_commits_behind_a_cursor_or_nothing() {
        let tail = Tail::default();
        assert_eq!(cursors(&tail, 0), None);
        tail.push(&placed(5..=9));
        tail.push(&placed(10..=10));
        tail.push(&[]);
        tail.push(&placed(11..=12));
        assert_eq!(cursors(&tail, 3), None, "4 is not here");
        assert_eq!(cursors(&tail, 4), Some(((5..=12).collect(), 12)));
        assert_eq!(cursors(&tail, 7), Some(((5..=12).collect(), 12)));
        assert_eq!(cursors(&tail, 9), Some(((10..=12).collect(), 12)));
        assert_eq!(cursors(&tail, 12), None, "nothing came since");
        let few = tail.behind(4, 5).unwrap();
        assert_eq!((few.last, few.events, few.is_all), (9, 5, false));
        let more = tail.behind(4, 6).unwrap();
        assert_eq!((more.last, more.events, more.is_all), (10, 6, false));
    }

    #[test]
    fn behind_a_gap_it_begins_anew() {
        let tail = Tail::default();
        tail.push(&placed(1..=3));
        tail.push(&placed(9..=9));
        assert_eq!(cursors(&tail, 2), None);
        assert_eq!(cursors(&tail, 8), Some((vec![9], 9)));
    }

    #[test]
    fn it_has_an_end() {
        let tail = Tail::default();
        for first in (1..).step_by(1000).take(2 * TAIL_EVENTS_MAX / 1000) {
            tail.push(&placed(first..=first + 999));
        }
        let commits = tail.commits.read().unwrap();
        assert!(commits.events <= TAIL_EVENTS_MAX && commits.events > TAIL_EVENTS_MAX - 1000);
        assert_eq!(commits.events, commits.list.iter().map(|it| it.events).sum::<usize>());
        assert_eq!(commits.bytes, commits.list.iter().map(|it| it.bytes).sum::<usize>());
        drop(commits);
        // One that is larger than all there may be is not kept.
        tail.push(&placed(1..=TAIL_EVENTS_MAX as u64 + 1));
        assert_eq!(cursors(&tail, 0), None);
    }
}
