//! What outlives the agent: maps, programs and links, pinned in the BPF file system.
//!
//! ```text
//! /sys/fs/bpf/sekimori/            held (flock) by the agent that runs
//!   0123456789abcdef/              one build of the programs, complete
//!     maps/ACTIVE …                policy, rings, counters
//!     programs/file_open …
//!     links/file_open …            a program is on its hook for as long as this file is there
//!     lost/path_link …             optional programs that this kernel did not take
//!     unneeded/inet_sendpage …     programs for which there is nothing to do on this kernel
//!   fedcba9876543210-new/          being put together, or -old: being taken away; neither counts
//! ```
//!
//! A start with the same build finds its programs at work and takes them over. Another build puts
//! its own beside them and removes the old ones when the new ones enforce: there is no gap.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use aya::maps::{Map, MapData};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use sha2::{Digest as _, Sha256};

use super::{KernelError, OBJECT};

/// Where the BPF file system is mounted by custom (systemd mounts it there).
pub(super) const BPF_FILE_SYSTEM: &str = "/sys/fs/bpf";
/// The agent's place in it.
pub(super) const ROOT: &str = "/sys/fs/bpf/sekimori";
/// The BPF file system takes no dots in names.
const UNFINISHED: &str = "-new";
const DISCARDED: &str = "-old";
/// Parts of a set.
const PARTS: [&str; 5] = ["maps", "programs", "links", "lost", "unneeded"];

/// The directory of all sets, held by one process at a time.
pub(super) struct Root {
    _lock: Flock<File>,
}

/// One build's maps, programs and links.
#[derive(Debug)]
pub(super) struct Set {
    path: PathBuf,
}

impl Root {
    /// Takes hold of the directory.
    ///
    /// # Errors
    /// When there is no BPF file system, when another agent holds the directory, or when it cannot
    /// be made.
    pub(super) fn take() -> Result<Self, KernelError> {
        let found = statfs(BPF_FILE_SYSTEM).map(|facts| facts.filesystem_type());
        if found != Ok(BPF_FS_MAGIC) {
            return Err(KernelError::Unsupported(format!(
                "there is no BPF file system at {BPF_FILE_SYSTEM}, which keeps the programs in \
                 force when the agent ends; mount it: mount -t bpf bpf {BPF_FILE_SYSTEM}"
            )));
        }
        let root = Path::new(ROOT);
        make_directory(root)?;
        let directory = File::open(root).map_err(|error| failed("open", root, &error))?;
        Flock::lock(directory, FlockArg::LockExclusiveNonblock).map_or_else(
            |(_, error)| match error {
                nix::errno::Errno::EWOULDBLOCK => Err(KernelError::Other(format!(
                    "another agent runs on this machine: it holds {ROOT}"
                ))),
                error => Err(failed("lock", root, &error.into())),
            },
            |lock| Ok(Self { _lock: lock }),
        )
    }

    /// The complete set of this build of the programs, if it is there.
    pub(super) fn ours(&self, variant: &str) -> Option<Set> {
        let path = Path::new(ROOT).join(build(variant));
        path.is_dir().then_some(Set { path })
    }

    /// An empty set for this build, not complete yet.
    pub(super) fn begin(&self, variant: &str) -> Result<Set, KernelError> {
        let path = Path::new(ROOT).join(build(variant) + UNFINISHED);
        let set = Set { path };
        set.remove_all()?;
        make_directory(&set.path)?;
        for part in PARTS {
            make_directory(&set.path.join(part))?;
        }
        Ok(set)
    }

    /// All sets but this one.
    pub(super) fn others(&self, than: &Set) -> Result<Vec<Set>, KernelError> {
        let mut sets = all()?;
        sets.retain(|set| set.path != than.path);
        Ok(sets)
    }
}

