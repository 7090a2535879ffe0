//! Tells the person who was refused why, on the terminal they used.
//!
//! Only refusals by a rule with a `tell.user` text are told. The writing never waits: a terminal
//! that is stopped or gone misses the message, the record has it anyway.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use sekimori_proto::v1::{Device, Event, Kind, Operation, Process, Verdict};

use crate::decode::printable;
use crate::limits::{
    TELL_BURST, TELL_BURST_ALL, TELL_BYTES_MAX, TELL_INTERVAL, TELL_INTERVAL_ALL, TELL_PAIRS_MAX,
    TELL_PATIENCE, TELL_WAITING_MAX,
};

#[cfg(test)]
#[path = "tell_tests.rs"]
mod tests;

/// A token bucket: so many at once, then one per interval.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: u32,
    filled: Instant,
}

impl Bucket {
    const fn full(burst: u32, now: Instant) -> Self {
        Self { tokens: burst, filled: now }
    }

    fn take(&mut self, burst: u32, interval: Duration, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.filled).as_nanos() / interval.as_nanos();
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(u32::MAX);
            self.tokens = self.tokens.saturating_add(earned).min(burst);
            self.filled = match interval.checked_mul(earned) {
                Some(used) => self.filled + used,
                None => now,
            };
        }
        let taken = self.tokens > 0;
        self.tokens = self.tokens.saturating_sub(1);
        taken
    }
}

/// One terminal and one rule.
#[derive(Debug)]
struct Pair {
    bucket: Bucket,
    /// Refusals that were not told since the last message.
    suppressed: u64,
}

/// What was told, and what was not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Told {
    /// Messages written.
    pub written: u64,
    /// Refusals that were too many for one more message.
    pub suppressed: u64,
    /// Terminals that did not take the message: gone, stopped, or not the person's.
    pub failed: u64,
}

/// Writes the messages.
#[derive(Debug)]
pub struct Tell {
    devices: PathBuf,
    pairs: HashMap<(String, String), Pair>,
    all: Bucket,
    told: Told,
    /// Messages to terminals on which somebody else was writing at that moment.
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    process: Process,
    message: String,
    until: Instant,
}

impl Tell {
    /// For the terminals in `/dev`.
    #[must_use]
    pub fn new() -> Self {
        let all = Bucket::full(TELL_BURST_ALL, Instant::now());
        let told = Told::default();
        let waiting = Vec::new();
        Self { devices: "/dev".into(), pairs: HashMap::new(), all, told, waiting }
    }

    /// What was told so far.
    #[must_use]
    pub const fn told(&self) -> Told {
        self.told
    }

    /// Tells the person of `event`, if it was refused and they used a terminal.
    pub fn refused(&mut self, event: &Event, text: &str, now: Instant) {
        let Some(process) = &event.process else { return };
        if event.verdict() != Verdict::Denied || process.tty.is_empty() {
            return;
        }
        let Some(suppressed) = self.admit(&process.tty, &event.rule, now) else {
            self.told.suppressed += 1;
            return;
        };
        let message = message(event, text, suppressed);
        let until = now + TELL_PATIENCE;
        self.write(Waiting { process: process.clone(), message, until }, now);
    }

    /// Tries the terminals again that were busy. Never waits.
    pub fn again(&mut self, now: Instant) {
        for waiting in std::mem::take(&mut self.waiting) {
            self.write(waiting, now);
        }
    }

    fn write(&mut self, waiting: Waiting, now: Instant) {
        let Waiting { process, message, until } = &waiting;
        match write(&self.devices, process, message) {
            Ok(()) => self.told.written += 1,
            Err(TellError::Busy(_)) if now < *until && self.waiting.len() < TELL_WAITING_MAX => {
                self.waiting.push(waiting);
            }
            Err(reason) => {
                self.told.failed += 1;
                tracing::debug!(tty = process.tty, %reason, "the person could not be told");
            }
        }
    }

    /// Whether one more message may go out, and how many did not since the last one.
    fn admit(&mut self, tty: &str, rule: &str, now: Instant) -> Option<u64> {
        if self.pairs.len() >= TELL_PAIRS_MAX {
            let idle = TELL_INTERVAL * TELL_BURST;
            self.pairs.retain(|_, pair| now.duration_since(pair.bucket.filled) < idle);
        }
        if self.pairs.len() >= TELL_PAIRS_MAX {
            return None;
        }
        let pair = self
            .pairs
            .entry((tty.to_owned(), rule.to_owned()))
            .or_insert_with(|| Pair { bucket: Bucket::full(TELL_BURST, now), suppressed: 0 });
        if pair.bucket.take(TELL_BURST, TELL_INTERVAL, now)
            && self.all.take(TELL_BURST_ALL, TELL_INTERVAL_ALL, now)
        {
            return Some(std::mem::take(&mut pair.suppressed));
        }
        pair.suppressed += 1;
        None
    }
}

impl Default for Tell {
    fn default() -> Self {
        Self::new()
    }
}

/// The message as the terminal gets it. It begins on a new line: the cursor may stand anywhere.
fn message(event: &Event, text: &str, suppressed: u64) -> String {
    let mut message = String::from("\r\nSekimori: ");
    let lines: Vec<String> = text.trim_end().lines().map(plain).collect();
    message.push_str(&lines.join("\r\n  "));
    message.push_str(&format!("\r\n  rule {}: {}", plain(&event.rule), refused(event)));
    if suppressed > 0 {
        message.push_str(&format!("\r\n  ({suppressed} more refused since the last message)"));
    }
    if message.len() > TELL_BYTES_MAX {
        let end = message.floor_char_boundary(TELL_BYTES_MAX);
        message.truncate(end);
        message.push('…');
    }
    message.push_str("\r\n");
    message
}

