//! What the fuzz targets share: the way of a record through the agent and of a batch through the
//! collector, what somebody with a key can make, and inputs to begin with.

mod agent;
pub mod certificates;
mod collector;
pub mod proof;
#[allow(dead_code, reason = "the agent's tests use all of it")]
#[path = "../../../agent/src/decode/sample.rs"]
mod sample;
pub mod seeds;
pub mod tls;
#[allow(dead_code, reason = "the agent's tests use all of it")]
#[path = "../../../agent/src/kernel/offsets/sample.rs"]
mod types;

pub use agent::{Agent, valid};
pub use collector::Collector;

/// From here on a panic within a library is a finding only where nobody catches it.
pub fn spare_what_is_caught() {
    let abort = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let in_library = panic.location().is_some_and(|it| it.file().contains("/registry/src/"));
        if !in_library {
            abort(panic);
        }
    }));
}
