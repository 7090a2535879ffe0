//! Any bytes as what an agent sends.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use sekimori_fuzz::{Collector, seeds};

thread_local! {
    static COLLECTOR: RefCell<Collector> = RefCell::new(Collector::new());
}

fuzz_target!(
    init: seeds::write(seeds::batches()),
    |bytes: &[u8]| {
        COLLECTOR.with_borrow_mut(|collector| collector.take(bytes));
    }
);
