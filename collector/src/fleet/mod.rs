//! The hosts that deliver: who there is, how each stands, and who is silent.
//!
//! A host is known from its first enrolment by token or its first stream on, over restarts of the
//! collector. Every message on its stream is a sign of life. A host that gives none for a while is
//! silent, which is one record, and another one when it returns. A collector that starts counts
//! from its start: that it was away itself is nobody's silence.

mod hosts;
mod kept;
mod orders;
mod service;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use prost::Message as _;
use sekimori_proto::v1::{FleetHost, HostChange, HostState, HostTurn};
use tokio::sync::{broadcast, watch};
use tokio::task::spawn_blocking;
use tokio::time::{self, Instant};

use crate::audit::Audit;
use crate::identity::{Agent, Role, Shown};
use crate::limits::{
    BATCH_EVENTS_MAX, BUS_SIGNS_MAX, FLEET_HOSTS_MAX, FLEET_INTERVAL, HOST_STATE_BYTES_MAX,
};
use crate::pki::Certified;
use crate::store::StoreError;
use hosts::{Host, Unwritten};
use kept::Kept;
pub(crate) use kept::put_aside;
pub use service::FleetAnswers;

/// All hosts.
#[derive(Clone, Debug)]
pub struct Fleet(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    hosts: Mutex<BTreeMap<String, Host>>,
    kept: Mutex<Kept>,
    /// When this collector began to listen.
    since: Instant,
    /// Counts the orders, for the streams that are open.
    orders: watch::Sender<u64>,
    /// What agents said here, for other collectors.
    signs: broadcast::Sender<(String, HostState)>,
}

/// How many hosts there are, and how many of them are so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// All.
    pub hosts: usize,
    /// That they are silent is a record.
    pub silent: usize,
    /// Their clocks are far from the collector's.
    pub clock_wrong: usize,
}

/// Which signs of life are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signs {
    /// Those that waited long enough.
    Due,
    /// All: the collector stops.
    All,
}

/// An open stream of a host; dropping it says that it is closed.
#[derive(Debug)]
pub struct Presence {
    fleet: Fleet,
    host: String,
}

impl Fleet {
    /// Reads what was known before, in the store's directory. A file that cannot be read is put
    /// aside: it holds nothing that the agents do not say again.
    ///
    /// # Errors
    /// When no file can be made either.
    pub fn open(store: &Path) -> Result<Fleet, StoreError> {
        let (kept, hosts) = Kept::open(store)?;
        Ok(Fleet(Arc::new(Inner {
            hosts: Mutex::new(hosts),
            kept: Mutex::new(kept),
            since: Instant::now(),
            orders: watch::Sender::new(0),
            signs: broadcast::Sender::new(BUS_SIGNS_MAX),
        })))
    }

    fn hosts(&self) -> MutexGuard<'_, BTreeMap<String, Host>> {
        self.0.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many hosts there are.
    pub fn count(&self) -> Count {
        let hosts = self.hosts();
        let of = |is: fn(&Host) -> bool| hosts.values().filter(|host| is(host)).count();
        Count {
            hosts: hosts.len(),
            silent: of(|host| host.told_silent),
            clock_wrong: of(Host::clock_is_wrong),
        }
    }

    /// Whether a host of this name was ever given a certificate by token, or delivered.
    pub fn knows(&self, name: &str) -> bool {
        self.hosts().contains_key(name)
    }

    /// What is found in what the agents said last, by host.
    pub fn states<T>(&self, find: impl Fn(&str, &HostState) -> Option<T>) -> Vec<T> {
        let hosts = self.hosts();
        let said = hosts.iter().filter_map(|(name, host)| Some((name, &host.state.as_ref()?.0)));
        said.filter_map(|(name, state)| find(name, state)).collect()
    }

    /// A certificate was made.
    pub fn certified(&self, name: &str, role: Role, certified: &Certified) {
        if role == Role::Agent {
            let (serial, until_s) = (&certified.serial, certified.until_s);
            self.change(name, |host| host.certificate(serial, until_s));
        }
    }

    /// An agent opened a stream.
    pub fn enter(&self, agent: &Agent) -> Presence {
        self.change(agent.name(), |host| {
            host.streams += 1;
            if let Some(Shown { serial, until_s, address, .. }) = agent.shown() {
                host.certificate(serial, *until_s);
                host.address = address.map(|it| it.ip().to_string()).unwrap_or_default();
            }
            host.heard(now_ns());
        });
        Presence { fleet: self.clone(), host: agent.name().to_owned() }
    }

    /// What the agents say on streams that are open here, from now on.
    pub fn signs(&self) -> broadcast::Receiver<(String, HostState)> {
        self.0.signs.subscribe()
    }

    /// Another collector heard from a host how it stands.
    pub fn heard_elsewhere(&self, host: &str, state: HostState) {
        if state.encoded_len() <= HOST_STATE_BYTES_MAX {
            self.change(host, |host| {
                let now_ns = now_ns();
                host.heard(now_ns);
                host.said(state, now_ns);
            });
        }
    }

