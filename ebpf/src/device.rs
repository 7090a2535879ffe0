//! What a file system stands on, found in the kernel at first sight: no race with user space. That
//! may be another machine or a program as well.

mod module;

use aya_ebpf::helpers::{bpf_probe_read_kernel_str_bytes, generated::bpf_probe_read_kernel_str};
use core::ptr::null;
use sekimori_abi::{
    event::{Device, device_class, kind, operation},
    limits::{DISK_NAME_BYTES_MAX, LOWER_DEVICES_MAX, SERIAL_BYTES_MAX},
    table::NODE_IS_CHARACTER,
};

use self::module::{look_at_card, look_at_image};
use crate::{
    emit::{Buffer, Record},
    maps::{DEVICES, DISKS, DiskName, NODES, NUMBERS, SCRATCH, SHARES, Scratch},
    offset::*,
    path::{S_IFBLK, S_IFCHR, S_IFMT, put, take},
    read::{Probed, Read, Typed, pointer, probed, probed_at, typed},
};

/// Steps from a disk to its USB device: target, host, interface, hubs.
const DEVICE_DEPTH_MAX: u32 = 16;
/// `idVendor` within `struct usb_device_descriptor` (USB 2.0, table 9-8); `idProduct` follows.
const ID_VENDOR_AT: usize = 8;

/// `DEVICE_REMOVABLE` (include/linux/device.h): behind a port that leads out of the case.
const REMOVABLE: u32 = 3;

/// `s_magic` of file systems of other machines (include/uapi/linux/magic.h; fs/smb/client,
/// fs/ceph/super.h, fs/vboxsf, and Lustre's own headers).
const NFS: u64 = 0x6969;
const CIFS: u64 = 0xff53_4d42;
const SMB_2_AND_3: u64 = 0xfe53_4d42;
const PLAN_9: u64 = 0x0102_1997;
const CEPH: u64 = 0x00c3_6400;
const AFS: u64 = 0x5346_414f;
const AFS_OF_THE_KERNEL: u64 = 0x6b41_4653;
const CODA: u64 = 0x7375_7245;
const ORANGEFS: u64 = 0x2003_0528;
const LUSTRE: u64 = 0x0bd0_0bd0;
const VIRTUALBOX: u64 = 0x786f_4256;
/// `FUSE_SUPER_MAGIC` (include/uapi/linux/magic.h), also that of virtiofs.
const FUSE_MAGIC: u64 = 0x6573_5546;
/// `SB_RDONLY` (include/linux/fs.h).
const READ_ONLY: u64 = 1;
/// `BTRFS_SUPER_MAGIC` (include/uapi/linux/magic.h).
pub const BTRFS_MAGIC: u64 = 0x9123_683e;

/// `SCSI_CDROM_MAJOR` (include/uapi/linux/major.h).
const OPTICAL_MAJOR: u32 = 11;

/// The place in `DEVICES` of what nobody could look at: beside all device numbers.
const CROWDED: u64 = 1 << 33;
/// A place where there is nothing.
const NOT_KNOWN: u64 = 0;
/// In [`Scratch::lower`]: the address of a block device, and not that of a link to one.
const ITSELF: u64 = 1;

/// For [`look_at_device`]: the file system is being mounted, so its device was opened a moment ago.
pub const MOUNTING: u32 = 1;

/// What a device is taken for while no buffer is free to look at it: removable, and on no list.
static UNKNOWN: Device = Device {
    dev: 0,
    vendor: 0,
    product: 0,
    class: device_class::USB,
    reserved: [0; 7],
    serial: [0; SERIAL_BYTES_MAX],
};

/// The device that an open file writes to: below its file system, or the one that it is the node of.
///
/// # Safety
/// That of `R` for `inode`.
#[inline(always)]
pub unsafe fn of_opened<R: Read>(inode: *const u8) -> Option<*const Device> {
    // SAFETY: by contract; what is reached from a typed pointer is typed.
    unsafe {
        match R::field::<u16>(inode, &INODE_MODE) & S_IFMT {
            S_IFBLK | S_IFCHR => of_node::<R>(inode),
            _ => below::<R>(R::field::<u64>(inode, &INODE_SB) as *const u8),
        }
    }
}

