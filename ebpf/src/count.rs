//! Counters: every event is counted, and so is everything that is lost.

use sekimori_abi::event::counter;

use crate::{atomic, maps::COUNTERS};

/// Adds one. Atomic although per CPU: a hook can be preempted by another one.
#[inline(always)]
pub fn count(kind: u8, counter: u32) {
    if let Some(cell) = COUNTERS.get_ptr_mut(kind as u32 * counter::COUNT + counter) {
        add(cell, 1);
    }
}

/// Adds to a cell that others add to at the same time.
#[inline(always)]
pub fn add(cell: *mut u64, n: u64) {
    // SAFETY: map values are 8-byte aligned and live as long as the program runs.
    unsafe { atomic::fetch_add(cell, n) };
}
