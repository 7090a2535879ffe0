//! Who acts: what a record says of a task.

use aya_ebpf::helpers::{
    bpf_get_current_task_btf,
    generated::{
        bpf_get_current_cgroup_id, bpf_get_current_task, bpf_probe_read_kernel,
        bpf_task_storage_get,
    },
};
use core::ptr::{from_ref, null, null_mut};
use sekimori_abi::{
    event::Process,
    limits::{COMM_BYTES_MAX, TTY_BYTES_MAX},
};

use crate::{
    maps::{NOTES, TaskNote},
    offset::*,
    read::{pointer, probed, probed_at, typed},
};

/// What the kernel calls "no login uid" and "no session".
const UNSET: u32 = u32::MAX;

/// The current task as a mere number.
#[inline(always)]
pub fn current() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_get_current_task() }
}

/// What a task at any address has open under a descriptor; null for nothing.
#[inline(always)]
pub fn file_of(task: u64, descriptor: u32) -> *const u8 {
    let table = pointer(pointer(task as *const u8, &TASK_FILES), &FILES_TABLE);
    if descriptor >= probed::<u32>(table, &TABLE_SIZE) {
        return null();
    }
    let slot = pointer(table, &TABLE_FILES).wrapping_add(descriptor as usize * size_of::<u64>());
    probed_at::<u64>(slot) as *const u8
}

/// Writes down who `task` is.
///
/// # Safety
/// `task` must be a typed pointer, `to` must lie in a buffer of this program's own.
#[inline(always)]
pub unsafe fn describe(task: *const u8, to: *mut Process) {
    // SAFETY: typed loads of live task fields; `to` by contract.
    unsafe {
        let leader: *const u8 = typed(task, &TASK_LEADER);
        let parent: *const u8 = typed(task, &TASK_PARENT);
        let parent_leader: *const u8 = typed(parent, &TASK_LEADER);
        let cred: *const u8 = typed(task, &TASK_CRED);
        (*to).tgid = typed(task, &TASK_TGID);
        (*to).tid = typed(task, &TASK_PID);
        (*to).start_ns = typed(leader, &TASK_START);
        (*to).parent_tgid = typed(parent, &TASK_TGID);
        (*to).parent_start_ns = typed(parent_leader, &TASK_START);
        (*to).uid = typed(cred, &CRED_UID);
        (*to).gid = typed(cred, &CRED_GID);
        (*to).login_uid = login_uid(task);
        (*to).session_id =
            if TASK_SESSION_ID.exists() { typed(task, &TASK_SESSION_ID) } else { UNSET };
        (*to).cgroup_id = bpf_get_current_cgroup_id();
        let comm = task.add(TASK_COMM.get());
        bpf_probe_read_kernel((&raw mut (*to).comm).cast(), COMM_BYTES_MAX as u32, comm.cast());
        let signal: *const u8 = typed(task, &TASK_SIGNAL);
        let tty: *const u8 = typed(signal, &SIGNAL_TTY);
        if !tty.is_null() {
            let name = tty.add(TTY_NAME.get());
            bpf_probe_read_kernel((&raw mut (*to).tty).cast(), TTY_BYTES_MAX as u32, name.cast());
        }
        let mm: *const u8 = typed(task, &TASK_MM);
        if !mm.is_null() {
            let file: *const u8 = typed(mm, &MM_EXE_FILE);
            if !file.is_null() {
                let inode: *const u8 = typed(file, &FILE_INODE);
                let sb: *const u8 = typed(inode, &INODE_SB);
                (*to).exe_inode = typed(inode, &INODE_NUMBER);
                (*to).exe_dev = typed(sb, &SB_DEV);
            }
        }
    }
}

#[inline(always)]
unsafe fn login_uid(task: *const u8) -> u32 {
    if TASK_LOGIN_UID.exists() {
        // SAFETY: a typed load.
        unsafe { typed(task, &TASK_LOGIN_UID) }
    } else {
        UNSET
    }
}

/// The uid that answers for what the current task does: who logged in, else the real uid. `sudo`
/// and `su` do not change it.
#[inline(always)]
pub fn responsible_uid() -> u32 {
    // SAFETY: typed loads from the current task.
    unsafe {
        let task = bpf_get_current_task_btf() as *const u8;
        let login = login_uid(task);
        if login != UNSET {
            return login;
        }
        let cred: *const u8 = typed(task, &TASK_CRED);
        typed(cred, &CRED_UID)
    }
}

/// Who acts with what: process, program and person.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Actor {
    /// Start of the process; with the number below it is never used again within one boot.
    pub start_ns: u64,
    pub tgid: u32,
    /// Counts its launches of programs.
    pub exec_id: u32,
    /// Who answers for it.
    pub uid: u64,
}

/// The one who acts now.
#[inline(always)]
pub fn actor() -> Actor {
    // SAFETY: typed loads from the current task.
    unsafe {
        let task = bpf_get_current_task_btf() as *const u8;
        let leader: *const u8 = typed(task, &TASK_LEADER);
        Actor {
            start_ns: typed(leader, &TASK_START),
            tgid: typed(task, &TASK_TGID),
            exec_id: typed::<u32>(task, &TASK_EXEC_ID),
            uid: responsible_uid() as u64,
        }
    }
}

/// The current task's note. Made when `create`; null when there is none.
#[inline(always)]
pub fn note(create: bool) -> *mut TaskNote {
    // SAFETY: the map is a task storage; the task is the helper's own answer.
    unsafe {
        bpf_task_storage_get(
            from_ref(&NOTES).cast_mut().cast(),
            bpf_get_current_task_btf(),
            null_mut(),
            create as u64,
        )
        .cast()
    }
}
