//! The document, and what rules speak of.

use rstest::rstest;

use crate::{assert_marked, body};

#[rstest]
// The document.
#[case("§", "the policy is empty; begin with `apiVersion: sekimori/v1`")]
#[case("§- a\n", "expected a mapping for the policy, found a list")]
#[case("§just text", "expected a mapping for the policy, found a text")]
#[case("§kind: Policy\nmetadata: { name: x }\nrules: []\n", "the policy has no `apiVersion`")]
#[case(
    "apiVersion: §sekimori/v2\nkind: Policy\nmetadata: { name: x }\nrules: []\n",
    "`apiVersion` is `sekimori/v2`; expected `sekimori/v1`"
)]
#[case(
    "apiVersion: sekimori/v1\nkind: §Rule\nmetadata: { name: x }\nrules: []\n",
    "`kind` is `Rule`; expected `Policy`"
)]
#[case(
    "apiVersion: sekimori/v1\nkind: Policy\nmetadata: §{}\nrules: []\n",
    "metadata has no `name`"
)]
#[case("a: §[1, 2\n", "this is not YAML: ")]
#[case("a: &x §[1]\nb: *x\n", "anchors (`&name`) are not allowed")]
#[case("a: §*x\n", "aliases (`*name`) are not allowed")]
#[case("a: !!int §3\n", "tags (`!name`) are not allowed")]
#[case("a: 1\n§---\nb: 1\n", "a second document begins here")]
fn documents(#[case] source: &str, #[case] expected: &str) {
    assert_marked(source, expected, "");
}

#[rstest]
// Fields.
#[case("§rulez: []\n", "unknown field `rulez` in the policy, expected ", "did you mean `rules`?")]
#[case("rules: []\n§rules: []\n", "`rules` is given twice", "")]
#[case("§hours: []\n", "`hours` is not supported by this version", "remove it")]
#[case(
    "§exceptions:\n  - { rule: a, user: b }\n",
    "`exceptions` is not supported by this version",
    ""
)]
#[case("rules: §{}\n", "expected a list for `rules`, found a mapping", "")]
#[case("rules§:\n", "expected a list for `rules`, found nothing", "")]
#[case("rules:\n  - §text\n", "expected a mapping for a rule, found a text", "")]
#[case("? §[a]\n: b\nrules: []\n", "expected a field of the policy, found a list", "")]
// Labels and programs.
#[case("labels:\n  - §paths: [/a]\n", "a label has no `name`", "")]
#[case("labels:\n  - §name: a\n", "a label has no `paths`", "")]
#[case("labels:\n  - { name: a, paths: §[] }\n", "`paths` is an empty list", "")]
#[case("labels:\n  - { name: a, paths: [§~] }\n", "expected a text for `paths`, found nothing", "")]
#[case("labels:\n  - { name: §'', paths: [/a] }\n", "`name` is empty", "")]
#[case(
    "labels:\n  - { name: a, paths: [/a], §content: {} }\n",
    "`content` is not supported by this version",
    ""
)]
#[case(
    "programs:\n  - { name: a, exe: [/a], §sha256: [] }\n",
    "`sha256` is not supported by this version",
    ""
)]
#[case(
    "labels:\n  - { name: a, §path: [/a] }\n",
    "unknown field `path` in a label",
    "did you mean `paths`?"
)]
#[case("labels:\n  - { name: a, paths: [§srv/a] }\n", "the path is not absolute", "")]
#[case("labels:\n  - { name: a, paths: [§/srv/] }\n", "the path ends with `/`", "`/srv/**`")]
#[case("labels:\n  - { name: a, paths: [§/] }\n", "`/` names only the root", "`/**`")]
#[case("labels:\n  - { name: a, paths: [§/a//b] }\n", "the path has an empty component", "")]
#[case("labels:\n  - { name: a, paths: [§/a/../b] }\n", "`..` is not allowed in a path", "")]
#[case("labels:\n  - { name: a, paths: [§/a/./b] }\n", "`.` is not allowed in a path", "")]
#[case(
    "labels:\n  - { name: a, paths: [§/a/*.pdf] }\n",
    "`*` inside a name (`*.pdf`) is not supported",
    ""
)]
#[case(
    "labels:\n  - { name: a, paths: [§/a/***] }\n",
    "`*` inside a name (`***`) is not supported",
    ""
)]
#[case("labels:\n  - { name: a, paths: [§\"/a\\0b\"] }\n", "the path has a zero byte", "")]
#[case(
    "labels:\n  - { name: a, paths: [/x] }\n  - { name: §a, paths: [/y] }\n",
    "label `a` is already defined in line 6",
    ""
)]
// Devices.
#[case("devices:\n  - §{ name: a }\n", "a device has no `usb`", "")]
#[case("devices:\n  - { name: a, usb: §{} }\n", "`usb` asks for nothing", "")]
#[case("devices:\n  - { name: a, class: §floppy }\n", "`floppy` is no class", "`sd`")]
#[case(
    "devices:\n  - { name: a, usb: { vendor: \"0951\" }, class: §sd }\n",
    "`class` and `usb`",
    "two groups"
)]
#[case(
    "devices:\n  - { name: a, usb: { vendor: §951 } }\n",
    "`vendor` is `951`",
    "quoted: \"0951\""
)]
#[case(
    "devices:\n  - { name: a, usb: { product: §0x1666 } }\n",
    "`product` is `0x1666`",
    "quoted: \"1666\""
)]
#[case(
    "devices:\n  - { name: a, usb: { vendor: §kingston } }\n",
    "`vendor` is `kingston`",
    "as `lsusb` prints them"
)]
#[case(
    "devices:\n  - { name: a, usb: { §serial: X } }\n",
    "unknown field `serial` in `usb`",
    "did you mean `serials`?"
)]
// Destinations.
#[case(
    "destinations:\n  - { name: a, §domains: [x] }\n",
    "`domains` is not supported by this version",
    ""
)]
#[case(
    "destinations:\n  - { name: a, cidrs: [§10.0.0.0/33] }\n",
    "`10.0.0.0/33`: the prefix is longer",
    "`/32`"
)]
#[case(
    "destinations:\n  - { name: a, cidrs: [§10.0.0.1/8] }\n",
    "`10.0.0.1/8`: bits behind the prefix are set",
    "`10.0.0.0/8` or `10.0.0.1/32`"
)]
#[case(
    "destinations:\n  - { name: a, cidrs: [§corp.example] }\n",
    "`corp.example` is not an address",
    ""
)]
#[case(
    "destinations:\n  - { name: a, cidrs: [§\"10.0.0.0/+8\"] }\n",
    "`10.0.0.0/+8` is not an address",
    ""
)]
#[case("destinations:\n  - { name: a, ports: [§0] }\n", "`0` is not a port", "")]
#[case("destinations:\n  - { name: a, ports: [80, §9-8] }\n", "`9-8` is not a port", "")]
#[case("destinations:\n  - { name: a, ports: [§65536] }\n", "`65536` is not a port", "")]
// People.
#[case("users:\n  - §{ name: a }\n", "the group of users names nobody", "`users` or `groups`")]
#[case("rules:\n  - §{ on: exec, action: record }\n", "a rule has no `id`", "")]
#[case("rules:\n  - §{ id: a, action: record }\n", "a rule has no `on`", "")]
#[case("rules:\n  - §{ id: a, on: exec }\n", "a rule has no `action`", "")]
fn subjects(#[case] text: &str, #[case] expected: &str, #[case] hint: &str) {
    assert_marked(&body(text), expected, hint);
}
