//! Messages of the stream, into this collector's store.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::consumer::pull::MessagesErrorKind;
use async_nats::jetstream::message::{Acker, Message};
use futures_util::TryStreamExt as _;
use rangemap::RangeInclusiveSet;
use thiserror::Error;

use super::meter::Meter;
use super::parcel::{Parcel, ParcelError};
use crate::identity::check_name;
use crate::ingest::{BatchError, check_batch};
use crate::limits::{BUS_AGAIN, BUS_FETCH_MAX, BUS_FULL_PAUSE, BUS_HEARTBEAT, BUS_LATER};
use crate::store::{Batch, WriteError, Writer, Written};

/// Stores what comes.
#[derive(Clone, Debug)]
pub struct Taker {
    pub writer: Writer,
    pub meter: Meter,
    pub taken: Taken,
}

/// Messages that this process has stored, by their number in the stream.
#[derive(Clone, Debug, Default)]
pub struct Taken(Arc<Mutex<RangeInclusiveSet<u64>>>);

impl Taken {
    fn lock(&self) -> MutexGuard<'_, RangeInclusiveSet<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more.
    pub fn note(&self, sequence: u64) {
        self.lock().insert(sequence..=sequence);
    }

    /// The first from `from` up to `last` that is not among them.
    pub fn not_yet(&self, from: u64, last: u64) -> Option<u64> {
        let sequences = self.lock();
        (from <= last)
            .then(|| sequences.gaps(&(from..=last)).next())
            .flatten()
            .map(|it| *it.start())
    }

    /// Those before `first` are of no interest any more.
    pub fn forget_before(&self, first: u64) {
        if let Some(last) = first.checked_sub(1) {
            self.lock().remove(0..=last);
        }
    }

    /// None of them is.
    pub fn forget_all(&self) {
        self.lock().clear();
    }
}

/// Why nothing comes any more.
#[derive(Debug)]
pub enum End {
    /// The consumer is not there any more: what comes to the stream now is not kept for us.
    Deleted,
    /// Anything else.
    Broken(String),
}

/// A message that is not stored.
#[derive(Debug, Error)]
pub(super) enum Unsound {
    /// No collector can have sent it.
    #[error(transparent)]
    Parcel(#[from] ParcelError),
    /// Nor this.
    #[error("it is of no host")]
    Host,
    /// One of a later version may have sent it: it is kept for a later version here.
    #[error("of {host}: {error}")]
    Batch { host: String, error: BatchError },
}

impl Taker {
    /// Stores until the consumer ends, which says why. A message is acknowledged after the commit;
    /// one that cannot be stored comes again.
    pub async fn run(&self, consumer: &PullConsumer) -> End {
        let messages = consumer
            .stream()
            .max_messages_per_batch(BUS_FETCH_MAX)
            .heartbeat(BUS_HEARTBEAT)
            .messages()
            .await;
        let mut messages = match messages {
            Ok(messages) => messages,
            Err(error) => return End::Broken(error.to_string()),
        };
        loop {
            let message = match messages.try_next().await {
                Ok(Some(message)) => message,
                Ok(None) => return End::Broken("the consumer has ended".to_owned()),
                Err(error) if error.kind() == MessagesErrorKind::ConsumerDeleted => {
                    return End::Deleted;
                }
                Err(error) => return End::Broken(error.to_string()),
            };
            let info = message.info().map(|info| (info.pending, info.stream_sequence));
            let Ok((pending, sequence)) = info else {
                return End::Broken("a message without a number came".to_owned());
            };
            self.meter.waiting.set(pending);
            if let Err(error) = self.take(message, sequence).await {
                return End::Broken(error.to_string());
            }
        }
    }

    /// Hands a message to the writer, waiting for room there; the rest happens beside.
    async fn take(&self, message: Message, sequence: u64) -> Result<(), WriteError> {
        let sound = sound(&message.payload);
        let (_, acker) = message.split();
        let batch = match sound {
            Ok(batch) => batch,
            Err(error @ Unsound::Batch { .. }) => {
                tracing::error!(%error, "a message on the bus is not stored here; it stays there");
                self.meter.unreadable.inc();
                answer(&acker, AckKind::Nak(Some(BUS_LATER))).await;
                return Ok(());
            }
            Err(error) => {
                tracing::error!(%error, "a message on the bus is no collector's, and is left out");
                self.meter.unreadable.inc();
                answer(&acker, AckKind::Term).await;
                return Ok(());
            }
        };
        match self.writer.submit(batch).await {
            Ok(written) => {
                tokio::spawn(stored(written, acker, sequence, self.clone()));
                Ok(())
            }
            Err(error) => {
                answer(&acker, again()).await;
                Err(error)
            }
        }
    }
}

async fn stored(written: Written, acker: Acker, sequence: u64, taker: Taker) {
    match written.await.unwrap_or(Err(WriteError::Stopping)) {
        Ok(_) => {
            taker.meter.taken.inc();
            // What is not known to be answered is looked for in the stream.
            match acker.double_ack().await {
                Ok(()) => taker.taken.note(sequence),
                Err(error) => tracing::warn!(%error, sequence, "{UNANSWERED}"),
            }
        }
        // The writer has logged it.
        Err(WriteError::Stopping) => answer(&acker, again()).await,
        Err(_) => answer(&acker, AckKind::Nak(Some(BUS_FULL_PAUSE))).await,
    }
}

fn again() -> AckKind {
    AckKind::Nak(Some(BUS_AGAIN))
}

const UNANSWERED: &str = "the bus could not be answered; the message comes again";

/// An answer that is lost makes the message come again, and the store has its events already.
async fn answer(acker: &Acker, kind: AckKind) {
    if let Err(error) = acker.ack_with(kind).await {
        tracing::warn!(%error, "{UNANSWERED}");
    }
}

/// The batch in a message, checked.
pub(super) fn sound(payload: &[u8]) -> Result<Batch, Unsound> {
    let Parcel { host, events } = Parcel::unpack(payload)?;
    if check_name(&host).is_err() {
        return Err(Unsound::Host);
    }
    match check_batch(0, events) {
        Ok(entries) => Ok(Batch { host, entries }),
        Err(error) => Err(Unsound::Batch { host, error }),
    }
}
