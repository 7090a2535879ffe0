//! Policies for the hosts: versions with an epoch that only grows, and who is to run which.
//!
//! A host is to run the newest version that is for it. What is put is on the disk, signed, before
//! anybody is told of it; it goes down the streams of the hosts that it is for, and comes again with
//! each stream until the host says that it runs it.

mod kept;
mod key;
mod offers;
mod past;
mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sekimori_policy::bundle::{self, Audience};
use sekimori_proto::v1::{HostState, PolicyBundle, PolicyStatement};
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::spawn_blocking;

use crate::fleet::Fleet;
use crate::limits::{EPOCH_LEAP_MAX, POLICIES_MAX};
use crate::store::StoreError;
use kept::Kept;
pub use key::{KEY_FILE, Keys, PUBLIC_FILE, PolicyKeyError, open_key};
pub use offers::Offers;
pub use past::Past;
pub use service::PolicyAnswers;

/// All versions.
#[derive(Clone, Debug)]
pub struct Policies(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    keys: Keys,
    fleet: Fleet,
    versions: Mutex<BTreeMap<u64, Version>>,
    kept: Mutex<Kept>,
    /// Held while a version is made: epochs follow each other.
    making: Arc<tokio::sync::Mutex<()>>,
    /// Counts the changes, for the streams that are open.
    changed: watch::Sender<u64>,
}

/// One version.
#[derive(Clone, Debug)]
struct Version {
    /// Without the text.
    statement: PolicyStatement,
    audience: Audience,
    bundle: PolicyBundle,
}

/// Why a version cannot be kept.
#[derive(Debug, Error)]
enum KeepError {
    /// There are too many, and hosts may need each.
    #[error(
        "there are {POLICIES_MAX} versions, none of which a newer one has replaced for all of its \
         hosts: put one for more of them first"
    )]
    Full,
    /// The disk.
    #[error("the version cannot be kept, so it is none; see the log")]
    Store(#[from] StoreError),
}

impl Version {
    /// `None` when the signature does not hold, or what is signed makes no sense.
    fn of(bundle: PolicyBundle, key: &[u8]) -> Option<Version> {
        let mut statement = bundle::open(&bundle, key).ok()?;
        let audience = Audience::of(&statement).ok()?;
        // Once is enough.
        statement.text_zstd = Vec::new();
        Some(Version { statement, audience, bundle })
    }

    /// No host needs it any more when `newer` is there.
    fn is_replaced_by(&self, newer: &Version) -> bool {
        let hosts = |it: &Version| it.statement.hosts.iter().cloned().collect::<BTreeSet<_>>();
        newer.statement.percent == 100
            && (newer.statement.hosts.is_empty()
                || (!self.statement.hosts.is_empty() && hosts(self).is_subset(&hosts(newer))))
    }
}

impl Policies {
    /// Reads the key in `dir` and the versions in the store's directory. Without a key nothing can
    /// be put, and everything else goes on.
    ///
    /// # Errors
    /// When the versions can neither be read nor begun anew.
    pub fn open(dir: &Path, store: &Path, fleet: Fleet) -> Result<Policies, StoreError> {
        let keys = Keys::open(dir).unwrap_or_else(|error| {
            tracing::error!(%error, "no policy can be given to the hosts");
            Keys::default()
        });
        let (kept, bundles) = Kept::open(store)?;
        let count = bundles.len();
        let key = keys.public().unwrap_or_default();
        let versions = bundles.into_iter().filter_map(|bundle| Version::of(bundle, key));
        let versions: BTreeMap<u64, Version> =
            versions.map(|version| (version.statement.epoch, version)).collect();
        if versions.len() < count {
            let left_out = count - versions.len();
            tracing::error!(
                left_out,
                "versions of policies are not signed by the key that is here"
            );
        }
        Ok(Policies(Arc::new(Inner {
            keys,
            fleet,
            versions: Mutex::new(versions),
            kept: Mutex::new(kept),
            making: Arc::default(),
            changed: watch::Sender::new(0),
        })))
    }

    fn versions(&self) -> MutexGuard<'_, BTreeMap<u64, Version>> {
        self.0.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key that hosts know these by.
    pub fn public_key(&self) -> Option<&[u8]> {
        self.0.keys.public()
    }

    /// The next epoch: behind the last one, and behind those that hosts have. A host that makes one
    /// up cannot use up the numbers.
    fn next_epoch(&self) -> u64 {
        let last = self.versions().last_key_value().map_or(0, |(epoch, _)| *epoch);
        let most = last.saturating_add(EPOCH_LEAP_MAX);
        let of = |_: &str, state: &HostState| {
            Some(state.policy_epoch).filter(|epoch| (last..=most).contains(epoch))
        };
        let known = self.0.fleet.states(of).into_iter().max().unwrap_or(last);
        known.saturating_add(1)
    }

