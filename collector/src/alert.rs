//! Alerts: what the rules of `alerts.yaml` find in what is stored, and whom they tell.
//!
//! The engine reads the store as a subscriber does, by cursor, each rule for itself; it holds up
//! nobody, and what was missed while the collector was away it finds when it is back. An alert, the
//! notices of it and how far its rule has looked are one commit (`kept`). Notices wait on the disk
//! until their endpoint took them. Each alert is a record of kind `alert`.

pub mod deliver;
mod engine;
mod kept;
mod notices;
mod rules;
mod service;
mod window;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::task::spawn_blocking;

pub use engine::Engine;
pub use rules::{Rules, RulesError};
pub use service::AlertAnswers;

use crate::store::StoreError;
use kept::Kept;

/// The file with the rules, in the collector's directory, unless another one is named.
pub const FILE: &str = "alerts.yaml";

/// What engine, senders and service share.
#[derive(Clone, Debug)]
pub struct Alerts(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    kept: Mutex<Kept>,
    rules: Mutex<Arc<Rules>>,
    /// Of the file, when it cannot be used.
    error: Mutex<String>,
    standing: Mutex<BTreeMap<String, Standing>>,
    /// There are notices.
    news: Notify,
}

/// How an endpoint or a rule stands.
#[derive(Clone, Debug, Default)]
struct Standing {
    sent: u64,
    failed: u64,
    position: u64,
    error: String,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Alerts {
    /// Reads the rules from `path`, when it is there, and what is kept in the store's directory.
    ///
    /// # Errors
    /// When what is kept cannot be used. A file of rules that cannot is told in the log, and by
    /// [`AlertAnswers`]; it can be mended without a restart.
    pub fn open(path: &Path, store: &Path) -> Result<Alerts, StoreError> {
        Ok(Alerts(Arc::new(Inner {
            path: path.to_owned(),
            kept: Mutex::new(Kept::open(store)?),
            rules: Mutex::default(),
            error: Mutex::default(),
            standing: Mutex::default(),
            news: Notify::new(),
        })))
    }

    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&lock(&self.0.rules))
    }

    /// Changes how an endpoint (`endpoint:NAME`) or a rule (`rule:NAME`) stands.
    fn stands(&self, name: String, change: impl FnOnce(&mut Standing)) {
        change(lock(&self.0.standing).entry(name).or_default());
    }

    fn standing(&self, name: &str) -> Standing {
        lock(&self.0.standing).get(name).cloned().unwrap_or_default()
    }

    /// Works on what is kept, where that may block.
    async fn with_kept<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Kept) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.0);
        let work = spawn_blocking(move || work(&mut lock(&inner.kept)));
        match work.await {
            Ok(done) => done,
            Err(error) => Err(StoreError::File {
                path: self.0.path.clone(),
                source: std::io::Error::other(error),
            }),
        }
    }
}

fn now_ns() -> i64 {
    i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}
