//! Whole policies against a naive reading of the language: text → tables → verdict must be what a
//! person would work out with a pencil.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{collections::BTreeMap, fmt::Write as _, net::IpAddr};

use proptest::{prelude::*, sample::subsequence};
use sekimori_abi::event::device_class;
use sekimori_abi::table::{SET_NONE, action};
use sekimori_decide::Facts;
use sekimori_policy::{Compiled, Directory, Peer, PluggedDevice, Question, Word, explain, load};

const SUBJECTS: &str = r#"apiVersion: sekimori/v1
kind: Policy
metadata: { name: t }
labels:
  - { name: la, paths: ["/a/**"] }
  - { name: lb, paths: ["/*/b", "/家"] }
  - { name: lc, paths: ["/a/b/**"] }
programs:
  - { name: pa, exe: [/bin/p] }
  - { name: pb, exe: ["/bin/*", "/a/b"] }
users:
  - { name: ua, users: [1, 2] }
  - { name: ub, groups: [second] }
devices:
  - { name: da, usb: { serials: [S1, S2] } }
  - { name: db, usb: { vendor: "0951", product: "1666" } }
destinations:
  - { name: na, cidrs: [10.0.0.0/8, "2001:db8::/32"] }
  - { name: nb, ports: [443] }
  - { name: nc, cidrs: [10.1.0.0/16], ports: [80-81, 443] }
"#;

struct People;

impl Directory for People {
    fn uid_of(&self, name: &str) -> Option<u32> {
        (name == "dora").then_some(3)
    }

    fn members_of(&self, group: &str) -> Option<Vec<u32>> {
        (group == "second").then(|| vec![2])
    }
}

/// Names by subject; each list means any of them.
type Asked = BTreeMap<&'static str, Vec<&'static str>>;

#[derive(Clone, Debug)]
struct Rule {
    on: Vec<Word>,
    when: Asked,
    unless: Asked,
    action: &'static str,
    observe: bool,
}

