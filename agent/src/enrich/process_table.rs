//! Who runs: fed by exec, fork and exit records, and by a look at `/proc` when the agent starts.
//!
//! A process is (process id, start time); neither is ever reused together within one boot. `/proc`
//! shows the start only in clock ticks, so what was read there is kept under its rounded start and
//! found by rounding the exact one.

use std::collections::VecDeque;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt as _};
use sekimori_abi::event::{Process, flag, kind, operation, verdict};

use super::clock::Clock;
use super::scan::{Found, Processes};
use crate::decode::Raw;
use crate::limits::{ANCESTORS_MAX, DESCRIBED_BYTES_MAX, EXITED_KEPT_MAX, PROCESSES_MAX};

/// ns of one clock tick of `/proc/PID/stat` (`USER_HZ` is 100 on every supported machine).
const TICK_NS: u64 = 10_000_000;

/// Names a process; never reused within one boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProcessKey {
    /// Process id.
    pub tgid: u32,
    /// Start, ns of `CLOCK_BOOTTIME`.
    pub start_ns: u64,
}

impl ProcessKey {
    /// Of the process that a record is about.
    #[must_use]
    pub const fn of(process: &Process) -> Self {
        Self { tgid: process.tgid, start_ns: process.start_ns }
    }

    /// Of its parent at that time.
    #[must_use]
    pub const fn parent_of(process: &Process) -> Self {
        Self { tgid: process.parent_tgid, start_ns: process.parent_start_ns }
    }

    const fn rounded(self) -> Self {
        Self { tgid: self.tgid, start_ns: self.start_ns / TICK_NS * TICK_NS }
    }
}

/// What a process runs. Shared by everything forked from it until the next exec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Path of the executable.
    pub exe: Vec<u8>,
    /// Arguments as they were at exec.
    pub argv: Vec<Vec<u8>>,
    /// There were more arguments than are kept.
    pub arguments_truncated: bool,
    /// Variables of the environment at exec that tell the loader what else to load.
    pub environment: Vec<Vec<u8>>,
    /// There may have been more of them.
    pub environment_truncated: bool,
    /// Working directory as it was at exec.
    pub cwd: Vec<u8>,
    /// Short name.
    pub comm: Vec<u8>,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Exact once a record named it; before that, the start is rounded down to 10 ms.
    pub key: ProcessKey,
    /// Who forked it. Stays when the parent ends and the kernel gives the child another one.
    pub parent: Option<ProcessKey>,
    /// Start, UTC ns since 1970, as it was reckoned first: the same in every record although the
    /// wall clock is adjusted meanwhile.
    pub start_utc_ns: i64,
    /// Real uid when it was seen last.
    pub uid: u32,
    /// What it runs.
    pub image: Arc<Image>,
    /// What records say of it again and again, from its first record until its next exec.
    pub described: Option<Box<Described>>,
}

/// What records say of a process, encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Of whom, without what is a thread's own.
    pub who: Process,
    /// [`super::Users::names`] at that time.
    pub names: u32,
    /// So many of the bytes stay until the next exec, whoever it is.
    pub stays: usize,
    /// `Process` in `event.proto`.
    pub encoded: Arc<[u8]>,
}

impl Described {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.encoded.len()
    }
}

struct Entry {
    known: Known,
    rounded: bool,
    ended: bool,
}

impl Entry {
    /// Answers how many bytes that was.
    fn forget_description(&mut self) -> usize {
        self.known.described.take().map_or(0, |described| described.bytes())
    }
}

/// The processes, at most [`PROCESSES_MAX`]; those that ended are kept a while, because their last
/// records and their children still name them.
pub struct ProcessTable {
    entries: HashMap<ProcessKey, Entry>,
    born: VecDeque<ProcessKey>,
    exited: VecDeque<ProcessKey>,
    running: Box<dyn Processes>,
    described_bytes: usize,
    /// Processes that were forgotten while they may still have run, because the table was full.
    pub evicted: u64,
}

impl ProcessTable {
    /// An empty table that looks up what it does not know with `running`.
    #[must_use]
    pub fn new(running: Box<dyn Processes>) -> Self {
        Self {
            entries: HashMap::new(),
            born: VecDeque::new(),
            exited: VecDeque::new(),
            running,
            described_bytes: 0,
            evicted: 0,
        }
    }

