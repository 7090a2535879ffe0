//! A collector in this process, its certificates, and clients for it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message as _;
use sekimori_collector::bus::Stop;
use sekimori_collector::config::Config;
use sekimori_collector::identity::{Rank, Role};
use sekimori_collector::pki;
use sekimori_collector::server::{Collector, ServerError};
use sekimori_proto::v1::ingest_service_client::IngestServiceClient;
use sekimori_proto::v1::query_service_client::QueryServiceClient;
use sekimori_proto::v1::watch_service_client::WatchServiceClient;
use sekimori_proto::v1::{
    Event, File, Filter, HostState, IngestRequest, IngestResponse, Kind, SearchRequest, Verdict,
};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::CompressionEncoding;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Status, Streaming};

/// A directory as `init` makes it, with two agents and an operator of each rank.
pub struct Pki {
    _temporary: TempDir,
    pub dir: PathBuf,
}

impl Pki {
    pub fn new() -> Pki {
        let temporary = tempfile::tempdir().unwrap();
        let dir = temporary.path().join("collector");
        pki::init(&dir, &[]).unwrap();
        for name in ["pc-1", "pc-2"] {
            pki::enroll(&dir, name, Role::Agent, None).unwrap();
        }
        for (name, rank) in
            [("taro", Rank::Viewer), ("hanako", Rank::Analyst), ("jiro", Rank::Admin)]
        {
            pki::enroll(&dir, name, Role::Operator(rank), None).unwrap();
        }
        Pki { _temporary: temporary, dir }
    }

    pub fn config(&self) -> Config {
        Config::new(self.dir.clone(), "127.0.0.1:0".parse().unwrap(), None, None)
    }

    pub fn agent(&self, name: &str) -> PathBuf {
        self.dir.join("agents").join(name)
    }

    pub fn viewer(&self) -> PathBuf {
        self.dir.join("viewers/taro")
    }

    pub fn analyst(&self) -> PathBuf {
        self.dir.join("analysts/hanako")
    }

    pub fn admin(&self) -> PathBuf {
        self.dir.join("admins/jiro")
    }
}

pub fn read(path: PathBuf) -> Vec<u8> {
    fs::read(path).unwrap()
}

/// TLS that trusts the collector's authority and shows the certificate in `peer`.
pub fn tls(ca: &Path, peer: &Path) -> ClientTlsConfig {
    ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read(ca.join("ca.pem"))))
        .identity(Identity::from_pem(read(peer.join("cert.pem")), read(peer.join("key.pem"))))
        .domain_name("localhost")
}

pub async fn connect(
    address: SocketAddr,
    tls: ClientTlsConfig,
) -> Result<Channel, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
    endpoint.tls_config(tls).unwrap().connect().await
}

/// A running collector.
pub struct Server {
    pub pki: Pki,
    pub address: SocketAddr,
    stop: Stop,
    task: JoinHandle<Result<(), ServerError>>,
}

impl Server {
    pub async fn start() -> Server {
        Server::start_with(Pki::new(), |config| config).await
    }

    pub async fn start_with(pki: Pki, change: impl FnOnce(Config) -> Config) -> Server {
        let collector = Collector::bind(&change(pki.config())).await.unwrap();
        let (address, stop) = (collector.address(), collector.stopper());
        Server { pki, address, stop, task: tokio::spawn(collector.serve()) }
    }

    /// Stops it as SIGTERM does and returns its directory for the next one.
    pub async fn stop(self) -> Pki {
        self.stop.stop();
        self.task.await.unwrap().unwrap();
        self.pki
    }

    pub fn ask_to_stop(&self) {
        self.stop.stop();
    }

    pub async fn channel(&self, peer: PathBuf) -> Channel {
        connect(self.address, tls(&self.pki.dir, &peer)).await.unwrap()
    }

    pub async fn agent_channel(&self, name: &str) -> Channel {
        self.channel(self.pki.agent(name)).await
    }

