//! Any text as a policy.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sekimori_fuzz::seeds;
use sekimori_policy::{NoDirectory, Severity, lint_bytes, load_bytes};

fuzz_target!(
    init: seeds::write(seeds::policies()),
    |bytes: &[u8]| {
        let findings = lint_bytes(bytes);
        let lines = 2 + bytes.iter().filter(|byte| b"\n\r".contains(*byte)).count();
        for finding in &findings {
            assert!((1..=lines).contains(&finding.line) && finding.column >= 1, "{finding}");
        }
        let refused = findings.iter().any(|it| it.severity == Severity::Error);
        assert_eq!(load_bytes(bytes, &NoDirectory, 1).is_err(), refused, "{findings:?}");
    }
);
