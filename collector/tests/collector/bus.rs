//! Collectors on a cluster of three NATS servers, all of it on loopback: whoever dies, nothing that
//! was acknowledged is lost or doubled in any of the stores.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::ConnectOptions;
use async_nats::jetstream::consumer::{PullConsumer, pull};
use sekimori_proto::v1::fleet_service_client::FleetServiceClient;
use sekimori_proto::v1::query_service_client::QueryServiceClient;
use sekimori_proto::v1::{Event, Filter, HostState, Kind, ListHostsRequest};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_stream::StreamExt as _;

use crate::nats::{Cluster, Program, free_ports};
use crate::support::{AgentStream, BOOT, Pki, connect, events, search_all, tls};

const PROGRAM: &str = env!("CARGO_BIN_EXE_sekimori-collector");
/// Events of a batch.
const BATCH: u64 = 10;
/// Batches that an agent has on their way.
const IN_FLIGHT: usize = 4;
/// How often something is killed, unless SEKIMORI_BUS_KILLS says otherwise.
const KILLS: u64 = 8;

/// A collector that keeps its port and directory when it is killed.
struct Collector {
    program: Program,
    address: SocketAddr,
}

impl Collector {
    fn start(dir: &Path) -> Collector {
        let [port] = free_ports::<1>();
        let address: SocketAddr = ([127, 0, 0, 1], port).into();
        let mut command = Command::new(PROGRAM);
        command.args(["run", "--listen", &address.to_string(), "--dir"]).arg(dir);
        command.env("SEKIMORI_LOG", "warn");
        Collector { program: Program::new(command), address }
    }
}

/// Another collector of the same authority.
fn second(pki: &Pki, cluster: &Cluster) -> PathBuf {
    let dir = cluster.dir.path().join("second");
    fs::create_dir(&dir).unwrap();
    for entry in fs::read_dir(&pki.dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), dir.join(entry.file_name())).unwrap();
        }
    }
    dir
}

