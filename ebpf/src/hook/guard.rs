//! The monitor guards itself: its process, its maps, its pins, its files, and the switches that would
//! take every program off its hook, or freeze the agent.

use aya_ebpf::{
    bindings::inode,
    helpers::{bpf_get_current_task_btf, generated::bpf_probe_read_kernel_str},
    macros::lsm,
    programs::LsmContext,
};
use sekimori_abi::{
    event::{counter, kind, operation},
    table::{Guard, action, own},
};
use sekimori_decide::Outcome;

use super::{ALLOWED, REFUSED};
use crate::{
    count::count,
    emit::Record,
    judge::Policy,
    maps::{GUARD, GUARDED_MAPS, GUARDED_MOUNTS, OWN},
    offset::*,
    path::Place,
    read::{pointer, probed, probed_at, typed},
    task,
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
/// Bytes of a name that are compared, its end included.
const NAME_BYTES: usize = 16;
const SWITCH: [u64; 2] = name(b"ftrace_enabled\0\0");
const FREEZE: [u64; 2] = name(b"cgroup.freeze\0\0\0");
const KILL: [u64; 2] = name(b"cgroup.kill\0\0\0\0\0");
/// `CGROUP2_SUPER_MAGIC` (include/uapi/linux/magic.h).
const CONTROL_GROUP_MAGIC: u64 = 0x6367_7270;
/// Control groups from the agent's own up that are compared.
const GROUP_DEPTH_MAX: u32 = 32;

const fn name(text: &[u8; NAME_BYTES]) -> [u64; 2] {
    // SAFETY: the same bytes.
    unsafe { core::mem::transmute::<[u8; NAME_BYTES], [u64; 2]>(*text) }
}

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

/// Notes the agent's task when it is the agent that opens a map: user space knows no addresses.
#[inline(always)]
fn introduce() {
    let Some(guard) = GUARD.get_ptr_mut(0) else { return };
    let current = task::current() as *const u8;
    // SAFETY: a map value.
    unsafe {
        if (*guard).agent_tgid != 0
            && (*guard).agent_task == 0
            && probed::<u32>(current, &TASK_TGID) == (*guard).agent_tgid
        {
            (*guard).agent_task = pointer(current, &TASK_LEADER) as u64;
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

/// A limit that ends the agent when it comes to it (processor time), or makes it fail.
#[lsm(hook = "task_setrlimit")]
pub fn guard_limit(ctx: LsmContext) -> i32 {
    let Some(guard) = guard() else { return ALLOWED };
    let task: *const u8 = ctx.arg(0);
    // SAFETY: the hook's own argument, and the current task.
    let (target, sender) = unsafe {
        let current = bpf_get_current_task_btf() as *const u8;
        (typed::<u32>(task, &TASK_TGID), typed::<u32>(current, &TASK_TGID))
    };
    if target != guard.agent_tgid {
        return ALLOWED;
    }
    let action = if sender == 1 { action::ALERT } else { guard.action };
    tampered(action, operation::LIMIT, 0, None)
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
    introduce();
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
    replaced((ctx.arg(0), ctx.arg(1)), None);
    unpin(ctx.arg(1))
}

#[lsm(hook = "inode_rmdir")]
pub fn guard_rmdir(ctx: LsmContext) -> i32 {
    replaced((ctx.arg(0), ctx.arg(1)), None);
    unpin(ctx.arg(1))
}

#[lsm(hook = "inode_rename")]
pub fn guard_rename(ctx: LsmContext) -> i32 {
    // What is moved, and what it is moved onto.
    replaced((ctx.arg(0), ctx.arg(1)), Some((ctx.arg(2), ctx.arg(3))));
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

/// A file was opened for write.
///
/// # Safety
/// `file` must be a typed pointer.
#[inline(always)]
pub unsafe fn written(file: *const u8) -> i32 {
    let Some(guard) = guard() else { return ALLOWED };
    // SAFETY: typed loads.
    unsafe {
        let inode: *const u8 = typed(file, &FILE_INODE);
        let place = Place::of_opened(file, inode);
        let mut attack = switched(place.dentry as u64);
        if attack == 0 && to_agent(guard, inode) != 0 {
            attack = attack_of(action::ALERT, operation::REPLACE);
        }
        if attack == 0 {
            ALLOWED
        } else {
            tampered_at(attack, place.mount as u64, place.dentry as u64)
        }
    }
}

/// An action and an operation in one number.
#[inline(always)]
const fn attack_of(action: u32, operation: u8) -> u32 {
    action << 8 | operation as u32
}

/// As [`tampered`]. A function of its own, with numbers for arguments: the verifier looks at it once
/// per program.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn tampered_at(attack: u32, mount: u64, dentry: u64) -> i32 {
    let place = Place { mount: mount as *const u8, dentry: dentry as *const u8 };
    tampered(attack >> 8, attack as u8, 0, Some(place))
}

/// The attack that an open for write is, by its dentry; 0 for none. The same.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn switched(dentry: u64) -> u32 {
    let Some(guard) = GUARD.get(0) else { return 0 };
    let dentry = dentry as *const u8;
    let magic: u64 = probed(pointer(dentry, &DENTRY_SB), &SB_MAGIC);
    if magic == PROC_MAGIC {
        switches_hooks(guard, dentry)
    } else if magic == CONTROL_GROUP_MAGIC {
        stops_agent(guard, dentry)
    } else {
        0
    }
}

/// A name; what does not fit is cut.
#[inline(always)]
fn name_of(dentry: *const u8) -> [u64; 2] {
    let address: u64 = probed_at(dentry.wrapping_add(DENTRY_NAME.get() + NAME_AT));
    let mut name = [0u64; 2];
    // SAFETY: it is our array, and no more than its length.
    unsafe {
        bpf_probe_read_kernel_str(name.as_mut_ptr().cast(), NAME_BYTES as u32, address as *const _);
    }
    name
}

/// `kernel.ftrace_enabled`, in whatever procfs: 0 in it takes every program off its hook on kernels up
/// to 6.12 (tried).
#[inline(always)]
fn switches_hooks(guard: &Guard, dentry: *const u8) -> u32 {
    if name_of(dentry) == SWITCH { attack_of(guard.action, operation::HOOKS_OFF) } else { 0 }
}

/// What freezes or kills the control group that the agent is in, or one above it.
#[inline(always)]
fn stops_agent(guard: &Guard, dentry: *const u8) -> u32 {
    let name = name_of(dentry);
    if name != FREEZE && name != KILL {
        return 0;
    }
    let directory = pointer(pointer(dentry, &DENTRY_PARENT), &DENTRY_INODE);
    if holds_agent(guard.agent_task, probed(directory, &INODE_NUMBER)) == 0 {
        return 0;
    }
    // SAFETY: typed loads from the current task.
    let sender: u32 = unsafe { typed(bpf_get_current_task_btf() as *const u8, &TASK_TGID) };
    // The service manager ends services as it is told to.
    attack_of(if sender == 1 { action::ALERT } else { guard.action }, operation::FREEZE)
}

/// Whether the control group with this number (`kernfs_node.id`, which is its directory's inode
/// number) is that of the task at this address, or above it. Deeper than it looks, every one counts.
///
/// A function of its own, with numbers for arguments: the verifier looks at it once per program.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn holds_agent(task: u64, number: u64) -> u32 {
    let mut group = pointer(pointer(task as *const u8, &TASK_CONTROL_GROUPS), &GROUPS_DEFAULT);
    for _ in 0..GROUP_DEPTH_MAX {
        if group.is_null() {
            return 0;
        }
        if probed::<u64>(pointer(group, &GROUP_NODE), &NODE_ID) == number {
            return 1;
        }
        let above = pointer(group.wrapping_add(GROUP_SELF.get()), &GROUP_STATE_PARENT);
        if above.is_null() {
            return 0;
        }
        group = above.wrapping_sub(GROUP_SELF.get());
    }
    1
}

/// The inode of a directory and a dentry in it, as hooks are given them.
type Name = (*const u8, *const u8);

/// A name of one of the agent's own files goes, or leads to another file. Whoever upgrades the agent
/// must be able to.
#[inline(always)]
fn replaced(old: Name, new: Option<Name>) {
    let Some(guard) = guard() else { return };
    // SAFETY: all are arguments of the hook, and typed.
    let own = unsafe {
        match new {
            Some(new) => is_own(guard, old) || is_own(guard, new),
            None => is_own(guard, old),
        }
    };
    if !own {
        return;
    }
    count(kind::TAMPER, counter::SEEN);
    let Some(policy) = Policy::in_force() else { return };
    if let Some(mut record) = Record::begin(kind::TAMPER, operation::REPLACE) {
        record.path(Place::of_dentry(old.1));
        if let Some(new) = new {
            record.second_path(Place::of_dentry(new.1));
        }
        record.send(&policy, Outcome { action: action::ALERT, rule: 0 });
    }
}

/// Whether a name is one of the agent's own, or stands in a directory that is all the agent's.
///
/// # Safety
/// Both must be typed pointers.
#[inline(always)]
unsafe fn is_own(guard: &Guard, (directory, dentry): Name) -> bool {
    // SAFETY: typed loads.
    unsafe {
        let inode: *const u8 = typed(dentry, &DENTRY_INODE);
        (!inode.is_null() && to_agent(guard, inode) != 0)
            || to_agent(guard, directory) == own::DIRECTORY
    }
}

/// What an inode is to the agent: one of `own`, or 0.
///
/// # Safety
/// `inode` must be a typed pointer.
#[inline(always)]
unsafe fn to_agent(guard: &Guard, inode: *const u8) -> u64 {
    // SAFETY: by contract; the helper answers null when nothing is stored.
    let cell = unsafe { OWN.get_ptr_mut(inode as *mut inode) };
    if cell.is_null() {
        return 0;
    }
    // SAFETY: not null; a `u64` is read in one go.
    let word = unsafe { cell.read_volatile() };
    if word >> 32 == guard.agent_tgid as u64 { word as u32 as u64 } else { 0 }
}
