//! What is stored goes to an OTLP receiver, and all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use rstest::rstest;
use sekimori_collector::limits::OTLP_REFUSED_MAX;
use sekimori_collector::otlp::OtlpConfig;
use sekimori_collector::server::{Collector, ServerError};
use sekimori_proto::v1::{ActPhase, Filter, Kind};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Identity, ServerTlsConfig};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::metrics::{get, value};
use crate::support::{Pki, Server, event, events, read, search_all};

/// A record as it arrived.
#[derive(Clone, Debug)]
struct Arrived {
    host: String,
    uid: String,
    name: String,
    sequence: u64,
    cursor: u64,
}

type Judge = Arc<dyn Fn(&[Arrived]) -> Result<i64, Status> + Send + Sync>;

/// Takes what `judge` lets it take.
#[derive(Clone)]
struct Receiver {
    /// By request.
    arrived: Arc<Mutex<Vec<Vec<Arrived>>>>,
    asked: Arc<Mutex<Vec<String>>>,
    judge: Judge,
}

fn text(attributes: &[KeyValue], name: &str) -> String {
    let found = attributes.iter().find(|it| it.key == name).and_then(|it| it.value.as_ref());
    match found.and_then(|it| it.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        _ => String::new(),
    }
}

fn number(attributes: &[KeyValue], name: &str) -> u64 {
    let found = attributes.iter().find(|it| it.key == name).and_then(|it| it.value.as_ref());
    match found.and_then(|it| it.value.as_ref()) {
        Some(Value::IntValue(number)) => u64::try_from(*number).unwrap(),
        _ => 0,
    }
}

fn records(request: &ExportLogsServiceRequest) -> Vec<Arrived> {
    let hosts = request.resource_logs.iter().flat_map(|logs| {
        let host = text(&logs.resource.as_ref().unwrap().attributes, "host.name");
        let records = logs.scope_logs.iter().flat_map(|scope| &scope.log_records);
        records.map(move |record| {
            let uid = text(&record.attributes, "log.record.uid");
            let sequence = uid.rsplit('/').next().and_then(|it| it.parse().ok()).unwrap_or(0);
            let cursor = number(&record.attributes, "sekimori.cursor");
            Arrived { host: host.clone(), uid, name: record.event_name.clone(), sequence, cursor }
        })
    });
    hosts.collect()
}

#[tonic::async_trait]
impl LogsService for Receiver {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let header = request.metadata().get("authorization").map(|it| it.to_str().unwrap());
        self.asked.lock().unwrap().push(header.unwrap_or_default().to_owned());
        let found = records(request.get_ref());
        assert!(!found.is_empty(), "an empty request");
        let rejected = (self.judge)(&found)?;
        self.arrived.lock().unwrap().push(found);
        let partial_success = (rejected > 0).then(|| ExportLogsPartialSuccess {
            rejected_log_records: rejected,
            error_message: "too old".to_owned(),
        });
        Ok(Response::new(ExportLogsServiceResponse { partial_success }))
    }
}

