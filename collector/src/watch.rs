//! `WatchService`: the store as a live stream.
//!
//! A subscriber's task holds one number, the cursor up to which it has looked. It waits until more
//! is committed, reads the matching events behind that number from the store, hands them on, and
//! moves the number. What was missed in a break is read the same way as what is new: there is no
//! hand-over between past and present in which something could be lost or told twice. A slow
//! subscriber holds up only its own task.

use sekimori_proto::v1::watch_service_server::WatchService;
use sekimori_proto::v1::{SubscribeRequest, SubscribeResponse};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::bus::{Committed, Stop};
use crate::identity::Operator;
use crate::limits::{SUBSCRIBER_QUEUE_MAX, SUBSCRIBERS_MAX};
use crate::query::{gaps, read_status};
use crate::store::{Condition, Readers};

/// Serves live streams.
#[derive(Debug)]
pub struct Watch {
    readers: Readers,
    committed: Committed,
    stop: Stop,
    places: Arc<Semaphore>,
}

impl Watch {
    /// Reads through `readers`, woken by `committed`.
    pub fn new(readers: Readers, committed: Committed, stop: Stop) -> Watch {
        Watch { readers, committed, stop, places: Arc::new(Semaphore::new(SUBSCRIBERS_MAX)) }
    }
}

type Answer = Result<SubscribeResponse, Status>;

#[tonic::async_trait]
impl WatchService for Watch {
    type SubscribeStream = ReceiverStream<Answer>;

    async fn subscribe(
        &self,
        request: Request<SubscribeRequest>,
    ) -> Result<Response<ReceiverStream<Answer>>, Status> {
        let operator = Operator::of(&request)?;
        let request = request.into_inner();
        let condition = Condition::new(request.filter.as_ref())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let committed = self.committed.get();
        let position = request.cursor.unwrap_or(committed);
        if position > committed {
            return Err(Status::out_of_range(format!(
                "cursor {position} is behind the end of the store, whose last is {committed}: it \
                 belongs to another store; begin again with cursor 0 or none"
            )));
        }
        let removed = self.readers.removed_up_to();
        if position < removed {
            return Err(Status::out_of_range(format!(
                "cursor {position}: the events up to {removed} were kept as long as this collector \
                 keeps them and are gone; begin again with cursor {removed}"
            )));
        }
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!("{SUBSCRIBERS_MAX} live streams are open already"))
        })?;
        tracing::info!(operator = operator.name(), position, "live stream is open");
        let (answers, stream) = mpsc::channel(SUBSCRIBER_QUEUE_MAX);
        let subscriber = Subscriber {
            operator,
            condition: Arc::new(condition),
            position,
            readers: self.readers.clone(),
            committed: self.committed.clone(),
            answers,
            _place: place,
        };
        let stop = self.stop.clone();
        tokio::spawn(subscriber.run(stop));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

struct Subscriber {
    operator: Operator,
    condition: Arc<Condition>,
    /// Everything up to this cursor has been looked at.
    position: u64,
    readers: Readers,
    committed: Committed,
    answers: mpsc::Sender<Answer>,
    _place: OwnedSemaphorePermit,
}

impl Subscriber {
    async fn run(mut self, stop: Stop) {
        let answers = self.answers.clone();
        let end = tokio::select! {
            end = self.follow() => end,
            () = stop.wanted() => Err(Status::unavailable("the collector is stopping; come again")),
            () = answers.closed() => Ok(()),
        };
        if let Err(status) = end {
            // When the queue is full the subscriber sees the end of the stream without a reason.
            let _ = answers.try_send(Err(status));
        }
        tracing::info!(operator = self.operator.name(), "live stream is closed");
    }

    /// Returns when the subscriber has gone, or with what went wrong.
    async fn follow(&mut self) -> Result<(), Status> {
        let mut committed = self.committed.follow();
        loop {
            let more = committed.wait_for(|last| *last > self.position).await;
            more.map_err(|_| Status::unavailable("the store is closed"))?;
            let condition = Arc::clone(&self.condition);
            let step = self.readers.step(&self.operator, condition, self.position).await;
            let step = step.map_err(|error| read_status(&error))?;
            let events = step.events.into_iter().map(|it| (Some(it), None));
            let gaps = gaps(step.gaps).into_iter().map(|it| (None, Some(it)));
            for (event, gap) in events.chain(gaps) {
                if self.answers.send(Ok(SubscribeResponse { event, gap })).await.is_err() {
                    return Ok(());
                }
            }
            self.position = step.position;
        }
    }
}