/// The device that an inode is the node of.
///
/// # Safety
/// That of `R` for `inode`.
#[inline(always)]
pub unsafe fn of_node<R: Read>(inode: *const u8) -> Option<*const Device> {
    // SAFETY: by contract.
    let (mode, number) =
        unsafe { (R::field::<u16>(inode, &INODE_MODE), R::field::<u32>(inode, &INODE_RDEV)) };
    // One look-up for all: the verifier goes another way for each place that a value comes from.
    let place = match mode & S_IFMT {
        S_IFBLK => look_at_node(number as u64),
        S_IFCHR => look_at_node(number as u64 | NODE_IS_CHARACTER),
        _ => return None,
    };
    DEVICES.get_ptr(place)
}

/// As [`of_opened`], of a file at any address.
#[inline(always)]
pub fn of_file(file: *const u8) -> Option<*const Device> {
    // SAFETY: probes take any address.
    unsafe { of_opened::<Probed>(pointer(file, &FILE_INODE)) }
}

/// Whether it is a file system of another machine or of a program, and then which class that is; 0
/// when it is neither, or the host's own root: a machine may have that on the network.
///
/// # Safety
/// That of `R` for `sb`.
#[inline(always)]
unsafe fn class_of_share<R: Read>(sb: *const u8) -> u8 {
    // SAFETY: by contract.
    let magic = unsafe { R::field::<u64>(sb, &SB_MAGIC) };
    let class = match magic {
        FUSE_MAGIC => device_class::FUSE,
        NFS | CIFS | SMB_2_AND_3 | PLAN_9 | CEPH | AFS | AFS_OF_THE_KERNEL | CODA | ORANGEFS
        | LUSTRE | VIRTUALBOX => device_class::NETWORK,
        _ => return 0,
    };
    // SAFETY: by contract.
    let dev = unsafe { R::field::<u32>(sb, &SB_DEV) } as usize;
    if dev == ROOT_DEVICE.get() || dev == ROOT_UPPER_DEVICE.get() { 0 } else { class }
}

/// Whether the file system writes in ways of its own: what goes into its files is then summed above
/// it, and else inside of it. A block device may lie below such a file system.
///
/// # Safety
/// That of `R` for `sb`.
#[inline(always)]
pub unsafe fn writes_its_own_way<R: Read>(sb: *const u8) -> bool {
    // SAFETY: by contract.
    unsafe { class_of_share::<R>(sb) != 0 }
}

/// Tells the agent of a file system whose writes are summed above it.
///
/// # Safety
/// `sb` must be a typed pointer.
#[inline(always)]
pub unsafe fn notice(sb: *const u8) {
    // SAFETY: by contract.
    unsafe {
        if !writes_its_own_way::<Typed>(sb)
            || typed::<u64>(sb, &SB_FLAGS) & READ_ONLY != 0
            || SHARES.get_ptr(sb as u64).is_some()
        {
            return;
        }
        let dev: u32 = typed(sb, &SB_DEV);
        // In a full table there are others, so the programs are there in any case.
        if SHARES.insert(sb as u64, dev, 0).is_ok() {
            wake_agent(dev);
        }
    }
}

/// A function of its own, with a number as argument: the verifier looks at it once per program.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn wake_agent(dev: u32) -> u32 {
    if let Some(mut record) = Record::begin(kind::NOTE, operation::MOUNT) {
        record.event().device.dev = dev;
        record.send_unjudged();
    }
    0
}

/// What is below a superblock, remembered by `s_dev`. `None` when there is neither a block device
/// nor another machine or a program, or btrfs was mounted before anybody could see by what.
///
/// # Safety
/// That of `R` for `sb`.
#[inline(always)]
pub unsafe fn below<R: Read>(sb: *const u8) -> Option<*const Device> {
    // SAFETY: by contract.
    let (bdev, dev) = unsafe { (R::field::<u64>(sb, &SB_BDEV), R::field::<u32>(sb, &SB_DEV)) };
    // SAFETY: by contract.
    let magic = unsafe { R::field::<u64>(sb, &SB_MAGIC) };
    // SAFETY: by contract.
    let share = if bdev == 0 { unsafe { class_of_share::<R>(sb) } } else { 0 };
    if bdev == 0 && share == 0 && magic != BTRFS_MAGIC {
        return None;
    }
    if let Some(known) = DEVICES.get_ptr(dev as u64) {
        // Numbers of file systems without a block device are used again at once.
        // SAFETY: map values live as long as the program runs.
        if share == 0 || unsafe { (*known).class } == share {
            return Some(known);
        }
    }
    // A typed pointer cannot be given to a function; what a probe reads is a mere number.
    DEVICES.get_ptr(look_below(probed(pointer(sb, &SB_ROOT), &DENTRY_SB), dev))
}

