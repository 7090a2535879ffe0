//! What the bus has and has forgotten to give.
//!
//! When its servers die and change their leaders, NATS can lose what it noted of a consumer: a
//! message stays in the stream and is given to nobody any more, as if it had been answered (seen
//! with 2.9.10 on busy disks: 80 messages in the stream, given, not acknowledged, and nothing noted
//! as unanswered). So each collector looks now and then for what it was given a while ago and what is
//! still there. Mostly it has it, and waits like everybody for one that is away.

use std::convert::Infallible;

use async_nats::jetstream::Context;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use tokio::time;

use super::take::{Taker, sound};
use crate::limits::{BUS_MEND_INTERVAL, BUS_MEND_MAX};
use crate::store::WriteError;

/// Looks for one consumer.
#[derive(Debug)]
pub struct Mender<'a> {
    stream: &'a str,
    subject: String,
    consumer: &'a str,
    taker: &'a Taker,
    /// The last message that was given when it looked last.
    given: u64,
    /// The last message that it looked at.
    looked_at: u64,
}

impl<'a> Mender<'a> {
    /// Of a consumer of all of `subject`.
    pub fn new(
        stream: &'a str,
        subject: String,
        consumer: &'a str,
        taker: &'a Taker,
    ) -> Mender<'a> {
        Mender { stream, subject, consumer, taker, given: 0, looked_at: 0 }
    }

    /// Looks again and again.
    pub async fn run(&mut self, context: &Context) -> Infallible {
        loop {
            if let Err(error) = self.look(context).await {
                tracing::warn!(error, "whether the bus forgot something cannot be seen now");
            }
            time::sleep(BUS_MEND_INTERVAL).await;
        }
    }

    async fn look(&mut self, context: &Context) -> Result<(), String> {
        let stream = context.get_stream(self.stream).await.map_err(|error| error.to_string())?;
        let first = stream.cached_info().state.first_sequence;
        let consumer = stream.consumer_info(self.consumer).await;
        let given = consumer.map_err(|error| error.to_string())?.delivered.stream_sequence;
        if given < self.given {
            // It is another stream of that name.
            (self.given, self.looked_at) = (0, 0);
        }
        for _ in 0..BUS_MEND_MAX {
            let from = first.max(self.looked_at + 1);
            if from > self.given {
                break;
            }
            match stream.get_first_raw_message_by_subject(&self.subject, from).await {
                Ok(message) if message.sequence <= self.given => {
                    self.looked_at = message.sequence;
                    self.store(context, message).await?;
                }
                Ok(_) => self.looked_at = self.given,
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {
                    self.looked_at = self.given;
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        self.given = given;
        Ok(())
    }

    /// Stores a message unless its events are known, and acknowledges it as if it had just come.
    async fn store(&self, context: &Context, message: StreamMessage) -> Result<(), String> {
        let sequence = message.sequence;
        // Whoever takes what comes has told of it.
        let Ok(batch) = sound(&message.payload) else { return Ok(()) };
        let failed = |error: WriteError| error.to_string();
        let written = self.taker.writer.submit(batch).await.map_err(failed)?;
        let new = written.await.unwrap_or(Err(WriteError::Stopping)).map_err(failed)?;
        if new > 0 {
            tracing::warn!(sequence, new, "the bus forgot to give a message, which is stored now");
            self.taker.meter.mended.inc();
        }
        let Mender { stream, consumer, .. } = self;
        // Deliveries, number in the stream, number in the consumer, time, messages that wait.
        let subject = format!("$JS.ACK.{stream}.{consumer}.1.{sequence}.{sequence}.0.0");
        let acknowledged = context.client().publish(subject, "+ACK".into()).await;
        acknowledged.map_err(|error| error.to_string())
    }
}
