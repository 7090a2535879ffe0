//! Who writes to removable media, and what they read meanwhile.

use std::collections::HashMap;

use sekimori_proto::v1::File;

use super::{S_IFIFO, S_IFMT, S_IFSOCK};
use crate::enrich::ProcessKey;
use crate::limits::{RECEIPT_SOURCES_MAX, WRITERS_MAX};

/// What programs open for themselves: their libraries and the names of characters and languages.
const NOT_SOURCES: [&[u8]; 6] = [
    b"/usr/lib/",
    b"/lib/",
    b"/lib64/",
    b"/usr/share/locale/",
    b"/etc/ld.so.",
    b"/etc/locale.alias",
];

/// One file that is open for write.
#[derive(Debug)]
struct Written {
    inode: u64,
    device: (u32, u32),
    /// Files that were read before it was opened and are not its sources.
    read_before: u64,
}

#[derive(Debug, Default)]
struct Writer {
    written: Vec<Written>,
    /// Its standard input, when that is a pipe or a socket.
    input: Option<File>,
    /// The last files that were read, and how many there were in all.
    read: Vec<File>,
    count: u64,
}

/// Processes with files on removable media that are open for write.
#[derive(Debug, Default)]
pub(super) struct Writers(HashMap<ProcessKey, Writer>);

impl Writers {
    /// A file on removable media was opened for write.
    pub(super) fn opens(&mut self, key: ProcessKey, file: &File) {
        if self.0.len() >= WRITERS_MAX && !self.0.contains_key(&key) {
            return;
        }
        let writer = self.0.entry(key).or_default();
        let read_before = writer.count;
        if writer.written.len() < RECEIPT_SOURCES_MAX {
            writer.written.push(Written { inode: file.inode, device: device(file), read_before });
        }
    }

    /// A writer, or the child of one, has a file open for reading.
    pub(super) fn reads(&mut self, key: ProcessKey, parent: ProcessKey, file: &File) {
        if NOT_SOURCES.iter().any(|beginning| file.path.starts_with(beginning)) {
            return;
        }
        let key = if self.0.contains_key(&key) { key } else { parent };
        let Some(writer) = self.0.get_mut(&key) else { return };
        let name = match file.mode & S_IFMT {
            S_IFIFO => "pipe",
            S_IFSOCK => "socket",
            _ => "",
        };
        if !name.is_empty() {
            // As proc(5) names them.
            let path = format!("{name}:[{}]", file.inode).into_bytes();
            writer.input = Some(File { path, ..file.clone() });
            return;
        }
        let known = |it: &File| it.inode == file.inode && it.path == file.path;
        // What was read for an earlier file may be read again for a later one.
        writer.read.retain(|it| !known(it));
        writer.count += 1;
        if writer.read.len() == RECEIPT_SOURCES_MAX {
            writer.read.remove(0);
        }
        writer.read.push(file.clone());
    }

    /// It was closed. Answers what may have gone into it, and whether that is not all.
    pub(super) fn closes(&mut self, key: ProcessKey, file: &File) -> (Vec<File>, bool) {
        let Some(writer) = self.0.get_mut(&key) else {
            return (Vec::new(), true);
        };
        let this = |it: &Written| it.inode == file.inode && it.device == device(file);
        let Some(at) = writer.written.iter().position(this) else {
            return (Vec::new(), true);
        };
        let written = writer.written.remove(at);
        let since = writer.count - written.read_before;
        let kept = usize::try_from(since).unwrap_or(usize::MAX).min(writer.read.len());
        let mut sources = writer.read.split_off(writer.read.len() - kept);
        let input = writer.input.clone();
        if writer.written.is_empty() {
            self.0.remove(&key);
        } else {
            writer.read.extend(sources.iter().cloned());
        }
        let more = since > sources.len() as u64;
        if sources.is_empty() {
            sources.extend(input);
        }
        (sources, more)
    }

    /// A process ended; its descriptors are closed.
    pub(super) fn ended(&mut self, key: ProcessKey) {
        self.0.remove(&key);
    }
}

fn device(file: &File) -> (u32, u32) {
    file.device.as_ref().map_or((0, 0), |device| (device.major, device.minor))
}
