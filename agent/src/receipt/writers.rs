//! Who writes to removable media, and what they read meanwhile.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use sekimori_proto::v1::File;

use super::{Place, S_IFIFO, S_IFMT, S_IFSOCK, place};
use crate::enrich::ProcessKey;
use crate::limits::{RECEIPT_SOURCES_BYTES_MAX, RECEIPT_SOURCES_MAX, WRITERS_MAX};

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
    place: Place,
    /// Number of the first file that was read after it was opened.
    first: u64,
}

#[derive(Debug, Default)]
struct Writer {
    written: Vec<Written>,
    /// Its standard input, when that is a pipe or a socket.
    input: Option<Arc<File>>,
    /// The last files that were read, each with its number.
    read: VecDeque<(u64, Arc<File>)>,
    bytes: usize,
    next: u64,
    /// Number of the last one that is not kept.
    forgotten: Option<u64>,
}

/// Processes with files on removable media that are open for write. When there are too many, who did
/// nothing for longest is forgotten.
#[derive(Debug)]
pub(super) struct Writers(LruCache<ProcessKey, Writer>);

impl Default for Writers {
    fn default() -> Self {
        Self(LruCache::new(NonZeroUsize::new(WRITERS_MAX).unwrap_or(NonZeroUsize::MIN)))
    }
}

impl Writers {
    /// A file on removable media was opened for write.
    pub(super) fn opens(&mut self, key: ProcessKey, file: &File) {
        let writer = self.0.get_or_insert_mut(key, Writer::default);
        if writer.written.len() < RECEIPT_SOURCES_MAX {
            let first = writer.next;
            writer.written.push(Written { place: place(file), first });
        }
    }

    /// A writer, or the child of one, has a file open for reading. A file without an inode: there are
    /// more than were looked at.
    pub(super) fn reads(&mut self, key: ProcessKey, parent: ProcessKey, file: &File) {
        if is_no_source(file) {
            return;
        }
        let key = if self.0.contains(&key) { key } else { parent };
        let Some(writer) = self.0.get_mut(&key) else { return };
        let name = match file.mode & S_IFMT {
            S_IFIFO => "pipe",
            S_IFSOCK => "socket",
            _ if file.inode == 0 => {
                writer.forgotten = Some(writer.number());
                return;
            }
            _ => return writer.reads(file),
        };
        // As proc(5) names them.
        let path = format!("{name}:[{}]", file.inode).into_bytes();
        writer.input = Some(Arc::new(File { path, ..file.clone() }));
    }

    /// Somebody who can write to a pipe opened a file for reading: whoever has that pipe as
    /// standard input may be given it.
    pub(super) fn feeds(&mut self, pipe: u64, file: &File) {
        if is_no_source(file) {
            return;
        }
        let fed = |writer: &Writer| writer.input.as_ref().is_some_and(|it| is_pipe(it, pipe));
        for (_, writer) in self.0.iter_mut().filter(|(_, writer)| fed(writer)) {
            writer.reads(file);
        }
    }

    /// It was closed. Answers what may have gone into it, and whether that is not all.
    pub(super) fn closes(&mut self, key: ProcessKey, file: &File) -> (Vec<File>, bool) {
        let Some(writer) = self.0.get_mut(&key) else {
            return (Vec::new(), true);
        };
        let Some(at) = writer.written.iter().position(|it| it.place == place(file)) else {
            return (Vec::new(), true);
        };
        let Written { first, .. } = writer.written.remove(at);
        let since = writer.read.iter().filter(|(number, _)| *number >= first);
        let sources = since.map(|(_, file)| file).chain(&writer.input);
        let sources = sources.map(|file| File::clone(file)).collect();
        let more = writer.forgotten.is_some_and(|number| number >= first);
        if writer.written.is_empty() {
            self.0.pop(&key);
        }
        (sources, more)
    }

    /// A process ended. What it still has open is closed after that.
    pub(super) fn ended(&mut self, key: ProcessKey) {
        if self.0.peek(&key).is_some_and(|writer| writer.written.is_empty()) {
            self.0.pop(&key);
        }
    }
}

impl Writer {
    fn number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    fn reads(&mut self, file: &File) {
        // What was read for an earlier file may be read again for a later one.
        if let Some(at) = self.read.iter().position(|(_, it)| same(it, file))
            && let Some((_, again)) = self.read.remove(at)
        {
            let number = self.number();
            self.read.push_back((number, again));
            return;
        }
        let number = self.number();
        self.bytes += size(file);
        self.read.push_back((number, Arc::new(file.clone())));
        while self.read.len() > RECEIPT_SOURCES_MAX || self.bytes > RECEIPT_SOURCES_BYTES_MAX {
            let Some((number, oldest)) = self.read.pop_front() else { break };
            self.bytes -= size(&oldest);
            self.forgotten = Some(number);
        }
    }
}

fn is_no_source(file: &File) -> bool {
    NOT_SOURCES.iter().any(|beginning| file.path.starts_with(beginning))
}

fn is_pipe(input: &File, number: u64) -> bool {
    input.mode & S_IFMT == S_IFIFO && input.inode == number
}

fn same(one: &File, other: &File) -> bool {
    place(one) == place(other) && one.path == other.path
}

/// Bytes that it takes, about.
fn size(file: &File) -> usize {
    size_of::<File>() + file.path.len()
}
