//! Where what is written to removable media may come from: regular files that the writing process has
//! open for reading, those that it opens meanwhile, and its standard input. For the agent's receipts.

use aya_ebpf::{
    bindings::BPF_NOEXIST, helpers::bpf_get_current_task_btf, macros::fexit, programs::FExitContext,
};
use sekimori_abi::{
    event::{kind, operation},
    limits::{SOURCE_DESCRIPTORS_MAX, SOURCES_PER_OPEN_MAX},
};

use super::{guard::PROC_MAGIC, open::describe_file};
use crate::{
    atomic,
    emit::Record,
    judge::Policy,
    maps::{FILES, WRITERS},
    offset::*,
    path::{Place, S_IFIFO, S_IFMT, S_IFREG, S_IFSOCK},
    read::{Probed, pointer, probed, typed},
    task,
};

/// `SYSFS_MAGIC` (include/uapi/linux/magic.h).
const SYSFS_MAGIC: u64 = 0x6265_6572;
/// `FMODE_READ` and `FMODE_WRITE` (include/linux/fs.h).
const FMODE_READ: u32 = 1;
const FMODE_WRITE: u32 = 2;
/// `FMODE_NOACCOUNT`: a file that the kernel opened for itself, as overlayfs does below its own.
const FMODE_NOACCOUNT: u32 = 1 << 29;
/// `__FMODE_EXEC` in `f_flags`: the kernel opened it to execute it.
const FMODE_EXEC: u32 = 1 << 5;

/// A process has one more file on removable media open for write.
#[inline(always)]
pub fn writes(tgid: u32) {
    // Two threads at once: one of them puts the entry there.
    let _ = WRITERS.insert(tgid, 0, BPF_NOEXIST.into());
    if let Some(files) = WRITERS.get_ptr_mut(tgid) {
        // SAFETY: map values are 8-byte aligned.
        unsafe { atomic::fetch_add(files, 1) };
    }
}

/// One of them is closed.
#[inline(always)]
pub fn writes_no_more(tgid: u32) {
    if let Some(files) = WRITERS.get_ptr_mut(tgid) {
        // SAFETY: map values are 8-byte aligned.
        let before = unsafe { atomic::fetch_add(files, u64::MAX) };
        if before == 0 {
            // SAFETY: as above. An entry that was forgotten in between counts less than there are.
            unsafe { atomic::fetch_add(files, 1) };
        }
    }
}

/// A process ended; its files are closed a moment later.
#[inline(always)]
pub fn ended(tgid: u32) {
    let _ = WRITERS.remove(tgid);
}

#[inline(always)]
fn is_writer(tgid: u32) -> bool {
    // SAFETY: map values live as long as the program runs.
    WRITERS.get_ptr(tgid).is_some_and(|files| unsafe { *files } != 0)
}

/// Somebody opens a file on removable media for write, or writes there, or is the child of one who
/// does, and opens a file for reading.
///
/// Not on the hook itself: of the programs there the one that was attached last runs first, and
/// `file_open` has no call frame left.
#[fexit(function = "security_file_open")]
pub fn source_opened(ctx: FExitContext) -> i32 {
    let file: *const u8 = ctx.arg(0);
    if ctx.arg::<i32>(1) != 0 {
        return 0;
    }
    // SAFETY: typed loads from the hook's argument and the current task.
    unsafe {
        let mode: u32 = typed(file, &FILE_MODE);
        if mode & FMODE_WRITE != 0 && is_on_removable_media(file) {
            report_descriptors();
            return 0;
        }
        let task = bpf_get_current_task_btf() as *const u8;
        let parent: *const u8 = typed(task, &TASK_PARENT);
        if for_reading(mode)
            && typed::<u32>(file, &FILE_FLAGS) & FMODE_EXEC == 0
            && (is_writer(typed(task, &TASK_TGID)) || is_writer(typed(parent, &TASK_TGID)))
        {
            report(file, false);
        }
    }
    0
}

/// # Safety
/// `file` must be a typed pointer.
#[inline(always)]
unsafe fn is_on_removable_media(file: *const u8) -> bool {
    // SAFETY: map values live as long as the program runs.
    FILES.get_ptr(file as u64).is_some_and(|sum| unsafe { (*sum).kind } == kind::USB_WRITE as u64)
}

/// Somebody can read it, and it was not the kernel who opened it.
#[inline(always)]
const fn for_reading(mode: u32) -> bool {
    mode & (FMODE_READ | FMODE_NOACCOUNT) == FMODE_READ
}

/// Reports what the current process has open for reading, the beginning of it.
#[inline(always)]
fn report_descriptors() {
    let mut reported = 0;
    for descriptor in 0..SOURCE_DESCRIPTORS_MAX {
        reported += report_descriptor(descriptor) & 1;
        if reported == SOURCES_PER_OPEN_MAX {
            break;
        }
    }
    // SAFETY: the helper answers the current task.
    let current = unsafe { bpf_get_current_task_btf() } as *const u8;
    let table = pointer(pointer(current, &TASK_FILES), &FILES_TABLE);
    let more = probed::<u32>(table, &TABLE_SIZE) > SOURCE_DESCRIPTORS_MAX;
    if (more || reported == SOURCES_PER_OPEN_MAX)
        && let Some(record) = Record::begin(kind::NOTE, operation::SOURCE)
    {
        record.send_unjudged();
    }
}

/// Reports one descriptor; answers 1 when there was something to be reported.
///
/// A function of its own: the verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn report_descriptor(descriptor: u32) -> u32 {
    let file = task::file_of(descriptor);
    if !file.is_null()
        && for_reading(probed(file, &FILE_MODE))
        && FILES.get_ptr(file as u64).is_none()
    {
        return report(file, descriptor == 0) as u32;
    }
    0
}

/// Sends a record of a regular file at any address, and of the pipe or socket that is the standard
/// input. What the kernel tells of itself is nobody's file.
#[inline(always)]
fn report(file: *const u8, standard_input: bool) -> bool {
    let inode = pointer(file, &FILE_INODE);
    match probed::<u16>(inode, &INODE_MODE) & S_IFMT {
        S_IFREG => {}
        S_IFIFO | S_IFSOCK if standard_input => {}
        _ => return false,
    }
    let magic: u64 = probed(pointer(inode, &INODE_SB), &SB_MAGIC);
    if magic == PROC_MAGIC || magic == SYSFS_MAGIC {
        return false;
    }
    let Some(policy) = Policy::in_force() else {
        return false;
    };
    if !policy.records(kind::USB_WRITE) {
        return false;
    }
    let Some(mut record) = Record::begin(kind::NOTE, operation::SOURCE) else {
        return false;
    };
    // SAFETY: probes take any address.
    unsafe { describe_file::<Probed>(&mut record, file) };
    record.path(Place::of_opened(file, inode));
    record.event().generation = policy.generation;
    record.send_unjudged();
    true
}
