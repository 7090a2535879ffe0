//! Receipts: one record for each file that was written to removable media and closed, with where it
//! may have come from and the hash of what is there now.
//!
//! The hash is computed on a thread of its own, after the record of the close is on disk. A receipt
//! that was not finished when the agent was killed is missing; the close is not. A file that is being
//! read makes its file system busy, so the thread lets go of it when somebody asks to unmount it.

mod hash;
#[cfg(test)]
mod tests;
mod writers;

use std::sync::Arc;

use sekimori_abi::event::{kind, operation, verdict};
use sekimori_proto::v1::{Event, File, Operation};
use tokio::sync::mpsc;

use self::hash::Hasher;
use self::writers::Writers;
use crate::decode::Raw;
use crate::enrich::ProcessKey;
use crate::record::Recorded;

/// Types of files (include/uapi/linux/stat.h).
const S_IFMT: u32 = 0o170_000;
const S_IFIFO: u32 = 0o010_000;
const S_IFREG: u32 = 0o100_000;
const S_IFSOCK: u32 = 0o140_000;

/// A file on a device: kernel device number and inode.
type Place = (u32, u64);

fn place(file: &File) -> Place {
    let dev = file.device.as_ref().map_or(0, |device| device.major << 20 | device.minor);
    (dev, file.inode)
}

/// Puts receipts together.
pub struct Receipts {
    writers: Writers,
    hasher: Hasher,
    waiting: usize,
}

impl Receipts {
    /// Starts the thread that hashes. Finished receipts come out of the second answer.
    #[must_use]
    pub fn start() -> (Self, mpsc::UnboundedReceiver<Recorded>) {
        let (hasher, finished) = Hasher::start();
        (Self { writers: Writers::default(), hasher, waiting: 0 }, finished)
    }

    /// Learns from one record. Answers whether it only feeds receipts.
    pub fn learn(&mut self, raw: &Raw, recorded: &Recorded) -> bool {
        let from = &raw.event;
        let key = ProcessKey::of(&from.process);
        let Some(file) = &recorded.event.file else {
            return false;
        };
        match (from.kind, from.operation) {
            (kind::NOTE, _) => {
                let parent = ProcessKey::parent_of(&from.process);
                match from.bytes {
                    0 => self.writers.reads(key, parent, file),
                    pipe => self.writers.feeds(pipe, file),
                }
                return true;
            }
            (kind::USB_WRITE, operation::OPEN) if from.verdict != verdict::DENIED => {
                self.hasher.changes(file);
                self.writers.opens(key, file);
            }
            (kind::USB_WRITE, operation::CLOSE) => self.closed(key, file, recorded),
            _ => {}
        }
        false
    }

    /// Learns what does not depend on what is recorded.
    pub fn observe(&mut self, raw: &Raw) {
        let from = &raw.event;
        match (from.kind, from.operation) {
            (kind::EXIT, _) => self.writers.ended(ProcessKey::of(&from.process)),
            (kind::USB_MOUNT, operation::UNMOUNT) => self.hasher.leave(from.device.dev),
            _ => {}
        }
    }

    /// What is not hashed yet comes out without.
    pub fn stop(&self) {
        self.hasher.stop();
    }

    fn closed(&mut self, key: ProcessKey, file: &File, recorded: &Recorded) {
        let (sources, more_sources) = self.writers.closes(key, file);
        if file.mode & S_IFMT != S_IFREG {
            return;
        }
        let event = Event {
            operation: Operation::Receipt.into(),
            sources,
            more_sources,
            ..recorded.event.clone()
        };
        self.waiting += 1;
        let Recorded { process, thread, .. } = recorded;
        self.hasher.ask(Recorded { event, process: Arc::clone(process), thread: *thread });
    }

    /// Receipts that are not finished yet.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.waiting
    }

    /// One came out.
    pub const fn finished(&mut self) {
        self.waiting = self.waiting.saturating_sub(1);
    }
}
