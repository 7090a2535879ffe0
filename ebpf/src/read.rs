//! Reading kernel memory.
//!
//! Two ways: `typed` loads through a pointer whose type the verifier knows (one instruction, and the
//! result may be given to helpers that want a typed pointer), and probes that work on any address
//! and answer zero when it cannot be read.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use core::mem::MaybeUninit;

use crate::offset::Constant;

/// The field at `offset` of a pointer the verifier knows.
///
/// # Safety
/// `base` must come from a hook's argument, from `bpf_get_current_task_btf`, or from such a load.
#[inline(always)]
pub unsafe fn typed<T: Copy>(base: *const u8, offset: &'static Constant) -> T {
    // SAFETY: the verifier checks the load against the kernel's BTF and makes a fault read as zero.
    unsafe { *(base.add(offset.get()) as *const T) }
}

/// How fields are read.
pub trait Read {
    /// The field at `offset` of `base`.
    ///
    /// # Safety
    /// That of the way.
    unsafe fn field<T: Copy + Default>(base: *const u8, offset: &'static Constant) -> T;
}

/// By typed loads: only for pointers that the verifier knows.
pub struct Typed;

impl Read for Typed {
    #[inline(always)]
    unsafe fn field<T: Copy + Default>(base: *const u8, offset: &'static Constant) -> T {
        // SAFETY: by contract.
        unsafe { typed(base, offset) }
    }
}

/// By probes: for any address.
pub struct Probed;

impl Read for Probed {
    #[inline(always)]
    unsafe fn field<T: Copy + Default>(base: *const u8, offset: &'static Constant) -> T {
        probed(base, offset)
    }
}

/// The field at `offset` of any kernel address; zero when it cannot be read.
#[inline(always)]
pub fn probed<T: Copy + Default>(base: *const u8, offset: &'static Constant) -> T {
    probed_at(base.wrapping_add(offset.get()))
}

/// The value at any kernel address; zero when it cannot be read.
#[inline(always)]
pub fn probed_at<T: Copy + Default>(address: *const u8) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper checks the address, and fills the value with zeroes when it cannot be read
    // (`bpf_probe_read_kernel_common`, kernel/trace/bpf_trace.c). What is probed are plain numbers.
    unsafe {
        bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, address.cast());
        value.assume_init()
    }
}

/// The pointer at `offset` of any kernel address; null when it cannot be read.
#[inline(always)]
pub fn pointer(base: *const u8, offset: &'static Constant) -> *const u8 {
    probed::<u64>(base, offset) as *const u8
}

/// Copies plain data word by word: a `memcpy` becomes a call that copies byte by byte.
///
/// # Safety
/// Both must be valid, 8-byte aligned and a whole number of 8-byte words.
#[inline(always)]
pub unsafe fn copy<T>(from: *const T, to: *mut T) {
    for word in 0..size_of::<T>() / 8 {
        // SAFETY: by contract.
        unsafe {
            to.cast::<u64>().add(word).write_volatile(from.cast::<u64>().add(word).read_volatile())
        };
    }
}
