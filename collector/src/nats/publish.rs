//! Checked batches on their way to the stream.

use std::sync::Arc;

use async_nats::jetstream::Context;
use async_nats::jetstream::context::PublishAckFuture;
use async_nats::jetstream::message::PublishMessage;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::meter::Meter;
use super::parcel::Parcel;
use crate::limits::{BUS_FLIGHT_BYTES_MAX, PARCEL_BYTES_MAX};
use crate::store::{Batch, WriteError, Written};

/// Publishes. Every clone uses the same connection, and the same room for what is on its way.
#[derive(Clone, Debug)]
pub struct Publisher {
    /// Or why there is none.
    context: watch::Receiver<Result<Context, String>>,
    subject: Arc<str>,
    /// In KiB.
    room: Arc<Semaphore>,
    meter: Meter,
}

impl Publisher {
    pub(super) fn new(
        context: watch::Receiver<Result<Context, String>>,
        subject: &str,
        meter: Meter,
    ) -> Publisher {
        let room = Arc::new(Semaphore::new(BUS_FLIGHT_BYTES_MAX >> 10));
        Publisher { context, subject: subject.into(), room, meter }
    }

    /// Publishes a batch, waiting for room; the receiver says when the stream has it. Batches of one
    /// caller reach the stream in their order.
    ///
    /// # Errors
    /// [`WriteError::Bus`] when the bus is not connected.
    pub async fn submit(&self, batch: Batch) -> Result<Written, WriteError> {
        let (answer, written) = oneshot::channel();
        let count = u32::try_from(batch.entries.len()).unwrap_or(u32::MAX);
        let mut sent = Vec::new();
        for parcel in Parcel::of(batch) {
            match self.send(&parcel).await {
                Ok(one) => sent.push(one),
                Err(why) => {
                    self.meter.refused.inc();
                    return Err(WriteError::Bus(why));
                }
            }
        }
        let meter = self.meter.clone();
        tokio::spawn(async move {
            let mut result = Ok(count);
            for Sent { acknowledged, _room } in sent {
                if let Err(error) = acknowledged.await {
                    result = Err(WriteError::Bus(error.to_string()));
                }
            }
            match result {
                Ok(_) => meter.published.inc(),
                Err(_) => meter.refused.inc(),
            };
            // The stream may have gone; the batch is kept all the same.
            let _ = answer.send(result);
        });
        Ok(written)
    }

    async fn send(&self, parcel: &Parcel) -> Result<Sent, String> {
        let packed = parcel.pack().map_err(|error| error.to_string())?;
        let size = packed.len().min(PARCEL_BYTES_MAX as usize).div_ceil(1024);
        let room = Arc::clone(&self.room).acquire_many_owned(u32::try_from(size).unwrap_or(1));
        let room = room.await.map_err(|error| error.to_string())?;
        let context = self.context.borrow().clone()?;
        let message = PublishMessage::build().payload(packed);
        let sent = context.send_publish(self.subject.to_string(), message).await;
        let acknowledged = sent.map_err(|error| error.to_string())?;
        Ok(Sent { acknowledged, _room: room })
    }
}

/// A message that the stream has not answered yet.
struct Sent {
    acknowledged: PublishAckFuture,
    _room: OwnedSemaphorePermit,
}
