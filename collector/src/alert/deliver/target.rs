//! A host with a port.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use rustls::pki_types::ServerName;
use thiserror::Error;

/// Where a connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub(super) host: Host,
    pub(super) port: u16,
}

/// By name or by address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    /// In lower case, without a dot at the end.
    Name(String),
    Address(IpAddr),
}

/// What is written is no host with a port.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{written:?} is no host with a port: write `host.example.org:465` or `[2001:db8::1]:6514`")]
pub struct TargetError {
    written: String,
}

impl Target {
    /// The name that the certificate must have.
    pub(super) fn server_name(&self) -> Option<ServerName<'static>> {
        match &self.host {
            Host::Name(name) => ServerName::try_from(name.clone()).ok(),
            Host::Address(address) => Some(ServerName::from(*address)),
        }
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(written: &str) -> Result<Target, TargetError> {
        let target = split(written).and_then(|(host, port)| {
            let host = match host {
                Written::Bracketed(host) => Host::Address(IpAddr::V6(host.parse().ok()?)),
                Written::Plain(host) => host
                    .parse()
                    .map(|it| Host::Address(IpAddr::V4(it)))
                    .ok()
                    .or_else(|| name(host).map(Host::Name))?,
            };
            Some(Target { host, port })
        });
        target.ok_or_else(|| TargetError { written: written.to_owned() })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Name(name) => write!(formatter, "{name}:{}", self.port),
            Host::Address(IpAddr::V4(it)) => write!(formatter, "{it}:{}", self.port),
            Host::Address(IpAddr::V6(it)) => write!(formatter, "[{it}]:{}", self.port),
        }
    }
}

/// What stands before the port.
pub(super) enum Written<'a> {
    /// In brackets, which are taken away.
    Bracketed(&'a str),
    /// Without a colon.
    Plain(&'a str),
}

/// Takes the port off, which is not 0.
pub(super) fn split(written: &str) -> Option<(Written<'_>, u16)> {
    let (host, port) = written.rsplit_once(':')?;
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let bracketed = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    match bracketed {
        Some(host) => Some((Written::Bracketed(host), port)),
        None if host.contains([':', '[', ']']) => None,
        None => Some((Written::Plain(host), port)),
    }
}

/// The name of a host, in lower case. What the resolver could take for an address, as `127.1` or
/// `0x7f000001`, is none.
pub(super) fn name(written: &str) -> Option<String> {
    let name = written.strip_suffix('.').unwrap_or(written).to_ascii_lowercase();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(plain);
    let last = name.rsplit('.').next().unwrap_or_default();
    let number = last.starts_with("0x") || last.bytes().all(|byte| byte.is_ascii_digit());
    (name.len() <= 253 && name.split('.').all(label) && !number).then_some(name)
}
