//! Where a file system belongs in the host's tree: the oldest mount that shows all of it, of those
//! in the host's own mount namespace if there are any. Bind mounts, mount namespaces and containers
//! add younger ones, which give a file other names but not another place. (devtmpfs has an older one
//! in a namespace of the kernel's.)

use sekimori_abi::limits::{MOUNT_STEPS_MAX, MOUNTS_PER_STEP};

use crate::{
    maps::{HOST_MOUNTS, HOST_ROOT, HostMount, PLAIN, PLAIN_MOUNTS, PlainMount, SCRATCH, Scratch},
    offset::*,
    path::{put, take},
    read::{pointer, probed, probed_at},
};

/// Result of `host_mount` when the list was too long to be looked through.
pub const TOO_MANY: u64 = 1;
/// Mounts that a mount may hang below, one in the other, for its paths to be asked of the kernel.
const PLAIN_MOUNTS_DEEP_MAX: usize = 8;
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
        let root = pointer(superblock as *const u8, &SB_ROOT);
        put(&raw mut (*scratch).whole, root as u64);
        put(&raw mut (*scratch).traits, 0);
        if let Some(known) = HOST_MOUNTS.get(superblock) {
            let HostMount { mount, namespace, traits } = *known;
            if traits & PLAIN != 0 && stands(scratch, superblock, mount, namespace) {
                put(&raw mut (*scratch).traits, traits);
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

/// Whether the mount in the buffer's `mount`, and each that it hangs below, is the one by which its
/// file system belongs to the host's tree, up to the host's root: then the kernel's own words for a
/// path are the host's. Answers the address of the root's mount, and leaves that of the root's
/// dentry in `whole`; 0 when it is not so, or when nothing is remembered of one of them.
///
/// The answer is remembered until something is mounted or unmounted in the namespace (`event`, which
/// `touch_mnt_namespace` raises, fs/namespace.c).
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn root_of_plain_mounts(buffer: u32) -> u64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(buffer) else {
        return 0;
    };
    // SAFETY: the buffer is the caller's; a remembered value is read at once.
    unsafe {
        let mount = take(&raw const (*scratch).mount);
        let namespace = pointer(mount as *const u8, &MOUNT_NAMESPACE);
        let event: u64 =
            if NAMESPACE_EVENT.exists() { probed(namespace, &NAMESPACE_EVENT) } else { 0 };
        let known = if event == 0 { None } else { PLAIN_MOUNTS.get(mount) };
        if let Some(known) = known
            && known.event == event
            && known.namespace == namespace as u64
        {
            put(&raw mut (*scratch).whole, known.root);
            return known.root_mount;
        }
        let root_mount = climb_plain_mounts(buffer);
        if root_mount != 0 {
            let root = take(&raw const (*scratch).whole);
            let known = PlainMount { namespace: namespace as u64, event, root_mount, root };
            let _ = PLAIN_MOUNTS.insert(mount, known, 0);
        }
        root_mount
    }
}

/// The same, found out.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn climb_plain_mounts(buffer: u32) -> u64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(buffer) else {
        return 0;
    };
    for _ in 0..PLAIN_MOUNTS_DEEP_MAX {
        // SAFETY: the buffer is the caller's.
        unsafe {
            let mount = take(&raw const (*scratch).mount);
            let own = (mount as *const u8).wrapping_add(MOUNT_MNT.get());
            let superblock = pointer(own, &VFSMOUNT_SB);
            let Some(known) = HOST_MOUNTS.get(superblock as u64) else {
                return 0;
            };
            let HostMount { mount: host, namespace, traits } = *known;
            put(&raw mut (*scratch).whole, pointer(superblock, &SB_ROOT) as u64);
            if traits & PLAIN == 0
                || host != mount
                || !stands(scratch, superblock as u64, mount, namespace)
            {
                return 0;
            }
            if traits & HOST_ROOT != 0 {
                return mount;
            }
            put(&raw mut (*scratch).mount, take(&raw const (*scratch).up));
        }
    }
    0
}

/// Whether a remembered mount still stands where it stood and shows the root in `whole`. Leaves what it
/// hangs below, and where. The namespace of process 1 lives as long as process 1, so its address
/// alone tells it.
#[inline(always)]
unsafe fn stands(scratch: *mut Scratch, superblock: u64, mount: u64, namespace: u64) -> bool {
    let mount = mount as *const u8;
    let [parent, point, root, shown] = fields_of(mount);
    // SAFETY: the caller's.
    unsafe {
        put(&raw mut (*scratch).up, parent);
        put(&raw mut (*scratch).point, point);
        shown == superblock
            && root == take(&raw const (*scratch).whole)
            && pointer(mount, &MOUNT_NAMESPACE) as u64 == namespace
    }
}

/// `mnt_parent`, `mnt_mountpoint`, `mnt.mnt_root` and `mnt.mnt_sb` of a `struct mount`. They have always
/// stood side by side, so one read gets them; where they do not, four do.
#[inline(always)]
fn fields_of(mount: *const u8) -> [u64; 4] {
    let (first, own) = (MOUNT_PARENT.get(), MOUNT_MNT.get());
    if MOUNT_POINT.get() == first + 8
        && own + VFSMOUNT_ROOT.get() == first + 16
        && own + VFSMOUNT_SB.get() == first + 24
    {
        return probed(mount, &MOUNT_PARENT);
    }
    let own = mount.wrapping_add(own);
    [
        probed(mount, &MOUNT_PARENT),
        probed(mount, &MOUNT_POINT),
        probed(own, &VFSMOUNT_ROOT),
        probed(own, &VFSMOUNT_SB),
    ]
}

/// What never changes of a mount and its file system.
#[inline(always)]
fn traits(superblock: *const u8, namespace: u64) -> u64 {
    let users = pointer(superblock, &SB_USER_NAMESPACE);
    if !is_home(namespace) || !pointer(users, &USER_NAMESPACE_PARENT).is_null() {
        return 0;
    }
    let root = probed::<u32>(superblock, &SB_DEV) as usize == ROOT_DEVICE.get();
    if root { PLAIN | HOST_ROOT } else { PLAIN }
}

#[inline(always)]
unsafe fn remember(scratch: *mut Scratch, superblock: u64) -> u64 {
    // SAFETY: the caller's.
    unsafe {
        let mount = take(&raw const (*scratch).found);
        if mount != 0 {
            let namespace = pointer(mount as *const u8, &MOUNT_NAMESPACE) as u64;
            let traits = traits(superblock as *const u8, namespace);
            let _ = HOST_MOUNTS.insert(superblock, HostMount { mount, namespace, traits }, 0);
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
