//! Checked batches on their way to the stream.

use std::sync::{Arc, Mutex, PoisonError};

use async_nats::connection::State;
use async_nats::jetstream::Context;
use async_nats::jetstream::message::PublishMessage;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::meter::Meter;
use super::parcel::Parcel;
use crate::limits::{BUS_FLIGHT_BYTES_MAX, BUS_TOLD_INTERVAL, PARCEL_BYTES_MAX};
use crate::store::{Batch, WriteError, Written};

/// Publishes. Every clone uses the same connection, and the same room for what is on its way.
#[derive(Clone, Debug)]
pub struct Publisher {
    /// Or why there is none.
    context: watch::Receiver<Result<Context, String>>,
    stream: Arc<str>,
    subject: Arc<str>,
    /// In KiB.
    room: Arc<Semaphore>,
    meter: Meter,
    troubles: Troubles,
}

/// Says what is refused, and not each time: all agents try again.
#[derive(Clone, Debug, Default)]
struct Troubles(Arc<Mutex<Option<Instant>>>);

impl Troubles {
    fn tell(&self, why: &str) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= BUS_TOLD_INTERVAL) {
            *last = Some(Instant::now());
            tracing::warn!(why, "the bus does not take a batch; agents keep what they have");
        }
    }
}

impl Publisher {
    pub(super) fn new(
        context: watch::Receiver<Result<Context, String>>,
        stream: &str,
        subject: &str,
        meter: Meter,
    ) -> Publisher {
        let room = Arc::new(Semaphore::new(BUS_FLIGHT_BYTES_MAX >> 10));
        let (stream, subject) = (stream.into(), subject.into());
        Publisher { context, stream, subject, room, meter, troubles: Troubles::default() }
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
                    self.troubles.tell(&why);
                    return Err(WriteError::Bus(why));
                }
            }
        }
        let (meter, troubles) = (self.meter.clone(), self.troubles.clone());
        tokio::spawn(async move {
            let mut result = Ok(count);
            for one in sent {
                let acknowledged = one.await.unwrap_or_else(|error| Err(error.to_string()));
                result = acknowledged.and(result);
            }
            match &result {
                Ok(_) => _ = meter.published.inc(),
                Err(why) => {
                    meter.refused.inc();
                    troubles.tell(why);
                }
            }
            let result = result.map_err(WriteError::Bus);
            // The stream may have gone; the batch is kept all the same.
            let _ = answer.send(result);
        });
        Ok(written)
    }

    /// What was sent is waited for at once, beside: otherwise batches that are half sent would hold
    /// the room that they themselves wait for.
    async fn send(&self, parcel: &Parcel) -> Result<Sent, String> {
        let packed = parcel.pack().map_err(|error| error.to_string())?;
        let size = packed.len().min(PARCEL_BYTES_MAX as usize).div_ceil(1024);
        let room = Arc::clone(&self.room).acquire_many_owned(u32::try_from(size).unwrap_or(1));
        let room = room.await.map_err(|error| error.to_string())?;
        let context = self.context.borrow().clone()?;
        // What is handed over meanwhile would wait in memory, and come twice in the end.
        if context.client().connection_state() != State::Connected {
            return Err("it is not connected".to_owned());
        }
        let message = PublishMessage::build().payload(packed).expected_stream(&self.stream);
        let sent = context.send_publish(self.subject.to_string(), message).await;
        let acknowledged = sent.map_err(|error| error.to_string())?;
        Ok(tokio::spawn(async move {
            let answer = acknowledged.await;
            drop(room);
            answer.map(|_| ()).map_err(|error| error.to_string())
        }))
    }
}

/// A message that was sent: whether the stream has it.
type Sent = JoinHandle<Result<(), String>>;
