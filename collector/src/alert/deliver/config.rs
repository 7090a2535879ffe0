//! The `deliver:` list of `alerts.yaml`, as it is written.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;

/// One place that notices go to: exactly one of the three.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointConfig {
    /// What rules, logs and metrics call it.
    pub name: String,
    /// People, by mail.
    #[serde(default)]
    pub mail: Option<MailConfig>,
    /// Another system, by HTTPS.
    #[serde(default)]
    pub webhook: Option<WebhookConfig>,
    /// A syslog server.
    #[serde(default)]
    pub syslog: Option<SyslogConfig>,
}

/// Mail through one server, always encrypted.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MailConfig {
    /// `host:port`, usually port 465 (`implicit`) or 587 (`starttls`).
    pub server: String,
    /// When TLS begins.
    pub tls: MailTls,
    /// Authorities that the server's certificate may be from, instead of the system's (PEM).
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Whom the server knows the collector as.
    #[serde(default)]
    pub user: Option<String>,
    /// File with that one's password.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// Sender: `alerts@example.org` or `Sekimori <alerts@example.org>`.
    pub from: String,
    /// Recipients.
    pub to: Vec<String>,
}

/// When TLS begins. There is no mail without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MailTls {
    /// With the connection (RFC 8314).
    Implicit,
    /// By a command, without which nothing is sent (RFC 3207).
    Starttls,
}

/// A POST of JSON, signed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// `https://…`; `http://…` only to this host itself.
    pub url: HookUrl,
    /// File with the key that bodies are signed with.
    pub secret_file: PathBuf,
    /// Authorities that the server's certificate may be from, instead of the system's (PEM).
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

/// The address of a webhook. Many have a secret in their path: what is shown of it ends with the
/// host.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct HookUrl(String);

impl HookUrl {
    /// All of it.
    pub(super) fn secret(&self) -> &str {
        &self.0
    }
}

impl From<String> for HookUrl {
    fn from(url: String) -> HookUrl {
        HookUrl(url)
    }
}

impl fmt::Debug for HookUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let origin = url::Url::parse(&self.0).map(|url| url.origin().ascii_serialization());
        write!(formatter, "HookUrl({}/…)", origin.unwrap_or_default())
    }
}

/// Records by RFC 5424.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyslogConfig {
    /// `host:port`, usually port 514 (`udp`, `tcp`) or 6514 (`tls`).
    pub server: String,
    /// How they get there.
    pub transport: SyslogTransport,
    /// Which file or stream of the server they are for.
    #[serde(default)]
    pub facility: Facility,
    /// Authorities that the server's certificate may be from, instead of the system's (PEM).
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
}

/// How records get to a syslog server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyslogTransport {
    /// Datagrams (RFC 5426): nobody knows whether they arrive.
    Udp,
    /// A connection, with the length in front of each record (RFC 6587).
    Tcp,
    /// The same in TLS (RFC 5425).
    Tls,
}

/// Facilities of RFC 5424, but for those that are the system's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the words of RFC 5424, section 6.2.1")]
pub enum Facility {
    User = 1,
    Daemon = 3,
    Auth = 4,
    Authpriv = 10,
    Local0 = 16,
    Local1 = 17,
    Local2 = 18,
    Local3 = 19,
    #[default]
    Local4 = 20,
    Local5 = 21,
    Local6 = 22,
    Local7 = 23,
}
