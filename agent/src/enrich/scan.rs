//! Processes that run already, read from `/proc`.

use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use procfs::process::Process;

use super::process_table::Image;
use crate::limits::{ARGUMENTS_KEPT_BYTES_MAX, PROCESSES_MAX};

/// One process as `/proc` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Process id.
    pub tgid: u32,
    /// Start in clock ticks since boot: `start_boottime` rounded down to 10 ms.
    pub start_ticks: u64,
    /// Parent's process id.
    pub parent_tgid: u32,
    /// Real uid.
    pub uid: u32,
    /// What it runs.
    pub image: Image,
}

/// Where running processes can be looked up.
pub trait Processes: Send {
    /// This process, if it still runs.
    fn find(&self, tgid: u32) -> Option<Found>;
    /// All that run now.
    fn all(&self) -> Vec<Found>;
}

/// The machine's `/proc`.
pub struct ProcFileSystem;

impl Processes for ProcFileSystem {
    fn find(&self, tgid: u32) -> Option<Found> {
        let path = Path::new("/proc").join(tgid.to_string());
        read(&Process::new_with_root(path).ok()?)
    }

    fn all(&self) -> Vec<Found> {
        let Ok(processes) = procfs::process::all_processes() else { return Vec::new() };
        processes.flatten().filter_map(|process| read(&process)).take(PROCESSES_MAX).collect()
    }
}

/// `None` when it ended meanwhile. Kernel threads have no exe and no arguments; a process of
/// another user may hide its exe, then the name in `stat` is all there is.
fn read(process: &Process) -> Option<Found> {
    let stat = process.stat().ok()?;
    let exe = process.exe().map(|path| path.into_os_string().into_vec()).unwrap_or_default();
    let mut arguments_truncated = false;
    let mut left = ARGUMENTS_KEPT_BYTES_MAX;
    let mut argv = Vec::new();
    for part in arguments(process) {
        let Some(rest) = left.checked_sub(part.len() + 1) else {
            arguments_truncated = true;
            break;
        };
        left = rest;
        argv.push(part);
    }
    let deleted = exe.strip_suffix(b" (deleted)").map(<[u8]>::to_vec);
    Some(Found {
        tgid: u32::try_from(stat.pid).ok()?,
        start_ticks: stat.starttime,
        parent_tgid: u32::try_from(stat.ppid).unwrap_or(0),
        uid: process.uid().unwrap_or(0),
        image: Image {
            exe: deleted.unwrap_or(exe),
            argv,
            arguments_truncated,
            environment: Vec::new(),
            environment_truncated: false,
            cwd: process.cwd().map(|path| path.into_os_string().into_vec()).unwrap_or_default(),
            comm: stat.comm.into_bytes(),
        },
    })
}

/// Read as bytes: an argument need not be UTF-8.
fn arguments(process: &Process) -> Vec<Vec<u8>> {
    use std::io::Read;
    let mut text = Vec::new();
    let Ok(file) = process.open_relative("cmdline") else { return Vec::new() };
    let bytes_max = u64::try_from(ARGUMENTS_KEPT_BYTES_MAX).unwrap_or(u64::MAX);
    if file.take(bytes_max + 1).read_to_end(&mut text).is_err() || text.is_empty() {
        return Vec::new();
    }
    let text = text.strip_suffix(b"\0").unwrap_or(&text);
    text.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
}
