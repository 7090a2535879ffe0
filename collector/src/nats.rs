//! Several collectors on one bus, NATS JetStream: `bus.yaml`.
//!
//! A batch that was checked is published to a stream that keeps it on several servers, and is
//! acknowledged to the agent when the stream has it, and the own store. Every collector has a consumer of its own on
//! the stream and stores what comes there, so that each holds the records of all and answers for
//! all. What came twice, because a server, a collector or an agent died before it heard an answer,
//! is known by its boot and sequence in each store as always. A message leaves the stream when the
//! last of the collectors has it on its disk: one that is away finds everything when it returns.
//!
//! `settings` (the file) → `link` (connection, stream, consumer) → `publish` (to the stream) and
//! `take` (from it), `mend` (what it forgets to give); `signs` carries what the hosts say of themselves, which nobody stores.

mod link;
mod mend;
mod meter;
mod parcel;
mod publish;
mod settings;
mod signs;
mod take;

pub use link::Link;
pub use meter::Meter;
pub use publish::Publisher;
pub use settings::{FILE, Settings, SettingsError};
