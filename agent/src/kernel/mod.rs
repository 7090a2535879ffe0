//! The only module that knows that aya exists: probes the kernel, loads and attaches the programs,
//! fills the tables, reads the rings.
#![allow(unsafe_code, reason = "aya asks for Pod, tokio for descriptors that stay open")]

mod disks;
mod doctor;
mod error;
mod guard;
mod load;
mod log;
mod maps;
mod modules;
mod offsets;
mod own;
mod pinned;
mod pins;
mod plan;
mod ring;
mod sensor;
mod stats;
mod tables;

pub use self::{
    doctor::{Check, DoctorReport, doctor},
    error::KernelError,
    guard::GuardMode,
    own::Own,
    pins::release,
    plan::Feature,
    ring::{Drained, Enough},
    sensor::{Found, Held, LeftBehind, Options, Sensor, give_memory_back},
    stats::Counters,
};

/// The kernel programs as they were built; empty when this binary was built without them.
pub(crate) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/ebpf.o"));

/// Looks up every field in these bytes as if a kernel had published them; the door for fuzzing.
///
/// # Errors
/// When they cannot be read, or a required field is missing.
#[doc(hidden)]
pub fn read_types(bytes: Vec<u8>) -> Result<(), KernelError> {
    offsets::Offsets::of_btf(bytes).map(drop)
}