    /// Reads all processes that run now. Returns how many there are.
    pub fn scan(&mut self, clock: &Clock) -> usize {
        let found = self.running.all();
        let keys: HashMap<u32, ProcessKey> =
            found.iter().map(|process| (process.tgid, rounded_key(process))).collect();
        let count = found.len();
        for process in found {
            let key = rounded_key(&process);
            if !self.entries.contains_key(&key) {
                let parent = keys.get(&process.parent_tgid).copied();
                self.insert_found(process, parent, clock);
            }
        }
        count
    }

    /// How many processes are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Learns from one record: who was forked, what it runs now, that it ended. `exe` and `cwd` are
    /// the record's paths as the host sees them.
    pub fn learn(&mut self, raw: &Raw, exe: &[u8], cwd: &[u8], clock: &Clock) {
        let process = &raw.event.process;
        let key = ProcessKey::of(process);
        match raw.event.kind {
            kind::FORK => self.forked(process, clock),
            kind::EXEC if launched(raw) => {
                let image = Image {
                    exe: exe.to_vec(),
                    argv: raw.arguments(),
                    arguments_truncated: raw.has(flag::ARGUMENTS_TRUNCATED),
                    environment: raw.environment(),
                    environment_truncated: raw.has(flag::ENVIRONMENT_TRUNCATED),
                    cwd: cwd.to_vec(),
                    comm: zero_ended(&process.comm).to_vec(),
                };
                self.set_image(process, Arc::new(image), clock);
            }
            kind::EXIT => {
                if let Some(stored) = self.stored_key(key) {
                    self.ended(stored);
                    self.exited.push_back(stored);
                }
                while self.exited.len() > EXITED_KEPT_MAX {
                    self.forget_oldest_exited();
                }
            }
            _ => {}
        }
    }

    /// This process, from the table or else from `/proc` while it runs.
    pub fn find(&mut self, key: ProcessKey, clock: &Clock) -> Option<&Known> {
        let stored = match self.stored_key(key) {
            Some(stored) => stored,
            None => {
                let found = self.running.find(key.tgid)?;
                let rounded = rounded_key(&found);
                if rounded != key.rounded() {
                    return None;
                }
                let parent = self.current_key(found.parent_tgid);
                self.insert_found(found, parent, clock);
                rounded
            }
        };
        let entry = self.entries.get_mut(&stored)?;
        if entry.rounded && entry.known.key == stored {
            entry.known.key = key;
            entry.known.start_utc_ns = clock.utc_ns(key.start_ns);
        }
        Some(&entry.known)
    }

    /// Keeps what records say of a process until it runs something else or ends, if there is room.
    pub fn describe(&mut self, key: ProcessKey, described: Described) {
        let stored = self.stored_key(key);
        let entry = stored.and_then(|stored| self.entries.get_mut(&stored));
        let Some(entry) = entry.filter(|entry| !entry.ended) else { return };
        self.described_bytes -= entry.forget_description();
        if self.described_bytes + described.bytes() <= DESCRIBED_BYTES_MAX {
            self.described_bytes += described.bytes();
            entry.known.described = Some(Box::new(described));
        }
    }

    /// The parents of `key`, nearest first, at most [`ANCESTORS_MAX`]; ends where the table does.
    #[must_use]
    pub fn ancestors(&self, key: ProcessKey) -> Vec<&Known> {
        let parent = self.get(key).and_then(|known| known.parent);
        parent.map(|parent| self.line(parent)).unwrap_or_default()
    }

    /// A process and its parents, likewise.
    #[must_use]
    pub fn line(&self, first: ProcessKey) -> Vec<&Known> {
        let mut chain = Vec::with_capacity(ANCESTORS_MAX);
        let mut next = Some(first);
        while chain.len() < ANCESTORS_MAX
            && let Some(known) = next.and_then(|key| self.get(key))
        {
            chain.push(known);
            next = known.parent.filter(|parent| *parent != known.key);
        }
        chain
    }

    /// What is known of a process without asking.
    #[must_use]
    pub fn get(&self, key: ProcessKey) -> Option<&Known> {
        let exact = self.entries.get(&key);
        let entry =
            exact.or_else(|| self.entries.get(&key.rounded()).filter(|entry| entry.rounded))?;
        Some(&entry.known)
    }

