//! `bus.yaml`: which servers, and as whom.

use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use async_nats::ServerAddr;
use serde::Deserialize;
use thiserror::Error;

use crate::limits::{BUS_FILE_BYTES_MAX, BUS_NAME_BYTES_MAX, BUS_SERVERS_MAX};

/// The file in the collector's directory. Where it is missing, the collector is on its own.
pub const FILE: &str = "bus.yaml";
/// What the file says that it is.
const VERSION: &str = "sekimori/bus/v1";
const STREAM: &str = "sekimori";
const REPLICAS: usize = 3;
const REPLICAS_MAX: usize = 5;

/// A file that cannot be used.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// It cannot be read.
    #[error("{path}: {source}", path = .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It says what cannot be.
    #[error("{path}: {why}", path = .path.display())]
    Wrong {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// What the file says.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Servers of the cluster, tried in turn.
    pub servers: Vec<ServerAddr>,
    /// The authority that the servers' certificates are signed by.
    pub ca: PathBuf,
    /// What the collector shows to the servers, and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// A NATS credentials file: JWT and seed.
    pub credentials: Option<PathBuf>,
    /// This collector's name among those on the bus, and its consumer's.
    pub name: String,
    /// The stream's name, and the beginning of its subjects.
    pub stream: String,
    /// On how many servers a batch is before it is acknowledged.
    pub replicas: usize,
    /// How much the stream holds at most, in bytes, for collectors that are away; `None` is as much
    /// as the servers allow.
    pub bytes_max: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: String,
    bus: Kind,
    servers: Vec<String>,
    ca: PathBuf,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    credentials: Option<PathBuf>,
    name: Option<String>,
    stream: Option<String>,
    replicas: Option<usize>,
    gib_max: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Nats,
}

impl Settings {
    /// Reads the file; `None` where there is none. Names of files in it are relative to it.
    ///
    /// # Errors
    /// [`SettingsError`] says what is wrong.
    pub fn read(path: &Path) -> Result<Option<Settings>, SettingsError> {
        let unreadable = |source| SettingsError::File { path: path.to_owned(), source };
        let file = match fs::File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(unreadable)?,
        };
        let mut text = String::new();
        file.take(BUS_FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
        let wrong = |why| SettingsError::Wrong { path: path.to_owned(), why };
        if text.len() as u64 > BUS_FILE_BYTES_MAX {
            return Err(wrong(format!("more than {} KiB", BUS_FILE_BYTES_MAX >> 10)));
        }
        let document = serde_saphyr::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        Settings::of(document, path.parent().unwrap_or(Path::new("."))).map(Some).map_err(wrong)
    }

    fn of(document: Document, dir: &Path) -> Result<Settings, String> {
        let Document { version, bus: Kind::Nats, servers, .. } = document;
        if version != VERSION {
            return Err(format!("version is {version:?}, expected {VERSION}"));
        }
        if !(1..=BUS_SERVERS_MAX).contains(&servers.len()) {
            return Err(format!("servers: 1 to {BUS_SERVERS_MAX} of them"));
        }
        let servers = servers.iter().map(|text| server(text)).collect::<Result<_, _>>()?;
        let certificate = match (document.certificate, document.key) {
            (Some(certificate), Some(key)) => Some((dir.join(certificate), dir.join(key))),
            (None, None) => None,
            _ => return Err("certificate and key go together".to_owned()),
        };
        let credentials = document.credentials.map(|path| dir.join(path));
        if certificate.is_none() && credentials.is_none() {
            return Err(
                "the servers must know who comes: give certificate and key, or credentials"
                    .to_owned(),
            );
        }
        let own = || nix::unistd::gethostname().ok()?.into_string().ok();
        let name = document
            .name
            .or_else(|| own().map(|name| name.replace('.', "-")))
            .ok_or("name: this machine's name is not text; give one")?;
        let stream = document.stream.unwrap_or_else(|| STREAM.to_owned());
        check_name("name", &name)?;
        check_name("stream", &stream)?;
        let replicas = document.replicas.unwrap_or(REPLICAS);
        if !(1..=REPLICAS_MAX).contains(&replicas) {
            return Err(format!("replicas: 1 to {REPLICAS_MAX}"));
        }
        let bytes_max = match document.gib_max {
            Some(0) => return Err("gib_max: at least 1".to_owned()),
            gib_max => gib_max.map(|it| i64::from(it) << 30),
        };
        let ca = dir.join(document.ca);
        Ok(Settings { servers, ca, certificate, credentials, name, stream, replicas, bytes_max })
    }
}

