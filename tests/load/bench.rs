//! What all measurements share: certificates, processors, events that are made beforehand.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use sekimori_collector::identity::{Rank, Role};
use sekimori_collector::pki;
use tempfile::TempDir;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::cores::Cores;
use crate::events::{FIRST_NS, Host, host_name};
use crate::wire::Stamp;

/// Hosts that send.
pub const HOSTS: u64 = 100;
/// Different events of each; then they come again with other numbers and times.
const EVENTS_EACH: usize = 4000;

/// Encoded events of one host, without their stamps.
pub type Prepared = Arc<Vec<Vec<u8>>>;

/// What all measurements share.
#[derive(Debug)]
pub struct Bench {
    /// `sekimori-collector`.
    pub program: PathBuf,
    /// The collector's directory, as `init` made it.
    pub pki: PathBuf,
    /// Who runs where.
    pub cores: Cores,
    /// No limit on time and room.
    pub full: bool,
    /// Stored events that questions are asked about.
    pub rows: u64,
    /// Events per second of the collector's CPU, each time that was measured.
    pub ingested: Mutex<Vec<f64>>,
    temporary: TempDir,
    events: Vec<Prepared>,
}

impl Bench {
    /// Makes certificates and events; everything goes into a directory below `place`, which is
    /// removed in the end.
    ///
    /// # Errors
    /// When there is no room.
    pub fn prepare(program: &Path, place: &Path, cores: Cores) -> Result<Self> {
        let temporary = tempfile::Builder::new().prefix("bench-collector-").tempdir_in(place);
        let temporary = temporary.with_context(|| format!("no room in {}", place.display()))?;
        let pki = temporary.path().join("collector");
        pki::init(&pki, &[])?;
        let prepared = |number| {
            let mut host = Host::new(number);
            Arc::new((0..EVENTS_EACH).map(|_| host.encoded()).collect())
        };
        Ok(Self {
            program: program.to_owned(),
            pki,
            cores,
            full: false,
            rows: 0,
            ingested: Mutex::default(),
            temporary,
            events: (0..HOSTS).map(prepared).collect(),
        })
    }

    /// Where stores go.
    pub fn directory(&self) -> &Path {
        self.temporary.path()
    }

    /// Events of a host.
    pub fn events(&self, host: u64) -> Prepared {
        let at = usize::try_from(host % HOSTS).unwrap_or(0);
        self.events.get(at).cloned().unwrap_or_default()
    }

    /// Mean length of the events as they are sent.
    pub fn event_bytes(&self) -> f64 {
        let stamp = Stamp { boot: [0; 16], sequence: 10_000, time_ns: FIRST_NS };
        let all = || self.events.iter().flat_map(|events| events.iter());
        let mean = all().map(Vec::len).sum::<usize>() as f64 / all().count().max(1) as f64;
        mean + stamp.encoded().len() as f64
    }

    /// Connects as an agent.
    ///
    /// # Errors
    /// When the certificate cannot be made, or the collector does not take it.
    pub async fn agent(&self, address: SocketAddr, host: u64) -> Result<Channel> {
        self.connect(address, &host_name(host), Role::Agent).await
    }

    /// Connects as someone who reads.
    ///
    /// # Errors
    /// The same.
    pub async fn operator(&self, address: SocketAddr, number: u64) -> Result<Channel> {
        self.connect(address, &format!("operator-{number}"), Role::Operator(Rank::Analyst)).await
    }

    async fn connect(&self, address: SocketAddr, name: &str, role: Role) -> Result<Channel> {
        let directory = self.pki.join(format!("{role}s")).join(name);
        if !directory.exists() {
            pki::enroll(&self.pki, name, role, None)?;
        }
        let read = |name: &str| {
            let path = directory.join(name);
            std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(read("ca.pem")?))
            .identity(Identity::from_pem(read("cert.pem")?, read("key.pem")?))
            .domain_name("localhost");
        let endpoint = Endpoint::from_shared(format!("https://{address}"))?.tls_config(tls)?;
        endpoint.connect().await.with_context(|| format!("{name} cannot connect to {address}"))
    }
}