/// A receiver that can go and come back.
struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Receiver {
    fn new(judge: impl Fn(&[Arrived]) -> Result<i64, Status> + Send + Sync + 'static) -> Receiver {
        let (arrived, asked) = Default::default();
        Receiver { arrived, asked, judge: Arc::new(judge) }
    }

    fn willing() -> Receiver {
        Receiver::new(|_| Ok(0))
    }

    /// Serves with the certificate that the collector in `dir` has.
    async fn run(&self, address: SocketAddr, pki: &Pki) -> Running {
        let listener = TcpListener::bind(address).await.unwrap();
        let identity =
            Identity::from_pem(read(pki.dir.join("server.pem")), read(pki.dir.join("server.key")));
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tonic::transport::Server::builder()
            .tls_config(ServerTlsConfig::new().identity(identity))
            .unwrap()
            .add_service(LogsServiceServer::new(self.clone()))
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), async {
                let _ = stopped.await;
            });
        Running { stop, task: tokio::spawn(async { serving.await.unwrap() }) }
    }

    /// The sequences that arrived of a host, in their order, as soon as these are among them.
    async fn wait_for(&self, host: &str, expected: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let expected: BTreeSet<u64> = expected.into_iter().collect();
        for _ in 0..600 {
            let found = self.sequences(host);
            if expected.iter().all(|it| found.contains(it)) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{expected:?} did not arrive: {:?}", self.sequences(host));
    }

    fn sequences(&self, host: &str) -> Vec<u64> {
        let arrived = self.arrived.lock().unwrap();
        arrived.iter().flatten().filter(|it| it.host == host).map(|it| it.sequence).collect()
    }

    /// The cursors that arrived; a request has its records by host.
    fn cursors(&self) -> Vec<u64> {
        let of = |records: &Vec<Arrived>| {
            let mut cursors: Vec<u64> = records.iter().map(|it| it.cursor).collect();
            cursors.sort_unstable();
            cursors
        };
        self.arrived.lock().unwrap().iter().flat_map(of).collect()
    }

    fn requests(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

impl Running {
    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap();
    }
}

/// A port of loopback at which nobody listens.
async fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

fn otlp(pki: &Pki, address: SocketAddr) -> OtlpConfig {
    OtlpConfig {
        url: format!("https://localhost:{}", address.port()),
        ca: Some(pki.dir.join("ca.pem")),
        headers: None,
    }
}

async fn start(pki: Pki, otlp: OtlpConfig) -> Server {
    Server::start_with(pki, |mut config| {
        config.otlp = Some(otlp);
        config
    })
    .await
}

/// Waits until the collector's exporter has counted so many, and says how many it has.
async fn wait_for_count(server: &Server, name: &str, least: f64) -> f64 {
    let viewer = server.channel(server.pki.viewer()).await;
    let name = format!("sekimori_collector_otlp_{name}_total");
    let mut found = 0.0;
    for _ in 0..600 {
        found = value(&get(&viewer, "/metrics").await.1, &name);
        if found >= least {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{name} is {found}, not {least}");
}

fn secret(pki: &Pki, text: &str) -> PathBuf {
    let path = pki.dir.join("headers");
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
    std::io::Write::write_all(&mut file.unwrap(), text.as_bytes()).unwrap();
    path
}

#[tokio::test]
async fn a_receiver_that_is_down_at_first_gets_everything_once_and_in_order() {
    let (pki, address) = (Pki::new(), free_address().await);
    let (config, receiver) = (otlp(&pki, address), Receiver::willing());
    let server = start(pki, config.clone()).await;
    server.agent("pc-1").await.deliver(events(1..=900)).await.unwrap();
    server.agent("pc-2").await.deliver(events(1..=900)).await.unwrap();
    wait_for_count(&server, "requests_failed", 1.0).await;
    let running = receiver.run(address, &server.pki).await;
    for host in ["pc-1", "pc-2"] {
        let found = receiver.wait_for(host, 1..=900).await;
        assert_eq!(found, (1..=900).collect::<Vec<u64>>());
    }
    // It goes while there is more to come, and the collector goes too. When the next request has
    // failed, the answer to the one before was noted.
    running.stop().await;
    let failed = wait_for_count(&server, "requests_failed", 1.0).await;
    server.agent("pc-1").await.deliver(events(901..=1000)).await.unwrap();
    wait_for_count(&server, "requests_failed", failed + 1.0).await;
    let server = start(server.stop().await, config).await;
    server.agent("pc-1").await.deliver(events(1001..=1100)).await.unwrap();
    let _running = receiver.run(address, &server.pki).await;
    let found = receiver.wait_for("pc-1", 1..=1100).await;
    assert_eq!(found, (1..=1100).collect::<Vec<u64>>(), "nothing twice: all was acknowledged");
    assert_eq!(receiver.sequences("pc-2").len(), 900);
    let cursors = receiver.cursors();
    assert_eq!(cursors, (1..=cursors.len() as u64).collect::<Vec<u64>>(), "of all hosts");
    let arrived = receiver.arrived.lock().unwrap();
    let names: BTreeSet<&str> = arrived.iter().flatten().map(|it| it.name.as_str()).collect();
    assert!(names.contains("sekimori.file.open") && names.contains("sekimori.operator"));
}

#[tokio::test]
async fn what_was_not_acknowledged_comes_again_under_the_same_name() {
    let (pki, address) = (Pki::new(), free_address().await);
    let tries = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&tries);
    let receiver = Receiver::new(move |records| {
        let mut tries = seen.lock().unwrap();
        tries.extend(records.iter().filter(|it| it.host == "pc-1").map(|it| it.uid.clone()));
        // What it took is forgotten on the way back.
        if tries.is_empty() || tries.len() >= 100 { Ok(0) } else { Err(Status::unavailable("no")) }
    });
    let _running = receiver.run(address, &pki).await;
    let config = otlp(&pki, address);
    let server = start(pki, config).await;
    server.agent("pc-1").await.deliver(events(1..=50)).await.unwrap();
    let found = receiver.wait_for("pc-1", 1..=50).await;
    assert_eq!(found, (1..=50).collect::<Vec<u64>>());
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for uid in tries.lock().unwrap().iter() {
        *counts.entry(uid.clone()).or_default() += 1;
    }
    assert_eq!(counts.len(), 50);
    assert!(counts.values().all(|count| *count == 2), "{counts:?}");
}

#[tokio::test]
async fn a_record_that_is_refused_keeps_nobody_else_from_coming() {
    let (pki, address) = (Pki::new(), free_address().await);
    let receiver = Receiver::new(|records| {
        let poison = records.iter().any(|it| it.host == "pc-1" && it.sequence == 333);
        if poison { Err(Status::invalid_argument("a field is bad")) } else { Ok(0) }
    });
    let _running = receiver.run(address, &pki).await;
    let config = otlp(&pki, address);
    let server = start(pki, config).await;
    server.agent("pc-1").await.deliver(events(1..=1000)).await.unwrap();
    let expected: Vec<u64> = (1..=1000).filter(|it| *it != 333).collect();
    assert_eq!(receiver.wait_for("pc-1", expected.clone()).await, expected);
}

#[tokio::test]
async fn a_receiver_with_a_smaller_limit_gets_smaller_requests() {
    let (pki, address) = (Pki::new(), free_address().await);
    let receiver = Receiver::new(|records| match records.len() {
        0..=400 => Ok(0),
        _ => Err(Status::resource_exhausted("larger than max")),
    });
    let _running = receiver.run(address, &pki).await;
    let config = otlp(&pki, address);
    let server = start(pki, config).await;
    server.agent("pc-1").await.deliver(events(1..=1000)).await.unwrap();
    assert_eq!(receiver.wait_for("pc-1", 1..=1000).await, (1..=1000).collect::<Vec<u64>>());
}

#[tokio::test]
async fn a_receiver_that_says_when_is_asked_the_same_again() {
    let (pki, address) = (Pki::new(), free_address().await);
    let sizes = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&sizes);
    let receiver = Receiver::new(move |records| {
        let mut sizes = seen.lock().unwrap();
        if records.iter().all(|it| it.host != "pc-1") {
            return Ok(0);
        }
        sizes.push(records.len());
        if sizes.len() > 2 {
            return Ok(0);
        }
        let details = ErrorDetails::with_retry_info(Some(Duration::from_millis(10)));
        Err(Status::with_error_details(Code::ResourceExhausted, "later", details))
    });
    let _running = receiver.run(address, &pki).await;
    let config = otlp(&pki, address);
    let server = start(pki, config).await;
    server.agent("pc-1").await.deliver(events(1..=800)).await.unwrap();
    assert_eq!(receiver.wait_for("pc-1", 1..=800).await, (1..=800).collect::<Vec<u64>>());
    let sizes = sizes.lock().unwrap();
    assert_eq!((sizes[1], sizes[2]), (sizes[0], sizes[0]), "{sizes:?}");
}

#[rstest]
#[case(Code::Unimplemented)]
#[case(Code::PermissionDenied)]
#[case(Code::Internal)]
#[tokio::test]
async fn a_receiver_that_takes_nothing_loses_nothing(#[case] code: Code) {
    let (pki, address) = (Pki::new(), free_address().await);
    let broken = Arc::new(AtomicBool::new(true));
    let now = Arc::clone(&broken);
    let receiver = Receiver::new(move |_| match now.load(Ordering::SeqCst) {
        true => Err(Status::new(code, "for ever")),
        false => Ok(0),
    });
    let _running = receiver.run(address, &pki).await;
    let config = otlp(&pki, address);
    let server = start(pki, config).await;
    server.agent("pc-1").await.deliver(events(1..=50)).await.unwrap();
    wait_for_count(&server, "requests_failed", 2.0).await;
    assert_eq!(wait_for_count(&server, "events_refused", 0.0).await, 0.0);
    broken.store(false, Ordering::SeqCst);
    assert_eq!(receiver.wait_for("pc-1", 1..=50).await, (1..=50).collect::<Vec<u64>>());
}

#[tokio::test]
async fn a_receiver_that_calls_everything_invalid_is_waited_for() {
    let (pki, address) = (Pki::new(), free_address().await);
    let broken = Arc::new(AtomicBool::new(true));
    let (now, largest) = (Arc::clone(&broken), Arc::new(AtomicU64::new(0)));
    let seen = Arc::clone(&largest);
    let receiver = Receiver::new(move |records| {
        if !now.load(Ordering::SeqCst) {
            return Ok(0);
        }
        if let [one] = records {
            seen.fetch_max(one.cursor, Ordering::SeqCst);
        }
        Err(Status::invalid_argument("all of it"))
    });
    let _running = receiver.run(address, &pki).await;
    let config = otlp(&pki, address);
    let server = start(pki, config).await;
    server.agent("pc-1").await.deliver(events(1..=300)).await.unwrap();
    let most = OTLP_REFUSED_MAX as f64;
    wait_for_count(&server, "events_refused", most).await;
    let failed = wait_for_count(&server, "requests_failed", 0.0).await;
    wait_for_count(&server, "requests_failed", failed + 1.0).await;
    assert_eq!(wait_for_count(&server, "events_refused", most).await, most);
    broken.store(false, Ordering::SeqCst);
    receiver.wait_for("pc-1", [300]).await;
    let (first, cursors) = (OTLP_REFUSED_MAX as u64 + 1, receiver.cursors());
    assert_eq!(largest.load(Ordering::SeqCst), first, "the one that is waited for");
    assert_eq!(cursors, (first..first + cursors.len() as u64).collect::<Vec<u64>>());
}

#[tokio::test]
async fn what_is_rejected_of_a_request_that_was_taken_is_not_sent_again() {
    let (pki, address) = (Pki::new(), free_address().await);
    let receiver =
        Receiver::new(|records| Ok(if records.iter().any(|it| it.host == "pc-1") { 3 } else { 0 }));
    let _running = receiver.run(address, &pki).await;
    let config = otlp(&pki, address);
    let server = start(pki, config).await;
    let mut agent = server.agent("pc-1").await;
    agent.deliver(events(1..=20)).await.unwrap();
    receiver.wait_for("pc-1", 1..=20).await;
    agent.deliver(events(21..=30)).await.unwrap();
    assert_eq!(receiver.wait_for("pc-1", 21..=30).await, (1..=30).collect::<Vec<u64>>());
    assert!(wait_for_count(&server, "events_refused", 6.0).await >= 6.0);
}

#[tokio::test]
async fn headers_come_from_a_file_and_are_read_again_when_they_are_refused() {
    let (pki, address) = (Pki::new(), free_address().await);
    let receiver = Receiver::willing();
    let asked = Arc::clone(&receiver.asked);
    let receiver = Receiver {
        judge: Arc::new(move |_| match asked.lock().unwrap().last().map(String::as_str) {
            Some("Bearer new") => Ok(0),
            _ => Err(Status::unauthenticated("the token has ended")),
        }),
        ..receiver
    };
    let _running = receiver.run(address, &pki).await;
    let headers = secret(&pki, "Authorization: Bearer old\n");
    let config = OtlpConfig { headers: Some(headers), ..otlp(&pki, address) };
    let server = start(pki, config).await;
    server.agent("pc-1").await.deliver(events(1..=5)).await.unwrap();
    wait_for_count(&server, "requests_failed", 1.0).await;
    assert_eq!(receiver.asked.lock().unwrap().first().map(String::as_str), Some("Bearer old"));
    secret(&server.pki, "Authorization: Bearer new\n");
    receiver.wait_for("pc-1", 1..=5).await;
}

#[tokio::test]
async fn nothing_is_sent_to_who_cannot_prove_itself() {
    let (pki, other, address) = (Pki::new(), Pki::new(), free_address().await);
    let (impostor, receiver) = (Receiver::willing(), Receiver::willing());
    let running = impostor.run(address, &other).await;
    let config = otlp(&pki, address);
    let server = start(pki, config).await;
    server.agent("pc-1").await.deliver(events(1..=5)).await.unwrap();
    wait_for_count(&server, "requests_failed", 2.0).await;
    assert_eq!(impostor.requests(), 0);
    running.stop().await;
    let _running = receiver.run(address, &server.pki).await;
    receiver.wait_for("pc-1", 1..=5).await;
    assert_eq!(impostor.requests(), 0);
}

#[tokio::test]
async fn that_records_leave_is_a_record() {
    let (pki, address) = (Pki::new(), free_address().await);
    let receiver = Receiver::willing();
    let _running = receiver.run(address, &pki).await;
    let config = otlp(&pki, address);
    let url = config.url.clone();
    let server = start(pki, config).await;
    server.agent("pc-1").await.deliver(vec![event(1)]).await.unwrap();
    receiver.wait_for("pc-1", [1]).await;
    // When the next one comes, the answer to the one before was heard.
    server.agent("pc-1").await.deliver(vec![event(2)]).await.unwrap();
    receiver.wait_for("pc-1", [2]).await;
    let server = Server::start_with(server.stop().await, |config| config).await;
    let filter = Filter { kinds: vec![Kind::Operator.into()], ..Filter::default() };
    let acts = search_all(&mut server.query().await, filter, 1000).await;
    let acts: Vec<_> = acts
        .iter()
        .filter_map(|event| event.act.as_ref())
        .filter(|act| act.method == "ExportLogs")
        .collect();
    assert_eq!(acts.len(), 2, "{acts:?}");
    assert_eq!((acts[0].phase(), acts[1].phase()), (ActPhase::Begin, ActPhase::End));
    assert_eq!((acts[0].name.as_str(), acts[0].answered), ("collector", 0));
    assert!(acts[0].question.starts_with(&format!("--otlp {url} from cursor ")), "{acts:?}");
    // The record of the beginning and the event.
    assert!(acts[1].answered >= 2, "{acts:?}");
}

#[tokio::test]
async fn a_configuration_that_cannot_be_stops_the_start() {
    type Change = fn(OtlpConfig) -> OtlpConfig;
    let cases: [(Change, &str); 5] = [
        (|it| OtlpConfig { url: "http://192.0.2.1:4317".to_owned(), ..it }, "expected https://"),
        (|it| OtlpConfig { url: "http://localhost:4317".to_owned(), ..it }, "expected https://"),
        (|it| OtlpConfig { url: "https://localhost".to_owned(), ..it }, "HOST:PORT"),
        (|it| OtlpConfig { ca: Some("/nowhere/ca.pem".into()), ..it }, "--otlp-ca"),
        (|it| OtlpConfig { headers: Some("/nowhere/headers".into()), ..it }, "--otlp-headers"),
    ];
    for (change, why) in cases {
        let pki = Pki::new();
        let mut config = pki.config();
        config.otlp = Some(change(otlp(&pki, "127.0.0.1:1".parse().unwrap())));
        let error = Collector::bind(&config).await.err().unwrap();
        assert!(matches!(error, ServerError::Otlp(_)), "{error}");
        assert!(error.to_string().contains(why), "{error}");
    }
}
