//! Keys and certificates: ECDSA on P-256.
//!
//! Serial numbers are random and not derived from the key, as rcgen would do: whoever sends a
//! request chooses the key, and a key that comes again must not bring the number of a revoked
//! certificate.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PublicKeyData, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, GeneralName, SubjectPublicKeyInfo, X509Certificate};

use super::PkiError;
use crate::identity::Role;
use crate::limits::{CSR_BYTES_MAX, SECONDS_A_DAY};

/// Days that an authority is valid.
const CA_DAYS: u32 = 10 * 365;
/// Days that the collector's own certificate is valid: about two years.
const SERVER_DAYS: u32 = 825;
/// Bytes of a serial number; at most 20 (RFC 5280, 4.1.2.2).
const SERIAL_BYTES: usize = 16;

/// How long a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Seconds from now to its end. It begins a day before now, for hosts whose clock is behind.
    pub seconds: u64,
}

impl Life {
    /// So many days from now.
    pub const fn days(days: u32) -> Life {
        Life { seconds: days as u64 * SECONDS_A_DAY }
    }

    /// As long as a certificate that was valid between these seconds since 1970; at most `most`.
    pub fn as_between(from_s: i64, until_s: i64, most: Life) -> Life {
        let seconds = u64::try_from(until_s.saturating_sub(from_s)).unwrap_or(0);
        Life { seconds: seconds.saturating_sub(SECONDS_A_DAY).clamp(1, most.seconds) }
    }
}

/// A request for a certificate, checked: whoever sent it has the key. Nothing else in it counts.
#[derive(Debug)]
pub struct SigningRequest(CertificateSigningRequestParams);

/// A certificate for a key that is elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified {
    /// The certificate.
    pub certificate_pem: String,
    /// Its serial number.
    pub serial: String,
    /// Seconds since 1970 of its end.
    pub until_s: i64,
}

/// A certificate and its key.
pub struct Issued {
    pub certified: Certified,
    pub key_pem: String,
}

