//! The first certificate, for a token.
//!
//! The token names the authority of the collector by its hash. Whoever answers must show a
//! certificate of exactly that authority for the host of the address, before anything is sent.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};
use sekimori_policy::bundle;
use sekimori_proto::token::Token;
use sekimori_proto::v1::EnrollRequest;
use sekimori_proto::v1::enroll_service_client::EnrollServiceClient;
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use super::files::{check_private, pin};
use super::{CredentialsError, failed, refused, stage};
use crate::causes::causes;
use crate::config::{Address, Tls};
use crate::limits;

/// Where to enrol and what with.
pub struct Enrolment<'a> {
    /// The collector's address.
    pub address: &'a Address,
    /// Where the files go, and the name in the collector's certificate.
    pub tls: &'a Tls,
    /// The token.
    pub token: &'a Token,
    /// A key that is there is given up.
    pub replace: bool,
    /// Where the key goes that the collector's policies are signed with.
    pub policy_key: Option<&'a Path>,
}

/// Reads a token from a file, or from standard input when the path is `-`. Never from the command
/// line: everybody on the machine can read that.
///
/// # Errors
/// A file that cannot be read or that others may read, or no token in it.
pub fn read_token(path: &Path) -> Result<Token, CredentialsError> {
    let mut text = String::new();
    let most = limits::TOKEN_FILE_BYTES_MAX;
    if path == Path::new("-") {
        let read = std::io::stdin().lock().take(most).read_to_string(&mut text);
        read.map_err(failed("read", Path::new("standard input")))?;
    } else {
        check_private(path)?;
        let file = std::fs::File::open(path).map_err(failed("read", path))?;
        file.take(most).read_to_string(&mut text).map_err(failed("read", path))?;
    }
    Ok(text.parse()?)
}

/// Gets a certificate and puts it with its key where the configuration expects them. Answers who
/// the collector says that this is: role and name.
///
/// # Errors
/// Whatever fails; the token is used up only when the collector was asked and gave an answer, or
/// when the connection broke meanwhile.
pub async fn enroll(enrolment: Enrolment<'_>) -> Result<String, CredentialsError> {
    let Enrolment { address, tls, token, replace, policy_key } = enrolment;
    if !replace && tls.key.symlink_metadata().is_ok() {
        return Err(CredentialsError::Exists(tls.key.clone()));
    }
    let staged = stage(tls)?;
    let channel = connect(address, tls.server_name.as_deref(), token.authority).await?;
    let request = EnrollRequest { token: token.to_string(), csr: staged.request()? };
    let mut client = EnrollServiceClient::new(channel);
    let answer = timeout(limits::ENROLL_TIMEOUT, client.enroll(request)).await.map_err(|_| {
        CredentialsError::Refused {
            code: tonic::Code::DeadlineExceeded,
            message: "no answer in time; the token may be used up".to_owned(),
        }
    })?;
    let answer = answer.map_err(|status| refused(&status))?.into_inner();
    if !names_authority(&answer.ca, token.authority) {
        return Err(CredentialsError::Answer(
            "it does not have the authority that the token names",
        ));
    }
    staged.commit(&answer.certificate, &answer.ca)?;
    if let Some(path) = policy_key.filter(|_| !answer.policy_key.is_empty()) {
        pin(path, &bundle::key_text(&answer.policy_key), replace)?;
    }
    Ok(format!("{} {}", answer.role, answer.name))
}

fn names_authority(pem: &str, hash: [u8; 32]) -> bool {
    use rustls::pki_types::pem::PemObject as _;
    CertificateDer::pem_slice_iter(pem.as_bytes()).flatten().any(|it| is(&it, hash))
}

fn is(certificate: &CertificateDer<'_>, hash: [u8; 32]) -> bool {
    <[u8; 32]>::from(Sha256::digest(certificate)) == hash
}

async fn connect(
    address: &Address,
    server_name: Option<&str>,
    authority: [u8; 32],
) -> Result<Channel, CredentialsError> {
    let unusable = || CredentialsError::Address(address.to_string());
    let Address::Https(text) = address else {
        return Err(unusable());
    };
    let uri: Uri = text.parse().map_err(|_| unusable())?;
    let (host, port) = (uri.host().ok_or_else(unusable)?, uri.port_u16().ok_or_else(unusable)?);
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = server_name.unwrap_or(&host).to_owned();
    let name = ServerName::try_from(name).map_err(|_| unusable())?;
    let failed = |message| CredentialsError::Connect { address: address.to_string(), message };
    let config = Arc::new(client_config(authority).map_err(|error| failed(error.to_string()))?);
    let connector = tower::service_fn(move |_: Uri| {
        let (config, host, name) = (Arc::clone(&config), host.clone(), name.clone());
        async move {
            let stream = TcpStream::connect((host.as_str(), port)).await?;
            let stream = TlsConnector::from(config).connect(name, stream).await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    // TLS is the connector's; gRPC wants some authority all the same.
    let endpoint =
        Endpoint::from_static("http://localhost").connect_timeout(limits::CONNECT_TIMEOUT);
    let connected = timeout(limits::CONNECT_TIMEOUT, endpoint.connect_with_connector(connector));
    let connected = connected.await.map_err(|_| failed("no answer in time".to_owned()))?;
    connected.map_err(|error| failed(causes(&error)))
}

fn client_config(authority: [u8; 32]) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(Pinned { authority, provider: Arc::clone(&provider) });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Trusts one authority, known by its hash, and only what it signed for the host that was asked
/// for.
#[derive(Debug)]
struct Pinned {
    authority: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    fn algorithms(&self) -> &WebPkiSupportedAlgorithms {
        &self.provider.signature_verification_algorithms
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let authority = intermediates.iter().find(|it| is(it, self.authority));
        let authority = authority.ok_or_else(|| {
            TlsError::General(
                "it does not show the authority that the token names: it is another collector, or \
                 somebody is in between; nothing was sent"
                    .to_owned(),
            )
        })?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::clone(&self.provider),
        );
        let verifier = verifier.build().map_err(|error| TlsError::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Err(TlsError::General("TLS 1.3 only".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signature, self.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms().supported_schemes()
    }
}