    /// Under which key the table holds this process.
    fn stored_key(&self, key: ProcessKey) -> Option<ProcessKey> {
        if self.entries.contains_key(&key) {
            return Some(key);
        }
        let rounded = key.rounded();
        self.entries.get(&rounded).filter(|entry| entry.rounded).map(|_| rounded)
    }

    /// The key of a process that runs now and is known already.
    fn current_key(&self, tgid: u32) -> Option<ProcessKey> {
        let found = self.running.find(tgid)?;
        Some(rounded_key(&found))
    }

    fn forked(&mut self, child: &Process, clock: &Clock) {
        let key = ProcessKey::of(child);
        if self.stored_key(key).is_some() {
            return;
        }
        let parent = ProcessKey::parent_of(child);
        let image = self.find(parent, clock).map(|known| Arc::clone(&known.image));
        let image = image.unwrap_or_else(|| {
            Arc::new(Image { comm: zero_ended(&child.comm).to_vec(), ..Image::default() })
        });
        let start_utc_ns = clock.utc_ns(key.start_ns);
        let known = Known {
            key,
            parent: Some(parent),
            start_utc_ns,
            uid: child.uid,
            image,
            described: None,
        };
        self.insert(key, Entry { known, rounded: false, ended: false });
    }

    fn set_image(&mut self, process: &Process, image: Arc<Image>, clock: &Clock) {
        let key = ProcessKey::of(process);
        if let Some(stored) = self.stored_key(key)
            && let Some(entry) = self.entries.get_mut(&stored)
        {
            entry.known.key = key;
            entry.known.uid = process.uid;
            entry.known.image = image;
            self.described_bytes -= entry.forget_description();
            return;
        }
        let parent = Some(ProcessKey::parent_of(process));
        let start_utc_ns = clock.utc_ns(key.start_ns);
        let known = Known { key, parent, start_utc_ns, uid: process.uid, image, described: None };
        self.insert(key, Entry { known, rounded: false, ended: false });
    }

    fn insert_found(&mut self, found: Found, parent: Option<ProcessKey>, clock: &Clock) {
        let key = rounded_key(&found);
        let start_utc_ns = clock.utc_ns(key.start_ns);
        let image = Arc::new(found.image);
        let known = Known { key, parent, start_utc_ns, uid: found.uid, image, described: None };
        self.insert(key, Entry { known, rounded: true, ended: false });
    }

    fn insert(&mut self, key: ProcessKey, entry: Entry) {
        while self.entries.len() >= PROCESSES_MAX {
            if !self.exited.is_empty() {
                self.forget_oldest_exited();
            } else if let Some(oldest) = self.born.pop_front() {
                if self.remove(oldest) {
                    self.evicted += 1;
                }
            } else {
                self.entries.clear();
                self.described_bytes = 0;
            }
        }
        if self.born.len() >= 2 * PROCESSES_MAX {
            self.born.retain(|key| self.entries.contains_key(key));
        }
        self.born.push_back(key);
        if let Some(mut before) = self.entries.insert(key, entry) {
            self.described_bytes -= before.forget_description();
        }
    }

    fn forget_oldest_exited(&mut self) {
        if let Some(key) = self.exited.pop_front() {
            self.remove(key);
        }
    }

    fn remove(&mut self, key: ProcessKey) -> bool {
        let removed = self.entries.remove(&key);
        if let Some(mut entry) = removed {
            self.described_bytes -= entry.forget_description();
            return true;
        }
        false
    }

    fn ended(&mut self, stored: ProcessKey) {
        if let Some(entry) = self.entries.get_mut(&stored) {
            entry.ended = true;
            self.described_bytes -= entry.forget_description();
        }
    }
}

/// Whether it is a new program that a record tells of.
const fn launched(raw: &Raw) -> bool {
    raw.event.operation == operation::EXEC && raw.event.verdict != verdict::DENIED
}

const fn rounded_key(found: &Found) -> ProcessKey {
    ProcessKey { tgid: found.tgid, start_ns: found.start_ticks.saturating_mul(TICK_NS) }
}

/// A zero-padded field without its padding.
pub(crate) fn zero_ended(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}
