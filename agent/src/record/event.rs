//! One ring record to one event.

use sekimori_abi::event::{flag, kind, operation, verdict};
use sekimori_proto::v1::{Event, File, Kind, Operation, Verdict};

use super::parts::{destination, device, process};
use super::{Recorded, RuleBook, Thread, lane};
use crate::decode::{CUT, Raw};
use crate::enrich::{Enricher, Mounts, zero_ended};

/// `errno` of every refusal by a rule.
const EPERM: i32 = 1;

/// Turns a record into the event that is stored, and learns from it who runs. `None` for records
/// that only feed the process table, and for what neither a rule nor the configuration asks for.
pub fn event(raw: &Raw, enricher: &mut Enricher, rules: &RuleBook) -> Option<Recorded> {
    let from = &raw.event;
    let paths = if names_a_file(from.kind) { Paths::of(raw, enricher) } else { Paths::default() };
    if from.kind != kind::EXIT {
        enricher.processes.learn(raw, &paths.first, &paths.second, &enricher.clock);
    }
    if from.kind == kind::FORK || !wanted(raw, &paths, rules) {
        if from.kind == kind::EXIT {
            enricher.processes.learn(raw, b"", b"", &enricher.clock);
        }
        return None;
    }
    let verdict = verdict_of(from.verdict);
    let (process, arguments_truncated) = process(&from.process, enricher);
    let thread = Thread { tid: from.process.tid, comm: from.process.comm };
    let cut = flag::PATH_TRUNCATED | flag::SECOND_PATH_TRUNCATED;
    let ended = (from.kind == kind::EXIT).then(|| wait_status(i32::from(from.exit_code)));
    let event = Event {
        time_ns: enricher.clock.utc_ns(from.time_ns),
        kind: kind_of(from.kind).into(),
        operation: operation_of(from.operation).into(),
        verdict: verdict.into(),
        rule: rules.id(from.generation, from.rule),
        bytes: has_sum(raw).then_some(from.bytes),
        bytes_in: (from.family != 0 && has_sum(raw)).then_some(from.bytes_in),
        calls: has_sum(raw).then_some(from.calls),
        destination: destination(raw),
        errno: errno(raw),
        truncated: from.flags & cut != 0 || paths.lost || arguments_truncated,
        exit_code: ended.and_then(|(code, signal)| (signal == 0).then_some(code)),
        signal: ended
            .map_or_else(|| tried_signal(raw), |(_, signal)| (signal != 0).then_some(signal)),
        late: raw.has(flag::LATE),
        lane: lane(verdict),
        file: file(raw, paths).map(|file| on_share(file, raw, enricher)),
        ..Event::default()
    };
    if from.kind == kind::EXIT {
        enricher.processes.learn(raw, b"", b"", &enricher.clock);
    }
    Some(Recorded { event, process, thread })
}

fn wanted(raw: &Raw, paths: &Paths, rules: &RuleBook) -> bool {
    if raw.has(flag::OPEN_FAILED) {
        return (rules.labelled)(&paths.first);
    }
    let judged = raw.event.rule != 0 || raw.event.verdict != verdict::ALLOWED;
    // Notes are asked for where they are made.
    judged || raw.event.kind == kind::NOTE || rules.recorded_kinds & 1 << raw.event.kind != 0
}

/// Both paths as the host sees them.
#[derive(Default)]
struct Paths {
    first: Vec<u8>,
    second: Vec<u8>,
    /// A path's file system is mounted nowhere that is known.
    lost: bool,
}

impl Paths {
    fn of(raw: &Raw, enricher: &mut Enricher) -> Self {
        let (first, second) = (raw.path(), raw.second_path());
        let first = if !first.is_empty() {
            first
        } else if raw.has(flag::OPEN_FAILED) {
            resolve(&second, zero_ended(raw.third))
        } else if raw.event.inode != 0 && !raw.has(flag::UNLINKED) {
            // The walk from a root finds no name: nothing is its text.
            b"/".to_vec()
        } else {
            first
        };
        let mut lost = false;
        let dev = raw.event.device.dev;
        let mut place = |path: Vec<u8>, within: u16, mounts: &mut Mounts| {
            if !raw.has(within) || !path.starts_with(b"/") {
                return path;
            }
            mounts.locate(dev, &path).unwrap_or_else(|| {
                lost = true;
                [CUT, path.as_slice()].concat()
            })
        };
        let mounts = &mut enricher.mounts;
        let first = match (raw.event.kind, raw.event.verdict) {
            (kind::USB_MOUNT, verdict::DENIED) => Vec::new(),
            (kind::USB_MOUNT, _) if raw.event.operation == operation::MOUNT => {
                mounts.locate(dev, b"/").unwrap_or_default()
            }
            _ => place(first, flag::PATH_IN_FILE_SYSTEM, mounts),
        };
        let second = place(second, flag::SECOND_PATH_IN_FILE_SYSTEM, mounts);
        Self { first, second, lost }
    }
}