    /// Changes what is known of a host; what must be on the disk soon says so by itself.
    fn change(&self, name: &str, change: impl FnOnce(&mut Host)) {
        let mut hosts = self.hosts();
        if hosts.len() >= FLEET_HOSTS_MAX && !hosts.contains_key(name) {
            tracing::warn!(
                host = name,
                "there are {FLEET_HOSTS_MAX} hosts, and this one is left out"
            );
            return;
        }
        let host = hosts.entry(name.to_owned()).or_default();
        change(host);
    }

    /// Hosts by name, behind `after`, as long as `room` says that there is some.
    fn list(&self, after: &str, mut room: impl FnMut(&FleetHost) -> bool) -> Vec<FleetHost> {
        use std::ops::Bound::{Excluded, Unbounded};
        let hosts = self.hosts();
        let behind = hosts.range::<str, _>((Excluded(after), Unbounded));
        behind.map(|(name, host)| host.shown(name)).take_while(|host| room(host)).collect()
    }

    /// Finds out who is silent and who returned, and keeps what is known, until the task is
    /// dropped.
    pub async fn follow(self, audit: Audit, silent_after: Duration) {
        loop {
            time::sleep(FLEET_INTERVAL).await;
            self.tell(&audit, silent_after).await;
            self.tell_orders(&audit).await;
            // What cannot be kept was logged, and is tried again.
            let _ = self.keep(Signs::Due).await;
        }
    }

    /// Records who is silent and who returned. What cannot be recorded is tried again.
    async fn tell(&self, audit: &Audit, silent_after: Duration) {
        let now = Instant::now();
        let turns: Vec<HostChange> = {
            let hosts = self.hosts();
            let turns = hosts.iter().filter_map(|(name, host)| {
                host.turn(now, self.0.since, silent_after).map(|turn| host.change(name, turn))
            });
            turns.collect()
        };
        for turns in turns.chunks(BATCH_EVENTS_MAX) {
            if let Err(error) = audit.changes(turns.to_vec()).await {
                tracing::error!(%error, "that hosts are silent or returned cannot be recorded");
                return;
            }
            let mut hosts = self.hosts();
            for turn in turns {
                if let Some(host) = hosts.get_mut(&turn.name) {
                    host.told_silent = turn.turn() == HostTurn::Silent;
                    host.unwritten = Unwritten::Facts;
                }
            }
        }
    }

    /// Writes what changed; mere signs of life only when it is time, or when there is no later.
    ///
    /// # Errors
    /// When it could not be written; it was logged, and stays to be written.
    pub async fn keep(&self, signs: Signs) -> Result<(), StoreError> {
        let fleet = self.clone();
        let written = spawn_blocking(move || {
            let (changed, gone) = {
                let mut hosts = fleet.hosts();
                let gone: Vec<String> = hosts
                    .extract_if(.., |_, host| host.is_gone(now_ns()))
                    .map(|(name, _)| name)
                    .collect();
                let now = Instant::now();
                let changed = hosts.iter_mut().filter(|(_, host)| match signs {
                    Signs::All => host.unwritten != Unwritten::Nothing,
                    Signs::Due => host.is_to_be_written(now),
                });
                let changed: Vec<(String, Host)> = changed
                    .map(|(name, host)| {
                        (host.unwritten, host.written) = (Unwritten::Nothing, Some(now));
                        (name.clone(), host.clone())
                    })
                    .collect();
                (changed, gone)
            };
            let mut kept = fleet.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.write(&changed, &gone).inspect_err(|_| {
                let mut hosts = fleet.hosts();
                for (name, _) in &changed {
                    if let Some(host) = hosts.get_mut(name) {
                        host.unwritten = Unwritten::Facts;
                    }
                }
            })
        });
        let written = written.await.unwrap_or_else(|error| {
            let source = std::io::Error::other(error);
            Err(StoreError::File { path: "fleet.db".into(), source })
        });
        written.inspect_err(|error| {
            tracing::error!(%error, "what is known of the hosts cannot be kept");
        })
    }
}

impl Presence {
    /// The host gave a sign of life, and maybe said how it stands.
    pub fn heard(&self, state: Option<HostState>) {
        let fits = |state: &HostState| {
            let size = state.encoded_len();
            if size > HOST_STATE_BYTES_MAX {
                tracing::warn!(host = self.host, size, "what the agent says of itself is too long");
            }
            size <= HOST_STATE_BYTES_MAX
        };
        let state = state.filter(fits);
        self.fleet.change(&self.host, |host| {
            let now_ns = now_ns();
            host.heard(now_ns);
            if let Some(state) = state {
                // Nobody listens where there is no bus.
                let _ = self.fleet.0.signs.send((self.host.clone(), state.clone()));
                host.said(state, now_ns);
            }
        });
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.fleet.change(&self.host, |host| {
            host.streams = host.streams.saturating_sub(1);
            host.speaks &= host.streams > 0;
        });
    }
}

/// UTC ns since 1970.
fn now_ns() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}
