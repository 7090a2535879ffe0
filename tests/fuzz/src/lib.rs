//! What the fuzz targets share: the way of a record through the agent, and inputs to begin with.

mod agent;
#[allow(dead_code, reason = "the agent's tests use all of it")]
#[path = "../../../agent/src/decode/sample.rs"]
mod sample;
pub mod seeds;
pub mod tls;
#[allow(dead_code, reason = "the agent's tests use all of it")]
#[path = "../../../agent/src/kernel/offsets/sample.rs"]
mod types;

pub use agent::{Agent, valid};
