//! `WatchService`: the store as a live stream.
//!
//! A subscriber's task holds one number, the cursor up to which it has looked. It waits until more
//! is committed, reads the matching events behind that number, hands them on, and moves the number.
//! Whether they come from the store or from what was committed last, the number says what is next:
//! there is no hand-over between past and present in which something could be lost or told twice. A
//! subscriber that does not read holds up only its own task.
//!
//! The stream ends for the subscriber only when the record of its end is stored: a collector that
//! stops waits for its streams, and so for these records.

use futures_util::StreamExt as _;
use futures_util::stream::{self, FlatMap};
use sekimori_proto::forward::SubscribeResponse;
use sekimori_proto::forward::watch_service_server::WatchService;
use sekimori_proto::v1::SubscribeRequest;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::access::{Access, Following};
use crate::bus::{Committed, Stop};
use crate::identity::Analyst;
use crate::limits::{
    STOP_TIME_MAX, SUBSCRIBER_CHUNK, SUBSCRIBER_QUEUE_MAX, SUBSCRIBERS_MAX, WATCH_GATHER,
};
use crate::query::gaps;
use crate::question;
use crate::store::{Condition, Encoded};

/// Room for live streams.
#[derive(Clone, Debug)]
pub struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Places {
        Places(Arc::new(Semaphore::new(SUBSCRIBERS_MAX)))
    }
}

impl Places {
    fn take(&self) -> Result<OwnedSemaphorePermit, Status> {
        Arc::clone(&self.0).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!("{SUBSCRIBERS_MAX} live streams are open already"))
        })
    }

    /// Streams that are open.
    pub fn taken(&self) -> usize {
        SUBSCRIBERS_MAX.saturating_sub(self.0.available_permits())
    }

    /// Returns when all streams have ended and are recorded, which they are soon once they are told
    /// to stop.
    pub async fn all_free(&self) {
        let all = u32::try_from(SUBSCRIBERS_MAX).unwrap_or(u32::MAX);
        if time::timeout(STOP_TIME_MAX, self.0.acquire_many(all)).await.is_err() {
            tracing::error!("the end of some live streams is not recorded");
        }
    }
}

/// Serves live streams.
#[derive(Debug)]
pub struct Watch {
    access: Access,
    committed: Committed,
    stop: Stop,
    places: Places,
}

impl Watch {
    /// Reads through `access`, woken by `committed`.
    pub fn new(access: Access, committed: Committed, stop: Stop, places: Places) -> Watch {
        Watch { access, committed, stop, places }
    }
}

type Answer = Result<SubscribeResponse, Status>;
type Answers = Vec<Answer>;
type AnswerStream = FlatMap<
    ReceiverStream<Answers>,
    stream::Iter<std::vec::IntoIter<Answer>>,
    fn(Answers) -> stream::Iter<std::vec::IntoIter<Answer>>,
>;

#[tonic::async_trait]
impl WatchService for Watch {
    type SubscribeStream = AnswerStream;

    async fn subscribe(
        &self,
        request: Request<SubscribeRequest>,
    ) -> Result<Response<AnswerStream>, Status> {
        let analyst = Analyst::of(&request)?;
        let request = request.into_inner();
        let condition = Condition::new(request.filter.as_ref())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let question = question::subscribe(&request)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let committed = self.committed.get();
        if let Some(position) = request.cursor.filter(|position| *position > committed) {
            return Err(Status::out_of_range(format!(
                "cursor {position} is behind the end of the store, whose last is {committed}: it \
                 belongs to another store; begin again with cursor 0 or none"
            )));
        }
        let removed = self.access.removed_up_to();
        // From the beginning is from where it begins by now.
        if let Some(position) = request.cursor.filter(|position| (1..removed).contains(position)) {
            return Err(Status::out_of_range(format!(
                "cursor {position}: the events up to {removed} were kept as long as this collector \
                 keeps them and are gone; begin again with cursor {removed}"
            )));
        }
        let place = self.places.take()?;
        let name = analyst.operator().to_string();
        let following = self.access.follow(analyst, question, condition).await?;
        // "From now on" is behind the record of the stream itself.
        let position = request.cursor.unwrap_or_else(|| self.committed.get());
        tracing::info!(operator = name, position, "live stream is open");
        let (answers, stream) = mpsc::channel(SUBSCRIBER_QUEUE_MAX / SUBSCRIBER_CHUNK);
        let subscriber = Subscriber {
            name,
            following,
            position,
            committed: self.committed.clone(),
            answers,
            _place: place,
        };
        let stop = self.stop.clone();
        tokio::spawn(subscriber.run(stop));
        let each: fn(Answers) -> _ = stream::iter;
        Ok(Response::new(ReceiverStream::new(stream).flat_map(each)))
    }
}

struct Subscriber {
    name: String,
    following: Following,
    /// Everything up to this cursor has been looked at.
    position: u64,
    committed: Committed,
    answers: mpsc::Sender<Answers>,
    _place: OwnedSemaphorePermit,
}

impl Subscriber {
    async fn run(mut self, stop: Stop) {
        // Held until the end is recorded.
        let answers = self.answers.clone();
        let end = tokio::select! {
            end = self.follow() => end,
            () = stop.wanted() => Err(Status::unavailable("the collector is stopping; come again")),
            () = answers.closed() => Ok(()),
        };
        self.following.end().await;
        if let Err(status) = end {
            // When the queue is full the subscriber sees the end of the stream without a reason.
            let _ = answers.try_send(vec![Err(status)]);
        }
        tracing::info!(operator = self.name, "live stream is closed");
    }

    /// Returns when the subscriber has gone, or with what went wrong.
    async fn follow(&mut self) -> Result<(), Status> {
        let mut committed = self.committed.follow();
        loop {
            let more = committed.wait_for(|last| *last > self.position).await;
            more.map_err(|_| Status::unavailable("the store is closed"))?;
            let step = self.following.step(self.position).await?;
            let events = step.events.into_iter().map(|Encoded(it)| (Some(it), None));
            let gaps = gaps(step.gaps).into_iter().map(|it| (None, Some(it)));
            let mut answers = events.chain(gaps).peekable();
            while answers.peek().is_some() {
                let chunk: Vec<_> = answers.by_ref().take(SUBSCRIBER_CHUNK).collect();
                let given = chunk.iter().filter(|(event, _)| event.is_some()).count();
                let chunk =
                    chunk.into_iter().map(|(event, gap)| Ok(SubscribeResponse { event, gap }));
                if self.answers.send(chunk.collect()).await.is_err() {
                    return Ok(());
                }
                self.following.gave(given);
            }
            self.position = step.position;
            if step.is_last {
                tokio::time::sleep(WATCH_GATHER).await;
            }
        }
    }
}
