//! `IngestService`: batches come up a stream, acknowledgements go down, in the same order.
//!
//! Reading and acknowledging are separate, so that several batches of a stream are on their way to
//! the writer at once and share a commit.

pub(crate) mod check;
mod way;

use std::pin::Pin;

use futures_util::{Stream, StreamExt as _};
use sekimori_proto::v1::ingest_service_server::IngestService;
use sekimori_proto::v1::{IngestRequest, IngestResponse, Isolation, PolicyBundle};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::bus::{Connected, ConnectedGuard, Stop};
use crate::fleet::{Fleet, Presence};
use crate::identity::Agent;
use crate::limits::{HOST_STREAMS_MAX, STREAM_BATCHES_MAX};
use crate::policy::Policies;
use crate::store::{Batch, Meter, WriteError, Written};
pub use check::{BatchError, Fault, check_batch};
pub use way::Way;

/// Receives the events of all agents.
#[derive(Debug)]
pub struct Ingest {
    way: Way,
    connected: Connected,
    fleet: Fleet,
    policies: Policies,
    stop: Stop,
    meter: Meter,
}

impl Ingest {
    /// Sends batches their `way`, and counts in `meter`.
    pub fn new(
        way: Way,
        meter: Meter,
        connected: Connected,
        fleet: Fleet,
        policies: Policies,
        stop: Stop,
    ) -> Ingest {
        Ingest { way, connected, fleet, policies, stop, meter }
    }
}

/// What goes down a stream, or why it ends.
type Pending = Result<Answer, Status>;

/// What goes down a stream.
enum Answer {
    /// A batch on its way: its number and what will become of it.
    Batch(u64, Written),
    /// An order for the host.
    Order(Isolation),
    /// The policy that the host is to run.
    Policy(PolicyBundle),
}

/// Acknowledgements.
type Acknowledgements = Pin<Box<dyn Stream<Item = Result<IngestResponse, Status>> + Send>>;

#[tonic::async_trait]
impl IngestService for Ingest {
    type StreamStream = Acknowledgements;

    async fn stream(
        &self,
        request: Request<Streaming<IngestRequest>>,
    ) -> Result<Response<Acknowledgements>, Status> {
        let agent = Agent::of(&request)?;
        let Some(connected) = self.connected.enter(agent.name()) else {
            return Err(Status::resource_exhausted(format!(
                "{HOST_STREAMS_MAX} streams of {} are open already: those whose other end is gone \
                 are closed within a minute",
                agent.name()
            )));
        };
        let (pending, acknowledgements) = mpsc::channel(STREAM_BATCHES_MAX);
        tracing::info!(host = agent.name(), "agent's stream is open");
        let reader = Reader {
            _connected: connected,
            presence: self.fleet.enter(&agent),
            agent,
            way: self.way.clone(),
            policies: self.policies.clone(),
            stop: self.stop.clone(),
            meter: self.meter.clone(),
        };
        tokio::spawn(reader.run(request.into_inner(), pending));
        Ok(Response::new(Box::pin(ReceiverStream::new(acknowledgements).then(acknowledge))))
    }
}

/// Reads one agent's stream.
struct Reader {
    agent: Agent,
    way: Way,
    policies: Policies,
    stop: Stop,
    meter: Meter,
    _connected: ConnectedGuard,
    presence: Presence,
}

impl Reader {
    async fn run(self, mut batches: Streaming<IngestRequest>, pending: mpsc::Sender<Pending>) {
        let mut orders = self.presence.orders();
        let mut offers = self.policies.offers(self.agent.name());
        let end = loop {
            let batch = tokio::select! {
                order = orders.next() => {
                    if pending.send(Ok(Answer::Order(order))).await.is_err() {
                        break None;
                    }
                    continue;
                }
                policy = offers.next() => {
                    if pending.send(Ok(Answer::Policy(policy))).await.is_err() {
                        break None;
                    }
                    continue;
                }
                batch = batches.message() => batch,
                () = self.stop.wanted() => {
                    break Some(Status::unavailable("the collector is stopping; come again"));
                }
                // The agent has gone: nobody would hear an acknowledgement.
                () = pending.closed() => break None,
            };
            let next = match batch {
                Ok(Some(mut batch)) => {
                    let state = batch.state.take();
                    let only_state = state.is_some() && batch.events.is_empty();
                    if let Some(state) = &state {
                        offers.heard(state);
                    }
                    self.presence.heard(state);
                    if only_state {
                        continue;
                    }
                    self.submit(batch).await
                }
                Ok(None) => break None,
                Err(status) => Err(unreadable(status)),
            };
            match next {
                Ok(batch) => {
                    if pending.send(Ok(batch)).await.is_err() {
                        break None;
                    }
                }
                Err(status) => break Some(status),
            }
        };
        match end {
            Some(status) => {
                let (host, reason) = (self.agent.name(), status.message());
                if status.code() == Code::Unavailable {
                    // Ours, for all of them at once, and it was said where it happened.
                    tracing::debug!(host, reason, "agent's stream ended");
                } else {
                    tracing::warn!(host, code = ?status.code(), reason, "agent's stream ended");
                }
                // What came before is acknowledged first.
                let _ = pending.send(Err(status)).await;
            }
            None => tracing::info!(host = self.agent.name(), "agent's stream is closed"),
        }
    }

    async fn submit(&self, request: IngestRequest) -> Pending {
        let number = request.batch;
        self.meter.received.inc_by(request.events.iter().map(|it| it.len() as u64).sum());
        let entries = check_batch(number, request.events).map_err(|error| {
            self.meter.rejected(error.reason());
            Status::invalid_argument(error.to_string())
        })?;
        let batch = Batch::new(&self.agent, entries);
        let written = self.way.submit(batch).await.map_err(refused)?;
        Ok(Answer::Batch(number, written))
    }
}

/// Waits for the commit of one batch. Orders and policies wait for nothing.
async fn acknowledge(pending: Pending) -> Result<IngestResponse, Status> {
    let (batch, written) = match pending? {
        Answer::Batch(batch, written) => (batch, written),
        Answer::Order(order) => {
            return Ok(IngestResponse { isolation: Some(order), ..IngestResponse::default() });
        }
        Answer::Policy(policy) => {
            return Ok(IngestResponse { policy: Some(policy), ..IngestResponse::default() });
        }
    };
    let stored = written.await.unwrap_or(Err(WriteError::Stopping)).map_err(refused)?;
    Ok(IngestResponse { batch, stored, ..IngestResponse::default() })
}

fn refused(error: WriteError) -> Status {
    match error {
        WriteError::Full => Status::resource_exhausted(error.to_string()),
        WriteError::Failed(_) | WriteError::Bus(_) | WriteError::Stopping => {
            Status::unavailable(error.to_string())
        }
    }
}

/// What does not decode is the sender's fault, and tonic calls it internal.
fn unreadable(status: Status) -> Status {
    match status.code() {
        Code::Internal | Code::OutOfRange | Code::ResourceExhausted => {
            Status::invalid_argument(status.message())
        }
        _ => status,
    }
}
