//! Extended attributes and access control lists on removable media: both can carry data past the
//! content of a file. The hooks are asked for what a system call, or an overlay on behalf of one,
//! wants to set; what security modules write by themselves does not come by.

use aya_ebpf::{macros::lsm, programs::LsmContext};
use sekimori_abi::event::operation;

use super::tree::{Change, check};
use crate::{
    offset::*,
    read::{pointer, probed},
};

/// Bytes of a list and of each of its entries as they are stored
/// (include/uapi/linux/posix_acl_xattr.h).
const ACL_HEADER_BYTES: u64 = 4;
const ACL_ENTRY_BYTES: u64 = 8;

/// `inode_setxattr(namespace or idmap, dentry, name, value, size, flags)`.
#[lsm(hook = "inode_setxattr")]
pub fn inode_setxattr(ctx: LsmContext) -> i32 {
    set(ctx.arg(1), ctx.arg(2), ctx.arg(4))
}

/// `inode_set_acl(idmap, dentry, name, list)`, from 6.2 on; before, lists come as attributes.
#[lsm(hook = "inode_set_acl")]
pub fn inode_set_acl(ctx: LsmContext) -> i32 {
    let list: *const u8 = ctx.arg(3);
    let entries: u32 =
        if ACL_COUNT.exists() && !list.is_null() { probed(list, &ACL_COUNT) } else { 0 };
    let bytes = ACL_HEADER_BYTES + ACL_ENTRY_BYTES * entries as u64;
    set(ctx.arg(1), ctx.arg(2), bytes)
}

/// `inode_removexattr(namespace or idmap, dentry, name)`.
#[lsm(hook = "inode_removexattr")]
pub fn inode_removexattr(ctx: LsmContext) -> i32 {
    removed(ctx.arg(1), ctx.arg(2))
}

/// `inode_remove_acl(idmap, dentry, name)`, from 6.2 on.
#[lsm(hook = "inode_remove_acl")]
pub fn inode_remove_acl(ctx: LsmContext) -> i32 {
    removed(ctx.arg(1), ctx.arg(2))
}

#[inline(always)]
fn set(dentry: *const u8, name: *const u8, bytes: u64) -> i32 {
    let change = Change { target: Some(name), bytes, ..Change::of(operation::SETXATTR, dentry) };
    check(pointer(dentry, &DENTRY_INODE), &change)
}

#[inline(always)]
fn removed(dentry: *const u8, name: *const u8) -> i32 {
    let change = Change { target: Some(name), ..Change::of(operation::REMOVEXATTR, dentry) };
    check(pointer(dentry, &DENTRY_INODE), &change)
}
