//! One stream to the collector, from its opening to its end.

use std::collections::VecDeque;
use std::pin::pin;

use sekimori_proto::v1::ingest_service_client::IngestServiceClient;
use sekimori_proto::v1::{Event, IngestRequest, IngestResponse, Kind};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use super::connect::ShipError;
use super::status::{Progress, ShipState};
use super::wire;
use super::{News, changed};
use crate::limits;
use crate::spool::{Batch, BatchEnd, Reader, SharedSpool, SpoolLoss};

/// Stage of the losses that delivery records.
const STAGE: &str = "ship";

/// Why a session ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// Told to end, and everything is acknowledged.
    Drained,
    /// There is another certificate, and nothing is on the way.
    Renewed,
    /// The collector refused a batch for what is in it; to be continued with more caution.
    Refused,
    /// Anything else.
    Broken(ShipError),
}

/// After a refusal: how carefully to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Caution {
    /// Batches in flight; one, when it must be known which one is refused.
    window: usize,
    events_max: usize,
}

impl Default for Caution {
    fn default() -> Self {
        Self { window: limits::BATCHES_IN_FLIGHT_MAX, events_max: limits::BATCH_EVENTS_MAX }
    }
}

impl Caution {
    /// A batch of `events` was refused, or it is not known which of several (`None`).
    fn refused(&mut self, events: Option<usize>) {
        self.window = 1;
        self.events_max = events.map_or(limits::BATCH_EVENTS_MAX, |events| (events / 2).max(1));
    }

    /// A batch was taken.
    fn taken(&mut self) {
        if self.window == 1 {
            self.events_max *= 2;
            if self.events_max > limits::BATCH_EVENTS_MAX {
                *self = Self::default();
            }
        }
    }
}

/// A batch on the way.
#[derive(Debug)]
struct InFlight {
    number: u64,
    end: BatchEnd,
    /// Events sent in it.
    events: usize,
    /// Kinds of entries that are no events; given up when the rest is acknowledged.
    unreadable: Vec<i32>,
    /// Kind of the first event, for the loss should it be refused alone.
    kind: i32,
    /// The first event is itself the record of a refusal.
    refusal: bool,
    acknowledged: bool,
}

/// One stream.
pub(super) struct Session<'a> {
    spool: &'a SharedSpool,
    progress: &'a Progress,
    stop: watch::Receiver<Option<Instant>>,
    caution: &'a mut Caution,
    reader: Reader,
    in_flight: VecDeque<InFlight>,
    next_number: u64,
    last_answer: Instant,
    acknowledged: bool,
}

impl<'a> Session<'a> {
    pub fn new(
        spool: &'a SharedSpool,
        progress: &'a Progress,
        stop: watch::Receiver<Option<Instant>>,
        caution: &'a mut Caution,
    ) -> Self {
        Self {
            spool,
            progress,
            stop,
            caution,
            reader: spool.reader(),
            in_flight: VecDeque::new(),
            next_number: 1,
            last_answer: Instant::now(),
            acknowledged: false,
        }
    }

    /// Anything was acknowledged.
    pub fn acknowledged(&self) -> bool {
        self.acknowledged
    }

    /// Delivers until the stream breaks or everything is delivered after the order to stop.
    pub async fn run(
        &mut self,
        mut client: IngestServiceClient<Channel>,
        news: &mut News,
    ) -> Ended {
        // One more, for what the agent says of itself.
        let (sender, receiver) = mpsc::channel(limits::BATCHES_IN_FLIGHT_MAX + 1);
        // A collector may answer only after the first batch: do not wait for it before sending.
        let mut opening = pin!(client.stream(ReceiverStream::new(receiver)));
        let mut answers: Option<Streaming<IngestResponse>> = None;
        let notify = self.spool.flushed();
        news.state.mark_changed();
        let mut renewed = false;
        loop {
            let mut flushed = pin!(notify.notified());
            flushed.as_mut().enable();
            if renewed && self.in_flight.is_empty() {
                return Ended::Renewed;
            }
            if !renewed {
                self.fill(&sender);
            }
            let stopping = self.stop.borrow_and_update().is_some();
            if stopping && self.in_flight.is_empty() {
                return Ended::Drained;
            }
            let silent_at = self.last_answer + limits::ACKNOWLEDGEMENT_TIMEOUT;
            let room = self.in_flight.len() < self.caution.window;
            tokio::select! {
                opened = &mut opening, if answers.is_none() => match opened {
                    Ok(stream) => {
                        answers = Some(stream.into_inner());
                        self.progress.change(|status| {
                            status.connections += 1;
                            status.state = ShipState::Connected;
                        });
                    }
                    Err(status) => return self.broken(status),
                },
                answer = next_answer(&mut answers) => match answer {
                    Ok(Some(IngestResponse { isolation: Some(order), .. })) => {
                        news.orders.send_replace(Some(order));
                    }
                    Ok(Some(IngestResponse { policy: Some(bundle), .. })) => {
                        news.policies.send_replace(Some(bundle));
                    }
                    Ok(Some(answer)) => self.answered(answer.batch),
                    Ok(None) => return Ended::Broken(ShipError::Closed),
                    Err(status) => return self.broken(status),
                },
                () = sleep_until(silent_at), if !self.in_flight.is_empty() => {
                    return Ended::Broken(ShipError::Silent);
                }
                () = flushed, if room && !renewed => {}
                () = changed(&mut news.state) => tell(&sender, news),
                () = changed(&mut news.renewed), if !renewed => renewed = true,
                changed = self.stop.changed(), if !stopping => {
                    if changed.is_err() {
                        return Ended::Drained;
                    }
                }
            }
        }
    }

