//! Any bytes as the kernel's type information.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sekimori_fuzz::seeds;

fuzz_target!(
    init: seeds::write(seeds::kernels()),
    |bytes: &[u8]| {
        let _ = sekimori_agent::kernel::read_types(bytes.to_vec());
    }
);
