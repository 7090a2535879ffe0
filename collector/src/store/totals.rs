//! What is stored of each host, in numbers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Numbers of one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Total {
    /// Events.
    pub events: u64,
    /// UTC ns since 1970 of the newest one.
    pub last_event_ns: i64,
    /// Sum of the counts of its loss events.
    pub lost: u64,
}

impl Default for Total {
    fn default() -> Total {
        Total { events: 0, last_event_ns: i64::MIN, lost: 0 }
    }
}

impl Total {
    /// With more events.
    pub fn with(self, other: Total) -> Total {
        Total {
            events: self.events.saturating_add(other.events),
            last_event_ns: self.last_event_ns.max(other.last_event_ns),
            // SQLite's integers have 63 bits.
            lost: self.lost.saturating_add(other.lost).min(i64::MAX.unsigned_abs()),
        }
    }
}

/// The numbers of all hosts, as of the last commit.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    hosts: Arc<Mutex<BTreeMap<Arc<str>, Total>>>,
}

impl Totals {
    /// Of what a store holds.
    pub fn new(hosts: impl IntoIterator<Item = (Arc<str>, Total)>) -> Totals {
        Totals { hosts: Arc::new(Mutex::new(hosts.into_iter().collect())) }
    }

    /// Every host, by name.
    pub fn all(&self) -> BTreeMap<Arc<str>, Total> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Of one host.
    pub fn of(&self, host: &str) -> Total {
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.get(host).copied().unwrap_or_default()
    }

    /// Notes what was committed.
    pub fn set(&self, host: &Arc<str>, total: Total) {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner).insert(Arc::clone(host), total);
    }
}
