//! The hash of what is on the medium now.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use nix::fcntl::OFlag;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use crate::limits::{RECEIPT_FILE_BYTES_MAX, RECEIPTS_LEAVE, RECEIPTS_WAITING_MAX};
use crate::record::Recorded;

const BUFFER_BYTES: usize = 1 << 18;

/// A receipt without its hash.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) recorded: Recorded,
}

/// When each file system was asked to go, by kernel device number.
type Leaving = Arc<Mutex<HashMap<u32, Instant>>>;

/// The thread that hashes.
pub(super) struct Hasher {
    leaving: Leaving,
    asked: SyncSender<Asked>,
    finished: mpsc::UnboundedSender<Recorded>,
}

impl Hasher {
    pub(super) fn start() -> (Self, mpsc::UnboundedReceiver<Recorded>) {
        let (asked, questions) = sync_channel::<Asked>(RECEIPTS_WAITING_MAX);
        let (finished, answers) = mpsc::unbounded_channel();
        let answer = finished.clone();
        let leaving = Leaving::default();
        let leave = Arc::clone(&leaving);
        std::thread::spawn(move || {
            for Asked { mut recorded } in questions {
                match sha256_of(&recorded, &leave) {
                    Ok(hash) => recorded.event.sha256 = hash,
                    Err(why) => recorded.event.sha256_missing = why,
                }
                let _ = answer.send(recorded);
            }
        });
        (Self { leaving, asked, finished }, answers)
    }

    /// Somebody wants to unmount this.
    pub(super) fn leave(&self, dev: u32) {
        let now = Instant::now();
        let mut leaving = self.leaving.lock().unwrap_or_else(PoisonError::into_inner);
        leaving.retain(|_, asked| now - *asked < RECEIPTS_LEAVE);
        leaving.insert(dev, now);
    }

    /// The receipt comes out with the hash, or with the reason why there is none.
    pub(super) fn ask(&self, asked: Asked) {
        if let Err(refused) = self.asked.try_send(asked) {
            use std::sync::mpsc::TrySendError::{Disconnected, Full};
            let (Full(Asked { mut recorded }) | Disconnected(Asked { mut recorded })) = refused;
            recorded.event.sha256_missing = "too many files were closed at once".to_owned();
            let _ = self.finished.send(recorded);
        }
    }
}

fn leaves(leaving: &Leaving, dev: u32) -> bool {
    let leaving = leaving.lock().unwrap_or_else(PoisonError::into_inner);
    leaving.get(&dev).is_some_and(|asked| asked.elapsed() < RECEIPTS_LEAVE)
}

fn sha256_of(recorded: &Recorded, leaving: &Leaving) -> Result<Vec<u8>, String> {
    let about = recorded.event.file.as_ref().ok_or("the file is not known")?;
    if !about.path.starts_with(b"/") {
        return Err("the path is not known".to_owned());
    }
    let (major, minor) = about.device.as_ref().map_or((0, 0), |it| (it.major, it.minor));
    let dev = major << 20 | minor;
    let path = Path::new(std::ffi::OsStr::from_bytes(&about.path));
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
        .map_err(|error| format!("the file cannot be opened: {error}"))?;
    let before = stand(&file)?;
    if before.inode != about.inode || before.device != (u64::from(major), u64::from(minor)) {
        return Err("another file has its name now".to_owned());
    }
    if before.size != about.size {
        return Err("it was changed after it was closed".to_owned());
    }
    if before.size > RECEIPT_FILE_BYTES_MAX {
        return Err(format!("it is longer than {RECEIPT_FILE_BYTES_MAX} bytes"));
    }
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        if leaves(leaving, dev) {
            return Err("its file system was to be unmounted".to_owned());
        }
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(bytes) => hash.update(buffer.get(..bytes).unwrap_or_default()),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(format!("the file cannot be read: {error}")),
        }
    }
    if stand(&file)? != before {
        return Err("it was changed while it was read".to_owned());
    }
    Ok(hash.finalize().to_vec())
}

/// What tells that a file is the same as before.
#[derive(PartialEq, Eq)]
struct Stand {
    inode: u64,
    device: (u64, u64),
    size: u64,
    changed: (i64, i64),
}

fn stand(file: &File) -> Result<Stand, String> {
    let facts =
        file.metadata().map_err(|error| format!("the file cannot be looked at: {error}"))?;
    let device = (nix::sys::stat::major(facts.dev()), nix::sys::stat::minor(facts.dev()));
    Ok(Stand {
        inode: facts.ino(),
        device,
        size: facts.len(),
        changed: (facts.mtime(), facts.mtime_nsec()),
    })
}
