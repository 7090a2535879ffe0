//! What only structures of modules tell: the file that a loop device shows, and what a memory card
//! is. Their fields are not among the kernel's own types; the agent looks them up when a module is
//! there, and writes them into a table.

use aya_ebpf::helpers::bpf_probe_read_kernel_str_bytes;
use core::ptr::null;
use sekimori_abi::{
    event::{Device, device_class},
    limits::SERIAL_BYTES_MAX,
    offsets::module_field,
};

use super::{ITSELF, device_below, wait_for};
use crate::{
    maps::{MODULE_OFFSETS, NODES, SCRATCH},
    offset::*,
    path::{S_IFBLK, S_IFMT},
    read::{pointer, probed, probed_at},
};

/// `LOOP_MAJOR` (include/uapi/linux/major.h).
const LOOP_MAJOR: u32 = 7;
/// `lo_backing_file` in `struct loop_device` (drivers/block/loop.c, the same from 6.1 to 7.3), for
/// as long as the agent has not looked: the mount itself may load the module.
const LOOP_FILE_AT: usize = 96;
/// `MMC_TYPE_MMC` (include/linux/mmc/card.h).
const SOLDERED: u32 = 0;
/// Hexadecimal digits of a card's serial, as sysfs shows it (drivers/mmc/core/sd.c): `0x%08x`.
const DIGITS: usize = 8;

/// Where a field of a module's structure stands, as far as that is known.
#[inline(always)]
fn offset(field: u32) -> Option<usize> {
    match MODULE_OFFSETS.get(field) {
        Some(known) if *known != 0 => Some(*known as usize - 1),
        _ => None,
    }
}

/// The file that a loop device shows; null for other disks.
#[inline(always)]
fn file_of_loop(disk: *const u8) -> *const u8 {
    let device = pointer(disk, &DISK_PRIVATE);
    if probed::<u32>(disk, &DISK_MAJOR) != LOOP_MAJOR || device.is_null() {
        return null();
    }
    let at = offset(module_field::LOOP_FILE).unwrap_or(LOOP_FILE_AT);
    probed_at::<u64>(device.wrapping_add(at)) as *const u8
}

/// Notes the block device that the file of a loop device lies on, or is.
///
/// A function of its own, with numbers for arguments: the verifier looks at it once per program.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn look_at_image(buffer: u32, disk: u64) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(buffer) else {
        return 0;
    };
    let file = file_of_loop(disk as *const u8);
    if file.is_null() {
        return 0;
    }
    let inode = pointer(file, &FILE_INODE);
    // SAFETY: the buffer is the caller's.
    unsafe {
        let bdev = if probed::<u16>(inode, &INODE_MODE) & S_IFMT == S_IFBLK {
            // What a node leads to is an inode of its own (block/bdev.c).
            let host = pointer(pointer(file, &FILE_MAPPING), &MAPPING_HOST);
            host.wrapping_sub(BDEV_INODE.get())
        } else {
            device_below(scratch, pointer(inode, &INODE_SB))
        };
        if !bdev.is_null() {
            wait_for(scratch, bdev as u64 | ITSELF);
        }
    }
    0
}

/// Describes a device on the `mmc` bus, unless it is eMMC: memory that is part of the machine.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn look_at_card(buffer: u32, node: u64, disk: u64) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(buffer) else {
        return 0;
    };
    let number: u32 = probed(pointer(disk as *const u8, &DISK_PART0), &BDEV_NUMBER);
    let known = NODES.get_ptr(number as u64);
    let node = node as *const u8;
    let card = match offset(module_field::CARD_DEVICE) {
        Some(at) => node.wrapping_sub(at),
        None => null(),
    };
    let soldered = match offset(module_field::CARD_TYPE) {
        Some(at) if !card.is_null() => probed_at::<u32>(card.wrapping_add(at)) == SOLDERED,
        _ => known.is_none() && may_be_soldered(node),
    };
    if soldered {
        return 0;
    }
    // SAFETY: the buffer is the caller's; map values live as long as the program runs.
    unsafe {
        let device = &raw mut (*scratch).device;
        (*device).class = device_class::SD;
        match (offset(module_field::CARD_IDENTITY), offset(module_field::IDENTITY_SERIAL), known) {
            (Some(identity), Some(serial), _) if !card.is_null() => {
                let at = card.wrapping_add(identity).wrapping_add(serial);
                write_serial(device, probed_at(at));
            }
            (.., Some(known)) => {
                let (from, to) = (&raw const (*known).serial, &raw mut (*device).serial);
                for word in 0..SERIAL_BYTES_MAX / 8 {
                    let word = (from.cast::<u64>().add(word), to.cast::<u64>().add(word));
                    word.1.write_volatile(word.0.read_volatile());
                }
            }
            _ => {}
        }
    }
    0
}

/// # Safety
/// The device must be one in a buffer.
#[inline(always)]
unsafe fn write_serial(device: *mut Device, serial: u32) {
    // SAFETY: by contract; there is room for more digits.
    unsafe {
        let text = (&raw mut (*device).serial).cast::<u8>();
        text.write_volatile(b'0');
        text.add(1).write_volatile(b'x');
        for at in 0..DIGITS {
            let digit = serial >> (4 * (DIGITS - 1 - at)) & 0xf;
            // 1 for those above 9; without a branch, which would double the verifier's paths.
            let is_letter = (digit + 6) >> 4;
            let letter = b'0' as u32 + digit + is_letter * (b'a' - b'9' - 1) as u32;
            text.add(2 + at).write_volatile(letter as u8);
        }
    }
}

/// For as long as the agent has not looked at the module: whether a device on the `mmc` bus may be
/// eMMC. The host gives it address 1 (drivers/mmc/core/mmc.c, `mmc_init_card`), which ends its name:
/// `mmc0:0001`. Some cards choose the same; user space can tell them by their type, and says so in
/// `NODES`.
#[inline(always)]
fn may_be_soldered(card: *const u8) -> bool {
    let mut name = [0u8; 16];
    let address = pointer(card.wrapping_add(DEVICE_KOBJECT.get()), &KOBJECT_NAME);
    // SAFETY: the helper checks the address.
    unsafe {
        bpf_probe_read_kernel_str_bytes(address, &mut name).is_ok_and(|it| it.ends_with(b":0001"))
    }
}
