//! Evidence: whoever makes records signs them, and anybody can check what became of them.
//!
//! The author of records, an agent or the collector, notes a digest of each event in the order of
//! the sequences ([`Chain`]) and now and then signs what it has noted, together with the hash of
//! what it signed before: a checkpoint, which is an event like all others. [`Verifier`] looks at
//! events in any order and says which of them are what was signed, and what is missing.
#![forbid(unsafe_code)]

pub mod case;
mod chain;
mod checkpoint;
mod digest;
#[cfg(test)]
mod hostile;
mod key;
mod text;
mod verify;

pub use chain::{Chain, Head};
pub use checkpoint::{CheckpointError, Signed};
pub use digest::{ABSENT, DIGEST_BYTES, Digest, Name, digest};
pub use key::{KeyError, SigningKey, is_signed};
pub use text::{hex, unhex};
pub use verify::{Outcome, Scope, TooMuch, Verifier};
