//! Connecting to the collector.

use std::path::PathBuf;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use sekimori_agent::causes::causes;
use sekimori_agent::config::{Address, Tls};
use sekimori_agent::credentials;
use serde::Deserialize as _;
use serde::de::IntoDeserializer as _;
use serde::de::value::{Error as ValueError, StrDeserializer};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};

use crate::failure::Failure;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Where the collector is and who we are.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Collector")]
pub struct CollectorArgs {
    /// unix:/PATH or https://HOST:PORT.
    #[arg(
        long, env = "SEKIMORI_COLLECTOR", value_name = "ADDRESS", value_parser = address,
        default_value = "unix:/run/sekimori/collector.sock"
    )]
    collector: Address,
    /// https: certificate of the authority that signed the collector's, PEM.
    #[arg(long, env = "SEKIMORI_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// https: your certificate, PEM.
    #[arg(long, env = "SEKIMORI_CERT", value_name = "FILE")]
    cert: Option<PathBuf>,
    /// https: your key, PEM.
    #[arg(long, env = "SEKIMORI_KEY", value_name = "FILE")]
    key: Option<PathBuf>,
    /// https: name in the collector's certificate, when it is not the host of the address.
    #[arg(long, env = "SEKIMORI_SERVER_NAME", value_name = "NAME")]
    server_name: Option<String>,
}

fn address(text: &str) -> Result<Address, ValueError> {
    let text: StrDeserializer<'_, ValueError> = text.into_deserializer();
    Address::deserialize(text)
}

impl CollectorArgs {
    /// The address as it was given.
    pub fn address(&self) -> String {
        self.collector.to_string()
    }

    pub async fn connect(&self) -> Result<Channel, Failure> {
        let connected = match &self.collector {
            Address::Unix(path) => {
                let path = path.clone();
                let connector = tower::service_fn(move |_| {
                    let path = path.clone();
                    async move { tokio::net::UnixStream::connect(path).await.map(TokioIo::new) }
                });
                // The socket is reached by its path; gRPC wants some authority all the same.
                endpoint("http://localhost")?.connect_with_connector(connector).await
            }
            Address::Https(address) => {
                let files = self.files()?;
                let endpoint = endpoint(address)?.tls_config(tls(&files)?);
                let endpoint = endpoint.map_err(|error| Failure::usage(causes(&error)))?;
                let connected = endpoint.connect().await;
                if let Ok(channel) = &connected {
                    renew_if_due(channel, &files).await;
                }
                connected
            }
        };
        connected.map_err(|error| self.unreachable(&error))
    }

    /// The address, and the files of an enrolment.
    pub fn enrolment(&self) -> Result<(&Address, Tls), Failure> {
        Ok((&self.collector, self.files()?))
    }

    fn files(&self) -> Result<Tls, Failure> {
        let (Some(ca), Some(cert), Some(key)) = (&self.ca, &self.cert, &self.key) else {
            return Err(Failure::usage(
                "an https collector needs --ca, --cert and --key (or SEKIMORI_CA, SEKIMORI_CERT, \
                 SEKIMORI_KEY); `sekimori enroll` makes the files, with a token of \
                 `sekimori-collector token NAME --role ROLE`",
            ));
        };
        let (ca, cert, key) = (ca.clone(), cert.clone(), key.clone());
        Ok(Tls { ca, cert, key, server_name: self.server_name.clone() })
    }

    fn unreachable(&self, error: &dyn std::error::Error) -> Failure {
        let text = causes(error);
        let address = self.address();
        if text.contains("Permission denied") {
            return Failure::permission(format!(
                "may not open the collector's socket {address}; run this command with sudo"
            ));
        }
        Failure::failed(format!(
            "no collector answers on {address}: {text}; is it running (systemctl status \
             sekimori-collector), and is --collector right?"
        ))
    }

    /// What a call's failure means.
    pub fn refused(&self, status: &Status) -> Failure {
        let message = status.message();
        let address = self.address();
        match status.code() {
            Code::PermissionDenied | Code::Unauthenticated => {
                Failure::permission(format!("the collector on {address} refused: {message}"))
            }
            Code::InvalidArgument => Failure::usage(format!("the collector says: {message}")),
            // It was let go of after the handshake, and nothing says why.
            Code::Unknown | Code::Unavailable if message == "transport error" => {
                Failure::failed(format!(
                    "the collector on {address} ended the connection; its log says why (is the \
                     certificate revoked?)"
                ))
            }
            _ => Failure::failed(format!("the collector on {address} failed: {message}")),
        }
    }
}

fn tls(files: &Tls) -> Result<ClientTlsConfig, Failure> {
    let read = credentials::read(files).map_err(|error| Failure::usage(error.to_string()))?;
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(read.ca))
        .identity(Identity::from_pem(read.cert, read.key));
    Ok(match &files.server_name {
        Some(name) => tls.domain_name(name),
        None => tls,
    })
}

/// Operators renew when they ask anyway. It is no reason not to answer them that it fails: others
/// may be renewing, or the files may be somebody else's.
async fn renew_if_due(channel: &Channel, files: &Tls) {
    let Ok(Some(life)) = credentials::is_due(files) else {
        return;
    };
    if let Err(error) = credentials::renew_over(channel.clone(), files).await {
        let until = jiff::Timestamp::from_second(life.until_s).unwrap_or_default();
        let note = format!("note: your certificate ends at {until} and cannot be renewed: {error}");
        anstream::eprintln!("{note}");
    }
}

fn endpoint(address: &str) -> Result<Endpoint, Failure> {
    let endpoint = Endpoint::from_shared(address.to_owned())
        .map_err(|error| Failure::usage(format!("{address}: {error}")))?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_while_idle(true))
}
