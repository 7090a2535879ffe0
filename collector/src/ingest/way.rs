//! Where batches go when they are checked.

use tokio::sync::oneshot;

use crate::nats::Publisher;
use crate::store::{Batch, WriteError, Writer, Written};

/// One of two ways, for all batches.
#[derive(Clone, Debug)]
pub enum Way {
    /// To this collector's own store.
    Store(Writer),
    /// To the bus, from which every other collector stores them, and to the own store.
    Bus(Publisher, Writer),
}

impl Way {
    /// Sends a batch, waiting for room; the receiver then says what became of it: how many events
    /// were new.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn submit(&self, batch: Batch) -> Result<Written, WriteError> {
        match self {
            Way::Store(writer) => writer.submit(batch).await,
            Way::Bus(publisher, writer) => {
                // Nothing is stored here that the bus does not even begin to take.
                let published = publisher.submit(batch.clone()).await?;
                let stored = writer.submit(batch).await?;
                Ok(both(stored, published))
            }
        }
    }
}

/// Whether both have a batch. What comes back from the bus is known by then.
fn both(stored: Written, published: Written) -> Written {
    let (answer, written) = oneshot::channel();
    tokio::spawn(async move {
        let stored = stored.await.unwrap_or(Err(WriteError::Stopping));
        let published = published.await.unwrap_or(Err(WriteError::Stopping));
        // The stream may have gone; the events are kept all the same.
        let _ = answer.send(stored.and_then(|new| published.map(|_| new)));
    });
    written
}
