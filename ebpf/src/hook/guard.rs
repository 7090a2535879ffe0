//! The monitor guards itself: its process, its maps, its pins, and the switch that would take every
//! program off its hook.

use aya_ebpf::{
    helpers::{bpf_get_current_task_btf, bpf_probe_read_kernel_str_bytes},
    macros::lsm,
    programs::LsmContext,
};
use sekimori_abi::{
    event::{counter, kind, operation},
    table::{Guard, action},
};
use sekimori_decide::Outcome;

use super::{ALLOWED, REFUSED};
use crate::{
    count::count,
    emit::Record,
    judge::Policy,
    maps::{GUARD, GUARDED_MAPS, GUARDED_MOUNTS},
    offset::*,
    path::Place,
    read::{pointer, probed, probed_at, typed},
};

/// Signals that an agent answers in order, or not at all: 0, HUP, INT, TERM, CHLD, CONT, URG,
/// WINCH (asm-generic/signal.h).
const HARMLESS_SIGNALS: u64 = 1 | 1 << 1 | 1 << 2 | 1 << 15 | 1 << 17 | 1 << 18 | 1 << 23 | 1 << 28;
/// `PTRACE_MODE_ATTACH` (include/linux/ptrace.h).
const TRACE_ATTACH: u64 = 2;
/// `MNT_DETACH` (include/linux/fs.h).
const DETACH: u64 = 2;
/// `PROC_SUPER_MAGIC` (include/uapi/linux/magic.h).
pub const PROC_MAGIC: u64 = 0x9fa0;
/// Directories between a pin and the directory of all pins.
const PIN_DEPTH_MAX: u32 = 4;
/// From a `struct qstr` to the name's address (include/linux/dcache.h).
const NAME_AT: usize = 8;
const SWITCH: &[u8; 15] = b"ftrace_enabled\0";

/// The guard, unless there is none or it is the agent or the kernel itself that acts.
#[inline(always)]
fn guard() -> Option<&'static Guard> {
    let guard = GUARD.get(0)?;
    if guard.action == 0 || guard.agent_tgid == 0 {
        return None;
    }
    // SAFETY: typed loads from the current task; kernel threads have no mm.
    unsafe {
        let current = bpf_get_current_task_btf() as *const u8;
        let mm: *const u8 = typed(current, &TASK_MM);
        let agent = typed::<u32>(current, &TASK_TGID) == guard.agent_tgid;
        if agent || mm.is_null() { None } else { Some(guard) }
    }
}

/// The process `tgid` has ended. If it is the agent, nothing is guarded any more: whoever starts it
/// again, or ends enforcement, must be able to.
#[inline(always)]
pub fn ended(tgid: u32) {
    if let Some(guard) = GUARD.get_ptr_mut(0) {
        // SAFETY: a map value; 0 is what the agent writes there itself.
        unsafe {
            if (*guard).agent_tgid == tgid {
                (*guard).agent_tgid = 0;
            }
        }
    }
}

/// Records what was tried, and refuses it if the guard does.
#[inline(always)]
fn tampered(action: u32, operation: u8, size: u64, place: Option<Place>) -> i32 {
    count(kind::TAMPER, counter::SEEN);
    let Some(policy) = Policy::in_force() else {
        return ALLOWED;
    };
    let outcome = Outcome { action, rule: 0 };
    if let Some(mut record) = Record::begin(kind::TAMPER, operation) {
        record.event().size = size;
        if let Some(place) = place {
            record.path(place);
        }
        record.send(&policy, outcome);
    }
    if outcome.denies() { REFUSED } else { ALLOWED }
}

#[lsm(hook = "task_kill")]
pub fn guard_signal(ctx: LsmContext) -> i32 {
    let Some(guard) = guard() else { return ALLOWED };
    let task: *const u8 = ctx.arg(0);
    let signal: u64 = ctx.arg(2);
    let signal = signal as u32;
    // SAFETY: the hook's own argument, and the current task.
    let (target, sender) = unsafe {
        let current = bpf_get_current_task_btf() as *const u8;
        (typed::<u32>(task, &TASK_TGID), typed::<u32>(current, &TASK_TGID))
    };
    if target != guard.agent_tgid {
        return ALLOWED;
    }
    if signal < 64 && HARMLESS_SIGNALS >> signal & 1 != 0 {
        return ALLOWED;
    }
    // The service manager ends services as it is told to.
    let action = if sender == 1 { action::ALERT } else { guard.action };
    tampered(action, operation::SIGNAL, signal as u64, None)
}

