//! Bytes written to removable media and shares, summed per open file: a record at the first write
//! and one with the totals at the close, none in between.
//!
//! The programs here stand within file systems and see each write of those that use the kernel's
//! common ways. What goes to shares is seen above the file systems (`share.rs`).

use aya_ebpf::{
    macros::{fentry, fexit, lsm},
    programs::{FEntryContext, FExitContext, LsmContext},
};
use sekimori_abi::event::{counter, flag, kind, operation};
use sekimori_decide::Outcome;

use super::{open::describe_file, source};
use crate::{
    count::{add, count},
    device::{self, writes_its_own_way},
    emit::Record,
    judge::Policy,
    maps::{FILES, FileSum, SHARES_WATCHED},
    offset::*,
    path::Place,
    read::{Probed, Read, Typed, copy, pointer, probed, probed_at, typed},
};

/// Buffered writes by whatever way: write, writev, AIO, io_uring, splice, sendfile,
/// copy_file_range (mm/filemap.c).
#[fexit(function = "generic_perform_write")]
pub fn buffered_write(ctx: FExitContext) -> i32 {
    // SAFETY: a typed load from the function's own argument.
    unsafe { sum_within(typed(ctx.arg(0), &KIOCB_FILE), written(&ctx)) }
}

/// Direct writes of vfat and exfat.
#[fexit(function = "generic_file_direct_write")]
pub fn direct_write(ctx: FExitContext) -> i32 {
    // SAFETY: a typed load from the function's own argument.
    unsafe { sum_within(typed(ctx.arg(0), &KIOCB_FILE), written(&ctx)) }
}

/// Buffered writes of file systems on iomap.
#[fexit(function = "iomap_file_buffered_write")]
pub fn iomap_write(ctx: FExitContext) -> i32 {
    // SAFETY: a typed load from the function's own argument.
    unsafe { sum_within(typed(ctx.arg(0), &KIOCB_FILE), written(&ctx)) }
}

/// `O_DIRECT` (include/uapi/asm-generic/fcntl.h).
const O_DIRECT: u32 = 0o40_000;

/// Buffered writes of btrfs, which has a loop of its own: nothing of the kernel's own sees how many
/// bytes it copied, so what was asked for counts (mm/filemap.c, fs/read_write.c).
#[fexit(function = "generic_write_checks")]
pub fn btrfs_write(ctx: FExitContext) -> i32 {
    // SAFETY: typed loads from the function's own argument.
    unsafe {
        let file: *const u8 = typed(ctx.arg(0), &KIOCB_FILE);
        let inode: *const u8 = typed(file, &FILE_INODE);
        let sb: *const u8 = typed(inode, &INODE_SB);
        if typed::<u64>(sb, &SB_MAGIC) != device::BTRFS_MAGIC
            || typed::<u32>(file, &FILE_FLAGS) & O_DIRECT != 0
        {
            return 0;
        }
        sum::<Typed>(file, written(&ctx))
    }
}

/// `REMAP_FILE_DEDUP` (include/linux/fs.h): blocks that are the same already become one.
const REMAP_FILE_DEDUP: u32 = 1;

/// A file gets blocks of another one: FICLONE, FICLONERANGE, and copy_file_range where the file
/// system does it so (fs/remap_range.c). The length is final here, and what can still go wrong is
/// rare.
#[fexit(function = "generic_remap_file_range_prep")]
pub fn blocks_shared(ctx: FExitContext) -> i32 {
    let flags: u64 = ctx.arg(5);
    if ctx.ret::<i32>().unwrap_or(-1) < 0 || flags as u32 & REMAP_FILE_DEDUP != 0 {
        return 0;
    }
    let bytes: i64 = probed_at(ctx.arg(4));
    // SAFETY: the function's own argument.
    unsafe { sum_within(ctx.arg(2), bytes) }
}

/// `IOMAP_DIO_WRITE` (fs/iomap/direct-io.c, the same from 4.18 to 7.3).
const IOMAP_DIO_WRITE: u32 = 1 << 30;

/// Direct writes of file systems on iomap, ext4 among them, however they were submitted.
#[fentry(function = "iomap_dio_complete")]
pub fn iomap_direct_write(ctx: FEntryContext) -> i32 {
    let dio: *const u8 = ctx.arg(0);
    let writes = DIO_FLAGS.exists() && probed::<u32>(dio, &DIO_FLAGS) & IOMAP_DIO_WRITE != 0;
    if !writes || probed::<i32>(dio, &DIO_ERROR) != 0 {
        return 0;
    }
    // SAFETY: typed loads from the function's own argument.
    unsafe {
        let kiocb: *const u8 = typed(dio, &DIO_KIOCB);
        sum_within(typed(kiocb, &KIOCB_FILE), probed(dio, &DIO_SIZE))
    }
}

/// What the function answered: bytes that were written, or a negative errno.
#[inline(always)]
pub fn written(ctx: &FExitContext) -> i64 {
    ctx.ret::<i64>().unwrap_or(0)
}

/// What lies below is asked first, so that the file of another disk costs one look-up.
///
/// # Safety
/// `file` must be a typed pointer.
#[inline(always)]
unsafe fn sum_within(file: *const u8, bytes: i64) -> i32 {
    // SAFETY: by contract; what is reached from a typed pointer is typed. Map values live as long as
    // the program runs.
    unsafe {
        let inode: *const u8 = typed(file, &FILE_INODE);
        let Some(device) = device::of_opened::<Typed>(inode) else {
            return 0;
        };
        if !(*device).is_removable() || writes_its_own_way::<Typed>(typed(inode, &INODE_SB)) {
            return 0;
        }
        sum::<Typed>(file, bytes)
    }
}

