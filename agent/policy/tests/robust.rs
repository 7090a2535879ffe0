//! Whatever the text, lint answers and does not panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use proptest::prelude::*;
use sekimori_policy::{Severity, lint, lint_bytes};

/// A policy with every construct, for mutation.
const WHOLE: &str = include_str!("../../dist/policies/office.yaml");

/// Texts in which YAML's own characters are frequent.
fn yaml_like() -> impl Strategy<Value = String> {
    let token = prop_oneof![
        Just("- ".to_owned()),
        Just(": ".to_owned()),
        Just("\n".to_owned()),
        Just("  ".to_owned()),
        Just("\t".to_owned()),
        "[\\[\\]{}&*!|>'\"%@`#?,~-]".prop_map(String::from),
        Just("rules".to_owned()),
        Just("---\n".to_owned()),
        Just("...\n".to_owned()),
        "[a-z0-9./*]{1,6}".prop_map(String::from),
        Just("顧客".to_owned()),
        any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(token, 0..80).prop_map(|tokens| tokens.concat())
}

proptest! {
    #[test]
    fn any_text(text in any::<String>()) {
        // No text made of arbitrary characters is a policy.
        prop_assert!(lint(&text).iter().any(|it| it.severity == Severity::Error));
    }

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(lint_bytes(&bytes).iter().any(|it| it.severity == Severity::Error));
    }

    #[test]
    fn text_that_looks_like_yaml(text in yaml_like()) {
        for finding in lint(&text) {
            prop_assert!(finding.line >= 1 && finding.column >= 1);
        }
    }

    #[test]
    fn a_policy_with_a_hole(from in 0..WHOLE.len(), length in 0usize..60, put in yaml_like()) {
        let mut bytes = WHOLE.as_bytes().to_vec();
        let to = (from + length).min(bytes.len());
        bytes.splice(from..to, put.into_bytes());
        let lines = 2 + bytes.iter().filter(|byte| **byte == b'\n' || **byte == b'\r').count();
        for finding in lint_bytes(&bytes) {
            prop_assert!(finding.line <= lines, "{finding} of {lines} lines");
        }
    }
}

#[test]
fn a_huge_document_is_refused_with_the_number() {
    let findings = lint(&"a: b\n".repeat(1 << 20));
    assert_eq!(
        findings[0].to_string(),
        "1:1: error: the policy is 5242880 bytes long; at most 4194304 are read"
    );
}

#[test]
fn deep_nesting_is_refused() {
    for text in [
        "[".repeat(100_000),
        "{a: ".repeat(100_000),
        "- ".repeat(100_000),
        (0..2_000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect::<String>(),
    ] {
        let findings = lint(&text);
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].severity, Severity::Error);
    }
    let thirty_three = format!("a: {}{}\n", "[".repeat(32), "]".repeat(32));
    let message = "nested more than 32 levels deep";
    assert!(lint(&thirty_three).iter().any(|it| it.message == message));
}

#[test]
fn many_mistakes_are_bounded_and_counted() {
    let findings = lint(&(0..5000).map(|at| format!("field{at}: x\n")).collect::<String>());
    assert_eq!(findings.len(), 1001);
    // 5000 unknown fields, three that are missing.
    assert_eq!(findings[1000].message, "4004 more findings are not shown");
}
