//! The receiver: where it is, whom it is trusted by, and the headers that it wants.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use thiserror::Error;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint, Uri};
use tonic::{Request, Status};

use crate::limits::{
    HANDSHAKE_TIME_MAX, OTLP_ANSWER_BYTES_MAX, OTLP_HEADERS_BYTES_MAX, OTLP_HEADERS_MAX,
    OTLP_SEND_TIME_MAX,
};
use crate::store::{FilterError, StoreError};

/// Headers that belong to gRPC and HTTP/2 themselves.
const RESERVED: [&str; 10] = [
    "connection",
    "content-length",
    "content-type",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

/// Where stored events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpConfig {
    /// `https://HOST:PORT`, or `http://` and an address of this machine.
    pub url: String,
    /// Authorities that may vouch for it; those of the system when there is no file.
    pub ca: Option<PathBuf>,
    /// Lines `NAME: VALUE`, readable by their owner only.
    pub headers: Option<PathBuf>,
}

/// Why nothing can be sent there.
#[derive(Debug, Error)]
pub enum OtlpError {
    /// The URL.
    #[error("--otlp {url}: {why}")]
    Url {
        /// Which.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The authorities.
    #[error("--otlp-ca: {0}")]
    Authorities(String),
    /// The headers.
    #[error("--otlp-headers {path}: {why}", path = .path.display())]
    Headers {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it; never a value.
        why: String,
    },
    /// How far it was sent.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The filter that asks for everything, which is not wrong.
    #[error(transparent)]
    Filter(#[from] FilterError),
}

/// A receiver.
#[derive(Debug)]
pub struct Target {
    url: String,
    client: LogsServiceClient<Channel>,
    file: Option<PathBuf>,
    headers: MetadataMap,
}

impl Target {
    /// Reads what it needs and connects to nothing.
    ///
    /// # Errors
    /// [`OtlpError`].
    pub fn new(config: &OtlpConfig) -> Result<Target, OtlpError> {
        let OtlpConfig { url, ca, headers: file } = config;
        let bad = |why: String| OtlpError::Url { url: url.clone(), why };
        let uri = url.parse::<Uri>().map_err(|error| bad(error.to_string()))?;
        let host = checked(&uri).map_err(bad)?;
        let mut endpoint = Endpoint::from(uri.clone())
            .user_agent(concat!("sekimori-collector/", env!("CARGO_PKG_VERSION")))
            .map_err(|error| bad(error.to_string()))?
            .connect_timeout(HANDSHAKE_TIME_MAX)
            .timeout(OTLP_SEND_TIME_MAX);
        if uri.scheme_str() == Some("https") {
            let roots = authorities(ca.as_deref()).map_err(OtlpError::Authorities)?.roots;
            let tls = ClientTlsConfig::new().domain_name(host).trust_anchors(roots);
            endpoint = endpoint.tls_config(tls).map_err(|error| bad(error.to_string()))?;
        }
        let headers = file.as_deref().map_or_else(|| Ok(MetadataMap::new()), read)?;
        let client = LogsServiceClient::new(endpoint.connect_lazy())
            .max_decoding_message_size(OTLP_ANSWER_BYTES_MAX);
        Ok(Target { url: url.clone(), client, file: file.clone(), headers })
    }

    /// What it is known by.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Reads the headers anew: what is secret in them may have changed.
    ///
    /// # Errors
    /// When they cannot be used; then those from before stay.
    pub fn refresh(&mut self) -> Result<(), OtlpError> {
        if let Some(file) = &self.file {
            self.headers = read(file)?;
        }
        Ok(())
    }

    /// Sends one request and waits for the answer.
    ///
    /// # Errors
    /// What the receiver, or the way there, says.
    pub async fn send(
        &mut self,
        request: ExportLogsServiceRequest,
    ) -> Result<ExportLogsServiceResponse, Status> {
        let mut request = Request::new(request);
        *request.metadata_mut() = self.headers.clone();
        Ok(self.client.export(request).await?.into_inner())
    }
}

/// Those of a file, or of the system. What rustls cannot use of the system's is left out.
fn authorities(file: Option<&Path>) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let Some(file) = file else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let none = || Err("this system knows no authorities: name a file".to_owned());
        return if roots.is_empty() { none() } else { Ok(roots) };
    };
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| told(&error))? {
        let certificate = certificate.map_err(|error| told(&error))?;
        roots.add(certificate).map_err(|error| told(&error))?;
    }
    if roots.is_empty() { Err(told(&"no certificate in it")) } else { Ok(roots) }
}

/// Its host, without the brackets of an address.
fn checked(uri: &Uri) -> Result<String, String> {
    let form = "expected https://HOST:PORT";
    let authority = uri.authority().ok_or(form)?;
    let bare = authority.as_str().contains('@') || uri.query().is_some() || uri.path() != "/";
    if bare || authority.port_u16().is_none_or(|port| port == 0) {
        return Err(form.to_owned());
    }
    let host = authority.host();
    let host = host.strip_prefix('[').and_then(|it| it.strip_suffix(']')).unwrap_or(host);
    match uri.scheme_str() {
        Some("https") => Ok(host.to_owned()),
        // A name might be another machine's tomorrow.
        Some("http") if host.parse::<IpAddr>().is_ok_and(|it| it.is_loopback()) => {
            Ok(host.to_owned())
        }
        Some("http") => Err("http:// only to 127.0.0.1 or [::1]; expected https://".to_owned()),
        _ => Err(form.to_owned()),
    }
}

