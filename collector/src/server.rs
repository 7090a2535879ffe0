//! The collector as a whole: bind, serve, stop.

use std::net::SocketAddr;
use std::path::PathBuf;

use sekimori_proto::FILE_DESCRIPTOR_SET;
use sekimori_proto::forward::watch_service_server::{self, WatchServiceServer};
use sekimori_proto::v1::alert_service_server::AlertServiceServer;
use sekimori_proto::v1::enroll_service_server::EnrollServiceServer;
use sekimori_proto::v1::evidence_service_server::EvidenceServiceServer;
use sekimori_proto::v1::fleet_service_server::FleetServiceServer;
use sekimori_proto::v1::ingest_service_server::IngestServiceServer;
use sekimori_proto::v1::policy_service_server::PolicyServiceServer;
use sekimori_proto::v1::query_service_server::QueryServiceServer;
use thiserror::Error;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio::time;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use tonic::transport::Server;
use tower::layer::{Layer, layer_fn};

use crate::access::Access;
use crate::alert::{AlertAnswers, Alerts, Engine};
use crate::audit::Audit;
use crate::author::{Author, AuthorError};
use crate::bus::{Connected, Stop};
use crate::certificates::{self, Certificates};
use crate::config::{Config, STORE_BEFORE};
use crate::custody::Custodian;
use crate::desk::Desk;
use crate::enroll::Enroll;
use crate::evidence::Evidence;
use crate::fleet::{Fleet, FleetAnswers, Signs};
use crate::gate::Gate;
use crate::ingest::{Ingest, Way};
use crate::limits as limit;
use crate::listen::{self, Refusals};
use crate::metrics::{self, Metrics, Sources};
use crate::nats::{Link, Settings, SettingsError};
use crate::otlp::{Exporter, OtlpError};
use crate::pki::PkiError;
use crate::policy::{Policies, PolicyAnswers};
use crate::query::Query;
use crate::revocation::{self, Follower, Revocations};
use crate::socket::{self, SocketFile};
use crate::store::{FilterError, Store, StoreError};
use crate::tls::TlsError;
use crate::watch::{Places, Watch};

