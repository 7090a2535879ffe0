//! The way to the collector: mutual TLS over TCP, or a unix socket.

use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use sekimori_proto::v1::ingest_service_client::IngestServiceClient;
use tokio::time::timeout;
use tonic::Status;
use tonic::codec::CompressionEncoding;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity, Uri};

use super::dial::{Peers, dial};
use crate::causes::causes;
use crate::config::{Address, Collector, Tls};
use crate::credentials::{self, Credentials, CredentialsError};
use crate::limits;

/// Why nothing is delivered at the moment. Delivery is tried again in every case.
#[derive(Debug, thiserror::Error)]
pub enum ShipError {
    /// A file of the configuration cannot be read.
    #[error(
        "cannot read {what} {}: {source}; `sekimori-agent enroll` makes it",
        path.display()
    )]
    File {
        /// Which of the files.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Someone else could read the agent's key.
    #[error(
        "the key {} has mode {mode:03o}: others than its owner may use it; chmod 600 it, and \
         enrol again if someone may have read it", path.display()
    )]
    KeyOpen {
        /// The key.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The files do not belong together.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// No connection, or no common trust.
    #[error("cannot connect to the collector at {address}: {message}")]
    Connect {
        /// The collector's address.
        address: String,
        /// What went wrong, innermost cause last.
        message: String,
    },
    /// The collector ended the stream with a status.
    #[error("the collector ended the stream: {message} ({code:?})")]
    Stream {
        /// The gRPC code.
        code: tonic::Code,
        /// What the collector or the connection said.
        message: String,
    },
    /// The collector ended the stream without a reason.
    #[error("the collector closed the stream")]
    Closed,
    /// No acknowledgement came.
    #[error(
        "the collector has acknowledged nothing for {} s while batches wait",
        limits::ACKNOWLEDGEMENT_TIMEOUT.as_secs()
    )]
    Silent,
}

impl From<Status> for ShipError {
    fn from(status: Status) -> Self {
        let mut message = status.message().to_owned();
        if let Some(source) = status.source() {
            message = format!("{message}: {}", causes(source));
        }
        Self::Stream { code: status.code(), message }
    }
}

/// Connects. Over a network, batches go compressed.
pub(super) async fn connect(
    collector: &Collector,
    peers: &Peers,
) -> Result<IngestServiceClient<Channel>, ShipError> {
    let client = IngestServiceClient::new(channel(collector, peers).await?);
    let client = client.max_decoding_message_size(limits::ANSWER_BYTES_MAX);
    Ok(match &collector.address {
        Address::Https(_) => client.send_compressed(CompressionEncoding::Zstd),
        Address::Unix(_) => client,
    })
}

/// A connection as the agent that the certificate names.
///
/// # Errors
/// [`ShipError`]; the certificates are read afresh.
pub async fn channel(collector: &Collector, peers: &Peers) -> Result<Channel, ShipError> {
    let failed =
        |message: String| ShipError::Connect { address: collector.address.to_string(), message };
    let endpoint = endpoint(collector, &failed)?;
    let connect = async {
        match &collector.address {
            Address::Unix(_) => endpoint.connect().await,
            Address::Https(_) => {
                let peers = peers.clone();
                let connector = tower::service_fn(move |uri: Uri| {
                    let peers = peers.clone();
                    async move {
                        let host = uri.host().unwrap_or_default();
                        let host = host.trim_start_matches('[').trim_end_matches(']');
                        let port = uri.port_u16().unwrap_or(443);
                        dial(host, port, &peers).await.map(TokioIo::new)
                    }
                });
                endpoint.connect_with_connector(connector).await
            }
        }
    };
    timeout(limits::CONNECT_TIMEOUT, connect)
        .await
        .map_err(|_| failed(format!("no answer in {} s", limits::CONNECT_TIMEOUT.as_secs())))?
        .map_err(|error| failed(causes(&error)))
}

fn endpoint(
    collector: &Collector,
    failed: &impl Fn(String) -> ShipError,
) -> Result<Endpoint, ShipError> {
    let uri = match &collector.address {
        Address::Https(address) => address.clone(),
        Address::Unix(path) => format!("unix://{}", path.display()),
    };
    let endpoint = Endpoint::from_shared(uri)
        .map_err(|error| failed(causes(&error)))?
        .connect_timeout(limits::CONNECT_TIMEOUT)
        .http2_keep_alive_interval(limits::KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(limits::KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    match (&collector.address, &collector.tls) {
        (Address::Unix(_), _) => Ok(endpoint),
        (Address::Https(_), Some(tls)) => {
            let config = client_tls(tls)?;
            endpoint.tls_config(config).map_err(|error| failed(causes(&error)))
        }
        (Address::Https(_), None) => Err(failed("no certificates are configured".into())),
    }
}

fn client_tls(tls: &Tls) -> Result<ClientTlsConfig, ShipError> {
    read("the authority's certificate", &tls.ca)?;
    read("the agent's certificate", &tls.cert)?;
    check_key(&tls.key)?;
    let Credentials { ca, cert, key } = credentials::read(tls)?;
    let config = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(ca))
        .identity(Identity::from_pem(cert, key));
    Ok(match &tls.server_name {
        Some(name) => config.domain_name(name),
        None => config,
    })
}

/// Says of a file that cannot be read what it is.
fn read(what: &'static str, path: &Path) -> Result<(), ShipError> {
    let opened = fs::File::open(path);
    opened.map(drop).map_err(|source| ShipError::File { what, path: path.into(), source })
}

/// Refuses a key that others than its owner may read.
fn check_key(path: &Path) -> Result<(), ShipError> {
    let what = "the agent's key";
    let mode = fs::metadata(path)
        .map_err(|source| ShipError::File { what, path: path.into(), source })?
        .permissions()
        .mode()
        & 0o777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(ShipError::KeyOpen { path: path.into(), mode }) }
}
