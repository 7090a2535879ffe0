//! A message is whole in time, or the call ends.
//!
//! A call is bounded in time up to its first answer. A stream of messages is answered at once and
//! may then be open for ever, and what there is of a message whose rest does not come would be kept
//! as long. Here it is watched where messages begin and end: each is behind a byte of flags and four
//! of its length (gRPC over HTTP/2, "Length-Prefixed-Message").

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tonic::Status;

use crate::limits::MESSAGE_TIME_MAX;

/// Bytes before a message.
const PREFIX_BYTES: u64 = 5;

/// The body of a call.
#[derive(Debug)]
pub struct InTime<B> {
    body: B,
    messages: Messages,
    /// For one message.
    time: Duration,
    /// Of the message that is waited for. Time in which nobody reads the body does not count.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<B> InTime<B> {
    /// Watches a body.
    pub const fn new(body: B) -> InTime<B> {
        InTime::within(body, MESSAGE_TIME_MAX)
    }

    const fn within(body: B, time: Duration) -> InTime<B> {
        InTime { body, messages: Messages { begun: 0, length: 0 }, time, deadline: None }
    }
}

impl<B: Body<Data = Bytes, Error = Status> + Unpin> Body for InTime<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame)))
                if frame.data_ref().is_some_and(|bytes| this.messages.pass(bytes)) =>
            {
                this.deadline = None;
            }
            Poll::Pending if this.messages.begun > 0 => {
                let new = || Box::pin(sleep(this.time));
                if this.deadline.get_or_insert_with(new).as_mut().poll(context).is_ready() {
                    this.deadline = None;
                    return Poll::Ready(Some(Err(late(this.time))));
                }
            }
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn late(time: Duration) -> Status {
    Status::deadline_exceeded(format!("a message was begun and not ended within {time:?}"))
}

/// Where messages begin and end.
#[derive(Debug)]
struct Messages {
    /// Bytes of the message that came so far, with those before it.
    begun: u64,
    /// The message's own, as far as it is known.
    length: u32,
}

impl Messages {
    /// The next bytes; answers whether a message ended among them.
    fn pass(&mut self, mut bytes: &[u8]) -> bool {
        let mut ended = false;
        while let Some((first, rest)) = bytes.split_first() {
            match self.begun {
                0 => self.length = 0,
                1..PREFIX_BYTES => self.length = self.length << 8 | u32::from(*first),
                _ => {
                    let missing = u64::from(self.length) + PREFIX_BYTES - self.begun;
                    let count = usize::try_from(missing).unwrap_or(usize::MAX).min(bytes.len());
                    self.begun += count as u64;
                    bytes = bytes.get(count..).unwrap_or_default();
                    ended |= self.end();
                    continue;
                }
            }
            self.begun += 1;
            bytes = rest;
            ended |= self.end();
        }
        ended
    }

    fn end(&mut self) -> bool {
        let whole = self.begun >= PREFIX_BYTES + u64::from(self.length);
        if whole {
            self.begun = 0;
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use http_body_util::{BodyExt as _, StreamBody};
    use proptest::prelude::*;
    use tokio::sync::mpsc;
    use tokio::time::timeout;
    use tokio_stream::StreamExt as _;
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let length_bytes = u32::try_from(length).unwrap().to_be_bytes();
        [&[0][..], &length_bytes, &vec![7; length]].concat()
    }

    proptest! {
        #[test]
        fn ends_are_where_messages_end(
            lengths in prop::collection::vec(0..600_usize, 1..6),
            pieces in prop::collection::vec(1..300_usize, 1..40),
        ) {
            let bytes: Vec<u8> = lengths.iter().flat_map(|it| message(*it)).collect();
            let ends: Vec<usize> = lengths
                .iter()
                .scan(0, |end, length| {
                    *end += 5 + length;
                    Some(*end)
                })
                .collect();
            let (mut messages, mut at) = (Messages { begun: 0, length: 0 }, 0);
            for piece in pieces {
                let next = (at + piece).min(bytes.len());
                let ended = messages.pass(&bytes[at..next]);
                prop_assert_eq!(ended, ends.iter().any(|end| (at + 1..=next).contains(end)));
                prop_assert_eq!(messages.begun == 0, next == 0 || ends.contains(&next));
                at = next;
            }
        }
    }

    const TIME: Duration = Duration::from_millis(300);

    /// A body, and what puts bytes into it.
    fn body() -> (mpsc::Sender<Vec<u8>>, InTime<impl Body<Data = Bytes, Error = Status> + Unpin>) {
        let (sender, receiver) = mpsc::channel::<Vec<u8>>(8);
        let frames = ReceiverStream::new(receiver);
        let frames = frames.map(|bytes| Ok::<_, Status>(Frame::data(Bytes::from(bytes))));
        (sender, InTime::within(StreamBody::new(frames), TIME))
    }

    #[tokio::test]
    async fn a_message_that_does_not_end_ends_the_call_and_silence_between_messages_does_not() {
        let (sender, mut body) = body();
        sender.send(message(10)).await.unwrap();
        body.frame().await.unwrap().unwrap();
        let silence = timeout(3 * TIME, body.frame()).await;
        assert!(silence.is_err(), "no message is awaited, and nothing ends");
        // A byte now and then is no help.
        let slow = tokio::spawn(async move {
            for byte in message(1000) {
                sender.send(vec![byte]).await.unwrap_or_default();
                sleep(TIME / 10).await;
            }
        });
        let status = loop {
            match body.frame().await.unwrap() {
                Ok(frame) => assert_eq!(frame.into_data().unwrap().len(), 1),
                Err(status) => break status,
            }
        };
        assert_eq!(status.message(), "a message was begun and not ended within 300ms");
        slow.abort();
    }

    #[tokio::test]
    async fn nobody_is_late_while_nobody_reads() {
        let (sender, mut body) = body();
        let whole = message(10);
        sender.send(whole[..9].to_vec()).await.unwrap();
        body.frame().await.unwrap().unwrap();
        sleep(3 * TIME).await;
        sender.send(whole[9..].to_vec()).await.unwrap();
        assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap().len(), 6);
    }
}
