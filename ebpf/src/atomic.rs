//! Atomic operations. `core` gives the bpf target no read-modify-write on its atomic types, although
//! the instruction set (v3) has them; the intrinsics behind them work.

use core::intrinsics::{
    AtomicOrdering::{AcqRel, Relaxed},
    atomic_xadd, atomic_xchg,
};

/// Adds to a cell that others add to at the same time; answers what was there before.
///
/// Not relaxed: for a relaxed addition LLVM 22 takes the instruction that does not fetch, and the
/// answer is then what was added (tried: every answer was 1).
///
/// # Safety
/// `cell` must be an 8-byte aligned part of a map value.
#[inline(always)]
pub unsafe fn fetch_add(cell: *mut u64, n: u64) -> u64 {
    // SAFETY: by contract.
    unsafe { atomic_xadd::<u64, u64, { AcqRel }>(cell, n) }
}

/// Puts a value into a cell; answers what was there before.
///
/// # Safety
/// `cell` must be an 8-byte aligned part of a map value.
#[inline(always)]
pub unsafe fn swap(cell: *mut u64, n: u64) -> u64 {
    // SAFETY: by contract.
    unsafe { atomic_xchg::<u64, { Relaxed }>(cell, n) }
}
