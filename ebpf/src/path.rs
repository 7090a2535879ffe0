//! The host's own path of a file: dentries and mounts walked up to the root of the mount tree, so
//! that a chroot, a container or another mount namespace does not change what a file is called.

use aya_ebpf::{bindings::inode, helpers::generated::bpf_probe_read_kernel_str};
use core::ptr::null;
use sekimori_abi::{
    limits::{NAME_BYTES_MAX, PATH_BYTES_MAX, PATH_DEPTH_MAX, TEXT_BYTES_MAX},
    table::{COMPONENT_ANY, Edge, SET_UNKNOWN, STATE_DEAD, STATE_ROOT},
};

use crate::{
    judge::Policy,
    maps::{EDGES, LABELS, SCRATCH, STATES, Scratch},
    offset::*,
    read::{pointer, probed_at},
};
use sekimori_abi::limits::STATES_MAX;

/// Where a walk begins. `mount` is null for a dentry whose mount is not known: the walk then ends
/// at its file system's root.
#[derive(Clone, Copy)]
pub struct Place {
    pub mount: *const u8,
    pub dentry: *const u8,
}

impl Place {
    /// Of a `struct path` at any address.
    #[inline(always)]
    pub fn of_path(path: *const u8) -> Self {
        let mount = pointer(path, &PATH_MNT).wrapping_sub(MOUNT_MNT.get());
        Self { mount, dentry: pointer(path, &PATH_DENTRY) }
    }

    /// Of a `struct file` at any address.
    #[inline(always)]
    pub fn of_file(file: *const u8) -> Self {
        Self::of_path(file.wrapping_add(FILE_PATH.get()))
    }

    /// Of a dentry alone.
    #[inline(always)]
    pub fn of_dentry(dentry: *const u8) -> Self {
        Self { mount: null(), dentry }
    }
}

/// Result of `walk_path` when the root was not reached.
pub const INCOMPLETE: u64 = 0;
/// Result of `walk_path` when it was.
pub const COMPLETE: u64 = 1;

/// Walks to the root. Leaves the hash of each component in the buffer's `hashes` (leaf first, 0
/// where a step found none) and appends the names to its `text`, leaf first, each NUL-terminated.
///
/// The walk begins at the buffer's `mount` and `dentry`. A function of its own, with numbers for
/// arguments: the verifier looks at it once per program.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn walk_path(buffer: u32) -> u64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(buffer) else {
        return INCOMPLETE;
    };
    // SAFETY: the buffer is the caller's.
    unsafe {
        put(&raw mut (*scratch).state, INCOMPLETE);
        put(&raw mut (*scratch).cut, 0);
        let start = take(&raw const (*scratch).used);
        for step in 0..PATH_DEPTH_MAX {
            let hash = (&raw mut (*scratch).hashes).cast::<u64>().add(step);
            put(hash, climb(scratch, start));
        }
        take(&raw const (*scratch).state)
    }
}

/// One step towards the root; answers the hash of the component passed, 0 when none was.
#[inline(always)]
unsafe fn climb(scratch: *mut Scratch, start: u64) -> u64 {
    // SAFETY: the buffer is the caller's, `name` is NAME_BYTES_MAX bytes, `used` is checked.
    unsafe {
        if take(&raw const (*scratch).state) == COMPLETE {
            return 0;
        }
        let dentry = take(&raw const (*scratch).dentry) as *const u8;
        let mount = take(&raw const (*scratch).mount) as *const u8;
        if !mount.is_null() {
            let root = pointer(mount.wrapping_add(MOUNT_MNT.get()), &VFSMOUNT_ROOT);
            if dentry == root {
                let up = pointer(mount, &MOUNT_PARENT);
                if up == mount {
                    put(&raw mut (*scratch).state, COMPLETE);
                } else {
                    put(&raw mut (*scratch).dentry, pointer(mount, &MOUNT_POINT) as u64);
                    put(&raw mut (*scratch).mount, up as u64);
                }
                return 0;
            }
        }
        let parent = pointer(dentry, &DENTRY_PARENT);
        if parent == dentry {
            put(&raw mut (*scratch).state, COMPLETE);
            return 0;
        }
        put(&raw mut (*scratch).dentry, parent as u64);
        // A qstr holds hash and length (8 bytes), then the name.
        let name: u64 = probed_at(dentry.wrapping_add(DENTRY_NAME.get() + 8));
        let words = (&raw mut (*scratch).name).cast::<u64>();
        for word in 0..NAME_BYTES_MAX / 8 {
            put(words.add(word), 0);
        }
        bpf_probe_read_kernel_str(words.cast(), NAME_BYTES_MAX as u32, name as *const _);
        append_name(scratch, start);
        sekimori_decide::path::words_hash(&*words.cast())
    }
}