/// Looks at the device below a superblock for the first time, or again where it was forgotten.
/// Answers its place in `DEVICES`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn look_below(sb: u64, dev: u32) -> u64 {
    let Some(buffer) = Buffer::acquire() else {
        return crowded();
    };
    look_at_device(buffer.index(), sb, 0);
    buffer.release();
    dev as u64
}

/// The place of a device that counts as removable and is on no list.
#[inline(always)]
fn crowded() -> u64 {
    let _ = DEVICES.insert(CROWDED, &UNKNOWN, 0);
    CROWDED
}

/// Looks at the device below a superblock afresh: its number may have belonged to another one
/// before. A device that stands on others (dm-crypt, LVM, RAID) is what any of them is. A btrfs
/// that is being mounted from a device that nobody saw is removable, and on no list.
///
/// Functions of their own, with numbers for arguments: the verifier looks at each once per program.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn look_at_device(buffer: u32, sb: u64, mounting: u32) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(buffer) else {
        return 0;
    };
    let sb = sb as *const u8;
    // SAFETY: the buffer is the caller's.
    unsafe {
        begin(scratch, probed(sb, &SB_DEV));
        let device = &raw mut (*scratch).device;
        let by_name =
            pointer(sb, &SB_BDEV).is_null() && probed::<u64>(sb, &SB_MAGIC) == BTRFS_MAGIC;
        let bdev = device_below(scratch, sb);
        if !bdev.is_null() {
            (*device).class = device_class::FIXED;
            look_at_disk(buffer, bdev as u64);
        } else if !by_name {
            (*device).class = class_of_share::<Probed>(sb);
        } else if mounting == MOUNTING {
            (*device).class = device_class::USB;
        }
        look_at_all_lower(buffer, scratch);
    }
    0
}

/// Finds out what a device is, by its number and `NODE_IS_CHARACTER`: as user space says or, a block
/// device, afresh. User space does not know those that were plugged in while no agent ran, nor loop
/// devices, whose file can be another one at each open; they are known by their number once they
/// were opened. Answers its place in `DEVICES`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn look_at_node(node: u64) -> u64 {
    if let Some(known) = NODES.get_ptr(node) {
        // SAFETY: map values live as long as the program runs.
        let _ = DEVICES.insert(node, unsafe { &*known }, 0);
        return node;
    }
    if node & NODE_IS_CHARACTER != 0 {
        return NOT_KNOWN;
    }
    let number = node as u32;
    let bdev = match NUMBERS.get_ptr(number) {
        // SAFETY: map values live as long as the program runs.
        Some(known) => (unsafe { *known }) as *const u8,
        None => return NOT_KNOWN,
    };
    // Its memory may belong to another one by now.
    if probed::<u32>(bdev, &BDEV_NUMBER) != number {
        return NOT_KNOWN;
    }
    let Some(buffer) = Buffer::acquire() else {
        return crowded();
    };
    let scratch = buffer.scratch();
    // SAFETY: the buffer is ours.
    unsafe {
        begin(scratch, number);
        (&raw mut (*scratch).device.class).write(device_class::FIXED);
        look_at_disk(buffer.index(), bdev as u64);
        look_at_all_lower(buffer.index(), scratch);
    }
    buffer.release();
    node
}

/// Nothing is known yet of the device in the buffer.
///
/// # Safety
/// The buffer must be the caller's.
#[inline(always)]
unsafe fn begin(scratch: *mut Scratch, number: u32) {
    // SAFETY: by contract; a device is a whole number of 8-byte words.
    unsafe {
        let device = &raw mut (*scratch).device;
        for word in 0..size_of::<Device>() / 8 {
            device.cast::<u64>().add(word).write_volatile(0);
        }
        (*device).dev = number;
        put(&raw mut (*scratch).lower_count, 0);
    }
}

