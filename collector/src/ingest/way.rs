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
                if writer.is_failing() {
                    return first_stored(publisher.clone(), writer, batch).await;
                }
                // Nothing is stored here that the bus does not even begin to take.
                let published = publisher.submit(batch.clone()).await?;
                let stored = writer.submit(batch).await?;
                Ok(both(stored, published))
            }
        }
    }
}

/// Publishes only what was stored: agents send again and again what a full disk refuses, and each time
/// it would lie on the bus once more, until that is full for all collectors.
async fn first_stored(
    publisher: Publisher,
    writer: &Writer,
    batch: Batch,
) -> Result<Written, WriteError> {
    let stored = writer.submit(batch.clone()).await?;
    let (answer, written) = oneshot::channel();
    tokio::spawn(async move {
        let result = async {
            let new = stored.await.unwrap_or(Err(WriteError::Stopping))?;
            let published = publisher.submit(batch).await?;
            published.await.unwrap_or(Err(WriteError::Stopping)).map(|_| new)
        };
        // The stream may have gone; the events are kept all the same.
        let _ = answer.send(result.await);
    });
    Ok(written)
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
