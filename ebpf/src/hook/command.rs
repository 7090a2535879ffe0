//! Commands that go to a device past its file system and its block layer, through a node that was
//! opened for reading. The kernel lets root send them; a node that is opened for write was judged
//! then.
//!
//! USB nodes need no look: usbfs takes no request from a file that was opened for reading
//! (drivers/usb/core/devio.c, `usbdev_do_ioctl`).

use aya_ebpf::{helpers::bpf_probe_read_user, macros::lsm, programs::LsmContext};
use sekimori_abi::{
    event::{counter, kind, operation},
    table::SET_NONE,
};

use super::{
    ALLOWED, REFUSED,
    open::{FMODE_WRITE, describe_file, judge_write},
    write::begin_sum,
};
use crate::{
    count::{add, count},
    device,
    emit::Record,
    judge::Policy,
    maps::FILES,
    offset::*,
    path::Place,
    read::{Typed, typed},
};

/// include/scsi/sg.h, include/scsi/scsi_ioctl.h, include/uapi/linux/cdrom.h.
const SG_IO: u32 = 0x2285;
const SCSI_IOCTL_SEND_COMMAND: u32 = 1;
const CDROM_SEND_PACKET: u32 = 0x5393;
/// include/uapi/linux/mmc/ioctl.h.
const MMC_IOC_CMD: u32 = 0xc048_b300;
const MMC_IOC_MULTI_CMD: u32 = 0xc008_b301;
/// include/uapi/linux/nvme_ioctl.h: submit, and commands to the controller and to a name space.
const NVME_IOCTL_SUBMIT_IO: u32 = 0x4030_4e42;
const NVME_IOCTL_ADMIN_CMD: u32 = 0xc048_4e41;
const NVME_IOCTL_IO_CMD: u32 = 0xc048_4e43;
const NVME_IOCTL_ADMIN64_CMD: u32 = 0xc050_4e47;
const NVME_IOCTL_IO64_CMD: u32 = 0xc050_4e48;
const NVME_IOCTL_IO64_CMD_VEC: u32 = 0xc050_4e49;

/// `interface_id` of `sg_io_hdr`, and `guard` of `sg_io_v4` (include/uapi/linux/bsg.h).
const SG_HEADER: u32 = b'S' as u32;
const BSG_HEADER: u32 = b'Q' as u32;
/// `dxfer_direction` and `dxfer_len` of the first, the same for 32-bit callers.
const SG_DIRECTION_AT: usize = 4;
const SG_LENGTH_AT: usize = 12;
/// `dout_xfer_len` of the second.
const BSG_OUT_AT: usize = 60;
/// `SG_DXFER_NONE` and `SG_DXFER_FROM_DEV`.
const SG_NONE: i32 = -1;
const SG_FROM_DEVICE: i32 = -3;
/// `blksz` and `blocks` of `mmc_ioc_cmd`.
const MMC_BLOCK_AT: usize = 36;
const MMC_BLOCKS_AT: usize = 40;

#[lsm(hook = "file_ioctl")]
pub fn file_ioctl(ctx: LsmContext) -> i32 {
    asked(ctx.arg(0), ctx.arg::<u64>(1) as u32, ctx.arg::<u64>(2) as usize)
}

/// The same for 32-bit callers, where the kernel tells them apart (6.8, and 6.1 later on).
#[lsm(hook = "file_ioctl_compat")]
pub fn file_ioctl_compat(ctx: LsmContext) -> i32 {
    asked(ctx.arg(0), ctx.arg::<u64>(1) as u32, ctx.arg::<u64>(2) as usize)
}

#[inline(always)]
fn asked(file: *const u8, command: u32, argument: usize) -> i32 {
    let Some(bytes) = carried(command, argument) else {
        return ALLOWED;
    };
    // SAFETY: typed loads from the hook's argument; map values live as long as the program runs.
    unsafe {
        if typed::<u32>(file, &FILE_MODE) & FMODE_WRITE != 0 {
            return ALLOWED;
        }
        let inode: *const u8 = typed(file, &FILE_INODE);
        let Some(device) = device::of_node::<Typed>(inode) else {
            return ALLOWED;
        };
        let Some(policy) = Policy::in_force() else {
            return ALLOWED;
        };
        if !(*device).is_removable() {
            return ALLOWED;
        }
        count(kind::USB_WRITE, counter::SEEN);
        let outcome = judge_write(&policy, kind::USB_WRITE, &*device, SET_NONE);
        // Further ones add to the sum, which is reported at the close.
        let first = FILES.get_ptr(file as u64).is_none();
        if (first || outcome.action != 0)
            && let Some(mut record) = Record::begin(kind::USB_WRITE, operation::COMMAND)
        {
            describe_file::<Typed>(&mut record, file);
            record.device(&*device);
            record.path(Place::of_opened(file, inode));
            record.event().bytes = bytes;
            if first && !outcome.denies() {
                begin_sum(&mut record, file, kind::USB_WRITE, 0);
            }
            record.send(&policy, outcome);
        }
        if outcome.denies() {
            return REFUSED;
        }
        if let Some(sum) = FILES.get_ptr_mut(file as u64) {
            add(&raw mut (*sum).bytes, bytes);
            add(&raw mut (*sum).calls, 1);
        }
    }
    ALLOWED
}

/// Bytes that a command may bring to the device, 0 where it does not say how many; `None` for what
/// brings none. What cannot be read now counts: the kernel may be able to read it.
#[inline(always)]
fn carried(command: u32, argument: usize) -> Option<u64> {
    match command {
        SG_IO => match user::<u32>(argument) {
            Some(SG_HEADER) => match user::<i32>(argument.wrapping_add(SG_DIRECTION_AT)) {
                Some(SG_NONE | SG_FROM_DEVICE) => None,
                _ => Some(length(argument.wrapping_add(SG_LENGTH_AT))),
            },
            Some(BSG_HEADER) => {
                let bytes = user::<u32>(argument.wrapping_add(BSG_OUT_AT));
                (bytes != Some(0)).then(|| bytes.unwrap_or(0) as u64)
            }
            _ => Some(0),
        },
        // Its first word is the length of what it brings.
        SCSI_IOCTL_SEND_COMMAND => {
            let bytes = user::<u32>(argument);
            (bytes != Some(0)).then(|| bytes.unwrap_or(0) as u64)
        }
        // Its first word says whether it writes.
        MMC_IOC_CMD => (user::<u32>(argument) != Some(0)).then(|| {
            length(argument.wrapping_add(MMC_BLOCK_AT))
                * length(argument.wrapping_add(MMC_BLOCKS_AT))
        }),
        // Odd numbers of commands bring data (include/linux/nvme.h, `nvme_is_write`).
        NVME_IOCTL_SUBMIT_IO
        | NVME_IOCTL_ADMIN_CMD
        | NVME_IOCTL_IO_CMD
        | NVME_IOCTL_ADMIN64_CMD
        | NVME_IOCTL_IO64_CMD
        | NVME_IOCTL_IO64_CMD_VEC => {
            user::<u8>(argument).is_none_or(|number| number & 1 != 0).then_some(0)
        }
        CDROM_SEND_PACKET | MMC_IOC_MULTI_CMD => Some(0),
        _ => None,
    }
}

#[inline(always)]
fn length(address: usize) -> u64 {
    user::<u32>(address).unwrap_or(0) as u64
}

/// A value in the caller's memory.
#[inline(always)]
fn user<T>(address: usize) -> Option<T> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_user(address as *const T).ok() }
}