    /// Keeps a version, tells the streams, and says how many hosts are to run it.
    async fn keep(&self, version: Version) -> Result<u64, KeepError> {
        let epoch = version.statement.epoch;
        let gone = {
            let versions = self.versions();
            let full = versions.len() >= POLICIES_MAX && !versions.contains_key(&epoch);
            let replaced = |old: &Version| {
                let newer = versions.range(old.statement.epoch + 1..).map(|(_, newer)| newer);
                newer.chain([&version]).any(|newer| old.is_replaced_by(newer))
            };
            let oldest = versions.iter().find(|(_, old)| replaced(old)).map(|(epoch, _)| *epoch);
            match (full, oldest) {
                (false, _) => None,
                (true, Some(epoch)) => Some(epoch),
                (true, None) => return Err(KeepError::Full),
            }
        };
        let (policies, bundle) = (self.clone(), version.bundle.clone());
        let written = spawn_blocking(move || {
            let mut kept = policies.0.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.write(epoch, &bundle, gone)
        });
        let written = written.await.unwrap_or_else(|error| {
            let source = std::io::Error::other(error);
            Err(StoreError::File { path: "policies.db".into(), source })
        });
        written.inspect_err(|error| tracing::error!(%error, "a policy cannot be kept"))?;
        {
            let mut versions = self.versions();
            gone.and_then(|gone| versions.remove(&gone));
            versions.insert(epoch, version);
        }
        self.0.changed.send_modify(|count| *count = count.wrapping_add(1));
        let wants = |host: &str, state: &HostState| {
            (state.policy_from_collector && self.wanted(host).is_some_and(|it| it.0 == epoch))
                .then_some(())
        };
        Ok(self.0.fleet.states(wants).len() as u64)
    }

    /// The version that a host is to run.
    fn wanted(&self, host: &str) -> Option<(u64, PolicyBundle)> {
        let versions = self.versions();
        let newest = versions.iter().rev().find(|(_, version)| version.audience.has(host));
        newest.map(|(epoch, version)| (*epoch, version.bundle.clone()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::identity::Agent;

    fn version(policies: &Policies, epoch: u64, hosts: &[&str], percent: u32) -> Version {
        let statement = PolicyStatement {
            epoch,
            percent,
            hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            ..PolicyStatement::default()
        };
        let bundle = bundle::sign(policies.0.keys.own().unwrap(), &statement);
        Version::of(bundle, policies.public_key().unwrap()).unwrap()
    }

    fn open(dir: &Path) -> Policies {
        let fleet = Fleet::open(dir).unwrap();
        Policies::open(dir, dir, fleet).unwrap()
    }

    fn wanted(policies: &Policies, host: &str) -> u64 {
        policies.wanted(host).map_or(0, |(epoch, _)| epoch)
    }

    #[tokio::test]
    async fn a_host_is_to_run_the_newest_that_is_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let policies = open(dir.path());
        policies.keep(version(&policies, 1, &[], 100)).await.unwrap();
        policies.keep(version(&policies, 2, &["desk-*"], 100)).await.unwrap();
        policies.keep(version(&policies, 3, &["srv-?", "desk-1"], 100)).await.unwrap();
        let all = ["desk-1", "desk-2", "srv-1", "srv-10"];
        assert_eq!(all.map(|host| wanted(&policies, host)), [3, 2, 3, 1]);
        drop(policies);
        let again = open(dir.path());
        assert_eq!(all.map(|host| wanted(&again, host)), [3, 2, 3, 1]);
    }

    #[tokio::test]
    async fn a_part_grows_and_nobody_leaves_it() {
        let dir = tempfile::tempdir().unwrap();
        let policies = open(dir.path());
        policies.keep(version(&policies, 1, &[], 100)).await.unwrap();
        let hosts: Vec<String> = (0..500).map(|number| format!("desk-{number}")).collect();
        let mut before = BTreeSet::new();
        for percent in [10, 50, 100] {
            policies.keep(version(&policies, 2, &[], percent)).await.unwrap();
            let now: BTreeSet<&String> =
                hosts.iter().filter(|host| wanted(&policies, host) == 2).collect();
            assert!(before.is_subset(&now) && now.len() > before.len(), "{percent} %");
            before = now;
        }
        assert_eq!(before.len(), hosts.len());
    }

    #[tokio::test]
    async fn versions_of_another_key_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let policies = open(dir.path());
        policies.keep(version(&policies, 1, &[], 100)).await.unwrap();
        drop(policies);
        for name in [KEY_FILE, PUBLIC_FILE] {
            std::fs::remove_file(dir.path().join(name)).unwrap();
        }
        assert_eq!(wanted(&open(dir.path()), "desk-1"), 0);
    }

    #[tokio::test]
    async fn epochs_go_on_behind_those_of_the_hosts_within_reason() {
        let dir = tempfile::tempdir().unwrap();
        let policies = open(dir.path());
        assert_eq!(policies.next_epoch(), 1);
        let say = |name: &str, policy_epoch| {
            let presence = policies.0.fleet.enter(&Agent::for_test(name));
            presence.heard(Some(HostState { policy_epoch, ..HostState::default() }));
        };
        say("desk-1", 7);
        say("desk-2", u64::MAX);
        say("desk-3", EPOCH_LEAP_MAX + 1);
        assert_eq!(policies.next_epoch(), 8);
    }

    #[tokio::test]
    async fn the_oldest_that_is_replaced_makes_room_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let policies = open(dir.path());
        let count = POLICIES_MAX as u64;
        for epoch in 1..=count {
            policies
                .keep(version(&policies, epoch, &[&format!("desk-{epoch}")], 100))
                .await
                .unwrap();
        }
        let more = version(&policies, count + 1, &["srv-1"], 100);
        assert!(matches!(policies.keep(more).await, Err(KeepError::Full)));
        let part = version(&policies, count + 1, &[], 50);
        assert!(matches!(policies.keep(part).await, Err(KeepError::Full)));
        policies.keep(version(&policies, count + 1, &["desk-2", "srv-1"], 100)).await.unwrap();
        assert_eq!((wanted(&policies, "desk-1"), wanted(&policies, "desk-2")), (1, count + 1));
        assert_eq!(policies.versions().len(), POLICIES_MAX);
        assert!(!policies.versions().contains_key(&2));
    }
}
