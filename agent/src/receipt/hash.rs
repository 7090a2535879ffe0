//! The hash of what can be read back.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{SFlag, fstat, major, minor};
use sekimori_proto::v1::File as Named;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::{Place, place};
use crate::limits::{
    RECEIPT_FILE_BYTES_MAX, RECEIPTS_LEAVE, RECEIPTS_WAITING_BYTES_MAX, RECEIPTS_WAITING_MAX,
};
use crate::record::Recorded;

const BUFFER_BYTES: usize = 1 << 18;
/// What the thread's share of a busy processor is: the smallest.
const NICE: i32 = 19;

const STOPPED: &str = "the agent stopped before it was read";

/// A receipt without its hash.
struct Asked {
    recorded: Recorded,
    bytes: usize,
    place: Place,
    /// How often the file was opened and closed before.
    change: u64,
}

#[derive(Default)]
struct Waiting {
    queue: VecDeque<Asked>,
    bytes: usize,
    /// How often each file with receipts in the queue was opened and closed.
    changes: HashMap<Place, u64>,
    /// When each file system was asked to go, by kernel device number.
    leaving: HashMap<u32, Instant>,
    stopped: bool,
    ended: bool,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    more: Condvar,
}

/// The thread that hashes.
pub(super) struct Hasher {
    shared: Arc<Shared>,
    finished: mpsc::UnboundedSender<Recorded>,
}

impl Hasher {
    pub(super) fn start() -> (Self, mpsc::UnboundedReceiver<Recorded>) {
        let (finished, answers) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared::default());
        let (inside, answer) = (Arc::clone(&shared), finished.clone());
        std::thread::spawn(move || {
            // Of this thread alone. Without it the hashes are in other people's way, no more.
            let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICE);
            inside.answer(&answer);
        });
        (Self { shared, finished }, answers)
    }

    /// The receipt comes out with the hash, or with the reason why there is none.
    pub(super) fn ask(&self, mut recorded: Recorded) {
        let mut waiting = self.shared.lock();
        let bytes = recorded.event.sources.iter().map(|it| size_of::<Named>() + it.path.len());
        let bytes = size_of::<Asked>() + bytes.sum::<usize>();
        let room = waiting.queue.len() < RECEIPTS_WAITING_MAX
            && waiting.bytes + bytes <= RECEIPTS_WAITING_BYTES_MAX;
        if !room {
            drop(waiting);
            "too many files were closed at once".clone_into(&mut recorded.event.sha256_missing);
            let _ = self.finished.send(recorded);
            return;
        }
        let place = recorded.event.file.as_ref().map_or((0, 0), place);
        let change = waiting.changes.entry(place).or_default();
        *change += 1;
        let change = *change;
        waiting.bytes += bytes;
        waiting.queue.push_back(Asked { recorded, bytes, place, change });
        self.shared.more.notify_one();
    }

    /// It was opened for write: what is read from here on may be something else.
    pub(super) fn changes(&self, file: &Named) {
        if let Some(change) = self.shared.lock().changes.get_mut(&place(file)) {
            *change += 1;
        }
    }

    /// Somebody wants to unmount this.
    pub(super) fn leave(&self, dev: u32) {
        let now = Instant::now();
        let mut waiting = self.shared.lock();
        waiting.leaving.retain(|_, asked| now - *asked < RECEIPTS_LEAVE);
        waiting.leaving.insert(dev, now);
    }

    /// Whatever waits comes out without a hash.
    pub(super) fn stop(&self) {
        self.shared.lock().stopped = true;
    }
}

impl Drop for Hasher {
    fn drop(&mut self) {
        let mut waiting = self.shared.lock();
        (waiting.stopped, waiting.ended) = (true, true);
        self.shared.more.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, answer: &mpsc::UnboundedSender<Recorded>) {
        while let Some(mut asked) = self.next() {
            match self.sha256_of(&asked) {
                Ok(hash) => asked.recorded.event.sha256 = hash,
                Err(why) => asked.recorded.event.sha256_missing = why,
            }
            self.forget(asked.place);
            let _ = answer.send(asked.recorded);
        }
    }

