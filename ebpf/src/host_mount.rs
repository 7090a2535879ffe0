//! Where a file system belongs in the host's tree: the oldest mount that shows all of it, of those
//! in the host's own mount namespace if there are any. Bind mounts, mount namespaces and containers
//! add younger ones, which give a file other names but not another place. (devtmpfs has an older one
//! in a namespace of the kernel's.)

use sekimori_abi::limits::{MOUNT_STEPS_MAX, MOUNTS_PER_STEP};

use crate::{
    maps::{HOST_MOUNTS, HostMount, SCRATCH, Scratch},
    offset::*,
    path::{put, take},
    read::{pointer, probed, probed_at},
};

/// Result of `host_mount` when the list was too long to be looked through.
pub const TOO_MANY: u64 = 1;
/// Highest addresses stand for errors (`MAX_ERRNO`, include/linux/err.h); so does the namespace of
/// the kernel's own mounts.
const LAST_ADDRESS: u64 = -4096i64 as u64;

/// Address of the host mount of the superblock in the buffer's `superblock`; 0 when no mount shows
/// the whole file system, [`TOO_MANY`] when that could not be found out.
///
/// The answer is remembered and checked before it is believed: the mount still stands in the same
/// namespace and still shows the same root.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn host_mount(buffer: u32) -> u64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(buffer) else {
        return TOO_MANY;
    };
    // SAFETY: the buffer is the caller's; a remembered value is read at once.
    unsafe {
        let superblock = take(&raw const (*scratch).superblock);
        put(&raw mut (*scratch).whole, pointer(superblock as *const u8, &SB_ROOT) as u64);
        if let Some(known) = HOST_MOUNTS.get(superblock) {
            let (mount, namespace) = (known.mount, known.namespace);
            if shows_all(scratch, mount as *const u8) == namespace && is_home(namespace) {
                return mount;
            }
        }
        put(&raw mut (*scratch).found, 0);
        put(&raw mut (*scratch).found_home, 0);
        put(&raw mut (*scratch).next_mount, first(superblock as *const u8));
        for _ in 0..MOUNT_STEPS_MAX {
            if look_at_some(buffer) == 0 {
                return remember(scratch, superblock);
            }
        }
        TOO_MANY
    }
}

#[inline(always)]
unsafe fn remember(scratch: *mut Scratch, superblock: u64) -> u64 {
    // SAFETY: the caller's.
    unsafe {
        let mount = take(&raw const (*scratch).found);
        if mount != 0 {
            let namespace = pointer(mount as *const u8, &MOUNT_NAMESPACE) as u64;
            let _ = HOST_MOUNTS.insert(superblock, HostMount { mount, namespace }, 0);
        }
        mount
    }
}

/// Looks at the next `MOUNTS_PER_STEP` mounts; answers 0 when there is no more to be looked at.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn look_at_some(buffer: u32) -> u32 {
    for _ in 0..MOUNTS_PER_STEP {
        if look_at_one(buffer) == 0 {
            return 0;
        }
    }
    1
}

/// Looks at the next mount; answers 0 when there is no more to be looked at.
///
/// Up to 6.17 a superblock's mounts are a list with the oldest in front, so the first that fits is
/// it; since then they are a chain with the youngest in front, so the last one is (fs/namespace.c).
/// One in the host's namespace is preferred.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn look_at_one(buffer: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(buffer) else {
        return 0;
    };
    // SAFETY: the buffer is the caller's.
    unsafe {
        let at = take(&raw const (*scratch).next_mount);
        if MOUNT_INSTANCE.exists() {
            let head = take(&raw const (*scratch).superblock) + SB_MOUNTS.get() as u64;
            if at == head || at == 0 {
                return 0;
            }
            put(&raw mut (*scratch).next_mount, probed_at(at as *const u8));
            let mount = at.wrapping_sub(MOUNT_INSTANCE.get() as u64);
            let namespace = shows_all(scratch, mount as *const u8);
            if namespace != 0 {
                let home = is_home(namespace);
                if home || take(&raw const (*scratch).found) == 0 {
                    put(&raw mut (*scratch).found, mount);
                }
                if home {
                    return 0;
                }
            }
        } else {
            if at == 0 {
                return 0;
            }
            let namespace = shows_all(scratch, at as *const u8);
            if namespace != 0 {
                let home = is_home(namespace);
                if home || take(&raw const (*scratch).found_home) == 0 {
                    put(&raw mut (*scratch).found, at);
                }
                if home {
                    put(&raw mut (*scratch).found_home, 1);
                }
            }
            put(&raw mut (*scratch).next_mount, pointer(at as *const u8, &MOUNT_NEXT) as u64);
        }
    }
    1
}

/// Whether this is the mount namespace of process 1.
#[inline(always)]
fn is_home(namespace: u64) -> bool {
    let common = (namespace as *const u8).wrapping_add(NAMESPACE_COMMON.get());
    probed::<u32>(common, &COMMON_NUMBER) as usize == HOST_NAMESPACE.get()
}

/// The first entry of a superblock's mounts.
#[inline(always)]
fn first(superblock: *const u8) -> u64 {
    pointer(superblock, &SB_MOUNTS) as u64
}

/// The namespace of a mount that stands in one and shows the file system's root; else 0.
#[inline(always)]
unsafe fn shows_all(scratch: *mut Scratch, mount: *const u8) -> u64 {
    // SAFETY: the caller's.
    let whole = unsafe { take(&raw const (*scratch).whole) };
    let root = pointer(mount.wrapping_add(MOUNT_MNT.get()), &VFSMOUNT_ROOT) as u64;
    if root == 0 || root != whole {
        return 0;
    }
    let namespace = pointer(mount, &MOUNT_NAMESPACE) as u64;
    if namespace > LAST_ADDRESS { 0 } else { namespace }
}
