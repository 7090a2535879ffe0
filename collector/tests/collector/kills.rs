//! Sudden death again and again: of the collector by SIGKILL, at any moment, and of agents, whose
//! streams are cut and who go on behind the last batch that was acknowledged.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use nix::sys::signal::Signal;
use prost::Message as _;
use sekimori_collector::identity::Role;
use sekimori_collector::pki;
use sekimori_evidence::{Chain, Head, SigningKey, digest};
use sekimori_proto::v1::evidence_service_client::EvidenceServiceClient;
use sekimori_proto::v1::query_service_client::QueryServiceClient;
use sekimori_proto::v1::verify_response::Part;
use sekimori_proto::v1::watch_service_client::WatchServiceClient;
use sekimori_proto::v1::{
    Event, File, Filter, HostEvidence, Kind, StatusRequest, SubscribeRequest, VerifyRequest,
};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tonic::transport::Channel;

use crate::process::Process;
use crate::support::{AgentStream, Pki, connect, tls};

/// Another number than [`KILLS`].
const VARIABLE: &str = "SEKIMORI_KILLS";
/// How often the collector is killed.
const KILLS: usize = 10;
const HOSTS: usize = 4;
/// Batches on their way.
const AHEAD: usize = 4;
/// Events under one signature.
const SIGNED: usize = 200;

/// What the hosts and whoever kills know of each other.
#[derive(Clone)]
struct World {
    address: watch::Receiver<Option<SocketAddr>>,
    acknowledged: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

/// A host: what it has made, and what of that nobody has acknowledged.
struct Host {
    name: String,
    dir: PathBuf,
    peer: PathBuf,
    key: SigningKey,
    chain: Chain,
    made: Vec<(Vec<u8>, u64)>,
    spool: VecDeque<Bytes>,
    deaths: u64,
}

impl Host {
    fn new(dir: &Path, number: usize) -> Host {
        let name = format!("desk-{number}");
        let peer = pki::enroll(dir, &name, Role::Agent, None).unwrap();
        let key = SigningKey::open(&peer.join("evidence.key")).unwrap();
        let chain = Chain::new(&[0; 16], Head::default(), 1);
        let (made, spool) = Default::default();
        Host { name, dir: dir.to_owned(), peer, key, chain, made, spool, deaths: 0 }
    }

    fn keep(&mut self, event: Event) {
        let (boot, sequence) = (self.chain.boot().to_vec(), self.chain.next());
        let time_ns = i64::try_from(self.made.len()).unwrap();
        self.made.push((boot.clone(), sequence));
        let body = Event { boot, sequence, time_ns, ..event }.encode_to_vec();
        self.chain.note(sequence, digest(&[&body], 0));
        self.spool.push_back(body.into());
    }

    fn make(&mut self) {
        if self.chain.digests().len() >= SIGNED {
            self.sign(None);
        }
        // Bytes that cannot be compressed: long batches take more than one packet.
        let length = if fastrand::u8(..50) == 0 { 4000 } else { fastrand::usize(10..60) };
        let path = std::iter::repeat_with(|| fastrand::u8(1..)).take(length).collect();
        let file = Some(File { path, ..File::default() });
        self.keep(Event { kind: Kind::FileOpen.into(), file, ..Event::default() });
    }

    /// Signs what is not signed yet; the signature may be the first event of another boot.
    fn sign(&mut self, next: Option<[u8; 16]>) {
        let count = self.chain.digests().len();
        let (checkpoint, head) = self.chain.sign(&self.key, count, 0, 0);
        match next {
            Some(boot) => self.chain = Chain::new(&boot, head, 1),
            None => self.chain.signed(head, count),
        }
        let (kind, checkpoint) = (Kind::Checkpoint.into(), Some(checkpoint));
        self.keep(Event { kind, checkpoint, ..Event::default() });
    }

    /// Goes on until it is asked to stop and everything is acknowledged.
    async fn live(mut self, world: World) -> Host {
        let mut ended = false;
        loop {
            if world.stop.load(Ordering::Relaxed) && !ended {
                self.sign(None);
                ended = true;
            }
            if ended && self.spool.is_empty() {
                return self;
            }
            let address = *world.address.borrow();
            let stream = match address {
                Some(address) => self.open(address).await,
                None => None,
            };
            match stream {
                Some(stream) => self.deliver(stream, &world, ended).await,
                None => sleep(Duration::from_millis(20)).await,
            }
            // As an agent that starts again; the one that was cut off has the same boot.
            if !ended && fastrand::bool() {
                self.sign(Some(fastrand::u128(..).to_be_bytes()));
            }
        }
    }

    async fn open(&self, address: SocketAddr) -> Option<AgentStream> {
        let channel = connect(address, tls(&self.dir, &self.peer)).await.ok()?;
        AgentStream::open(channel).await.ok()
    }

