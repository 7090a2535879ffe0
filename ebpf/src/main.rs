//! Sekimori's kernel programs: one fixed set, whatever the policy.
//!
//! Every program judges by tables (`judge`), builds its record in a buffer of its own (`emit`) and
//! writes it to one of two rings. No program sleeps, and no verdict waits for user space.
#![no_std]
#![no_main]
#![feature(core_intrinsics, adt_const_params)]
#![allow(internal_features, reason = "see `atomic`")]

mod atomic;
mod count;
mod device;
mod emit;
mod environment;
mod hook;
mod host_mount;
mod judge;
mod log;
mod maps;
mod offset;
mod path;
mod read;
mod task;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel lets only GPL-compatible programs call the helpers used here.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
