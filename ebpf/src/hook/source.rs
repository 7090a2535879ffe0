//! Where what is written to removable media may come from: regular files that the writing process
//! has open for reading, those that it opens meanwhile, and its standard input; when that is a
//! pipe, also what those read who hold its other end. For the agent's receipts.

use aya_ebpf::{
    bindings::BPF_NOEXIST, helpers::bpf_get_current_task_btf, macros::fexit, programs::FExitContext,
};
use sekimori_abi::{
    event::{kind, operation},
    limits::{
        FEED_DESCRIPTORS_MAX, FEEDERS_MAX, SIBLINGS_MAX, SOURCE_DESCRIPTORS_MAX,
        SOURCES_PER_OPEN_MAX,
    },
};

use super::{guard::PROC_MAGIC, open::describe_file};
use crate::{
    atomic,
    emit::Record,
    judge::Policy,
    maps::{FED, FILES, PIPES, WRITERS, Writer},
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
    let _ = WRITERS.insert(tgid, Writer { files: 0, pipe: 0 }, BPF_NOEXIST.into());
    if let Some(writer) = WRITERS.get_ptr_mut(tgid) {
        // SAFETY: map values are 8-byte aligned.
        unsafe { atomic::fetch_add(&raw mut (*writer).files, 1) };
    }
}

/// One of them is closed.
#[inline(always)]
pub fn writes_no_more(tgid: u32) {
    if let Some(writer) = WRITERS.get_ptr_mut(tgid) {
        // SAFETY: map values are 8-byte aligned.
        unsafe {
            let files = &raw mut (*writer).files;
            match atomic::fetch_add(files, u64::MAX) {
                // An entry that was forgotten in between counts less than there are.
                0 => {
                    atomic::fetch_add(files, 1);
                }
                1 => takes_from(writer, 0),
                _ => {}
            }
        }
    }
}

/// A writer's standard input is this pipe from here on; 0: none.
///
/// # Safety
/// `writer` must be a map value.
#[inline(always)]
unsafe fn takes_from(writer: *mut Writer, pipe: u64) {
    let Some(fed) = FED.get_ptr_mut(0) else { return };
    // SAFETY: by contract; map values are 8-byte aligned.
    unsafe {
        let before = atomic::swap(&raw mut (*writer).pipe, pipe);
        if before != 0 {
            let _ = PIPES.remove(before);
            atomic::fetch_add(fed, u64::MAX);
        }
        if pipe != 0 {
            atomic::fetch_add(fed, 1);
        }
    }
}

/// A process ended; its files are closed a moment later.
#[inline(always)]
pub fn ended(tgid: u32) {
    if let Some(writer) = WRITERS.get_ptr_mut(tgid) {
        // SAFETY: a map value.
        unsafe { takes_from(writer, 0) };
    }
    let _ = WRITERS.remove(tgid);
}

#[inline(always)]
fn is_writer(tgid: u32) -> bool {
    // SAFETY: map values live as long as the program runs.
    WRITERS.get_ptr(tgid).is_some_and(|writer| unsafe { (*writer).files } != 0)
}

/// Somebody opens a file on removable media for write; or opens a file for reading and writes
/// there, or is the child of one who does, or holds the other end of the pipe that is such a one's
/// standard input.
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
        if !for_reading(mode) || typed::<u32>(file, &FILE_FLAGS) & FMODE_EXEC != 0 {
            return 0;
        }
        if is_writer(typed(task, &TASK_TGID)) || is_writer(typed(parent, &TASK_TGID)) {
            report(file, false, 0);
        } else if FED.get(0).is_some_and(|fed| *fed != 0) {
            let pipe = feeds(task::current());
            if pipe != 0 {
                report(file, false, pipe);
            }
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

/// The number of the pipe by which a task feeds a writer; 0 for none.
///
/// A function of its own, with numbers for arguments: the verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn feeds(task: u64) -> u64 {
    for descriptor in 1..FEED_DESCRIPTORS_MAX {
        let pipe = fed_by(task, descriptor);
        if pipe != 0 {
            return pipe;
        }
    }
    0
}

/// The number of the pipe that a descriptor of a task writes to, when it is a writer's standard
/// input.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn fed_by(task: u64, descriptor: u32) -> u64 {
    let file = task::file_of(task, descriptor);
    if file.is_null() || probed::<u32>(file, &FILE_MODE) & FMODE_WRITE == 0 {
        return 0;
    }
    let pipe = pipe_of(file);
    let Some(tgid) = PIPES.get_ptr(pipe) else { return 0 };
    // SAFETY: map values live as long as the program runs.
    if is_writer(unsafe { *tgid }) { pipe } else { 0 }
}

