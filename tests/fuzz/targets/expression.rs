//! Any text as a filter.
#![no_main]

use std::cell::LazyCell;

use libfuzzer_sys::fuzz_target;
use sekimori_collector::expression::Expression;
use sekimori_fuzz::{seeds, spare_what_is_caught};
use sekimori_proto::v1::Event;

thread_local! {
    static EVENTS: LazyCell<Vec<Event>> = LazyCell::new(seeds::events);
}

fuzz_target!(
    init: {
        seeds::write(seeds::expressions());
        // The collector catches what the interpreter breaks on.
        spare_what_is_caught();
    },
    |bytes: &[u8]| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        let Ok(expression) = Expression::new(text) else { return };
        let again = Expression::new(text).expect("it is taken again");
        EVENTS.with(|events| {
            for event in events.iter() {
                assert_eq!(expression.matches(event), again.matches(event), "{text}");
            }
        });
    }
);