    pub async fn analyst_channel(&self) -> Channel {
        self.channel(self.pki.analyst()).await
    }

    pub async fn agent(&self, name: &str) -> AgentStream {
        AgentStream::open(self.agent_channel(name).await).await.unwrap()
    }

    pub async fn query(&self) -> QueryServiceClient<Channel> {
        QueryServiceClient::new(self.analyst_channel().await)
    }

    pub async fn watch(&self) -> WatchServiceClient<Channel> {
        WatchServiceClient::new(self.analyst_channel().await)
    }
}

/// An agent's stream.
pub struct AgentStream {
    batches: mpsc::Sender<IngestRequest>,
    acknowledgements: Streaming<IngestResponse>,
    next: u64,
}

impl AgentStream {
    pub async fn open(channel: Channel) -> Result<AgentStream, Status> {
        let (batches, receiver) = mpsc::channel(8);
        let client = IngestServiceClient::new(channel);
        let mut client = client.send_compressed(CompressionEncoding::Zstd);
        let answer = client.stream(ReceiverStream::new(receiver)).await?;
        Ok(AgentStream { batches, acknowledgements: answer.into_inner(), next: 1 })
    }

    /// Sends a batch and returns its number.
    pub async fn send(&mut self, events: Vec<Event>) -> u64 {
        self.send_bodies(events.iter().map(|event| event.encode_to_vec().into()).collect()).await
    }

    /// The same with events that are encoded.
    pub async fn send_bodies(&mut self, events: Vec<Bytes>) -> u64 {
        let batch = self.next;
        self.next += 1;
        // A stream that was ended says why when it is read.
        let _ = self.batches.send(IngestRequest { batch, events, state: None }).await;
        batch
    }

    /// Says how the agent stands.
    pub async fn say(&mut self, state: HostState) {
        let request = IngestRequest { state: Some(state), ..IngestRequest::default() };
        self.batches.send(request).await.unwrap();
    }

    pub async fn acknowledged(&mut self) -> Result<Option<IngestResponse>, Status> {
        self.acknowledgements.message().await
    }

    /// Sends a batch, waits for its acknowledgement, and says how many events were new.
    pub async fn deliver(&mut self, events: Vec<Event>) -> Result<u32, Status> {
        let batch = self.send(events).await;
        let answer = self.acknowledged().await?.expect("an acknowledgement");
        assert_eq!(answer.batch, batch);
        Ok(answer.stored)
    }
}

pub const BOOT: [u8; 16] = [0xb0; 16];

/// An event that the collector takes; its time is its number.
pub fn event(sequence: u64) -> Event {
    Event {
        boot: BOOT.to_vec(),
        sequence,
        time_ns: i64::try_from(sequence).unwrap(),
        kind: Kind::FileOpen.into(),
        verdict: Verdict::Allowed.into(),
        file: Some(File { path: format!("/srv/{sequence}").into_bytes(), ..File::default() }),
        ..Event::default()
    }
}

pub fn events(sequences: impl IntoIterator<Item = u64>) -> Vec<Event> {
    sequences.into_iter().map(event).collect()
}

pub fn sequences(events: &[Event]) -> Vec<u64> {
    events.iter().map(|event| event.sequence).collect()
}

/// Every event that matches, page by page. Without a kind in the filter, what the questions
/// themselves leave in the store is left out.
pub async fn search_all(
    client: &mut QueryServiceClient<Channel>,
    filter: Filter,
    limit: u32,
) -> Vec<Event> {
    let mut all = Vec::new();
    let mut page = String::new();
    loop {
        let request =
            SearchRequest { filter: Some(filter.clone()), limit, page, newest_first: false };
        let answer = client.search(request).await.unwrap().into_inner();
        let any_kind = filter.kinds.is_empty();
        let events = answer.events.into_iter();
        all.extend(events.filter(|event| !any_kind || event.kind() != Kind::Operator));
        if answer.next_page.is_empty() {
            return all;
        }
        page = answer.next_page;
    }
}
