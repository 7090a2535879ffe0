//! TLS of the senders: 1.2 or 1.3, with the system's authorities or those of a file.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::{Fault, SendError};
use super::target::Target;

/// Settings with the authorities of `ca_file`, or of the system if there is none.
pub(super) fn config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, Fault> {
    let roots = match ca_file {
        Some(path) => of_file(path)?,
        None => of_system()?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Shakes hands with `target`, whose name or address its certificate must have.
pub(super) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    config: &Arc<ClientConfig>,
    target: &Target,
    stream: S,
) -> Result<TlsStream<S>, SendError> {
    let Some(name) = target.server_name() else {
        return Err(SendError::retry(format!("{target} is no name that a certificate can have")));
    };
    let connector = TlsConnector::from(Arc::clone(config));
    let connected = connector.connect(name, stream).await;
    connected.map_err(|error| SendError::retry(format!("no TLS with {target}: {error}")))
}

fn of_file(path: &Path) -> Result<RootCertStore, Fault> {
    let failed = |reason: String| Fault::Authorities { path: path.to_owned(), reason };
    let mut roots = RootCertStore::empty();
    let list = CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))?;
    for certificate in list {
        let certificate = certificate.map_err(|error| failed(error.to_string()))?;
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(failed("there is no certificate in it (PEM)".to_owned()));
    }
    Ok(roots)
}

fn of_system() -> Result<RootCertStore, Fault> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some systems carry certificates that rustls does not take; the others do.
    let _ = roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let reason =
            found.errors.first().map_or_else(|| "none found".to_owned(), ToString::to_string);
        return Err(Fault::NoRoots(reason));
    }
    Ok(roots)
}