fn server(text: &str) -> Result<ServerAddr, String> {
    let address: ServerAddr = text.parse().map_err(|error| format!("server {text:?}: {error}"))?;
    if address.scheme() != "tls" {
        return Err(format!("server {text:?}: expected tls://HOST:PORT; nothing goes without TLS"));
    }
    if address.has_user_pass() {
        // The text is not repeated: it has the password.
        return Err("a server's address has a password in it; use credentials, a file".to_owned());
    }
    Ok(address)
}

/// JetStream takes no dots, blanks, wildcards or slashes in names.
fn check_name(field: &str, name: &str) -> Result<(), String> {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if (1..=BUS_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(sound) {
        return Ok(());
    }
    Err(format!("{field} {name:?}: 1 to {BUS_NAME_BYTES_MAX} of a-z A-Z 0-9 _ -"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use rstest::rstest;

    use super::*;

    const GOOD: &str = "version: sekimori/bus/v1\nbus: nats\nca: ca.pem\ncertificate: c.pem\n\
                        key: /k/key.pem\nname: 東\nservers: [\"tls://n1:4222\"]\n";

    fn read(text: &str) -> Result<Option<Settings>, SettingsError> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), text).unwrap();
        Settings::read(&dir.path().join(FILE))
    }

    #[test]
    fn no_file_is_no_bus() {
        assert!(Settings::read(Path::new("/nonexistent/bus.yaml")).unwrap().is_none());
    }

    #[test]
    fn what_is_not_said_has_a_default_and_names_are_relative() {
        let settings = read(&GOOD.replace('東', "east")).unwrap().unwrap();
        let (certificate, key) = settings.certificate.unwrap();
        assert!(settings.ca.ends_with("ca.pem") && settings.ca.is_absolute());
        assert!(certificate.is_absolute());
        assert_eq!(key, Path::new("/k/key.pem"));
        assert_eq!((settings.name.as_str(), settings.stream.as_str()), ("east", "sekimori"));
        assert_eq!((settings.replicas, settings.bytes_max), (3, None));
    }

    #[rstest]
    #[case("東", "東", "1 to 32 of a-z")]
    #[case("v1", "v2", "expected sekimori/bus/v1")]
    #[case("tls://n1", "nats://n1", "nothing goes without TLS")]
    #[case("tls://n1", "tls://a:b@n1", "has a password in it")]
    #[case("[\"tls://n1:4222\"]", "[]", "servers: 1 to 16")]
    #[case("key: /k/key.pem\n", "", "go together")]
    #[case("certificate: c.pem\nkey: /k/key.pem\n", "", "must know who comes")]
    #[case("ca: ca.pem\n", "ca: ca.pem\nreplicas: 6\n", "replicas: 1 to 5")]
    #[case("ca: ca.pem\n", "ca: ca.pem\ngib_max: 0\n", "gib_max: at least 1")]
    #[case("ca: ca.pem\n", "ca: ca.pem\npassword: x\n", "password")]
    #[case("bus: nats", "bus: kafka", "kafka")]
    fn refused(#[case] from: &str, #[case] to: &str, #[case] says: &str) {
        let good = if from == "東" { GOOD.to_owned() } else { GOOD.replace('東', "east") };
        let error = read(&good.replace(from, to)).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        assert!(!error.contains("a:b@"), "{error}");
    }
}
