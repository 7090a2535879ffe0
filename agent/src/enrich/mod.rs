//! What the kernel does not say: who the process is and where it came from, names of users, UTC
//! times, terminals, and mount points.

mod clock;
mod mounts;
mod process_table;
mod scan;
mod share;
mod terminal;
#[cfg(test)]
mod tests;
mod users;

pub(crate) use self::process_table::zero_ended;

pub use self::{
    clock::{Clock, Step},
    mounts::{MountLocator, Mounts},
    process_table::{Described, Image, Known, ProcessKey, ProcessTable},
    scan::{Found, ProcFileSystem, Processes},
    share::Share,
    terminal::terminal,
    users::Users,
};

/// Everything that turns a ring record into an event people can read.
pub struct Enricher {
    /// Boot time to UTC.
    pub clock: Clock,
    /// Who runs.
    pub processes: ProcessTable,
    /// User names.
    pub users: Users,
    /// Where file systems are mounted.
    pub mounts: Mounts,
}

impl Enricher {
    /// For this machine: clocks, users, `/proc`.
    #[must_use]
    pub fn new() -> Self {
        Self {
            clock: Clock::new(),
            processes: ProcessTable::new(Box::new(ProcFileSystem)),
            users: Users::new(),
            mounts: Mounts::new(Box::new(mounts::MountInfo::open())),
        }
    }
}

impl Default for Enricher {
    fn default() -> Self {
        Self::new()
    }
}
