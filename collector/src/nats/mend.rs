//! What the bus has and has forgotten to give.
//!
//! When its servers die and change their leaders, NATS can lose what it noted of a consumer: a
//! message stays in the stream and is given to nobody any more, as if it had been answered (seen
//! with 2.9.10 on busy disks: 80 messages in the stream, given, not acknowledged, and nothing noted
//! as unanswered). So each collector looks now and then for what it was given a while ago and what is
//! still there. Mostly it has it, and waits like everybody for one that is away.
//!
//! What is found is stored at once and answered later: a message that no consumer is noted to wait for
//! leaves the stream with the first answer, and the other collectors may have been given it as little.
//! What a consumer forgot before the others answered is in the stream no more, and is not found.

use std::collections::VecDeque;
use std::convert::Infallible;

use async_nats::jetstream::Context;
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use tokio::time::{self, Instant};

use super::take::{Taker, sound};
use crate::limits::{BUS_AGAIN, BUS_MEND_INTERVAL, BUS_MEND_LEFT, BUS_MEND_LEFT_MAX, BUS_MEND_MAX};
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
    /// When it looks again.
    next: Instant,
    /// What it has stored and not answered yet, and when it stored it.
    left: VecDeque<(Instant, u64)>,
}

impl<'a> Mender<'a> {
    /// Of a consumer of all of `subject`.
    pub fn new(
        stream: &'a str,
        subject: String,
        consumer: &'a str,
        taker: &'a Taker,
    ) -> Mender<'a> {
        // The first time it only notes what was given.
        let (next, left) = (Instant::now(), VecDeque::new());
        Mender { stream, subject, consumer, taker, given: 0, looked_at: 0, next, left }
    }

    /// Looks again and again. It may be dropped at any time and called again.
    pub async fn run(&mut self, context: &Context) -> Infallible {
        loop {
            time::sleep_until(self.next).await;
            self.next = Instant::now() + BUS_MEND_INTERVAL;
            let looked = async {
                if self.look(context).await? {
                    self.next = Instant::now() + BUS_AGAIN;
                }
                self.answer(context).await
            };
            if let Err(error) = looked.await {
                tracing::warn!(error, "whether the bus forgot something cannot be seen now");
            }
        }
    }

    /// Answers whether there is more to look at.
    async fn look(&mut self, context: &Context) -> Result<bool, String> {
        let stream = context.get_stream(self.stream).await.map_err(|error| error.to_string())?;
        let first = stream.cached_info().state.first_sequence;
        let consumer = stream.consumer_info(self.consumer).await;
        let given = consumer.map_err(|error| error.to_string())?.delivered.stream_sequence;
        if given < self.given {
            // It is another stream of that name.
            (self.given, self.looked_at) = (0, 0);
            self.left.clear();
            self.taker.taken.forget_all();
        }
        self.taker.taken.forget_before(first);
        for _ in 0..BUS_MEND_MAX {
            let from = first.max(self.looked_at + 1);
            let Some(from) = self.taker.taken.not_yet(from, self.given) else {
                self.looked_at = self.given;
                self.given = given;
                return Ok(false);
            };
            if self.left.len() >= BUS_MEND_LEFT_MAX {
                return Ok(false);
            }
            match stream.get_first_raw_message_by_subject(&self.subject, from).await {
                Ok(message) if message.sequence == from => {
                    self.store(message).await?;
                    self.looked_at = from;
                }
                // Others had it, and it is gone.
                Ok(message) => self.looked_at = self.given.min(message.sequence - 1),
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {
                    self.looked_at = self.given;
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(true)
    }

    /// Stores a message unless its events are known.
    async fn store(&mut self, message: StreamMessage) -> Result<(), String> {
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
        self.taker.taken.note(sequence);
        self.left.push_back((Instant::now(), sequence));
        Ok(())
    }

    /// Acknowledges, as if it had just come, what was left to the others for long enough.
    async fn answer(&mut self, context: &Context) -> Result<(), String> {
        let Mender { stream, consumer, .. } = *self;
        while let Some((stored, sequence)) = self.left.front()
            && stored.elapsed() >= BUS_MEND_LEFT
        {
            // Deliveries, number in the stream, number in the consumer, time, messages that wait.
            // The consumer has no message 0: what it notes of others stays as it is.
            let subject = format!("$JS.ACK.{stream}.{consumer}.1.{sequence}.0.0.0");
            let acknowledged = context.client().request(subject, "+ACK".into()).await;
            acknowledged.map_err(|error| error.to_string())?;
            self.left.pop_front();
        }
        Ok(())
    }
}
