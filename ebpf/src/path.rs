//! The host's own path of a file: dentries and mounts walked up to the root of the mount tree, so
//! that a chroot, a container or another mount namespace does not change what a file is called.

use aya_ebpf::{bindings::inode, helpers::generated::bpf_probe_read_kernel_str};
use core::ptr::null;
use sekimori_abi::{
    event::flag,
    limits::{NAME_BYTES_MAX, PATH_BYTES_MAX, PATH_DEPTH_MAX, TEXT_BYTES_MAX},
    table::{COMPONENT_ANY, Edge, SET_UNKNOWN, STATE_DEAD, STATE_ROOT},
};

use crate::{
    judge::Policy,
    maps::{EDGES, LABELS, STATES, Scratch},
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
        Self {
            mount,
            dentry: pointer(path, &PATH_DENTRY),
        }
    }

    /// Of a `struct file` at any address.
    #[inline(always)]
    pub fn of_file(file: *const u8) -> Self {
        Self::of_path(file.wrapping_add(FILE_PATH.get()))
    }

    /// Of a dentry alone.
    #[inline(always)]
    pub fn of_dentry(dentry: *const u8) -> Self {
        Self {
            mount: null(),
            dentry,
        }
    }
}

/// What a walk found.
#[derive(Clone, Copy)]
pub struct Walked {
    /// It reached the root.
    pub complete: bool,
    /// Bytes written to the scratch's text.
    pub bytes: usize,
}

/// Walks to the root. Leaves the hash of each component in `hashes` (leaf first, 0 where a step
/// found none) and the names in `text` from `start` on, leaf first, each NUL-terminated.
///
/// # Safety
/// `scratch` must be a buffer of this program's own.
#[inline(always)]
pub unsafe fn walk(scratch: *mut Scratch, place: Place, start: usize) -> Walked {
    let mut dentry = place.dentry;
    let mut mount = place.mount;
    let mut complete = false;
    let mut used = start;
    // SAFETY: in bounds: `name` is NAME_BYTES_MAX bytes, hashes 64, and `used` is checked below.
    unsafe {
        let words = (&raw mut (*scratch).name).cast::<u64>();
        let hashes = (&raw mut (*scratch).hashes).cast::<u64>();
        let text = (&raw mut (*scratch).text).cast::<u8>();
        for step in 0..PATH_DEPTH_MAX {
            *hashes.add(step) = 0;
            if complete {
                continue;
            }
            if !mount.is_null() {
                let root = pointer(mount.wrapping_add(MOUNT_MNT.get()), &VFSMOUNT_ROOT);
                if dentry == root {
                    let up = pointer(mount, &MOUNT_PARENT);
                    if up == mount {
                        complete = true;
                    } else {
                        dentry = pointer(mount, &MOUNT_POINT);
                        mount = up;
                    }
                    continue;
                }
            }
            let parent = pointer(dentry, &DENTRY_PARENT);
            if parent == dentry {
                complete = true;
                continue;
            }
            // A qstr holds hash and length (8 bytes), then the name.
            let name: u64 = probed_at(dentry.wrapping_add(DENTRY_NAME.get() + 8));
            for word in 0..NAME_BYTES_MAX / 8 {
                *words.add(word) = 0;
            }
            bpf_probe_read_kernel_str(words.cast(), NAME_BYTES_MAX as u32, name as *const _);
            *hashes.add(step) = sekimori_decide::path::words_hash(&*words.cast());
            if used < TEXT_BYTES_MAX && used - start < PATH_BYTES_MAX - NAME_BYTES_MAX {
                let room = NAME_BYTES_MAX as u32;
                let got = bpf_probe_read_kernel_str(text.add(used).cast(), room, words.cast());
                if got > 0 && got <= NAME_BYTES_MAX as i64 {
                    used += got as usize;
                }
            }
            dentry = parent;
        }
    }
    Walked {
        complete,
        bytes: used - start,
    }
}

/// The automaton's state after the components that `walk` left.
///
/// # Safety
/// `scratch` must be a buffer of this program's own, just filled by a complete walk.
#[inline(always)]
pub unsafe fn state(scratch: *mut Scratch, policy: &Policy) -> u32 {
    let mut state = STATE_ROOT;
    for step in 0..PATH_DEPTH_MAX {
        // SAFETY: in bounds.
        let component = unsafe {
            *(&raw const (*scratch).hashes)
                .cast::<u64>()
                .add(PATH_DEPTH_MAX - 1 - step)
        };
        if component == 0 || state == STATE_DEAD {
            continue;
        }
        state = next(policy.slot, state, component);
    }
    state
}

#[inline(always)]
fn next(slot: u32, state: u32, component: u64) -> u32 {
    // SAFETY: the value is read at once.
    unsafe {
        if let Some(to) = EDGES.get(Edge {
            slot,
            state,
            component,
        }) {
            return *to;
        }
        match EDGES.get(Edge {
            slot,
            state,
            component: COMPONENT_ANY,
        }) {
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

/// The flag a text of this walk carries.
#[inline(always)]
pub fn flags_of(walked: Walked, place: Place) -> u16 {
    let mut flags = 0;
    if !walked.complete {
        flags |= flag::PATH_TRUNCATED;
    }
    if place.mount.is_null() {
        flags |= flag::PATH_IN_FILE_SYSTEM;
    }
    flags
}