fn read(path: &Path) -> Result<MetadataMap, OtlpError> {
    let read = || {
        let data = std::fs::metadata(path).map_err(|error| error.to_string())?;
        if data.permissions().mode() & 0o077 != 0 {
            return Err("others may read it; chmod 600".to_owned());
        }
        if data.len() > OTLP_HEADERS_BYTES_MAX {
            return Err(format!("longer than {OTLP_HEADERS_BYTES_MAX} bytes"));
        }
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        headers(&text)
    };
    read().map_err(|why| OtlpError::Headers { path: path.to_owned(), why })
}

fn headers(text: &str) -> Result<MetadataMap, String> {
    let mut headers = MetadataMap::new();
    for (line, number) in text.lines().zip(1..) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) =
            line.split_once(':').ok_or_else(|| format!("line {number}: expected NAME: VALUE"))?;
        let name = name.trim().to_ascii_lowercase();
        if RESERVED.contains(&name.as_str()) || name.starts_with("grpc-") {
            return Err(format!("line {number}: {name} is for gRPC itself to say"));
        }
        let key = AsciiMetadataKey::from_bytes(name.as_bytes());
        let key = key.map_err(|_| format!("line {number}: the name cannot be one of a header"))?;
        // The crate lets bytes beyond ASCII pass, gRPC does not.
        let value = Some(value.trim()).filter(|it| it.is_ascii());
        let value = value.and_then(|it| AsciiMetadataValue::try_from(it).ok());
        let mut value =
            value.ok_or_else(|| format!("line {number}: the value cannot be one of a header"))?;
        value.set_sensitive(true);
        headers.append(key, value);
        if headers.len() > OTLP_HEADERS_MAX {
            return Err(format!("more than {OTLP_HEADERS_MAX} headers"));
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

    use std::fs::{self, Permissions};

    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("https://logs.example:4317", Some("logs.example"))]
    #[case("https://logs.example:4317/", Some("logs.example"))]
    #[case("https://[2001:db8::1]:4317", Some("2001:db8::1"))]
    #[case("http://127.0.0.1:4317", Some("127.0.0.1"))]
    #[case("http://[::1]:4317", Some("::1"))]
    #[case("http://localhost:4317", None)]
    #[case("http://192.0.2.1:4317", None)]
    #[case("https://logs.example", None)]
    #[case("https://logs.example:0", None)]
    #[case("https://user@logs.example:4317", None)]
    #[case("https://logs.example:4317/v1/logs", None)]
    #[case("https://logs.example:4317/?key=1", None)]
    #[case("ftp://logs.example:4317", None)]
    #[case("logs.example:4317", None)]
    fn where_it_may_be(#[case] url: &str, #[case] host: Option<&str>) {
        let found = url.parse::<Uri>().ok().and_then(|uri| checked(&uri).ok());
        assert_eq!(found.as_deref(), host);
    }

    #[test]
    fn headers_of_a_file() {
        let found = headers("# one\n Authorization : Bearer a:b \n\nx-scope:sekimori\n").unwrap();
        assert_eq!(found.get("authorization").unwrap().to_str().unwrap(), "Bearer a:b");
        assert_eq!(found.get("x-scope").unwrap().to_str().unwrap(), "sekimori");
        assert!(found.get("authorization").unwrap().is_sensitive());
        assert_eq!(found.len(), 2);
    }

    #[rstest]
    #[case("secret-token", "line 1: expected NAME: VALUE")]
    #[case("\nTe: secret-token", "line 2: te is")]
    #[case("grpc-timeout: secret-token", "line 1: grpc-timeout is")]
    #[case("a b: secret-token", "line 1: the name")]
    #[case("x-bin: secret-token", "line 1: the name")]
    #[case("x: secret-token\u{7f}", "line 1: the value")]
    #[case("x: secret-token会社", "line 1: the value")]
    fn wrong_headers_are_told_without_the_value(#[case] text: &str, #[case] why: &str) {
        let error = headers(text).unwrap_err();
        assert!(error.contains(why) && !error.contains("secret-token"), "{error}");
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("headers");
        fs::write(&path, "x-scope: a").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let config = OtlpConfig {
            url: "http://127.0.0.1:1".to_owned(),
            ca: None,
            headers: Some(path.clone()),
        };
        let error = Target::new(&config).expect_err("it is refused").to_string();
        assert!(error.contains("chmod 600"), "{error}");
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        // A channel belongs to a runtime, also one that never connects.
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let mut target = runtime.block_on(async { Target::new(&config) }).unwrap();
        fs::write(&path, "x-scope: b").unwrap();
        target.refresh().unwrap();
        assert_eq!(target.headers.get("x-scope").unwrap().to_str().unwrap(), "b");
    }
}
