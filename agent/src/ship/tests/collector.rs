//! A collector in this process that stores in memory and does what a test asks of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost::Message as _;
use sekimori_proto::v1::ingest_service_server::{IngestService, IngestServiceServer};
use sekimori_proto::v1::{Event, HostState, IngestRequest, IngestResponse};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::codec::CompressionEncoding;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// How it behaves.
#[derive(Clone, Debug, Default)]
pub struct Manner {
    /// Batches of a stream after which it breaks off, the last one stored and not acknowledged.
    pub breaks_after: Option<usize>,
    /// Streams that break off so; later ones hold.
    pub breaks: usize,
    /// Wait before each acknowledgement.
    pub delay: Duration,
    /// Each acknowledgement is sent twice.
    pub twice: bool,
    /// Pairs of acknowledgements come in the wrong order.
    pub swapped: bool,
    /// Times of events that are refused.
    pub poison: BTreeSet<i64>,
    /// Everything is refused.
    pub refuses: bool,
    /// Answers nothing, not even the opening of the stream, until the first batch is there.
    pub late: bool,
}

/// What it has.
#[derive(Debug, Default)]
pub struct Store {
    /// By boot and sequence, as a real collector deduplicates.
    pub events: BTreeMap<(Vec<u8>, u64), Event>,
    /// Events received, repetitions included.
    pub received: u64,
    pub streams: usize,
    /// What the agent said of itself.
    pub states: Vec<HostState>,
    /// Most batches received and not acknowledged at a time.
    pub largest_batch: usize,
}

#[derive(Clone)]
pub struct Fake {
    pub manner: Arc<Mutex<Manner>>,
    pub store: Arc<Mutex<Store>>,
}

impl Fake {
    pub fn new(manner: Manner) -> Self {
        Self { manner: Arc::new(Mutex::new(manner)), store: Arc::default() }
    }

    pub fn serve(&self, path: &Path) -> JoinHandle<()> {
        let listener = UnixListenerStream::new(UnixListener::bind(path).unwrap());
        let service =
            IngestServiceServer::new(self.clone()).accept_compressed(CompressionEncoding::Zstd);
        let server = Server::builder().add_service(service).serve_with_incoming(listener);
        tokio::spawn(async move { server.await.unwrap() })
    }

    pub fn service(&self) -> IngestServiceServer<Self> {
        IngestServiceServer::new(self.clone()).accept_compressed(CompressionEncoding::Zstd)
    }

    /// Times of what is stored, but for Loss events, sorted.
    pub fn times(&self) -> Vec<i64> {
        let store = self.store.lock().unwrap();
        let events = store.events.values().filter(|event| event.loss.is_none());
        let mut times: Vec<i64> = events.map(|event| event.time_ns).collect();
        times.sort_unstable();
        times
    }

    pub fn losses(&self) -> Vec<sekimori_proto::v1::Loss> {
        let store = self.store.lock().unwrap();
        store.events.values().filter_map(|event| event.loss.clone()).collect()
    }

    fn take(&self, request: IngestRequest) -> Result<IngestResponse, Status> {
        let manner = self.manner.lock().unwrap().clone();
        if request.events.is_empty() {
            return Err(Status::invalid_argument("an empty batch"));
        }
        if manner.refuses {
            return Err(Status::invalid_argument("no"));
        }
        let events: Vec<Event> =
            request.events.iter().map(|event| Event::decode(event.as_ref()).unwrap()).collect();
        if events.iter().any(|event| manner.poison.contains(&event.time_ns)) {
            return Err(Status::invalid_argument("an event with an impossible 値"));
        }
        let mut store = self.store.lock().unwrap();
        store.received += events.len() as u64;
        store.largest_batch = store.largest_batch.max(events.len());
        let mut stored = 0;
        for event in events {
            let key = (event.boot.clone(), event.sequence);
            let known = store.events.insert(key, event.clone());
            assert!(known.is_none_or(|known| known == event), "one number, two events");
            stored += 1;
        }
        Ok(IngestResponse { batch: request.batch, stored, ..IngestResponse::default() })
    }

    async fn talk(
        self,
        mut requests: Streaming<IngestRequest>,
        answers: mpsc::Sender<Result<IngestResponse, Status>>,
    ) {
        let manner = self.manner.lock().unwrap().clone();
        let number = {
            let mut store = self.store.lock().unwrap();
            store.streams += 1;
            store.streams
        };
        let (mut batches, mut held) = (0, None);
        while let Some(Ok(request)) = requests.next().await {
            if let Some(state) = request.state {
                self.store.lock().unwrap().states.push(state);
                continue;
            }
            batches += 1;
            let answer = self.take(request);
            if number <= manner.breaks && Some(batches) == manner.breaks_after {
                let _ = answers.send(Err(Status::unavailable("going down"))).await;
                return;
            }
            let failed = answer.is_err();
            tokio::time::sleep(manner.delay).await;
            if manner.swapped && held.is_none() && !failed {
                held = Some(answer);
                continue;
            }
            for answer in [Some(answer), held.take()].into_iter().flatten() {
                for _ in 0..=usize::from(manner.twice) {
                    let _ = answers.send(answer.clone()).await;
                }
            }
            if failed {
                return;
            }
        }
    }
}

#[tonic::async_trait]
impl IngestService for Fake {
    type StreamStream = Pin<Box<dyn Stream<Item = Result<IngestResponse, Status>> + Send>>;

    async fn stream(
        &self,
        request: Request<Streaming<IngestRequest>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let (sender, receiver) = mpsc::channel(64);
        let mut requests = request.into_inner();
        if self.manner.lock().unwrap().late {
            let first = requests.next().await.unwrap().unwrap();
            sender.send(self.take(first)).await.unwrap();
        }
        tokio::spawn(self.clone().talk(requests, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
