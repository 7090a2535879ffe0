//! What operators do becomes a record, before they have what it gives them.
//!
//! The collector is the author ([`crate::author`]).

use jiff::Timestamp;
use sekimori_proto::v1::{ActPhase, Event, HostChange, Kind, OperatorAct};
use tonic::Status;

use crate::author::Author;
use crate::desk::{Note, Phase};
use crate::identity::{Operator, Rank};
use crate::store::WriteError;

/// Writes the records.
#[derive(Clone, Debug)]
pub struct Audit {
    author: Author,
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
    /// Records through the collector's author.
    pub fn new(author: Author) -> Audit {
        Audit { author }
    }

    /// The host of these records.
    pub fn host(&self) -> &str {
        self.author.host()
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
        let event = Event { kind: Kind::Operator.into(), act: Some(act), ..Event::default() };
        self.author.store(event).await.map_err(|error| {
            tracing::error!(%operator, %error, "what an operator does cannot be recorded");
            let reason = format!("what you read cannot be recorded, so nothing is shown: {error}");
            match error {
                WriteError::Full => Status::resource_exhausted(reason),
                WriteError::Failed(_) | WriteError::Bus(_) | WriteError::Stopping => {
                    Status::unavailable(reason)
                }
            }
        })
    }

    /// Stores what was done without the collector, on its machine: root and its own user are admins
    /// there.
    ///
    /// # Errors
    /// When it cannot be stored.
    pub async fn noted(&self, note: Note, done: Timestamp) -> Result<(), WriteError> {
        let Note { by: name, method, question, answered, phase } = note;
        let role = Rank::Admin.to_string();
        let phase = match phase {
            Phase::Whole => ActPhase::Unspecified,
            Phase::Begin => ActPhase::Begin,
            Phase::End => ActPhase::End,
        };
        let (address, phase) = (String::new(), phase.into());
        let act = OperatorAct { name, role, method, question, answered, address, phase };
        let message = format!("on the collector's machine, at {done}");
        let kind = Kind::Operator.into();
        let event = Event { kind, act: Some(act), message, ..Event::default() };
        self.author.store(event).await
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
        let event = |change| {
            let kind = Kind::Host.into();
            Event { kind, host_change: Some(change), ..Event::default() }
        };
        self.author.store_all(changes.into_iter().map(event).collect()).await
    }
}
