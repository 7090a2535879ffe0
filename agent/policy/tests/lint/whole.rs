//! Whole policies: order, doubts, limits, people.

use rstest::rstest;
use sekimori_policy::{Directory, NoDirectory, Severity, lint, lint_bytes, load};

use crate::{body, errors, warnings};

#[test]
fn a_rule_cannot_be_stronger_than_its_policy() {
    let rule = "rules:\n  - { id: a, on: usb.write, action: deny, mode: MODE }\n";
    let source = body(rule).replace("mode: enforce", "mode: observe");
    assert_eq!(
        errors(&source.replace("MODE", "enforce")),
        ["6:49: error: the rule's mode is stronger than the policy's; the policy observes: \
             remove the rule's `mode`, or set the policy's to `enforce`"]
    );
    assert_eq!(errors(&source.replace("MODE", "observe")), [""; 0]);
}

#[test]
fn all_mistakes_come_at_once_and_in_order() {
    let source = "apiVersion: sekimori/v3\nkind: Policy\nmetadata: { name: x }\nlabels:\n  \
        - { name: a, paths: [a, /b/, /c/*.x] }\n  - { paths: [/d] }\ndevices:\n  \
        - { name: d, usb: { vendor: 1 } }\nrules:\n  \
        - { id: r, on: file.opn, action: stop, when: { label: zzz } }\n  \
        - { id: r, on: print, action: deny }\nunknown: 1\n";
    let places: Vec<(usize, usize)> = lint(source)
        .into_iter()
        .filter(|finding| finding.severity == Severity::Error)
        .map(|finding| (finding.line, finding.column))
        .collect();
    assert_eq!(
        places,
        [
            (1, 13),
            (5, 24),
            (5, 27),
            (5, 32),
            (6, 5),
            (8, 31),
            (10, 18),
            (10, 36),
            (11, 18),
            (12, 1),
        ]
    );
}

#[test]
fn duplicate_rule_ids_point_at_the_second() {
    let source = body(
        "rules:\n  - { id: 規則, on: exec, action: record }\n  - { id: 規則, on: exec, action: alert }\n",
    );
    assert_eq!(
        errors(&source),
        ["7:11: error: rule `規則` is already defined in line 6; give it another name"]
    );
}

#[test]
fn columns_count_characters() {
    let source = body("labels:\n  - { name: 顧客情報, paths: [顧客] }\n");
    assert!(errors(&source)[0].starts_with("6:27: error: the path is not absolute"));
}

#[rstest]
#[case(
    "labels:\n  - { name: a, paths: [/x] }\nrules: []\n",
    "6:13: warning: label `a` is in no rule"
)]
#[case(
    "devices:\n  - { name: a, usb: { vendor: 0951 } }\nrules: []\n",
    "6:13: warning: device `a` is in no rule"
)]
#[case("", "1:1: warning: the policy has no `rules`: events are recorded and nothing is judged")]
#[case(
    "users:\n  - { name: staff, users: [a] }\nrules:\n  \
     - { id: r, on: exec, when: { user: [staff, staf] }, action: record }\n",
    "8:46: warning: `staf` is no group under `users` and taken as a login name; \
     did you mean `staff`?"
)]
#[case(
    "labels:\n  - { name: a, paths: [/x, /x] }\nrules:\n  \
     - { id: r, on: exec, when: { label: a }, action: record }\n",
    "6:28: warning: this path is given twice"
)]
#[case(
    "programs:\n  - { name: p, exe: /x }\nrules:\n  \
     - { id: r, on: exec, unless: { program: p }, action: deny }\n",
    "8:18: warning: the rule refuses every launch of every program outside of its `unless`; \
     try it with `mode: observe` first"
)]
fn doubts(#[case] text: &str, #[case] expected: &str) {
    assert_eq!(warnings(&body(text)), [expected]);
    assert_eq!(errors(&body(text)), [""; 0]);
}

