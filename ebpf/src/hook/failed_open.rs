//! Opens that failed before any file was opened. The kernel's part only sieves: what could lie in a
//! labelled place goes to the agent, which resolves the name and decides whether it is worth a record.

use aya_ebpf::{
    helpers::bpf_get_current_task_btf, macros::fexit, maps::lpm_trie::Key, programs::FExitContext,
};
use core::ptr::null;
use sekimori_abi::{
    event::{flag, kind, operation},
    limits::PATH_BYTES_MAX,
    table::{PLACE_BYTES, PLACE_SLOT_BITS, PlaceKey, STATE_DEAD},
};
use sekimori_decide::Outcome;

use crate::{
    emit::Record,
    judge::Policy,
    maps::PLACES,
    offset::*,
    path::{self, Place},
    read::{pointer, probed, probed_at},
    task,
};

const EPERM: i64 = -1;
const ENOENT: i64 = -2;
const EACCES: i64 = -13;
/// `AT_FDCWD`: relative to the working directory.
const WORKING_DIRECTORY: i32 = -100;

/// `path_openat(nameidata, open_flags, flags)`: every way to open by name (fs/namei.c).
#[fexit(function = "path_openat")]
pub fn failed_open(ctx: FExitContext) -> i32 {
    let errno = ctx.ret::<i64>().unwrap_or(0);
    if errno != EPERM && errno != ENOENT && errno != EACCES {
        return 0;
    }
    let Some(policy) = Policy::in_force() else {
        return 0;
    };
    if !policy.failed_opens
        || !NAMEIDATA_NAME.exists()
        || !NAMEIDATA_DFD.exists()
        || refused_by_us()
    {
        return 0;
    }
    let nameidata: *const u8 = ctx.arg(0);
    let name = pointer(pointer(nameidata, &NAMEIDATA_NAME), &FILENAME_NAME);
    let absolute = probed_at::<u8>(name) == b'/';
    if absolute && !could_match(&policy, name) {
        return 0;
    }
    let Some(mut record) = Record::blank(kind::FILE_OPEN, operation::OPEN) else {
        return 0;
    };
    if !absolute {
        let end = record.second_path_to_judge(directory_of(nameidata));
        let dead = end == path::COMPLETE && record.last_state(&policy) == STATE_DEAD;
        if dead || end == path::FOREIGN {
            return discard(record);
        }
    }
    // SAFETY: the helper answers the current task, typed; the buffer is the record's.
    unsafe {
        let current = bpf_get_current_task_btf() as *const u8;
        task::describe(current, &mut record.event().process);
    }
    record.event().errno = errno as i32;
    record.event().flags |= flag::OPEN_FAILED;
    record.kernel_string::<{ PATH_BYTES_MAX as u32 }>(name);
    record.send(&policy, Outcome::default());
    0
}

#[inline(always)]
fn discard(record: Record) -> i32 {
    record.discard();
    0
}

/// Whether `file_open` has just refused this open; forgets it.
#[inline(always)]
fn refused_by_us() -> bool {
    let note = task::note(false);
    if note.is_null() {
        return false;
    }
    // SAFETY: not null, and only its own task touches it.
    unsafe {
        let refused = (*note).open_refused != 0;
        (*note).open_refused = 0;
        refused
    }
}

/// Whether the name begins with the literal beginning of a labelled pattern.
#[inline(always)]
fn could_match(policy: &Policy, name: *const u8) -> bool {
    let mut key = Key::new(
        PLACE_SLOT_BITS + PLACE_BYTES as u32 * 8,
        PlaceKey { slot: policy.slot.to_be_bytes(), prefix: [0; PLACE_BYTES] },
    );
    // SAFETY: the buffer is PLACE_BYTES bytes.
    unsafe {
        aya_ebpf::helpers::generated::bpf_probe_read_kernel_str(
            key.data.prefix.as_mut_ptr().cast(),
            PLACE_BYTES as u32,
            name.cast(),
        );
    }
    PLACES.get(&key).is_some()
}

/// The directory a relative name starts from: a descriptor's, or the working directory.
#[inline(always)]
fn directory_of(nameidata: *const u8) -> Place {
    // SAFETY: the helper answers the current task.
    let current = unsafe { bpf_get_current_task_btf() } as *const u8;
    let fd: i32 = probed(nameidata, &NAMEIDATA_DFD);
    if fd == WORKING_DIRECTORY {
        return Place::of_path(pointer(current, &TASK_FS).wrapping_add(FS_PWD.get()));
    }
    // A negative one is larger than any table.
    let file = task::file_of(current as u64, fd as u32);
    if file.is_null() { Place::of_dentry(null()) } else { Place::of_file(file) }
}
