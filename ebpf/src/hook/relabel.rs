//! A labelled file, or a directory that labels depend on, gets another name: who may not open it may
//! not carry it out of its place either. Judged and recorded as `file.open`.

use aya_ebpf::{macros::lsm, programs::LsmContext};
use sekimori_abi::{
    event::{kind, operation},
    table::{SET_NONE, SET_UNKNOWN},
};

use super::{ALLOWED, REFUSED};
use crate::{
    emit::{Buffer, Record},
    judge::Policy,
    offset::*,
    path::{self, Place, S_IFDIR, S_IFMT},
    read::{pointer, probed, typed},
};

#[lsm(hook = "path_rename")]
pub fn path_rename(ctx: LsmContext) -> i32 {
    let directory: *const u8 = ctx.arg(0);
    let dentry: *const u8 = ctx.arg(1);
    let new_directory: *const u8 = ctx.arg(2);
    let new: *const u8 = ctx.arg(3);
    check(operation::RENAME, place_in(directory, dentry), place_in(new_directory, new))
}

#[lsm(hook = "path_link")]
pub fn path_link(ctx: LsmContext) -> i32 {
    let old: *const u8 = ctx.arg(0);
    let new_directory: *const u8 = ctx.arg(1);
    let new: *const u8 = ctx.arg(2);
    // A link never crosses mounts: the old name is seen through the new one's.
    check(operation::LINK, place_in(new_directory, old), place_in(new_directory, new))
}

/// A dentry as seen through the mount of `directory`, a `struct path`.
#[inline(always)]
fn place_in(directory: *const u8, dentry: *const u8) -> Place {
    Place { dentry, ..Place::of_path(directory) }
}

#[inline(always)]
fn check(operation: u8, old: Place, new: Place) -> i32 {
    let Some(policy) = Policy::in_force() else {
        return ALLOWED;
    };
    // SAFETY: the dentry is the hook's argument, so the load is typed.
    let inode: *const u8 = unsafe { typed(old.dentry, &DENTRY_INODE) };
    if inode.is_null() {
        return ALLOWED;
    }
    let mode = probed::<u16>(inode, &INODE_MODE);
    let directory = mode & S_IFMT == S_IFDIR;
    let Some(set) = moved_set(&policy, old, new, directory) else {
        return ALLOWED;
    };
    if operation == operation::RENAME {
        if directory {
            path::forget_all();
        } else {
            // SAFETY: typed, see above.
            unsafe { path::forget(inode) };
        }
    }
    if set == SET_NONE || !policy.judges(kind::FILE_OPEN, set) {
        return ALLOWED;
    }
    let outcome = policy.judge(kind::FILE_OPEN, set, &policy.actor());
    if outcome.action == 0 {
        return ALLOWED;
    }
    if let Some(mut record) = Record::begin(kind::FILE_OPEN, operation) {
        let event = record.event();
        event.inode = probed(inode, &INODE_NUMBER);
        event.mode = mode as u32;
        event.size = probed(inode, &INODE_SIZE);
        event.device.dev = probed(pointer(inode, &INODE_SB), &SB_DEV);
        record.path(old);
        record.second_path(new);
        record.send(&policy, outcome);
    }
    if outcome.denies() { REFUSED } else { ALLOWED }
}

/// Set of what the move would carry to a place where labels fall differently: the file's own, or
/// for a directory everything that can lie below it. `None` when labels fall the same there.
#[inline(always)]
fn moved_set(policy: &Policy, old: Place, new: Place, directory: bool) -> Option<u32> {
    let Some(buffer) = Buffer::acquire() else {
        return Some(SET_UNKNOWN);
    };
    let from = buffer.state_of(policy, old);
    let to = buffer.state_of(policy, new);
    buffer.release();
    let (Some(from), Some(to)) = (from, to) else {
        return Some(SET_UNKNOWN);
    };
    if from == to {
        return None;
    }
    let (own, below) = path::sets_of(policy, from);
    Some(if directory { below } else { own })
}