    /// Until the collector dies or the stream is cut, with batches on their way.
    async fn deliver(&mut self, mut stream: AgentStream, world: &World, ended: bool) {
        let mut left = fastrand::usize(1..150);
        let (mut sent, mut on_their_way) = (0, VecDeque::new());
        loop {
            while on_their_way.len() < AHEAD {
                let wanted = fastrand::usize(1..if fastrand::u8(..20) == 0 { 500 } else { 20 });
                while !ended && self.spool.len() < sent + wanted {
                    self.make();
                }
                let count = wanted.min(self.spool.len() - sent);
                if count == 0 {
                    break;
                }
                let bodies = self.spool.range(sent..sent + count).cloned().collect();
                on_their_way.push_back((stream.send_bodies(bodies).await, count));
                sent += count;
                left -= 1;
                if left == 0 {
                    self.deaths += 1;
                    return sleep(Duration::from_micros(fastrand::u64(..3000))).await;
                }
            }
            let Some((batch, count)) = on_their_way.pop_front() else { return };
            let Ok(Some(answer)) = stream.acknowledged().await else { return };
            assert_eq!(answer.batch, batch, "acknowledgements come in order");
            self.spool.drain(..count);
            sent -= count;
            world.acknowledged.fetch_add(count as u64, Ordering::Relaxed);
            if !ended && world.stop.load(Ordering::Relaxed) {
                return;
            }
        }
    }
}

/// Starts the collector and kills it, at times before it listens.
async fn kill_once(
    dir: &Path,
    address: &watch::Sender<Option<SocketAddr>>,
    acknowledged: &AtomicU64,
) {
    let pause = Duration::from_millis(fastrand::u64(..300));
    if fastrand::u8(..4) == 0 {
        let mut child = Process::spawn(dir);
        sleep(pause).await;
        child.kill().unwrap();
        child.wait().unwrap();
        return;
    }
    let process = start(dir).await;
    let before = acknowledged.load(Ordering::Relaxed);
    address.send_replace(Some(process.address));
    if fastrand::bool() {
        while acknowledged.load(Ordering::Relaxed) == before {
            sleep(Duration::from_millis(5)).await;
        }
    }
    sleep(pause).await;
    assert_eq!(process.end(Signal::SIGKILL), None, "it died of the signal");
}

async fn start(dir: &Path) -> Process {
    let dir = dir.to_owned();
    spawn_blocking(move || Process::start(&dir)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_dies_and_however_often_what_was_acknowledged_is_stored_once_and_in_order() {
    let kills = std::env::var(VARIABLE).map_or(KILLS, |it| it.parse().unwrap());
    let pki = Pki::new();
    let (address, addresses) = watch::channel(None);
    let (acknowledged, stop) = Default::default();
    let world = World { address: addresses, acknowledged, stop };
    let hosts: Vec<_> = (0..HOSTS)
        .map(|number| tokio::spawn(Host::new(&pki.dir, number).live(world.clone())))
        .collect();
    for _ in 0..kills {
        kill_once(&pki.dir, &address, &world.acknowledged).await;
    }
    let process = start(&pki.dir).await;
    address.send_replace(Some(process.address));
    world.stop.store(true, Ordering::Relaxed);
    let mut ended = Vec::new();
    for host in hosts {
        ended.push(host.await.unwrap());
    }
    let made: usize = ended.iter().map(|host| host.made.len()).sum();
    let deaths: u64 = ended.iter().map(|host| host.deaths).sum();
    println!("{kills} kills, {deaths} streams cut, {made} events");
    assert_eq!(world.acknowledged.load(Ordering::Relaxed), made as u64);
    let channel = connect(process.address, tls(&pki.dir, &pki.analyst())).await.unwrap();
    is_stored(&channel, &ended, made).await;
    is_signed(&channel, &ended).await;
}

/// Each event is there once, in the order in which its host made it.
async fn is_stored(channel: &Channel, hosts: &[Host], made: usize) {
    let names = hosts.iter().map(|host| host.name.clone()).collect();
    let filter = Some(Filter { hosts: names, ..Filter::default() });
    let mut client = WatchServiceClient::new(channel.clone());
    let request = SubscribeRequest { filter, cursor: Some(0) };
    let mut stream = client.subscribe(request).await.unwrap().into_inner();
    let mut stored: Vec<Vec<_>> = hosts.iter().map(|_| Vec::new()).collect();
    let mut cursor = 0;
    for _ in 0..made {
        let answer = stream.message().await.unwrap().unwrap();
        let event = answer.event.expect("an event and no gap");
        assert!(event.cursor > cursor, "cursors grow");
        cursor = event.cursor;
        let place = hosts.iter().position(|host| host.name == event.host).unwrap();
        stored[place].push((event.boot, event.sequence));
    }
    let mut query = QueryServiceClient::new(channel.clone());
    let status = query.status(StatusRequest {}).await.unwrap().into_inner();
    for (host, stored) in hosts.iter().zip(&stored) {
        assert_eq!(host.made.len(), stored.len(), "{}", host.name);
        let wrong = host.made.iter().zip(stored).position(|(made, stored)| made != stored);
        assert_eq!(wrong, None, "{}", host.name);
        let counted = status.hosts.iter().find(|it| it.host == host.name).unwrap();
        assert_eq!(counted.events, stored.len() as u64, "{}", host.name);
    }
}

/// All that the hosts signed is there, and all that is there was signed: by the hosts, and by the
/// collector over all its lives.
async fn is_signed(channel: &Channel, hosts: &[Host]) {
    let mut client = EvidenceServiceClient::new(channel.clone());
    let mut answers = client.verify(VerifyRequest::default()).await.unwrap().into_inner();
    let (mut told, mut problems) = (Vec::<HostEvidence>::new(), None);
    while let Some(answer) = answers.message().await.unwrap() {
        match answer.part.unwrap() {
            Part::Finding(finding) => assert!(!finding.problem, "{finding:?}"),
            Part::Host(host) => told.push(host),
            Part::Summary(summary) => problems = Some(summary.problems),
            Part::LookedAt(_) => {}
        }
    }
    assert_eq!(problems, Some(0));
    for host in hosts {
        let evidence = told.iter().find(|it| it.host == host.name).unwrap();
        let made = host.made.len() as u64;
        assert_eq!((evidence.records, evidence.proven), (made, made), "{}", host.name);
        assert_eq!(evidence.keys, [host.key.public()]);
    }
}
