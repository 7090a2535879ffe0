//! Any bytes as a case, and as the members of one that was signed.
#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use sekimori_evidence::case;
use sekimori_fuzz::{proof, seeds};

fuzz_target!(
    init: {
        let seeds = seeds::cases();
        let signed = seeds.get(1).and_then(|it| proof::signed_case(it)).expect("a case");
        let opened = case::open(Cursor::new(signed)).expect("it can be opened");
        assert_eq!(opened.outcome.summary.proven, 3, "and proves something");
        seeds::write(seeds);
    },
    |bytes: &[u8]| {
        for case in [Some(bytes.to_vec()), proof::signed_case(bytes)].into_iter().flatten() {
            if let Ok(opened) = case::open(Cursor::new(case)) {
                assert_eq!(opened.manifest.format, case::FORMAT);
                serde_json::to_string(&opened.manifest).expect("it can be shown");
            }
        }
    }
);