    /// Puts batches on the way as long as there is room.
    fn fill(&mut self, sender: &mpsc::Sender<IngestRequest>) {
        self.reader.set_events_max(self.caution.events_max);
        while self.in_flight.len() < self.caution.window {
            let Ok(place) = sender.try_reserve() else {
                return;
            };
            let Some(batch) = self.spool.next_batch(&mut self.reader) else {
                return;
            };
            let request = self.put(&batch);
            if request.events.is_empty() {
                self.answered(request.batch);
            } else {
                place.send(request);
            }
        }
    }

    /// Turns a batch into a request and notes it as on the way.
    fn put(&mut self, batch: &Batch) -> IngestRequest {
        let (mut events, mut unreadable) = (Vec::with_capacity(batch.entries.len()), Vec::new());
        // What this very agent encoded needs no second look.
        let own = batch.boot == self.spool.boot();
        let (mut kind, mut refusal) = (0, false);
        for entry in &batch.entries {
            let looked_at = !own || (events.is_empty() && entry.kind == Kind::Loss as i32);
            match looked_at.then(|| batch.event(entry)).transpose() {
                Ok(event) => {
                    if events.is_empty() {
                        kind = entry.kind;
                        refusal = event.as_ref().is_some_and(is_refusal);
                    }
                    events.push(wire::event(batch, entry));
                }
                Err(error) => {
                    let sequence = entry.sequence;
                    tracing::error!(sequence, %error, "a spooled event cannot be read");
                    unreadable.push(entry.kind);
                }
            }
        }
        if self.in_flight.is_empty() {
            self.last_answer = Instant::now();
        }
        let number = self.next_number;
        self.next_number += 1;
        self.in_flight.push_back(InFlight {
            number,
            end: batch.end,
            events: events.len(),
            unreadable,
            kind,
            refusal,
            acknowledged: false,
        });
        let in_flight = self.in_flight.len();
        self.progress.change(|status| {
            status.sent += events.len() as u64;
            status.in_flight = in_flight;
        });
        IngestRequest { batch: number, events, state: None }
    }

    /// The collector has stored a batch. The spool forgets it once all before it are stored too.
    fn answered(&mut self, number: u64) {
        let Some(batch) = self.in_flight.iter_mut().find(|batch| batch.number == number) else {
            tracing::debug!(number, "acknowledgement of a batch that is not on the way");
            return;
        };
        batch.acknowledged = true;
        self.last_answer = Instant::now();
        while let Some(batch) = self.in_flight.pop_front_if(|batch| batch.acknowledged) {
            self.acknowledged |= batch.events > 0;
            self.caution.taken();
            let reason = "the spooled event cannot be read";
            self.give_up(&batch, &batch.unreadable, reason);
            let in_flight = self.in_flight.len();
            self.progress.change(|status| {
                status.acknowledged += batch.events as u64;
                status.in_flight = in_flight;
            });
        }
        self.reader.set_events_max(self.caution.events_max);
    }

    /// Moves the spool behind `batch`, of which events of `kinds` are lost.
    fn give_up(&self, batch: &InFlight, kinds: &[i32], reason: &str) {
        let loss = |kind: &i32| SpoolLoss {
            stage: STAGE.into(),
            kind: *kind,
            reason: reason.into(),
            count: 1,
        };
        let result = if kinds.is_empty() {
            self.spool.acknowledge(batch.end)
        } else {
            self.progress.change(|status| status.refused += kinds.len() as u64);
            self.spool.discard(batch.end, kinds.iter().map(loss).collect())
        };
        if let Err(error) = result {
            tracing::warn!(%error, "the spool's position is not written down");
        }
    }

    /// The collector ended the stream.
    fn broken(&mut self, status: Status) -> Ended {
        // What is in a batch cannot be changed by sending it again. The second code is how a
        // message above the receiver's limit is refused.
        let content = matches!(status.code(), Code::InvalidArgument | Code::OutOfRange);
        if !content || self.in_flight.is_empty() {
            return Ended::Broken(status.into());
        }
        let (code, message) = (status.code(), status.message());
        tracing::warn!(?code, message, "the collector refused a batch");
        let only = if self.in_flight.len() == 1 { self.in_flight.pop_front() } else { None };
        match only {
            Some(batch) if batch.events == 1 => {
                let mut kinds = batch.unreadable.clone();
                if batch.refusal {
                    // A record of this would be refused as well, and so on without end.
                    tracing::error!("the collector refuses even the record of what it refused");
                    self.progress.change(|status| status.refused += 1);
                } else {
                    kinds.push(batch.kind);
                }
                self.give_up(&batch, &kinds, &format!("refused by the collector ({code:?})"));
                self.caution.refused(Some(1));
            }
            batch => self.caution.refused(batch.map(|batch| batch.events)),
        }
        Ended::Refused
    }
}

/// Says how the agent stands. When there is no room, nobody listens, and the next word will do.
fn tell(sender: &mpsc::Sender<IngestRequest>, news: &mut News) {
    let state = news.state.borrow_and_update().clone();
    if let (Some(state), Ok(place)) = (state, sender.try_reserve()) {
        place.send(IngestRequest { state: Some(state), ..IngestRequest::default() });
    }
}

fn is_refusal(event: &Event) -> bool {
    event.loss.as_ref().is_some_and(|loss| loss.stage == STAGE)
}

/// The next answer; never, as long as the stream is not open.
async fn next_answer(
    answers: &mut Option<Streaming<IngestResponse>>,
) -> Result<Option<IngestResponse>, Status> {
    match answers {
        Some(answers) => answers.message().await,
        None => std::future::pending().await,
    }
}
