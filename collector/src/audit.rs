//! What operators do becomes a record, before they have what it gives them.
//!
//! The collector is the author ([`crate::author`]).

use sekimori_proto::v1::{ActPhase, Event, HostChange, Kind, OperatorAct};
use tonic::Status;

use crate::author::Author;
use crate::identity::Operator;
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
