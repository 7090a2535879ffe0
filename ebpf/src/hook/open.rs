//! `file_open`: every open that reaches a file system, whatever system call or ring it came by.

use aya_ebpf::{macros::lsm, programs::LsmContext};
use sekimori_abi::event::{Device, counter, flag, kind, operation};
use sekimori_decide::{Facts, Outcome};

use super::{
    ALLOWED, REFUSED, guard,
    write::{begin_sum, watches},
};
use crate::{
    count::count,
    device,
    emit::Record,
    judge::Policy,
    offset::*,
    path::{S_IFCHR, S_IFMT, S_IFREG},
    read::{Read, Typed, typed},
    task,
};

/// `FMODE_WRITE` (include/linux/fs.h).
pub const FMODE_WRITE: u32 = 2;

#[lsm(hook = "file_open")]
pub fn file_open(ctx: LsmContext) -> i32 {
    let Some(policy) = Policy::in_force() else {
        return ALLOWED;
    };
    let file: *const u8 = ctx.arg(0);
    count(kind::FILE_OPEN, counter::SEEN);
    // SAFETY: the hook's own argument.
    unsafe {
        let set = policy.set_of_file(file);
        if policy.judges(kind::FILE_OPEN, set) && open_labelled(&policy, file, set) == REFUSED {
            return refuse();
        }
        let mode: u32 = typed(file, &FILE_MODE);
        if mode & FMODE_WRITE != 0
            && (open_for_write(&policy, file, set) == REFUSED || guard::written(file) == REFUSED)
        {
            return refuse();
        }
    }
    ALLOWED
}

/// An open of a file that some rule speaks of.
#[inline(always)]
unsafe fn open_labelled(policy: &Policy, file: *const u8, set: u32) -> i32 {
    let outcome = policy.judge(kind::FILE_OPEN, set, &policy.actor());
    if outcome.action == 0 {
        return ALLOWED;
    }
    if let Some(mut record) = Record::begin(kind::FILE_OPEN, operation::OPEN) {
        // SAFETY: the hook's own argument.
        unsafe {
            describe_file::<Typed>(&mut record, file);
            describe_device(&mut record, file);
            record.path_of_opened(file);
        }
        record.send(policy, outcome);
    }
    if outcome.denies() { REFUSED } else { ALLOWED }
}

/// Marks the task, so that the failure of this very open is not recorded a second time.
#[inline(always)]
fn refuse() -> i32 {
    let note = task::note(true);
    if !note.is_null() {
        // SAFETY: not null.
        unsafe { (*note).open_refused = 1 };
    }
    REFUSED
}

/// An open for write on removable media or a share: of a file, or of the device's own node.
#[inline(always)]
unsafe fn open_for_write(policy: &Policy, file: *const u8, set: u32) -> i32 {
    // SAFETY: typed loads from the hook's argument; `below` is given a superblock.
    unsafe {
        let inode: *const u8 = typed(file, &FILE_INODE);
        let Some(device) = device::of_opened::<Typed>(inode) else {
            return ALLOWED;
        };
        let Some(kind) = (*device).kind_of_write() else {
            return ALLOWED;
        };
        let file_type = typed::<u16>(inode, &INODE_MODE) & S_IFMT;
        // Pipes and nodes on a share lead nowhere but to this machine.
        if kind == kind::SHARE_WRITE && file_type != S_IFREG {
            return ALLOWED;
        }
        device::notice(typed(inode, &INODE_SB));
        count(kind, counter::SEEN);
        let outcome = judge_write(policy, kind, &*device, set);
        if let Some(mut record) = Record::begin(kind, operation::OPEN) {
            describe_file::<Typed>(&mut record, file);
            record.device(&*device);
            record.path_of_opened(file);
            // What goes through a character device is no write that could be summed.
            if !outcome.denies() && file_type != S_IFCHR && watches(kind) {
                begin_sum(&mut record, file, kind, 0);
            }
            record.send(policy, outcome);
        }
        if outcome.denies() { REFUSED } else { ALLOWED }
    }
}

/// Asks the rules for writes of this kind.
#[inline(always)]
pub fn judge_write(policy: &Policy, kind: u8, device: &Device, set: u32) -> Outcome {
    if !policy.judges(kind, set) {
        return Outcome::default();
    }
    let facts = Facts { devices: policy.device_groups(device), ..policy.actor() };
    policy.judge(kind, set, &facts)
}

/// Writes down what the file lies on.
///
/// # Safety
/// `file` must be a typed pointer.
#[inline(always)]
pub unsafe fn describe_device(record: &mut Record, file: *const u8) {
    // SAFETY: by contract; map values live as long as the program runs.
    unsafe {
        let inode: *const u8 = typed(file, &FILE_INODE);
        if let Some(device) = device::of_opened::<Typed>(inode) {
            record.device(&*device);
        }
    }
}

/// Writes down which file it is.
///
/// # Safety
/// That of `R` for `file`.
#[inline(always)]
pub unsafe fn describe_file<R: Read>(record: &mut Record, file: *const u8) {
    let event = record.event();
    // SAFETY: by contract; what is reached from a typed pointer is typed.
    unsafe {
        let inode = R::field::<u64>(file, &FILE_INODE) as *const u8;
        let sb = R::field::<u64>(inode, &INODE_SB) as *const u8;
        event.inode = R::field(inode, &INODE_NUMBER);
        event.mode = R::field::<u16>(inode, &INODE_MODE) as u32;
        event.size = R::field(inode, &INODE_SIZE);
        event.open_flags = R::field(file, &FILE_FLAGS);
        event.device.dev = R::field(sb, &SB_DEV);
        if R::field::<u32>(inode, &INODE_LINKS) == 0 {
            event.flags |= flag::UNLINKED;
        }
    }
}
