//! Messages of the stream, into this collector's store.

use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::message::{Acker, Message};
use futures_util::TryStreamExt as _;
use thiserror::Error;

use super::meter::Meter;
use super::parcel::{Parcel, ParcelError};
use crate::ingest::{BatchError, check_batch};
use crate::limits::{BUS_AGAIN, BUS_FETCH_MAX, BUS_HEARTBEAT};
use crate::store::{Batch, WriteError, Writer, Written};

/// Stores what comes.
#[derive(Clone, Debug)]
pub struct Taker {
    pub writer: Writer,
    pub meter: Meter,
}

/// A message that no collector can have sent.
#[derive(Debug, Error)]
enum Unsound {
    #[error(transparent)]
    Parcel(#[from] ParcelError),
    #[error("it has no host")]
    Host,
    #[error(transparent)]
    Batch(#[from] BatchError),
}

impl Taker {
    /// Stores until the consumer ends, which says why. A message is acknowledged after the commit;
    /// one that cannot be stored comes again.
    pub async fn run(&self, consumer: &PullConsumer) -> String {
        let messages = consumer
            .stream()
            .max_messages_per_batch(BUS_FETCH_MAX)
            .heartbeat(BUS_HEARTBEAT)
            .messages()
            .await;
        let mut messages = match messages {
            Ok(messages) => messages,
            Err(error) => return error.to_string(),
        };
        loop {
            let message = match messages.try_next().await {
                Ok(Some(message)) => message,
                Ok(None) => return "the consumer has ended".to_owned(),
                Err(error) => return error.to_string(),
            };
            if let Ok(info) = message.info() {
                self.meter.waiting.set(info.pending);
            }
            if let Err(error) = self.take(message).await {
                return error.to_string();
            }
        }
    }

    /// Hands a message to the writer, waiting for room there; the rest happens beside.
    async fn take(&self, message: Message) -> Result<(), WriteError> {
        let sound = sound(&message);
        let (_, acker) = message.split();
        let batch = match sound {
            Ok(batch) => batch,
            Err(error) => {
                tracing::error!(%error, "a message on the bus is no collector's, and is left out");
                self.meter.unreadable.inc();
                answer(&acker, AckKind::Term).await;
                return Ok(());
            }
        };
        match self.writer.submit(batch).await {
            Ok(written) => {
                tokio::spawn(stored(written, acker, self.meter.clone()));
                Ok(())
            }
            Err(error) => {
                answer(&acker, again()).await;
                Err(error)
            }
        }
    }
}

async fn stored(written: Written, acker: Acker, meter: Meter) {
    match written.await.unwrap_or(Err(WriteError::Stopping)) {
        Ok(_) => {
            meter.taken.inc();
            answer(&acker, AckKind::Ack).await;
        }
        // The writer has logged it.
        Err(_) => answer(&acker, again()).await,
    }
}

fn again() -> AckKind {
    AckKind::Nak(Some(BUS_AGAIN))
}

/// An answer that is lost makes the message come again, and the store has its events already.
async fn answer(acker: &Acker, kind: AckKind) {
    if let Err(error) = acker.ack_with(kind).await {
        tracing::warn!(%error, "the bus could not be answered; the message comes again");
    }
}

fn sound(message: &Message) -> Result<Batch, Unsound> {
    let Parcel { host, events } = Parcel::unpack(&message.payload)?;
    if host.is_empty() {
        return Err(Unsound::Host);
    }
    Ok(Batch { host, entries: check_batch(0, events)? })
}