/// The name that was given to open, from the directory it starts in: `.` and `..` are taken by
/// their names, links are not followed.
fn resolve(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut components: Vec<&[u8]> = Vec::new();
    let from = if name.starts_with(b"/") { &[] } else { directory };
    let cut = from.starts_with(CUT);
    for component in from.split(|byte| *byte == b'/').chain(name.split(|byte| *byte == b'/')) {
        match component {
            b"" | b"." => {}
            b".." => {
                components.pop();
            }
            component => components.push(component),
        }
    }
    let mut path = Vec::with_capacity(from.len() + name.len() + 1);
    if components.is_empty() {
        path.push(b'/');
    }
    for component in components {
        // The mark of a cut path stands in place of the root.
        if !(cut && path.is_empty()) {
            path.push(b'/');
        }
        path.extend_from_slice(component);
    }
    path
}

const fn names_a_file(kind: u8) -> bool {
    use kind::{EXEC, FILE_OPEN, NOTE, SHARE_WRITE, TAMPER, USB_MOUNT, USB_WRITE};
    matches!(kind, FILE_OPEN | USB_WRITE | SHARE_WRITE | USB_MOUNT | EXEC | TAMPER | NOTE)
}

fn file(raw: &Raw, paths: Paths) -> Option<File> {
    let from = &raw.event;
    // Only some ways to lay hands on the monitor go by a file.
    if !names_a_file(from.kind) || (from.kind == kind::TAMPER && paths.first.is_empty()) {
        return None;
    }
    let new_path = match from.operation {
        operation::SYMLINK => zero_ended(raw.third).to_vec(),
        operation::RENAME | operation::LINK | operation::REPLACE => paths.second,
        _ => Vec::new(),
    };
    let attribute = match from.operation {
        operation::SETXATTR | operation::REMOVEXATTR => zero_ended(raw.third).to_vec(),
        _ => Vec::new(),
    };
    Some(File {
        path: paths.first,
        new_path,
        attribute,
        inode: from.inode,
        device: device(&from.device),
        size: if from.operation == operation::EXEC { 0 } else { from.size },
        mode: from.mode,
        open_flags: from.open_flags,
        unlinked: raw.has(flag::UNLINKED),
    })
}

/// Writes down whose share the file is on.
fn on_share(mut file: File, raw: &Raw, enricher: &mut Enricher) -> File {
    let from = &raw.event;
    if let Some(device) = file.device.as_mut().filter(|_| from.device.is_share()) {
        let anew = matches!(from.operation, operation::OPEN | operation::CREATE);
        if let Some(share) = enricher.mounts.share(from.device.dev, from.process.tgid, anew) {
            device.file_system.clone_from(&share.file_system);
            device.source.clone_from(&share.source);
        }
    }
    file
}

/// The signal that somebody tried to send to the agent.
fn tried_signal(raw: &Raw) -> Option<i32> {
    (raw.event.operation == operation::SIGNAL).then(|| i32::try_from(raw.event.size).ok())?
}

/// Code and signal of a status as wait(2) gives it; the bit for a core dump is left out.
const fn wait_status(status: i32) -> (i32, i32) {
    (status >> 8 & 0xff, status & 0x7f)
}

/// Whether the record carries sums of bytes and calls.
const fn has_sum(raw: &Raw) -> bool {
    let from = &raw.event;
    matches!(from.operation, operation::WRITE | operation::CLOSE | operation::SETXATTR)
        || from.bytes > 0
}

fn errno(raw: &Raw) -> Option<i32> {
    match (raw.event.errno, raw.event.verdict) {
        (0, verdict::DENIED) => Some(EPERM),
        (0, _) => None,
        (errno, _) => Some(errno.saturating_abs()),
    }
}

const fn verdict_of(number: u8) -> Verdict {
    match number {
        verdict::ALLOWED => Verdict::Allowed,
        verdict::ALERTED => Verdict::Alerted,
        verdict::DENIED => Verdict::Denied,
        verdict::WOULD_DENY => Verdict::WouldDeny,
        _ => Verdict::Unspecified,
    }
}

/// Kinds and operations have the same numbers on the ring and on the wire; a test holds them equal.
pub(super) fn kind_of(number: u8) -> Kind {
    Kind::try_from(i32::from(number)).unwrap_or(Kind::Unspecified)
}

pub(super) fn operation_of(number: u8) -> Operation {
    Operation::try_from(i32::from(number)).unwrap_or(Operation::Unspecified)
}
