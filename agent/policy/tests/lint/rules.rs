//! Rules.

use rstest::rstest;

use crate::{assert_marked, body};

/// One rule on one line, the first character of its mapping in column 5 of line 6.
fn rule(text: &str) -> String {
    body(&format!("rules:\n  - {{ {text} }}\n"))
}

#[rstest]
#[case("id: a, on: §[], action: record", "`on` is an empty list", "")]
#[case("id: a, on: §exit, action: record", "unknown word `exit`", "")]
#[case(
    "id: a, on: §file.opne, action: record",
    "unknown word `file.opne`",
    "did you mean `file.open`?"
)]
#[case(
    "id: a, on: §file.read, action: record",
    "`file.read` is not supported by this version",
    "`file.open`"
)]
#[case("id: a, on: [exec, §print], action: record", "`print` is not supported by this version", "")]
#[case("id: a, on: §mail, action: record", "`mail` is not supported by this version", "")]
#[case(
    "id: a, on: §device.raw, action: record",
    "`device.raw` is not supported by this version",
    ""
)]
#[case("id: a, on: [exec, §exec], action: record", "`exec` is given twice", "")]
#[case(
    "id: a, on: exec, action: §deny+kill",
    "`deny+kill` is not supported by this version",
    "`deny`"
)]
#[case(
    "id: a, on: exec, action: §block",
    "unknown `action` `block`, expected `record`, `alert` or `deny`",
    ""
)]
#[case("id: a, on: exec, action: §dney", "unknown `action` `dney`", "did you mean `deny`?")]
#[case(
    "id: a, on: exec, action: record, mode: §of",
    "unknown `mode` `of`, expected `observe` or `enforce`",
    ""
)]
#[case(
    "id: §sekimori/x, on: exec, action: record",
    "ids that begin with `sekimori/` are reserved",
    ""
)]
#[case("id: a, on: exec, action: record, when: §{}", "`when` asks for nothing", "leave it out")]
#[case(
    "id: a, on: exec, action: record, when: { §bytes: 1 }",
    "`bytes` is not supported by this version",
    ""
)]
#[case(
    "id: a, on: exec, action: record, when: { §carries: x }",
    "`carries` is not supported by this version",
    ""
)]
#[case(
    "id: a, on: exec, action: record, when: { §outside: x }",
    "`outside` is not supported by this version",
    ""
)]
#[case(
    "id: a, on: exec, action: record, unless: { §users: x }",
    "unknown field `users` in `unless`",
    "did you mean `user`?"
)]
#[case("id: a, on: exec, action: record, when: { user: §[] }", "`user` is an empty list", "")]
#[case("id: a, on: exec, action: record, when: { user: [b, §b] }", "`b` is given twice", "")]
#[case(
    "id: a, on: exec, action: record, when: { label: §x }",
    "label `x` is not defined",
    "define it under `labels`"
)]
#[case(
    "id: a, on: exec, action: record, when: { program: §x }",
    "program group `x` is not defined",
    ""
)]
#[case(
    "id: a, on: usb.mount, action: record, when: { device: §x }",
    "device `x` is not defined",
    ""
)]
#[case(
    "id: a, on: net.connect, action: deny, when: { destination: §lopback }",
    "destination `lopback` is not defined",
    "did you mean `loopback`?"
)]
#[case(
    "id: a, on: [file.open, net.upload], action: deny, unless: { §label: x }",
    "`net.upload` has no `label`: this `unless` could never hold for it",
    "`file.open`, `usb.write`, `share.write` or `exec`"
)]
#[case("id: a, on: usb.mount, action: deny, when: { §label: x }", "`usb.mount` has no `label`", "")]
#[case(
    "id: a, on: file.open, action: deny, when: { §device: x }",
    "`file.open` has no `device`",
    "`usb.write`, `usb.mount` or `share.write`"
)]
#[case(
    "id: a, on: exec, action: deny, when: { §destination: x }",
    "`exec` has no `destination`",
    "`net.connect` or `net.upload`"
)]
#[case("id: a, on: §exec, action: deny", "the rule refuses every launch of every program", "")]
#[case(
    "id: a, on: [net.connect, §file.open], action: deny",
    "the rule refuses every open of every file",
    ""
)]
#[case(
    "id: a, on: exec, action: record, tell: §now",
    "expected a mapping for `tell`, found a text",
    ""
)]
#[case(
    "id: a, on: exec, action: record, tell: { admin: §loud }",
    "unknown `admin` `loud`, expected `low`, `medium` or `high`",
    ""
)]
#[case(
    "id: a, on: exec, action: record, tell: { user: §\"\\e[2J\" }",
    "the text has control characters",
    ""
)]
#[case(
    "id: a, on: exec, action: record, §actoin: deny",
    "unknown field `actoin` in a rule",
    "did you mean `action`?"
)]
#[case("id: §\" a\", on: exec, action: record", "`id` has space around it", "")]
fn rules(#[case] text: &str, #[case] expected: &str, #[case] hint: &str) {
    assert_marked(&rule(text), expected, hint);
}
