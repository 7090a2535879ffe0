//! A labelled file, or a directory that labels depend on, gets another name: who may not open it may
//! not carry it out of its place either. Judged and recorded as `file.open`.

use aya_ebpf::{macros::lsm, programs::LsmContext};
use sekimori_abi::{
    event::{kind, operation},
    table::{SET_NONE, SET_UNKNOWN},
};
use sekimori_decide::Outcome;

use super::{ALLOWED, REFUSED};
use crate::{
    emit::{Buffer, Record},
    judge::Policy,
    offset::*,
    path::{self, Place, S_IFDIR, S_IFMT},
    read::{pointer, probed, typed},
};

/// `RENAME_EXCHANGE` (include/uapi/linux/fs.h).
const RENAME_EXCHANGE: u32 = 2;

/// The hooks on inodes see every move, also one that overlayfs makes in its upper layer, and each
/// direction of an exchange. They do not see mounts: where the place of a file depends on the mount
/// it is reached by, the hooks on paths judge.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Hook {
    Inode,
    Path,
}

#[lsm(hook = "inode_rename")]
pub fn rename_labelled(ctx: LsmContext) -> i32 {
    let (old, new) = (Place::of_dentry(ctx.arg(1)), Place::of_dentry(ctx.arg(3)));
    check(Hook::Inode, operation::RENAME, old, new)
}

#[lsm(hook = "inode_link")]
pub fn link_labelled(ctx: LsmContext) -> i32 {
    let (old, new) = (Place::of_dentry(ctx.arg(0)), Place::of_dentry(ctx.arg(2)));
    check(Hook::Inode, operation::LINK, old, new)
}

#[lsm(hook = "path_rename")]
pub fn path_rename(ctx: LsmContext) -> i32 {
    let flags: u64 = ctx.arg(4);
    let old = place_in(ctx.arg(0), ctx.arg(1));
    let new = place_in(ctx.arg(2), ctx.arg(3));
    if flags as u32 & RENAME_EXCHANGE != 0
        && check(Hook::Path, operation::RENAME, new, old) == REFUSED
    {
        return REFUSED;
    }
    check(Hook::Path, operation::RENAME, old, new)
}

#[lsm(hook = "path_link")]
pub fn path_link(ctx: LsmContext) -> i32 {
    let new_directory: *const u8 = ctx.arg(1);
    // A link never crosses mounts: the old name is seen through the new one's.
    let old = place_in(new_directory, ctx.arg(0));
    check(Hook::Path, operation::LINK, old, place_in(new_directory, ctx.arg(2)))
}

/// A dentry as seen through the mount of `directory`, a `struct path`.
#[inline(always)]
fn place_in(directory: *const u8, dentry: *const u8) -> Place {
    Place { dentry, ..Place::of_path(directory) }
}

#[inline(always)]
fn check(hook: Hook, operation: u8, old: Place, new: Place) -> i32 {
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
    let Some(set) = moved_set(&policy, hook, old, new, directory) else {
        return ALLOWED;
    };
    let outcome = if set == SET_NONE || !policy.judges(kind::FILE_OPEN, set) {
        Outcome::default()
    } else {
        policy.judge(kind::FILE_OPEN, set, &policy.actor())
    };
    if operation == operation::RENAME && !outcome.denies() {
        if directory {
            path::forget_all();
        } else {
            // SAFETY: typed, see above.
            unsafe { path::forget(inode) };
        }
    }
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
/// for a directory everything that can lie below it. `None` when labels fall the same there, or when
/// the other hook judges.
#[inline(always)]
fn moved_set(policy: &Policy, hook: Hook, old: Place, new: Place, directory: bool) -> Option<u32> {
    let Some(buffer) = Buffer::acquire() else {
        return Some(SET_UNKNOWN);
    };
    let from = buffer.state_of(policy, old);
    let mut by_mount = buffer.walked_by_own_mount();
    let to = buffer.state_of(policy, new);
    by_mount |= buffer.walked_by_own_mount();
    buffer.release();
    let (Some(from), Some(to)) = (from, to) else {
        // Not known even with a mount; without one, it may be with one.
        return match hook {
            Hook::Path => Some(SET_UNKNOWN),
            Hook::Inode => None,
        };
    };
    if from == to || (hook == Hook::Path && !by_mount) {
        return None;
    }
    let (own, below) = path::sets_of(policy, from);
    Some(if directory { below } else { own })
}
