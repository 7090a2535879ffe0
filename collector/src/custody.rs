//! What became of records here, as records of the collector's own.
//!
//! It countersigns the checkpoints of the agents: what a host has signed and the collector has
//! received, nobody can replace or cut off afterwards, not even with that host's key. And it says
//! what it removed because it was old enough.

use std::sync::Arc;

use sekimori_evidence::Signed;
use sekimori_proto::v1::{Countersigned, Custody, Event, Filter, Kind, Removed};
use tokio::sync::Mutex;
use tokio::time::{self, Instant, MissedTickBehavior};

use crate::author::Author;
use crate::bus::Committed;
use crate::identity::Operator;
use crate::limits::{COUNTERSIGNED_MAX, CUSTODY_INTERVAL};
use crate::store::{Condition, FilterError, ReadError, Readers, WriteError};

/// Writes the records.
#[derive(Clone, Debug)]
pub struct Custodian {
    author: Author,
    readers: Readers,
    committed: Committed,
    checkpoints: Arc<Condition>,
    /// Everything up to this cursor is countersigned; none before the first look.
    through: Arc<Mutex<Option<u64>>>,
}

/// Why nothing could be countersigned.
#[derive(Debug, thiserror::Error)]
pub enum CustodyError {
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The record could not be stored.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl Custodian {
    /// Reads through `readers` and records by `author`.
    ///
    /// # Errors
    /// [`FilterError`], never in fact: the filter is its own.
    pub fn new(
        author: Author,
        readers: Readers,
        committed: Committed,
    ) -> Result<Custodian, FilterError> {
        let filter = Filter { kinds: vec![Kind::Checkpoint.into()], ..Filter::default() };
        let checkpoints = Arc::new(Condition::new(Some(&filter))?);
        Ok(Custodian { author, readers, committed, checkpoints, through: Arc::default() })
    }

    /// Countersigns every now and then, for ever.
    pub async fn run(self) {
        let mut ticks = time::interval_at(Instant::now() + CUSTODY_INTERVAL, CUSTODY_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = self.countersign().await {
                tracing::error!(%error, "checkpoints could not be countersigned");
            }
        }
    }

    /// Countersigns what has come since the last time.
    ///
    /// # Errors
    /// When the store cannot be read or written; the next call goes on where this one stopped.
    pub async fn countersign(&self) -> Result<(), CustodyError> {
        let mut through = self.through.lock().await;
        let mut position = match *through {
            Some(position) => position,
            None => self.before().await?,
        };
        let upper = self.committed.get();
        let mut found = Vec::new();
        while position < upper {
            let reader = Operator::collector();
            let step = self.readers.step(&reader, Arc::clone(&self.checkpoints), position).await?;
            if step.position <= position {
                break;
            }
            position = step.position;
            found.extend(step.events.iter().filter_map(|event| self.checked(event)));
            if found.len() >= COUNTERSIGNED_MAX {
                self.record(std::mem::take(&mut found), position).await?;
                *through = Some(position);
            }
        }
        if !found.is_empty() {
            self.record(found, position).await?;
        }
        *through = Some(position);
        Ok(())
    }

    /// Records what is about to be removed. Answers whether that is on the disk.
    pub async fn removed(&self, removed: Removed) -> bool {
        let through_cursor = self.through.lock().await.unwrap_or(0);
        let custody = Custody { countersigned: Vec::new(), through_cursor, removed: Some(removed) };
        self.store(custody).await.is_ok()
    }

    /// How far earlier runs have come.
    async fn before(&self) -> Result<u64, CustodyError> {
        let host = self.author.host().to_owned();
        let kinds = vec![Kind::Custody.into()];
        let filter = Filter { hosts: vec![host], kinds, ..Filter::default() };
        let Ok(own) = Condition::new(Some(&filter)) else { return Ok(0) };
        let last = self.readers.last(&Operator::collector(), Arc::new(own)).await?;
        Ok(last.and_then(|event| event.custody).map_or(0, |custody| custody.through_cursor))
    }

    /// A checkpoint of an agent whose signature holds. One whose signature does not is left alone:
    /// whoever verifies is told.
    fn checked(&self, event: &Event) -> Option<Countersigned> {
        if event.host == self.author.host() {
            return None;
        }
        let (host, cursor) = (event.host.clone(), event.cursor);
        match Signed::open(event.checkpoint.as_ref()?) {
            Ok(Signed { statement, sha256, .. }) => Some(Countersigned {
                host,
                number: statement.number,
                statement_sha256: sha256.to_vec(),
                cursor,
            }),
            Err(error) => {
                tracing::error!(host, cursor, %error, "a checkpoint of an agent is not sound");
                None
            }
        }
    }

    async fn record(
        &self,
        countersigned: Vec<Countersigned>,
        through_cursor: u64,
    ) -> Result<(), WriteError> {
        self.store(Custody { countersigned, through_cursor, removed: None }).await
    }

    async fn store(&self, custody: Custody) -> Result<(), WriteError> {
        let event =
            Event { kind: Kind::Custody.into(), custody: Some(custody), ..Event::default() };
        self.author.store(event).await
    }
}
