//! The TLS of the TCP listener: TLS 1.3 only, HTTP/2 only. A client certificate must be good when
//! one is shown; whoever shows none is a stranger to the listener and may only enrol.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use thiserror::Error;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::limits::AUTHORITIES_SHOWN_MAX;
use crate::pki::{CA_FILE, SERVER_FILE, SERVER_KEY_FILE};

/// Why the collector cannot prove who it is.
#[derive(Debug, Error)]
pub enum TlsError {
    /// `init` was not run there.
    #[error("{path} does not exist: run `sekimori-collector init --dir {dir}` first",
        path = .path.display(), dir = .dir.display())]
    Missing {
        /// What was looked for.
        path: PathBuf,
        /// Where.
        dir: PathBuf,
    },
    /// A file that is there and cannot be used.
    #[error("cannot use {path}: {source}", path = .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: pem::Error,
    },
    /// Key and certificate do not fit, or the authority is none.
    #[error("the certificates in {dir} cannot be used: {reason}", dir = .dir.display())]
    Unusable {
        /// Where.
        dir: PathBuf,
        /// Why not.
        reason: String,
    },
}

impl TlsError {
    /// Whether this user may not read a file.
    pub fn is_permission_denied(&self) -> bool {
        let TlsError::File { source: pem::Error::Io(error), .. } = self else {
            return false;
        };
        error.kind() == std::io::ErrorKind::PermissionDenied
    }
}

/// When the collector's certificate is valid, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From here on.
    pub from_s: i64,
    /// Its end.
    pub until_s: i64,
}

impl Validity {
    /// Its end, as people read it.
    pub fn until(&self) -> String {
        let time = jiff::Timestamp::from_second(self.until_s);
        time.map_or_else(|_| self.until_s.to_string(), |time| time.to_string())
    }
}

/// What connections are accepted with.
#[derive(Debug)]
pub struct Loaded {
    /// For each new connection.
    pub config: Arc<ServerConfig>,
    /// Of the collector's certificate.
    pub validity: Validity,
    /// Of the authority that ends last.
    pub authority: Validity,
}

/// Reads `ca.pem`, `server.pem` and `server.key` of `dir`. A certificate that has ended is no
/// error: a collector that stood still for years must start to renew it.
///
/// # Errors
/// [`TlsError`] says which file is missing or bad.
pub fn load(dir: &Path) -> Result<Loaded, TlsError> {
    for name in [CA_FILE, SERVER_FILE, SERVER_KEY_FILE] {
        let path = dir.join(name);
        // What may not be looked at is there; reading it then says that it is not permitted.
        if path.try_exists().is_ok_and(|exists| !exists) {
            return Err(TlsError::Missing { path, dir: dir.to_owned() });
        }
    }
    let unusable = |error: &dyn std::fmt::Display| TlsError::Unusable {
        dir: dir.to_owned(),
        reason: error.to_string(),
    };
    let mut roots = RootCertStore::empty();
    let authorities = certificates(&dir.join(CA_FILE))?;
    for certificate in &authorities {
        roots.add(certificate.clone()).map_err(|error| unusable(&error))?;
    }
    let ends = authorities.iter().filter_map(validity).max_by_key(|it| it.until_s);
    let authority = ends.ok_or_else(|| unusable(&"ca.pem cannot be read"))?;
    // A host that enrols knows the authority by its hash and must be shown it.
    let mut chain = certificates(&dir.join(SERVER_FILE))?;
    let more = authorities.into_iter().filter(|it| !chain.contains(it)).collect::<Vec<_>>();
    chain.extend(more.into_iter().take(AUTHORITIES_SHOWN_MAX));
    let validity = chain.first().and_then(validity);
    let validity = validity.ok_or_else(|| unusable(&"server.pem cannot be read"))?;
    let key_path = dir.join(SERVER_KEY_FILE);
    let key = PrivateKeyDer::from_pem_file(&key_path)
        .map_err(|source| TlsError::File { path: key_path, source })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .map_err(|error| unusable(&error))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| unusable(&error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| unusable(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Loaded { config: Arc::new(config), validity, authority })
}

fn validity(certificate: &CertificateDer<'_>) -> Option<Validity> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let validity = certificate.validity();
    let (from_s, until_s) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    Some(Validity { from_s, until_s })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let file = |source| TlsError::File { path: path.to_owned(), source };
    let list = CertificateDer::pem_file_iter(path).map_err(file)?;
    let list: Vec<_> = list.collect::<Result<_, _>>().map_err(file)?;
    if list.is_empty() {
        return Err(file(pem::Error::NoItemsFound));
    }
    Ok(list)
}
