//! What a file system stands on, found in the kernel at first sight: no race with user space.

use aya_ebpf::helpers::{bpf_probe_read_kernel_str_bytes, generated::bpf_probe_read_kernel_str};
use core::mem::zeroed;
use sekimori_abi::{
    event::{Device, device_class},
    limits::SERIAL_BYTES_MAX,
};

use crate::{
    maps::DEVICES,
    offset::*,
    read::{pointer, probed, probed_at},
};

/// Steps from a disk to its USB device: target, host, interface, hubs.
const DEVICE_DEPTH_MAX: u32 = 16;
/// `idVendor` within `struct usb_device_descriptor` (USB 2.0, table 9-8); `idProduct` follows.
const ID_VENDOR_AT: usize = 8;

/// The device below a superblock, remembered by `s_dev`. `None` when there is no block
/// device.
#[inline(always)]
pub fn below(sb: *const u8) -> Option<*const Device> {
    if pointer(sb, &SB_BDEV).is_null() {
        return None;
    }
    let dev: u32 = probed(sb, &SB_DEV);
    if let Some(known) = DEVICES.get_ptr(dev) {
        return Some(known);
    }
    look_at_device(sb as u64);
    DEVICES.get_ptr(dev)
}

/// Looks at the device below a superblock afresh: its number may have belonged to another one before.
///
/// A function of its own, with numbers for arguments: the verifier looks at it once per program.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn look_at_device(sb: u64) -> u32 {
    let sb = sb as *const u8;
    // SAFETY: plain data.
    let mut device: Device = unsafe { zeroed() };
    device.dev = probed(sb, &SB_DEV);
    let bdev = pointer(sb, &SB_BDEV);
    if !bdev.is_null() {
        device.class = device_class::FIXED;
        find_usb(bdev, &mut device);
    }
    let dev = device.dev;
    let _ = DEVICES.insert(dev, device, 0);
    dev
}

/// From `gendisk.part0.bd_device` up the device tree until a `struct usb_device`.
#[inline(always)]
fn find_usb(bdev: *const u8, device: &mut Device) {
    let part0 = pointer(pointer(bdev, &BDEV_DISK), &DISK_PART0);
    let mut node = part0.wrapping_add(BDEV_DEVICE.get());
    for _ in 0..DEVICE_DEPTH_MAX {
        if node.is_null() {
            return;
        }
        if is_usb_device(node) {
            let usb = node.wrapping_sub(USB_DEVICE.get());
            let ids = usb.wrapping_add(USB_DESCRIPTOR.get() + ID_VENDOR_AT);
            device.class = device_class::USB;
            device.vendor = probed_at(ids);
            device.product = probed_at(ids.wrapping_add(2));
            let serial = pointer(usb, &USB_SERIAL);
            // SAFETY: the buffer is SERIAL_BYTES_MAX bytes; a null address reads as nothing.
            unsafe {
                bpf_probe_read_kernel_str(
                    device.serial.as_mut_ptr().cast(),
                    SERIAL_BYTES_MAX as u32,
                    serial.cast(),
                );
            }
            return;
        }
        node = pointer(node, &DEVICE_PARENT);
    }
}

#[inline(always)]
fn is_usb_device(node: *const u8) -> bool {
    let kind = pointer(node, &DEVICE_TYPE);
    if kind.is_null() {
        return false;
    }
    let mut name = [0u8; 16];
    let address = pointer(kind, &DEVICE_TYPE_NAME);
    // SAFETY: the helper checks the address.
    let read = unsafe { bpf_probe_read_kernel_str_bytes(address, &mut name) };
    read.is_ok() && &name[..11] == b"usb_device\0"
}
