//! Any bytes off a ring.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sekimori_fuzz::{Agent, seeds};

fuzz_target!(
    init: seeds::write(seeds::records()),
    |bytes: &[u8]| {
        let mut agent = Agent::new();
        agent.take(bytes);
        agent.poll();
    }
);