/// Appends `name` to `text` while there is room for it.
#[inline(always)]
unsafe fn append_name(scratch: *mut Scratch, start: u64) {
    // SAFETY: the buffer is the caller's, and `used` leaves room for a name.
    unsafe {
        let used = take(&raw const (*scratch).used);
        if used >= TEXT_BYTES_MAX as u64 || used.wrapping_sub(start) >= PATH_BYTES_MAX as u64 {
            put(&raw mut (*scratch).cut, 1);
            return;
        }
        let to = (&raw mut (*scratch).text).cast::<u8>().add(used as usize);
        let from = (&raw const (*scratch).name).cast();
        let got = bpf_probe_read_kernel_str(to.cast(), NAME_BYTES_MAX as u32, from);
        if got > 0 {
            put(&raw mut (*scratch).used, used + got as u64);
        }
    }
}

/// The automaton's state after the components that a complete walk left.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn path_state(buffer: u32, slot: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(buffer) else {
        return STATE_DEAD;
    };
    // SAFETY: the buffer is the caller's.
    unsafe {
        put(&raw mut (*scratch).state, STATE_ROOT as u64);
        for step in 0..PATH_DEPTH_MAX {
            let at = PATH_DEPTH_MAX - 1 - step;
            let component = take((&raw const (*scratch).hashes).cast::<u64>().add(at));
            let state = take(&raw const (*scratch).state) as u32;
            if component != 0 && state != STATE_DEAD {
                put(&raw mut (*scratch).state, next(slot, state, component) as u64);
            }
        }
        take(&raw const (*scratch).state) as u32
    }
}

/// Reads loop state from the buffer.
#[inline(always)]
unsafe fn take(cell: *const u64) -> u64 {
    // SAFETY: the caller's.
    unsafe { cell.read_volatile() }
}

/// Writes loop state to the buffer.
#[inline(always)]
unsafe fn put(cell: *mut u64, value: u64) {
    // SAFETY: the caller's.
    unsafe { cell.write_volatile(value) }
}

#[inline(always)]
fn next(slot: u32, state: u32, component: u64) -> u32 {
    // SAFETY: the value is read at once.
    unsafe {
        if let Some(to) = EDGES.get(Edge { slot, state, component }) {
            return *to;
        }
        match EDGES.get(Edge { slot, state, component: COMPONENT_ANY }) {
            Some(to) => *to,
            None => STATE_DEAD,
        }
    }
}

/// Sets of the path that ends in `state`: of itself, and of all that can lie below.
#[inline(always)]
pub fn sets_of(policy: &Policy, state: u32) -> (u32, u32) {
    match STATES.get(policy.slot * STATES_MAX + state) {
        Some(entry) => (entry.set, entry.below),
        None => (SET_UNKNOWN, SET_UNKNOWN),
    }
}

/// The set that is remembered for an inode under this policy.
///
/// # Safety
/// `inode` must be a typed pointer.
#[inline(always)]
pub unsafe fn remembered(policy: &Policy, inode: *const u8) -> Option<u32> {
    // SAFETY: by contract; the helper answers null when nothing is stored.
    let cell = unsafe { LABELS.get_ptr_mut(inode as *mut inode) };
    if cell.is_null() {
        return None;
    }
    // SAFETY: not null; a `u64` is read in one go.
    let word = unsafe { cell.read_volatile() };
    (word >> 32 == policy.generation as u64).then_some(word as u32)
}

/// Remembers an inode's set under this policy.
///
/// # Safety
/// `inode` must be a typed pointer.
#[inline(always)]
pub unsafe fn remember(policy: &Policy, inode: *const u8, set: u32) {
    // SAFETY: by contract.
    let cell = unsafe { LABELS.get_or_insert_ptr_mut(inode as *mut inode, None) };
    if !cell.is_null() {
        // SAFETY: not null.
        unsafe { cell.write_volatile((policy.generation as u64) << 32 | set as u64) };
    }
}
