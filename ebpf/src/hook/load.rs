//! Files that are loaded to be executed without being launched: by the dynamic loader, or by whoever
//! maps them. Rules on `exec` that name such a file are asked; of all others there is no record.

use aya_ebpf::{helpers::bpf_get_current_task_btf, macros::lsm, programs::LsmContext};
use sekimori_abi::event::{counter, kind, operation};
use sekimori_decide::Facts;

use super::{
    ALLOWED, REFUSED,
    open::{describe_device, describe_file},
};
use crate::{
    count::count,
    emit::Record,
    judge::Policy,
    offset::*,
    path::{Place, SB_KERNMOUNT},
    read::{Typed, pointer, probed, typed},
};

/// `PROT_EXEC` (include/uapi/asm-generic/mman-common.h).
const PROT_EXEC: u64 = 4;
/// `MNT_NS_INTERNAL` (fs/mount.h), which is no namespace: `-EINVAL`.
const INTERNAL: u64 = -22i64 as u64;

/// `mmap_file(file, requested protection, protection, flags)`
#[lsm(hook = "mmap_file")]
pub fn file_mapped(ctx: LsmContext) -> i32 {
    let file: *const u8 = ctx.arg(0);
    let protection: u64 = ctx.arg(2);
    if protection & PROT_EXEC == 0 || file.is_null() {
        return ALLOWED;
    }
    // Memory without a file is mapped this way, too. Where the verifier takes the file for always
    // there (before 6.13), it drops the test above, but not this one.
    if probed::<u64>(file, &FILE_INODE) == 0 {
        return ALLOWED;
    }
    // SAFETY: the hook's own argument, which is not null.
    unsafe { load(file) }
}

/// `file_mprotect(mapping, requested protection, protection)`
#[lsm(hook = "file_mprotect")]
pub fn mapping_made_executable(ctx: LsmContext) -> i32 {
    let mapping: *const u8 = ctx.arg(0);
    let protection: u64 = ctx.arg(2);
    if protection & PROT_EXEC == 0 {
        return ALLOWED;
    }
    // SAFETY: typed loads from the hook's own argument.
    unsafe {
        let file: *const u8 = typed(mapping, &VMA_FILE);
        if file.is_null() { ALLOWED } else { load(file) }
    }
}

/// # Safety
/// `file` must be a typed pointer.
#[inline(always)]
unsafe fn load(file: *const u8) -> i32 {
    let Some(policy) = Policy::in_force() else {
        return ALLOWED;
    };
    if !policy.judges_loads || is_launching() {
        return ALLOWED;
    }
    // SAFETY: by contract.
    unsafe {
        let above = place_above(file);
        let set = match above {
            Some(place) => policy.set_of_place(place),
            None => policy.set_of_file(file),
        };
        if !policy.judges_load(set) {
            return ALLOWED;
        }
        count(kind::EXEC, counter::SEEN);
        let facts = Facts { programs: policy.programs_of(set), ..policy.actor() };
        let outcome = policy.judge(kind::EXEC, set, &facts);
        if outcome.action == 0 {
            return ALLOWED;
        }
        if let Some(mut record) = Record::begin(kind::EXEC, operation::LOAD) {
            describe_file::<Typed>(&mut record, file);
            describe_device(&mut record, file);
            record.path(match above {
                Some(place) => place,
                None => Place::of_file(file),
            });
            record.send(&policy, outcome);
        }
        if outcome.denies() { REFUSED } else { ALLOWED }
    }
}

/// Whether the kernel is still putting a new program into place: what it maps then is the program,
/// which was judged, and the loader that it asks for. The start of its code is written down last
/// (`load_elf_binary`, fs/binfmt_elf.c), and nobody can make it 0 again.
#[inline(always)]
fn is_launching() -> bool {
    // SAFETY: typed loads from the current task; kernel threads have no mm, and load nothing.
    unsafe {
        let current = bpf_get_current_task_btf() as *const u8;
        let mm: *const u8 = typed(current, &TASK_MM);
        mm.is_null() || typed::<u64>(mm, &MM_START_CODE) == 0
    }
}

/// A mapping of a file on an overlay holds the file below. Where it was opened: from 6.8 on that
/// stands beside such a file, before it is the file's own path. `None` for every other file.
#[inline(always)]
unsafe fn place_above(file: *const u8) -> Option<Place> {
    // SAFETY: by contract.
    let inode: *const u8 = unsafe { typed(file, &FILE_INODE) };
    let place = Place::of_file(file);
    if pointer(place.dentry, &DENTRY_INODE) != inode {
        return Some(place);
    }
    // An overlay opens it through a mount of its own, of a file system that is everybody's. (The bit
    // that says it, FMODE_BACKING, is another one on each kernel.)
    if !BACKING_USER_PATH.exists()
        || probed::<u64>(place.mount, &MOUNT_NAMESPACE) != INTERNAL
        || probed::<u64>(pointer(place.dentry, &DENTRY_SB), &SB_FLAGS) & SB_KERNMOUNT != 0
    {
        return None;
    }
    Some(Place::of_path(file.wrapping_add(BACKING_USER_PATH.get())))
}