/// The authority with its key.
pub struct Authority {
    /// What others shall trust: the authority's certificate, and others beside it.
    bundle_pem: String,
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
        let key = new_key(what)?;
        let mut params = params(&format!("Sekimori authority of {host}"), Life::days(CA_DAYS));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(error(what))?;
        let issuer = Issuer::new(params, key);
        Ok(Authority { bundle_pem: certificate.pem(), issuer })
    }

    /// An authority from its files. `bundle_pem` may hold more than one certificate; the one that
    /// the key belongs to is used.
    pub fn load(bundle_pem: &str, key_pem: &str) -> Result<Authority, PkiError> {
        let key = KeyPair::from_pem(key_pem).map_err(error("reading the key of the authority"))?;
        let what = "reading the certificate of the authority";
        let unreadable = || error(what)(rcgen::Error::CouldNotParseCertificate);
        for certificate in CertificateDer::pem_slice_iter(bundle_pem.as_bytes()) {
            let certificate = certificate.map_err(|_| unreadable())?;
            let (_, parsed) = X509Certificate::from_der(&certificate).map_err(|_| unreadable())?;
            if parsed.public_key().raw == key.subject_public_key_info() {
                let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(error(what))?;
                return Ok(Authority { bundle_pem: bundle_pem.to_owned(), issuer });
            }
        }
        Err(PkiError::OtherKey)
    }

    /// What others shall trust, PEM.
    pub fn bundle_pem(&self) -> &str {
        &self.bundle_pem
    }

    /// The authority's key, PEM.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// The collector's certificate for these host names and IP addresses.
    pub fn issue_server(&self, names: &[String]) -> Result<Issued, PkiError> {
        let key = new_key("the collector's certificate")?;
        let certified = self.certify_server(names, &key)?;
        Ok(Issued { key_pem: key.serialize_pem(), certified })
    }

    /// Another one in the place of `before`, for the same names and the same key.
    pub fn renew_server(&self, before: &[u8], key_pem: &str) -> Result<Certified, PkiError> {
        let what = "renewing the collector's certificate";
        let unreadable = |_| error(what)(rcgen::Error::CouldNotParseCertificate);
        let key = KeyPair::from_pem(key_pem).map_err(error(what))?;
        let (_, before) = X509Certificate::from_der(before)
            .map_err(|_| error(what)(rcgen::Error::CouldNotParseCertificate))?;
        // One that somebody else made is theirs to renew.
        let own = self.issuer.key().subject_public_key_info();
        let (_, own) = SubjectPublicKeyInfo::from_der(&own)
            .map_err(|_| error(what)(rcgen::Error::CouldNotParseCertificate))?;
        before.verify_signature(Some(&own)).map_err(|_| PkiError::ServerUnsigned)?;
        let names = before.subject_alternative_name().map_err(unreadable)?;
        let names =
            names.iter().flat_map(|it| &it.value.general_names).filter_map(|name| match name {
                GeneralName::DNSName(name) => Some((*name).to_owned()),
                GeneralName::IPAddress(bytes) => address(bytes),
                _ => None,
            });
        self.certify_server(&names.collect::<Vec<_>>(), &key)
    }

    fn certify_server(&self, names: &[String], key: &KeyPair) -> Result<Certified, PkiError> {
        let mut params = params("Sekimori collector", Life::days(SERVER_DAYS));
        for name in names {
            params.subject_alt_names.push(server_name(name)?);
        }
        let what = "the collector's certificate";
        self.certify(params, ExtendedKeyUsagePurpose::ServerAuth, key, what)
    }

    /// The certificate of an agent or operator, with its key. `name` was checked.
    pub fn issue_peer(&self, name: &str, role: Role, life: Life) -> Result<Issued, PkiError> {
        let key = new_key(&format!("the certificate of {role} {name}"))?;
        let certified = self.certify_key(name, role, life, &key)?;
        Ok(Issued { key_pem: key.serialize_pem(), certified })
    }

    /// The certificate of an agent or operator for the key of a request. `name` was checked.
    pub fn certify_peer(
        &self,
        name: &str,
        role: Role,
        life: Life,
        request: &SigningRequest,
    ) -> Result<Certified, PkiError> {
        self.certify_key(name, role, life, &request.0.public_key)
    }

    fn certify_key(
        &self,
        name: &str,
        role: Role,
        life: Life,
        key: &impl PublicKeyData,
    ) -> Result<Certified, PkiError> {
        let what = format!("the certificate of {role} {name}");
        let mut params = params(name, life);
        let uri = role.uri(name).try_into().map_err(error(what.clone()))?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        self.certify(params, ExtendedKeyUsagePurpose::ClientAuth, key, &what)
    }

    fn certify(
        &self,
        mut params: CertificateParams,
        purpose: ExtendedKeyUsagePurpose,
        key: &impl PublicKeyData,
        what: &str,
    ) -> Result<Certified, PkiError> {
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(new_serial()?);
        let certificate = params.signed_by(key, &self.issuer).map_err(error(what))?;
        let unreadable = |_| error(what)(rcgen::Error::CouldNotParseCertificate);
        let (_, parsed) = X509Certificate::from_der(certificate.der()).map_err(unreadable)?;
        Ok(Certified {
            certificate_pem: certificate.pem(),
            serial: parsed.raw_serial_as_string(),
            until_s: parsed.validity().not_after.timestamp(),
        })
    }
}

impl SigningRequest {
    /// Reads a request (PKCS #10, DER) and checks its signature.
    ///
    /// # Errors
    /// [`PkiError::Request`].
    pub fn from_der(der: &[u8]) -> Result<SigningRequest, PkiError> {
        if der.len() > CSR_BYTES_MAX {
            return Err(PkiError::Request(format!("{} bytes", der.len())));
        }
        let request = CertificateSigningRequestParams::from_der(&der.to_vec().into())
            .map_err(|error| PkiError::Request(error.to_string()))?;
        if request.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(PkiError::Request("its key is not on P-256".to_owned()));
        }
        Ok(SigningRequest(request))
    }
}

fn new_key(what: &str) -> Result<KeyPair, PkiError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(error(what))
}

/// A positive number that needs no leading zero: its first byte is 0x40 to 0x7f.
fn new_serial() -> Result<SerialNumber, PkiError> {
    let mut serial = [0; SERIAL_BYTES];
    getrandom::fill(&mut serial).map_err(PkiError::Random)?;
    let [first, ..] = &mut serial;
    *first = *first & 0x3f | 0x40;
    Ok(SerialNumber::from_slice(&serial))
}

/// An address of a certificate: four or sixteen bytes.
fn address(bytes: &[u8]) -> Option<String> {
    let four = <[u8; 4]>::try_from(bytes).map(|it| std::net::IpAddr::from(it).to_string());
    let sixteen = <[u8; 16]>::try_from(bytes).map(|it| std::net::IpAddr::from(it).to_string());
    four.or(sixteen).ok()
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

fn params(common_name: &str, life: Life) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let now = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or(0);
    let at = |seconds| date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
    // A day early, for hosts whose clock is behind.
    params.not_before = at(now.saturating_sub(SECONDS_A_DAY));
    params.not_after = at(now.saturating_add(life.seconds));
    params
}