#[derive(Clone, Debug)]
struct Event {
    word: Word,
    path: &'static str,
    exe: &'static str,
    uid: u32,
    device: (u16, u16, &'static str),
    peer: (&'static str, u16),
}

fn member(event: &Event, subject: &str, name: &str) -> bool {
    let (path, uid, peer) = (event.path, event.uid, event.peer);
    let program = if event.word == Word::Exec { event.path } else { event.exe };
    let tens = peer.0.starts_with("10.");
    match (subject, name) {
        ("label", "la") => path == "/a" || path.starts_with("/a/"),
        ("label", "lb") => {
            path == "/家" || (path.ends_with("/b") && path.matches('/').count() == 2)
        }
        ("label", "lc") => path == "/a/b" || path.starts_with("/a/b/"),
        ("program", "pa") => program == "/bin/p",
        ("program", "pb") => matches!(program, "/bin/p" | "/bin/q" | "/a/b"),
        ("user", "ua") => uid == 1 || uid == 2,
        ("user", "ub") => uid == 2,
        ("user", "dora") => uid == 3,
        ("device", "da") => matches!(event.device.2, "S1" | "S2"),
        ("device", "db") => (event.device.0, event.device.1) == (0x0951, 0x1666),
        ("destination", "na") => tens || peer.0.starts_with("2001:db8:"),
        ("destination", "nb") => peer.1 == 443,
        ("destination", "nc") => peer.0.starts_with("10.1.") && matches!(peer.1, 80 | 81 | 443),
        ("destination", "loopback") => peer.0.starts_with("127.") || peer.0 == "::1",
        _ => panic!("{subject} {name}"),
    }
}

fn holds(event: &Event, asked: &Asked) -> bool {
    asked.iter().all(|(subject, names)| names.iter().any(|name| member(event, subject, name)))
}

fn strength(rule: &Rule) -> u32 {
    match (rule.action, rule.observe) {
        ("record", _) => action::RECORD,
        ("alert", _) => action::ALERT,
        (_, true) => action::WOULD_DENY,
        (_, false) => action::DENY,
    }
}

/// Strength and number (from 1) of the rule that decides.
fn naive(rules: &[Rule], event: &Event) -> (u32, u32) {
    let applies = |rule: &Rule| {
        rule.on.contains(&event.word)
            && holds(event, &rule.when)
            && (rule.unless.is_empty() || !holds(event, &rule.unless))
    };
    let numbered = (1..).zip(rules).filter(|(_, rule)| applies(rule));
    numbered.map(|(number, rule)| (strength(rule), number)).max().unwrap_or_default()
}

fn names_of(subject: &str) -> Vec<&'static str> {
    match subject {
        "label" => vec!["la", "lb", "lc"],
        "program" => vec!["pa", "pb"],
        "user" => vec!["ua", "ub", "dora"],
        "device" => vec!["da", "db"],
        _ => vec!["na", "nb", "nc", "loopback"],
    }
}

fn asked(subjects: Vec<&'static str>) -> impl Strategy<Value = Asked> {
    let most = subjects.len().min(2);
    subsequence(subjects, 0..=most).prop_flat_map(|subjects| {
        let names = |subject| {
            let names = names_of(subject);
            let count = names.len();
            (Just(subject), subsequence(names, 1..=count))
        };
        let conditions: Vec<_> = subjects.into_iter().map(names).collect();
        conditions.prop_map(|conditions| conditions.into_iter().collect::<Asked>())
    })
}

fn rule() -> impl Strategy<Value = Rule> {
    let words = prop_oneof![
        subsequence(vec![Word::FileOpen, Word::UsbWrite, Word::ShareWrite, Word::Exec], 1..=4)
            .prop_map(|on| (on, vec!["label", "program", "user"])),
        subsequence(vec![Word::UsbWrite, Word::UsbMount, Word::ShareWrite], 1..=3)
            .prop_map(|on| (on, vec!["program", "user", "device"])),
        subsequence(vec![Word::NetConnect, Word::NetUpload], 1..=2)
            .prop_map(|on| (on, vec!["program", "user", "destination"])),
        Just((vec![Word::NetSocket], vec!["program", "user"])),
    ];
    let action = prop::sample::select(vec!["record", "alert", "deny", "deny"]);
    words
        .prop_flat_map(move |(on, subjects)| {
            let sides = (asked(subjects.clone()), asked(subjects));
            (Just(on), sides, action.clone(), any::<bool>())
        })
        .prop_map(|(on, (when, unless), action, observe)| {
            // Such a rule would be refused: it stops the machine.
            let stops = when.is_empty() && unless.is_empty();
            let action = if stops && action == "deny" { "alert" } else { action };
            Rule { on, when, unless, action, observe }
        })
}

fn event() -> impl Strategy<Value = Event> {
    let paths = vec!["/", "/x", "/a", "/a/b", "/c/b", "/a/b/c", "/a/c", "/家", "/bin/p", "/bin/q"];
    let addresses = vec!["10.0.0.1", "10.1.2.3", "127.9.9.9", "::1", "2001:db8::5", "192.0.2.1"];
    (
        prop::sample::select(Word::ALL.to_vec()),
        prop::sample::select(paths),
        prop::sample::select(vec!["/bin/p", "/bin/q", "/opt/x", "/a/b"]),
        0u32..5,
        prop::sample::select(vec![
            (0x0951, 0x1666, "S1"),
            (0x0951, 0x1666, "S3"),
            (0x0951, 0x1667, ""),
            (0, 0, "S2"),
        ]),
        (prop::sample::select(addresses), prop::sample::select(vec![80u16, 82, 443])),
    )
        .prop_map(|(word, path, exe, uid, device, peer)| Event {
            word,
            path,
            exe,
            uid,
            device,
            peer,
        })
}

fn source(rules: &[Rule]) -> String {
    let list = |asked: &Asked| {
        let fields: Vec<String> = asked
            .iter()
            .map(|(subject, names)| format!("{subject}: [{}]", names.join(", ")))
            .collect();
        fields.join(", ")
    };
    let mut source = SUBJECTS.to_owned();
    source.push_str(if rules.is_empty() { "rules: []\n" } else { "rules:\n" });
    for (number, rule) in (1..).zip(rules) {
        let on: Vec<&str> = rule.on.iter().map(|word| word.text()).collect();
        write!(source, "  - {{ id: r{number}, on: [{}], action: {}", on.join(", "), rule.action)
            .unwrap();
        for (side, asked) in [("when", &rule.when), ("unless", &rule.unless)] {
            if !asked.is_empty() {
                write!(source, ", {side}: {{ {} }}", list(asked)).unwrap();
            }
        }
        let mode = if rule.observe { ", mode: observe" } else { "" };
        writeln!(source, "{mode} }}").unwrap();
    }
    source
}

fn tables_say(compiled: &Compiled, event: &Event) -> (u32, u32) {
    let tables = &compiled.tables;
    let has_file =
        matches!(event.word, Word::FileOpen | Word::UsbWrite | Word::ShareWrite | Word::Exec);
    let set = if has_file { tables.set_of(event.path.as_bytes()) } else { SET_NONE };
    let acting = if event.word == Word::Exec { event.path } else { event.exe };
    let (vendor, product, serial) = event.device;
    let address: IpAddr = event.peer.0.parse().unwrap();
    let facts = Facts {
        programs: tables.programs_of(tables.set_of(acting.as_bytes())),
        users: tables.users_of(event.uid),
        devices: tables.devices_of(device_class::USB, vendor, product, serial.as_bytes()),
        destinations: tables.destinations_of(address, event.peer.1),
    };
    let outcome = tables.judge(event.word.kind(), set, &facts);
    (outcome.action, outcome.rule)
}

fn question(event: &Event) -> Question {
    let (vendor, product, serial) = event.device;
    Question {
        kind: event.word,
        path: Some(event.path.as_bytes().to_vec()),
        exe: Some(event.exe.as_bytes().to_vec()),
        user: Some(event.uid),
        device: Some(PluggedDevice {
            class: device_class::USB,
            vendor,
            product,
            serial: serial.to_owned(),
        }),
        peer: Some(Peer { address: event.peer.0.parse().unwrap(), port: event.peer.1 }),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn tables_decide_as_the_language_says(
        rules in prop_oneof![
            prop::collection::vec(rule(), 0..12),
            prop::collection::vec(rule(), 30..60),
        ],
        events in prop::collection::vec(event(), 30),
    ) {
        let source = source(&rules);
        let compiled = match load(&source, &People, 1) {
            Ok((compiled, _)) => compiled,
            // Too many different rules for one event are refused; anything else is a mistake.
            Err(findings) => {
                let only = findings.iter().all(|it| {
                    it.severity == sekimori_policy::Severity::Warning
                        || it.message.contains("rules could apply to one")
                });
                prop_assert!(only && rules.len() > 32, "{findings:#?}\n{source}");
                return Ok(());
            }
        };
        for event in &events {
            let expected = naive(&rules, event);
            prop_assert_eq!(tables_say(&compiled, event), expected, "{:?}\n{}", event, source);
            let explanation = explain(&compiled, &question(event));
            let id = (expected.1 != 0).then(|| format!("r{}", expected.1));
            prop_assert_eq!(explanation.rule, id);
            let applying = explanation.candidates.iter().any(|candidate| candidate.applies);
            prop_assert_eq!(applying, expected.1 != 0);
        }
    }
}