#[lsm(hook = "ptrace_access_check")]
pub fn guard_trace(ctx: LsmContext) -> i32 {
    let Some(guard) = guard() else { return ALLOWED };
    let task: *const u8 = ctx.arg(0);
    let mode: u64 = ctx.arg(1);
    // SAFETY: the hook's own argument.
    let target: u32 = unsafe { typed(task, &TASK_TGID) };
    if target != guard.agent_tgid || mode & TRACE_ATTACH == 0 {
        return ALLOWED;
    }
    tampered(guard.action, operation::TRACE, 0, None)
}

#[lsm(hook = "bpf_map")]
pub fn guard_map(ctx: LsmContext) -> i32 {
    let Some(guard) = guard() else { return ALLOWED };
    // For reading as well: a program of somebody's own could write through such a descriptor.
    let map: *const u8 = ctx.arg(0);
    // SAFETY: the hook's own argument.
    let id: u32 = unsafe { typed(map, &MAP_ID) };
    // SAFETY: the value is not read.
    if unsafe { GUARDED_MAPS.get(id) }.is_none() {
        return ALLOWED;
    }
    tampered(guard.action, operation::MAP_OPEN, id as u64, None)
}

#[lsm(hook = "inode_unlink")]
pub fn guard_unlink(ctx: LsmContext) -> i32 {
    unpin(ctx.arg(1))
}

#[lsm(hook = "inode_rmdir")]
pub fn guard_rmdir(ctx: LsmContext) -> i32 {
    unpin(ctx.arg(1))
}

#[lsm(hook = "inode_rename")]
pub fn guard_rename(ctx: LsmContext) -> i32 {
    // What is moved, and what it is moved onto.
    if unpin(ctx.arg(1)) == REFUSED { REFUSED } else { unpin(ctx.arg(3)) }
}

/// `dentry` is to lose its name.
#[inline(always)]
fn unpin(dentry: *const u8) -> i32 {
    let Some(guard) = GUARD.get(0) else { return ALLOWED };
    // Almost every file is somewhere else.
    if probed::<u32>(pointer(dentry, &DENTRY_SB), &SB_DEV) != guard.pins_dev {
        return ALLOWED;
    }
    let Some(guard) = self::guard() else { return ALLOWED };
    let mut at = dentry;
    for _ in 0..PIN_DEPTH_MAX {
        if probed::<u64>(pointer(at, &DENTRY_INODE), &INODE_NUMBER) == guard.pins_inode {
            return tampered(guard.action, operation::UNPIN, 0, Some(Place::of_dentry(dentry)));
        }
        at = pointer(at, &DENTRY_PARENT);
    }
    ALLOWED
}

#[lsm(hook = "sb_umount")]
pub fn guard_unmount(ctx: LsmContext) -> i32 {
    let Some(guard) = guard() else { return ALLOWED };
    let vfsmount: *const u8 = ctx.arg(0);
    let flags: u64 = ctx.arg(1);
    let id: u32 = probed(vfsmount.wrapping_sub(MOUNT_MNT.get()), &MOUNT_ID);
    // SAFETY: the value is read at once.
    match unsafe { GUARDED_MOUNTS.get(id) } {
        Some(1) => {}
        // Without the flag, a mount with others below it is busy.
        Some(_) if flags & DETACH != 0 => {}
        _ => return ALLOWED,
    }
    tampered(guard.action, operation::UNMOUNT, 0, None)
}

/// An open for write of `kernel.ftrace_enabled`, in whatever procfs: 0 in it takes every program
/// off its hook on kernels up to 6.12 (tried).
///
/// # Safety
/// `file` must be a typed pointer.
#[inline(always)]
pub unsafe fn switches_hooks(file: *const u8) -> i32 {
    // SAFETY: typed loads.
    unsafe {
        let inode: *const u8 = typed(file, &FILE_INODE);
        if probed::<u64>(pointer(inode, &INODE_SB), &SB_MAGIC) != PROC_MAGIC {
            return ALLOWED;
        }
        let dentry = pointer(file.wrapping_add(FILE_PATH.get()), &PATH_DENTRY);
        let address: u64 = probed_at(dentry.wrapping_add(DENTRY_NAME.get() + NAME_AT));
        let mut name = [0u8; 16];
        let read = bpf_probe_read_kernel_str_bytes(address as *const u8, &mut name);
        if read.is_err() || &name[..15] != SWITCH {
            return ALLOWED;
        }
        let Some(guard) = guard() else { return ALLOWED };
        tampered(guard.action, operation::HOOKS_OFF, 0, Some(Place::of_opened(file, inode)))
    }
}
