//! What `run` was asked to do, checked without touching anything.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::limits::SILENT_AFTER;
use crate::otlp::OtlpConfig;
use crate::store::Keep;

/// Port of the collector when none is given.
pub const LISTEN_DEFAULT: &str = "127.0.0.1:7443";
/// The store's directory within that one.
pub const STORE: &str = "store";
/// The file that an earlier version stored to.
pub const STORE_BEFORE: &str = "events.db";

/// Settings of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Directory that `init` made.
    pub dir: PathBuf,
    /// Address and port for TLS; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Unix socket for root and the collector's own user.
    pub socket: Option<PathBuf>,
    /// The store's directory.
    pub store: PathBuf,
    /// The file with the rules of alerts; it may be missing.
    pub alerts: PathBuf,
    /// The file that says on which bus the collector is; it may be missing.
    pub bus: PathBuf,
    /// What is kept of it.
    pub keep: Keep,
    /// A host that gives no sign of life for so long is silent, which is a record.
    pub silent_after: Duration,
    /// Where stored events are sent as OTLP logs.
    pub otlp: Option<OtlpConfig>,
}

impl Config {
    /// The store is `store` in `dir` unless it is named; everything in it is kept.
    pub fn new(
        dir: PathBuf,
        listen: SocketAddr,
        socket: Option<PathBuf>,
        store: Option<PathBuf>,
    ) -> Config {
        let store = store.unwrap_or_else(|| dir.join(STORE));
        let alerts = dir.join(crate::alert::FILE);
        let bus = dir.join(crate::nats::FILE);
        let (keep, silent_after) = (Keep::default(), SILENT_AFTER);
        Config { dir, listen, socket, store, alerts, bus, keep, silent_after, otlp: None }
    }
}
