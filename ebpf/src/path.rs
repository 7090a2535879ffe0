//! The host's own path of a file: dentries and mounts walked up to the host's root.

use aya_ebpf::{bindings::inode, helpers::generated::bpf_probe_read_kernel_str};
use core::ptr::null;
use sekimori_abi::{
    limits::{NAME_BYTES_MAX, PATH_BYTES_MAX, PATH_DEPTH_MAX, TEXT_BYTES_MAX},
    table::{COMPONENT_ANY, Edge, SET_UNKNOWN, STATE_DEAD, STATE_ROOT},
};

use crate::{
    atomic,
    device::writes_its_own_way,
    host_mount::{TOO_MANY, host_mount},
    judge::Policy,
    maps::{EDGES, EPOCH, HOST_ROOT, LABELS, PLAIN, SCRATCH, STATES, Scratch},
    offset::*,
    read::{Probed, pointer, probed, probed_at},
};
use sekimori_abi::limits::STATES_MAX;

/// Where a walk begins. `mount` is null for a dentry whose mount is not known; it matters only when
/// no mount shows the whole file system.
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

    /// Of an open file and its inode. Up to 6.4 a file that overlayfs opened for itself carries
    /// the path of the file above it (`open_with_fake_path`): the inode then tells its own name.
    #[inline(always)]
    pub fn of_opened(file: *const u8, inode: *const u8) -> Self {
        let place = Self::of_file(file);
        if pointer(place.dentry, &DENTRY_INODE) == inode {
            return place;
        }
        let alias = pointer(inode, &INODE_DENTRIES);
        if alias.is_null() || !DENTRY_ALIAS.exists() {
            return Self::of_dentry(null());
        }
        Self::of_dentry(alias.wrapping_sub(DENTRY_ALIAS.get()))
    }

    /// Of a dentry alone.
    #[inline(always)]
    pub fn of_dentry(dentry: *const u8) -> Self {
        Self { mount: null(), dentry }
    }
}

/// Types of files (include/uapi/linux/stat.h).
pub const S_IFMT: u16 = 0o170_000;
pub const S_IFDIR: u16 = 0o040_000;
pub const S_IFREG: u16 = 0o100_000;
pub const S_IFIFO: u16 = 0o010_000;
pub const S_IFSOCK: u16 = 0o140_000;
pub const S_IFBLK: u16 = 0o060_000;
pub const S_IFCHR: u16 = 0o020_000;

/// How a walk ended. It reached no root: what is known of the path is not all of it.
pub const INCOMPLETE: u64 = 0;
/// It reached the host's root.
pub const COMPLETE: u64 = 1;
/// It reached the root of a file system that is mounted nowhere, or only in parts.
pub const IN_FILE_SYSTEM: u64 = 2;
/// It came through a file system that somebody mounted in a user namespace, or reached a root that is
/// not the host's: of a mount tree that hangs nowhere in it, or of files that have no place at all.
/// Nothing there carries a label, whatever it is called.
pub const FOREIGN: u64 = 3;
/// It goes on.
const WALKING: u64 = 4;

/// `SB_KERNMOUNT` (include/linux/fs.h): mounted by the kernel for itself, out of everybody's reach.
pub const SB_KERNMOUNT: u64 = 1 << 22;

/// What a walk leaves in the buffer, as its `wanted` says: the hash of each component in `hashes`
/// (leaf first, 0 where a step found none), or the names behind its `text` (leaf first, each
/// NUL-terminated), or both.
pub const HASHES: u64 = 1;
pub const TEXT: u64 = 2;