/// Adds to the sum over an open file.
///
/// # Safety
/// That of `R` for `file`.
#[inline(always)]
pub unsafe fn sum<R: Read>(file: *const u8, bytes: i64) -> i32 {
    if bytes <= 0 {
        return 0;
    }
    // SAFETY: by contract; map values live as long as the program runs.
    unsafe {
        let known = known::<R>(file).or_else(|| begin_late::<R>(file));
        let Some(sum) = known else { return 0 };
        let before = (*sum).calls;
        add(&raw mut (*sum).bytes, bytes as u64);
        add(&raw mut (*sum).calls, 1);
        if before == 0 {
            report_file((*sum).file, operation::WRITE as u32);
        }
    }
    0
}

/// The sum of this very open file.
///
/// # Safety
/// That of `R` for `file`.
#[inline(always)]
unsafe fn known<R: Read>(file: *const u8) -> Option<*mut FileSum> {
    let sum = FILES.get_ptr_mut(file as u64)?;
    // SAFETY: by contract; map values live as long as the program runs.
    unsafe { ((*sum).inode == R::field::<u64>(file, &FILE_INODE)).then_some(sum) }
}

/// Begins the sum over a file that was open before the programs were attached.
///
/// # Safety
/// That of `R` for `file`.
#[inline(always)]
unsafe fn begin_late<R: Read>(file: *const u8) -> Option<*mut FileSum> {
    // SAFETY: by contract; map values live as long as the program runs.
    unsafe {
        let inode = R::field::<u64>(file, &FILE_INODE) as *const u8;
        let kind = (*device::of_opened::<R>(inode)?).kind_of_write()?;
        let mut record = Record::begin(kind, operation::WRITE)?;
        begin_sum(&mut record, file, kind, flag::LATE);
        record.discard();
        known::<R>(file)
    }
}

/// Whether the programs that see such writes and their closes are there. Those for shares come a
/// moment after the first share; a sum that begins before would not be ended.
#[inline(always)]
pub fn watches(kind: u8) -> bool {
    kind != kind::SHARE_WRITE || SHARES_WATCHED.get(0).is_some_and(|watched| *watched != 0)
}

/// Puts a sum in place, in the name of the record's actor.
#[inline(always)]
pub fn begin_sum(record: &mut Record, file: *const u8, kind: u8, flags: u16) {
    let scratch = record.scratch();
    // SAFETY: our buffer.
    unsafe {
        let sum = &raw mut (*scratch).file_sum;
        (*sum).bytes = 0;
        (*sum).calls = 0;
        (*sum).flags = flags as u64;
        (*sum).kind = kind as u64;
        (*sum).file = file as u64;
        (*sum).inode = pointer(file, &FILE_INODE) as u64;
        copy(&raw const (*scratch).event.process, &raw mut (*sum).process);
        if FILES.insert(file as u64, &*sum, 0).is_err() {
            count(kind, counter::LOST_TABLE);
        } else if kind == kind::USB_WRITE {
            source::writes((*sum).process.tgid);
        }
    }
}

/// Sends what is known of an open file.
///
/// A function of its own, with numbers for arguments: the verifier looks at it once per program.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn report_file(file: u64, operation: u32) -> u32 {
    let Some(policy) = Policy::in_force() else {
        return 0;
    };
    let Some(sum) = FILES.get_ptr(file) else {
        return 0;
    };
    // SAFETY: map values live as long as the program runs.
    let kind = unsafe { (*sum).kind } as u8;
    let Some(mut record) = Record::blank(kind, operation as u8) else {
        return 0;
    };
    let file = file as *const u8;
    // SAFETY: map values live as long as the program runs.
    unsafe {
        let event = record.event();
        copy(&raw const (*sum).process, &raw mut event.process);
        event.bytes = (*sum).bytes;
        event.calls = (*sum).calls;
        event.flags |= (*sum).flags as u16;
    }
    // SAFETY: probes take any address.
    unsafe { describe_file::<Probed>(&mut record, file) };
    if let Some(device) = device::of_file(file) {
        // SAFETY: map values live as long as the program runs.
        record.device(unsafe { &*device });
    }
    record.path(Place::of_opened(file, pointer(file, &FILE_INODE)));
    record.send(&policy, Outcome::default());
    1
}

/// The last reference to an open file is gone (fs/file_table.c).
#[fentry(function = "__fput")]
pub fn file_close(ctx: FEntryContext) -> i32 {
    closed(ctx.arg(0))
}

/// The same, from 6.9 on. The kernel does not call the program above while it runs on the same CPU
/// for another file; this one it always calls. Files whose open failed come by the other alone.
#[lsm(hook = "file_release")]
pub fn file_release(ctx: LsmContext) -> i32 {
    closed(ctx.arg(0))
}

#[inline(always)]
fn closed(file: *const u8) -> i32 {
    if FILES.get_ptr(file as u64).is_none() {
        return 0;
    }
    // SAFETY: the function's own argument; map values live as long as the program runs.
    unsafe {
        if let Some(sum) = known::<Typed>(file) {
            report_file((*sum).file, operation::CLOSE as u32);
        }
        if let Some(sum) = FILES.get_ptr(file as u64)
            && (*sum).kind == kind::USB_WRITE as u64
        {
            source::writes_no_more((*sum).process.tgid);
        }
    }
    let _ = FILES.remove(file as u64);
    0
}
