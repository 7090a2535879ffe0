//! The agreement between the kernel programs and the agent: what a ring record looks like, what a
//! policy table holds, and every limit both sides rely on. Plain `repr(C)` data, no behaviour.
#![no_std]
#![forbid(unsafe_code)]

pub mod event;
pub mod limits;
pub mod offsets;
pub mod table;