/// The number of the pipe that an open file is; 0 for what is none.
#[inline(always)]
fn pipe_of(file: *const u8) -> u64 {
    let inode = pointer(file, &FILE_INODE);
    if probed::<u16>(inode, &INODE_MODE) & S_IFMT != S_IFIFO {
        return 0;
    }
    probed(inode, &INODE_NUMBER)
}

/// A parent, and its children.
const RELATIVES_MAX: usize = SIBLINGS_MAX + 1;

/// Somebody can read it, and it was not the kernel who opened it.
#[inline(always)]
const fn for_reading(mode: u32) -> bool {
    mode & (FMODE_READ | FMODE_NOACCOUNT) == FMODE_READ
}

/// Reports what the current process has open for reading, and what those have who feed it.
///
/// Not in functions of its own: the walk of a path leaves few call frames.
#[inline(always)]
fn report_descriptors() {
    let task = task::current();
    let mut reported = 0;
    for descriptor in 0..SOURCE_DESCRIPTORS_MAX {
        reported += report_descriptor(task, descriptor, OWN) & 1;
        if reported == SOURCES_PER_OPEN_MAX {
            break;
        }
    }
    if reported == SOURCES_PER_OPEN_MAX || has_more(task) {
        report_more();
    }
    let pipe = take_input(task);
    if pipe == 0 {
        return;
    }
    reported = 0;
    let mut more = false;
    for nth in 0..FEEDERS_MAX {
        let feeder = feeder(task, pipe, nth);
        if feeder == 0 {
            break;
        }
        for descriptor in 0..SOURCE_DESCRIPTORS_MAX {
            reported += report_descriptor(feeder, descriptor, 0) & 1;
            if reported == SOURCES_PER_OPEN_MAX {
                report_more();
                return;
            }
        }
        more |= has_more(feeder);
    }
    if more {
        report_more();
    }
}

#[inline(always)]
fn has_more(task: u64) -> bool {
    let table = pointer(pointer(task as *const u8, &TASK_FILES), &FILES_TABLE);
    probed::<u32>(table, &TABLE_SIZE) > SOURCE_DESCRIPTORS_MAX
}

/// Says that there are more sources than were looked at.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn report_more() -> u32 {
    if let Some(record) = Record::begin(kind::NOTE, operation::SOURCE) {
        record.send_unjudged();
    }
    0
}

/// Notes the pipe that is the standard input of the current process, which is a writer; answers its
/// number, 0 for none.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn take_input(task: u64) -> u64 {
    let input = task::file_of(task, 0);
    if input.is_null() {
        return 0;
    }
    let pipe = pipe_of(input);
    let tgid: u32 = probed(task as *const u8, &TASK_TGID);
    let Some(writer) = WRITERS.get_ptr_mut(tgid) else { return 0 };
    // SAFETY: a map value.
    unsafe {
        takes_from(writer, pipe);
    }
    if pipe != 0 && PIPES.insert(pipe, tgid, 0).is_err() {
        return 0;
    }
    pipe
}

/// The nth of those who hold the other end of a task's pipe: of its parent, as `tar` is its
/// compressor's, and its youngest siblings, which a shell makes for the ends of a pipeline. 0 when
/// there are no more.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn feeder(task: u64, pipe: u64, nth: usize) -> u64 {
    let parent = pointer(task as *const u8, &TASK_PARENT);
    let head = parent.wrapping_add(TASK_CHILDREN.get());
    let mut link = head;
    let mut found = 0;
    for step in 0..RELATIVES_MAX {
        let mut one = parent as u64;
        if step > 0 {
            link = pointer(link, &LIST_PREVIOUS);
            if link.is_null() || link == head {
                return 0;
            }
            one = link.wrapping_sub(TASK_SIBLING.get()) as u64;
        }
        found += (one != task && feeds(one) == pipe) as usize;
        if found > nth {
            return one;
        }
    }
    0
}

/// For [`report_descriptor`]: the pipe or socket that is the standard input counts too.
const OWN: u32 = 1;

/// Reports one descriptor of a task; answers 1 when there was something to be reported.
///
/// A function of its own: the verifier looks at it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn report_descriptor(task: u64, descriptor: u32, own: u32) -> u32 {
    let file = task::file_of(task, descriptor);
    if !file.is_null()
        && for_reading(probed(file, &FILE_MODE))
        && FILES.get_ptr(file as u64).is_none()
    {
        return report(file, descriptor == 0 && own == OWN, 0) as u32;
    }
    0
}

/// Sends a record of a regular file at any address, and of the pipe or socket that is the standard
/// input. What the kernel tells of itself is nobody's file. With a pipe: the current process is not
/// the writer, but feeds it.
#[inline(always)]
fn report(file: *const u8, standard_input: bool, pipe: u64) -> bool {
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
    record.event().bytes = pipe;
    record.send_unjudged();
    true
}
