//! A file system is mounted, by the old mount call or the new ones, or to be unmounted.

use aya_ebpf::{macros::lsm, programs::LsmContext};
use sekimori_abi::{
    event::{counter, kind, operation},
    table::SET_NONE,
};
use sekimori_decide::{Facts, Outcome};

use super::{ALLOWED, REFUSED};
use crate::{
    count::count,
    device::{self, MOUNTING, look_at_device},
    emit::{Buffer, Record},
    judge::Policy,
    maps::{HOST_MOUNTS, SHARES},
    offset::*,
    path::Place,
    read::{Probed, pointer, probed},
};

#[lsm(hook = "sb_kern_mount")]
pub fn sb_kern_mount(ctx: LsmContext) -> i32 {
    let sb: *const u8 = ctx.arg(0);
    // SAFETY: the hook's own argument.
    unsafe { device::notice(sb) };
    // Before the first policy nobody has asked what a file system stands on.
    let Some(policy) = Policy::in_force() else {
        return ALLOWED;
    };
    let Some(buffer) = Buffer::acquire() else {
        count(kind::USB_MOUNT, counter::LOST_SCRATCH);
        return REFUSED;
    };
    look_at_device(buffer.index(), buffer.number_of(sb), MOUNTING);
    buffer.release();
    // SAFETY: probes take any address.
    let Some(device) = (unsafe { device::below::<Probed>(sb) }) else {
        return ALLOWED;
    };
    // SAFETY: map values live as long as the program runs.
    let device = unsafe { &*device };
    if !device.is_removable() {
        return ALLOWED;
    }
    count(kind::USB_MOUNT, counter::SEEN);
    let outcome = if policy.judges(kind::USB_MOUNT, SET_NONE) {
        let facts = Facts { devices: policy.device_groups(device), ..policy.actor() };
        policy.judge(kind::USB_MOUNT, SET_NONE, &facts)
    } else {
        Outcome::default()
    };
    if let Some(mut record) = Record::begin(kind::USB_MOUNT, operation::MOUNT) {
        record.device(device);
        record.send(&policy, outcome);
    }
    if outcome.denies() { REFUSED } else { ALLOWED }
}

/// A file system is gone, and with it the need to look at its writes.
#[lsm(hook = "sb_free_security")]
pub fn share_gone(ctx: LsmContext) -> i32 {
    let sb: *const u8 = ctx.arg(0);
    let _ = SHARES.remove(sb as u64);
    ALLOWED
}

/// Somebody asks to unmount removable media; whether it was busy is not known yet.
#[lsm(hook = "sb_umount")]
pub fn unmount_asked(ctx: LsmContext) -> i32 {
    let vfsmount: *const u8 = ctx.arg(0);
    let root = pointer(vfsmount, &VFSMOUNT_ROOT);
    // SAFETY: probes take any address.
    let Some(device) = (unsafe { device::below::<Probed>(pointer(root, &DENTRY_SB)) }) else {
        return ALLOWED;
    };
    // SAFETY: map values live as long as the program runs.
    let device = unsafe { &*device };
    if !device.is_removable() {
        return ALLOWED;
    }
    let Some(policy) = Policy::in_force() else {
        return ALLOWED;
    };
    // A mount of somebody's own can come and go as they like.
    let mount = vfsmount.wrapping_sub(MOUNT_MNT.get());
    if let Some(home) = HOST_MOUNTS.get_ptr(pointer(root, &DENTRY_SB) as u64) {
        // SAFETY: map values live as long as the program runs.
        if unsafe { (*home).namespace } != probed::<u64>(mount, &MOUNT_NAMESPACE) {
            return ALLOWED;
        }
    }
    if let Some(mut record) = Record::begin(kind::USB_MOUNT, operation::UNMOUNT) {
        record.device(device);
        record.event().generation = policy.generation;
        record.path(Place { mount, dentry: root });
        record.send_unjudged();
    }
    ALLOWED
}