/// Walks to the host's root.
///
/// The walk begins at the buffer's `mount` and `dentry`. It leaves each file system through the
/// mount that puts it into the host's tree, whichever the file was reached by, so that a bind mount,
/// a chroot, a container or another namespace does not change what a file is called. Functions of
/// their own, with numbers for arguments: the verifier looks at each once per program.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn walk_path(buffer: u32) -> u64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(buffer) else {
        return INCOMPLETE;
    };
    // SAFETY: the buffer is the caller's.
    unsafe {
        put(&raw mut (*scratch).state, WALKING);
        put(&raw mut (*scratch).cut, 0);
        put(&raw mut (*scratch).home, 0);
        put(&raw mut (*scratch).stranger, 0);
        put(&raw mut (*scratch).own, 0);
        let start = take(&raw const (*scratch).used);
        enter_file_system(buffer);
        for step in 0..PATH_DEPTH_MAX {
            let hash = (&raw mut (*scratch).hashes).cast::<u64>().add(step);
            put(hash, climb(buffer, start));
            put(&raw mut (*scratch).steps, step as u64 + 1);
            if take(&raw const (*scratch).state) != WALKING {
                break;
            }
        }
        match take(&raw const (*scratch).state) {
            WALKING => INCOMPLETE,
            COMPLETE if take(&raw const (*scratch).stranger) != 0 => FOREIGN,
            end => end,
        }
    }
}

/// Finds out where the walk leaves the file system of the buffer's `dentry`: at which dentry (`top`),
/// and through which mount (`cross`, 0 when the walk ends there).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn enter_file_system(buffer: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(buffer) else {
        return 0;
    };
    // SAFETY: the buffer is the caller's.
    unsafe {
        let dentry = take(&raw const (*scratch).dentry) as *const u8;
        let superblock = pointer(dentry, &DENTRY_SB);
        put(&raw mut (*scratch).superblock, superblock as u64);
        let whole = host_mount(buffer);
        let traits = take(&raw const (*scratch).traits);
        if traits & PLAIN != 0 {
            put(&raw mut (*scratch).top, take(&raw const (*scratch).whole));
            put(&raw mut (*scratch).cross, if traits & HOST_ROOT != 0 { 0 } else { whole });
            put(&raw mut (*scratch).end, COMPLETE);
            return 0;
        }
        let namespace = pointer(superblock, &SB_USER_NAMESPACE);
        if !pointer(namespace, &USER_NAMESPACE_PARENT).is_null() {
            put(&raw mut (*scratch).stranger, 1);
        }
        let is_root = probed::<u32>(superblock, &SB_DEV) as usize == ROOT_DEVICE.get();
        let own = take(&raw const (*scratch).mount);
        if whole == TOO_MANY {
            put(&raw mut (*scratch).state, INCOMPLETE);
        } else if whole != 0 {
            put(&raw mut (*scratch).top, pointer(superblock, &SB_ROOT) as u64);
            put(&raw mut (*scratch).cross, if is_root { 0 } else { whole });
            put(&raw mut (*scratch).end, COMPLETE);
        } else if own != 0 {
            let own = own as *const u8;
            let root = pointer(own.wrapping_add(MOUNT_MNT.get()), &VFSMOUNT_ROOT);
            put(&raw mut (*scratch).top, root as u64);
            put(&raw mut (*scratch).own, 1);
            // A mount that was taken away hangs nowhere any more.
            let gone = pointer(own, &MOUNT_NAMESPACE).is_null();
            put(&raw mut (*scratch).cross, if gone { 0 } else { own as u64 });
            put(&raw mut (*scratch).end, INCOMPLETE);
            if is_root {
                put(&raw mut (*scratch).home, 1);
            }
        } else {
            put(&raw mut (*scratch).top, pointer(superblock, &SB_ROOT) as u64);
            put(&raw mut (*scratch).cross, 0);
            put(&raw mut (*scratch).end, IN_FILE_SYSTEM);
        }
    }
    0
}

