//! Syslog by RFC 5424: one record for each notice, over UDP, TCP or TLS.
//!
//! A record ends where its datagram or its counted length ends, and holds no line end and no other
//! control character, so that servers which store records by line store one as well.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::config::{Facility, SyslogConfig, SyslogTransport};
use super::dial::{Dial, within};
use super::egress::Egress;
use super::error::{Fault, SendError};
use super::notice::{Notice, Severity};
use super::tls;
use super::words::{cut, one_line};
use crate::limits::{
    GOODBYE_TIME_MAX, SYSLOG_DATAGRAM_BYTES, SYSLOG_RECORD_BYTES_MAX, SYSLOG_TIME_MAX,
    SYSLOG_VALUE_BYTES_MAX, TITLE_BYTES_MAX,
};

/// Says that what follows is UTF-8 (RFC 5424, section 6.4).
const BOM: &str = "\u{feff}";
/// The element of what machines look for. Its number is the one that RFC 5612 keeps for examples.
const ELEMENT: &str = "sekimori@32473";

/// Sends records.
pub(super) struct Syslog {
    dial: Dial,
    way: Way,
    facility: Facility,
    /// This host, as records name it.
    host: String,
    pub(super) time_max: Duration,
}

enum Way {
    Udp,
    Tcp,
    Tls(Arc<ClientConfig>),
}

impl Syslog {
    pub(super) fn new(
        config: &SyslogConfig,
        egress: &Egress,
        base: &Path,
    ) -> Result<Syslog, Fault> {
        let dial = Dial::new(config.server.parse()?, egress)?;
        let ca_file = config.ca_file.as_ref().map(|path| base.join(path));
        let way = match (config.transport, &ca_file) {
            (SyslogTransport::Tls, _) => Way::Tls(tls::config(ca_file.as_deref())?),
            (_, Some(_)) => return Err(Fault::NoTls),
            (SyslogTransport::Udp, None) => Way::Udp,
            (SyslogTransport::Tcp, None) => Way::Tcp,
        };
        let (facility, host) = (config.facility, host());
        Ok(Syslog { dial, way, facility, host, time_max: SYSLOG_TIME_MAX })
    }

    pub(super) async fn send(&self, notice: &Notice) -> Result<(), SendError> {
        within(self.time_max, &self.dial.target, async {
            match &self.way {
                Way::Udp => self.datagram(notice).await,
                Way::Tcp => self.stream(notice, self.dial.connect().await?).await,
                Way::Tls(config) => {
                    let stream = self.dial.connect().await?;
                    let stream = tls::connect(config, &self.dial.target, stream).await?;
                    self.stream(notice, stream).await
                }
            }
        })
        .await
    }

    /// The record, cut between two characters so that it has at most `bytes_max` bytes.
    pub(super) fn record(&self, notice: &Notice, bytes_max: usize) -> String {
        let priority = u32::from(self.facility as u8) * 8 + level(notice.severity);
        let record = format!(
            "<{priority}>1 {time} {host} sekimori {pid} alert \
             [{ELEMENT} id=\"{id}\" rule=\"{rule}\" severity=\"{severity}\"] {BOM}{title}: {text}",
            time = notice.time(),
            host = self.host,
            pid = std::process::id(),
            id = value(&notice.id),
            rule = value(&notice.rule),
            severity = notice.severity,
            title = one_line(&notice.title, TITLE_BYTES_MAX),
            text = one_line(notice.text.trim_end(), SYSLOG_RECORD_BYTES_MAX),
        );
        cut(&record, bytes_max).to_owned()
    }

    async fn datagram(&self, notice: &Notice) -> Result<(), SendError> {
        let record = self.record(notice, SYSLOG_DATAGRAM_BYTES);
        let addresses = self.dial.addresses().await?;
        let mut failed = SendError::retry(format!("{} has no address", self.dial.target));
        for address in addresses {
            let any: SocketAddr = match address {
                SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
            };
            let sent = async {
                let socket = UdpSocket::bind(any).await?;
                socket.connect(address).await?;
                socket.send(record.as_bytes()).await
            };
            match sent.await {
                Ok(_) => return Ok(()),
                Err(error) => {
                    failed = SendError::retry(format!("cannot send to {address}: {error}"))
                }
            }
        }
        Err(failed)
    }

    /// Sends the record with its length in front, and waits for the end of the connection: syslog
    /// knows no answer, but a server that is gone resets it.
    async fn stream<S>(&self, notice: &Notice, mut stream: S) -> Result<(), SendError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let target = &self.dial.target;
        let gone = |error| SendError::retry(format!("{target} is gone: {error}"));
        let record = self.record(notice, SYSLOG_RECORD_BYTES_MAX);
        let frame = format!("{} {record}", record.len());
        stream.write_all(frame.as_bytes()).await.map_err(gone)?;
        stream.flush().await.map_err(gone)?;
        stream.shutdown().await.map_err(gone)?;
        let mut said = [0; 256];
        match timeout(GOODBYE_TIME_MAX, stream.read(&mut said)).await {
            // Many servers end TLS by ending the connection.
            Ok(Err(error)) if error.kind() != std::io::ErrorKind::UnexpectedEof => Err(gone(error)),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Syslog {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Syslog({}, {:?})", self.dial.target, self.facility)
    }
}

/// The severities of RFC 5424, section 6.2.1: critical, error, warning, notice, informational.
const fn level(severity: Severity) -> u32 {
    match severity {
        Severity::Critical => 2,
        Severity::High => 3,
        Severity::Medium => 4,
        Severity::Low => 5,
        Severity::Info => 6,
    }
}

/// A value of structured data: `"`, `\` and `]` behind a backslash (RFC 5424, section 6.3.3).
fn value(text: &str) -> String {
    let mut value = String::new();
    for character in one_line(text, SYSLOG_VALUE_BYTES_MAX).chars() {
        if matches!(character, '"' | '\\' | ']') {
            value.push('\\');
        }
        value.push(character);
    }
    value
}

/// The name of this host in the characters that the field may have, or `-`.
fn host() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let name = name.unwrap_or_default();
    let good = (1..=255).contains(&name.len()) && name.bytes().all(|it| it.is_ascii_graphic());
    if good { name } else { "-".to_owned() }
}
