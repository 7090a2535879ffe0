//! Where batches go when they are checked.

use crate::nats::Publisher;
use crate::store::{Batch, WriteError, Writer, Written};

/// One of two ways, for all batches.
#[derive(Clone, Debug)]
pub enum Way {
    /// To this collector's own store.
    Store(Writer),
    /// To the bus, from which every collector stores them, this one too.
    Bus(Publisher),
}

impl Way {
    /// Sends a batch, waiting for room; the receiver then says what became of it: how many events
    /// were new, or on the bus, which does not know, how many there were.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn submit(&self, batch: Batch) -> Result<Written, WriteError> {
        match self {
            Way::Store(writer) => writer.submit(batch).await,
            Way::Bus(publisher) => publisher.submit(batch).await,
        }
    }
}