/// Why the collector does not run.
#[derive(Debug, Error)]
pub enum ServerError {
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The list of revoked certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// Store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The collector's own records.
    #[error(transparent)]
    Author(#[from] AuthorError),
    /// `bus.yaml`.
    #[error(transparent)]
    Bus(#[from] SettingsError),
    /// Its filter, which is not wrong.
    #[error(transparent)]
    Filter(#[from] FilterError),
    /// The receiver of OTLP logs.
    #[error(transparent)]
    Otlp(#[from] OtlpError),
    /// The port.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The unix socket.
    #[error("cannot listen on unix socket {path}: {source}", path = .path.display())]
    Socket {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Reflection.
    #[error("the descriptions of the services cannot be served: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// While serving.
    #[error("serving failed: {0}")]
    Serve(#[from] tonic::transport::Error),
}

/// A collector that is bound and has its store open, but serves nobody yet.
#[derive(Debug)]
pub struct Collector {
    config: Config,
    store: Store,
    author: Author,
    custodian: Custodian,
    fleet: Fleet,
    alerts: Alerts,
    policies: Policies,
    bus: Option<Link>,
    exporter: Option<Exporter>,
    certificates: Certificates,
    certificates_follower: certificates::Follower,
    tcp: TcpListener,
    address: SocketAddr,
    unix: Option<(UnixListener, SocketFile)>,
    revocations: Revocations,
    follower: Follower,
    stop: Stop,
}

impl Collector {
    /// Reads the certificates, opens the store, binds the port and the socket.
    ///
    /// # Errors
    /// [`ServerError`] names what failed and where.
    pub async fn bind(config: &Config) -> Result<Collector, ServerError> {
        let (certificates, certificates_follower) = certificates::begin(&config.dir)?;
        let (revocations, follower) = revocation::begin(&config.dir)?;
        let earlier = config.dir.join(STORE_BEFORE);
        let store = Store::open(&config.store, Some(&earlier))?;
        let author = Author::open(&config.dir, &store).await?;
        let (readers, committed) = (store.readers().clone(), store.committed().clone());
        let exporter = config
            .otlp
            .as_ref()
            .map(|otlp| Exporter::open(otlp, &config.store, readers.clone(), committed.clone()));
        let exporter = exporter.transpose()?;
        let custodian = Custodian::new(author.clone(), readers, committed)?;
        let fleet = Fleet::open(&config.store)?;
        let alerts = Alerts::open(&config.alerts, &config.store)?;
        let policies = Policies::open(&config.dir, &config.store, fleet.clone())?;
        let id = || author.key().public().iter().map(|byte| format!("{byte:02x}")).collect();
        let bus = Settings::read(&config.bus)?
            .map(|settings| Link::new(settings, id(), &store, fleet.clone()));
        let listen = |source| ServerError::Listen { address: config.listen, source };
        let tcp = TcpListener::bind(config.listen).await.map_err(listen)?;
        let address = tcp.local_addr().map_err(listen)?;
        let unix = match &config.socket {
            None => None,
            Some(path) => Some(
                socket::bind(path)
                    .map_err(|source| ServerError::Socket { path: path.clone(), source })?,
            ),
        };
        Ok(Collector {
            config: config.clone(),
            store,
            author,
            custodian,
            fleet,
            alerts,
            policies,
            bus,
            exporter,
            certificates,
            certificates_follower,
            tcp,
            address,
            unix,
            revocations,
            follower,
            stop: Stop::default(),
        })
    }

    /// The address it is bound to, with the port that was taken.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whoever holds this can stop it.
    pub fn stopper(&self) -> Stop {
        self.stop.clone()
    }

    /// Serves until [`Stop::stop`]. Then: no new connections, streams are told, what was submitted
    /// is committed and acknowledged, the store is closed.
    ///
    /// # Errors
    /// [`ServerError`].
    pub async fn serve(self) -> Result<(), ServerError> {
        let streams = Places::default();
        let audit = Audit::new(self.author.clone());
        let refusals = Refusals::default();
        let routes = self.routes(&streams, &audit, refusals.clone())?;
        let (acceptor, connections) = listen::acceptor(refusals);
        let mut beside = JoinSet::new();
        beside.spawn(self.follower.follow());
        beside.spawn(self.certificates_follower.follow());
        beside.spawn(Desk::new(&self.config.dir, audit.clone()).run());
        let exporting = self
            .exporter
            .map(|exporter| tokio::spawn(exporter.run(audit.clone(), self.stop.clone())));
        beside.spawn(self.fleet.clone().follow(audit, self.config.silent_after));
        let (readers, committed) = (self.store.readers().clone(), self.store.committed().clone());
        let engine = Engine::new(self.alerts.clone(), readers, committed, self.author.clone());
        beside.spawn(engine.run());
        let custodian = self.custodian.clone();
        beside.spawn(self.store.retain(self.config.keep, move |removed| {
            let custodian = custodian.clone();
            async move { custodian.removed(removed).await }
        }));
        beside.spawn(self.author.clone().run());
        beside.spawn(self.custodian.clone().run());
        if let Some(link) = self.bus {
            beside.spawn(link.run());
        }
        beside.spawn(acceptor.clone().tcp(self.tcp, self.certificates, self.revocations));
        let file = self.unix.map(|(listener, file)| {
            let own_uid = nix::unistd::geteuid().as_raw();
            beside.spawn(acceptor.clone().unix(listener, own_uid));
            file
        });
        drop(acceptor);
        let (stop, deadline) = (self.stop.clone(), self.stop.clone());
        let serving = transport()
            .add_routes(routes)
            .serve_with_incoming_shutdown(ReceiverStream::new(connections), async move {
                stop.wanted().await
            });
        let served = tokio::select! {
            served = serving => served,
            () = async {
                deadline.wanted().await;
                time::sleep(limit::STOP_TIME_MAX).await;
            } => {
                tracing::warn!("some calls did not end in time and were cut off");
                Ok(())
            }
        };
        if time::timeout(limit::STOP_TIME_MAX, beside.shutdown()).await.is_err() {
            tracing::error!("something beside the services did not end in time");
        }
        drop(file);
        streams.all_free().await;
        if let Some(mut exporting) = exporting {
            self.stop.stop();
            if time::timeout(limit::STOP_TIME_MAX, &mut exporting).await.is_err() {
                exporting.abort();
            }
        }
        if let Err(error) = self.custodian.countersign().await {
            tracing::warn!(%error, "the next start countersigns what came last");
        }
        if let Err(error) = self.author.sign().await {
            tracing::warn!(%error, "the next start signs what the collector recorded last");
        }
        // What cannot be kept was logged.
        let _ = self.fleet.keep(Signs::All).await;
        self.store.close().await;
        Ok(served?)
    }
}

/// The transport's limits, each set on purpose.
fn transport() -> Server<impl Layer<Routes, Service = Gate<Routes>> + Clone> {
    Server::builder()
        .layer(layer_fn(Gate::new))
        .timeout(limit::CALL_TIME_MAX)
        .concurrency_limit_per_connection(limit::CONNECTION_CALLS_MAX as usize)
        .max_concurrent_streams(limit::CONNECTION_CALLS_MAX)
        .initial_stream_window_size(limit::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limit::CONNECTION_WINDOW_BYTES)
        .http2_max_header_list_size(limit::HEADER_BYTES_MAX)
        .http2_keepalive_interval(Some(limit::KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(limit::KEEPALIVE_TIME_MAX))
}

impl Collector {
    fn routes(
        &self,
        streams: &Places,
        audit: &Audit,
        refusals: Refusals,
    ) -> Result<Routes, ServerError> {
        let Collector {
            config, store, author, custodian, fleet, alerts, policies, bus, stop, ..
        } = self;
        let otlp = self.exporter.as_ref().map(|exporter| exporter.meter().clone());
        let connected = Connected::default();
        let (readers, committed) = (store.readers().clone(), store.committed().clone());
        let fleet = fleet.clone();
        let (ingested, given) = (connected.clone(), policies.clone());
        let way = match bus {
            None => Way::Store(store.writer().clone()),
            Some(link) => Way::Bus(link.publisher(), store.writer().clone()),
        };
        let meter = store.meter().clone();
        let ingest = Ingest::new(way, meter, ingested, fleet.clone(), given, stop.clone());
        let access = Access::new(readers.clone(), audit.clone(), store.meter().clone());
        let watch = Watch::new(access.clone(), committed.clone(), stop.clone(), streams.clone());
        let (author, custodian) = (author.clone(), custodian.clone());
        let dir = config.dir.clone();
        let evidence = Evidence::new(readers, author, custodian, committed.clone(), dir);
        let (readers, places) = (store.readers().clone(), streams.clone());
        let bus = bus.as_ref().map(|link| link.meter().clone());
        let sources = Sources {
            readers,
            connected: connected.clone(),
            fleet: fleet.clone(),
            places,
            bus,
            otlp,
            refusals,
        };
        let policy_key = policies.public_key().unwrap_or_default().to_vec();
        let policy =
            PolicyAnswers::new(policies.clone(), audit.clone(), access.clone(), committed.clone());
        let query = Query::new(access, committed, connected);
        let enroll = Enroll::new(config.dir.clone(), audit.clone(), fleet.clone(), policy_key);
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        // The reporter may go: every service is up as long as the collector is.
        let (reporter, health) = tonic_health::server::health_reporter();
        let names = [
            sekimori_proto::v1::ingest_service_server::SERVICE_NAME,
            watch_service_server::SERVICE_NAME,
            sekimori_proto::v1::query_service_server::SERVICE_NAME,
            sekimori_proto::v1::evidence_service_server::SERVICE_NAME,
            sekimori_proto::v1::enroll_service_server::SERVICE_NAME,
            sekimori_proto::v1::fleet_service_server::SERVICE_NAME,
            sekimori_proto::v1::alert_service_server::SERVICE_NAME,
            sekimori_proto::v1::policy_service_server::SERVICE_NAME,
        ];
        tokio::spawn(async move {
            for name in names {
                reporter.set_service_status(name, tonic_health::ServingStatus::Serving).await;
            }
        });
        let mut routes = Routes::builder();
        routes
            .add_service(
                IngestServiceServer::new(ingest)
                    .accept_compressed(CompressionEncoding::Zstd)
                    .max_decoding_message_size(limit::REQUEST_BYTES_MAX)
                    .max_encoding_message_size(limit::RESPONSE_BYTES_MAX),
            )
            .add_service(
                WatchServiceServer::new(watch)
                    .max_decoding_message_size(limit::ASKED_BYTES_MAX)
                    .max_encoding_message_size(limit::RESPONSE_BYTES_MAX),
            )
            .add_service(
                QueryServiceServer::new(query)
                    .max_decoding_message_size(limit::ASKED_BYTES_MAX)
                    .max_encoding_message_size(limit::RESPONSE_BYTES_MAX),
            )
            .add_service(
                EvidenceServiceServer::new(evidence)
                    .max_decoding_message_size(limit::EVIDENCE_BYTES_MAX)
                    .max_encoding_message_size(limit::RESPONSE_BYTES_MAX),
            )
            .add_service(
                EnrollServiceServer::new(enroll).max_decoding_message_size(limit::ENROLL_BYTES_MAX),
            )
            .add_service(
                AlertServiceServer::new(AlertAnswers::new(alerts.clone(), audit.clone()))
                    .max_decoding_message_size(limit::ASKED_BYTES_MAX)
                    .max_encoding_message_size(limit::RESPONSE_BYTES_MAX),
            )
            .add_service(
                FleetServiceServer::new(FleetAnswers::new(fleet, audit.clone()))
                    .max_decoding_message_size(limit::ASKED_BYTES_MAX)
                    .max_encoding_message_size(limit::RESPONSE_BYTES_MAX),
            )
            .add_service(
                PolicyServiceServer::new(policy)
                    .max_decoding_message_size(limit::POLICY_REQUEST_BYTES_MAX)
                    .max_encoding_message_size(limit::RESPONSE_BYTES_MAX),
            )
            .add_service(health.max_decoding_message_size(limit::ASKED_BYTES_MAX))
            .add_service(reflection().build_v1()?.max_decoding_message_size(limit::ASKED_BYTES_MAX))
            .add_service(
                reflection().build_v1alpha()?.max_decoding_message_size(limit::ASKED_BYTES_MAX),
            );
        let metrics = Metrics::new(store.meter().clone(), sources);
        let answer = move |request| std::future::ready(metrics.answer::<axum::body::Body>(request));
        let router = routes.routes().into_axum_router();
        Ok(Routes::from(router.route(metrics::PATH, axum::routing::get(answer))))
    }
}
