//! Changes to the tree of a file system on removable media or of a share: names are data too.

use aya_ebpf::{macros::lsm, programs::LsmContext};
use sekimori_abi::{
    event::{Device, counter, operation},
    table::SET_NONE,
};

use super::{ALLOWED, REFUSED, open::judge_write};
use crate::{
    count::count,
    device,
    emit::Record,
    judge::Policy,
    offset::*,
    path::{self, Place},
    read::{Probed, pointer, probed, typed},
};

/// `ATTR_SIZE` (include/linux/fs.h).
const ATTR_SIZE: u32 = 8;
/// Bytes of a symlink's target kept. The name of an attribute is shorter (`XATTR_NAME_MAX`, 255).
const TARGET_BYTES_MAX: u32 = 1024;

/// What changes, and into what.
pub(super) struct Change {
    pub operation: u8,
    pub dentry: *const u8,
    /// rename, link: the new name.
    pub second: Option<*const u8>,
    /// symlink: the target; setxattr, removexattr: the attribute's name.
    pub target: Option<*const u8>,
    pub mode: u32,
    /// setxattr: the size of the value.
    pub bytes: u64,
}

impl Change {
    #[inline(always)]
    pub fn of(operation: u8, dentry: *const u8) -> Self {
        Self { operation, dentry, second: None, target: None, mode: 0, bytes: 0 }
    }
}

#[lsm(hook = "inode_create")]
pub fn inode_create(ctx: LsmContext) -> i32 {
    let mode: u64 = ctx.arg(2);
    let change = Change { mode: mode as u16 as u32, ..Change::of(operation::CREATE, ctx.arg(1)) };
    check(ctx.arg(0), &change)
}

#[lsm(hook = "inode_mkdir")]
pub fn inode_mkdir(ctx: LsmContext) -> i32 {
    check(ctx.arg(0), &Change::of(operation::MKDIR, ctx.arg(1)))
}

#[lsm(hook = "inode_mknod")]
pub fn inode_mknod(ctx: LsmContext) -> i32 {
    check(ctx.arg(0), &Change::of(operation::MKNOD, ctx.arg(1)))
}

#[lsm(hook = "inode_symlink")]
pub fn inode_symlink(ctx: LsmContext) -> i32 {
    let target: *const u8 = ctx.arg(2);
    let change = Change { target: Some(target), ..Change::of(operation::SYMLINK, ctx.arg(1)) };
    check(ctx.arg(0), &change)
}

#[lsm(hook = "inode_link")]
pub fn inode_link(ctx: LsmContext) -> i32 {
    let new: *const u8 = ctx.arg(2);
    check(ctx.arg(1), &Change { second: Some(new), ..Change::of(operation::LINK, ctx.arg(0)) })
}

#[lsm(hook = "inode_unlink")]
pub fn inode_unlink(ctx: LsmContext) -> i32 {
    check(ctx.arg(0), &Change::of(operation::UNLINK, ctx.arg(1)))
}

#[lsm(hook = "inode_rmdir")]
pub fn inode_rmdir(ctx: LsmContext) -> i32 {
    check(ctx.arg(0), &Change::of(operation::RMDIR, ctx.arg(1)))
}

#[lsm(hook = "inode_rename")]
pub fn inode_rename(ctx: LsmContext) -> i32 {
    let new: *const u8 = ctx.arg(3);
    check(ctx.arg(0), &Change { second: Some(new), ..Change::of(operation::RENAME, ctx.arg(1)) })
}

/// `inode_setattr(dentry, attributes)`, up to 6.9.
#[lsm(hook = "inode_setattr")]
pub fn inode_setattr(ctx: LsmContext) -> i32 {
    resized(ctx.arg(0), ctx.arg(1))
}

/// `inode_setattr(idmap, dentry, attributes)`, from 6.10 on. The loader takes the one that fits.
#[lsm(hook = "inode_setattr")]
pub fn inode_setattr_mapped(ctx: LsmContext) -> i32 {
    resized(ctx.arg(1), ctx.arg(2))
}

#[inline(always)]
fn resized(dentry: *const u8, attributes: *const u8) -> i32 {
    if probed::<u32>(attributes, &IATTR_VALID) & ATTR_SIZE == 0 {
        return ALLOWED;
    }
    check(pointer(dentry, &DENTRY_INODE), &Change::of(operation::TRUNCATE, dentry))
}

/// `near` is any inode of the file system that changes.
#[inline(always)]
pub(super) fn check(near: *const u8, change: &Change) -> i32 {
    let Some(policy) = Policy::in_force() else {
        return ALLOWED;
    };
    // SAFETY: probes take any address.
    let Some(device) = (unsafe { device::below::<Probed>(pointer(near, &INODE_SB)) }) else {
        return ALLOWED;
    };
    // SAFETY: map values live as long as the program runs.
    let device: &Device = unsafe { &*device };
    let Some(kind) = device.kind_of_write() else {
        return ALLOWED;
    };
    count(kind, counter::SEEN);
    let outcome = judge_write(&policy, kind, device, known_set(&policy, change));
    if let Some(mut record) = Record::begin(kind, change.operation) {
        describe(&mut record, change);
        record.device(device);
        record.path(Place::of_dentry(change.dentry));
        if let Some(second) = change.second {
            record.second_path(Place::of_dentry(second));
        }
        if let Some(target) = change.target {
            record.kernel_string::<TARGET_BYTES_MAX>(target);
        }
        record.send(&policy, outcome);
    }
    if outcome.denies() { REFUSED } else { ALLOWED }
}

/// What is remembered of the file that changes; a new one carries nothing yet.
#[inline(always)]
fn known_set(policy: &Policy, change: &Change) -> u32 {
    if matches!(
        change.operation,
        operation::UNLINK
            | operation::RENAME
            | operation::LINK
            | operation::SETXATTR
            | operation::REMOVEXATTR
    ) {
        // SAFETY: the dentry is the hook's argument, so the load is typed.
        unsafe {
            let inode: *const u8 = typed(change.dentry, &DENTRY_INODE);
            if !inode.is_null() {
                return path::remembered(policy, inode).unwrap_or(SET_NONE);
            }
        }
    }
    SET_NONE
}

#[inline(always)]
fn describe(record: &mut Record, change: &Change) {
    let inode = pointer(change.dentry, &DENTRY_INODE);
    let event = record.event();
    event.mode = change.mode;
    event.bytes = change.bytes;
    if !inode.is_null() {
        event.inode = probed(inode, &INODE_NUMBER);
        event.mode = probed::<u16>(inode, &INODE_MODE) as u32;
        event.size = probed(inode, &INODE_SIZE);
    }
}
