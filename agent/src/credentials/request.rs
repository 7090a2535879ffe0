//! Keys, requests for a certificate, and what a certificate says.

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use x509_parser::extensions::GeneralName;
use x509_parser::pem::parse_x509_pem;

use super::{CredentialsError, failed};
use crate::config::Tls;

/// What the name of an agent begins with in its certificate.
const AGENT: &str = "sekimori:agent:";

/// When a certificate is valid, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// From here on.
    pub from_s: i64,
    /// Its end.
    pub until_s: i64,
}

impl Life {
    /// Of the first certificate of a PEM text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of(pem: &[u8]) -> Result<Self, String> {
        let (_, pem) = parse_x509_pem(pem).map_err(|error| error.to_string())?;
        let certificate = pem.parse_x509().map_err(|error| error.to_string())?;
        let validity = certificate.validity();
        Ok(Self {
            from_s: validity.not_before.timestamp(),
            until_s: validity.not_after.timestamp(),
        })
    }

    /// Less than a third of it is left.
    #[must_use]
    pub const fn is_due(self, now_s: i64) -> bool {
        let life = self.until_s.saturating_sub(self.from_s);
        self.until_s.saturating_sub(now_s) < life / 3
    }
}

pub(super) fn new_key() -> Result<KeyPair, CredentialsError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(CredentialsError::Key)
}

/// A request (PKCS #10, DER) that says nothing but the key: the collector knows who asks.
pub(super) fn request(key: &KeyPair) -> Result<Vec<u8>, CredentialsError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let request = params.serialize_request(key).map_err(CredentialsError::Key)?;
    Ok(request.der().to_vec())
}

/// Whether a certificate belongs to a key, both PEM. What is not understood is left for TLS to
/// refuse.
pub(super) fn belong(cert_pem: &[u8], key_pem: &[u8]) -> bool {
    let Some(key) = std::str::from_utf8(key_pem).ok().and_then(|it| KeyPair::from_pem(it).ok())
    else {
        return true;
    };
    let Ok((_, pem)) = parse_x509_pem(cert_pem) else {
        return true;
    };
    pem.parse_x509().map_or(true, |it| it.public_key().raw == key.subject_public_key_info())
}

/// The name of this host as the collector knows it: by its certificate, or, on a unix socket, as the
/// machine is called.
///
/// # Errors
/// A certificate that cannot be read, or that is no agent's.
pub fn own_name(tls: Option<&Tls>) -> Result<String, CredentialsError> {
    let Some(tls) = tls else {
        let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        return Ok(name.filter(|name| is_name(name)).unwrap_or_else(|| "localhost".to_owned()));
    };
    let pem = std::fs::read(&tls.cert).map_err(failed("read", &tls.cert))?;
    name_of(&pem).map_err(|reason| CredentialsError::Unreadable { path: tls.cert.clone(), reason })
}

/// As the collector takes it for a host.
fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    first && name.len() <= 64 && name.bytes().all(allowed)
}

fn name_of(pem: &[u8]) -> Result<String, String> {
    let (_, pem) = parse_x509_pem(pem).map_err(|error| error.to_string())?;
    let certificate = pem.parse_x509().map_err(|error| error.to_string())?;
    let names = certificate.subject_alternative_name().map_err(|error| error.to_string())?;
    let names = names.iter().flat_map(|names| &names.value.general_names);
    let mut agents = names.filter_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix(AGENT),
        _ => None,
    });
    match (agents.next(), agents.next()) {
        (Some(name), None) => Ok(name.to_owned()),
        _ => Err("it is not the certificate of one agent".to_owned()),
    }
}