    /// Waits for a receipt; `None` when there will be no more.
    fn next(&self) -> Option<Asked> {
        let mut waiting = self.lock();
        loop {
            if let Some(asked) = waiting.queue.pop_front() {
                waiting.bytes -= asked.bytes;
                return Some(asked);
            }
            if waiting.ended {
                return None;
            }
            waiting = self.more.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn forget(&self, place: Place) {
        let mut waiting = self.lock();
        if waiting.queue.iter().all(|asked| asked.place != place) {
            waiting.changes.remove(&place);
        }
    }

    /// Why it should not be read, or not be read on.
    fn objection(&self, asked: &Asked) -> Result<(), String> {
        let waiting = self.lock();
        let (dev, _) = asked.place;
        if waiting.stopped {
            return Err(STOPPED.to_owned());
        }
        if waiting.changes.get(&asked.place) != Some(&asked.change) {
            return Err("it was opened for write again".to_owned());
        }
        if waiting.leaving.get(&dev).is_some_and(|asked| asked.elapsed() < RECEIPTS_LEAVE) {
            return Err("its file system was to be unmounted".to_owned());
        }
        Ok(())
    }

    fn sha256_of(&self, asked: &Asked) -> Result<Vec<u8>, String> {
        self.objection(asked)?;
        let about = asked.recorded.event.file.as_ref().ok_or("the file is not known")?;
        let mut file = open(about)?;
        let before = stand(&file)?;
        if before.size != about.size {
            return Err("it was changed after it was closed".to_owned());
        }
        if before.size > RECEIPT_FILE_BYTES_MAX {
            return Err(format!("it is longer than {RECEIPT_FILE_BYTES_MAX} bytes"));
        }
        let mut hash = Sha256::new();
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut left = before.size;
        loop {
            self.objection(asked)?;
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(bytes) => {
                    left = left.checked_sub(bytes as u64).ok_or("it grew while it was read")?;
                    hash.update(buffer.get(..bytes).unwrap_or_default());
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("the file cannot be read: {error}")),
            }
        }
        if stand(&file)? != before {
            return Err("it was changed while it was read".to_owned());
        }
        self.objection(asked)?;
        Ok(hash.finalize().to_vec())
    }
}

/// Opens the file itself and nothing that took its place: no link is followed on the way, and
/// nothing but this very inode is opened, since the mere open of a terminal or a device does things.
fn open(about: &Named) -> Result<File, String> {
    if !about.path.starts_with(b"/") {
        return Err("the path is not known".to_owned());
    }
    let failed = |error| format!("the file cannot be opened: {error}");
    let path = Path::new(std::ffi::OsStr::from_bytes(&about.path));
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let found: OwnedFd = openat2(AT_FDCWD, path, how).map_err(|errno| failed(errno.into()))?;
    let facts = fstat(&found).map_err(|errno| failed(errno.into()))?;
    let regular = facts.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits();
    let dev = u32::try_from(major(facts.st_dev) << 20 | minor(facts.st_dev)).ok();
    let (wanted, inode) = place(about);
    let same_dev = || dev == Some(wanted) || file_system(&found) == Some(wanted);
    if !regular || facts.st_ino != inode || !same_dev() {
        return Err("another file has its name now".to_owned());
    }
    let again = format!("/proc/self/fd/{}", found.as_raw_fd());
    let open = |more: OFlag| {
        let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | more;
        OpenOptions::new().read(true).custom_flags(flags.bits()).open(&again)
    };
    // A hash is no access that somebody should see; only the owner may hide one.
    open(OFlag::O_NOATIME).or_else(|_| open(OFlag::empty())).map_err(failed)
}

/// The kernel's number of the file system that an open file lies on, by the mount it was opened
/// through: stat(2) gives each subvolume of btrfs a number of its own.
fn file_system(file: &OwnedFd) -> Option<u32> {
    let about = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).ok()?;
    let mount = about.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim();
    let mounts = std::fs::read("/proc/self/mountinfo").ok()?;
    let line = mounts.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        (fields.next() == Some(mount.as_bytes())).then(|| fields.nth(1))?
    })?;
    let (major, minor) = std::str::from_utf8(line).ok()?.split_once(':')?;
    Some(major.parse::<u32>().ok()? << 20 | minor.parse::<u32>().ok()?)
}

/// What tells that a file is the same as before.
#[derive(PartialEq, Eq)]
struct Stand {
    size: u64,
    changed: (i64, i64),
}

fn stand(file: &File) -> Result<Stand, String> {
    let facts =
        file.metadata().map_err(|error| format!("the file cannot be looked at: {error}"))?;
    Ok(Stand { size: facts.len(), changed: (facts.mtime(), facts.mtime_nsec()) })
}
