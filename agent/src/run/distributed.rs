//! The policy that the collector gives this host: checked, put in force, and kept beside the spool.
//!
//! It is kept as it was signed, so that a start without the collector checks it as the first time.
//! The highest epoch that was ever in force is kept besides: neither a restart nor a file that was
//! taken away leads back to an earlier policy of the collector's.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use prost::Message as _;
use sekimori_policy::bundle::{self, BundleError};
use sekimori_proto::v1::{PolicyBundle, PolicyStatement};

use super::Agent;
use super::policy::{Keeper, Loaded, PolicyError};
use crate::config::{Config, PolicyFrom, Tls};
use crate::credentials;
use crate::limits::{EPOCH_BYTES_MAX, POLICY_KEPT_BYTES_MAX, POLICY_KEY_BYTES_MAX};

const BUNDLE: &str = "policy.bundle";
const EPOCH: &str = "policy.epoch";

/// What is known of the collector's policies.
#[derive(Debug, Default)]
pub(super) struct Distributed {
    /// This host takes its policy from the collector.
    pub on: bool,
    /// Epoch of the one that is in force; 0: a file of the host's own is.
    pub epoch: u64,
    /// The last one that was refused since the start.
    pub refused: Option<Refusal>,
    /// Why the one that was kept could not be put in force at the start.
    pub trouble: Option<String>,
    /// The highest epoch that was ever in force.
    highest: u64,
    directory: PathBuf,
    key: Option<PathBuf>,
    tls: Option<Tls>,
}

/// Why a policy of the collector's was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Refusal {
    /// As it says itself, which may be a lie.
    pub epoch: u64,
    /// For every operator: nothing of the policy's text, which may name people.
    pub told: String,
    /// For the record.
    pub reason: String,
}

/// Why a bundle cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum DistributedError {
    /// There is nothing to check it with.
    #[error(
        "the key that the collector's policies are signed with is not in {}: {source}; enrol this \
         host again, or put the collector's policy.pub there", path.display()
    )]
    Key {
        /// Where it should be.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// This host does not know its own name.
    #[error(transparent)]
    Name(#[from] credentials::CredentialsError),
    /// The bundle itself.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// A file beside the spool.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Distributed {
    /// Of a configuration. `chosen`: somebody named another policy on the command line, which then
    /// is the one.
    pub fn new(config: &Config, chosen: bool) -> Self {
        let directory = config.spool.directory.clone();
        let on = config.policy_from == PolicyFrom::Collector && !chosen;
        let (key, tls) = (config.policy_key.clone(), config.collector.tls.clone());
        let mut distributed = Self { on, directory, key, tls, ..Self::default() };
        match distributed.kept_epoch() {
            Ok(epoch) => distributed.highest = epoch,
            Err(error) => tracing::error!(%error, "the last epoch of the policy is not known"),
        }
        distributed
    }

    /// The policy that a start puts in force: the collector's that was kept, if this host takes
    /// them and there is one, else the file.
    pub fn load(&mut self, keeper: &Keeper) -> Result<Loaded, PolicyError> {
        if !self.on {
            return keeper.load();
        }
        let path = self.path(BUNDLE);
        let trouble = match self.kept() {
            Ok(None) if self.highest == 0 => return keeper.load(),
            Ok(None) => format!("{} is gone", path.display()),
            Ok(Some((statement, text))) => match keeper.load_text(text, &path) {
                Ok(loaded) => {
                    self.epoch = statement.epoch;
                    self.highest = self.highest.max(statement.epoch);
                    return Ok(loaded);
                }
                Err(error) => error.to_string(),
            },
            Err(error) => error.to_string(),
        };
        tracing::error!(trouble, "the collector's policy that was kept cannot be used");
        self.trouble = Some(trouble);
        keeper.load()
    }

    /// The epoch in force, when it is the collector's policy.
    pub fn in_force(&self) -> Option<u64> {
        (self.epoch != 0).then_some(self.epoch)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn kept(&self) -> Result<Option<(PolicyStatement, Vec<u8>)>, DistributedError> {
        let path = self.path(BUNDLE);
        let bytes = match read_bounded(&path, POLICY_KEPT_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(DistributedError::File { path, source }),
        };
        let bundle = PolicyBundle::decode(bytes.as_slice())
            .map_err(|_| BundleError::Statement("it cannot be decoded"))?;
        self.check(&bundle, self.highest.saturating_sub(1)).map(Some)
    }

    fn kept_epoch(&self) -> Result<u64, DistributedError> {
        let path = self.path(EPOCH);
        let text = match read_bounded(&path, EPOCH_BYTES_MAX) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(source) => return Err(DistributedError::File { path, source }),
        };
        let none = |_| io::Error::new(io::ErrorKind::InvalidData, "it holds no number");
        text.trim().parse().map_err(none).map_err(|source| DistributedError::File { path, source })
    }

    /// A bundle with a higher epoch than `last`, for this host, by the collector's key.
    fn check(
        &self,
        bundle: &PolicyBundle,
        last: u64,
    ) -> Result<(PolicyStatement, Vec<u8>), DistributedError> {
        let path = self.key.clone().unwrap_or_default();
        let key = read_bounded(&path, POLICY_KEY_BYTES_MAX).and_then(|bytes| {
            bundle::key_of(&String::from_utf8_lossy(&bytes)).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, "it is no key of policies")
            })
        });
        let key = key.map_err(|source| DistributedError::Key { path, source })?;
        let host = credentials::own_name(self.tls.as_ref())?;
        Ok(bundle::accept(bundle, &key, &host, last)?)
    }

    /// What came from the collector. The highest epoch comes again when it is not in force: its file
    /// may have been lost.
    fn accept(
        &self,
        bundle: &PolicyBundle,
    ) -> Result<(PolicyStatement, Vec<u8>), DistributedError> {
        self.check(bundle, self.epoch.max(self.highest.saturating_sub(1)))
    }

    /// Puts a bundle on the disk, where it is of no account until [`Self::keep`].
    fn stage(&self, bundle: &PolicyBundle) -> Result<(), DistributedError> {
        let path = next(&self.path(BUNDLE));
        write(&path, &bundle.encode_to_vec())
            .map_err(|source| DistributedError::File { path, source })
    }

    /// What was staged is in force: a restart must come back to it.
    fn keep(&mut self, epoch: u64) -> Result<(), DistributedError> {
        (self.epoch, self.highest) = (epoch, self.highest.max(epoch));
        (self.refused, self.trouble) = (None, None);
        // The policy first: whoever finds it newer than the epoch that is written down believes it.
        let path = self.path(BUNDLE);
        fs::rename(next(&path), &path).map_err(|source| DistributedError::File { path, source })?;
        let path = self.path(EPOCH);
        let written = write(&next(&path), format!("{}\n", self.highest).as_bytes())
            .and_then(|()| fs::rename(next(&path), &path))
            .and_then(|()| File::open(&self.directory)?.sync_all());
        written.map_err(|source| DistributedError::File { path, source })
    }
}

