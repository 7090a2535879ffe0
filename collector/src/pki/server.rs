//! The collector's own certificate: who signed it, and another one before it ends.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::files::{Mode, read_text, replace};
use super::{CA_FILE, Certified, PkiError, SERVER_FILE, SERVER_KEY_FILE, authority};

/// SHA-256 of the certificate of the authority that signed the collector's.
pub(super) fn issuer_hash(dir: &Path) -> Result<[u8; 32], PkiError> {
    let server = first(&dir.join(SERVER_FILE))?;
    let (_, server) = X509Certificate::from_der(&server).map_err(|_| PkiError::ServerUnsigned)?;
    let bundle = read_text(&dir.join(CA_FILE))?;
    for authority in CertificateDer::pem_slice_iter(bundle.as_bytes()).flatten() {
        let signed = X509Certificate::from_der(&authority)
            .is_ok_and(|(_, it)| server.verify_signature(Some(it.public_key())).is_ok());
        if signed {
            return Ok(Sha256::digest(&authority).into());
        }
    }
    Err(PkiError::ServerUnsigned)
}

/// Makes another certificate for the collector, with the names and the key of the one before, and
/// puts it in its place.
///
/// The key stays: then only one file is replaced, and there is no moment in which a collector that
/// dies leaves a certificate without its key.
///
/// # Errors
/// No key of the authority in `dir`, or a file that cannot be written.
pub fn renew_server(dir: &Path) -> Result<Certified, PkiError> {
    let authority = authority(dir)?;
    let path = dir.join(SERVER_FILE);
    let before = first(&path)?;
    let certified = authority.renew_server(&before, &read_text(&dir.join(SERVER_KEY_FILE))?)?;
    replace(&path, &certified.certificate_pem, Mode::Public)?;
    Ok(certified)
}

fn first(path: &Path) -> Result<CertificateDer<'static>, PkiError> {
    let text = read_text(path)?;
    CertificateDer::from_pem_slice(text.as_bytes()).map_err(|_| PkiError::ServerUnsigned)
}