/// One step towards the root; answers the hash of the component passed, 0 when none was.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn climb(buffer: u32, start: u64) -> u64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(buffer) else {
        return 0;
    };
    // SAFETY: the buffer is the caller's, `name` is NAME_BYTES_MAX bytes, `used` is checked.
    unsafe {
        if take(&raw const (*scratch).state) != WALKING {
            return 0;
        }
        let dentry = take(&raw const (*scratch).dentry) as *const u8;
        if dentry as u64 == take(&raw const (*scratch).top) {
            leave_file_system(buffer, scratch);
            return 0;
        }
        let (parent, name) = parent_and_name(dentry);
        if parent == dentry {
            let end = placeless(dentry);
            put(&raw mut (*scratch).state, end);
            if end != FOREIGN {
                return 0;
            }
        }
        put(&raw mut (*scratch).dentry, parent as u64);
        let wanted = take(&raw const (*scratch).wanted);
        if wanted & TEXT != 0 {
            append_name(scratch, start, name);
        }
        if wanted & HASHES == 0 {
            return 0;
        }
        let words = (&raw mut (*scratch).name).cast::<u64>();
        for word in 0..NAME_BYTES_MAX / 8 {
            put(words.add(word), 0);
        }
        bpf_probe_read_kernel_str(words.cast(), NAME_BYTES_MAX as u32, name.cast());
        sekimori_decide::path::words_hash(&*words.cast())
    }
}

/// A dentry's `d_parent` and `d_name.name`. They have always stood side by side, so one read gets both;
/// where they do not, two do.
#[inline(always)]
fn parent_and_name(dentry: *const u8) -> (*const u8, *const u8) {
    // A qstr holds hash and length (8 bytes), then the name.
    if DENTRY_NAME.get() == DENTRY_PARENT.get() + 8 {
        let [parent, _, name] = probed::<[u64; 3]>(dentry, &DENTRY_PARENT);
        (parent as *const u8, name as *const u8)
    } else {
        let name: u64 = probed_at(dentry.wrapping_add(DENTRY_NAME.get() + 8));
        (pointer(dentry, &DENTRY_PARENT), name as *const u8)
    }
}

/// Goes on in the file system above, or ends the walk.
#[inline(always)]
unsafe fn leave_file_system(buffer: u32, scratch: *mut Scratch) {
    // SAFETY: the caller's.
    unsafe {
        let cross = take(&raw const (*scratch).cross) as *const u8;
        if cross.is_null() {
            put(&raw mut (*scratch).state, take(&raw const (*scratch).end));
            return;
        }
        if take(&raw const (*scratch).traits) & PLAIN == 0 {
            put(&raw mut (*scratch).up, pointer(cross, &MOUNT_PARENT) as u64);
            put(&raw mut (*scratch).point, pointer(cross, &MOUNT_POINT) as u64);
        }
        let up = take(&raw const (*scratch).up);
        if up == cross as u64 {
            let home = take(&raw const (*scratch).home) != 0;
            put(&raw mut (*scratch).state, if home { COMPLETE } else { FOREIGN });
            return;
        }
        put(&raw mut (*scratch).dentry, take(&raw const (*scratch).point));
        put(&raw mut (*scratch).mount, up);
        enter_file_system(buffer);
    }
}

/// How a walk ends at a dentry that hangs below no other and is not the file system's root.
#[inline(always)]
fn placeless(dentry: *const u8) -> u64 {
    let superblock = pointer(dentry, &DENTRY_SB);
    let flags: u64 = probed(superblock, &SB_FLAGS);
    // SAFETY: probes take any address.
    if flags & SB_KERNMOUNT != 0 {
        FOREIGN
    } else if unsafe { writes_its_own_way::<Probed>(superblock) } {
        // NFS gives each of its mounts a root of its own; user space knows where that is mounted.
        IN_FILE_SYSTEM
    } else {
        INCOMPLETE
    }
}