/// Delivers up to `last` through whichever collector answers, as an agent does: what was not
/// acknowledged is sent again.
async fn deliver(pki: PathBuf, name: &str, addresses: &[SocketAddr], last: u64, done: &AtomicU64) {
    let peer = pki.join("agents").join(name);
    let mut turn = 0;
    while done.load(Ordering::SeqCst) < last {
        turn += 1;
        let address = addresses[(turn + name.len()) % addresses.len()];
        let channel = connect(address, tls(&pki, &peer)).await;
        let stream = match channel {
            Ok(channel) => AgentStream::open(channel).await.ok(),
            Err(_) => None,
        };
        if let Some(stream) = stream {
            stream_until_it_breaks(stream, last, done).await;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

async fn stream_until_it_breaks(mut stream: AgentStream, last: u64, done: &AtomicU64) {
    let mut sent = done.load(Ordering::SeqCst);
    let mut waiting = BTreeMap::new();
    while done.load(Ordering::SeqCst) < last {
        while waiting.len() < IN_FLIGHT && sent < last {
            let to = last.min(sent + BATCH);
            waiting.insert(stream.send(events(sent + 1..=to)).await, to);
            sent = to;
        }
        // One that hears nothing for long tries elsewhere.
        let answer = tokio::time::timeout(Duration::from_secs(15), stream.acknowledged()).await;
        let Ok(Ok(Some(answer))) = answer else { return };
        if let Some(to) = waiting.remove(&answer.batch) {
            done.store(to, Ordering::SeqCst);
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// What a collector has of agents, once it answers and has enough.
async fn stored(pki: &Path, address: SocketAddr, enough: usize) -> Vec<Event> {
    let filter = Filter { kinds: vec![Kind::FileOpen.into()], ..Filter::default() };
    let mut found = Vec::new();
    for _ in 0..240 {
        if let Ok(channel) = connect(address, tls(pki, &pki.join("analysts/hanako"))).await {
            let mut client = QueryServiceClient::new(channel);
            found = search_all(&mut client, filter.clone(), 1000).await;
            if found.len() >= enough {
                break;
            }
        }
        sleep(Duration::from_millis(500)).await;
    }
    found
}

/// What is not there once, of each host's events up to `last`.
fn not_once(events: &[Event], hosts: &[&str], last: u64) -> Vec<String> {
    let mut found: BTreeMap<(&str, u64), usize> = BTreeMap::new();
    for event in events {
        assert_eq!(event.boot, BOOT);
        *found.entry((&event.host, event.sequence)).or_default() += 1;
    }
    let wanted = hosts.iter().flat_map(|host| (1..=last).map(move |number| (*host, number)));
    let mut wrong: Vec<String> = wanted
        .map(|name| (name, found.remove(&name).unwrap_or(0)))
        .filter(|(_, times)| *times != 1)
        .map(|((host, number), times)| format!("{host} {number}: {times} times"))
        .collect();
    wrong.extend(found.keys().map(|(host, number)| format!("{host} {number}: never sent")));
    wrong
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_dies_every_store_has_what_was_acknowledged_once() {
    let kills = std::env::var("SEKIMORI_BUS_KILLS").map_or(KILLS, |text| text.parse().unwrap());
    let hosts = ["pc-1", "pc-2"];
    let pki = Pki::new();
    let mut cluster = Cluster::start(&std::env::temp_dir());
    let other = second(&pki, &cluster);
    fs::write(pki.dir.join("bus.yaml"), cluster.bus("first")).unwrap();
    fs::write(other.join("bus.yaml"), cluster.bus("second")).unwrap();
    let mut collectors = [Collector::start(&pki.dir), Collector::start(&other)];
    let addresses = collectors.each_ref().map(|it| it.address);
    // Begun, so that both consumers are there.
    for address in addresses {
        let done = AtomicU64::new(0);
        deliver(pki.dir.clone(), hosts[0], &[address], 1, &done).await;
    }

    // What is delivered in about the time that the deaths take.
    let last = 400 + 200 * kills;
    let done = hosts.map(|_| Arc::new(AtomicU64::new(0)));
    let mut agents = JoinSet::new();
    for (name, done) in hosts.into_iter().zip(&done) {
        let (pki, done) = (pki.dir.clone(), Arc::clone(done));
        agents.spawn(async move { deliver(pki, name, &addresses, last, &done).await });
    }
    for kill in 0..kills {
        sleep(Duration::from_millis(fastrand::u64(200..1500))).await;
        let victims: &mut [&mut Program] = match fastrand::usize(0..8) {
            0..=3 => &mut [&mut cluster.nodes[fastrand::usize(0..3)]],
            4..=6 => &mut [&mut collectors[fastrand::usize(0..2)].program],
            // No server is left for a while, and no collector can take anything.
            _ => &mut cluster.nodes.iter_mut().collect::<Vec<_>>()[..],
        };
        eprintln!("kill {kill}: {} programs", victims.len());
        victims.iter_mut().for_each(|it| it.kill());
        sleep(Duration::from_millis(fastrand::u64(100..1500))).await;
        victims.iter_mut().for_each(|it| it.start());
    }
    let left = tokio::time::timeout(Duration::from_secs(120), async {
        while let Some(agent) = agents.join_next().await {
            agent.unwrap();
        }
    });
    assert!(left.await.is_ok(), "agents stand still at {done:?} of {last}");
    let whole = usize::try_from(last).unwrap() * hosts.len();
    let mut wrong = Vec::new();
    for address in addresses {
        wrong.push(not_once(&stored(&pki.dir, address, whole).await, &hosts, last));
    }
    assert!(wrong.iter().all(Vec::is_empty), "of each store: {wrong:#?}");

    // One that is away finds everything when it returns.
    collectors[1].program.kill();
    deliver(pki.dir.clone(), hosts[0], &addresses[..1], last + 500, &done[0]).await;
    collectors[1].program.start();
    let found = stored(&pki.dir, addresses[1], whole + 500).await;
    let of_first = found.into_iter().filter(|it| it.host == hosts[0]).collect::<Vec<_>>();
    assert_eq!(not_once(&of_first, &hosts[..1], last + 500), Vec::<String>::new());
}

/// The bus takes messages for answered that a collector never stored, as it does when it loses its
/// notes of a consumer: here somebody else answers them.
#[tokio::test]
async fn what_the_bus_forgot_to_give_is_stored_all_the_same() {
    let pki = Pki::new();
    let cluster = Cluster::start(&std::env::temp_dir());
    let other = second(&pki, &cluster);
    fs::write(pki.dir.join("bus.yaml"), cluster.bus("first")).unwrap();
    fs::write(other.join("bus.yaml"), cluster.bus("second")).unwrap();
    let mut collectors = [Collector::start(&pki.dir), Collector::start(&other)];
    let addresses = collectors.each_ref().map(|it| it.address);
    for address in addresses {
        let done = AtomicU64::new(0);
        deliver(pki.dir.clone(), "pc-1", &[address], 1, &done).await;
    }
    collectors[1].program.kill();
    let dir = cluster.dir.path();
    let options = ConnectOptions::new()
        .require_tls(true)
        .add_root_certificates(dir.join("ca.pem"))
        .add_client_certificate(dir.join("collector.pem"), dir.join("collector.key"));
    let client = options.connect(cluster.servers().as_slice()).await.unwrap();
    let stream = async_nats::jetstream::new(client.clone()).get_stream("sekimori").await;
    let mut stream = stream.unwrap();
    // For whom messages stay.
    let away = pull::Config { durable_name: Some("away".to_owned()), ..pull::Config::default() };
    stream.create_consumer(away).await.unwrap();
    let done = AtomicU64::new(1);
    deliver(pki.dir.clone(), "pc-1", &addresses[..1], 51, &done).await;
    let consumer: PullConsumer = stream.get_consumer("second").await.unwrap();
    let mut answered = 0;
    while answered < 5 {
        let mut messages = consumer.fetch().max_messages(100).messages().await.unwrap();
        while let Some(message) = messages.next().await {
            message.unwrap().double_ack().await.unwrap();
            answered += 1;
        }
    }
    collectors[1].program.start();
    let found = stored(&pki.dir, addresses[1], 51).await;
    assert_eq!(not_once(&found, &["pc-1"], 51), Vec::<String>::new());

    // So a collector answers in the end, and then the last one does who had to.
    let consumer: PullConsumer = stream.get_consumer("away").await.unwrap();
    for _ in 0..stream.info().await.unwrap().state.messages {
        let given = consumer.fetch().max_messages(1).messages().await.unwrap().next().await;
        let sequence = given.unwrap().unwrap().info().unwrap().stream_sequence;
        let subject = format!("$JS.ACK.sekimori.away.1.{sequence}.0.0.0");
        client.request(subject, "+ACK".into()).await.unwrap();
    }
    for _ in 0..100 {
        if stream.info().await.unwrap().state.messages == 0 {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("what all have answered stays in the stream");
}

#[tokio::test]
async fn a_host_is_known_to_every_collector_and_a_name_has_only_one() {
    let pki = Pki::new();
    let cluster = Cluster::start(&std::env::temp_dir());
    let other = second(&pki, &cluster);
    fs::write(pki.dir.join("bus.yaml"), cluster.bus("first")).unwrap();
    fs::write(other.join("bus.yaml"), cluster.bus("second")).unwrap();
    let first = Collector::start(&pki.dir);
    let mut collectors = vec![first, Collector::start(&other)];
    for collector in &collectors {
        let done = AtomicU64::new(0);
        deliver(pki.dir.clone(), "pc-1", &[collector.address], 1, &done).await;
    }
    let agent = tls(&pki.dir, &pki.agent("pc-2"));
    let mut stream =
        AgentStream::open(connect(collectors[0].address, agent).await.unwrap()).await.unwrap();
    let operator = tls(&pki.dir, &pki.analyst());
    let channel = connect(collectors[1].address, operator).await.unwrap();
    let mut fleet = FleetServiceClient::new(channel);
    let mut found = None;
    for _ in 0..100 {
        stream.say(HostState { version: "9.8.7".into(), ..HostState::default() }).await;
        let hosts = fleet.list(ListHostsRequest::default()).await.unwrap().into_inner().hosts;
        found = hosts.into_iter().find(|it| it.host == "pc-2");
        if found.is_some() {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    let state = found.expect("known to the collector that it is not connected to").state;
    assert_eq!(state.unwrap().version, "9.8.7");

    // A third one that was given the name of the second takes nothing.
    let third = cluster.dir.path().join("third");
    fs::create_dir(&third).unwrap();
    for name in ["ca.pem", "server.pem", "server.key", "bus.yaml"] {
        fs::copy(other.join(name), third.join(name)).unwrap();
    }
    collectors.push(Collector::start(&third));
    let mut refused = String::new();
    for _ in 0..100 {
        let peer = tls(&pki.dir, &pki.agent("pc-2"));
        if let Ok(channel) = connect(collectors[2].address, peer).await
            && let Ok(mut stream) = AgentStream::open(channel).await
        {
            refused = stream.deliver(events(1..=1)).await.unwrap_err().message().to_owned();
            if refused.contains("another collector has the name second") {
                break;
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
    assert!(refused.contains("another collector has the name second"), "{refused}");
}