/// The tree keeps what was written, so ids need no quotes; what is not four digits is refused.
#[rstest]
#[case("0951", 0x0951)]
#[case("\"0951\"", 0x0951)]
#[case("1666", 0x1666)]
#[case("'abCD'", 0xabcd)]
#[case("1e10", 0x1e10)]
fn usb_ids(#[case] written: &str, #[case] id: u32) {
    let source = body(&format!(
        "devices:\n  - {{ name: d, usb: {{ vendor: {written} }} }}\nrules:\n  \
         - {{ id: r, on: usb.mount, when: {{ device: d }}, action: alert }}\n"
    ));
    let (compiled, _) = load(&source, &NoDirectory, 1).unwrap();
    assert_eq!(compiled.tables.devices[0].0.vendor, id);
}

#[test]
fn long_names_serials_and_texts_are_refused_with_the_number() {
    let id = "x".repeat(129);
    let errors_of = |text: &str| errors(&body(text)).join("\n");
    assert!(
        errors_of(&format!("rules:\n  - {{ id: {id}, on: exec, action: record }}\n"))
            .contains("`id` is 129 bytes long; at most 128")
    );
    let serial = "y".repeat(64);
    assert!(
        errors_of(&format!("devices:\n  - {{ name: d, usb: {{ serials: {serial} }} }}\n"))
            .contains("the serial is 64 bytes long; at most 63")
    );
    let tell = "z".repeat(1025);
    let rule =
        format!("rules:\n  - {{ id: r, on: exec, action: record, tell: {{ user: {tell} }} }}\n");
    assert!(errors_of(&rule).contains("the text is 1025 bytes long; at most 1024"));
    let name = "あ".repeat(86);
    assert!(
        errors_of(&format!("labels:\n  - {{ name: a, paths: [\"/{name}\"] }}\n"))
            .contains("a component is 258 bytes long; a file name has at most 255")
    );
    let deep = "/a".repeat(49);
    assert!(
        errors_of(&format!("labels:\n  - {{ name: a, paths: [{deep}] }}\n"))
            .contains("the path has 49 components; at most 47")
    );
}

#[test]
fn bytes_that_are_not_utf8_are_refused_with_their_place() {
    let findings = lint_bytes(
        "a: b\n日本\u{0}: ".as_bytes().iter().copied().chain([0xff]).collect::<Vec<_>>().as_slice(),
    );
    assert_eq!(
        findings[0].to_string(),
        "2:6: error: the policy is not UTF-8 text from here on; save the file as UTF-8"
    );
}

struct Staff;

impl Directory for Staff {
    fn uid_of(&self, name: &str) -> Option<u32> {
        (name == "alice").then_some(1000)
    }

    fn members_of(&self, group: &str) -> Option<Vec<u32>> {
        (group == "dev").then(|| vec![1000, 1001])
    }
}

#[test]
fn people_become_uids_and_missing_ones_warnings() {
    let source = body(
        "users:\n  - { name: staff, users: [alice, 2000, bob], groups: [dev, ops] }\n\
         rules:\n  - { id: r, on: exec, when: { user: [staff, alice, carol] }, action: record }\n",
    );
    let (compiled, findings) = load(&source, &Staff, 1).unwrap();
    assert_eq!(compiled.names.users, ["staff", "alice", "carol"]);
    assert_eq!(compiled.tables.users, [(1000, 0b11), (1001, 0b01), (2000, 0b01)]);
    let texts: Vec<String> = findings.iter().map(ToString::to_string).collect();
    let hint = "the policy takes effect for it after a reload";
    assert_eq!(
        texts,
        [
            format!("6:41: warning: this machine has no user `bob` yet; {hint}"),
            format!("6:61: warning: this machine has no group `ops` yet; {hint}"),
            format!("8:53: warning: this machine has no user `carol` yet; {hint}"),
        ]
    );
    assert_eq!(warnings(&source), [""; 0]);
}
