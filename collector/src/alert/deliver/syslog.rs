//! Notices as syslog (RFC 5424): over UDP (RFC 5426), TCP with octets counted (RFC 6587) or TLS
//! (RFC 5425).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ClientConfig;
use serde::Deserialize;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::net::UdpSocket;

use super::connect::{Target, roots, tls};
use super::{Egress, Notice, SendError, Severity, one_line};
use crate::limits::{SYSLOG_DATAGRAM_BYTES_MAX, SYSLOG_RECORD_BYTES_MAX};

/// `syslog:` of an endpoint.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyslogConfig {
    server: String,
    #[serde(default)]
    protocol: Protocol,
    #[serde(default)]
    facility: Facility,
    #[serde(default)]
    ca_file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Protocol {
    Udp,
    Tcp,
    #[default]
    Tls,
}

/// Numbers of RFC 5424, table 1.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Facility {
    User = 1,
    Daemon = 3,
    Auth = 4,
    #[default]
    Authpriv = 10,
    Local0 = 16,
    Local1 = 17,
    Local2 = 18,
    Local3 = 19,
    Local4 = 20,
    Local5 = 21,
    Local6 = 22,
    Local7 = 23,
}

#[derive(Debug)]
pub struct Syslog {
    target: Target,
    way: Way,
    facility: u8,
    host: String,
}

#[derive(Debug)]
enum Way {
    Udp,
    Tcp,
    Tls(Arc<ClientConfig>),
}

impl Syslog {
    pub fn new(config: &SyslogConfig, egress: &Egress, base: &Path) -> Result<Syslog, String> {
        let way = match config.protocol {
            Protocol::Udp => Way::Udp,
            Protocol::Tcp => Way::Tcp,
            Protocol::Tls => Way::Tls(tls(roots(base, config.ca_file.as_deref())?)?),
        };
        let host = nix::unistd::gethostname().unwrap_or_default();
        Ok(Syslog {
            target: Target::parse(&config.server, egress)?,
            way,
            facility: config.facility as u8,
            host: plain(&host.to_string_lossy(), 255),
        })
    }

    pub async fn send(&self, notice: &Notice) -> Result<(), SendError> {
        match &self.way {
            Way::Udp => {
                let record = self.record(notice, SYSLOG_DATAGRAM_BYTES_MAX);
                let address = self.target.address().await?;
                let own: SocketAddr = match address {
                    SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                    SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
                };
                let sent = async {
                    let socket = UdpSocket::bind(own).await?;
                    socket.send_to(record.as_bytes(), address).await
                };
                sent.await.map(|_| ()).map_err(|error| self.failed(&error))
            }
            Way::Tcp => self.write(self.target.connect().await?, notice).await,
            Way::Tls(config) => self.write(self.target.connect_tls(config).await?, notice).await,
        }
    }

    async fn write(
        &self,
        mut stream: impl AsyncWrite + Unpin,
        notice: &Notice,
    ) -> Result<(), SendError> {
        let record = self.record(notice, SYSLOG_RECORD_BYTES_MAX);
        let written = async {
            stream.write_all(format!("{} {record}", record.len()).as_bytes()).await?;
            stream.flush().await?;
            stream.shutdown().await
        };
        written.await.map_err(|error| self.failed(&error))
    }

    /// `<PRI>1 TIME HOST APP - ID [DATA] TEXT`, of so many bytes at most.
    fn record(&self, notice: &Notice, most: usize) -> String {
        let severity = match notice.severity {
            Severity::Critical => 2,
            Severity::High => 3,
            Severity::Medium => 4,
            Severity::Low => 5,
            Severity::Info => 6,
        };
        let time = jiff::Timestamp::from_nanosecond(notice.time_ns.into()).unwrap_or_default();
        let mut record = format!(
            "<{}>1 {time:.6} {} sekimori - {} [sekimori@32473 rule=\"{}\" severity=\"{}\"] \u{feff}{}",
            u32::from(self.facility) * 8 + severity,
            if self.host.is_empty() { "-" } else { &self.host },
            plain(&notice.id, 32),
            quoted(&notice.rule),
            notice.severity.word(),
            one_line(&notice.title),
        );
        for line in notice.text.lines() {
            record.push_str(" | ");
            record.push_str(&one_line(line));
        }
        let mut end = most.min(record.len());
        while !record.is_char_boundary(end) {
            end -= 1;
        }
        record.truncate(end);
        record
    }

    fn failed(&self, error: &std::io::Error) -> SendError {
        SendError::passing(format!("{}:{}: {error}", self.target.host, self.target.port))
    }
}

/// PRINTUSASCII of RFC 5424.
fn plain(text: &str, most: usize) -> String {
    text.chars().filter(char::is_ascii_graphic).take(most).collect()
}

/// PARAM-VALUE of RFC 5424.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for character in one_line(text).chars() {
        if matches!(character, '"' | '\\' | ']') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted
}
