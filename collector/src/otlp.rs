//! Stored events as OTLP logs, to one receiver over gRPC.
//!
//! The exporter reads the store as a subscriber does, by cursor, and sends one request at a time.
//! How far the receiver has acknowledged is on the disk (`kept`), so that a restart goes on from
//! there. What was acknowledged and not yet noted is sent again, with the same `log.record.uid`: at
//! least once. It holds up nobody: what retention removes before it could be sent is told to the
//! receiver as a gap, as is what cannot be read.

mod export;
mod kept;
mod meter;
mod record;
mod request;
mod target;

pub use export::Exporter;
pub use meter::Meter;
pub use target::{OtlpConfig, OtlpError};
