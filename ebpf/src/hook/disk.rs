//! Block devices by name: btrfs puts no block device into its superblock, only the name of one
//! (`s_id`). Whoever mounts opens the device first, so that it is known by the time it is asked
//! for.

use aya_ebpf::{
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};

use crate::device::know_disk;

/// `bdev_open(bdev, …)`, from 6.9 on (block/bdev.c).
#[fentry(function = "bdev_open")]
pub fn disk_opened(ctx: FEntryContext) -> i32 {
    know_disk(ctx.arg(0))
}

/// `blkdev_get_by_dev` answers the device, or an error as a pointer; up to 6.6 (block/bdev.c).
#[fexit(function = "blkdev_get_by_dev")]
pub fn disk_opened_by_number(ctx: FExitContext) -> i32 {
    know_disk(ctx.ret::<u64>().unwrap_or(0) as *const u8)
}
