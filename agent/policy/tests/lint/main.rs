//! Every mistake is reported with its place, and all of them at once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod rules;
mod subjects;
mod whole;

use sekimori_policy::{Finding, Severity, lint};

/// Four lines, so that what follows begins in line 5.
const HEAD: &str = "apiVersion: sekimori/v1\nkind: Policy\nmetadata: { name: t }\nmode: enforce\n";

/// All errors, as they are shown.
pub fn errors(source: &str) -> Vec<String> {
    let of = |severity| move |finding: &&Finding| finding.severity == severity;
    lint(source).iter().filter(of(Severity::Error)).map(ToString::to_string).collect()
}

/// All warnings, as they are shown.
pub fn warnings(source: &str) -> Vec<String> {
    let warning = |finding: &&Finding| finding.severity == Severity::Warning;
    lint(source).iter().filter(warning).map(ToString::to_string).collect()
}

/// Whether lint says `expected` (and `hint`) exactly at the `§` of the text.
pub fn assert_marked(marked: &str, expected: &str, hint: &str) {
    let (before, after) = marked.split_once('§').expect("the case marks a place");
    let line = 1 + before.matches('\n').count();
    let column = 1 + before.rsplit('\n').next().unwrap().chars().count();
    let errors = errors(&format!("{before}{after}"));
    let wanted = format!("{line}:{column}: error: {expected}");
    let found = errors.iter().any(|it| it.starts_with(&wanted) && it.contains(hint));
    assert!(found, "wanted {wanted}, got {errors:#?}");
}

/// A policy that begins with the four lines.
pub fn body(text: &str) -> String {
    format!("{HEAD}{text}")
}
