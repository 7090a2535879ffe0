//! The agent's configuration file. Reading it opens, binds and connects nothing.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sekimori_abi::event::kind;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use serde_saphyr::Spanned;

use crate::kernel::GuardMode;
use crate::limits;

/// Where the configuration is unless the command line says otherwise.
pub const CONFIG_PATH: &str = "/etc/sekimori/agent.yaml";

/// Name of the file with the collector's public key, beside the certificate.
const POLICY_KEY_NAME: &str = "policy.pub";

/// Everything the agent is told by its operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Policy file.
    pub policy: PathBuf,
    /// Whose policy is in force.
    pub policy_from: PolicyFrom,
    /// Public key that the collector's policies are signed with. Always set when `policy_from` is
    /// the collector.
    pub policy_key: Option<PathBuf>,
    /// Events that wait for the collector.
    pub spool: Spool,
    /// Where events go.
    pub collector: Collector,
    /// Local commands.
    pub control: Control,
    /// What is recorded without a rule.
    pub record: Record,
    /// What happens to whoever lays hands on the agent.
    pub guard: GuardMode,
}

/// Whose policy is in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PolicyFrom {
    /// The file's.
    #[default]
    File,
    /// The collector's, and the file's until the first of them has come.
    Collector,
}

/// The spool's place and bounds.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Spool {
    /// Directory, made when it does not exist.
    pub directory: PathBuf,
    /// Bytes on disk of telemetry.
    pub telemetry_bytes_max: u64,
    /// Bytes on disk of denials, alerts and losses.
    pub alert_bytes_max: u64,
    /// Bytes of one segment file.
    pub segment_bytes_max: u64,
    /// Longest time between a write and its `fdatasync`, ms.
    pub sync_interval_ms: u64,
}

impl Default for Spool {
    fn default() -> Self {
        Self {
            directory: "/var/lib/sekimori/spool".into(),
            telemetry_bytes_max: limits::TELEMETRY_BYTES_DEFAULT,
            alert_bytes_max: limits::ALERT_BYTES_DEFAULT,
            segment_bytes_max: limits::SEGMENT_BYTES_DEFAULT,
            sync_interval_ms: limits::SYNC_INTERVAL_MS_DEFAULT,
        }
    }
}

/// How the collector is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    /// Where.
    pub address: Address,
    /// Certificates, always set when `address` is [`Address::Https`].
    pub tls: Option<Tls>,
}

/// Files of mutual TLS, all PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// Certificate of the authority that signed the collector's.
    pub ca: PathBuf,
    /// The agent's certificate.
    pub cert: PathBuf,
    /// The agent's key; no one but its owner may read it.
    pub key: PathBuf,
    /// Name in the collector's certificate when it is not the host of the address.
    pub server_name: Option<String>,
}

/// A collector's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `https://HOST:PORT`.
    Https(String),
    /// `unix:/PATH`; the collector knows the agent by its peer credentials.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Https(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A text that is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("collector address {0:?} is neither https://HOST:PORT nor unix:/ABSOLUTE/PATH")]
pub struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        parse_address(text).ok_or_else(|| AddressError(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

fn parse_address(text: &str) -> Option<Address> {
    if let Some(path) = text.strip_prefix("unix:") {
        let path = Path::new(path.strip_prefix("//").unwrap_or(path));
        return path.is_absolute().then(|| Address::Unix(path.into()));
    }
    let uri: tonic::transport::Uri = text.parse().ok()?;
    let plain = uri.path_and_query().is_none_or(|path| path.as_str() == "/");
    let good = uri.scheme_str() == Some("https") && uri.port_u16().is_some() && plain;
    good.then(|| Address::Https(text.trim_end_matches('/').to_owned()))
}

/// The socket of the local commands.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Control {
    /// Path of the socket.
    pub socket: PathBuf,
}

impl Default for Control {
    fn default() -> Self {
        Self { socket: "/run/sekimori/agent.sock".into() }
    }
}

/// What is recorded without a rule, and debugging.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Record {
    /// Kinds recorded even when no rule matches.
    pub kinds: Vec<RecordKind>,
    /// Log lines of the kernel programs.
    pub kernel_log: bool,
}

impl Default for Record {
    fn default() -> Self {
        use RecordKind::{
            Exec, Exit, NetConnect, NetSocket, NetUpload, ShareWrite, UsbMount, UsbWrite,
        };
        let kinds =
            vec![UsbWrite, UsbMount, ShareWrite, NetConnect, NetUpload, NetSocket, Exec, Exit];
        Self { kinds, kernel_log: false }
    }
}

impl Record {
    /// The kinds as the policy tables want them: bit `1 << kind`.
    #[must_use]
    pub fn kinds_mask(&self) -> u32 {
        self.kinds.iter().fold(0, |mask, kind| mask | 1 << kind.number())
    }
}

/// A kind that can be recorded without a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "each is the word that a policy uses")]
pub enum RecordKind {
    #[serde(rename = "usb.write")]
    UsbWrite,
    #[serde(rename = "usb.mount")]
    UsbMount,
    #[serde(rename = "share.write")]
    ShareWrite,
    #[serde(rename = "net.connect")]
    NetConnect,
    #[serde(rename = "net.upload")]
    NetUpload,
    #[serde(rename = "net.socket")]
    NetSocket,
    #[serde(rename = "exec")]
    Exec,
    #[serde(rename = "exit")]
    Exit,
}