/// Looks at what waits to be looked at, and remembers what came out.
///
/// # Safety
/// The buffer must be the caller's.
#[inline(always)]
unsafe fn look_at_all_lower(buffer: u32, scratch: *mut Scratch) {
    for at in 0..LOWER_DEVICES_MAX {
        look_at_lower(buffer, at);
    }
    // SAFETY: by contract.
    unsafe {
        let device = &raw mut (*scratch).device;
        if (*device).class != device_class::VIRTUAL {
            let _ = DEVICES.insert((*device).dev as u64, &*device, 0);
        }
    }
}

/// The block device that a superblock names, by its address or, on btrfs, by its name.
///
/// # Safety
/// The buffer must be the caller's.
#[inline(always)]
unsafe fn device_below(scratch: *mut Scratch, sb: *const u8) -> *const u8 {
    let bdev = pointer(sb, &SB_BDEV);
    if !bdev.is_null() || probed::<u64>(sb, &SB_MAGIC) != BTRFS_MAGIC {
        return bdev;
    }
    // SAFETY: by contract.
    unsafe { named_by(scratch, sb) }
}

/// The block device whose name stands in a superblock; null when that is not known, or no longer
/// there.
///
/// # Safety
/// The buffer must be the caller's.
#[inline(always)]
unsafe fn named_by(scratch: *mut Scratch, sb: *const u8) -> *const u8 {
    // SAFETY: by contract.
    unsafe {
        if !read_name(scratch, sb.wrapping_add(SB_ID.get())) {
            return null();
        }
        let name = &raw mut (*scratch).disk_name;
        let bdev = match DISKS.get_ptr(&*name) {
            Some(known) => *known as *const u8,
            None => return null(),
        };
        let wanted = words(name);
        // Its memory may belong to another one by now.
        let there = read_name(scratch, name_of(bdev));
        let found = words(name);
        let same = there
            && found.0 == wanted.0
            && found.1 == wanted.1
            && found.2 == wanted.2
            && found.3 == wanted.3;
        if same { bdev } else { null() }
    }
}

/// A name word by word: comparing it as a whole becomes a call.
///
/// # Safety
/// The name must be one in a buffer.
#[inline(always)]
unsafe fn words(name: *const DiskName) -> (u64, u64, u64, u64) {
    let name = name.cast::<u64>();
    // SAFETY: by contract.
    unsafe {
        (
            name.read_volatile(),
            name.add(1).read_volatile(),
            name.add(2).read_volatile(),
            name.add(3).read_volatile(),
        )
    }
}

/// Notes a block device that is opened, by its name and by its number.
#[inline(always)]
pub fn know_disk(bdev: *const u8) -> i32 {
    let Some(buffer) = Buffer::acquire() else {
        return 0;
    };
    // SAFETY: the buffer is ours.
    unsafe {
        // An error in place of a pointer has no name.
        if read_name(buffer.scratch(), name_of(bdev)) {
            let _ = DISKS.insert(&(*buffer.scratch()).disk_name, bdev as u64, 0);
            let _ = NUMBERS.insert(probed::<u32>(bdev, &BDEV_NUMBER), bdev as u64, 0);
        }
    }
    buffer.release();
    0
}

/// Where the name of a block device stands; it is the one that the kernel prints (`%pg`).
#[inline(always)]
fn name_of(bdev: *const u8) -> *const u8 {
    let object = bdev.wrapping_add(BDEV_DEVICE.get()).wrapping_add(DEVICE_KOBJECT.get());
    pointer(object, &KOBJECT_NAME)
}

/// Reads a name into the buffer, padded with zeros.
///
/// # Safety
/// The buffer must be the caller's.
#[inline(always)]
unsafe fn read_name(scratch: *mut Scratch, address: *const u8) -> bool {
    // SAFETY: by contract; the name has room for that many bytes.
    unsafe {
        let name = &raw mut (*scratch).disk_name;
        for word in 0..DISK_NAME_BYTES_MAX / 8 {
            name.cast::<u64>().add(word).write_volatile(0);
        }
        let got =
            bpf_probe_read_kernel_str(name.cast(), DISK_NAME_BYTES_MAX as u32, address.cast());
        // An empty name is its end alone.
        got > 1
    }
}

