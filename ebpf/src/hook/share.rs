//! Bytes written to network and FUSE file systems. Those write in ways of their own, so the
//! programs here stand above them, on each way by which a write comes to a file system; none of the
//! functions calls another one of them for the same file.

use aya_ebpf::{
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};

use super::write::{sum, written};
use crate::{
    device::writes_its_own_way,
    offset::*,
    read::{Probed, Read, Typed, pointer, probed, typed},
};

/// `IOCB_WRITE` (include/linux/fs.h, the same from 5.19 to 7.3).
const IOCB_WRITE: u32 = 1 << 18;

/// `write` and `pwrite` (fs/read_write.c).
#[fexit(function = "vfs_write")]
pub fn share_write(ctx: FExitContext) -> i32 {
    // SAFETY: the function's own argument.
    unsafe { sum_above::<Typed>(ctx.arg(0), written(&ctx)) }
}

/// `writev`, `pwritev` and `pwritev2` (fs/read_write.c).
#[fexit(function = "vfs_writev")]
pub fn share_writev(ctx: FExitContext) -> i32 {
    // SAFETY: the function's own argument.
    unsafe { sum_above::<Typed>(ctx.arg(0), written(&ctx)) }
}

/// Overlayfs and loop devices that write to a file on a share; up to 6.7 also the next one.
#[fexit(function = "vfs_iter_write")]
pub fn share_iter_write(ctx: FExitContext) -> i32 {
    // SAFETY: the function's own argument.
    unsafe { sum_above::<Typed>(ctx.arg(0), written(&ctx)) }
}

/// splice, sendfile and copy_file_range (fs/splice.c: `pipe`, `out`, …).
#[fexit(function = "iter_file_splice_write")]
pub fn share_splice(ctx: FExitContext) -> i32 {
    // SAFETY: the function's own argument.
    unsafe { sum_above::<Typed>(ctx.arg(1), written(&ctx)) }
}

/// The end of a write by AIO, whether it was waited for or not (fs/aio.c).
#[fentry(function = "aio_complete_rw")]
pub fn share_aio(ctx: FEntryContext) -> i32 {
    completed(ctx.arg(0), ctx.arg(1))
}

/// The end of a write by io_uring that was not waited for (io_uring/rw.c).
#[fentry(function = "io_complete_rw")]
pub fn share_ring_later(ctx: FEntryContext) -> i32 {
    completed(ctx.arg(0), ctx.arg(1))
}

#[inline(always)]
fn completed(kiocb: *const u8, bytes: i64) -> i32 {
    // SAFETY: typed loads from the function's own argument.
    unsafe {
        if typed::<u32>(kiocb, &KIOCB_FLAGS) & IOCB_WRITE == 0 {
            return 0;
        }
        sum_above::<Typed>(typed(kiocb, &KIOCB_FILE), bytes)
    }
}

/// A write by io_uring that was done at once: the function answers `IOU_OK`, 0, and the request
/// holds what came of it (io_uring/rw.c, `kiocb_done`).
#[fexit(function = "io_write")]
pub fn share_ring(ctx: FExitContext) -> i32 {
    let answer: i32 = ctx.ret().unwrap_or(-1);
    if answer != 0 || !REQUEST_RESULT.exists() {
        return 0;
    }
    let request: *const u8 = ctx.arg(0);
    let result = request.wrapping_add(REQUEST_RESULT.get());
    let bytes: i32 = probed(result, &RESULT_VALUE);
    // SAFETY: probes take any address.
    unsafe { sum_above::<Probed>(pointer(request, &REQUEST_FILE), bytes as i64) }
}

/// # Safety
/// That of `R` for `file`.
#[inline(always)]
unsafe fn sum_above<R: Read>(file: *const u8, bytes: i64) -> i32 {
    // SAFETY: by contract; what is reached from a typed pointer is typed.
    unsafe {
        let inode = R::field::<u64>(file, &FILE_INODE) as *const u8;
        let sb = R::field::<u64>(inode, &INODE_SB) as *const u8;
        if writes_its_own_way::<R>(sb) { sum::<R>(file, bytes) } else { 0 }
    }
}
