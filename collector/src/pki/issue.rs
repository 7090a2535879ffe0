//! Keys and certificates: ECDSA on P-256, each with a key of its own.
//!
//! Serial numbers are derived from the new key by rcgen, so no two certificates share one.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, date_time_ymd,
};

use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::PkiError;
use crate::identity::Role;

/// Days that an authority is valid.
const CA_DAYS: i64 = 10 * 365;
/// Days that the collector's and a peer's certificate is valid: about two years.
const LEAF_DAYS: i64 = 825;

/// A certificate and its key, both PEM.
pub struct Issued {
    pub certificate_pem: String,
    pub key_pem: String,
    /// As [`crate::revocation::Certificate`] has it.
    pub serial: String,
}

/// The authority with its key.
pub struct Authority {
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

fn error(what: impl Into<String>) -> impl FnOnce(rcgen::Error) -> PkiError {
    let what = what.into();
    move |source| PkiError::Certificate { what, source }
}

impl Authority {
    /// A new authority; `host` only tells people whose it is.
    pub fn new(host: &str) -> Result<Authority, PkiError> {
        let what = "making the authority";
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(error(what))?;
        let mut params = params(&format!("Sekimori authority of {host}"), CA_DAYS);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(error(what))?;
        let issuer = Issuer::new(params, key);
        Ok(Authority { certificate_pem: certificate.pem(), issuer })
    }

    /// An authority from its files.
    pub fn load(certificate_pem: &str, key_pem: &str) -> Result<Authority, PkiError> {
        let key = KeyPair::from_pem(key_pem).map_err(error("reading the key of the authority"))?;
        let issuer = Issuer::from_ca_cert_pem(certificate_pem, key)
            .map_err(error("reading the certificate of the authority"))?;
        Ok(Authority { certificate_pem: certificate_pem.to_owned(), issuer })
    }

    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// The collector's certificate for these host names and IP addresses.
    pub fn issue_server(&self, names: &[String]) -> Result<Issued, PkiError> {
        let mut params = params("Sekimori collector", LEAF_DAYS);
        for name in names {
            params.subject_alt_names.push(server_name(name)?);
        }
        self.issue(params, ExtendedKeyUsagePurpose::ServerAuth, "the collector's certificate")
    }

    /// The certificate of an agent or operator. `name` was checked.
    pub fn issue_peer(&self, name: &str, role: Role) -> Result<Issued, PkiError> {
        let what = format!("the certificate of {role} {name}");
        let mut params = params(name, LEAF_DAYS);
        let uri = role.uri(name).try_into().map_err(error(what.clone()))?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        self.issue(params, ExtendedKeyUsagePurpose::ClientAuth, &what)
    }

    fn issue(
        &self,
        mut params: CertificateParams,
        purpose: ExtendedKeyUsagePurpose,
        what: &str,
    ) -> Result<Issued, PkiError> {
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(error(what))?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(error(what))?;
        let unreadable = |_| PkiError::Certificate {
            what: what.to_owned(),
            source: rcgen::Error::CouldNotParseCertificate,
        };
        let (_, parsed) = X509Certificate::from_der(certificate.der()).map_err(unreadable)?;
        Ok(Issued {
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            serial: parsed.raw_serial_as_string(),
        })
    }
}

fn server_name(name: &str) -> Result<SanType, PkiError> {
    if let Ok(ip) = name.parse() {
        return Ok(SanType::IpAddress(ip));
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-*".contains(&byte);
    match name.try_into() {
        Ok(host) if !name.is_empty() && name.len() <= 253 && name.bytes().all(allowed) => {
            Ok(SanType::DnsName(host))
        }
        _ => Err(PkiError::ServerName(name.to_owned())),
    }
}

fn params(common_name: &str, days: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common_name);
    // A day early, for hosts whose clock is behind.
    let (year, month, day) = date(-1);
    params.not_before = date_time_ymd(year, month, day);
    let (year, month, day) = date(days);
    params.not_after = date_time_ymd(year, month, day);
    params
}

/// Year, month and day in UTC, `days` from today.
fn date(days: i64) -> (i32, u8, u8) {
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let date = today.saturating_add(jiff::Span::new().days(days));
    (date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs())
}
