//! Where a file system is mounted, for records that know a path only within its file system.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::share::Share;
use crate::limits::{MOUNT_TABLE_BYTES_MAX, MOUNTS_KEPT_MAX};

/// Where the mount table comes from.
pub trait MountLocator: Send {
    /// The table in the format of `/proc/self/mountinfo`, if it may have changed since it was
    /// asked last.
    fn changed(&mut self) -> Option<Vec<u8>>;

    /// The table that a process sees, which may be in a mount namespace of its own.
    fn of_process(&self, _tgid: u32) -> Option<Vec<u8>> {
        None
    }
}

/// `/proc/self/mountinfo`, which tells by `poll` that it changed.
pub(super) struct MountInfo {
    file: Option<File>,
    first: bool,
}

impl MountInfo {
    /// Opens it; without it every path stays relative to its file system.
    pub(super) fn open() -> Self {
        Self { file: File::open("/proc/self/mountinfo").ok(), first: true }
    }
}

impl MountLocator for MountInfo {
    fn changed(&mut self) -> Option<Vec<u8>> {
        let file = self.file.as_mut()?;
        let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLPRI)];
        let ready = poll(&mut fds, PollTimeout::ZERO).ok()? > 0
            && fds.iter().any(|fd| {
                fd.revents().is_some_and(|events| {
                    events.intersects(PollFlags::POLLPRI | PollFlags::POLLERR)
                })
            });
        if !ready && !self.first {
            return None;
        }
        self.first = false;
        let mut table = Vec::new();
        file.rewind().ok()?;
        file.take(MOUNT_TABLE_BYTES_MAX).read_to_end(&mut table).ok()?;
        Some(table)
    }

    fn of_process(&self, tgid: u32) -> Option<Vec<u8>> {
        let file = File::open(format!("/proc/{tgid}/mountinfo")).ok()?;
        let mut table = Vec::new();
        file.take(MOUNT_TABLE_BYTES_MAX).read_to_end(&mut table).ok()?;
        Some(table)
    }
}

/// One mount: what of the file system it shows, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    root: Vec<u8>,
    point: Vec<u8>,
    share: Option<Share>,
}

/// The mounts by device. A file system that is gone keeps its last place: the records of its last
/// closes come after the unmount.
pub struct Mounts {
    locator: Box<dyn MountLocator>,
    by_device: HashMap<u32, Vec<Mount>>,
    /// Devices of the table that was read last.
    present: HashSet<u32>,
    /// Shares that only others see, in mount namespaces of their own.
    elsewhere: HashMap<u32, Share>,
}

impl Mounts {
    /// With this source.
    #[must_use]
    pub fn new(locator: Box<dyn MountLocator>) -> Self {
        Self {
            locator,
            by_device: HashMap::new(),
            present: HashSet::new(),
            elsewhere: HashMap::new(),
        }
    }

    /// The host's path of `path` within the file system on `dev` (the kernel's number,
    /// `major << 20 | minor`). `None` when that file system is mounted nowhere.
    pub fn locate(&mut self, dev: u32, path: &[u8]) -> Option<Vec<u8>> {
        self.refresh();
        let mounts = self.by_device.get(&dev)?;
        mounts.iter().find_map(|mount| {
            let inside = below(path, &mount.root)?;
            let mut host = mount.point.clone();
            if host == b"/" && !inside.is_empty() {
                host.clear();
            }
            host.extend_from_slice(inside);
            Some(host)
        })
    }

    /// Whether the file system on `dev` is mounted at this moment.
    pub fn is_mounted(&mut self, dev: u32) -> bool {
        self.refresh();
        self.present.contains(&dev)
    }

    /// Whether a share that can be written to is mounted, besides the root.
    pub fn has_shares(&mut self) -> bool {
        self.refresh();
        let present = self.present.iter().filter_map(|dev| self.by_device.get(dev)).flatten();
        present
            .filter(|mount| mount.point != b"/")
            .any(|mount| mount.share.as_ref().is_some_and(|share| share.writable))
    }

    /// What the share on `dev` is. `tgid` may see a mount of it that this process does not see, and
    /// is asked when that is not known yet or, with `anew`, again: such numbers are soon used again.
    pub fn share(&mut self, dev: u32, tgid: u32, anew: bool) -> Option<&Share> {
        self.refresh();
        let known = self.by_device.get(&dev).filter(|_| self.present.contains(&dev));
        let ours = known.into_iter().flatten().any(|mount| mount.share.is_some());
        if !ours && (anew || !self.elsewhere.contains_key(&dev)) {
            self.look_elsewhere(dev, tgid);
        }
        let before = || self.by_device.get(&dev)?.iter().find_map(|it| it.share.as_ref());
        if ours { before() } else { self.elsewhere.get(&dev).or_else(before) }
    }

    fn look_elsewhere(&mut self, dev: u32, tgid: u32) {
        let table = self.locator.of_process(tgid).unwrap_or_default();
        let mut lines = table.split(|byte| *byte == b'\n').filter_map(parse_line);
        if let Some(share) = lines.find_map(|(at, mount)| mount.share.filter(|_| at == dev)) {
            if self.elsewhere.len() >= MOUNTS_KEPT_MAX {
                self.elsewhere.clear();
            }
            self.elsewhere.insert(dev, share);
        }
    }

    fn refresh(&mut self) {
        if let Some(table) = self.locator.changed() {
            self.update(&table);
        }
    }

    fn update(&mut self, table: &[u8]) {
        let mut read: HashMap<u32, Vec<Mount>> = HashMap::new();
        for line in table.split(|byte| *byte == b'\n') {
            if let Some((dev, mount)) = parse_line(line) {
                read.entry(dev).or_default().push(mount);
            }
        }
        // The mount that shows the whole file system explains a path best.
        for mounts in read.values_mut() {
            mounts.sort_by_key(|mount| mount.root.len());
        }
        if self.by_device.len() + read.len() > MOUNTS_KEPT_MAX {
            self.by_device.clear();
        }
        self.elsewhere.retain(|dev, _| !read.contains_key(dev));
        self.present = read.keys().copied().collect();
        self.by_device.extend(read);
    }
}

/// What is left of `path` below `root`: empty for the root itself, else it begins with `/`.
fn below<'a>(path: &'a [u8], root: &[u8]) -> Option<&'a [u8]> {
    let root = root.strip_suffix(b"/").unwrap_or(root);
    let inside = path.strip_prefix(root)?;
    match inside {
        [] | [b'/'] => Some(&[]),
        [b'/', ..] => Some(inside),
        _ => None,
    }
}

/// `36 35 98:0 /root /mount/point options… - type source options`, names with octal escapes. Read
/// as bytes: a mount point need not be UTF-8.
fn parse_line(line: &[u8]) -> Option<(u32, Mount)> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = std::str::from_utf8(fields.nth(2)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let dev = major.parse::<u32>().ok()?.checked_shl(20)? | minor.parse::<u32>().ok()?;
    let root = unescape(fields.next()?);
    let point = unescape(fields.next()?);
    let share = Share::parse(fields.skip_while(|field| *field != b"-").skip(1).map(unescape));
    point.starts_with(b"/").then_some((dev, Mount { root, point, share }))
}

/// `\040` → space; also tab, newline and backslash, as the kernel's `seq_path` writes them.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|digits| {
            *first == b'\\' && digits.iter().all(|digit| (b'0'..=b'7').contains(digit))
        });
        let value = octal.and_then(|digits| {
            digits.iter().try_fold(0u8, |sum, digit| sum.checked_mul(8)?.checked_add(digit - b'0'))
        });
        match value {
            Some(value) => {
                out.push(value);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}
