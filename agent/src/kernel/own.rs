//! The agent's own files, marked for the kernel programs.
//!
//! A mark is kept with the inode in memory, so it asks for no numbers that file systems tell one way
//! and use another. The file is held open as long as the mark counts: the kernel forgets the inodes
//! that nobody holds.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::libc::O_PATH;
use sekimori_abi::table::own;

use super::{KernelError, pinned};

/// What a file is to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Own {
    /// Its own.
    File,
    /// A directory; the names in it are the agent's, too.
    Directory,
}

/// Files with a mark.
pub(super) struct Files {
    storage: OwnedFd,
    held: BTreeMap<PathBuf, File>,
}

impl Files {
    /// Opens the storage of the marks.
    pub(super) fn open(storage: &Path) -> Result<Self, KernelError> {
        let open = pinned::open(storage);
        let storage =
            open.map_err(|error| KernelError::from_aya(&storage.display().to_string(), &error))?;
        Ok(Self { storage, held: BTreeMap::new() })
    }

    /// Marks what is at these places now, instead of what was there. What is not there keeps its last
    /// mark: whoever took it away may bring it back.
    pub(super) fn look(&mut self, files: &[(PathBuf, Own)]) -> Result<(), KernelError> {
        for (path, what) in files {
            let Ok(file) = OpenOptions::new().read(true).custom_flags(O_PATH).open(path) else {
                continue;
            };
            if self.held.get(path).is_some_and(|held| same(held, &file)) {
                continue;
            }
            let marked = pinned::keep(self.storage.as_fd(), file.as_fd(), mark(*what));
            let failed = |error| KernelError::from_aya(&path.display().to_string(), &error);
            marked.map_err(failed)?;
            if let Some(before) = self.held.insert(path.clone(), file) {
                // It may have gone by itself.
                let _ = pinned::forget(self.storage.as_fd(), before.as_fd());
            }
        }
        Ok(())
    }
}

/// Marks of agents that have ended say nothing.
fn mark(what: Own) -> u64 {
    let what = match what {
        Own::File => own::FILE,
        Own::Directory => own::DIRECTORY,
    };
    u64::from(std::process::id()) << 32 | what
}

fn same(held: &File, now: &File) -> bool {
    let number = |file: &File| -> io::Result<(u64, u64)> {
        let data = file.metadata()?;
        Ok((data.dev(), data.ino()))
    };
    matches!((number(held), number(now)), (Ok(held), Ok(now)) if held == now)
}
