//! What operators do becomes a record, before they have what it gives them.
//!
//! The collector is the author: its records have a host of their own ([`Agent::collector`]), a boot
//! for each run, and sequences from 1, as an agent's. They go the way of all events, through the
//! one writer, and are read as all others are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use prost::Message as _;
use sekimori_proto::v1::{ActPhase, Event, HostChange, Kind, OperatorAct, Verdict};
use thiserror::Error;
use tonic::Status;

use crate::identity::{Agent, Operator};
use crate::limits::BOOT_BYTES;
use crate::store::{Batch, Entry, WriteError, Writer};

/// The system gives no random bytes.
#[derive(Clone, Copy, Debug, Error)]
#[error("the system gives no random bytes for the boot of the collector's own records: {0}")]
pub struct AuditError(getrandom::Error);

/// Writes the records.
#[derive(Clone, Debug)]
pub struct Audit {
    writer: Writer,
    collector: Agent,
    boot: [u8; BOOT_BYTES],
    /// Number of the last record. A record that could not be stored leaves a gap.
    sequence: Arc<AtomicU64>,
}

/// What an operator did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    /// The call.
    pub method: &'static str,
    /// What they asked for, in words.
    pub question: String,
    /// Events, or groups of them, that they are given.
    pub answered: u64,
    /// Which part of the answer it is.
    pub phase: ActPhase,
}

impl Audit {
    /// Begins the records of one run.
    ///
    /// # Errors
    /// [`AuditError`].
    pub fn new(writer: Writer) -> Result<Audit, AuditError> {
        let mut boot = [0; BOOT_BYTES];
        getrandom::fill(&mut boot).map_err(AuditError)?;
        Ok(Audit { writer, collector: Agent::collector(), boot, sequence: Arc::default() })
    }

    /// The host of these records.
    pub fn host(&self) -> &str {
        self.collector.name()
    }

    /// Stores what `operator` did; it is on the disk when this returns.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` or `UNAVAILABLE` when it cannot be stored: then nothing may be answered.
    pub async fn record(&self, operator: &Operator, act: Act) -> Result<(), Status> {
        let act = OperatorAct {
            name: operator.name().to_owned(),
            role: operator.rank().to_string(),
            method: act.method.to_owned(),
            question: act.question,
            answered: act.answered,
            address: operator.address().map(|it| it.to_string()).unwrap_or_default(),
            phase: act.phase.into(),
        };
        let event = Event { act: Some(act), ..self.event(Kind::Operator) };
        self.store(vec![event]).await.map_err(|error| {
            tracing::error!(%operator, %error, "what an operator does cannot be recorded");
            let reason = format!("what you read cannot be recorded, so nothing is shown: {error}");
            match error {
                WriteError::Full => Status::resource_exhausted(reason),
                WriteError::Failed(_) | WriteError::Stopping => Status::unavailable(reason),
            }
        })
    }

    /// Stores what became of a host or a certificate; it is on the disk when this returns.
    ///
    /// # Errors
    /// When it cannot be stored.
    pub async fn change(&self, change: HostChange) -> Result<(), WriteError> {
        self.changes(vec![change]).await
    }

    /// The same for many, in one commit.
    ///
    /// # Errors
    /// When they cannot be stored: then none is.
    pub async fn changes(&self, changes: Vec<HostChange>) -> Result<(), WriteError> {
        let event = |change| Event { host_change: Some(change), ..self.event(Kind::Host) };
        self.store(changes.into_iter().map(event).collect()).await
    }

    /// A record without what it is about.
    fn event(&self, kind: Kind) -> Event {
        Event {
            boot: self.boot.to_vec(),
            sequence: self.sequence.fetch_add(1, Ordering::Relaxed).saturating_add(1),
            time_ns: i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX),
            kind: kind.into(),
            verdict: Verdict::Allowed.into(),
            ..Event::default()
        }
    }

    /// The one place where records are handed to the store.
    async fn store(&self, events: Vec<Event>) -> Result<(), WriteError> {
        let entry = |event: &Event| Entry::new(event, event.encode_to_vec().into());
        let entries: Option<Vec<Entry>> = events.iter().map(entry).collect();
        let entries = entries.ok_or_else(|| WriteError::Failed("its boot is none".to_owned()))?;
        let written = self.writer.submit(Batch::new(&self.collector, entries)).await?;
        written.await.unwrap_or(Err(WriteError::Stopping)).map(|_| ())
    }
}
