//! Connections to endpoints: only to addresses that may be, and with certificates that are good.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Egress, SendError};

/// Where an endpoint is.
#[derive(Clone, Debug)]
pub struct Target {
    pub host: String,
    pub port: u16,
    egress: Egress,
}

impl Target {
    /// Of a host and a port.
    ///
    /// # Errors
    /// When it is not in `egress`.
    pub fn new(host: &str, port: u16, egress: &Egress) -> Result<Target, String> {
        egress.allows(host, port)?;
        Ok(Target { host: host.to_owned(), port, egress: egress.clone() })
    }

    /// Of a `host:port`.
    ///
    /// # Errors
    /// When it is none, or not in `egress`.
    pub fn parse(text: &str, egress: &Egress) -> Result<Target, String> {
        let split = text.rsplit_once(':');
        let split = split.and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
        let (host, port) = split.ok_or_else(|| format!("{text:?}: expected HOST:PORT"))?;
        let host = host.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(host);
        Target::new(host, port, egress)
    }

    /// The first of its addresses that may be connected to.
    pub async fn address(&self) -> Result<SocketAddr, SendError> {
        let Target { host, port, egress } = self;
        let addresses = lookup_host((host.as_str(), *port)).await;
        let addresses =
            addresses.map_err(|error| SendError::passing(format!("{host}: {error}")))?;
        addresses.into_iter().find(|it| egress.allows_address(host, it.ip(), *port)).ok_or_else(
            || {
                SendError::passing(format!(
                    "{host} has no address outside of this machine and its links, and none of them \
                     is in `egress`"
                ))
            },
        )
    }

    /// A connection.
    pub async fn connect(&self) -> Result<TcpStream, SendError> {
        let address = self.address().await?;
        TcpStream::connect(address).await.map_err(|error| {
            SendError::passing(format!("{}:{} ({address}): {error}", self.host, self.port))
        })
    }

    /// A connection over TLS.
    pub async fn connect_tls(
        &self,
        config: &Arc<ClientConfig>,
    ) -> Result<TlsStream<TcpStream>, SendError> {
        let name = ServerName::try_from(self.host.clone())
            .map_err(|error| SendError::lasting(format!("{}: {error}", self.host)))?;
        let stream = self.connect().await?;
        let stream = TlsConnector::from(Arc::clone(config)).connect(name, stream).await;
        stream.map_err(|error| {
            SendError::passing(format!("{}:{}: TLS: {error}", self.host, self.port))
        })
    }
}

/// The authorities in a file; those of the system without one.
pub fn roots(base: &Path, file: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, String> {
    let Some(file) = file else {
        let found = rustls_native_certs::load_native_certs();
        if found.certs.is_empty() {
            return Err("this system knows no authorities: name a ca_file".to_owned());
        }
        return Ok(found.certs);
    };
    let path = base.join(file);
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let certificates = CertificateDer::pem_file_iter(&path).map_err(|error| told(&error))?;
    let certificates = certificates.collect::<Result<Vec<_>, _>>().map_err(|error| told(&error))?;
    if certificates.is_empty() {
        return Err(told(&"no certificate in it"));
    }
    Ok(certificates)
}

/// TLS that trusts these authorities.
pub fn tls(roots: Vec<CertificateDer<'static>>) -> Result<Arc<ClientConfig>, String> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots);
    if store.is_empty() {
        return Err("ca_file: no authority in it".to_owned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(config.with_root_certificates(store).with_no_client_auth()))
}