/// Appends the name at an address to `text` while there is room for it.
#[inline(always)]
unsafe fn append_name(scratch: *mut Scratch, start: u64, name: *const u8) {
    // SAFETY: the buffer is the caller's, and `used` leaves room for a name.
    unsafe {
        let used = take(&raw const (*scratch).used);
        if used >= TEXT_BYTES_MAX as u64 || used.wrapping_sub(start) >= PATH_BYTES_MAX as u64 {
            put(&raw mut (*scratch).cut, 1);
            return;
        }
        let to = (&raw mut (*scratch).text).cast::<u8>().add(used as usize);
        let got = bpf_probe_read_kernel_str(to.cast(), NAME_BYTES_MAX as u32, name.cast());
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
            advance(buffer, slot, PATH_DEPTH_MAX - 1 - step);
        }
        take(&raw const (*scratch).state) as u32
    }
}

/// Takes the automaton over the component at `at`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn advance(buffer: u32, slot: u32, at: usize) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(buffer) else {
        return 0;
    };
    if at >= PATH_DEPTH_MAX {
        return 0;
    }
    // SAFETY: the buffer is the caller's; `at` is checked.
    unsafe {
        let component = take((&raw const (*scratch).hashes).cast::<u64>().add(at));
        let state = take(&raw const (*scratch).state) as u32;
        // What lies behind the last step is of another walk.
        let walked = (at as u64) < take(&raw const (*scratch).steps);
        if walked && component != 0 && state != STATE_DEAD {
            put(&raw mut (*scratch).state, next(slot, state, component) as u64);
        }
    }
    0
}

/// Reads loop state from the buffer.
#[inline(always)]
pub unsafe fn take(cell: *const u64) -> u64 {
    // SAFETY: the caller's.
    unsafe { cell.read_volatile() }
}

/// Writes loop state to the buffer.
#[inline(always)]
pub unsafe fn put(cell: *mut u64, value: u64) {
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

/// Bits of a remembered word: the set, and above it when it was true.
const SET_BITS: u32 = 16;
/// Bits of the tree's epoch in a stamp.
const EPOCH_BITS: u32 = 24;

/// What has to be the same for a remembered set to be still true: policy and tree.
#[inline(always)]
pub fn stamp(policy: &Policy) -> u64 {
    let epoch = match EPOCH.get(0) {
        Some(epoch) => *epoch & ((1 << EPOCH_BITS) - 1),
        None => 0,
    };
    (policy.generation as u64) << EPOCH_BITS & ((1 << (64 - SET_BITS)) - 1) | epoch
}

/// The set that is remembered for an inode, if it is still true.
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
    (word >> SET_BITS == stamp(policy)).then_some(word as u16 as u32)
}

/// Remembers an inode's set. The stamp is older than the walk that found it.
///
/// # Safety
/// `inode` must be a typed pointer.
#[inline(always)]
pub unsafe fn remember(stamp: u64, inode: *const u8, set: u32) {
    // SAFETY: by contract.
    let cell = unsafe { LABELS.get_or_insert_ptr_mut(inode as *mut inode, None) };
    if !cell.is_null() {
        // SAFETY: not null.
        unsafe { cell.write_volatile(stamp << SET_BITS | set as u64) };
    }
}

/// Forgets an inode's set: it is found afresh at the next open.
///
/// # Safety
/// `inode` must be a typed pointer.
#[inline(always)]
pub unsafe fn forget(inode: *const u8) {
    // SAFETY: by contract.
    let cell = unsafe { LABELS.get_ptr_mut(inode as *mut inode) };
    if !cell.is_null() {
        // SAFETY: not null. No stamp is 0: generations begin at 1.
        unsafe { cell.write_volatile(0) };
    }
}

/// Forgets the sets of all inodes: a directory that labels depend on gets another place.
#[inline(always)]
pub fn forget_all() {
    if let Some(epoch) = EPOCH.get_ptr_mut(0) {
        // SAFETY: map values are 8-byte aligned.
        unsafe { atomic::fetch_add(epoch, 1) };
    }
}