impl Set {
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.path.join("programs").join(name)
    }

    pub(super) fn link(&self, name: &str) -> PathBuf {
        self.path.join("links").join(name)
    }

    pub(super) fn map_path(&self, name: &str) -> PathBuf {
        self.path.join("maps").join(name)
    }

    pub(super) fn has_program(&self, name: &str) -> bool {
        self.program(name).exists()
    }

    /// Takes a program off its hook, as far as this pin held it there.
    pub(super) fn unlink(&self, name: &str) {
        // It may not have been there.
        let _ = fs::remove_file(self.link(name));
    }

    /// Paths of all maps.
    pub(super) fn maps(&self) -> Result<Vec<PathBuf>, KernelError> {
        let directory = self.path.join("maps");
        fs::read_dir(&directory)
            .and_then(|maps| maps.map(|map| map.map(|map| map.path())).collect())
            .map_err(|error| failed("list", &directory, &error))
    }

    /// Opens a map.
    pub(super) fn map(&self, name: &str) -> Result<Map, KernelError> {
        MapData::from_pin(self.map_path(name))
            .and_then(Map::from_map_data)
            .map_err(|error| KernelError::from_aya(&format!("map {name}"), &error))
    }

    /// Notes that this kernel did not take a program.
    pub(super) fn note_lost(&self, program: &str) -> Result<(), KernelError> {
        make_directory(&self.path.join("lost").join(program))
    }

    /// Notes that there is nothing to do for a program on this kernel.
    pub(super) fn note_unneeded(&self, program: &str) -> Result<(), KernelError> {
        make_directory(&self.path.join("unneeded").join(program))
    }

    /// Whether there is nothing to do for a program.
    pub(super) fn is_unneeded(&self, program: &str) -> bool {
        self.path.join("unneeded").join(program).is_dir()
    }

    /// Whether a program is not there for a reason.
    pub(super) fn is_absent(&self, program: &str) -> bool {
        self.is_unneeded(program) || self.path.join("lost").join(program).is_dir()
    }

    /// Declares the set complete.
    pub(super) fn complete(&mut self) -> Result<(), KernelError> {
        let name = self.path.to_string_lossy().into_owned();
        let Some(path) = name.strip_suffix(UNFINISHED).map(PathBuf::from) else {
            return Ok(());
        };
        fs::rename(&self.path, &path).map_err(|error| failed("rename", &self.path, &error))?;
        self.path = path;
        Ok(())
    }

    /// From here on no start takes this set for complete, although its programs are at work.
    pub(super) fn discard(&mut self) -> Result<(), KernelError> {
        let name = self.path.to_string_lossy().into_owned();
        if name.ends_with(UNFINISHED) || name.ends_with(DISCARDED) {
            return Ok(());
        }
        let path = PathBuf::from(name + DISCARDED);
        Self { path: path.clone() }.remove_all()?;
        fs::rename(&self.path, &path).map_err(|error| failed("rename", &self.path, &error))?;
        self.path = path;
        Ok(())
    }

    /// Takes everything away: the programs leave their hooks.
    pub(super) fn remove(mut self) -> Result<(), KernelError> {
        // What is interrupted must not look complete.
        self.discard()?;
        self.remove_all()
    }

    fn remove_all(&self) -> Result<(), KernelError> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(failed("remove", &self.path, &error))
            }
            _ => Ok(()),
        }
    }
}

/// Ends enforcement: takes all programs of every build off their hooks. Answers how many builds
/// there were.
///
/// # Errors
/// When an agent runs, or something cannot be removed.
pub fn release() -> Result<usize, KernelError> {
    if !Path::new(ROOT).exists() {
        return Ok(0);
    }
    let _root = Root::take()?;
    let sets = all()?;
    let count = sets.len();
    sets.into_iter().try_for_each(Set::remove)?;
    Ok(count)
}

/// All sets, complete or not.
fn all() -> Result<Vec<Set>, KernelError> {
    let root = Path::new(ROOT);
    let entries = match fs::read_dir(root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|error| failed("list", root, &error))?,
    };
    entries
        .map(|entry| entry.map(|entry| Set { path: entry.path() }))
        .collect::<Result<_, _>>()
        .map_err(|error| failed("list", root, &error))
}

/// Name of this build: the programs themselves, and what changes them at load.
fn build(variant: &str) -> String {
    let digest = Sha256::new().chain_update(OBJECT).chain_update(variant).finalize();
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn make_directory(path: &Path) -> Result<(), KernelError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(failed("make", path, &error))
        }
        _ => Ok(()),
    }
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> KernelError {
    KernelError::from_aya(&format!("cannot {what} {}", path.display()), error)
}