/// A policy's text without anything that could steer the terminal. Backslashes stay as they are.
fn plain(text: &str) -> String {
    printable(text.as_bytes()).replace("\\\\", "\\")
}

/// What was refused, in a few words.
fn refused(event: &Event) -> String {
    let path = |bytes: &[u8]| {
        if bytes.is_empty() { "a file without a name".to_owned() } else { printable(bytes) }
    };
    let file = event.file.clone().unwrap_or_default();
    let device = file.device.unwrap_or_default();
    let on_device = on_device(&device);
    match (event.kind(), event.operation()) {
        (Kind::Exec, Operation::Load) => format!("load of {}", path(&file.path)),
        (Kind::Exec, _) => format!("launch of {}", path(&file.path)),
        (Kind::FileOpen, _) => format!("open of {}", path(&file.path)),
        (Kind::UsbMount, _) => format!("mount{on_device}"),
        (Kind::NetSocket, _) => {
            let family = event.destination.as_ref().map_or("", |it| it.protocol.as_str());
            format!("{family} socket")
        }
        (Kind::UsbWrite | Kind::ShareWrite, operation @ (Operation::Rename | Operation::Link)) => {
            let word = if operation == Operation::Rename { "rename" } else { "link" };
            format!("{word} of {} to {}{on_device}", path(&file.path), path(&file.new_path))
        }
        (Kind::UsbWrite | Kind::ShareWrite, operation) => {
            let word = match operation {
                Operation::Create | Operation::Mkdir | Operation::Symlink | Operation::Mknod => {
                    "creation of"
                }
                Operation::Unlink | Operation::Rmdir => "removal of",
                _ => "write to",
            };
            format!("{word} {}{on_device}", path(&file.path))
        }
        _ => to_destination(event),
    }
}

fn on_device(device: &Device) -> String {
    match device.class.as_str() {
        "usb" => {
            let serial =
                if device.serial.is_empty() { "no serial" } else { device.serial.as_str() };
            let serial = printable(serial.as_bytes());
            format!(" on USB {}:{} {serial}", device.vendor, device.product)
        }
        "network" | "fuse" if !device.source.is_empty() => {
            format!(" on {}", printable(device.source.as_bytes()))
        }
        _ => String::new(),
    }
}

fn to_destination(event: &Event) -> String {
    let peer = event.destination.clone().unwrap_or_default();
    let upload = event.kind() == Kind::NetUpload;
    let what = if upload { "upload to" } else { "connection to" };
    if peer.ip.is_empty() {
        return format!("{what} {}", printable(&peer.path));
    }
    if peer.ip.contains(':') {
        return format!("{what} [{}]:{} ({})", peer.ip, peer.port, peer.protocol);
    }
    format!("{what} {}:{} ({})", peer.ip, peer.port, peer.protocol)
}

/// Why a terminal did not get its message.
#[derive(Debug, thiserror::Error)]
enum TellError {
    #[error("{0:?} is no terminal that people use")]
    Name(String),
    #[error("{0} is not a terminal")]
    NotTerminal(PathBuf),
    /// A container has its own `/dev/pts`: the host's terminal of that number is someone else's.
    #[error("{path} belongs to uid {owner}, who is not the person refused")]
    Stranger { path: PathBuf, owner: u32 },
    #[error("{path}: {source}")]
    System { path: PathBuf, source: std::io::Error },
    #[error("{0} is stopped, or somebody else writes on it")]
    Busy(PathBuf),
    #[error("{0} took only a part of the message")]
    Short(PathBuf),
}

fn write(devices: &Path, process: &Process, message: &str) -> Result<(), TellError> {
    let path = devices.join(device_name(&process.tty)?);
    let mut terminal = open(&path, process)?;
    let system = |source| TellError::System { path: path.clone(), source };
    // The kernel lets one write at a time (drivers/tty/tty_io.c, `tty_write_lock`): the refused
    // program is often about to say on the same terminal what it could not do.
    let written = terminal.write(message.as_bytes()).map_err(|source| match source.kind() {
        std::io::ErrorKind::WouldBlock => TellError::Busy(path.clone()),
        _ => system(source),
    })?;
    if written < message.len() { Err(TellError::Short(path)) } else { Ok(()) }
}

/// Only `pts/N` and `ttyX`: never a path of another's choice.
fn device_name(tty: &str) -> Result<&str, TellError> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let word =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let good = match (tty.strip_prefix("pts/"), tty.strip_prefix("tty")) {
        (Some(number), _) => digits(number),
        (_, Some(rest)) => word(rest),
        _ => false,
    };
    if good { Ok(tty) } else { Err(TellError::Name(tty.to_owned())) }
}

fn open(path: &Path, process: &Process) -> Result<File, TellError> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let system = |source| TellError::System { path: path.into(), source };
    let terminal =
        OpenOptions::new().write(true).custom_flags(flags.bits()).open(path).map_err(system)?;
    let facts = terminal.metadata().map_err(system)?;
    if !facts.file_type().is_char_device() {
        return Err(TellError::NotTerminal(path.into()));
    }
    // root: after `su`, the terminal belongs to whoever opened it, and consoles belong to root.
    let owners = [Some(0), Some(process.uid), process.login_uid];
    if !owners.contains(&Some(facts.uid())) {
        return Err(TellError::Stranger { path: path.into(), owner: facts.uid() });
    }
    Ok(terminal)
}