impl RecordKind {
    /// Number of the kind in records and tables.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::UsbWrite => kind::USB_WRITE,
            Self::UsbMount => kind::USB_MOUNT,
            Self::ShareWrite => kind::SHARE_WRITE,
            Self::NetConnect => kind::NET_CONNECT,
            Self::NetUpload => kind::NET_UPLOAD,
            Self::NetSocket => kind::NET_SOCKET,
            Self::Exec => kind::EXEC,
            Self::Exit => kind::EXIT,
        }
    }
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error(
        "cannot read the configuration {}: {source}; give its path with --config",
        path.display()
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// What stands in the file is wrong.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Column, from 1.
        column: u64,
        /// What is wrong and what was expected.
        message: String,
    },
}

/// The file as it is written; [`Config`] is what remains after the checks.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default = "default_policy")]
    policy: PathBuf,
    policy_from: Option<Spanned<PolicyFrom>>,
    policy_key: Option<PathBuf>,
    spool: Option<Spanned<Spool>>,
    collector: Spanned<CollectorDocument>,
    #[serde(default)]
    control: Control,
    #[serde(default)]
    record: Record,
    #[serde(default)]
    guard: GuardMode,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CollectorDocument {
    address: Address,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    server_name: Option<String>,
}

fn default_policy() -> PathBuf {
    "/etc/sekimori/policy.yaml".into()
}

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// The file cannot be read, or what stands in it is wrong.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: path.into(), source };
        let file = File::open(path).map_err(read)?;
        let mut text = String::new();
        let limit = limits::CONFIG_BYTES_MAX;
        file.take(limit + 1).read_to_string(&mut text).map_err(read)?;
        if text.len() as u64 > limit {
            let message =
                format!("longer than {limit} bytes: this is no configuration of the agent");
            return Err(ConfigError::Invalid { path: path.into(), line: 1, column: 1, message });
        }
        Self::parse(&text, path)
    }

    /// Parses the text of a configuration; `path` is for messages only.
    ///
    /// # Errors
    /// What stands in the text is wrong.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let document: Document = serde_saphyr::from_str(text).map_err(|error| {
            let place = error.location();
            ConfigError::Invalid {
                path: path.into(),
                line: place.map_or(1, |place| place.line()),
                column: place.map_or(1, |place| place.column()),
                message: plain_message(&error),
            }
        })?;
        let refuse = |place: serde_saphyr::Location, message| ConfigError::Invalid {
            path: path.into(),
            line: place.line(),
            column: place.column(),
            message,
        };
        let spool = match document.spool {
            None => Spool::default(),
            Some(spanned) => {
                check_spool(&spanned.value).map_err(|text| refuse(spanned.referenced, text))?;
                spanned.value
            }
        };
        let place = document.collector.referenced;
        let collector =
            check_collector(document.collector.value).map_err(|text| refuse(place, text))?;
        let Document { policy, policy_from, policy_key, control, record, guard, .. } = document;
        let policy_key = policy_key
            .or_else(|| Some(collector.tls.as_ref()?.cert.with_file_name(POLICY_KEY_NAME)));
        let policy_from = match policy_from {
            Some(from) if from.value == PolicyFrom::Collector && policy_key.is_none() => {
                let message = "policy_from: collector needs policy_key, the file with the \
                               collector's policy.pub, where the collector is on a unix socket";
                return Err(refuse(from.referenced, message.to_owned()));
            }
            from => from.map_or(PolicyFrom::File, |from| from.value),
        };
        Ok(Self { policy, policy_from, policy_key, spool, collector, control, record, guard })
    }
}

/// The parser's sentence without its own copy of the place and without a picture of the text.
fn plain_message(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    match error.location() {
        Some(place) => {
            let (line, column) = (place.line(), place.column());
            text.replace(&format!(" at line {line}, column {column}"), "")
                .replace(&format!("line {line} column {column}: "), "")
        }
        None => text,
    }
}

fn check_spool(spool: &Spool) -> Result<(), String> {
    let (least, most) = (limits::SEGMENT_BYTES_MIN, limits::SEGMENT_BYTES_MAX);
    let segment = spool.segment_bytes_max;
    if !(least..=most).contains(&segment) {
        return Err(format!("spool.segment_bytes_max is {segment}, expected {least} to {most}"));
    }
    let least = segment * limits::LANE_SEGMENTS_MIN;
    let lanes = [
        ("telemetry_bytes_max", spool.telemetry_bytes_max),
        ("alert_bytes_max", spool.alert_bytes_max),
    ];
    for (name, value) in lanes {
        if value < least {
            let count = limits::LANE_SEGMENTS_MIN;
            return Err(format!(
                "spool.{name} is {value}, expected at least {count} segments: {least}"
            ));
        }
    }
    if !(1..=60_000).contains(&spool.sync_interval_ms) {
        let value = spool.sync_interval_ms;
        return Err(format!("spool.sync_interval_ms is {value}, expected 1 to 60000"));
    }
    if !spool.directory.is_absolute() {
        let value = spool.directory.display();
        return Err(format!("spool.directory is {value}, expected an absolute path"));
    }
    Ok(())
}

fn check_collector(document: CollectorDocument) -> Result<Collector, String> {
    let CollectorDocument { address, ca, cert, key, server_name } = document;
    let tls = match (&address, ca, cert, key) {
        (Address::Unix(_), ..) => None,
        (Address::Https(_), Some(ca), Some(cert), Some(key)) => {
            Some(Tls { ca, cert, key, server_name })
        }
        (Address::Https(_), ca, cert, key) => {
            let missing: Vec<&str> = [("ca", ca), ("cert", cert), ("key", key)]
                .into_iter()
                .filter_map(|(name, value)| value.is_none().then_some(name))
                .collect();
            let missing = missing.join(", ");
            return Err(format!(
                "collector: {missing} missing; an https address needs ca, cert and key \
                 (`sekimori-agent enroll` fills them)"
            ));
        }
    };
    Ok(Collector { address, tls })
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