impl Agent {
    /// The collector gives this host a policy. Whatever is wrong with it, the one before it stays.
    pub(super) fn take_policy(&mut self) {
        let Some(bundle) = self.link.offered.borrow_and_update().clone() else {
            return;
        };
        // As it says itself: good enough to tell a repetition, and to be told.
        let said = PolicyStatement::decode(bundle.statement.clone());
        let epoch = said.map_or(0, |statement| statement.epoch);
        if !self.distributed.on {
            tracing::warn!(epoch, "the collector gives a policy, and this host takes none");
            return;
        }
        if epoch != 0 && epoch == self.distributed.epoch {
            self.say_word();
            return;
        }
        match self.put_in_force(&bundle) {
            Ok(()) => {}
            Err((told, reason)) => {
                self.keeper.refused(reason.clone());
                let refusal = Refusal { epoch, told, reason };
                // One that comes again and again is one record.
                if self.distributed.refused.as_ref() != Some(&refusal) {
                    let Refusal { epoch, reason, .. } = &refusal;
                    let name = &self.keeper.status().name;
                    self.pipeline.alert(format!(
                        "a policy of the collector's, epoch {epoch} by its own account, was \
                         refused, {name} stays in force: {reason}"
                    ));
                    self.distributed.refused = Some(refusal);
                }
            }
        }
        self.say_word();
    }

    /// Answers why not: for every operator, and for the record.
    fn put_in_force(&mut self, bundle: &PolicyBundle) -> Result<(), (String, String)> {
        let same = |error: DistributedError| (error.to_string(), error.to_string());
        let (statement, text) = self.distributed.accept(bundle).map_err(same)?;
        let loaded = self.keeper.load_text(text, &self.distributed.path(BUNDLE));
        if loaded.is_ok() {
            self.distributed.stage(bundle).map_err(same)?;
        }
        let told = match &loaded {
            Err(PolicyError::Findings { findings, .. }) => format!(
                "it has errors on this host ({} findings); the record of its agent has them",
                findings.len()
            ),
            _ => "the kernel's tables did not take it; the record of its agent says why".to_owned(),
        };
        self.take(loaded).map_err(|(reason, _)| (told, reason))?;
        let PolicyStatement { epoch, reason, by, .. } = statement;
        let policy = self.keeper.status();
        let message = format!(
            "policy {} with {} rules, epoch {epoch} of the collector's, is in force, generation {}, \
             by {by}: {reason}",
            policy.name, policy.rules, policy.generation
        );
        self.pipeline.say_policy(message, self.keeper.text());
        if let Err(error) = self.distributed.keep(epoch) {
            self.pipeline.alert(format!(
                "the collector's policy of epoch {epoch} is in force and cannot be kept over a \
                 restart: {error}"
            ));
        }
        Ok(())
    }
}

fn next(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".next");
    name.into()
}

/// For root only, and on the disk when this returns.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn read_bounded(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
#[path = "distributed_tests.rs"]
mod tests;