/// One of the devices that were found below, by its address or by its place in the tree of the
/// links in `slaves/`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn look_at_lower(buffer: u32, at: usize) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(buffer) else {
        return 0;
    };
    if at >= LOWER_DEVICES_MAX {
        return 0;
    }
    // SAFETY: the buffer is the caller's; `at` is checked.
    unsafe {
        if at as u64 >= take(&raw const (*scratch).lower_count) || (*scratch).device.is_removable()
        {
            return 0;
        }
        let found = take((&raw const (*scratch).lower).cast::<u64>().add(at));
        if found & ITSELF != 0 {
            look_at_disk(buffer, found & !ITSELF);
            return 0;
        }
        let link = found as *const u8;
        wait_for(scratch, pointer(link, &RB_LEFT) as u64);
        wait_for(scratch, pointer(link, &RB_RIGHT) as u64);
        let node = link.wrapping_sub(NODE_RB.get());
        let target = pointer(node.wrapping_add(NODE_LINK.get()), &LINK_TARGET);
        let device = pointer(target, &NODE_OBJECT).wrapping_sub(DEVICE_KOBJECT.get());
        look_at_disk(buffer, device.wrapping_sub(BDEV_DEVICE.get()) as u64);
    }
    0
}

/// The disk of a block device, and what that stands on.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn look_at_disk(buffer: u32, bdev: u64) -> u32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(buffer) else {
        return 0;
    };
    let disk = pointer(bdev as *const u8, &BDEV_DISK);
    // SAFETY: the buffer is the caller's.
    unsafe {
        find_bus(buffer, disk, &mut (*scratch).device);
        let class = &raw mut (*scratch).device.class;
        if class.read() == device_class::FIXED && probed::<u32>(disk, &DISK_MAJOR) == OPTICAL_MAJOR
        {
            class.write(device_class::OPTICAL);
        }
        if DISK_SLAVES.exists() {
            let slaves = pointer(pointer(disk, &DISK_SLAVES), &KOBJECT_NODE);
            let links = pointer(slaves.wrapping_add(NODE_DIR.get()), &DIR_CHILDREN);
            wait_for(scratch, links as u64);
        }
    }
    look_at_image(buffer, disk as u64);
    0
}

/// Notes a place in a tree of links, or a block device with [`ITSELF`], to be looked at.
#[inline(always)]
unsafe fn wait_for(scratch: *mut Scratch, place: u64) {
    // SAFETY: the buffer is the caller's; the place is checked.
    unsafe {
        let count = take(&raw const (*scratch).lower_count);
        if place & !ITSELF != 0 && count < LOWER_DEVICES_MAX as u64 {
            put((&raw mut (*scratch).lower).cast::<u64>().add(count as usize), place);
            put(&raw mut (*scratch).lower_count, count + 1);
        }
    }
}

/// From `gendisk.part0.bd_device` up the device tree until a bus that leads out of the machine.
#[inline(always)]
fn find_bus(buffer: u32, disk: *const u8, device: &mut Device) {
    let mut node = pointer(disk, &DISK_PART0).wrapping_add(BDEV_DEVICE.get());
    for _ in 0..DEVICE_DEPTH_MAX {
        if node.is_null() {
            return;
        }
        if names(pointer(node, &DEVICE_TYPE), &DEVICE_TYPE_NAME, b"usb_device\0") {
            describe_usb(node.wrapping_sub(USB_DEVICE.get()), device);
            return;
        }
        let bus = pointer(node, &DEVICE_BUS);
        if names(bus, &BUS_NAME, b"mmc\0") {
            look_at_card(buffer, node as u64, disk as u64);
            return;
        }
        if DEVICE_REMOVABLE.exists()
            && probed::<u32>(node, &DEVICE_REMOVABLE) == REMOVABLE
            && names(bus, &BUS_NAME, b"pci\0")
        {
            device.class = device_class::THUNDERBOLT;
            return;
        }
        node = pointer(node, &DEVICE_PARENT);
    }
}

#[inline(always)]
fn describe_usb(usb: *const u8, device: &mut Device) {
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
}

/// Whether the name at `field` of an object begins with these bytes.
#[inline(always)]
fn names<const N: usize>(object: *const u8, field: &'static Constant, wanted: &[u8; N]) -> bool {
    if object.is_null() {
        return false;
    }
    let mut name = [0u8; 16];
    // SAFETY: the helper checks the address.
    let read = unsafe { bpf_probe_read_kernel_str_bytes(pointer(object, field), &mut name) };
    read.is_ok() && name[..N] == wanted[..]
}
